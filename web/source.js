/**
 * Where a model's bytes come from. A source is opened at a range (or from its start) and gives a stream; the stream
 * gives chunks in file order. Nothing here knows what the bytes mean.
 */
import { NiblError } from './errors.js'
import { fileNameOf, firstFile } from './folder.js'
import { UrlSource } from './http.js'
import { isNode, nodeModule } from './platform.js'
import { ByteStream, alone, reasonOf } from './stream.js'

/**
 * @typedef {{ kind: 'url', url: string, headers?: Record<string, string>, part?: boolean, response?: Promise<Response> }
 *   | { kind: 'hub', hub: string, model: import('./describe.js').Name, token?: string, headers?: Record<string, string> }
 *   | { kind: 'blob', blob: Blob, name: string }
 *   | { kind: 'files', files: { name: string, blob: Blob }[] }
 *   | { kind: 'path', path: string }
 *   | { kind: 'stream', stream: ReadableStream, name: string, size: number, expected: number }
 *   | { kind: 'relay', port: MessagePort, name: string }} Descriptor `relay`: opened by another thread (relay.js)
 */

/** @typedef {import('./stream.js').Limits} Limits */
/** @typedef {import('./stream.js').Range} Range */
/** @template {import('./stream.js').Stream} [T=import('./stream.js').Stream] @typedef {import('./stream.js').Source<T>} Source */

/** A model hub is hub.js, which few need. @param {Exclude<Descriptor, { kind: 'relay' | 'hub' }>} descriptor @param {Limits} limits @returns {Source} */
export function openSource(descriptor, limits) {
  switch (descriptor.kind) {
    case 'url':
      return new UrlSource(descriptor, limits)
    case 'blob':
      return new BlobSource(descriptor, limits)
    case 'files':
      return new FilesSource(descriptor, limits)
    case 'path':
      return new PathSource(descriptor, limits)
    case 'stream':
      return new StreamSource(descriptor, limits)
  }
}

class BlobSource {
  #blob
  #limits

  /** @param {Extract<Descriptor, { kind: 'blob' }>} descriptor @param {Limits} limits */
  constructor({ blob, name }, limits) {
    this.name = name
    this.fileName = fileNameOf(name)
    this.#blob = blob
    this.#limits = limits
  }

  /** @param {string} fileName @returns {never} */
  sibling(fileName) {
    throw alone(this.name, fileName)
  }

  again = () => true

  /** @param {Range} [range] */
  async open(range) {
    const part = range ? this.#blob.slice(range.start, range.end) : this.#blob
    const about = { name: this.name, offset: range?.start ?? 0, size: this.#blob.size, expected: part.size, ranged: true }
    return new ByteStream(part.stream(), about, this.#limits)
  }
}

/** Files that were picked: one of them to start with, and those it asks for. */
class FilesSource {
  #files
  #limits
  #first

  /** @param {Extract<Descriptor, { kind: 'files' }>} descriptor @param {Limits} limits */
  constructor({ files }, limits) {
    const names = files.map(({ name }) => name)
    this.name = this.fileName = firstFile(names, 'the files')
    this.#files = new Map(files.map(({ name, blob }) => [name, blob]))
    this.#limits = limits
    this.#first = this.sibling(this.name)
  }

  again = () => true

  /** @param {Range} [range] */
  open(range) {
    return this.#first.open(range)
  }

  /** @param {string} fileName @returns {Source<ByteStream>} */
  sibling(fileName) {
    const blob = this.#files.get(fileName)
    if (blob) return new BlobSource({ kind: 'blob', blob, name: fileName }, this.#limits)
    throw new NiblError('FILE_FAILED', `${fileName} is not among the files; add it.`, { status: 404 })
  }
}

/** A file or folder under Node. */
class PathSource {
  #limits

  /** @param {Extract<Descriptor, { kind: 'path' }>} descriptor @param {Limits} limits */
  constructor({ path }, limits) {
    this.name = path
    this.fileName = fileNameOf(path)
    this.#limits = limits
  }

  again = () => true

  async resolve() {
    if (!isNode) return
    const { promises } = nodeModule('node:fs')
    const isFolder = await promises.stat(this.name).then((/** @type {any} */ file) => file.isDirectory(), () => false)
    if (!isFolder) return
    this.fileName = firstFile(await promises.readdir(this.name), this.name)
    this.name = nodeModule('node:path').join(this.name, this.fileName)
  }

  /** @param {string} fileName @returns {Source<ByteStream>} */
  sibling(fileName) {
    const { dirname, join } = nodeModule('node:path')
    return new PathSource({ kind: 'path', path: join(dirname(this.name), fileName) }, this.#limits)
  }

  /** @param {Range} [range] */
  async open(range) {
    if (!isNode) throw new NiblError('BAD_ARGUMENT', `${this.name}: a browser cannot open a path; pass a File.`)
    const { promises } = nodeModule('node:fs')
    let file
    try {
      file = await promises.open(this.name)
      const stat = await file.stat()
      if (stat.isDirectory()) throw new Error('it is a directory')
      const size = stat.size
      const start = Math.min(range?.start ?? 0, size)
      const end = Math.max(start, Math.min(range?.end ?? size, size))
      const about = { name: this.name, offset: start, size, expected: end - start, ranged: true }
      return new ByteStream(fileStream(file, start, end), about, this.#limits)
    } catch (cause) {
      await file?.close()
      const status = /** @type {any} */ (cause)?.code === 'ENOENT' ? 404 : undefined
      throw new NiblError('FILE_FAILED', `${this.name} cannot be read: ${reasonOf(cause)}`, { status, cause })
    }
  }
}

/** Bytes of a file, which it closes, read into the buffers of whoever reads: chunks of its own would be garbage faster than
 * they are collected. @param {any} file a FileHandle @param {number} at @param {number} end */
function fileStream(file, at, end) {
  return new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      const request = /** @type {ReadableStreamBYOBRequest} */ (controller.byobRequest)
      const view = /** @type {Uint8Array} */ (request.view)
      try {
        const { bytesRead } = await file.read(view, 0, Math.min(view.length, end - at), at)
        at += bytesRead
        if (bytesRead > 0) return request.respond(bytesRead)
        controller.close()
        request.respond(0)
        await file.close()
      } catch (error) {
        await file.close().catch(() => {})
        throw error
      }
    },
    cancel: () => file.close(),
  })
}

/** A stream given by the caller: read once, from its start. */
class StreamSource {
  #descriptor
  #limits

  /** @param {Extract<Descriptor, { kind: 'stream' }>} descriptor @param {Limits} limits */
  constructor(descriptor, limits) {
    this.name = descriptor.name
    this.fileName = fileNameOf(descriptor.name)
    this.#descriptor = descriptor
    this.#limits = limits
  }

  /** @param {string} fileName @returns {never} */
  sibling(fileName) {
    throw alone(this.name, fileName)
  }

  async open() {
    const { stream, name, size, expected } = this.#descriptor
    return new ByteStream(stream, { name, offset: 0, size, expected, ranged: false }, this.#limits)
  }
}


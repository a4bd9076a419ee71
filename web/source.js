/**
 * Where a model's bytes come from. A source is opened at a range (or from its start) and gives a stream; the stream
 * gives chunks in file order. Nothing here knows what the bytes mean.
 */
import { NiblError, abortReason, throwIfAborted, unlessAborted } from './errors.js'
import { fileNameOf, firstFile } from './folder.js'
import { isNode, nodeModule } from './platform.js'

/**
 * @typedef {{ kind: 'url', url: string, headers?: Record<string, string>, part?: boolean, response?: Promise<Response> }
 *   | { kind: 'blob', blob: Blob, name: string }
 *   | { kind: 'files', files: { name: string, blob: Blob }[] }
 *   | { kind: 'path', path: string }
 *   | { kind: 'stream', stream: ReadableStream, name: string, size: number, expected: number }
 *   | { kind: 'relay', port: MessagePort, name: string }} Descriptor `relay`: opened by another thread (relay.js)
 */

/** @typedef {{ start: number, end: number }} Range */
/** @typedef {{ signal?: AbortSignal, timeout: number }} Limits `timeout`: milliseconds without a byte; 0 = none */

/**
 * @typedef {object} Stream
 * @property {number} offset of the next byte in the file
 * @property {number} size of the file, 0 if unknown
 * @property {boolean} ranged other ranges can be opened
 * @property {() => Promise<Uint8Array | null>} read the next chunk, valid until the next call; null at the end
 * @property {() => Promise<void>} cancel gives up what has not been read
 */

/**
 * @template {Stream} [T=Stream]
 * @typedef {object} Source
 * @property {string} name for messages
 * @property {string} fileName without its folder; '' if unknown
 * @property {() => Promise<void>} [resolve] finds the file that a load starts with; to be called first
 * @property {(range?: Range) => Promise<T>} open
 * @property {(fileName: string) => Source<T>} sibling another file of the same folder
 */

const CHUNK = 512 << 10

/** Bytes in file order, from `offset` on. */
export class ByteStream {
  /** @type {ReadableStreamDefaultReader<Uint8Array> | ReadableStreamBYOBReader} */
  #reader
  /** @type {ArrayBuffer | null} */
  #buffer = null
  /** Reading into buffers given spares the engine an allocation for each chunk. */
  fills = true
  #limits
  #start
  #expired = false

  /**
   * @param {ReadableStream<Uint8Array>} stream
   * @param {{ name: string, offset: number, size: number, expected: number, ranged: boolean }} about `size`: of the
   *   file, `expected`: bytes of this stream; both 0 if unknown
   * @param {Limits} limits
   */
  constructor(stream, { name, offset, size, expected, ranged }, limits) {
    this.name = name
    this.offset = this.#start = offset
    this.size = size
    this.expected = expected
    this.ranged = ranged
    this.#limits = limits
    try {
      this.#reader = stream.getReader({ mode: 'byob' })
    } catch {
      this.#reader = stream.getReader()
      this.fills = false
    }
  }

  /** The next chunk, valid until the next call; null at the end.
   * @param {ArrayBuffer} [buffer] to be filled and used up, where the stream `fills` buffers; else one of its own
   * @returns {Promise<Uint8Array | null>} */
  async read(buffer) {
    const { signal, timeout } = this.#limits
    const cancel = () => void this.cancel()
    const expire = () => {
      this.#expired = true
      cancel()
    }
    throwIfAborted(signal)
    const timer = timeout ? setTimeout(expire, timeout) : undefined
    signal?.addEventListener('abort', cancel)
    let chunk
    try {
      chunk = await this.#next(buffer)
    } catch (cause) {
      this.#checkInterrupted()
      if (cause instanceof NiblError) throw cause
      throw this.#lost(cause)
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', cancel)
    }
    this.#checkInterrupted()
    if (chunk) this.offset += chunk.length
    else if (this.#received < this.expected) throw this.#lost()
    return chunk
  }

  /** @param {ArrayBuffer} [buffer] */
  async #next(buffer) {
    const reader = /** @type {any} */ (this.#reader)
    const view = this.fills && new Uint8Array(buffer ?? this.#buffer ?? new ArrayBuffer(CHUNK))
    const { value, done } = view ? await reader.read(view) : await reader.read()
    if (done) return null
    if (this.fills && !buffer) this.#buffer = value.buffer
    if (value instanceof Uint8Array) return value
    if (value instanceof ArrayBuffer) return new Uint8Array(value)
    throw new NiblError('BAD_ARGUMENT', `${this.name} gives ${typeof value} where Uint8Array is needed.`)
  }

  get #received() {
    return this.offset - this.#start
  }

  #checkInterrupted() {
    throwIfAborted(this.#limits.signal)
    if (!this.#expired) return
    throw timedOut(this.name, this.#limits.timeout, `after ${this.offset} bytes`)
  }

  /** @param {unknown} [cause] */
  #lost(cause) {
    const whole = this.expected ? ` of ${this.#start + this.expected}` : ''
    const message = `${this.name}: the connection was lost after ${this.offset}${whole} bytes. Try again.`
    return new NiblError('DOWNLOAD_FAILED', message, { cause })
  }

  /** Gives up what has not been read. */
  async cancel() {
    await this.#reader.cancel().catch(() => {})
  }
}

/** @param {string} name @param {number} timeout @param {string} when */
function timedOut(name, timeout, when) {
  return new NiblError('TIMEOUT', `${name}: no byte came for ${timeout / 1000} s ${when}. Try again. (timeout)`)
}

/** @param {Exclude<Descriptor, { kind: 'relay' }>} descriptor @param {Limits} limits @returns {Source<ByteStream>} */
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

class UrlSource {
  #descriptor
  #limits
  /** @type {string | null} */
  #validator = null

  /** @param {Extract<Descriptor, { kind: 'url' }>} descriptor @param {Limits} limits */
  constructor(descriptor, limits) {
    this.name = descriptor.url
    this.fileName = fileNameOf(descriptor.url)
    this.#descriptor = descriptor
    this.#limits = limits
  }

  /** @param {string} fileName @returns {Source<ByteStream>} */
  sibling(fileName) {
    const url = new URL(encodeURIComponent(fileName), this.name)
    url.search = new URL(this.name).search
    return new UrlSource({ kind: 'url', url: url.href, headers: this.#descriptor.headers }, this.#limits)
  }

  /** @param {Range} [range] @returns {Promise<ByteStream>} */
  async open(range) {
    const response = await this.#fetch(range)
    if (range && response.status === 416) {
      return new ByteStream(emptyStream(), this.#about(range.start, 0, 0, true), this.#limits)
    }
    checkStatus(response, this.name)
    const validator = response.headers.get('ETag') ?? response.headers.get('Last-Modified')
    if (this.#validator !== null && validator !== this.#validator) {
      throw new NiblError('DOWNLOAD_FAILED', `${this.name} changed while it was downloaded. Load it again.`)
    }
    this.#validator = validator
    const { size, length } = responseLength(response)
    const ranged = range !== undefined && response.status === 206
    const stream = response.body ?? emptyStream()
    if (!ranged) return new ByteStream(stream, this.#about(0, size, length, false), this.#limits)

    /* Not exposed to other origins unless the server says so: then 206 alone has to do. */
    const contentRange = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')
    if (contentRange && Number(contentRange[1]) !== range.start) {
      throw new NiblError('DOWNLOAD_FAILED', `${this.name}: the server sent another range than it was asked for.`)
    }
    const whole = contentRange ? Number(contentRange[2]) : 0
    return new ByteStream(stream, this.#about(range.start, whole, length, true), this.#limits)
  }

  /** @param {number} offset @param {number} size @param {number} expected @param {boolean} ranged */
  #about(offset, size, expected, ranged) {
    return { name: this.name, offset, size, expected, ranged }
  }

  /** @param {Range} [range] */
  async #fetch(range) {
    const { signal, timeout } = this.#limits
    const headers = { ...this.#descriptor.headers, ...(range && { Range: `bytes=${range.start}-${range.end - 1}` }) }
    const controller = new AbortController()
    const abort = () => controller.abort()
    let expired = false
    const expire = () => {
      expired = true
      abort()
    }
    throwIfAborted(signal)
    const timer = timeout ? setTimeout(expire, timeout) : undefined
    signal?.addEventListener('abort', abort)
    try {
      /* A worker has asked already, before this code was there (worker.js); an abort ends the whole worker. */
      const asked = range ? undefined : this.#descriptor.response
      return await unlessAborted(asked ?? fetch(this.name, { headers, signal: controller.signal }), controller.signal)
    } catch (cause) {
      if (signal?.aborted) throw abortReason(signal)
      if (expired) throw timedOut(this.name, timeout, 'after the request')
      const message =
        `${this.name} cannot be reached: ${reasonOf(cause)}. Check the address and the network; ` +
        'a server of another origin must allow this page (Access-Control-Allow-Origin).'
      throw new NiblError('DOWNLOAD_FAILED', message, { cause })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
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
    const { promises, createReadStream } = nodeModule('node:fs')
    let size
    try {
      const file = await promises.stat(this.name)
      if (file.isDirectory()) throw new Error('it is a directory')
      size = file.size
    } catch (cause) {
      const status = /** @type {any} */ (cause)?.code === 'ENOENT' ? 404 : undefined
      throw new NiblError('FILE_FAILED', `${this.name} cannot be read: ${reasonOf(cause)}`, { status, cause })
    }
    const start = Math.min(range?.start ?? 0, size)
    const end = Math.min(range?.end ?? size, size)
    const about = { name: this.name, offset: start, size, expected: end - start, ranged: true }
    if (end <= start) return new ByteStream(emptyStream(), about, this.#limits)
    const file = createReadStream(this.name, { start, end: end - 1, highWaterMark: CHUNK })
    return new ByteStream(nodeModule('node:stream').Readable.toWeb(file), about, this.#limits)
  }
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

/** @param {string} name @param {string} fileName */
export function alone(name, fileName) {
  const message = `${name} is one file, but the model needs ${fileName} too. Give a URL, a path or all files.`
  return new NiblError('BAD_ARGUMENT', message)
}

/** The file is not there at all: a folder may lack some. @param {unknown} error */
export function isMissing(error) {
  return error instanceof NiblError && error.status === 404
}

/** @param {Response} response @param {string} name */
export function checkStatus(response, name) {
  if (response.ok) return
  const { status, statusText } = response
  const hint = status === 404 ? 'Check the address.' : status < 500 ? 'Is a login needed? (headers)' : 'Try again later.'
  const message = `${name}: the server answered ${status} ${statusText}`.trimEnd()
  throw new NiblError('DOWNLOAD_FAILED', `${message}. ${hint}`, { status })
}

/** What a response's headers promise. Content-Length counts the bytes on the wire: where a Content-Encoding is (or,
 * from another origin, may hide), it says nothing sure about the file.
 * @param {Response} response
 * @returns {{ size: number, length: number }} of the file as far as sure, and of this body as far as sure; else 0 */
export function responseLength(response) {
  const sure = response.type !== 'cors' && !response.headers.has('Content-Encoding')
  const length = sure ? Number(response.headers.get('Content-Length')) : 0
  return { size: length, length }
}

function emptyStream() {
  return new ReadableStream({ start: (controller) => controller.close() })
}

/** @param {unknown} error */
function reasonOf(error) {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? error.cause.message : error.message
}

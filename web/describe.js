/** What a caller may name as a model, turned into something that another thread can open (source.js). */
import { NiblError } from './errors.js'
import { fileNameOf, isPart } from './folder.js'
import { isNode, nodeModule } from './platform.js'
import { refusal, responseLength } from './http.js'

/** @typedef {import('./relay.js').OpenDescriptor} Descriptor */

/** `path`: '' or of a file or folder (ends in '/') in the repository.
 * @typedef {{ text: string, repository: string, revision: string, quant: string, path: string }} Name */
/** @param {string} text @returns {Name} */
function parseName(text) {
  const match = /^hf:([\w.-]+\/[\w.-]+)(?::([\w.-]+))?(?:@([^/]+))?(?:\/(.*))?$/.exec(text)
  const [, repository, quant = '', given = 'main', path = ''] = match ?? []
  const revision = given.replace(/%2f/gi, '/')
  const parts = `${repository}/${path}`.split('/')
  const climbs = parts.some((part, at) => part === '.' || part === '..' || (part === '' && at < parts.length - 1))
  if (repository && !climbs) return { text, repository, revision, quant, path }
  const form = 'hf:owner/repository[:quant][@revision][/path/of/a/file.gguf or a/folder/]'
  throw new NiblError('BAD_ARGUMENT', `${text} is no name of a model: it must be ${form}. A slash in a revision is written %2F.`)
}

/** @param {any} source @param {{ headers?: HeadersInit, hub?: string, token?: string }} [options] @returns {Descriptor} */
export function describeSource(source, options = {}) {
  if (isFiles(source)) return describeFiles([...source])
  if (source instanceof Blob) return describeBlob(source, 'name' in source ? String(source.name) : 'the blob')
  if (typeof source === 'string' || source instanceof URL) return describeAddress(source, options)
  if (source instanceof Response) {
    const name = source.url || 'the response'
    if (!source.ok) throw refusal(source, name)
    if (source.bodyUsed || !source.body) {
      throw new NiblError('BAD_ARGUMENT', `${name}: the body of this response is gone. Was it read before?`)
    }
    const { size, length } = responseLength(source)
    return { kind: 'stream', stream: source.body, name, size, expected: length }
  }
  if (source instanceof ReadableStream) {
    if (source.locked) throw new NiblError('BAD_ARGUMENT', 'The stream is locked: somebody else reads it.')
    return { kind: 'stream', stream: source, name: 'the stream', size: 0, expected: 0 }
  }
  if (source instanceof ArrayBuffer) return describeSource(new Uint8Array(source))
  if (source instanceof Uint8Array) {
    const { length } = source
    return { kind: 'stream', stream: chunksOf(source), name: 'the bytes', size: length, expected: length }
  }
  throw new NiblError(
    'BAD_ARGUMENT',
    'A model comes from a URL, File, Blob, list of files, Response, ReadableStream or Uint8Array, or under Node from a path.',
  )
}

/** What relative addresses are relative to: the page, or the worker that loads a model. */
export function pageAddress() {
  return globalThis.document?.baseURI ?? globalThis.location?.href
}

/** @param {any} source @returns {source is Iterable<File>} */
function isFiles(source) {
  const isList = Array.isArray(source) || (typeof FileList === 'function' && source instanceof FileList)
  return isList && source.length > 0 && [...source].every((file) => file instanceof Blob && 'name' in file)
}

/** Of a picked folder only what stands in it, not in folders inside it. @param {File[]} files @returns {Descriptor} */
function describeFiles(files) {
  const depthOf = (/** @type {File} */ file) => (file.webkitRelativePath ?? '').split('/').length
  const depth = Math.min(...files.map(depthOf))
  const chosen = files.filter((file) => depthOf(file) === depth)
  /* With their names beside them: Node forgets a File's on its way to another thread. */
  return { kind: 'files', files: chosen.map((blob) => ({ name: blob.name, blob })) }
}

/** @param {Blob} blob @param {string} name @returns {Descriptor} */
function describeBlob(blob, name) {
  /* Node does not hand a Blob of a file to another thread. */
  if (isNode) return { kind: 'stream', stream: blob.stream(), name, size: blob.size, expected: blob.size }
  return { kind: 'blob', blob, name }
}

/** @param {string | URL} address @param {{ headers?: HeadersInit, hub?: string, token?: string }} options
 * @returns {Descriptor} */
function describeAddress(address, { headers: given, hub = '', token }) {
  const text = String(address)
  const headers = given && Object.fromEntries(new Headers(given))
  if (text.startsWith('hf:')) return { kind: 'hub', hub: new URL(hub, pageAddress()).href, model: parseName(text), token, headers }
  if (isNode && text.startsWith('file:')) return { kind: 'path', path: nodeModule('node:url').fileURLToPath(text) }
  if (isNode && !/^(https?|data|blob):/.test(text)) return { kind: 'path', path: text }
  /* The worker's own address differs from the page's: only this side can complete a relative one. */
  const url = new URL(text, pageAddress())
  if (url.pathname.endsWith('/')) url.pathname += 'config.json'
  return { kind: 'url', url: url.href, part: isPart(fileNameOf(url.href)), headers }
}

/** A copy in small parts, made as they are asked for: the caller keeps the array.
 * @param {Uint8Array} bytes */
function chunksOf(bytes) {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at < bytes.length) controller.enqueue(Uint8Array.prototype.slice.call(bytes, at, (at += 1 << 18))) // a Buffer's own gives no copy
      else controller.close()
    },
  })
}

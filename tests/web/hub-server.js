/**
 * A model hub on loopback: lists a repository's files in pages, and sends a file's readers on to another origin with a
 * signed address that expires. It does what is told in `faults`, and keeps what it was asked.
 */
import { createHash, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'

/**
 * @typedef {Record<string, Uint8Array>} Files by path
 * @typedef {object} Faults
 * @property {string} [token] without it repositories are gated
 * @property {number} [uses] of a signed address, then 403
 * @property {number} [cutAfter] bytes after which the storage breaks each connection
 * @property {number} [busy] answers that are 429 or 503 at first
 * @property {string} [html] path that is answered with a page and status 200
 * @property {string} [foreignPage] the list's second page is said to be there
 * @property {boolean} [hidden] the storage exposes neither ETag nor Content-Range
 * @property {Files} [changed] what the storage has instead of what the list says
 */

/** @typedef {{ method: string, url: string, authorization: string | undefined, range: string | undefined, headers: string[] }} Asked */

const PAGE = 3

/** @param {(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => void} answer */
async function listen(answer) {
  const server = createServer(answer)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  server.unref()
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { url: `http://127.0.0.1:${port}`, close }
}

/** @param {import('node:crypto').BinaryLike} bytes @param {string} kind */
const hash = (bytes, kind) => createHash(kind).update(bytes).digest('hex')

/** @param {{ after: (fn: () => void) => void }} t @param {Record<string, Files>} repositories @param {Faults} [faults] */
export async function hubServer(t, repositories, faults = {}) {
  /** @type {{ hub: Asked[], storage: Asked[] }} */
  const asked = { hub: [], storage: [] }
  /** @type {Map<string, { bytes: Uint8Array, uses: number }>} */
  const signed = new Map()
  const state = { url: '', asked, sent: 0 }
  let busy = faults.busy ?? 0

  /** @param {import('node:http').IncomingMessage} request @param {Asked[]} list */
  const note = ({ method = '', url = '', headers }, list) =>
    list.push({ method, url, authorization: headers.authorization, range: headers.range, headers: Object.keys(headers) })

  const storage = await listen((request, response) => {
    note(request, asked.storage)
    const found = signed.get(String(request.url).slice(1))
    if (request.method !== 'GET') return void response.writeHead(405).end()
    response.setHeader('Access-Control-Allow-Origin', '*')
    response.setHeader('Cross-Origin-Resource-Policy', 'cross-origin')
    if (!found || found.uses-- <= 0) return void response.writeHead(403).end('expired')
    const { bytes } = found
    const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
    const start = match ? Number(match[1]) : 0
    const end = match?.[2] ? Math.min(Number(match[2]) + 1, bytes.length) : bytes.length
    if (match && start >= end) return void response.writeHead(416).end()
    if (!faults.hidden) response.setHeader('Access-Control-Expose-Headers', 'ETag, Content-Range')
    response.setHeader('ETag', `"${hash(bytes, 'sha256')}"`)
    if (match) response.setHeader('Content-Range', `bytes ${start}-${end - 1}/${bytes.length}`)
    response.writeHead(match ? 206 : 200, { 'Content-Type': 'application/octet-stream', 'Content-Length': end - start })
    const part = bytes.subarray(start, Math.min(end, start + (faults.cutAfter ?? Infinity)))
    state.sent += part.length
    /* A reset at once would take what has been sent with it, and a client on a busy machine reads late. */
    response.write(part, () => (part.length < end - start ? setTimeout(() => response.destroy(), 500) : response.end()))
  })

  const hub = await listen((request, response) => {
    note(request, asked.hub)
    const cors = { 'Access-Control-Allow-Origin': '*', 'Access-Control-Expose-Headers': 'ETag, Link', 'Cross-Origin-Resource-Policy': 'cross-origin' }
    for (const [name, value] of Object.entries(cors)) response.setHeader(name, value)
    if (request.method === 'OPTIONS') return void response.writeHead(204, { 'Access-Control-Allow-Headers': 'Authorization, Range' }).end()
    if (busy-- > 0) return void response.writeHead(busy % 2 ? 503 : 429, { 'Retry-After': '0' }).end()
    const url = new URL(String(request.url), 'http://hub')
    const path = decodeURIComponent(url.pathname).slice(1)
    const [, repository, kind, rest] = /^(?:api\/models\/)?([^/]+\/[^/]+)\/(tree|resolve)\/main\/?(.*)$/.exec(path) ?? []
    const files = repositories[repository ?? '']
    if (!files) return void response.writeHead(faults.token ? 401 : 404).end('{"error":"Repository not found"}')
    const allowed = !faults.token || request.headers.authorization === `Bearer ${faults.token}`
    if (kind === 'tree') return list(response, files, rest, url)
    if (!allowed) return void response.writeHead(request.headers.authorization ? 403 : 401).end()
    if (rest === faults.html) return void response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end('<!doctype html>')
    const bytes = faults.changed?.[rest] ?? files[rest]
    if (!bytes) return void response.writeHead(404).end()
    if (!isLarge(rest)) return void response.writeHead(200, { 'Content-Length': bytes.length, ETag: `"${hash(bytes, 'sha1')}"` }).end(bytes)
    const id = randomUUID()
    signed.set(id, { bytes, uses: faults.uses ?? Infinity })
    response.writeHead(302, { Location: `${storage.url}/${id}` }).end()
  })

  /** @param {string} path */
  const isLarge = (path) => /\.(gguf|safetensors)$/.test(path)

  /** @param {import('node:http').ServerResponse} response @param {Files} files @param {string} folder @param {URL} url */
  function list(response, files, folder, url) {
    const entries = Object.entries(files).filter(([path]) => path.startsWith(folder)).map(([path, bytes]) => {
      const oid = hash(`blob ${bytes.length}\0${path}`, 'sha1')
      const size = bytes.length
      return { type: 'file', path, size, oid, ...(isLarge(path) && { lfs: { oid: hash(bytes, 'sha256'), size, pointerSize: 134 } }) }
    })
    const all = [{ type: 'directory', path: 'onnx', size: 0, oid: hash('onnx', 'sha1') }, ...entries]
    const at = Number(url.searchParams.get('cursor') ?? 0)
    const next = faults.foreignPage ?? `${state.url}${url.pathname}?cursor=${at + PAGE}`
    if (at + PAGE < all.length) response.setHeader('Link', `<${next}>; rel="next"`)
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(all.slice(at, at + PAGE)))
  }

  t.after(storage.close)
  t.after(hub.close)
  state.url = hub.url
  return {
    ...state,
    get sent() {
      return state.sent
    },
    close() {
      storage.close()
      hub.close()
    },
  }
}

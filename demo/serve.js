/**
 * A static file server for the page and its model, on loopback: isolation headers (threads need them), ranges, types.
 * Paths are those of the repository, so that the page works the same from any server that shows it.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, sep } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What the page needs, by the beginning of the path; a file by its whole path. @type {Record<string, string>} */
export const pageRoots = {
  '/sw.js': join(root, 'demo/sw.js'),
  '/demo/': join(root, 'demo'),
  '/web/': join(root, 'web'),
  '/node_modules/@huggingface/jinja/': join(root, 'node_modules/@huggingface/jinja'),
  '/model/': join(root, '.models'),
}

/** @type {Record<string, string>} */
const types = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.svg': 'image/svg+xml',
  '.webmanifest': 'application/manifest+json',
  '.png': 'image/png',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
}

const isolation = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
}

const PORTS_TRIED = 50

/**
 * @typedef {import('node:http').IncomingMessage} IncomingMessage
 * @typedef {import('node:http').ServerResponse} ServerResponse
 */

/**
 * Serves the folders of `roots` until `close` is called. A busy port gives way to the next free one.
 * @param {{ port?: number, host?: string, roots?: Record<string, string>, isolated?: boolean }} [options] `isolated`:
 *   send the isolation headers
 * @returns {Promise<{ url: string, port: number, close: () => Promise<void> }>} `url` ends with a slash
 */
export async function serve({ port = 8080, host = '127.0.0.1', roots = pageRoots, isolated = true } = {}) {
  const server = createServer((request, response) => {
    if (isolated) for (const [name, value] of Object.entries(isolation)) response.setHeader(name, value)
    answer(request, response, roots).catch(() => refuse(response, 500))
  })
  const used = await listen(server, port, host)
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${used}/`,
    port: used,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** @param {import('node:http').Server} server @param {number} port @param {string} host @returns {Promise<number>} */
async function listen(server, port, host) {
  for (let tried = 0; ; tried++) {
    try {
      await new Promise((resolve, reject) => {
        server.once('error', reject)
        server.listen(port && port + tried, host, () => {
          server.off('error', reject)
          resolve(undefined)
        })
      })
      return /** @type {import('node:net').AddressInfo} */ (server.address()).port
    } catch (error) {
      const busy = /** @type {NodeJS.ErrnoException} */ (error).code === 'EADDRINUSE'
      if (!busy || tried === PORTS_TRIED) throw error
    }
  }
}

/** @param {IncomingMessage} request @param {ServerResponse} response @param {Record<string, string>} roots */
async function answer(request, response, roots) {
  if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(response, 405)
  const path = pathOf(request)
  if (path === null) return refuse(response, 400)
  if (path === '/' && '/demo/' in roots) {
    response.writeHead(302, { Location: '/demo/' }).end()
    return
  }
  const file = locate(path, roots)
  if (file === null) return refuse(response, 404)
  const info = await stat(file).catch(() => null)
  if (!info?.isFile()) return refuse(response, 404)
  send(request, response, file, info)
}

/** The decoded path, or null. @param {IncomingMessage} request */
function pathOf(request) {
  try {
    const path = decodeURIComponent(/** @type {string} */ (request.url).split('?')[0])
    return path.startsWith('/') && !path.includes('\0') ? path : null
  } catch {
    return null
  }
}

/** The file that a path names, or null where it would leave its root.
 * @param {string} path @param {Record<string, string>} roots */
function locate(path, roots) {
  if (Object.hasOwn(roots, path) && !path.endsWith('/')) return roots[path]
  const prefix = Object.keys(roots).find((each) => each.endsWith('/') && path.startsWith(each))
  if (!prefix) return null
  const folder = join(roots[prefix], sep)
  const file = join(folder, path.slice(prefix.length))
  if (!file.startsWith(folder)) return null
  return file.endsWith(sep) ? join(file, 'index.html') : file
}

/** @param {IncomingMessage} request @param {ServerResponse} response @param {string} file
 * @param {import('node:fs').Stats} info */
function send(request, response, file, { size, mtimeMs }) {
  const tag = `"${size.toString(36)}-${Math.floor(mtimeMs).toString(36)}"`
  response.setHeader('ETag', tag)
  response.setHeader('Cache-Control', 'no-cache')
  response.setHeader('Accept-Ranges', 'bytes')
  response.setHeader('Content-Type', types[extname(file).toLowerCase()] ?? 'application/octet-stream')
  if (request.headers['if-none-match'] === tag) {
    response.writeHead(304).end()
    return
  }
  const range = readRange(request.headers.range, size)
  if (range === null) {
    response.setHeader('Content-Range', `bytes */${size}`)
    return refuse(response, 416)
  }
  const { start, end } = range ?? { start: 0, end: size }
  if (range) response.setHeader('Content-Range', `bytes ${start}-${end - 1}/${size}`)
  response.writeHead(range ? 206 : 200, { 'Content-Length': end - start })
  if (request.method === 'HEAD' || start === end) {
    response.end()
    return
  }
  const stream = createReadStream(file, { start, end: end - 1, highWaterMark: 1 << 20 })
  stream.on('error', () => response.destroy())
  response.on('close', () => stream.destroy())
  stream.pipe(response)
}

/** A header of one range: undefined if there is none (or one to be ignored), null if it lies outside of the file.
 * @param {string | undefined} header @param {number} size */
function readRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '')
  if (!match || (!match[1] && !match[2])) return undefined
  const start = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]))
  const end = match[1] && match[2] ? Math.min(Number(match[2]) + 1, size) : size
  return start < end ? { start, end } : null
}

/** @param {ServerResponse} response @param {number} status */
function refuse(response, status) {
  if (response.headersSent) return void response.destroy()
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' }).end(`${status}\n`)
}

// Serves the repository's files on loopback, with the isolation headers, ranges, and nothing cached: every load of the
// benchmark crosses the socket.

import * as fs from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { root } from '../../wasm/setup.js'

/** @type {Record<string, string>} */
const types = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
}

/** @param {import('node:http').IncomingMessage} request @param {import('node:http').ServerResponse} response */
function answer(request, response) {
  const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname)
  if (path === '/') return void response.writeHead(200, headers('.html')).end('<!doctype html><title>bench</title>')
  const file = join(root, normalize(path))
  const size = fs.statSync(file, { throwIfNoEntry: false })?.size
  if (size === undefined) return void response.writeHead(404).end()
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')
  const start = range ? Number(range[1]) : 0
  const end = Math.min(range?.[2] ? Number(range[2]) : Infinity, size - 1)
  if (range && start > end) return void response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end()
  const partial = range && { 'Content-Range': `bytes ${start}-${end}/${size}` }
  const length = { 'Content-Length': end - start + 1, 'Accept-Ranges': 'bytes' }
  response.writeHead(partial ? 206 : 200, { ...headers(extname(file)), ...length, ...partial })
  if (request.method === 'HEAD' || size === 0) return void response.end()
  const stream = fs.createReadStream(file, { start, end, highWaterMark: 1 << 20 })
  response.on('close', () => stream.destroy())
  stream.pipe(response)
}

/** @param {string} extension */
function headers(extension) {
  return {
    'Content-Type': types[extension] ?? 'application/octet-stream',
    'Cache-Control': 'no-store',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Embedder-Policy': 'require-corp',
  }
}

/** @returns {Promise<{ origin: string, close: () => void }>} */
export async function serve() {
  const server = createServer(answer)
  await new Promise((listening) => server.listen(0, '127.0.0.1', () => listening(undefined)))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  return { origin: `http://127.0.0.1:${port}`, close }
}

/** A server that misbehaves as told: for the tests of what a load does then. It counts what it sends. */
import { createServer } from 'node:http'

/**
 * @typedef {object} Faults
 * @property {number} [status] instead of 200 or 206, with a short text
 * @property {string} [type] Content-Type
 * @property {Record<string, string>} [headers]
 * @property {number} [delay] ms before the answer
 * @property {boolean} [silent] never answer
 * @property {number} [cutAt] break the connection after this fraction of the bytes
 * @property {number} [cutLate] ms until then (default 50): who has not read by then loses what had come
 * @property {number} [stallAt] send nothing more after this fraction
 * @property {number} [rate] bytes per second
 * @property {boolean} [unknownLength] no Content-Length; a cut then looks like an end
 * @property {boolean} [ranges] understand Range (default true)
 */

const PART = 64 << 10

/**
 * @param {Uint8Array} firstBody of every path
 * @param {Faults} [firstFaults]
 * @returns {Promise<{ url: string, sent: number, body: Uint8Array, faults: Faults, choose: () => Faults, ranges: string[], open: () => number, close: () => Promise<void> }>}
 *   `sent`: bytes of bodies so far; `ranges`: the Range header of each request or ''; `open`: answers under way;
 *   `body` and `faults` may be exchanged, `choose` gives the faults of a request
 */
export async function faultyServer(firstBody, firstFaults = {}) {
  let open = 0
  const server = createServer((request, response) => {
    const range = request.headers.range ?? ''
    const { body } = state
    const faults = state.choose()
    state.ranges.push(range)
    open++
    response.on('close', () => open--)
    setTimeout(() => void answer(response, range, body, faults), faults.delay ?? 0)
  })

  /** @param {import('node:http').ServerResponse} response @param {string} range
   * @param {Uint8Array} body @param {Faults} faults */
  async function answer(response, range, body, faults) {
    if (faults.silent) return
    const type = faults.type ?? 'application/octet-stream'
    const headers = { 'Content-Type': type, 'Access-Control-Allow-Origin': '*', ...faults.headers }
    if (faults.status) {
      response.writeHead(faults.status, headers).end('no model here')
      return
    }
    const match = faults.ranges === false ? null : /^bytes=(\d+)-(\d*)$/.exec(range)
    const start = match ? Number(match[1]) : 0
    const end = match?.[2] ? Math.min(Number(match[2]) + 1, body.length) : body.length
    if (match && start >= end) {
      response.writeHead(416, headers).end()
      return
    }
    const length = faults.unknownLength ? {} : { 'Content-Length': end - start }
    const partial = match ? { 'Content-Range': `bytes ${start}-${end - 1}/${body.length}` } : {}
    response.writeHead(match ? 206 : 200, { ...headers, ...length, ...partial })
    response.flushHeaders()
    await send(response, start, end, body, faults)
  }

  /** @param {import('node:http').ServerResponse} response @param {number} start @param {number} end
   * @param {Uint8Array} body @param {Faults} faults */
  async function send(response, start, end, body, faults) {
    const cut = Math.floor(body.length * (faults.cutAt ?? 1))
    const stall = Math.floor(body.length * (faults.stallAt ?? 1))
    for (let at = start; at < end && !response.destroyed; ) {
      if (at === stall) return
      if (at === cut) {
        if (faults.unknownLength) response.end()
        /* A reset at once would take what has been sent with it. */
        else setTimeout(() => response.destroy(), faults.cutLate ?? 50)
        return
      }
      const stop = Math.min(end, at + PART, ...[stall, cut].filter((limit) => limit > at))
      const part = body.subarray(at, stop)
      const flowing = response.write(part)
      state.sent += part.length
      at = stop
      if (faults.rate) await new Promise((resolve) => setTimeout(resolve, (1000 * part.length) / Number(faults.rate)))
      /* No more than the client takes, so that `sent` is what is on its way. */
      if (!flowing && response.writableNeedDrain && !response.destroyed) {
        await new Promise((resolve) => response.once('drain', resolve).once('close', resolve))
      }
    }
    response.end()
  }

  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  server.unref() /* a test that fails before it closes this one still ends */
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const state = {
    url: `http://127.0.0.1:${port}/model.gguf`,
    sent: 0,
    body: firstBody,
    faults: firstFaults,
    choose: () => state.faults,
    /** @type {string[]} */
    ranges: [],
    open: () => open,
    close: () =>
      /** @type {Promise<void>} */ (
        new Promise((resolve) => {
          server.close(() => resolve())
          server.closeAllConnections()
        })
      ),
  }
  return state
}

/**
 * fetch() in nibl's own thread under Node, over node:http. Node's own leaves every 64 KiB that a socket reads, and a copy of
 * them, to V8's garbage collector, which comes only after 32 MiB of such buffers. Here a connection reads into one
 * buffer, and a chunk's memory goes back as soon as it is copied.
 */
import { nodeModule } from './platform.js'

const BUFFER = 64 << 10
const MOST_REDIRECTS = 20
const REDIRECTS = [301, 302, 303, 307, 308]
const USUAL = { Accept: '*/*', 'Accept-Encoding': 'identity', 'User-Agent': 'node' }
/** Headers that are not for another origin. */
const SECRET = /^(authorization|proxy-authorization|cookie|host)$/i

/** @typedef {{ headers?: Record<string, string>, signal?: AbortSignal }} Init */

/** What is not known here, `fetch` does: other schemes and options, proxies, encoded answers.
 * @param {(url: any, init?: any) => Promise<any>} fetch
 * @returns {(url: any, init?: any) => Promise<any>} its answers have what http.js looks at */
export function lean(fetch) {
  const agents = /** @type {Record<string, any>} */ ({ 'http:': agentOf('node:http'), 'https:': agentOf('node:https') })
  const proxy = Boolean(/** @type {any} */ (globalThis).process.env.NODE_USE_ENV_PROXY)

  return async (given, { headers, signal, ...more } = {}) => {
    const instead = () => fetch(given, { headers, signal, ...more })
    let url = new URL(given)
    let sent = { ...USUAL, ...headers }
    for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
      const agent = agents[url.protocol]
      if (!agent || proxy || url.username || url.password || Object.keys(more).length) return instead()
      const message = await ask(url, { headers: sent, signal, agent })
      const { 'content-encoding': encoding = 'identity', location } = message.headers
      if (REDIRECTS.includes(message.statusCode) && location) {
        message.resume()
        const next = new URL(location, url)
        if (next.origin !== url.origin) sent = withoutSecrets(sent)
        url = next
      } else if (encoding === 'identity') return answerOf(message, url, redirects > 0)
      else {
        message.destroy()
        return instead()
      }
    }
    throw new TypeError('fetch failed', { cause: new Error('redirect count exceeded') })
  }
}

/** Connections that are read into one buffer each. @param {'node:http' | 'node:https'} name */
function agentOf(name) {
  const agent = new (nodeModule(name).Agent)({ keepAlive: true })
  const connect = agent.createConnection.bind(agent)
  agent.createConnection = (/** @type {any} */ options, /** @type {any} */ done) => {
    /* The parser copies what it gives on before the buffer is filled again. */
    const callback = (/** @type {number} */ length, /** @type {Uint8Array} */ { buffer }) => {
      socket.emit('data', nodeModule('node:buffer').Buffer.from(buffer, 0, length))
    }
    const socket = connect({ ...options, onread: { buffer: new Uint8Array(BUFFER), callback } }, done)
    return socket
  }
  return agent
}

/** One request, up to the headers of its answer. @param {URL} url @param {any} options @returns {Promise<any>} an IncomingMessage */
async function ask(url, options) {
  const { get } = nodeModule(url.protocol === 'https:' ? 'node:https' : 'node:http')
  /** @type {any} */
  let request
  try {
    return await new Promise((resolve, reject) => (request = get(url, options, resolve).on('error', reject)))
  } catch (error) {
    if (options.signal?.aborted) throw error
    /* The server closed a connection that was kept, as it may. */
    if (request?.reusedSocket && /** @type {any} */ (error).code === 'ECONNRESET') return ask(url, options)
    throw new TypeError('fetch failed', { cause: /** @type {any} */ (error).errors?.[0] ?? error })
  }
}

/** @param {Record<string, string>} headers */
function withoutSecrets(headers) {
  return /** @type {typeof USUAL} */ (Object.fromEntries(Object.entries(headers).filter(([name]) => !SECRET.test(name))))
}

/** @param {any} message @param {URL} url @param {boolean} redirected */
function answerOf(message, url, redirected) {
  const { statusCode: status, statusMessage: statusText, headers } = message
  const get = (/** @type {string} */ name) => headers[name.toLowerCase()] ?? null
  return {
    url: url.href,
    redirected,
    type: 'basic',
    status,
    statusText,
    ok: status >= 200 && status < 300,
    headers: { get, has: (/** @type {string} */ name) => get(name) !== null },
    body: bodyOf(message),
  }
}

/** Its bytes, read into the buffers of whoever reads. @param {any} message */
function bodyOf(message) {
  /** @type {Uint8Array | null} */
  let chunk = null
  let used = 0
  /** @type {unknown} */
  let fault
  let over = false
  let wake = () => {}
  message.on('data', (/** @type {Uint8Array} */ bytes) => {
    chunk = bytes
    message.pause()
    wake()
  })
  message.pause()
  nodeModule('node:stream').finished(message, (/** @type {unknown} */ error) => {
    over = true
    fault = error
    wake()
  })
  const more = () =>
    new Promise((resolve) => {
      wake = () => resolve(undefined)
      message.resume()
    })
  return new ReadableStream({
    type: 'bytes',
    async pull(controller) {
      if (!chunk && !over) await more()
      const request = /** @type {ReadableStreamBYOBRequest} */ (controller.byobRequest)
      if (chunk) {
        const view = /** @type {Uint8Array} */ (request.view)
        const part = chunk.subarray(used, used + view.length)
        const { length } = part
        view.set(part)
        used += length
        if (used === chunk.length) {
          release(chunk)
          chunk = null
          used = 0
        }
        return request.respond(length)
      }
      if (fault) throw fault
      controller.close()
      request.respond(0)
    },
    cancel: () => void message.destroy(),
  })
}

/** Frees the memory of a chunk that has it for itself, where JavaScript can (Node 22). @param {Uint8Array} chunk */
function release({ buffer, length }) {
  if (buffer.byteLength === length) /** @type {any} */ (buffer).transfer?.(0)
}

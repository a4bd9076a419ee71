/**
 * `npx nibl serve MODEL`: OpenAI's interface over HTTP, a thin adapter of nibl/openai. It listens on loopback; anywhere
 * else only with a key. Bodies are limited, requests that cannot be served soon are refused, a client that is gone or
 * does not read stops its answer.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import { isIP } from 'node:net'
import { parseArgs } from 'node:util'
import { NiblError, load } from '../nibl.js'
import { openai } from '../openai.js'

const usage = `usage: nibl serve MODEL [options]
  MODEL              path, URL or hf:owner/repository[:quant][@revision][/path]
  --host ADDRESS     to listen at (127.0.0.1; anything but loopback needs a key)
  --port N           (8080; 0: any that is free)
  --api-key KEY      that requests must bring (NIBL_API_KEY)
  -c, --ctx-size N   tokens of prompt and answer together
  -t, --threads N
  -np, --parallel N  answers computed together (4)
  --alias NAME       of the model in requests (its file's name)
  --hf-token TOKEN   for the model hub (HF_TOKEN)
  --no-cache         do not keep a model that is downloaded
  --max-body N       bytes of a request (1048576)
  --queue N          requests that may wait (64)`

const BODY_SECONDS = 30
const UNREAD_SECONDS = 60 /* a client that takes nothing for so long is gone */

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */
/** @typedef {import('../nibl.d.ts').Model} Model */

/** A wrong command line. */
class UsageError extends Error {}

/** @param {string[]} args */
function readArguments(args) {
  /** @type {import('node:util').ParseArgsConfig['options']} */
  const options = {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '8080' },
    'api-key': { type: 'string', default: process.env.NIBL_API_KEY },
    'ctx-size': { type: 'string', short: 'c', default: '0' },
    threads: { type: 'string', short: 't' },
    parallel: { type: 'string', default: '4' },
    alias: { type: 'string' },
    'hf-token': { type: 'string', default: process.env.HF_TOKEN },
    'no-cache': { type: 'boolean', default: false },
    'max-body': { type: 'string', default: String(1 << 20) },
    queue: { type: 'string', default: '64' },
    help: { type: 'boolean', short: 'h', default: false },
  }
  /** @type {{ values: Record<string, any>, positionals: string[] }} */
  let parsed
  try {
    parsed = parseArgs({ args: args.map((arg) => (arg === '-np' ? '--parallel' : arg)), options, allowPositionals: true })
  } catch (error) {
    throw new UsageError(/** @type {Error} */ (error).message)
  }
  const { values, positionals } = parsed
  const number = (/** @type {string} */ name, /** @type {number} */ low, /** @type {number} */ high) => {
    const value = Number(values[name])
    if (!Number.isInteger(value) || value < low || value > high) throw new UsageError(`--${name} must be a whole number from ${low} to ${high}`)
    return value
  }
  if (values.help) return null
  if (positionals.length !== 1) throw new UsageError('name one model')
  const key = values['api-key'] || undefined
  if (!isLoopback(values.host) && !key) throw new UsageError(`${values.host} can be reached by others: set --api-key, or NIBL_API_KEY`)
  return {
    source: positionals[0],
    host: values.host,
    port: number('port', 0, 65535),
    key,
    alias: values.alias,
    maxBody: number('max-body', 1, 1 << 30),
    queue: number('queue', 0, 1e6),
    sessions: number('parallel', 1, 64),
    load: {
      contextLength: number('ctx-size', 0, 2 ** 31 - 1),
      threads: values.threads === undefined ? undefined : number('threads', 1, 64),
      token: values['hf-token'] || undefined,
      cache: !values['no-cache'],
    },
  }
}

/** @param {string} host */
const isLoopback = (host) => host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))

/** Host or origin as a request names it. @param {string} address */
function isLocalName(address) {
  try {
    return isLoopback(new URL(address).hostname.replace(/^\[|\]$/g, ''))
  } catch {
    return false
  }
}

/** Without telling by time how much of it is right. @param {string} given @param {string} key */
function isKey(given, key) {
  const hash = (/** @type {string} */ text) => createHash('sha256').update(text).digest()
  return timingSafeEqual(hash(given), hash(key))
}

/** What /metrics tells, in Prometheus' format. */
class Metrics {
  active = 0
  promptTokens = 0
  tokens = 0
  /** @type {Map<number, number>} */
  statuses = new Map()

  /** @param {number} status */
  count(status) {
    this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
  }

  text() {
    const metric = (/** @type {string} */ name, /** @type {string} */ type, /** @type {string[]} */ ...lines) => [`# TYPE nibl_${name} ${type}`, ...lines.map((line) => `nibl_${name}${line}`)]
    return [
      ...metric('requests_total', 'counter', ...[...this.statuses].map(([status, count]) => `{status="${status}"} ${count}`)),
      ...metric('requests_active', 'gauge', ` ${this.active}`),
      ...metric('prompt_tokens_total', 'counter', ` ${this.promptTokens}`),
      ...metric('tokens_predicted_total', 'counter', ` ${this.tokens}`),
      ...metric('memory_bytes', 'gauge', ` ${process.memoryUsage.rss()}`),
      '',
    ].join('\n')
  }
}

/** A model whose tokens are counted. @param {Model} model @param {Metrics} metrics @returns {Model} */
function counted(model, metrics) {
  return /** @type {any} */ ({
    info: model.info,
    countTokens: (/** @type {any} */ prompt) => model.countTokens(prompt),
    embed: (/** @type {any} */ texts, /** @type {any} */ options) => model.embed(texts, options),
    get stats() {
      return model.stats
    },
    async *generate(/** @type {any} */ prompt, /** @type {any} */ options) {
      for await (const piece of model.generate(prompt, options)) {
        metrics.tokens++
        yield piece
      }
      metrics.promptTokens += model.stats.prefill.tokens
    },
  })
}

/** @param {number} status @param {string} message @param {string | null} [code] */
function refuse(status, message, code = null) {
  const type = status < 500 ? 'invalid_request_error' : 'server_error'
  const headers = status === 503 ? { 'retry-after': '1' } : undefined
  return Response.json({ error: { message, type, param: null, code } }, { status, headers })
}

/**
 * Serves a model until `close` is called.
 * @param {Model} model
 * @param {{ name: string, host: string, port: number, key?: string, maxBody: number, queue: number, sessions: number }} options
 * @returns {Promise<{ url: string, close: () => Promise<void> }>}
 */
export async function serveModel(model, { name, host, port, key, maxBody, queue, sessions }) {
  const metrics = new Metrics()
  const { fetch } = openai({ [name]: counted(model, metrics) })

  /** @param {IncomingMessage} request @param {AbortSignal} signal @returns {Promise<Response>} */
  async function answer(request, signal) {
    const { method = 'GET', headers, url = '/' } = request
    const path = url.split('?')[0]
    if (path === '/health') return Response.json({ status: 'ok' })
    if (key) {
      const given = /^Bearer (.+)$/i.exec(headers.authorization ?? '')?.[1] ?? ''
      if (!isKey(given, key)) return refuse(401, 'This server wants its API key: Authorization: Bearer KEY.', 'invalid_api_key')
    } else if (!isLocalName(`http://${headers.host}`) || (headers.origin && !isLocalName(headers.origin))) {
      /* A page from elsewhere, in a browser on this machine. */
      return refuse(403, 'Without an API key only this machine is served, under its own name.')
    }
    if (path === '/metrics') return new Response(metrics.text(), { headers: { 'content-type': 'text/plain; version=0.0.4' } })
    if (metrics.active > sessions + queue) return refuse(503, 'Too many requests wait. Try again later.', 'overloaded')
    const body = await bodyOf(request, maxBody)
    if (!body) return refuse(413, `The body is longer than ${maxBody} bytes.`)
    if (path === '/tokenize' && method === 'POST') return tokenize(body)
    return fetch(`http://nibl${path}`, { method, signal, ...(method === 'POST' && { body: new Uint8Array(body) }) })
  }

  /** @param {Buffer} body */
  async function tokenize(body) {
    try {
      const { content, add_special: bos = false } = JSON.parse(body.toString())
      return Response.json({ tokens: await model.tokenize(content, { bos: Boolean(bos) }) })
    } catch {
      return refuse(400, "The body must be JSON: { content, add_special }.")
    }
  }

  const server = createServer({ requestTimeout: 1000 * BODY_SECONDS }, async (request, response) => {
    const stop = new AbortController()
    response.on('close', () => stop.abort())
    response.on('error', () => stop.abort())
    metrics.active++
    try {
      const result = await answer(request, stop.signal)
      metrics.count(result.status)
      /* What was not read of a body would hold up the connection. */
      const more = request.complete ? {} : { connection: 'close' }
      response.writeHead(result.status, { ...Object.fromEntries(result.headers), ...more })
      await send(result, response)
    } catch (error) {
      if (!stop.signal.aborted) process.stderr.write(`nibl: ${/** @type {Error} */ (error)?.stack ?? error}\n`)
      if (response.headersSent) response.destroy()
      else response.writeHead(500).end()
    } finally {
      metrics.active--
    }
  })
  await new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, () => resolve(undefined))
  })
  const { port: used } = /** @type {import('node:net').AddressInfo} */ (server.address())
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${used}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** The body, or null if it is too long. @param {IncomingMessage} request @param {number} limit @returns {Promise<Buffer | null>} */
async function bodyOf(request, limit) {
  if (Number(request.headers['content-length'] ?? 0) > limit) return null
  const parts = []
  let length = 0
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    length += part.length
    if (length > limit) return null
    parts.push(part)
  }
  return Buffer.concat(parts)
}

/** Sends as fast as the client reads. @param {Response} result @param {ServerResponse} response */
async function send(result, response) {
  const reader = result.body?.getReader()
  for (;;) {
    const { value, done } = (await reader?.read()) ?? { done: true }
    if (done || response.destroyed) break
    if (response.write(value)) continue
    const timer = setTimeout(() => response.destroy(), 1000 * UNREAD_SECONDS)
    await new Promise((resolve) => response.once('drain', resolve).once('close', resolve))
    clearTimeout(timer)
  }
  if (response.destroyed) await reader?.cancel()
  else response.end()
}

/** @param {string[]} args @returns {Promise<number>} exit status; 0 while it serves */
export async function main(args) {
  try {
    const options = readArguments(args)
    if (!options) {
      console.log(usage)
      return 0
    }
    const model = await load(options.source, { ...options.load, sessions: options.sessions, onProgress: progressLine() })
    const name = options.alias ?? options.source.replace(/^.*[/\\:]/, '').replace(/\.gguf$/, '')
    const { url, close } = await serveModel(model, { ...options, name })
    for (const signal of ['SIGINT', 'SIGTERM']) {
      process.once(signal, async () => {
        await close()
        model.close()
      })
    }
    /* Last: who waits for this line may end us at once. */
    console.log(`nibl: ${name} is served at ${url}/v1 (${model.info.binary}, ${model.info.threads} threads); Ctrl+C ends`)
    return 0
  } catch (error) {
    const known = error instanceof UsageError || error instanceof NiblError || typeof (/** @type {any} */ (error).code) === 'string'
    process.stderr.write(`nibl: ${known ? /** @type {Error} */ (error).message : /** @type {Error} */ (error).stack}\n`)
    if (!(error instanceof UsageError)) return 1
    process.stderr.write(`${usage}\n`)
    return 2
  }
}

/** Shows a download on a terminal. */
function progressLine() {
  let last = -1
  return (/** @type {{ loaded: number, total: number }} */ { loaded, total }) => {
    const percent = total ? Math.floor((100 * loaded) / total) : 0
    if (!process.stderr.isTTY || percent === last) return
    last = percent
    process.stderr.write(`\rloading ${percent} % of ${Math.round(total / 1e6)} MB${percent === 100 ? '\n' : ''}`)
  }
}

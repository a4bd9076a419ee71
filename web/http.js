/**
 * Files over HTTP: one way to ask, to try again and to go on. A request is repeated after connection errors, silence, 408,
 * 425, 429 and 5xx, with growing pauses of random length; a stream that breaks goes on where it was, by one simple
 * `Range: bytes=a-b` and no other header of ours, so that servers of other origins need no preflight.
 */
import { NiblError, abortReason, throwIfAborted, unlessAborted } from './errors.js'
import { fileNameOf } from './folder.js'
import { ByteStream, emptyStream, reasonOf, timedOut } from './stream.js'

const FIRST_PAUSE = 250 /* ms; doubled each time */
const LONGEST_PAUSE = 30000

/** @typedef {import('./stream.js').Range} Range */
/** @typedef {import('./stream.js').Limits} Limits */
/** @typedef {import('./stream.js').Stream} Stream */
/** @typedef {import('./stream.js').Source<Stream>} Source */

/** Runs `attempt` until it succeeds, fails for good or has failed `retries` times more.
 * @template T @param {Limits} limits @param {() => Promise<T>} attempt @returns {Promise<T>} */
export async function persistently(limits, attempt) {
  for (let tries = 0; ; tries++) {
    try {
      return await attempt()
    } catch (error) {
      await pauseOrFail(error, tries, limits)
    }
  }
}

/** Waits before the next try, or throws `error` where there must be none.
 * @param {unknown} error @param {number} tries that have failed before @param {Limits} limits */
export async function pauseOrFail(error, tries, { signal, retries = 0 }) {
  const least = error instanceof NiblError ? error.retryAfter : undefined
  if (least === undefined || tries >= retries) throw error
  const pause = FIRST_PAUSE * 2 ** tries * (0.5 + Math.random() / 2)
  const wait = new Promise((resolve) => setTimeout(resolve, Math.min(LONGEST_PAUSE, Math.max(pause, least))))
  await unlessAborted(wait, signal)
}

/** One request, up to its answer's headers.
 * @param {string} url @param {Record<string, string>} headers @param {Limits} limits
 * @param {{ name: string, asked?: Promise<Response> }} about `asked`: sent already by another
 * @returns {Promise<Response>} */
export async function request(url, headers, { signal, timeout }, { name, asked }) {
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
    return await unlessAborted(asked ?? fetch(url, { headers, signal: controller.signal }), controller.signal)
  } catch (cause) {
    if (signal?.aborted) throw abortReason(signal)
    if (expired) throw timedOut(name, timeout, 'after the request')
    const message =
      `${name} cannot be reached: ${reasonOf(cause)}. Check the address and the network; ` +
      'a server of another origin must allow this page (Access-Control-Allow-Origin).'
    throw new NiblError('DOWNLOAD_FAILED', message, { cause, retryAfter: 0 })
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', abort)
  }
}

/**
 * What is known of a file before it is asked for.
 * @typedef {object} Known
 * @property {string} [name] for messages; default: the URL
 * @property {number} [size] bytes
 * @property {string} [key] of its content in a cache: the same key is the same bytes
 * @property {string} [sha256]
 * @property {boolean} [sibling] one of those beside the first: a page instead of it means that it is not there
 * @property {(status: number) => NiblError | undefined} [explain] what a refusal means
 */

/** A file at a URL. Where the file's server sends on to another origin, further ranges are asked there, without the
 * headers, until that address expires. @implements {Source} */
export class UrlSource {
  #url
  #headers
  #limits
  #known
  /** @type {Promise<Response> | undefined} */
  #asked
  /** @type {string | null} where the server sent us on to */
  #direct = null
  /** @type {string | null} */
  #validator = null
  #size

  /** @param {{ url: string, headers?: Record<string, string>, response?: Promise<Response> }} descriptor
   * @param {Limits} limits @param {Known} [known] */
  constructor({ url, headers = {}, response }, limits, known = {}) {
    this.name = known.name ?? url
    this.fileName = fileNameOf(url)
    this.#url = url
    this.#headers = headers
    this.#limits = limits
    this.#known = known
    this.#size = known.size ?? 0
    /* A worker has asked already, before this code was there (worker.js); an abort ends the whole worker. */
    this.#asked = response
  }

  /** Identifies the file in a cache. */
  get key() {
    return this.#known.key ?? this.#url
  }

  /** The key stands for the bytes: they never change. */
  get fixed() {
    return this.#known.key !== undefined
  }

  get sha256() {
    return this.#known.sha256
  }

  /** Bytes; 0 if unknown. */
  get size() {
    return this.#size
  }

  /** What tells versions of the file apart, as far as the server shows it. */
  get validator() {
    return this.#validator
  }

  /** @param {string} fileName @returns {UrlSource} */
  sibling(fileName) {
    const url = new URL(encodeURIComponent(fileName), this.#url)
    url.search = new URL(this.#url).search
    return new UrlSource({ url: url.href, headers: this.#headers }, this.#limits, { sibling: true })
  }

  /** @param {Range} [range] @param {number} [retries] instead of the usual ones @returns {Promise<ResumingStream>} */
  async open(range, retries = this.#limits.retries) {
    const limits = { ...this.#limits, retries }
    /* As a range its length is sure, from other origins too: where it must be compared. */
    const asked = range ?? (this.#known.size ? { start: 0, end: Infinity } : undefined)
    const stream = await persistently(limits, () => this.connect(asked))
    return new ResumingStream(this, stream, range?.end ?? Infinity, limits)
  }

  /** Asks once. @param {Range} [range] @returns {Promise<ByteStream>} */
  async connect(range) {
    const response = await this.#request(range)
    if (range && response.status === 416) {
      await response.body?.cancel()
      return new ByteStream(emptyStream(), this.#about(range.start, this.#size, 0, true), this.#limits)
    }
    if (!response.ok) {
      await response.body?.cancel()
      throw this.#known.explain?.(response.status) ?? refusal(response, this.name)
    }
    const fault = this.#faultOf(response, range)
    if (fault) {
      await response.body?.cancel()
      throw fault
    }
    const { size, length } = responseLength(response, range)
    this.#size ||= size
    const validator = validatorOf(response)
    this.#validator ??= validator
    const ranged = range !== undefined && response.status === 206
    const stream = response.body ?? emptyStream()
    return new ByteStream(stream, this.#about(ranged ? range.start : 0, this.#size, length, ranged), this.#limits)
  }

  /** @param {number} offset @param {number} size @param {number} expected @param {boolean} ranged */
  #about(offset, size, expected, ranged) {
    return { name: this.name, offset, size, expected, ranged }
  }

  /** What is wrong with an answer that says it is right. @param {Response} response @param {Range} [range] */
  #faultOf(response, range) {
    const { name } = this
    const failed = (/** @type {string} */ what) => new NiblError('DOWNLOAD_FAILED', `${name}${what}`)
    if (/^text\/html\b/i.test(response.headers.get('Content-Type') ?? '')) {
      const message = `${name}: the server sent an HTML page instead of this file. Check the address; is a login needed?`
      return new NiblError('BAD_FILE', message, { status: this.#known.sibling ? 404 : undefined })
    }
    const changed = failed(' changed while it was downloaded. Load it again.')
    if (this.#validator !== null && validatorOf(response) !== this.#validator) return changed
    const contentRange = contentRangeOf(response)
    if (range && response.status === 206 && contentRange && contentRange.start !== range.start) {
      return failed(': the server sent another range than it was asked for.')
    }
    const { size } = responseLength(response, range)
    if (!size || !this.#size || size === this.#size) return undefined
    return this.#known.size ? failed(`: the server has ${size} bytes, but the list says ${this.#known.size}. Try again later.`) : changed
  }

  /** @param {Range} [range] */
  async #request(range) {
    const asked = range ? undefined : this.#asked
    this.#asked = undefined
    const one = range && { Range: `bytes=${range.start}-${Number.isFinite(range.end) ? range.end - 1 : ''}` }
    const about = { name: this.name, asked }
    if (this.#direct) {
      const response = await request(this.#direct, { ...one }, this.#limits, about)
      if (response.ok || response.status === 416 || response.status >= 500 || response.status === 429) return response
      /* The address has expired: ask for a new one. */
      await response.body?.cancel()
      this.#direct = null
    }
    const response = await request(this.#url, { ...this.#headers, ...one }, this.#limits, about)
    const elsewhere = response.redirected && new URL(response.url).origin !== new URL(this.#url).origin
    if (elsewhere && response.ok) this.#direct = response.url
    if (elsewhere && response.status === 403) {
      throw new NiblError('DOWNLOAD_FAILED', `${this.name}: the address that it was sent on to has expired. Try again.`, { status: 403, retryAfter: 0 })
    }
    return response
  }
}

/** A stream that outlives its connections. @implements {Stream} */
export class ResumingStream {
  #source
  #stream
  #end
  #limits

  /** @param {UrlSource} source @param {ByteStream} stream @param {number} end of the range @param {Limits} limits */
  constructor(source, stream, end, limits) {
    this.#source = source
    this.#stream = stream
    this.#end = end
    this.#limits = limits
  }

  get offset() {
    return this.#stream.offset
  }

  get size() {
    return this.#stream.size
  }

  get ranged() {
    return this.#stream.ranged
  }

  async read() {
    let broken = false
    for (let tries = 0; ; tries++) {
      try {
        if (broken) await this.#reconnect()
        broken = false
        return await this.#stream.read()
      } catch (error) {
        await pauseOrFail(error, tries, this.#limits)
        broken = true
      }
    }
  }

  /** Leaves out what comes before `offset`. @param {number} offset */
  skipTo(offset) {
    this.#stream.skipTo(offset)
  }

  async #reconnect() {
    const { offset, ranged } = this.#stream
    const stream = await this.#source.connect({ start: offset, end: this.#end })
    if (stream.offset < offset) {
      if (this.#source.validator === null) {
        await stream.cancel()
        const message = `${this.#source.name}: the connection was lost after ${offset} bytes, and the server cannot go on there (Range). Load it again.`
        throw new NiblError('DOWNLOAD_FAILED', message)
      }
      stream.skipTo(offset)
    }
    stream.ranged = ranged
    this.#stream = stream
  }

  cancel() {
    return this.#stream.cancel()
  }
}

/** Statuses that may be others soon. */
const PASSING = [408, 425, 429]

/** @param {Response} response @param {string} name */
export function refusal(response, name) {
  const { status, statusText } = response
  const passing = status >= 500 || PASSING.includes(status)
  const hint = status === 404 ? 'Check the address.' : passing ? 'Try again later.' : 'Is a login needed? (headers)'
  const message = `${name}: the server answered ${status} ${statusText}`.trimEnd()
  const retryAfter = passing ? 1000 * (Number(response.headers.get('Retry-After')) || 0) : undefined
  return new NiblError('DOWNLOAD_FAILED', `${message}. ${hint}`, { status, retryAfter })
}

/** @param {Response} response */
function validatorOf(response) {
  return response.headers.get('ETag') ?? response.headers.get('Last-Modified')
}

/** Not exposed to other origins unless the server says so. @param {Response} response */
function contentRangeOf(response) {
  const match = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')
  return match && { start: Number(match[1]), size: Number(match[2]) }
}

/** What a response's headers promise. Content-Length counts the bytes on the wire: where a Content-Encoding is (or,
 * from another origin, may hide), it says nothing sure about the file; a range is always asked for without one.
 * @param {Response} response @param {Range} [range]
 * @returns {{ size: number, length: number }} of the file as far as sure, and of this body as far as sure; else 0 */
export function responseLength(response, range) {
  const partial = response.status === 206
  const sure = (partial || response.type !== 'cors') && !response.headers.has('Content-Encoding')
  const length = sure ? Number(response.headers.get('Content-Length')) : 0
  if (!partial) return { size: length, length }
  const toEnd = range && !Number.isFinite(range.end) && length
  return { size: contentRangeOf(response)?.size ?? (toEnd ? range.start + length : 0), length }
}

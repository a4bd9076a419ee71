/** Bytes on their way: a stream read in chunks, with a time limit and a signal. Nothing here knows where they come from. */
import { NiblError, throwIfAborted } from './errors.js'

/** @typedef {{ start: number, end: number }} Range */
/** `timeout`: milliseconds without a byte; 0 = none. `retries`: of what may succeed later.
 * @typedef {{ signal?: AbortSignal, timeout: number, retries?: number }} Limits */

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
 * @property {string} [sha256] where whoever has the file tells
 * @property {() => Promise<void>} [resolve] finds the file that a load starts with; to be called first
 * @property {(range?: Range) => Promise<T>} open
 * @property {(fileName: string) => Source<T>} sibling another file of the same folder; throws where it knows of none
 * @property {() => Promise<void>} [verify] checks what was read (integrity.js)
 * @property {string | null} [checked] the SHA-256 that it had then
 * @property {() => boolean | Promise<boolean>} [again] whether it can be read again without a network
 */

export const CHUNK = 512 << 10

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
  #skip = 0

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

  /** Leaves out what comes before `offset`. @param {number} offset */
  skipTo(offset) {
    this.#skip = offset - this.offset
    this.offset = offset
  }

  /** The next chunk, valid until the next call; null at the end.
   * @param {ArrayBuffer} [buffer] to be filled and used up, where the stream `fills` buffers; else one of its own
   * @returns {Promise<Uint8Array | null>} */
  async read(buffer) {
    for (;;) {
      const chunk = await this.#receive(buffer)
      const skipped = Math.min(this.#skip, chunk?.length ?? 0)
      this.#skip -= skipped
      if (chunk) this.offset += chunk.length - skipped
      else if (this.#skip > 0 || this.#received < this.expected) throw this.#lost()
      if (!chunk || chunk.length > skipped) return chunk && chunk.subarray(skipped)
    }
  }

  /** @param {ArrayBuffer} [buffer] */
  async #receive(buffer) {
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
    return new NiblError('DOWNLOAD_FAILED', message, { cause, retryAfter: 0 })
  }

  /** Gives up what has not been read. */
  async cancel() {
    await this.#reader.cancel().catch(() => {})
  }
}

/** @param {string} name @param {number} timeout @param {string} when */
export function timedOut(name, timeout, when) {
  return new NiblError('TIMEOUT', `${name}: no byte came for ${timeout / 1000} s ${when}. Try again. (timeout)`, { retryAfter: 0 })
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

export function emptyStream() {
  return new ReadableStream({ start: (controller) => controller.close() })
}

/** @param {unknown} error */
export function reasonOf(error) {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? error.cause.message : error.message
}

/** A file that is not large. @param {Stream} stream @param {number} limit bytes @param {string} name */
export async function readBytes(stream, limit, name) {
  const parts = []
  let length = 0
  for (let chunk; (chunk = await stream.read()); ) {
    parts.push(chunk.slice())
    length += chunk.length
    if (length > limit) {
      await stream.cancel()
      throw new NiblError('BAD_FILE', `${name} has more than ${limit} bytes.`)
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer())
}

/** A small file as text. @param {Stream} stream @param {number} limit bytes @param {string} name */
export async function readText(stream, limit, name) {
  const decoder = new TextDecoder()
  let text = ''
  for (let bytes = 0; ; ) {
    const chunk = await stream.read()
    if (!chunk) return text + decoder.decode()
    bytes += chunk.length
    if (bytes > limit) {
      await stream.cancel()
      throw new NiblError('BAD_FILE', `${name} has more than ${limit} bytes.`)
    }
    text += decoder.decode(chunk, { stream: true })
  }
}

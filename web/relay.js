/**
 * A stream's bytes from the caller's thread to the engine's, since not every engine can transfer a stream. Chunks change
 * hands, nothing is copied; their buffers come back to be filled again, and there are only so many of them.
 *
 *   caller -> engine   { size }      first: of the file, 0 if unknown
 *                      { bytes }     a chunk, transferred
 *                      { end }       or { error: ErrorRecord }: the last message
 *   engine -> caller   { buffer }    a chunk's buffer, transferred
 *                      { cancel }    no more, please
 */
import { fromRecord, toRecord } from './errors.js'
import { fileNameOf } from './folder.js'
import { openSource } from './source.js'
import { alone } from './stream.js'

const CHUNK = 512 << 10
const CHUNKS = 16 /* under way */

/** @typedef {import('./source.js').Descriptor} Descriptor */
/** @typedef {Exclude<Descriptor, { kind: 'relay' }>} OpenDescriptor */
/** @typedef {import('./stream.js').ByteStream} ByteStream */

/** Wakes one who waits. */
class Bell {
  #ring = () => {}
  ring() {
    this.#ring()
  }
  /** @returns {Promise<void>} */
  wait() {
    return new Promise((resolve) => (this.#ring = resolve))
  }
}

/** Opens a source here and sends it on.
 * @param {OpenDescriptor} descriptor
 * @param {{ signal?: AbortSignal, timeout: number }} limits
 * @returns {{ descriptor: Descriptor, port: MessagePort, cancel: () => void }} for the other thread */
export function startRelay(descriptor, { signal, timeout }) {
  const { port1, port2 } = new MessageChannel()
  const stop = new AbortController()
  const cancel = () => stop.abort()
  signal?.addEventListener('abort', cancel, { once: true })
  const source = /** @type {import('./stream.js').Source<ByteStream>} */ (openSource(/** @type {any} */ (descriptor), { signal: stop.signal, timeout }))
  send(source, port1, stop).finally(() => signal?.removeEventListener('abort', cancel))
  return { descriptor: { kind: 'relay', port: port2, name: source.name }, port: port2, cancel }
}

/** @param {import('./stream.js').Source<ByteStream>} source @param {MessagePort} port @param {AbortController} stop */
async function send(source, port, stop) {
  /** @type {ArrayBuffer[]} */
  const buffers = []
  const returned = new Bell()
  stop.signal.addEventListener('abort', () => {
    returned.ring()
    port.close()
  })
  port.onmessage = ({ data }) => {
    if (data.cancel) return stop.abort()
    buffers.push(data.buffer)
    returned.ring()
  }
  try {
    const stream = await source.open()
    port.postMessage({ size: stream.size })
    for (let made = 0; ; ) {
      if (!buffers.length && made === CHUNKS) await returned.wait()
      const buffer = buffers.pop() ?? (made++, new ArrayBuffer(CHUNK))
      const bytes = await stream.read(buffer)
      if (!bytes) break
      /* A stream that does not fill buffers of ours may want to keep its own. */
      const own = stream.fills ? bytes : bytes.slice()
      port.postMessage({ bytes: own }, [own.buffer])
    }
    port.postMessage({ end: true })
  } catch (error) {
    port.postMessage({ error: toRecord(error) })
  }
}

/** The engine's end: a source that is opened once, and its stream. */
export class RelaySource {
  #port

  /** @param {MessagePort} port @param {string} name */
  constructor(port, name) {
    this.#port = port
    this.name = name
    this.fileName = fileNameOf(name)
  }

  /** @param {string} fileName @returns {never} */
  sibling(fileName) {
    throw alone(this.name, fileName)
  }

  async open() {
    const stream = new RelayStream(this.#port)
    await stream.start()
    return stream
  }
}

class RelayStream {
  /** @type {any[]} */
  #arrived = []
  #more = new Bell()
  #port
  /** @type {Uint8Array | null} */
  #last = null
  ranged = false
  offset = 0
  size = 0

  /** @param {MessagePort} port */
  constructor(port) {
    this.#port = port
    port.onmessage = ({ data }) => {
      this.#arrived.push(data)
      this.#more.ring()
    }
  }

  async start() {
    this.size = (await this.#next()).size
  }

  /** The next chunk, valid until the next call; null at the end. @returns {Promise<Uint8Array | null>} */
  async read() {
    const buffer = this.#last?.buffer
    if (buffer) this.#port.postMessage({ buffer }, [buffer])
    const { bytes = null } = await this.#next()
    this.#last = bytes
    if (bytes) this.offset += bytes.length
    else this.#port.close()
    return bytes
  }

  async #next() {
    while (!this.#arrived.length) await this.#more.wait()
    const message = this.#arrived.shift()
    if (!message.error) return message
    this.#port.close()
    throw fromRecord(message.error)
  }

  async cancel() {
    this.#port.postMessage({ cancel: true })
    this.#port.close()
  }
}

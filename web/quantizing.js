/** From a source of bytes to those of a GGUF file, in steps: whoever takes them sets the pace. */
import { compileBinary, instantiate } from './binaries.js'
import { Binding, NEED_DATA, OK } from './binding.js'
import { chooseBinary } from './features.js'
import { FIRST_RANGE, Input, located, marginOf } from './planning.js'

const MAXIMUM = 512 << 20 /* bytes of memory: a header of 256 MiB, and rows */
const STEP = 1 << 20 /* bytes of output, about, per step */

/** @typedef {import('./binding.js').QuantizeOptions} QuantizeOptions */

/** @param {Uint8Array[]} parts */
function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

export class Quantizing {
  #input
  #binding
  #loader
  /** @type {number} */
  #quantizer = 0
  #status = NEED_DATA
  #signal

  /** @param {Input} input @param {Binding} binding @param {AbortSignal} signal */
  constructor(input, binding, signal) {
    this.#input = input
    this.#binding = binding
    this.#loader = binding.newLoader(input.firstSize, input.fileName)
    this.#signal = signal
  }

  /**
   * Reads the header.
   * @param {import('./source.js').Descriptor} descriptor
   * @param {QuantizeOptions & import('./planning.js').InputOptions & { binary?: string, threads?: number, inProcess: boolean, wasmUrl?: string }} options
   * @param {AbortSignal} signal
   */
  static async start(descriptor, options, signal) {
    const choice = chooseBinary(options)
    const input = await Input.of(descriptor, options, { signal, jumps: true })
    try {
      const compiled = await input.startBeside(compileBinary(choice.binary, { wasmUrl: options.wasmUrl, quantize: true }), signal)
      const size = { initial: marginOf(choice), maximum: MAXIMUM + marginOf(choice), threads: choice.threads }
      const binding = new Binding(await instantiate(compiled, size))
      const quantizing = new Quantizing(input, binding, signal)
      await quantizing.#begin({ ...options, threads: choice.threads })
      return quantizing
    } catch (error) {
      await input.end(error)
      throw located(error, input.name)
    }
  }

  #wanted() {
    return this.#binding.wantedRange(this.#loader)
  }

  #asker() {
    return { wanted: () => this.#wanted(), fileName: (/** @type {number} */ file) => this.#binding.fileName(this.#loader, file) }
  }

  /** @param {QuantizeOptions} options */
  async #begin(options) {
    /** @type {import('./planning.js').Chunk[]} */
    const header = []
    const asker = this.#asker()
    /* No more at once than may turn out not to be needed. */
    const careful = { ...asker, wanted: () => ({ ...asker.wanted(), length: Math.min(asker.wanted().length, FIRST_RANGE) }) }
    while (!this.#binding.call('nibl_loader_header_ready', this.#loader)) {
      const chunk = await this.#input.next(careful)
      if (!chunk) break
      header.push({ offset: chunk.offset, bytes: chunk.bytes && chunk.bytes.slice() })
      this.#binding.feed(this.#loader, header[header.length - 1])
      await this.#input.turn(careful)
    }
    this.#quantizer = this.#binding.newQuantizer(this.#loader, options)
    /* What came with the header of a file is here already. */
    for (const chunk of header) this.#status = this.#binding.feed(this.#loader, chunk)
    if (this.#status !== OK) await this.#input.turn(asker)
  }

  /** Bytes of the whole file. */
  get size() {
    return this.#binding.quantizerSize(this.#quantizer)
  }

  /** The next bytes of the file; null at its end. @returns {Promise<Uint8Array | null>} */
  async next() {
    const asker = this.#asker()
    try {
      const parts = [this.#binding.quantizerOutput(this.#quantizer)]
      for (let length = parts[0].length; this.#status !== OK && length < STEP; length += parts[parts.length - 1].length) {
        this.#signal.throwIfAborted()
        const chunk = await this.#input.next(asker)
        this.#status = chunk ? this.#binding.feed(this.#loader, chunk) : OK
        parts.push(this.#binding.quantizerOutput(this.#quantizer))
      }
      const whole = parts.length === 1 ? parts[0] : joined(parts)
      if (whole.length > 0) return whole
      await this.#input.complete()
      await this.#input.end()
      return null
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    }
  }

  report() {
    return this.#binding.quantizerReport(this.#quantizer)
  }
}

/** From a source of bytes to those of a GGUF file, in steps: whoever takes them sets the pace. */
import { compileBinary, endThreads, instantiate, startThreads } from './binaries.js'
import { Binding, NEED_DATA, OK } from './binding.js'
import { chooseBinary } from './features.js'
import { throwIfAborted } from './errors.js'
import { Input, Planner, located, marginOf, planHeader } from './planning.js'

const MAXIMUM = 512 << 20 /* bytes of memory: a header of 256 MiB, and rows */
const STEP = 1 << 20 /* bytes of output, about, per step */

/** @typedef {import('./binding.js').QuantizeOptions} QuantizeOptions */

export class Quantizing {
  #input
  #binding
  #loader
  /** @type {number} */
  #quantizer = 0
  #status = NEED_DATA
  #ended = false

  /** No text was looked at. */
  tokens = 0

  /** @param {Input} input @param {Binding} binding */
  constructor(input, binding) {
    this.#input = input
    this.#binding = binding
    this.#loader = binding.newLoader(input.firstSize, input.fileName)
  }

  /**
   * Reads the header. Where types, format or methods look at the model, or its tensors are not those of a file, it comes layer by layer (calibrating.js).
   * @param {import('./source.js').Descriptor} descriptor
   * @param {QuantizeOptions & import('./planning.js').InputOptions & { binary?: string, threads?: number, inProcess: boolean, wasmUrl?: string,
   *   mixed?: import('./calibrating.js').Mixed, dataset?: string, calibration?: string | true, calibrationTokens: number }} options
   * @param {import('./protocol.js').CallContext} context
   * @returns {Promise<Quantizing | import('./calibrating.js').Calibrating>}
   */
  static async start(descriptor, options, context) {
    const { signal } = context
    const choice = chooseBinary(options)
    const input = await Input.of(descriptor, options, { signal, jumps: true })
    try {
      const compiled = await input.startBeside(compileBinary(choice.binary, { wasmUrl: options.wasmUrl, quantize: true }), signal)
      const planner = await Planner.of(compiled, input, {})
      const header = await planner.read(input)
      const recipe = { ...options, threads: choice.threads }
      const text = await textFor(planner, recipe)
      if (text !== undefined || planner.needs(recipe).model) {
        const { Calibrating, calibrationBytes, shareOf } = await import('./calibrating.js')
        const description = planner.describe()
        const mixed = options.mixed !== undefined
        const parts = input.seekable && !mixed
        const extra = calibrationBytes(description, { tokens: text === undefined ? 0 : options.calibrationTokens, mixed })
        const share = parts ? shareOf(description) : 1
        const how = /** @type {const} */ ({ contextLength: 0, kv: 'i8', sessions: 1, extra, share, wasmUrl: options.wasmUrl })
        const planned = await planHeader({ planner, header, compiled, choice }, input, how, signal)
        return await Calibrating.start(input, planned, { ...recipe, text, extra, share, parts }, context)
      }
      const binding = new Binding(await instantiate(compiled, { initial: marginOf(choice), maximum: MAXIMUM + marginOf(choice) }))
      await startThreads(binding.module, choice.threads)
      const quantizing = new Quantizing(input, binding)
      await quantizing.#begin(header, recipe)
      return quantizing
    } catch (error) {
      await input.end(error)
      throw located(error, input.name)
    }
  }

  #asker() {
    return {
      wanted: () => this.#binding.wantedRange(this.#loader),
      fileName: (/** @type {number} */ file) => this.#binding.fileName(this.#loader, file),
    }
  }

  /** @param {import('./planning.js').Chunk[]} header @param {QuantizeOptions} recipe */
  async #begin(header, recipe) {
    for (const chunk of header) this.#binding.feed(this.#loader, chunk)
    this.#quantizer = this.#binding.newQuantizer(this.#loader, recipe)
    /* What came with the header of a file is here already. */
    for (const chunk of header) this.#status = this.#binding.feed(this.#loader, chunk)
    if (this.#status !== OK) await this.#input.turn(this.#asker())
  }

  /** Bytes of the whole file. */
  get size() {
    return this.#binding.quantizerSize(this.#quantizer)
  }

  /** The next bytes of the file; null at its end. @param {import('./protocol.js').CallContext} context
   * @returns {Promise<import('./calibrating.js').Piece | null>} */
  async next({ signal }) {
    const asker = this.#asker()
    const step = STEP * ((this.#input.size || this.size) / this.size) /* of the source */
    try {
      while (!this.#ended) {
        for (const end = this.#input.loaded + step; this.#status !== OK && this.#input.loaded < end; ) {
          throwIfAborted(signal)
          const chunk = await this.#input.next(asker)
          this.#status = chunk ? this.#binding.feed(this.#loader, chunk) : OK
        }
        const bytes = this.#binding.quantizerOutput(this.#quantizer)
        if (bytes.length > 0) return { file: null, bytes }
        if (this.#status !== OK) continue
        await this.#input.complete()
        await this.#input.end()
        this.#ended = true
      }
      return null
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    }
  }

  report() {
    return this.#binding.quantizerReport(this.#quantizer)
  }

  /** Ends the threads: nothing may be asked afterwards. */
  end() {
    this.#binding.free('quantizer', this.#quantizer)
    return endThreads(this.#binding.module)
  }
}

/** The text to calibrate with: what was given, the default one where it is asked for or something needs one, or none.
 * @param {Planner} planner @param {QuantizeOptions & { mixed?: any, calibration?: string | true }} recipe
 * @returns {Promise<string | undefined>} */
async function textFor(planner, recipe) {
  if (typeof recipe.calibration === 'string') return recipe.calibration
  if (!recipe.calibration && !recipe.mixed && !planner.needs(recipe).text) return undefined
  return (await import('./calibration.js')).default
}

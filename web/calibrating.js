/**
 * From a model to the bytes of a file or folder: what a text makes of it decides how it is rounded, layer by layer. Its
 * weights come and go, but where the source can be read only once, or all of it is measured first. Beside quantizing.js, which
 * goes row by row.
 */
import { endThreads } from './binaries.js'
import { MORE, NEED_DATA, OK } from './binding.js'
import { Loading } from './loading.js'
import { located } from './planning.js'
import { yieldToEvents } from './platform.js'

const WINDOW = 512
const DOCUMENT_LIMIT = 256 << 20 /* bytes */
/* Of a folder, besides config.json and weights. */
const DOCUMENTS = [
  'tokenizer.json', 'tokenizer_config.json', 'generation_config.json', 'chat_template.jinja', 'special_tokens_map.json',
  'added_tokens.json', 'tokenizer.model', 'vocab.json', 'merges.txt',
]

/** @typedef {import('./binding.js').QuantizeOptions} Recipe */
/** `types`: to choose from. @typedef {{ size?: number, bitsPerWeight?: number, types?: string }} Mixed */
/** @typedef {{ file: string | null, bytes: Uint8Array }} Piece */

/** The share of the weights that is there at a time where they come and go: a layer, and what is in none.
 * @param {any} description the core's, of the header */
export function shareOf({ tensors }) {
  /** @type {Record<string, number>} */
  const layers = {}
  let all = 0
  for (const { name, bytes } of tensors) {
    const layer = /^blk\.\d+/.exec(name)?.[0] ?? ''
    layers[layer] = (layers[layer] ?? 0) + bytes
    all += bytes
  }
  const { '': outside = 0, ...inside } = layers
  return Math.min(1, (outside + Math.max(0, ...Object.values(inside))) / all)
}

/** Bytes that calibrating takes at most beside the model: activations of the text, the Hessians of a layer, whose
 * factors take their places, its weights as floats and as they come out; of mixed precision what stands before every layer.
 * @param {any} description the core's, of the header @param {{ tokens: number, mixed: boolean }} what */
export function calibrationBytes({ tensors }, { tokens, mixed }) {
  const volume = (/** @type {number[]} */ shape) => shape.reduce((a, b) => a * b, 1)
  const matrices = tensors.filter((/** @type {any} */ { shape }) => shape.length > 1)
  const columns = matrices.map((/** @type {any} */ { shape }) => shape[0])
  const widest = Math.max(...columns)
  const width = matrices[0]?.shape[0] ?? 0
  const largest = Math.max(...matrices.map((/** @type {any} */ { shape }) => volume(shape)))
  const layers = new Set(tensors.map((/** @type {any} */ { name }) => /^blk\.(\d+)/.exec(name)?.[1])).size
  const layer = matrices.reduce((/** @type {number} */ sum, /** @type {any} */ { shape, name }) => (/^blk\.0\./.test(name) ? sum + volume(shape) : sum), 0)
  /* Each has an input of its own; they are in one tensor, or in one each. */
  const experts = Math.max(1, ...tensors.map((/** @type {any} */ { shape, name }) => Number(/^blk\.0\.ffn_\w+\.(\d+)\.weight/.exec(name)?.[1] ?? -1) + 1 || (/_exps\./.test(name) && shape[2]) || 1))
  const streams = 4 * tokens * (4 * width + widest)
  const hessians = 4 * ((2 + experts) * width ** 2 + experts * widest ** 2) + 512 * widest
  const measured = mixed ? 4 * 1024 * width * layers + 2048 * (largest / width) : 0
  return streams + hessians + 8 * layer + 8 * largest + measured
}

export class Calibrating {
  #loading
  #input
  #options
  #context
  /** @type {string | undefined} */
  #config
  #quantizer = 0
  #imatrix = 0
  #status = MORE
  #ended = false
  /** Documents that are still to be copied. @type {string[]} */
  #documents = []
  /** Of the text. */
  tokens = 0

  /** @param {Loading} loading @param {import('./planning.js').Input} input @param {any} options @param {import('./protocol.js').CallContext} context */
  constructor(loading, input, options, context) {
    this.#loading = loading
    this.#input = input
    this.#options = options
    this.#context = context
  }

  /**
   * Loads the model, or only begins to, and measures it where the types are to be chosen. With a `dataset`, the name of the text,
   * what comes out is an imatrix file, of imatrix().
   * @param {import('./planning.js').Input} input
   * @param {import('./planning.js').Planned} planned
   * @param {Recipe & { mixed?: Mixed, dataset?: string, text?: string, calibrationTokens: number, extra: number, share: number, parts: boolean }} options
   * @param {import('./protocol.js').CallContext} context
   */
  static async start(input, planned, options, context) {
    const onProgress = (/** @type {any} */ progress) => context.emit({ progress })
    const hooks = { signal: context.signal, onProgress, onWarning: () => {} }
    const { extra, share, parts } = options
    const loading = await Loading.of(input, planned, { contextLength: 0, kv: 'i8', sessions: 1, extra, share, parts }, hooks)
    await loading.complete
    const calibrating = new Calibrating(loading, input, options, context)
    if (input.fileName === 'config.json') calibrating.#config = await new Blob(firstFile(planned.header)).text()
    await calibrating.#begin(planned.choice.threads)
    return calibrating
  }

  /** @param {number} threads */
  async #begin(threads) {
    const { binding, model } = this.#loading
    const { text, calibrationTokens, mixed, dataset } = this.#options
    const { contextLength, parameters } = binding.modelInfo(model)
    const all = text === undefined ? new Int32Array(0) : binding.tokenize(model, text, { special: false, bos: false })
    const tokens = all.slice(0, calibrationTokens)
    this.tokens = tokens.length
    const window = Math.min(contextLength, WINDOW)
    const how = { recipe: { ...this.#options, threads, config: this.#config }, tokens, window }
    if (dataset !== undefined) {
      this.#imatrix = binding.newImatrix(model, { tokens, window, threads, dataset })
      return
    }
    if (!mixed) {
      this.#quantizer = binding.newModelQuantizer(model, how)
      return
    }
    const allotment = binding.newAllotment(model, how, mixed.types)
    for (let status = MORE; status === MORE; ) {
      status = await this.#measure('allotment', allotment)
    }
    /* Types for so many bytes of the whole file: its header depends on them. */
    const most = mixed.size ?? Math.floor((/** @type {number} */ (mixed.bitsPerWeight) / 8) * parameters)
    for (let left = most; ; ) {
      this.#quantizer = binding.newModelQuantizer(model, how, { allotment, bytes: left })
      const over = mixed.size ? this.size - most : 0
      if (over <= 0) break
      binding.free('quantizer', this.#quantizer)
      left = Math.max(0, left - over)
    }
    binding.free('allotment', allotment)
  }

  /** @param {'allotment' | 'imatrix'} kind @param {number} object */
  async #measure(kind, object) {
    await this.#breathe()
    const { status, done } = this.#loading.binding.measure(kind, object)
    this.#context.emit({ progress: { phase: 'measure', loaded: done, total: 1 } })
    return status
  }

  /** The whole file. */
  async imatrix() {
    try {
      while (this.#status !== OK) {
        if (this.#status === NEED_DATA) await this.#loading.feed()
        this.#status = await this.#measure('imatrix', this.#imatrix)
      }
      await this.#finish()
      return this.#loading.binding.imatrixBytes(this.#imatrix)
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    }
  }

  /** Lets an abort come through. */
  async #breathe() {
    await yieldToEvents()
    this.#context.signal.throwIfAborted()
  }

  get size() {
    return this.#loading.binding.quantizerSize(this.#quantizer)
  }

  report() {
    return this.#loading.binding.quantizerReport(this.#quantizer)
  }

  /** Ends the threads: nothing may be asked afterwards. */
  end() {
    const { binding, model } = this.#loading
    binding.free('quantizer', this.#quantizer)
    binding.free('model', model)
    return endThreads(binding.module)
  }

  /** What comes next; null at the end. @param {import('./protocol.js').CallContext} context @returns {Promise<Piece | null>} */
  async next(context) {
    const { binding } = this.#loading
    this.#context = context
    try {
      for (;;) {
        const bytes = binding.quantizerOutput(this.#quantizer)
        const file = binding.quantizerFile(this.#quantizer)
        if (bytes.length > 0) return { file, bytes }
        if (this.#status === OK) return await this.#document()
        if (this.#status === NEED_DATA) await this.#loading.feed()
        await this.#breathe()
        this.#status = binding.call('nibl_quantizer_step', this.#quantizer)
        if (this.#status === OK && this.#config !== undefined && binding.quantizerFile(this.#quantizer)) this.#documents = [...DOCUMENTS]
      }
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    }
  }

  /** @returns {Promise<Piece | null>} */
  async #document() {
    for (let name; (name = this.#documents.shift()); ) {
      const bytes = await this.#input.document(name, DOCUMENT_LIMIT)
      if (bytes) return { file: name, bytes }
    }
    await this.#finish()
    return null
  }

  /** All has come that is wanted of weights that come and go. */
  async #finish() {
    if (!this.#options.parts || this.#ended) return
    await this.#input.complete()
    await this.#input.end()
    this.#ended = true
  }
}

/** Bytes of file 0, which a folder's header begins with. @param {import('./planning.js').Chunk[]} header */
function firstFile(header) {
  return header.flatMap(({ offset, bytes }) => (offset < 2 ** 40 && bytes ? [/** @type {BlobPart} */ (bytes)] : []))
}

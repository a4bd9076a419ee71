/** quantize(): what it is told becomes what the engine is told, and what comes out goes where it is wanted. Fetched when it
 * is called. */
import { describeSource } from './describe.js'
import { NiblError } from './errors.js'
import { imatrixOptions, quantizeOptions, readOptions } from './options.js'
import { isNode, nodeModule } from './platform.js'
import { openSource } from './source.js'
import { readBytes } from './stream.js'

const TEXT_LIMIT = 64 << 20 /* bytes */
const IMATRIX_LIMIT = 1 << 30 /* bytes */
const TOKEN_BYTES = 256 /* of the text per token that is wanted: what is behind cannot count */
const PROGRESS_INTERVAL = 100 /* ms */
const AHEAD = 2 /* pieces: the engine makes one while another is on its way */

/** @typedef {import('./nibl.d.ts').QuantizeOptions} Given */
/** @typedef {import('./binding.js').QuantizeOptions} Recipe */

/** A list as the core wants it. @param {string | string[] | undefined} list */
const listed = (list) => list && [list].flat().join(',')

/** What a recipe is. @param {any} options as read from the table @returns {Omit<Recipe, 'threads' | 'config'>} */
function recipeOf({ recipe, type, scheme, embedding, head, tensors, method, requantize, measure, force, format, shardBytes }) {
  const rest = { requantize, measure, force, format, shardBytes }
  if (!recipe) {
    if (type && scheme) throw new NiblError('BAD_ARGUMENT', 'The options "type" and "scheme" are two names of one thing.')
    return { type: type ?? scheme, embedding, head, tensors: Object.entries(tensors ?? {}), method: listed(method), ...rest }
  }
  if ([type, scheme, embedding, head, tensors, method].some((told) => told !== undefined)) {
    throw new NiblError('BAD_ARGUMENT', 'The option "recipe" says what types and methods are: "type", "scheme", "embedding", "head", "tensors" and "method" are not for it.')
  }
  try {
    const given = typeof recipe === 'string' ? JSON.parse(recipe) : recipe
    const told = given.quantization?.recipe ?? given.recipe ?? given
    const isText = (/** @type {any} */ value) => value === undefined || typeof value === 'string'
    const pairs = told.tensors ?? []
    if (![told.type, told.embedding, told.head, told.method].every(isText)) throw new TypeError('a member is no text')
    if (!pairs.every((/** @type {any} */ pair) => pair.length === 2 && pair.every((/** @type {any} */ text) => typeof text === 'string'))) throw new TypeError('"tensors" has no pairs of texts')
    return { type: told.type, embedding: told.embedding, head: told.head, tensors: pairs, method: told.method, ...rest }
  } catch (cause) {
    throw new NiblError('BAD_ARGUMENT', `The option "recipe" must be what a quantized file or a report carries: ${/** @type {Error} */ (cause).message}`, { cause })
  }
}

/** A text to calibrate with; true: the default one. @param {any} given @param {number} tokens @param {AbortSignal} [signal] */
async function textOf(given, tokens, signal) {
  if (given === undefined || given === true) return given
  const limit = Math.min(TEXT_LIMIT, TOKEN_BYTES * tokens)
  if (typeof given === 'string') return given.slice(0, limit)
  if (given instanceof Blob) return given.slice(0, limit).text()
  try {
    if (isNode && given.protocol === 'file:') {
      return (await nodeModule('node:fs').promises.readFile(given, { encoding: 'utf8', signal })).slice(0, limit)
    }
    const response = await fetch(given, { signal })
    if (!response.ok) throw new Error(`HTTP status ${response.status}`)
    return (await response.text()).slice(0, limit)
  } catch (cause) {
    signal?.throwIfAborted()
    throw new NiblError('DOWNLOAD_FAILED', `The calibration text ${given} cannot be had: ${/** @type {Error} */ (cause).message}`, { cause })
  }
}

/** What an imatrix file calls a text. @param {any} given */
function nameOf(given) {
  if (given === true) return 'default'
  return given instanceof URL ? given.href : given instanceof File ? given.name : 'text'
}

/** Bytes of an imatrix file. @param {any} given @param {any} options those of sources */
async function imatrixOf(given, options) {
  if (given === undefined) return undefined
  const descriptor = describeSource(given, options)
  if (descriptor.kind === 'hub') throw new NiblError('BAD_ARGUMENT', 'The option "imatrix" must be the URL of the file, not a name.')
  const source = openSource(descriptor, options)
  return readBytes(await source.open(), IMATRIX_LIMIT, source.name)
}

/** Where the bytes go: Blobs, one stream, or a stream for every file. */
class Output {
  #sink
  /** @type {WritableStreamDefaultWriter<Uint8Array> | undefined} */
  #writer
  /** @type {{ name: string | null, parts: BlobPart[] }[]} */
  files = []

  /** @param {any} sink */
  constructor(sink) {
    this.#sink = sink
    this.#writer = sink instanceof WritableStream ? sink.getWriter() : undefined
  }

  /** @param {string | null} file null: the one that there is @param {Uint8Array<ArrayBuffer>} bytes */
  async write(file, bytes) {
    if (file && this.#sink instanceof WritableStream) {
      throw new NiblError('BAD_ARGUMENT', 'A folder comes out: "sink" must be a function that gives a WritableStream for every name.')
    }
    if (this.files.at(-1)?.name !== file) {
      this.files.push({ name: file, parts: [] })
      if (typeof this.#sink === 'function') {
        await this.#writer?.close()
        this.#writer = undefined
        this.#writer = (await this.#sink(file ?? 'model.gguf')).getWriter()
      }
    }
    if (this.#writer) await this.#writer.write(bytes)
    else /** @type {any} */ (this.files.at(-1)).parts.push(bytes)
  }

  async close() {
    await this.#writer?.close()
  }

  /** @param {unknown} error */
  async abort(error) {
    await this.#writer?.abort(error).catch(() => {})
  }
}

/** Tells what is done at most ten times a second, with what the time so far lets expect of the rest.
 * @param {((progress: import('./nibl.d.ts').Progress) => void) | undefined} listener */
function paced(listener) {
  let phase = ''
  let began = 0
  let told = 0
  return (/** @type {any} */ progress) => {
    const now = performance.now()
    if (progress.phase !== phase) began = now
    else if (now - told < PROGRESS_INTERVAL && progress.loaded < progress.total) return
    phase = progress.phase
    told = now
    const { loaded, total } = progress
    const secondsLeft = loaded > 0 && total > 0 ? ((now - began) / 1000) * ((total - loaded) / loaded) : undefined
    listener?.({ ...progress, secondsLeft })
  }
}

/** @param {(source: any, options: any) => Promise<any>} open @param {any} source @param {any} given
 * @returns {Promise<import('./nibl.d.ts').Quantized>} */
export async function quantizeWith(open, source, given) {
  const { sink, signal, onProgress, calibration, calibrationTokens, imatrix, size: wanted, bitsPerWeight, types, ...options } = readOptions(quantizeOptions, given)
  const tell = paced(onProgress)
  const output = new Output(sink)
  /** @type {(() => void) | undefined} */
  let end
  try {
    const mixed = wanted || bitsPerWeight ? { size: wanted, bitsPerWeight, types: listed(types) } : undefined
    if (wanted && bitsPerWeight) throw new NiblError('BAD_ARGUMENT', 'The options "size" and "bitsPerWeight" exclude each other.')
    if (imatrix && (mixed || calibration)) throw new NiblError('BAD_ARGUMENT', 'The option "imatrix" stands for a text: "calibration", and "size" and "bitsPerWeight", which are measured on one, are not for it.')
    const engineOptions = { ...options, ...recipeOf(options), mixed, calibrationTokens, calibration: await textOf(calibration, calibrationTokens, signal), imatrix: await imatrixOf(imatrix, { ...options, signal }) }
    const { link, close, args, calls } = await open(source, { ...engineOptions, signal, onProgress: tell })
    end = close
    const { size, report, tokens } = await link.call('quantize', args, calls) /* without what rounding will lose */
    const ask = () => {
      const piece = link.call('quantized', [], { signal })
      piece.catch(() => {})
      return piece
    }
    const coming = Array.from({ length: AHEAD }, ask)
    for (let loaded = 0; ; ) {
      const piece = await coming.shift()
      if (!piece) break
      coming.push(ask())
      loaded += piece.bytes.length
      await output.write(piece.file, piece.bytes)
      tell({ phase: 'quantize', loaded, total: Math.max(size, loaded), report })
    }
    await output.close()
    const [first] = output.files
    const folder = first?.name !== null
    return {
      report: await link.call('quantizeReport', [], { signal }),
      size,
      calibrationTokens: tokens,
      blob: sink || folder ? null : new Blob(first.parts),
      files: sink || !folder ? null : output.files.map(({ name, parts }) => new File(parts, String(name))),
    }
  } catch (error) {
    await output.abort(error)
    throw error
  } finally {
    end?.()
  }
}

/** @param {(source: any, options: any) => Promise<any>} open @param {any} source @param {any} given
 * @returns {Promise<import('./nibl.d.ts').Imatrix>} */
export async function imatrixWith(open, source, given) {
  const { signal, onProgress, calibration = true, calibrationTokens, dataset = nameOf(calibration), ...options } = readOptions(imatrixOptions, given)
  const engineOptions = { ...options, tensors: [], dataset, calibrationTokens, calibration: await textOf(calibration, calibrationTokens, signal) }
  const { link, close, args, calls } = await open(source, { ...engineOptions, signal, onProgress: paced(onProgress) })
  try {
    const { bytes, tokens } = await link.call('imatrix', args, calls)
    return { blob: new Blob([bytes]), calibrationTokens: tokens }
  } finally {
    close()
  }
}

/**
 * One instance of the core: its functions, its memory, and the conversion of strings, structs and errors. Everything
 * that knows about addresses is here.
 *
 * An address is a number, in every variant: the glue converts arguments and results as wasm/exports.txt says. In memory
 * it has 4 bytes, or 8 in the memory64 variants, as has a size_t. The memory may be replaced by a longer one during any
 * call: views are taken anew after each.
 */
import { NiblError } from './errors.js'

const STAGING = 1 << 20 /* bytes of a file handed over at once */
const SCRATCH = 128 /* bytes for results */
const KV_TYPES = { i8: 0, f16: 1, f32: 2 }
const ACTIVATIONS = { i8: 0, f32: 1 }

export const OK = 0
export const MORE = 1
export const NEED_DATA = 2
const BUFFER_TOO_SMALL = -9

const utf8 = new TextEncoder()
const text = new TextDecoder('utf-8', { ignoreBOM: true })

/** @typedef {number} Pointer */

/**
 * @typedef {object} Plan bytes
 * @property {number} contextLength tokens
 * @property {number} weights
 * @property {number} kv when the context is full
 * @property {number} scratch
 * @property {number} vocabulary
 * @property {number} total
 */

/** nibl_quantize_options. `tensors`: pairs of pattern and type.
 * @typedef {{ type?: string, embedding?: string, head?: string, tensors: [string, string][], method?: string, threads: number,
 *   requantize?: boolean, measure?: boolean, force?: boolean, format?: string, config?: string, shardBytes?: number, imatrix?: Uint8Array }} QuantizeOptions */

/** @typedef {{ recipe: QuantizeOptions, tokens: Int32Array, window: number }} Calibration */

/** @param {Int32Array | Float32Array} list */
const bytesOf = (list) => new Uint8Array(list.buffer, list.byteOffset, list.byteLength)

export class Binding {
  #view = new DataView(new ArrayBuffer(0))
  #staging
  #scratch
  #wordBytes

  /** @param {import('./binaries.js').Instance} instance */
  constructor({ module, memory, wordBytes }) {
    this.module = module
    this.memory = memory
    this.#wordBytes = wordBytes
    this.#scratch = this.allocate(SCRATCH)
    this.#staging = this.allocate(STAGING)
  }

  /** Calls a function; a negative status is thrown with its message.
   * @param {string} name @param {...(number | boolean)} args @returns {number} */
  call(name, ...args) {
    const status = this.#enter(name, args)
    return status >= 0 ? status : this.#throwStatus(status)
  }

  /** @param {number} status @returns {never} */
  #throwStatus(status) {
    const code = this.#cString(this.#enter('nibl_status_name', [status]))
    throw new NiblError(code, this.#cString(this.#enter('nibl_last_message', [])))
  }

  /** @param {string} name @param {(number | boolean)[]} args */
  #enter(name, args) {
    try {
      return this.module[`_${name}`](...args)
    } catch (cause) {
      throw new NiblError('CRASHED', `The core failed in ${name}: ${cause}. Load the model again.`, { cause })
    }
  }

  /* ---- Memory ---- */

  /** @param {number} bytes @returns {Pointer} to be freed by the caller */
  allocate(bytes) {
    const pointer = this.#enter('malloc', [Math.max(bytes, 1)])
    if (pointer === 0) throw new NiblError('OUT_OF_MEMORY', `The core cannot allocate ${bytes} bytes.`)
    return pointer
  }

  /** Makes the memory as large as this, where it is smaller: in one step, not in those of the allocator. @param {number} bytes */
  grow(bytes) {
    const pages = Math.ceil((bytes - this.memory.buffer.byteLength) / 65536)
    try {
      if (pages > 0) this.memory.grow(/** @type {any} */ (this.#wordBytes === 8 ? BigInt(pages) : pages))
    } catch (cause) {
      throw new NiblError('OUT_OF_MEMORY', `The memory cannot grow to ${bytes} bytes.`, { cause })
    }
  }

  /** @param {Pointer} pointer */
  release(pointer) {
    this.#enter('free', [pointer])
  }

  get #data() {
    if (this.#view.buffer !== this.memory.buffer) this.#view = new DataView(this.memory.buffer)
    return this.#view
  }

  /** @param {Pointer} pointer @param {number} length */
  #bytes(pointer, length) {
    return new Uint8Array(this.memory.buffer, pointer, length)
  }

  /** @param {number} index of a 32-bit result in the scratch block */
  #u32(index) {
    return this.#data.getUint32(this.#scratch + 4 * index, true)
  }

  /** @param {number} index of an address or size_t in the scratch block */
  #word(index) {
    const at = this.#scratch + this.#wordBytes * index
    return this.#wordBytes === 8 ? Number(this.#data.getBigUint64(at, true)) : this.#data.getUint32(at, true)
  }

  /** @param {number} index of a double result in the scratch block */
  #f64(index) {
    return this.#data.getFloat64(this.#scratch + 8 * index, true)
  }

  /** Copied out first: a TextDecoder refuses shared memory. @param {Pointer} pointer @param {number} length */
  #string(pointer, length) {
    return text.decode(this.#bytes(pointer, length).slice())
  }

  /** @param {Pointer} pointer */
  #cString(pointer) {
    let end = pointer
    while (this.#data.getUint8(end) !== 0) end++
    return this.#string(pointer, end - pointer)
  }

  /** Runs `use` with a copy of `bytes` in memory. @template T
   * @param {Uint8Array} bytes @param {(pointer: Pointer) => T} use */
  #withBytes(bytes, use) {
    const pointer = this.allocate(bytes.length)
    try {
      this.#bytes(pointer, bytes.length).set(bytes)
      return use(pointer)
    } finally {
      this.release(pointer)
    }
  }

  /** @param {string} name a function that makes an object and writes its address behind its arguments
   * @param {...(number | boolean)} args @returns {Pointer} */
  #make(name, ...args) {
    this.call(name, ...args, this.#scratch)
    return this.#word(0)
  }

  /* ---- Loading ---- */

  /** @param {number} fileSize of file 0, 0 if unknown @param {string} name of file 0 @param {string} [quantize] a type
   * @param {boolean} [configOnly] file 0 is a config.json, and all there is */
  newLoader(fileSize, name, quantize, configOnly) {
    const loader = this.#make('nibl_abi_loader_new', fileSize)
    const tell = (/** @type {string} */ what, /** @type {string} */ value) =>
      this.#withBytes(utf8.encode(`${value}\0`), (pointer) => this.call(what, loader, pointer))
    if (name) tell('nibl_loader_set_name', name)
    if (quantize) tell('nibl_loader_set_quantize', quantize)
    if (configOnly) this.call('nibl_loader_set_config_only', loader)
    return loader
  }

  /** @param {Pointer} loader @param {number} file */
  fileName(loader, file) {
    return this.#cString(this.#enter('nibl_loader_file_name', [loader, file]))
  }

  /** @param {Pointer} loader @returns {{ offset: number, length: number }} `offset`: an address, as nibl.h has it */
  wantedRange(loader) {
    this.call('nibl_abi_loader_want', loader, this.#scratch)
    return { offset: this.#f64(0), length: this.#f64(1) }
  }

  /** Hands over bytes of a file, or tells that there are none from there on; OK once nothing more is needed.
   * @param {Pointer} loader @param {import('./planning.js').Chunk} chunk */
  feed(loader, { offset, bytes }) {
    if (!bytes) return this.call('nibl_abi_loader_end', loader, offset)
    let status = NEED_DATA
    for (let at = 0; at < bytes.length && status === NEED_DATA; at += STAGING) {
      const part = bytes.subarray(at, at + STAGING)
      this.#bytes(this.#staging, part.length).set(part)
      status = this.call('nibl_abi_loader_feed', loader, offset + at, this.#staging, part.length)
    }
    return status
  }

  /** @param {Pointer} loader
   * @param {{ contextLength: number, threads: number, kv: 'i8' | 'f16' | 'f32', sessions: number }} options
   * @returns {Plan} */
  plan(loader, { contextLength, threads, kv, sessions }) {
    this.call('nibl_abi_loader_plan', loader, contextLength, threads, KV_TYPES[kv], sessions, this.#scratch)
    return {
      contextLength: this.#f64(0),
      weights: this.#f64(2),
      kv: this.#f64(3),
      scratch: this.#f64(4),
      vocabulary: this.#f64(5),
      total: this.#f64(6),
    }
  }

  /** @param {Pointer} loader @returns {any} the core's description of the file: nibl_loader_inspect */
  describe(loader) {
    return this.#document('nibl_loader_inspect', loader)
  }

  /** @param {string} name a function that writes a JSON document about an object @param {Pointer} object @returns {any} */
  #document(name, object) {
    let capacity = 1 << 16
    for (;;) {
      const pointer = this.allocate(capacity)
      try {
        const status = this.#enter(name, [object, pointer, capacity, this.#scratch])
        const length = this.#word(0)
        if (status === OK) return JSON.parse(this.#string(pointer, length))
        if (status !== BUFFER_TOO_SMALL) this.#throwStatus(status)
        capacity = length + 1
      } finally {
        this.release(pointer)
      }
    }
  }

  /** @param {Pointer} loader @param {boolean} [parts] its weights are to come and go @returns {Pointer} the model */
  begin(loader, parts) {
    return this.#make(parts ? 'nibl_loader_begin_parts' : 'nibl_loader_begin', loader)
  }

  /* ---- Quantizing ---- */

  /** Addresses or sizes, one after the other. @param {number[]} values */
  #words(values) {
    const view = new DataView(new ArrayBuffer(this.#wordBytes * values.length))
    values.forEach((value, i) => {
      if (this.#wordBytes === 8) view.setBigUint64(8 * i, BigInt(value), true)
      else view.setUint32(4 * i, value, true)
    })
    return new Uint8Array(view.buffer)
  }

  /** Runs `use` with an abi_quantize_options (wasm/abi.c) in memory. @template T
   * @param {QuantizeOptions} options @param {(pointer: Pointer) => T} use */
  #withRecipe({ type, embedding, head, tensors, method, threads, requantize, measure, force, format, config, shardBytes = 0, imatrix }, use) {
    /** @type {Pointer[]} */
    const owned = []
    const own = (/** @type {Uint8Array} */ bytes) => {
      const pointer = this.allocate(bytes.length)
      owned.push(pointer)
      this.#bytes(pointer, bytes.length).set(bytes)
      return pointer
    }
    const string = (/** @type {string | undefined} */ value) => (value === undefined ? 0 : own(utf8.encode(`${value}\0`)))
    try {
      const list = own(this.#words(tensors.flat().map(string)))
      const texts = [type, embedding, head, method, format, config].map(string)
      const flags = [requantize, measure, force].map((flag) => Number(Boolean(flag)))
      return use(own(this.#words([...texts, list, tensors.length, threads, ...flags, shardBytes, imatrix ? own(imatrix) : 0, imatrix?.length ?? 0])))
    } finally {
      for (const pointer of owned) this.release(pointer)
    }
  }

  /** @param {Pointer} loader its header is there @param {QuantizeOptions} options */
  recipeNeeds(loader, options) {
    return this.#withRecipe(options, (recipe) => ({
      model: Boolean(this.#enter('nibl_abi_quantize_needs_model', [loader, recipe])),
      text: Boolean(this.#enter('nibl_abi_quantize_needs_text', [recipe])),
    }))
  }

  /** @param {Pointer} loader its header is there @param {QuantizeOptions} options @returns {Pointer} */
  newQuantizer(loader, options) {
    return this.#withRecipe(options, (recipe) => this.#make('nibl_abi_quantizer_new', loader, recipe))
  }

  /** @param {Pointer} model @param {Calibration} how @param {{ allotment: Pointer, bytes: number }} [mixed] types for so many
   * bytes of tensors @returns {Pointer} */
  newModelQuantizer(model, { recipe, tokens, window }, mixed) {
    return this.#withRecipe(recipe, (options) =>
      this.#withBytes(bytesOf(tokens), (list) => {
        if (mixed) this.call('nibl_abi_allotment_choose', mixed.allotment, mixed.bytes, options)
        return this.#make('nibl_abi_model_quantizer_new', model, options, list, tokens.length, window)
      }),
    )
  }

  /** @param {Pointer} model @param {Calibration} how @param {string} [types] to choose from @returns {Pointer} */
  newAllotment(model, { recipe, tokens, window }, types) {
    return this.#withRecipe(recipe, (options) =>
      this.#withBytes(bytesOf(tokens), (list) => {
        const make = (/** @type {Pointer} */ names) => this.#make('nibl_abi_allotment_new', model, options, names, list, tokens.length, window)
        return types === undefined ? make(0) : this.#withBytes(utf8.encode(`${types}\0`), make)
      }),
    )
  }

  /** @param {Pointer} model @param {{ tokens: Int32Array, window: number, threads: number, dataset: string }} how @returns {Pointer} */
  newImatrix(model, { tokens, window, threads, dataset }) {
    return this.#withBytes(utf8.encode(`${dataset}\0`), (name) =>
      this.#withBytes(bytesOf(tokens), (list) => this.#make('nibl_imatrix_new', model, list, tokens.length, window, name, threads)),
    )
  }

  /** @param {'allotment' | 'imatrix'} kind @param {Pointer} object @returns {{ status: number, done: number }} `done`: a share */
  measure(kind, object) {
    const status = this.call(`nibl_${kind}_step`, object, this.#scratch)
    return { status, done: this.#f64(0) }
  }

  /** The file: a copy. @param {Pointer} imatrix */
  imatrixBytes(imatrix) {
    this.#enter('nibl_imatrix_bytes', [imatrix, this.#scratch, this.#scratch + this.#wordBytes])
    return this.#bytes(this.#word(0), this.#word(1)).slice()
  }

  /** Of the folder that comes out, the file that the last output belongs to; null where one file comes out. @param {Pointer} quantizer */
  quantizerFile(quantizer) {
    const name = this.#enter('nibl_quantizer_file', [quantizer])
    return name ? this.#cString(name) : null
  }

  /** @param {Pointer} quantizer */
  quantizerSize(quantizer) {
    return this.#enter('nibl_abi_quantizer_size', [quantizer])
  }

  /** What has come out since the last call: a copy. @param {Pointer} quantizer */
  quantizerOutput(quantizer) {
    this.#enter('nibl_quantizer_output', [quantizer, this.#scratch, this.#scratch + this.#wordBytes])
    return this.#bytes(this.#word(0), this.#word(1)).slice()
  }

  /** @param {Pointer} quantizer @returns {any} */
  quantizerReport(quantizer) {
    return this.#document('nibl_quantizer_report', quantizer)
  }

  /* ---- Model ---- */

  /** @param {Pointer} model */
  modelInfo(model) {
    this.call('nibl_abi_model_info', model, this.#scratch)
    const [architecture, name, parameters, packedBytes, contextLength, layers, vocabulary, bos, eos, addBos, width] =
      Array.from({ length: 11 }, (_, index) => this.#f64(index))
    return {
      architecture: this.#cString(architecture),
      name: this.#cString(name),
      parameters,
      packedBytes,
      contextLength,
      layers,
      vocabulary,
      bos,
      eos,
      addBos: addBos !== 0,
      width,
    }
  }

  /** @param {Pointer} model @param {string} key @returns {string | null} */
  metadata(model, key) {
    return this.#withBytes(utf8.encode(`${key}\0`), (pointer) => {
      const value = this.#enter('nibl_model_metadata', [model, pointer, this.#scratch])
      return value ? this.#string(value, this.#word(0)) : null
    })
  }

  /** @param {Pointer} model @param {string} string @param {{ special: boolean, bos: boolean }} options
   * @returns {Int32Array} */
  tokenize(model, string, { special, bos }) {
    const bytes = utf8.encode(string)
    const capacity = 3 * bytes.length + 2 // as nibl.h has it
    const tokens = this.allocate(4 * capacity)
    try {
      const flags = (special ? 1 : 0) + (bos ? 2 : 0)
      this.#withBytes(bytes, (pointer) =>
        this.call('nibl_tokenize', model, pointer, bytes.length, flags, tokens, capacity, this.#scratch),
      )
      return new Int32Array(this.memory.buffer, tokens, this.#word(0)).slice()
    } finally {
      this.release(tokens)
    }
  }

  /** @param {Pointer} model @param {Int32Array} ids @param {boolean} special */
  detokenize(model, ids, special) {
    const decoder = this.newDecoder(model, special)
    try {
      return [...ids, -1].map((id) => this.decode(decoder, id)).join('')
    } finally {
      this.free('decoder', decoder)
    }
  }

  /** @param {Pointer} model @param {boolean} special */
  newDecoder(model, special) {
    return this.#make('nibl_decoder_new', model, special)
  }

  /** @param {Pointer} decoder @param {number} token -1 ends the text */
  decode(decoder, token) {
    this.call('nibl_decoder_push', decoder, token, this.#scratch, this.#scratch + this.#wordBytes)
    return this.#string(this.#word(0), this.#word(1))
  }

  /** @param {Pointer} model @param {number} token */
  isEnd(model, token) {
    return Boolean(this.call('nibl_is_end_token', model, token))
  }

  /* ---- Sessions ---- */

  /** @param {Pointer} model
   * @param {{ contextLength: number, chunk: number, threads: number, kv: 'i8' | 'f16' | 'f32', activations: 'i8' | 'f32' }} options
   * @param {boolean} [allLogits] of every position, not of the last alone */
  newSession(model, { contextLength, chunk, threads, kv, activations }, allLogits = false) {
    const types = [KV_TYPES[kv], ACTIVATIONS[activations], allLogits]
    return this.#make('nibl_abi_session_new', model, contextLength, chunk, threads, ...types)
  }

  /** @param {Pointer} session @param {Int32Array} tokens @returns {number} how many were computed already */
  setTokens(session, tokens) {
    return this.#withBytes(bytesOf(tokens), (pointer) => {
      this.call('nibl_session_set_tokens', session, pointer, tokens.length, this.#scratch)
      return this.#word(0)
    })
  }

  /** @param {Pointer} session @param {number} token */
  append(session, token) {
    this.#data.setInt32(this.#scratch, token, true)
    this.call('nibl_session_append', session, this.#scratch, 1)
  }

  /** @param {Pointer} session @param {Pointer} from another session @param {number} tokens of it */
  copySession(session, from, tokens) {
    this.call('nibl_session_copy', session, from, tokens)
  }

  /** @param {Pointer} session @returns {Uint8Array[]} copies */
  saveSession(session) {
    const pieces = []
    for (let piece = 0; ; piece++) {
      this.call('nibl_session_save', session, piece, this.#scratch, this.#scratch + this.#wordBytes)
      const length = this.#word(1)
      if (length === 0) return pieces
      pieces.push(this.#bytes(this.#word(0), length).slice())
    }
  }

  /** @param {Pointer} session @param {Uint8Array} bytes @param {boolean} begin @returns whether that was all */
  restoreSession(session, bytes, begin) {
    let status = NEED_DATA
    for (let at = 0; at === 0 || at < bytes.length; at += STAGING) {
      const part = bytes.subarray(at, at + STAGING)
      this.#bytes(this.#staging, part.length).set(part)
      status = this.call('nibl_session_restore', session, this.#staging, part.length, begin && at === 0)
    }
    return status === OK
  }

  /** @param {Pointer} session @param {boolean} on */
  embed(session, on) {
    this.#enter('nibl_session_embed', [session, on])
  }

  /** @param {Pointer} session @param {number} width @param {{ last: boolean, normalize: boolean }} how */
  embedding(session, width, { last, normalize }) {
    const pointer = this.allocate(4 * width)
    try {
      this.call('nibl_session_embedding', session, Number(last), normalize, pointer)
      return this.floats(pointer, width)
    } finally {
      this.release(pointer)
    }
  }

  /** @param {Pointer[]} sessions @param {number} units */
  step(sessions, units) {
    return this.#withBytes(this.#words(sessions), (list) => this.call('nibl_step', list, sessions.length, units))
  }

  /** Of the positions computed last. @param {Pointer} session
   * @returns {{ first: number, rows: number, pointer: Pointer }} `first`: a position; rows of floats behind each other */
  logits(session) {
    const [pointer, first, rows] = [0, 1, 2].map((i) => this.#scratch + this.#wordBytes * i)
    this.call('nibl_session_logits', session, pointer, first, rows)
    return { pointer: this.#word(0), first: this.#word(1), rows: this.#word(2) }
  }

  /** A copy. @param {Pointer} pointer @param {number} count */
  floats(pointer, count) {
    return new Float32Array(this.memory.buffer, pointer, count).slice()
  }

  /** @param {Pointer} row of logits @param {number} next the token that follows @param {number} vocabulary
   * @param {Float32Array | null} reference a row of another model
   * @returns {number[]} as nibl_abi_score has them */
  score(row, next, vocabulary, reference) {
    const score = (/** @type {Pointer} */ other) => {
      this.call('nibl_abi_score', row, other, vocabulary, next, this.#scratch)
      return Array.from({ length: reference ? 7 : 3 }, (_, i) => this.#f64(i))
    }
    if (!reference) return score(0)
    return this.#withBytes(bytesOf(reference), score)
  }

  /** @param {Pointer} session @returns {number} tokens that are computed */
  computed(session) {
    return this.#enter('nibl_abi_session_computed', [session])
  }

  /** @param {Pointer} session @returns {number} tokens that are not computed yet */
  pending(session) {
    return this.#enter('nibl_abi_session_pending', [session])
  }

  /** @param {Pointer} session @returns {string} 16 hexadecimal digits */
  hash(session) {
    this.#enter('nibl_abi_session_hash', [session, this.#scratch])
    return [this.#u32(0), this.#u32(1)].map((half) => half.toString(16).padStart(8, '0')).join('')
  }

  /** @param {Pointer} session @param {boolean} on */
  speculate(session, on) {
    this.#enter('nibl_session_speculate', [session, on])
  }

  /** @param {Pointer} session @returns {{ guessed: number, right: number }} tokens */
  guesses(session) {
    this.#enter('nibl_abi_session_guesses', [session, this.#scratch])
    return { guessed: this.#f64(0), right: this.#f64(1) }
  }

  /** @param {Pointer} model
   * @param {{ temperature: number, topK: number, topP: number, minP: number, repeatPenalty: number, seed: number,
   *   repeatWindow?: number, logitBias: [number, number][] }} options */
  newSampler(model, { temperature, topK, topP, minP, repeatPenalty, seed, repeatWindow = 0, logitBias }) {
    const bias = new DataView(new ArrayBuffer(8 * logitBias.length))
    logitBias.forEach(([token, value], index) => {
      bias.setInt32(8 * index, token, true)
      bias.setFloat32(8 * index + 4, value, true)
    })
    const seeds = [Math.floor(seed / 2 ** 32), seed % 2 ** 32]
    return this.#withBytes(new Uint8Array(bias.buffer), (pointer) => {
      const list = [pointer, logitBias.length]
      return this.#make(
        'nibl_abi_sampler_new', model, temperature, topK, topP, minP, repeatPenalty, repeatWindow, ...seeds, ...list,
      )
    })
  }

  /** @param {Pointer} sampler @param {Pointer} session */
  sample(sampler, session) {
    this.call('nibl_sample', sampler, session, this.#scratch, this.#scratch + 4)
    return {
      token: this.#data.getInt32(this.#scratch, true),
      logprob: this.#data.getFloat32(this.#scratch + 4, true),
    }
  }

  /** @param {Pointer} model @param {{ format: 0 | 1, text: string }} grammar `format`: enum nibl_grammar_format */
  newGrammar(model, { format, text }) {
    const bytes = utf8.encode(text)
    return this.#withBytes(bytes, (pointer) => this.#make('nibl_grammar_new', model, format, pointer, bytes.length))
  }

  /** @param {Pointer} sampler @param {Pointer} grammar @param {number} tokens that the answer may have */
  constrain(sampler, grammar, tokens) {
    this.call('nibl_sampler_constrain', sampler, grammar, tokens)
  }

  /** @param {Pointer} sampler whether its grammar's text is whole */
  isDone(sampler) {
    return Boolean(this.#enter('nibl_sampler_done', [sampler]))
  }

  /** @param {'loader' | 'model' | 'decoder' | 'sampler' | 'grammar' | 'quantizer' | 'allotment' | 'imatrix'} kind @param {Pointer} object */
  free(kind, object) {
    this.#enter(`nibl_${kind}_free`, [object])
  }
}

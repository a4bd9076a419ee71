/** The public module: `load` and the model it gives. Types and manual: nibl.d.ts. */
import { makeRoom, renderChat, systemMessages } from './chat.js'
import { Conversation, readConversation } from './conversation.js'
import { describeSource, pageAddress } from './describe.js'
import { NiblError, abortReason, fromRecord, throwIfAborted } from './errors.js'
import { readIntegrity } from './integrity.js'
import { biasEntries, embedOptions, fitOptions, generateOptions, grammarOf, inspectOptions, loadOptions, readOptions, scoreOptions } from './options.js'
import { connect } from './connect.js'

export { openCache } from './cache.js'
export { NiblError } from './errors.js'

/** @typedef {import('./protocol.js').Link} Link */
/** @typedef {import('./nibl.d.ts').Piece} Piece */
/** @typedef {import('./nibl.d.ts').Model} PublicModel */

/** Said once: the same for all models of a page. @type {Set<string>} */
const advised = new Set()

/** Starts an engine for a source, and what the two calls below ask it with. @param {any} source @param {any} given */
async function open(source, { signal, headers, hub, token, worker, workerUrl, wasmUrl, onProgress, onWarning, ...options }) {
  throwIfAborted(signal)
  const descriptor = describeSource(source, { headers, hub: String(hub), token })
  if (options.integrity) options.integrity = readIntegrity(options.integrity)
  if (typeof options.cache === 'object' && worker) {
    throw new NiblError('BAD_ARGUMENT', 'A cache of your own cannot be used by the worker: give its name, or worker: false.')
  }
  const base = pageAddress()
  const engineOptions = { ...options, inProcess: !worker, wasmUrl: wasmUrl && new URL(wasmUrl, base).href }
  const { link, close: closeEngine } = await connect(worker, workerUrl && new URL(workerUrl, base))
  const isStream = worker && descriptor.kind === 'stream'
  const relay = isStream ? (await import('./relay.js')).startRelay(descriptor, { ...options, signal }) : null
  const close = () => {
    relay?.cancel()
    closeEngine()
  }
  const onEvent = (/** @type {any} */ { progress, warning }) => {
    if (progress) onProgress?.(progress)
    if (warning) warn(/** @type {NiblError} */ (fromRecord(warning)), onWarning)
  }
  const calls = { onEvent, signal, transfer: relay ? [relay.port] : [] }
  return { link, close, args: [relay?.descriptor ?? descriptor, engineOptions], calls }
}

/** @param {NiblError} warning @param {(warning: NiblError) => void} [listener] */
function warn(warning, listener = (warning) => console.warn(`nibl: ${warning.message}`)) {
  listener(warning)
}

/** @type {typeof import('./nibl.d.ts').load} */
export async function load(source, given = {}) {
  const start = performance.now()
  const options = readOptions(loadOptions, given)
  const { link, close, args, calls } = await open(source, options)
  try {
    const { info, advice, stats, bytes } = await link.call('load', args, calls)
    const seconds = options.early ? 0 : (performance.now() - start) / 1000
    if (advice && !advised.has(advice)) console.info(advice)
    advised.add(advice)
    return new Model({ link, close }, info, { ...stats, load: { seconds, bytes } }, start, calls, args[1])
  } catch (error) {
    close()
    throw error
  }
}

/** A call that needs a file's header alone. @param {string} call @param {Record<string, any>} table */
const asking = (call, table) => async (/** @type {any} */ source, given = {}) => {
  const { link, close, args, calls } = await open(source, readOptions(table, given))
  try {
    return await link.call(call, args, calls)
  } finally {
    close()
  }
}

/** @type {typeof import('./nibl.d.ts').inspect} */
export const inspect = asking('inspect', inspectOptions)

/** @type {typeof import('./nibl.d.ts').fit} */
export const fit = asking('fit', fitOptions)

/** @type {typeof import('./nibl.d.ts').quantize} */
export async function quantize(source, given = {}) {
  return (await import('./quantization.js')).quantizeWith(open, source, given)
}

/** @type {typeof import('./nibl.d.ts').imatrix} */
export async function imatrix(source, given = {}) {
  return (await import('./quantization.js')).imatrixWith(open, source, given)
}

/** @type {typeof import('./nibl.d.ts').verify} */
export async function verify(receipt, source, given = {}) {
  const { repeat } = await import('./receipt.js')
  return repeat(receipt, ({ integrity, ...settings }) => {
    /* A cache forgets what fails this, and can be read again. */
    const check = given.cache ? {} : { integrity }
    return open(source, readOptions(loadOptions, { ...given, ...settings, ...check, early: false, sessions: 1 }))
  })
}

/** @type {(model: any) => Link} */
let linkOf

/** @implements {PublicModel} */
class Model {
  static {
    linkOf = (model) => model.#link
  }

  #link
  #close
  #template
  #addBos
  #loaded
  /** Of every answer, by its stats. @type {WeakMap<object, any>} */
  #answers = new WeakMap()

  /**
   * @param {import('./connect.js').Connection} connection
   * @param {any} details
   * @param {any} stats
   * @param {number} start of the load
   * @param {{ onEvent: (event: any) => void, signal?: AbortSignal }} loading
   * @param {any} loaded the load's options
   */
  constructor({ link, close }, { bosToken, eosToken, addBos, ...info }, stats, start, { onEvent, signal }, loaded) {
    this.#loaded = loaded
    this.#link = link
    this.#close = close
    this.#addBos = addBos
    this.#template = { chatTemplate: info.chatTemplate, bosToken, eosToken }
    /** @type {import('./nibl.d.ts').ModelInfo} */
    this.info = Object.freeze(info)
    /** @type {import('./nibl.d.ts').Stats} */
    this.stats = stats
    this.ready = link.call('ready', [], { onEvent, signal }).then((/** @type {any} */ { bytes }) => {
      const seconds = this.stats.load.seconds || (performance.now() - start) / 1000
      this.stats.load = { seconds, bytes }
    })
    this.ready.catch(() => {})
  }

  /** @param {string | any[]} prompt @param {any} given @returns {AsyncGenerator<Piece, void, void>} */
  generate(prompt, given = {}) {
    const { signal, logitBias, stop, schema, grammar, json, tools, overflow, ...options } = readOptions(generateOptions, given)
    const chat = Array.isArray(prompt)
    if (!chat && typeof prompt !== 'string') {
      throw new NiblError('BAD_ARGUMENT', 'The prompt must be a string or an array of messages.')
    }
    options.seed ??= Math.floor(Math.random() * 2 ** 32)
    const lists = { stop: [stop].flat(), logitBias: biasEntries(logitBias) }
    return this.#stream(prompt, { tools, overflow }, { ...options, ...lists, chat, grammar: grammarOf({ schema, grammar, json }) }, signal)
  }

  /** @param {string | any[]} prompt @param {{ tools: any[], overflow: 'error' | 'shift' }} how @param {any} request
   * @param {AbortSignal} [signal] @returns {AsyncGenerator<Piece, void, void>} */
  async *#stream(prompt, { tools, overflow }, request, signal) {
    throwIfAborted(signal)
    let messages = Array.isArray(prompt) ? [...prompt] : undefined /* as they are now */
    let dropped = 0
    if (messages && overflow === 'shift') {
      const count = async (/** @type {any[]} */ some) => (await this.tokenize(await renderChat(this.#template, some, tools))).length
      const room = { count, contextLength: this.info.contextLength, answer: request.maxTokens }
      ;({ messages, dropped } = await makeRoom(messages, systemMessages(messages), room))
    }
    const text = messages ? await renderChat(this.#template, messages, tools) : prompt
    /** @type {Piece[]} */
    const pieces = []
    let wake = () => {}
    let running = true
    let own = this.stats
    const onEvent = (/** @type {any} */ { piece, stats, answer }) => {
      if (piece) pieces.push(piece)
      if (stats) {
        this.stats = own = { ...stats, dropped, load: this.stats.load }
        this.#answers.set(own, { request: { ...request, text, bos: this.#addBos }, messages, tools, answer })
      }
      wake()
    }
    /* Leaving the loop early stops the engine as an abort does. */
    const leaving = new AbortController()
    const abort = () => leaving.abort(signal?.reason)
    signal?.addEventListener('abort', abort)
    const end = this.#link
      .call('generate', [{ ...request, text }], { onEvent, signal: leaving.signal })
      .finally(() => {
        running = false
        wake()
      })
    end.catch(() => {})
    try {
      for (;;) {
        if (signal?.aborted) throw abortReason(signal)
        const piece = pieces.shift()
        if (piece) yield piece
        else if (running) await new Promise((resolve) => (wake = () => resolve(undefined)))
        else {
          await end
          this.stats = own /* another answer may have ended meanwhile */
          return
        }
      }
    } finally {
      signal?.removeEventListener('abort', abort)
      leaving.abort()
    }
  }

  /** @param {any[]} [messages] @returns {import('./nibl.d.ts').Conversation} */
  conversation(messages = []) {
    return new Conversation(this, this.#states, messages)
  }

  /** @param {string | Blob | Uint8Array<ArrayBuffer> | ArrayBuffer} from @returns {Promise<import('./nibl.d.ts').Conversation>} */
  async restore(from) {
    const state = typeof from === 'string' ? await this.#link.call('kept', [this.#cache, from]) : from
    const { messages, kv } = await readConversation(state instanceof Blob ? state : new Blob([state]))
    if (kv.size) await this.#states.restore(kv)
    return this.conversation(messages)
  }

  get #cache() {
    return this.#loaded.cache || true
  }

  #states = {
    keep: (/** @type {string} */ name, /** @type {Blob} */ state) => this.#link.call('keep', [this.#cache, name, state]),
    save: async (/** @type {any[]} */ messages) => this.#link.call('save', [await renderChat(this.#template, messages)]),
    restore: (/** @type {Blob} */ kv) => this.#link.call('restore', [kv]),
  }

  /** @param {any} texts @param {any} [given] @returns {Promise<any>} */
  async embed(texts, given = {}) {
    const { signal, pooling, normalize } = readOptions(embedOptions, given)
    const list = [texts].flat()
    if (!list.every((text) => typeof text === 'string')) throw new NiblError('BAD_ARGUMENT', 'What is embedded must be a string or an array of strings.')
    throwIfAborted(signal)
    const stop = new AbortController()
    const abort = () => stop.abort(signal?.reason)
    signal?.addEventListener('abort', abort)
    try {
      const how = { last: pooling === 'last', normalize }
      const results = await Promise.all(list.map((text) => this.#link.call('embed', [text, how], { signal: stop.signal })))
      return Array.isArray(texts) ? results : results[0]
    } finally {
      signal?.removeEventListener('abort', abort)
      stop.abort() /* those that are left after a failure */
    }
  }

  /** @param {import('./nibl.d.ts').Stats} [stats] */
  async receipt(stats = this.stats) {
    const parts = this.#answers.get(stats)
    if (!parts) throw new NiblError('BAD_ARGUMENT', 'There is no receipt: no answer of this model had these stats.')
    const files = await this.#link.call('files', [])
    return (await import('./receipt.js')).receiptOf({ ...parts, info: this.info, loaded: this.#loaded, stats, files })
  }

  /** @param {string} text @param {{ special?: boolean, bos?: boolean }} [options] @returns {Promise<number[]>} */
  async tokenize(text, { special = true, bos = false } = {}) {
    return [...(await this.#link.call('tokenize', [String(text), { special, bos }]))]
  }

  /** @param {string | any[]} prompt @returns {Promise<number[]>} */
  async encode(prompt) {
    const chat = typeof prompt !== 'string'
    return this.tokenize(chat ? await renderChat(this.#template, prompt) : prompt, { bos: !chat && this.#addBos })
  }

  /** @param {string | any[]} prompt @returns {Promise<number>} */
  async countTokens(prompt) {
    return (await this.encode(prompt)).length
  }

  /** @param {Iterable<number>} tokens @param {any} [given] */
  async score(tokens, given = {}) {
    const { first, reference, signal } = readOptions(scoreOptions, given)
    const text = [...tokens]
    const { vocabulary, contextLength } = this.info
    if (text.length <= first || text.length > contextLength || !text.every((token) => Number.isInteger(token) && token >= 0 && token < vocabulary)) {
      throw new NiblError('BAD_ARGUMENT', `The tokens must be more than ${first}, at most ${contextLength}, and ids below ${vocabulary}.`)
    }
    if (reference && reference.info.vocabulary !== vocabulary) {
      throw new NiblError('BAD_ARGUMENT', `The reference has ${reference.info.vocabulary} tokens, this model ${vocabulary}: their probabilities cannot be compared.`)
    }
    const { scoreText } = await import('./scores.js')
    return scoreText(this.#link, reference && linkOf(reference), text, first, signal)
  }

  /** @param {Iterable<number>} tokens @param {{ special?: boolean }} [options] @returns {Promise<string>} */
  async detokenize(tokens, { special = true } = {}) {
    return this.#link.call('detokenize', [Int32Array.from(tokens), { special }])
  }

  close() {
    this.#link.break(new NiblError('CLOSED', 'This model is closed. Load it again.'))
    this.#close()
  }

  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    this.close()
  }
}

/**
 * A loaded model and its sessions: what runs in the worker. Every answer takes a session, the one that has most of its
 * prompt already; where all are taken it waits for its turn.
 */
import { Batch } from './batch.js'
import { NiblError, abortReason, toRecord, unlessAborted } from './errors.js'
import { chooseBinary } from './features.js'
import { Generation, emptyStats } from './generation.js'
import { Loading } from './loading.js'

/** @typedef {import('./protocol.js').CallContext} CallContext */
/** @typedef {import('./generation.js').GenerateRequest} GenerateRequest */
/** @typedef {Omit<import('./nibl.d.ts').Stats, 'load'>} Stats */

/** A session, and the prompt it computed last. @typedef {{ session: number, tokens: Int32Array }} Seat */

/** A compiled grammar. @typedef {{ key: string, pointer: number }} Grammar */

const GRAMMARS = 2 /* that are kept */

export class Engine {
  #binding
  #loading
  #model
  #download
  #batch
  /** @type {Seat[]} */
  #free
  /** @type {Grammar[]} that no answer has, last used first */
  #grammars = []
  /** @type {{ take: () => void }[]} */
  #waiting = []
  /** @type {Promise<import('./identify.js').ModelFile[]> | undefined} */
  #files

  #scorer
  /** @type {Promise<any>} */
  #scored = Promise.resolve()

  /** @param {Loading} loading @param {number[]} sessions @param {AbortController} download
   * @param {number} scorer a session with all logits, or 0 */
  constructor(loading, sessions, download, scorer) {
    this.#scorer = scorer
    this.#download = download
    this.#loading = loading
    this.#binding = loading.binding
    this.#model = loading.model
    this.#free = sessions.map((session) => ({ session, tokens: new Int32Array(0) }))
    this.#batch = new Batch(loading.binding, () => loading.more())
  }

  /**
   * @param {import('./source.js').Descriptor} descriptor
   * @param {import('./loading.js').LoadOptions & { binary?: string, threads?: number, inProcess: boolean }} options
   * @param {CallContext} context
   */
  static async load(descriptor, options, { emit, signal }) {
    const onProgress = (/** @type {any} */ progress) => emit({ progress })
    /* Early, the download outlives this call; see `ready`. */
    const download = new AbortController()
    signal.addEventListener('abort', () => download.abort())
    const onWarning = (/** @type {NiblError} */ warning) => emit({ warning: toRecord(warning) })
    const hooks = { signal: download.signal, onProgress, onWarning }
    /* One session more for scoring. */
    const planned = { ...options, sessions: options.sessions + Number(Boolean(options.evaluate)) }
    const loading = await Loading.start(descriptor, planned, chooseBinary(options), hooks)
    const { binding, model, plan, complete, choice } = loading
    const sessionOptions = { ...options, contextLength: plan.contextLength, threads: choice.threads }
    const sessions = Array.from({ length: options.sessions }, () => binding.newSession(model, sessionOptions))
    if (!options.early) await unlessAborted(complete, signal)

    const scorer = options.evaluate ? binding.newSession(model, sessionOptions, true) : 0
    const engine = new Engine(loading, sessions, download, scorer)
    const { architecture, name, parameters, layers, vocabulary, bos, eos, addBos, contextLength } =
      binding.modelInfo(model)
    engine.addBos = addBos
    engine.contextLength = plan.contextLength
    const info = {
      architecture,
      name,
      parameters,
      contextLength: plan.contextLength,
      maxContextLength: contextLength,
      layers,
      vocabulary,
      chatTemplate: binding.metadata(model, 'tokenizer.chat_template'),
      addBos,
      bosToken: engine.#tokenText(bos),
      eosToken: engine.#tokenText(eos),
      binary: choice.binary,
      threads: choice.threads,
      why: choice.why,
    }
    return { engine, info, advice: choice.advice, stats: { ...emptyStats(), memory: engine.#memory() }, bytes: loading.bytes }
  }

  addBos = false
  contextLength = 0

  /** @param {number} token */
  #tokenText(token) {
    return token < 0 ? '' : this.#binding.detokenize(this.#model, Int32Array.of(token), true)
  }

  /** Waits until all weights are there. @param {CallContext} context */
  async ready({ emit, signal }) {
    signal.addEventListener('abort', () => this.#download.abort())
    this.#loading.onProgress = (progress) => emit({ progress })
    this.#loading.onWarning = (warning) => emit({ warning: toRecord(warning) })
    await this.#loading.complete
    return { bytes: this.#loading.bytes }
  }

  /** The files that it was read from. @param {CallContext} context */
  async files(context) {
    await this.ready(context)
    return (this.#files ??= (await import('./identify.js')).identify(this.#loading.input))
  }

  /** @param {string} text @param {{ special: boolean, bos: boolean }} options */
  tokenize(text, options) {
    return this.#binding.tokenize(this.#model, text, options)
  }

  /** @param {Int32Array} tokens @param {{ special: boolean }} options */
  detokenize(tokens, { special }) {
    return this.#binding.detokenize(this.#model, tokens, special)
  }

  /** @param {GenerateRequest} request @param {CallContext} context */
  async generate(request, { emit, signal }) {
    const tokens = this.tokenize(request.text, { special: true, bos: this.addBos && !request.chat })
    if (tokens.length === 0) throw new NiblError('BAD_ARGUMENT', 'The prompt is empty.')
    const seat = await this.#take(tokens, signal)
    /** @type {Grammar | undefined} */
    let grammar
    try {
      grammar = request.grammar && this.#takeGrammar(request.grammar)
      const place = { binding: this.#binding, model: this.#model, contextLength: this.contextLength, emit }
      const generation = new Generation(place, request, seat.session, tokens, grammar?.pointer)
      seat.tokens = tokens
      try {
        await this.#batch.run(generation, signal)
      } finally {
        generation.end()
        const { text, tokens: sampled } = generation
        emit({ stats: { ...generation.stats, memory: this.#memory() }, answer: { prompt: [...tokens], tokens: sampled, text } })
      }
    } finally {
      if (grammar) this.#giveBack(grammar)
      this.#free.push(seat)
      this.#waiting.shift()?.take()
    }
  }

  /** One after the other. @param {import('./scoring.js').ScoreRequest} request @param {CallContext} context */
  score(request, { signal }) {
    const session = this.#scorer
    if (!session) throw new NiblError('BAD_ARGUMENT', 'This model cannot score: load it with evaluate: true.')
    const score = async () => {
      const { Scoring } = await import('./scoring.js')
      const scoring = new Scoring(this.#binding, session, this.#binding.modelInfo(this.#model).vocabulary, request)
      await this.#batch.run(scoring, signal)
      return scoring.result
    }
    return (this.#scored = this.#scored.then(score, score))
  }

  /** Its tables serve the next answer of the same grammar too; one answer has it at a time.
   * @param {{ format: 0 | 1, text: string }} wanted @returns {Grammar} */
  #takeGrammar(wanted) {
    const key = wanted.format + wanted.text
    const kept = this.#grammars.findIndex((grammar) => grammar.key === key)
    if (kept >= 0) return this.#grammars.splice(kept, 1)[0]
    return { key, pointer: this.#binding.newGrammar(this.#model, wanted) }
  }

  /** @param {Grammar} grammar */
  #giveBack(grammar) {
    this.#grammars.unshift(grammar)
    for (const { pointer } of this.#grammars.splice(GRAMMARS)) this.#binding.free('grammar', pointer)
  }

  /** A seat, as soon as there is one. @param {Int32Array} tokens @param {AbortSignal} signal @returns {Promise<Seat>} */
  #take(tokens, signal) {
    if (this.#free.length) return Promise.resolve(this.#best(tokens))
    return new Promise((resolve, reject) => {
      const waiter = { take: () => resolve(this.#best(tokens)) }
      this.#waiting.push(waiter)
      signal.addEventListener('abort', () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter)
        reject(abortReason(signal))
      })
    })
  }

  /** Takes the free seat that knows most of the prompt; of equals the one that was left first.
   * @param {Int32Array} tokens */
  #best(tokens) {
    const known = this.#free.map((seat) => commonPrefix(seat.tokens, tokens))
    return this.#free.splice(known.indexOf(Math.max(...known)), 1)[0]
  }

  #memory() {
    const { memory } = this.#binding
    const { plan } = this.#loading
    return { linear: memory.buffer.byteLength, weights: plan.weights, kv: plan.kv }
  }
}

/** @param {Int32Array} a @param {Int32Array} b */
function commonPrefix(a, b) {
  let same = 0
  while (same < a.length && same < b.length && a[same] === b[same]) same++
  return same
}

/**
 * A loaded model and its sessions: what runs in the worker. Every answer takes a session, the one that has most of its
 * prompt already; where all are taken it waits for its turn.
 */
import { Batch } from './batch.js'
import { endThreads } from './binaries.js'
import { NiblError, abortReason, throwIfAborted, toRecord, unlessAborted } from './errors.js'
import { chooseBinary } from './features.js'
import { Generation, emptyStats } from './generation.js'
import { Loading } from './loading.js'

/** @typedef {import('./protocol.js').CallContext} CallContext */
/** @typedef {import('./generation.js').GenerateRequest} GenerateRequest */
/** @typedef {Omit<import('./nibl.d.ts').Stats, 'load'>} Stats */

/** A session, and the tokens it has: of the prompt that it computed last, and of its answer.
 * @typedef {{ session: number, tokens: Int32Array }} Seat */

/** A compiled grammar. @typedef {{ key: string, pointer: number }} Grammar */

const GRAMMARS = 2 /* that are kept */
const PART = 1 << 20 /* bytes of a state handed over at once */
const HEADER = 40 /* bytes of a state before its tokens */
const NOTHING = new Int32Array(0)
const NEARLY = 8 /* tokens of a seat that its own conversation may write otherwise */

export class Engine {
  #binding
  #loading
  #model
  #download
  #batch
  /** @type {Seat[]} all of them */
  #seats
  /** That no answer has, last used last. @type {Seat[]} */
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
    this.#seats = sessions.map((session) => ({ session, tokens: NOTHING }))
    this.#free = [...this.#seats]
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
    const { architecture, name, parameters, layers, vocabulary, bos, eos, addBos, contextLength, width } =
      binding.modelInfo(model)
    engine.addBos = addBos
    engine.#width = width
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

  /** Ends the threads, and the model with them: nothing may be asked afterwards. */
  end() {
    this.#binding.free('model', this.#model)
    return endThreads(this.#binding.module)
  }

  addBos = false
  #width = 0
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
    const tokens = this.#prompt(request.text, !request.chat)
    const { seat, release } = await this.#take(tokens, signal)
    /** @type {Grammar | undefined} */
    let grammar
    try {
      grammar = request.grammar && this.#takeGrammar(request.grammar)
      const place = { binding: this.#binding, model: this.#model, contextLength: this.contextLength, emit }
      seat.tokens = tokens
      const generation = new Generation(place, request, seat.session, tokens, grammar?.pointer)
      try {
        await this.#batch.run(generation, signal)
      } finally {
        generation.end()
        const { text, tokens: sampled } = generation
        seat.tokens = Int32Array.of(...tokens, ...sampled)
        emit({ stats: { ...generation.stats, memory: this.#memory() }, answer: { prompt: [...tokens], tokens: sampled, text } })
      }
    } finally {
      if (grammar) this.#giveBack(grammar)
      release()
    }
  }

  /** @param {string} text @param {boolean} plain no chat template wrote it */
  #prompt(text, plain) {
    const tokens = this.tokenize(text, { special: true, bos: this.addBos && plain })
    if (tokens.length === 0) throw new NiblError('BAD_ARGUMENT', 'The prompt is empty.')
    return tokens
  }

  /** @param {string} text @param {{ last: boolean, normalize: boolean }} how @param {CallContext} context */
  async embed(text, how, { signal }) {
    const binding = this.#binding
    const tokens = this.#prompt(text, true)
    const { seat, release } = await this.#take(NOTHING, signal)
    const { session } = seat
    try {
      seat.tokens = NOTHING
      binding.embed(session, true)
      binding.setTokens(session, tokens)
      await this.#compute(session, signal)
      return binding.embedding(session, this.#width, how)
    } finally {
      binding.embed(session, false)
      release()
    }
  }

  /** @param {number} session @param {AbortSignal} signal */
  #compute(session, signal) {
    const binding = this.#binding
    const work = { session, advance: () => false, get pending() { return binding.pending(session) } }
    return this.#batch.run(work, signal)
  }

  /** The state of a session that has this prompt. @param {string} text as a chat template writes it @param {CallContext} context */
  async save(text, { signal }) {
    await unlessAborted(this.#loading.complete, signal)
    const tokens = this.#prompt(text, false)
    const { seat, release } = await this.#take(tokens, signal)
    try {
      this.#binding.setTokens(seat.session, tokens)
      seat.tokens = tokens
      await this.#compute(seat.session, signal)
      return new Blob(/** @type {any} */ (this.#binding.saveSession(seat.session)))
    } finally {
      release()
    }
  }

  /** @param {Blob} state @param {CallContext} context */
  async restore(state, { signal }) {
    await unlessAborted(this.#loading.complete, signal)
    const { seat, release } = await this.#take(NOTHING, signal)
    try {
      seat.tokens = NOTHING
      let complete = false
      for (let at = 0; at < state.size; at += PART) {
        throwIfAborted(signal)
        complete = this.#binding.restoreSession(seat.session, new Uint8Array(await state.slice(at, at + PART).arrayBuffer()), at === 0)
      }
      if (!complete) throw new NiblError('BAD_STATE', 'the saved session ends too early.')
      seat.tokens = new Int32Array(await state.slice(HEADER, HEADER + 4 * this.#binding.computed(seat.session)).arrayBuffer())
    } finally {
      release()
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

  /** A seat, as soon as there is one, and how to give it back. @param {Int32Array} tokens @param {AbortSignal} signal
   * @returns {Promise<{ seat: Seat, release: () => void }>} */
  async #take(tokens, signal) {
    const seat = await new Promise((resolve, reject) => {
      if (this.#free.length) return resolve(this.#best(tokens))
      const abort = () => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter)
        reject(abortReason(signal))
      }
      const waiter = {
        take: () => {
          signal.removeEventListener('abort', abort)
          resolve(this.#best(tokens))
        },
      }
      this.#waiting.push(waiter)
      signal.addEventListener('abort', abort)
    })
    const release = () => {
      this.#free.push(seat)
      this.#waiting.shift()?.take()
    }
    try {
      this.#share(seat, tokens)
    } catch (error) {
      release()
      throw error
    }
    return { seat, release }
  }

  /** Takes the free seat whose own text goes on with these tokens, or else the one that was left first. @param {Int32Array} tokens @returns {Seat} */
  #best(tokens) {
    const known = this.#free.map((seat) => {
      const same = commonPrefix(seat.tokens, tokens)
      return same >= seat.tokens.length - NEARLY ? same : -1
    })
    return this.#free.splice(Math.max(0, known.indexOf(Math.max(0, ...known))), 1)[0]
  }

  /** Gives a seat a copy of what another one has more of these tokens. @param {Seat} seat @param {Int32Array} tokens */
  #share(seat, tokens) {
    const known = this.#seats.map(({ session, tokens: has }) => Math.min(commonPrefix(has, tokens), this.#binding.computed(session)))
    const most = Math.max(...known)
    const from = this.#seats[known.indexOf(most)]
    if (most <= known[this.#seats.indexOf(seat)]) return
    seat.tokens = NOTHING
    this.#binding.copySession(seat.session, from.session, most)
    seat.tokens = tokens.slice(0, most)
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

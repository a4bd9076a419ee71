/**
 * A loaded model and its one session: what runs in the worker. Calls of the core are short steps with the event loop
 * in between, so that messages, downloads and aborts get their turn. Generations queue: nothing interleaves.
 */
import { MORE, NEED_DATA, OK } from './binding.js'
import { NiblError, throwIfAborted, unlessAborted } from './errors.js'
import { chooseBinary } from './features.js'
import { Loading } from './loading.js'
import { yieldToEvents } from './platform.js'
import { StopMatcher } from './stop.js'

/** @typedef {import('./protocol.js').CallContext} CallContext */
/** @typedef {import('./nibl.d.ts').Piece} Piece */
/** @typedef {Omit<import('./nibl.d.ts').Stats, 'load'>} Stats */

/**
 * @typedef {object} GenerateRequest
 * @property {string} text
 * @property {boolean} chat the text is a chat template's and holds all special tokens that are needed
 * @property {number} maxTokens
 * @property {number} temperature
 * @property {number} topK
 * @property {number} topP
 * @property {number} minP
 * @property {number} repeatPenalty
 * @property {number} seed
 * @property {boolean} speculate
 * @property {string[]} stop
 * @property {[number, number][]} logitBias
 */

/* A step should take this long: short enough for messages to be answered at once, long enough to cost nothing. */
const SHORT_STEP = 6 /* ms */
const LONG_STEP = 16

export class Engine {
  #binding
  #loading
  #model
  #session
  #download
  #units = 1
  /** @type {Promise<unknown>} */
  #turn = Promise.resolve()

  /** @param {Loading} loading @param {number} session @param {AbortController} download */
  constructor(loading, session, download) {
    this.#download = download
    this.#loading = loading
    this.#binding = loading.binding
    this.#model = loading.model
    this.#session = session
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
    const loading = await Loading.start(descriptor, options, chooseBinary(options), { signal: download.signal, onProgress })
    const { binding, model, plan, complete, choice } = loading
    const sessionOptions = { ...options, contextLength: plan.contextLength, threads: choice.threads }
    const session = binding.newSession(model, sessionOptions)
    if (!options.early) await unlessAborted(complete, signal)

    const engine = new Engine(loading, session, download)
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
      bosToken: engine.#tokenText(bos),
      eosToken: engine.#tokenText(eos),
      binary: choice.binary,
      threads: choice.threads,
      why: choice.why,
    }
    return { engine, info, advice: choice.advice, stats: engine.#stats(), bytes: loading.bytes }
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
    await this.#loading.complete
    return { bytes: this.#loading.bytes }
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
  async generate(request, context) {
    const previous = this.#turn
    let finish = () => {}
    const mine = new Promise((resolve) => (finish = () => resolve(undefined)))
    this.#turn = previous.then(() => mine)
    try {
      await unlessAborted(previous, context.signal)
      await this.#run(request, context)
    } finally {
      finish()
    }
  }

  /** @param {GenerateRequest} request @param {CallContext} context */
  async #run(request, { emit, signal }) {
    const binding = this.#binding
    const session = this.#session
    const stats = this.#stats()
    stats.seed = request.seed
    const sampler = binding.newSampler(this.#model, request)
    const decoder = binding.newDecoder(this.#model, false)
    try {
      const special = { special: true, bos: this.addBos && !request.chat }
      const tokens = this.tokenize(request.text, special)
      if (tokens.length === 0) throw new NiblError('BAD_ARGUMENT', 'The prompt is empty.')
      const reused = binding.setTokens(session, tokens)
      binding.speculate(session, request.speculate)
      let clock = performance.now()
      const lap = () => {
        const before = clock
        return ((clock = performance.now()) - before) / 1000
      }
      await this.#compute(signal)
      stats.prefill = rate(tokens.length - reused, lap())
      stats.prefill.reused = reused
      for (const piece of this.#pieces(request, sampler, decoder, tokens.length, stats)) {
        if (piece) emit({ piece })
        else await this.#compute(signal)
        Object.assign(stats.decode, rate(stats.decode.tokens + (piece ? 0 : 1), stats.decode.seconds + lap()))
      }
    } finally {
      binding.free('decoder', decoder)
      binding.free('sampler', sampler)
      Object.assign(stats.decode, binding.guesses(session))
      Object.assign(stats, { hash: binding.hash(session), memory: this.#memory() })
      emit({ stats })
    }
  }

  /** Gives pieces to emit, and null where the session has a token to compute first.
   * @param {GenerateRequest} request @param {number} sampler @param {number} decoder @param {number} length tokens in
   *   the session @param {Stats} stats
   * @returns {Generator<Piece | null, void>} */
  *#pieces({ maxTokens, stop }, sampler, decoder, length, stats) {
    const binding = this.#binding
    const matcher = new StopMatcher(stop)
    for (let count = 0; count < maxTokens; count++) {
      const { token, logprob } = binding.sample(sampler, this.#session)
      const end = binding.isEnd(this.#model, token)
      const full = length + count === this.contextLength
      const last = end || full || count === maxTokens - 1
      let raw = end ? '' : binding.decode(decoder, token)
      if (last) raw += binding.decode(decoder, -1)
      const { text, stopped } = matcher.push(raw)
      const rest = last && !stopped ? matcher.end() : ''
      /* An end token is no part of the answer, but text may have been waiting for it. */
      if (!end || text || rest) yield { text: text + rest, token, logprob }
      if (stopped || last) {
        stats.finish = stopped ? 'stop' : end ? 'end' : 'length'
        return
      }
      binding.append(this.#session, token)
      yield null
    }
  }

  /** Steps until every token of the session is computed. @param {AbortSignal} signal */
  async #compute(signal) {
    for (;;) {
      throwIfAborted(signal)
      const start = performance.now()
      const status = this.#binding.call('nibl_abi_step', this.#session, this.#units)
      const elapsed = performance.now() - start
      if (status === MORE && elapsed < SHORT_STEP) this.#units *= 2
      else if (elapsed > LONG_STEP) this.#units = Math.max(1, Math.floor(this.#units / 2))
      if (status === NEED_DATA) await unlessAborted(this.#loading.more(), signal)
      else await yieldToEvents()
      if (status === OK) return throwIfAborted(signal)
    }
  }

  /** @returns {Stats} */
  #stats() {
    return {
      prefill: { ...rate(0, 0), reused: 0 },
      decode: { ...rate(0, 0), guessed: 0, right: 0 },
      memory: this.#memory(),
      finish: 'abort',
      seed: 0,
      hash: '',
    }
  }

  #memory() {
    const { memory } = this.#binding
    const { plan } = this.#loading
    return { linear: memory.buffer.byteLength, weights: plan.weights, kv: plan.kv }
  }
}

/** @param {number} tokens @param {number} seconds
 * @returns {{ tokens: number, seconds: number, tokensPerSecond: number, reused?: number }} */
function rate(tokens, seconds) {
  return { tokens, seconds, tokensPerSecond: seconds > 0 ? tokens / seconds : 0 }
}

/** One answer: its session, sampler and text, and what it cost. The session's tokens are computed by a batch (batch.js);
 * whenever they are, the next one is chosen here. */
import { StopMatcher } from './stop.js'

/** @typedef {import('./binding.js').Binding} Binding */
/** @typedef {Omit<import('./nibl.d.ts').Stats, 'load' | 'memory'>} Stats */

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
 * @property {number} [repeatWindow]
 * @property {number} [cut] tokens after which it ends, whatever else it may have
 * @property {string[]} stop
 * @property {[number, number][]} logitBias
 * @property {{ format: 0 | 1, text: string }} [grammar]
 */

/**
 * @typedef {object} Place where an answer is made
 * @property {Binding} binding
 * @property {number} model
 * @property {number} contextLength
 * @property {(event: any) => void} emit takes { piece }
 */

export class Generation {
  #place
  #request
  #sampler = 0
  #decoder = 0
  #matcher
  #clock = performance.now()
  #count = 0
  #length

  stats = emptyStats()
  /** Sampled, the end token included. @type {number[]} */
  tokens = []
  text = ''

  /** @param {Place} place @param {GenerateRequest} request @param {number} session @param {Int32Array} tokens the prompt
   * @param {number} [grammar] */
  constructor(place, request, session, tokens, grammar = 0) {
    const { binding, model, contextLength } = place
    this.#place = place
    this.#request = request
    this.#matcher = new StopMatcher(request.stop)
    this.#length = tokens.length
    this.session = session
    try {
      this.#sampler = binding.newSampler(model, request)
      this.#decoder = binding.newDecoder(model, false)
      this.stats.seed = request.seed
      this.stats.prefill.reused = binding.setTokens(session, tokens)
      binding.speculate(session, request.speculate)
      const most = Math.min(request.maxTokens, contextLength - tokens.length + 1)
      if (grammar && most) binding.constrain(this.#sampler, grammar, most)
    } catch (error) {
      this.#release()
      throw error
    }
  }

  /** Tokens to be computed before the next one can be chosen. */
  get pending() {
    return this.#place.binding.pending(this.session)
  }

  #lap() {
    const before = this.#clock
    return ((this.#clock = performance.now()) - before) / 1000
  }

  /** Chooses the next token; returns whether it has to be computed, or the answer is complete. */
  advance() {
    const { stats } = this
    const first = stats.prefill.tokens === 0
    if (first) Object.assign(stats.prefill, rate(this.#length - Number(stats.prefill.reused), this.#lap()))
    const more = this.#choose()
    const { tokens, seconds } = stats.decode
    Object.assign(stats.decode, rate(tokens + (first ? 0 : 1), seconds + this.#lap()))
    return more
  }

  #choose() {
    const { binding, model, contextLength, emit } = this.#place
    const { maxTokens, cut } = this.#request
    if (maxTokens === 0) {
      this.stats.finish = 'length'
      return false
    }
    const { token, logprob } = binding.sample(this.#sampler, this.session)
    this.tokens.push(token)
    this.stats.hash = binding.hash(this.session)
    const end = binding.isEnd(model, token)
    const done = end || binding.isDone(this.#sampler)
    const full = this.#length + this.#count === contextLength
    const last = ++this.#count === maxTokens || this.#count === cut || done || full
    let raw = end ? '' : binding.decode(this.#decoder, token)
    if (last) raw += binding.decode(this.#decoder, -1)
    const { text, stopped } = this.#matcher.push(raw)
    const rest = last && !stopped ? this.#matcher.end() : ''
    this.text += text + rest
    /* An end token is no part of the answer, but text may have been waiting for it. */
    if (!end || text || rest) emit({ piece: { text: text + rest, token, logprob } })
    if (stopped || last) {
      this.stats.finish = stopped ? 'stop' : done ? 'end' : 'length'
      return false
    }
    binding.append(this.session, token)
    return true
  }

  #release() {
    this.#place.binding.free('decoder', this.#decoder)
    this.#place.binding.free('sampler', this.#sampler)
  }

  /** Gives back what the answer took, and completes its figures. */
  end() {
    this.#release()
    Object.assign(this.stats.decode, this.#place.binding.guesses(this.session))
  }
}

/** Of an answer that was not begun. @returns {Stats} */
export const emptyStats = () => ({
  prefill: { ...rate(0, 0), reused: 0 },
  decode: { ...rate(0, 0), guessed: 0, right: 0 },
  finish: 'abort',
  dropped: 0,
  seed: 0,
  hash: '',
})

/** @param {number} tokens @param {number} seconds
 * @returns {{ tokens: number, seconds: number, tokensPerSecond: number, reused?: number }} */
function rate(tokens, seconds) {
  return { tokens, seconds, tokensPerSecond: seconds > 0 ? tokens / seconds : 0 }
}

/**
 * Computes the tokens of several answers together: they share matrix products, and each one's bits are the same as
 * alone. Answers come and go between steps. Calls of the core are short steps with the event loop in between, so that
 * messages, downloads and aborts get their turn.
 */
import { MORE, NEED_DATA } from './binding.js'
import { abortReason } from './errors.js'
import { yieldToEvents } from './platform.js'

/** What has tokens to be computed: an answer (generation.js), a text that is scored (scoring.js) or embedded.
 * @typedef {{ session: number, readonly pending: number, advance: () => boolean }} Generation */
/** @typedef {{ generation: Generation, resolve: () => void, reject: (error: unknown) => void }} Member */

/* A step should take this long: short enough for messages to be answered at once, long enough to cost nothing. */
const SHORT_STEP = 6 /* ms */
const LONG_STEP = 16

export class Batch {
  #binding
  #moreWeights
  #units = 1
  /** @type {Set<Member>} */
  #members = new Set()
  /** @type {Member[]} as they are stepped; empty: to be found anew */
  #order = []
  #running = false
  /** When the event loop had its turn. */
  #turn = 0

  /** @param {import('./binding.js').Binding} binding @param {() => Promise<void>} moreWeights */
  constructor(binding, moreWeights) {
    this.#binding = binding
    this.#moreWeights = moreWeights
  }

  /** Until the answer is complete. @param {Generation} generation @param {AbortSignal} signal @returns {Promise<void>} */
  run(generation, signal) {
    return new Promise((resolve, reject) => {
      const abort = () => this.#leave(member, () => reject(abortReason(signal)))
      const settle = (/** @type {(value?: any) => void} */ end) => (/** @type {any} */ value = undefined) => {
        signal.removeEventListener('abort', abort)
        end(value)
      }
      const member = { generation, resolve: settle(resolve), reject: settle(reject) }
      if (signal.aborted) return reject(abortReason(signal))
      signal.addEventListener('abort', abort)
      this.#members.add(member)
      this.#order = []
      if (!this.#running) this.#drive()
    })
  }

  /** @param {Member} member @param {() => void} end */
  #leave(member, end) {
    this.#members.delete(member)
    this.#order = []
    end()
  }

  async #drive() {
    this.#running = true
    /* Whoever asked may ask for more before anything is computed. */
    await null
    while (this.#members.size) {
      if (!this.#order.length) {
        /* The shortest first, so that a long prompt does not hold up the others. */
        const pending = [...this.#members].map((member) => ({ member, tokens: member.generation.pending }))
        this.#order = pending.sort((a, b) => a.tokens - b.tokens).map(({ member }) => member)
      }
      await this.#stepOrFail(this.#order)
    }
    this.#running = false
  }

  /** An error ends the answer that has it; which one that is shows when each goes on alone. @param {Member[]} members */
  async #stepOrFail(members) {
    try {
      await this.#step(members)
    } catch (error) {
      if (members.length === 1) this.#leave(members[0], () => members[0].reject(error))
      else for (const member of members) if (this.#members.has(member)) await this.#stepOrFail([member])
    }
  }

  /** @param {Member[]} members */
  async #step(members) {
    const start = performance.now()
    const status = this.#binding.step(members.map(({ generation }) => generation.session), this.#units)
    const end = performance.now()
    const elapsed = end - start
    if (status === MORE && elapsed < SHORT_STEP) this.#units *= 2
    else if (elapsed > LONG_STEP) this.#units = Math.max(1, Math.floor(this.#units / 2))
    if (status === NEED_DATA) await this.#moreWeights()
    else if (end - this.#turn > SHORT_STEP / 2) {
      await yieldToEvents()
      this.#turn = performance.now()
    } /* else it was a guess that was right: that is no work */
    for (const member of members) if (this.#members.has(member)) this.#advance(member)
  }

  /** @param {Member} member */
  #advance(member) {
    const { generation } = member
    if (generation.pending > 0) return
    try {
      if (generation.advance()) this.#order = []
      else this.#leave(member, member.resolve)
    } catch (error) {
      this.#leave(member, () => member.reject(error))
    }
  }
}

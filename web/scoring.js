/** What a model makes of a given text: of every position the logits themselves, or what they say of the token that follows. A
 * batch (batch.js) computes it, some tokens at a time. Fetched where somebody asks. */

const PART = 16 /* tokens at a time: as many rows of logits are kept */

/**
 * @typedef {object} ScoreRequest
 * @property {number[]} tokens the text, further than the request before where it goes on
 * @property {number} from the first position of which something is wanted
 * @property {number[]} [next] the tokens that follow these positions; without it the rows of logits are the result
 * @property {Float32Array} [reference] another model's rows
 */

export class Scoring {
  #binding
  #vocabulary
  #tokens
  #from
  #next
  #reference
  #end
  /** @type {number[][]} of each position, as nibl_abi_score has it */
  #scores = []
  #rows

  /** @param {import('./binding.js').Binding} binding @param {number} session @param {number} vocabulary @param {ScoreRequest} request */
  constructor(binding, session, vocabulary, { tokens, from, next, reference }) {
    this.#binding = binding
    this.session = session
    this.#vocabulary = vocabulary
    this.#tokens = Int32Array.from(tokens)
    this.#from = from
    this.#next = next
    this.#reference = reference
    this.#rows = new Float32Array(next ? 0 : (tokens.length - from) * vocabulary)
    /* Of these no logits are wanted. */
    this.#end = Math.max(1, Math.min(from, tokens.length - 1))
    binding.setTokens(session, this.#tokens.subarray(0, this.#end))
  }

  get pending() {
    return this.#binding.pending(this.session)
  }

  /** Takes what was computed; returns whether there is more. */
  advance() {
    const { pointer, first, rows } = this.#binding.logits(this.session)
    for (let r = 0; r < rows; r++) this.#take(pointer + 4 * r * this.#vocabulary, first + r)
    if (this.#end === this.#tokens.length) return false
    this.#end = Math.min(this.#end + PART, this.#tokens.length)
    this.#binding.setTokens(this.session, this.#tokens.subarray(0, this.#end))
    return true
  }

  /** @param {number} row @param {number} position */
  #take(row, position) {
    const at = position - this.#from
    if (at < 0) return
    const floats = this.#vocabulary
    if (!this.#next) this.#rows.set(this.#binding.floats(row, floats), at * floats)
    else if (at < this.#next.length) {
      const reference = this.#reference?.subarray(at * floats, (at + 1) * floats) ?? null
      this.#scores[at] = this.#binding.score(row, this.#next[at], floats, reference)
    }
  }

  get result() {
    return this.#next ? this.#scores : this.#rows
  }
}

// What every engine is measured by, in the page: the clock of the caller, from the call to its pieces of text.

/**
 * @typedef {object} Engine
 * @property {string} about
 * @property {(prompt: string, maxTokens: number) => Promise<Completion>} complete
 */

/**
 * @typedef {object} Completion
 * @property {number} promptTokens
 * @property {number} tokens
 * @property {number} firstMs  from the call to the first token: the prefill, and one token sampled
 * @property {number} restMs   from the first token to the last: tokens - 1 decoding steps
 * @property {string} text
 */

/**
 * @param {(count: (text: string) => void) => Promise<number>} run calls `count` for every token, answers with the
 *   number of the prompt's tokens
 * @returns {Promise<Completion>}
 */
export async function timed(run) {
  const begin = performance.now()
  let [tokens, first, last, text] = [0, 0, 0, '']
  const promptTokens = await run((piece) => {
    last = performance.now()
    if (tokens === 0) first = last
    tokens++
    text += piece
  })
  return { promptTokens, tokens, firstMs: first - begin, restMs: last - first, text }
}

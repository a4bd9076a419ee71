// What every engine that runs in JavaScript is measured by: the clock of the caller, from the call to its tokens.

/**
 * @typedef {object} EngineOptions
 * @property {number} threads
 * @property {number} contextLength
 *
 * @typedef {object} Engine
 * @property {string} about
 * @property {(prompt: Prompt, tokens: number) => Promise<Completion>} complete  greedy, and never ended by the model
 *
 * @typedef {{ text: string, tokens: number }} Prompt  a text, and how many tokens it has
 *
 * @typedef {object} Completion
 * @property {number} promptTokens
 * @property {number} tokens
 * @property {number} firstMs  from the call to the first token: the prefill, and one token sampled
 * @property {number} restMs   from the first token to the last: tokens - 1 decoding steps
 */

/**
 * @param {(count: () => void) => Promise<number>} run calls `count` for every token, answers with the number of the
 *   prompt's tokens
 * @returns {Promise<Completion>}
 */
export async function timed(run) {
  const begin = performance.now()
  let [tokens, first, last] = [0, 0, 0]
  const promptTokens = await run(() => {
    last = performance.now()
    if (tokens === 0) first = last
    tokens++
  })
  return { promptTokens, tokens, firstMs: first - begin, restMs: last - first }
}

// nibl behind the benchmark's interface (see timing.js); runs in the page and under Node. ?binary=simd128 in the
// module's address asks for that binary instead of the best.

import { load } from '../../web/nibl.js'
import { timed } from './timing.js'

/** What ends a text, forbidden: <|endoftext|>, <|im_end|>. */
const logitBias = { 0: -Infinity, 2: -Infinity }

const binary = /** @type {'simd128' | undefined} */ (new URL(import.meta.url).searchParams.get('binary') ?? undefined)

/** @param {string} source of the model @param {import('./timing.js').EngineOptions} options
 * @returns {Promise<import('./timing.js').Engine>} */
export async function open(source, { threads, contextLength }) {
  const model = await load(source, { threads, contextLength, ...(binary && { binary }) })
  if (model.info.threads !== threads) throw new Error(`nibl uses ${model.info.threads} threads: ${model.info.why}`)
  return {
    about: model.info.binary,
    complete({ text }, tokens) {
      return timed(async (count) => {
        for await (const _ of model.generate(text, { maxTokens: tokens, temperature: 0, logitBias })) count()
        return model.stats.prefill.tokens + (model.stats.prefill.reused ?? 0)
      })
    },
  }
}

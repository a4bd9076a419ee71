// nibl behind the benchmark's interface (see timing.js); runs in the page. One thread. ?binary=simd128 in the module's
// address asks for that binary instead of the best.

import { load } from '../../web/nibl.js'
import { timed } from './timing.js'

/** What ends a text, forbidden: <|endoftext|>, <|im_end|>. */
const logitBias = { 0: -Infinity, 2: -Infinity }

const binary = /** @type {'simd128' | undefined} */ (new URL(import.meta.url).searchParams.get('binary') ?? undefined)

/** @param {string} url of the model @returns {Promise<import('./timing.js').Engine>} */
export async function open(url) {
  const model = await load(url, { threads: 1, ...(binary && { binary }) })
  if (model.info.threads !== 1) throw new Error(`nibl uses ${model.info.threads} threads`)
  return {
    about: model.info.binary,
    complete(prompt, maxTokens) {
      return timed(async (count) => {
        for await (const { text } of model.generate(prompt, { maxTokens, temperature: 0, logitBias })) count(text)
        return model.stats.prefill.tokens
      })
    },
  }
}

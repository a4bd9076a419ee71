// onnxruntime-web behind the benchmark's interface (see timing.js); runs in the page, on the CPU. Its caller keeps the KV
// cache, as callers of this library do. It has no tokenizer here: a prompt is as many made-up tokens as the text has.

import { timed } from './timing.js'

const folder = '/.toolchain/peers/node_modules/onnxruntime-web/dist'

/** @param {string} url of the model @param {import('./timing.js').EngineOptions} options
 * @returns {Promise<import('./timing.js').Engine & { generate: (ids: number[], tokens: number) => Promise<number[]> }>} */
export async function open(url, { threads }) {
  const ort = await import(`${folder}/ort.wasm.bundle.min.mjs`)
  ort.env.wasm.numThreads = threads
  ort.env.wasm.wasmPaths = new URL(`${folder}/`, location.href).href
  const session = await ort.InferenceSession.create(url, {
    executionProviders: ['wasm'],
    graphOptimizationLevel: 'all',
    intraOpNumThreads: threads,
  })
  /** @type {{ name: string, shape: (number | string)[] }[]} */
  const caches = session.inputMetadata.filter((/** @type {{ name: string }} */ { name }) => name.startsWith('past_'))

  /** Feeds a prompt, then one token after the other. @param {number[]} prompt @param {number} tokens
   * @param {(token: number) => void} onToken */
  async function run(prompt, tokens, onToken) {
    /** @type {Record<string, any>} */
    const feeds = {}
    for (const { name, shape } of caches) {
      feeds[name] = new ort.Tensor('float32', new Float32Array(0), [1, Number(shape[1]), 0, Number(shape[3])])
    }
    let ids = prompt
    for (let total = ids.length; tokens > 0; tokens--, total++) {
      feeds.ids = new ort.Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length])
      feeds.seqlens = new ort.Tensor('int32', Int32Array.of(total - 1), [1])
      feeds.total = new ort.Tensor('int32', Int32Array.of(total), [1])
      const results = await session.run(feeds)
      for (const { name } of caches) feeds[name] = results[name.replace('past', 'present')]
      /** @type {Float32Array} */
      const logits = results.logits.data
      let best = 0
      for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i
      onToken(best)
      ids = [best]
    }
  }

  return {
    about: `onnxruntime-web ${ort.env.versions.web}, SIMD128`,
    async generate(ids, tokens) {
      const out = /** @type {number[]} */ ([])
      await run(ids, tokens, (token) => out.push(token))
      return out
    },
    complete({ tokens: promptTokens }, tokens) {
      const ids = Array.from({ length: promptTokens }, (_, i) => 1000 + ((i * 7919) % 40000))
      return timed(async (count) => {
        await run(ids, tokens, count)
        return promptTokens
      })
    },
  }
}

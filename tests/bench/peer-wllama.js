// wllama behind the benchmark's interface (see timing.js); runs in the page. No GPU, no cache.

import { timed } from './timing.js'

const folder = '/.toolchain/peers/node_modules/@wllama/wllama/esm'

/** @param {string} url of the model @param {import('./timing.js').EngineOptions} options
 * @returns {Promise<import('./timing.js').Engine>} */
export async function open(url, { threads, contextLength }) {
  const { Wllama } = await import(`${folder}/index.js`)
  const wllama = new Wllama({ default: `${folder}/wasm/wllama.wasm` }, { suppressNativeLog: true })
  await wllama.loadModelFromUrl(url, {
    useCache: false,
    n_threads: threads,
    n_gpu_layers: 0,
    n_parallel: 1,
    n_ctx: contextLength,
  })
  if (wllama.getNumThreads() !== threads) throw new Error(`wllama uses ${wllama.getNumThreads()} threads`)
  return {
    about: `llama.cpp ${Wllama.getLibllamaVersion()}`,
    complete({ text: prompt }, tokens) {
      return timed(async (count) => {
        const options = { prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, stream: true }
        let promptTokens = 0
        for await (const chunk of await wllama.createCompletion(options)) {
          promptTokens = chunk.usage?.prompt_tokens ?? chunk.timings?.prompt_n ?? promptTokens
          if (chunk.choices[0]?.text) count()
        }
        return promptTokens
      })
    },
  }
}

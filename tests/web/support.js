/** What the tests of the JavaScript layer share. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { NiblError, load } from '../../web/nibl.js'

/** @param {string} path from the repository's root */
export const fromRoot = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

export const tinyPath = fromRoot('tests/fixtures/tiny-llama-q4_1.gguf')
export const tinyBytes = new Uint8Array(readFileSync(tinyPath))
export const modelPath = fromRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf')

/** The same model, but made for a context that 32 bits do not hold: the KV cache alone has 384 bytes a token. */
export const longLength = 12e6
export const longContext = tinyBytes.slice()
const contextKey = Buffer.from(longContext.buffer).indexOf('llama.context_length')
new DataView(longContext.buffer).setUint32(contextKey + 'llama.context_length'.length + 4, 2 ** 24, true)

/** @typedef {import('../../web/nibl.d.ts').Model} Model */
/** @typedef {import('../../web/nibl.d.ts').GenerateOptions} GenerateOptions */
/** @typedef {import('../../web/nibl.d.ts').Source} Source */
/** @typedef {import('../../web/nibl.d.ts').LoadOptions} LoadOptions */

/** Loads for one test. @param {{ after: (fn: () => void) => void }} t @param {Source} source @param {LoadOptions} [options] */
export async function loadFor(t, source, options) {
  const model = await load(source, options)
  t.after(() => model.close())
  return model
}

/** The whole answer. @param {Model} model @param {string | any[]} prompt @param {GenerateOptions} [options] */
export async function answer(model, prompt, options) {
  let text = ''
  for await (const piece of model.generate(prompt, options)) text += piece.text
  return text
}

/** The logits of an answer, as a hash. @param {any} source @param {LoadOptions} [options] */
export async function hashOf(source, options) {
  const model = await load(source, options)
  try {
    await model.ready
    await answer(model, 'Once upon a time', { maxTokens: 8 })
    return model.stats.hash
  } finally {
    model.close()
  }
}

/** The token ids of the answer. @param {Model} model @param {string | any[]} prompt @param {GenerateOptions} [options] */
export async function answerTokens(model, prompt, options) {
  const tokens = []
  for await (const piece of model.generate(prompt, options)) tokens.push(piece.token)
  return tokens
}

/** For assert.rejects and assert.throws. @param {string} code @param {RegExp} message */
export function niblError(code, message) {
  return (/** @type {any} */ error) => {
    assert.ok(error instanceof NiblError, `${error?.name}: ${error?.message}`)
    assert.equal(error.code, code, error.message)
    assert.match(error.message, message)
    return true
  }
}

/** @param {any} error */
export function isAbort(error) {
  assert.ok(error instanceof DOMException, `${error?.name}: ${error?.message}`)
  assert.equal(error.name, 'AbortError')
  return true
}

/** Waits until next to no processor time passes: compilers go on for a while behind an answer, a thread that spins goes on
 * for ever; beside other work for half a minute. @param {() => number | Promise<number>} seconds of processor time so far */
export async function sleepsSoon(seconds) {
  const wait = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms))
  let spent = 1
  for (let tries = 0; tries < 120 && spent > 0.02; tries++) {
    await wait(50)
    const before = await seconds()
    await wait(200)
    spent = (await seconds()) - before
  }
  assert.ok(spent <= 0.02, `${spent} s of processor time in 0.2 s`)
}

/** score(): likelihoods and divergences of a text, against those of the logits that transformers gives for it. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { answerTokens, fromRoot, isAbort, loadFor, modelPath, niblError, tinyPath } from './support.js'

/** What transformers says of a fixture (tests/fixtures/tiny_llama.py). @param {string} type */
function oracle(type) {
  const { buffer, byteOffset } = readFileSync(fromRoot(`tests/fixtures/tiny-llama-${type}.logits`))
  const [count, vocabulary] = new Uint32Array(buffer.slice(byteOffset, byteOffset + 8))
  const tokens = [...new Int32Array(buffer.slice(byteOffset + 8, byteOffset + 8 + 4 * count))]
  const all = new Float32Array(buffer.slice(byteOffset + 8 + 4 * count, byteOffset + 8 + 4 * count * (1 + vocabulary)))
  const logProbabilities = tokens.map((_, position) => {
    const row = Float64Array.from(all.subarray(position * vocabulary, (position + 1) * vocabulary))
    const sum = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0))
    return row.map((logit) => logit - sum)
  })
  return { tokens, logProbabilities }
}

const exact = /** @type {const} */ ({ evaluate: true, threads: 1, kv: 'f32', activations: 'f32' })

/** @param {number} a @param {number} b */
const near = (a, b) => assert.ok(Math.abs(a - b) < 2e-3, `${a}, expected ${b}`)

test('one model against transformers', async (t) => {
  const { tokens, logProbabilities } = oracle('q4_1')
  const model = await loadFor(t, tinyPath, exact)
  for (const first of [1, 5, 20]) {
    const scores = await model.score(tokens, { first })
    assert.equal(scores.length, tokens.length - first)
    for (const [i, score] of scores.entries()) {
      const q = logProbabilities[first + i - 1]
      near(score.logprob, q[tokens[first + i]])
      near(score.topLogprob, Math.max(...q))
      assert.equal(score.top, q.indexOf(Math.max(...q)))
    }
  }
})

test('two models: KL is that of their whole distributions, in windows too', async (t) => {
  const model = await loadFor(t, tinyPath, { ...exact, worker: false })
  const reference = await loadFor(t, fromRoot('tests/fixtures/tiny-llama-q8_0.gguf'), { ...exact, worker: false })
  const tokens = Array.from({ length: 150 }, (_, i) => (i * 97 + 13) % 320)
  const first = 20
  const scores = await model.score(tokens, { first, reference })
  const [ours, theirs] = [await model.score(tokens, { first }), await reference.score(tokens, { first })]
  assert.deepEqual(scores.map(({ kl, reference, ...score }) => score), ours)
  assert.deepEqual(scores.map(({ reference }) => reference), theirs)
  /** The whole distribution behind some tokens, a token at a time. @param {import('../../web/nibl.d.ts').Model} of @param {number[]} prefix */
  const distribution = (of, prefix) =>
    Promise.all(Array.from({ length: of.info.vocabulary }, async (_, token) => (await of.score([...prefix, token], { first: prefix.length }))[0].logprob))
  for (const at of [52]) {
    const [q, p] = [await distribution(model, tokens.slice(0, at)), await distribution(reference, tokens.slice(0, at))]
    const kl = p.reduce((sum, value, token) => sum + Math.exp(value) * (value - q[token]), 0)
    assert.ok(kl > 0.01 && Math.abs(Number(scores[at - first].kl) - kl) < 1e-6, `${scores[at - first].kl}, expected ${kl}`)
  }
})

test('beside an answer, one after the other; the answer is the same', async (t) => {
  const model = await loadFor(t, modelPath, { evaluate: true, contextLength: 256 })
  const messages = [{ role: 'user', content: 'Why is the sky blue?' }]
  const prompt = await model.encode(messages)
  assert.equal(prompt.length, await model.countTokens(messages))
  const options = { maxTokens: 40, speculate: false }
  const pieces = []
  for await (const piece of model.generate(messages, options)) pieces.push(piece)
  const { hash } = model.stats
  const tokens = [...prompt, ...pieces.map(({ token }) => token)]
  const [again, ...all] = await Promise.all([answerTokens(model, messages, options), model.score(tokens, { first: prompt.length }), model.score(tokens)])
  assert.deepEqual(again, pieces.map(({ token }) => token))
  assert.equal(model.stats.hash, hash)
  const [scores, whole] = all
  assert.deepEqual(whole.slice(prompt.length - 1), scores)
  for (const [i, { token, logprob }] of pieces.entries()) {
    assert.equal(scores[i].top, token)
    assert.ok(Math.abs(scores[i].logprob - logprob) < 1e-5)
  }
})

test('what cannot be scored is refused; an abort leaves the model usable', async (t) => {
  const plain = await loadFor(t, tinyPath)
  await assert.rejects(plain.score([1, 2]), niblError('BAD_ARGUMENT', /evaluate: true/))
  const model = await loadFor(t, tinyPath, { evaluate: true })
  for (const tokens of [[], [1], [1, 9999], [1, -1], [1, 1.5], Array(513).fill(1)]) await assert.rejects(model.score(tokens), niblError('BAD_ARGUMENT', /./))
  await assert.rejects(model.score([1, 2], { first: 0 }), niblError('BAD_ARGUMENT', /first/))
  await assert.rejects(model.score([1, 2], /** @type {any} */ ({ reference: 7 })), niblError('BAD_ARGUMENT', /reference/))
  const controller = new AbortController()
  const running = model.score(Array(500).fill(5), { signal: controller.signal })
  controller.abort()
  await assert.rejects(running, isAbort)
  assert.equal((await model.score([1, 2, 3])).length, 2)
})

/** The package `openai` with a model in place of the network, and the same calls without it. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openai } from 'nibl/openai'
import OpenAI, { APIUserAbortError } from 'openai'
import { answer, isAbort, loadFor, modelPath } from './support.js'

/** @type {{ role: 'user', content: string }[]} */
const messages = [{ role: 'user', content: 'Name three rivers.' }]
const greedy = { model: 'smol', temperature: 0, max_tokens: 16 }

/** @param {import('node:test').TestContext} t */
async function clients(t) {
  const model = await loadFor(t, modelPath)
  const local = openai({ smol: model })
  const remote = new OpenAI({ baseURL: 'http://nibl/v1', apiKey: 'none', maxRetries: 0, fetch: local.fetch })
  return { model, local, remote }
}

test('the openai package gets what generate() gives, whole and in pieces', async (t) => {
  const { model, local, remote } = await clients(t)
  const expected = await answer(model, messages, { maxTokens: 16 })
  const ids = await model.tokenize(expected)

  const whole = await remote.chat.completions.create({ ...greedy, messages })
  assert.equal(whole.choices[0].message.content, expected)
  assert.equal(whole.choices[0].finish_reason, 'length')
  assert.equal(whole.object, 'chat.completion')
  assert.equal(whole.usage?.completion_tokens, 16)
  assert.equal(ids.length, 16)
  assert.equal(whole.usage?.total_tokens, 16 + whole.usage?.prompt_tokens)

  let text = ''
  const finishes = []
  let usage
  const options = { include_usage: true }
  for await (const chunk of await remote.chat.completions.create({ ...greedy, messages, stream: true, stream_options: options })) {
    assert.equal(chunk.object, 'chat.completion.chunk')
    text += chunk.choices[0]?.delta.content ?? ''
    if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason)
    usage = chunk.usage ?? usage
  }
  assert.equal(text, expected)
  assert.deepEqual(finishes, ['length'])
  assert.deepEqual(usage?.completion_tokens, 16)
  assert.deepEqual(usage?.prompt_tokens, whole.usage?.prompt_tokens)

  const plain = await local.chat.completions.create({ ...greedy, messages })
  assert.equal(plain.choices[0].message.content, expected)
})

test('the helper that assembles streams, parts of text, stop strings and logprobs', async (t) => {
  const { model, remote } = await clients(t)
  const runner = remote.chat.completions.stream({ ...greedy, messages: [{ role: 'user', content: [{ type: 'text', text: messages[0].content }] }] })
  assert.equal((await runner.finalMessage()).content, await answer(model, messages, { maxTokens: 16 }))

  const first = await answer(model, messages, { maxTokens: 40 })
  const stop = first.slice(20, 24)
  const stopped = await remote.chat.completions.create({ ...greedy, max_tokens: 40, messages, stop: [stop], logprobs: true })
  assert.equal(stopped.choices[0].message.content, first.slice(0, first.indexOf(stop)))
  assert.equal(stopped.choices[0].finish_reason, 'stop')
  const logprobs = stopped.choices[0].logprobs?.content ?? []
  assert.ok(logprobs.length > 0 && logprobs.every(({ logprob }) => logprob <= 0))
  assert.deepEqual(Buffer.from(logprobs.flatMap(({ bytes }) => bytes ?? [])).toString(), stopped.choices[0].message.content)
})

test('text completions', async (t) => {
  const { model, remote } = await clients(t)
  const prompt = 'The capital of France is'
  const expected = await answer(model, prompt, { maxTokens: 8 })
  const { choices } = await remote.completions.create({ ...greedy, prompt, max_tokens: 8, logprobs: 1 })
  assert.equal(choices[0].text, expected)
  assert.equal(choices[0].logprobs?.tokens?.join(''), expected)
  let text = ''
  for await (const chunk of await remote.completions.create({ ...greedy, prompt, max_tokens: 8, stream: true })) text += chunk.choices[0].text
  assert.equal(text, expected)
})

test('models are listed and named', async (t) => {
  const { remote } = await clients(t)
  assert.deepEqual((await remote.models.list()).data.map(({ id }) => id), ['smol'])
  assert.equal((await remote.models.retrieve('smol')).id, 'smol')
  await assert.rejects(remote.models.retrieve('large'), { status: 404 })
  await assert.rejects(remote.chat.completions.create({ ...greedy, model: 'large', messages }), { status: 404, code: 'model_not_found' })
})

test('what is not supported is refused by name, and the model answers the next request', async (t) => {
  const { local, remote } = await clients(t)
  /** @type {[any, string][]} */
  const wrong = [
    [{ n: 2 }, 'n'],
    [{ frequency_penalty: 0.5 }, 'frequency_penalty'],
    [{ tools: [{ type: 'other' }] }, 'tools'],
    [{ response_format: { type: 'json_schema' } }, 'response_format'],
    [{ top_logprobs: 3 }, 'top_logprobs'],
    [{ maxTokens: 3 }, 'maxTokens'],
    [{ messages: 'Hello' }, 'messages'],
    [{ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }, 'messages[0].content'],
  ]
  for (const [parameters, param] of wrong) {
    for (const stream of [false, true]) {
      await assert.rejects(remote.chat.completions.create({ ...greedy, messages, stream, ...parameters }), { status: 400, param })
    }
    await assert.rejects(local.chat.completions.create({ ...greedy, messages, ...parameters }), { status: 400 })
  }
  await assert.rejects(remote.chat.completions.create({ ...greedy, temperature: -1, messages }), { status: 400 })
  const long = { role: /** @type {const} */ ('user'), content: 'word '.repeat(9000) }
  await assert.rejects(remote.chat.completions.create({ ...greedy, messages: [long] }), { status: 400, code: 'context_length_exceeded' })
  const neutral = { n: 1, presence_penalty: 0, tools: [], user: 'me', seed: null, response_format: { type: /** @type {const} */ ('text') } }
  assert.equal((await remote.chat.completions.create({ ...greedy, messages, ...neutral })).choices.length, 1)
})

test('HTTP that is no request of the API', async (t) => {
  const { local } = await clients(t)
  const post = { method: 'POST', body: 'no json' }
  const statusOf = async (/** @type {string} */ path, /** @type {RequestInit} */ init = {}) => (await local.fetch(`http://nibl${path}`, init)).status
  assert.equal(await statusOf('/v1/chat/completions', post), 400)
  assert.equal(await statusOf('/v1/chat/completions'), 404)
  assert.equal(await statusOf('/v1/chat/completions', { ...post, body: 'null' }), 400)
  assert.equal(await statusOf('/v1/images/generations', post), 404)
  assert.equal(await statusOf('/models'), 200)
})

test('an abort ends the request, whole or streamed, and the model stays usable', async (t) => {
  const { model, local, remote } = await clients(t)
  const expected = await answer(model, messages, { maxTokens: 16 })
  const endless = { ...greedy, max_tokens: 2000, messages: [{ role: /** @type {const} */ ('user'), content: 'Write a very long story.' }] }
  const soon = () => AbortSignal.timeout(150)
  await assert.rejects(remote.chat.completions.create(endless, { signal: soon() }), APIUserAbortError)
  await assert.rejects(local.chat.completions.create(endless, { signal: AbortSignal.abort() }), isAbort)
  const stream = await remote.chat.completions.create({ ...endless, stream: true })
  for await (const _ of stream) break
  assert.equal((await remote.chat.completions.create({ ...greedy, messages })).choices[0].message.content, expected)
})

test('embeddings: what embed() gives, as floats and as the package reads base64', async (t) => {
  const { model, local, remote } = await clients(t)
  const input = ['The cat sat on the mat.', 'A feline rested on a rug.', 'Interest rates rose again.']
  const expected = await model.embed(input)
  const packed = await remote.embeddings.create({ model: 'smol', input }) /* the package asks for base64 */
  const floats = await remote.embeddings.create({ model: 'smol', input, encoding_format: 'float' })
  for (const [i, vector] of expected.entries()) {
    assert.deepEqual(packed.data[i], { object: 'embedding', index: i, embedding: [...vector] })
    assert.deepEqual(floats.data[i].embedding, [...vector])
  }
  const counts = await Promise.all(input.map((text) => model.countTokens(text)))
  assert.equal(packed.usage.prompt_tokens, counts.reduce((sum, count) => sum + count))
  assert.equal((await local.embeddings.create({ input: input[0], encoding_format: 'base64' })).data[0].embedding, Buffer.from(expected[0].buffer).toString('base64'))
  for (const bad of [{ input: [] }, { input: '' }, { input: [1, 2] }, { input, encoding_format: 'int8' }, { input, dimensions: 8 }, { input: Array(2049).fill('x') }, { model: 'other', input }]) {
    await assert.rejects(remote.embeddings.create(/** @type {any} */ ({ model: 'smol', ...bad })), (/** @type {any} */ error) => error.status === ('model' in bad ? 404 : 400))
  }
})

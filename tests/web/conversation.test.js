/** Conversations: forked, saved, restored, and longer than the context. What is right is what a model computes afresh. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answer, isAbort, loadFor, longContext, modelPath, niblError, tinyPath } from './support.js'

const user = (/** @type {string} */ content) => ({ role: 'user', content })
const few = { maxTokens: 12 }

/** What was said, and the hash of its logits. @param {import('nibl').Conversation} conversation @param {import('nibl').Model} model @param {string} prompt
 * @param {import('nibl').GenerateOptions} [options] */
async function say(conversation, model, prompt, options = few) {
  let text = ''
  for await (const piece of conversation.generate(prompt, options)) text += piece.text
  return { text, hash: model.stats.hash }
}

test('a conversation that was saved goes on with the same bits elsewhere, without computing again', async (t) => {
  const here = await loadFor(t, modelPath)
  const talk = here.conversation([{ role: 'system', content: 'Be brief.' }])
  await say(talk, here, 'Name a colour.')
  const state = await talk.save()
  const before = await here.countTokens(talk.messages)
  const expected = await say(talk, here, 'Another one.')
  assert.equal(talk.messages.length, 5)
  assert.deepEqual(talk.messages[4], { role: 'assistant', content: expected.text })

  for (const options of [{}, { worker: false, contextLength: 300 }, { binary: /** @type {const} */ ('simd128'), threads: 1, sessions: 2 }]) {
    const there = await loadFor(t, modelPath, options)
    const back = await there.restore(options.worker === false ? await state.arrayBuffer() : state)
    assert.deepEqual(back.messages, talk.messages.slice(0, 3))
    assert.deepEqual(await say(back, there, 'Another one.'), expected)
    /* The opening of an answer, where the saved prompt ends, is written otherwise. */
    assert.ok(Number(there.stats.prefill.reused) >= before - 4, JSON.stringify(there.stats.prefill))
    there.close()
  }
})

test('states of others are refused', async (t) => {
  const model = await loadFor(t, tinyPath, { worker: false })
  const talk = model.conversation()
  await say(talk, model, 'Hello')
  const state = new Uint8Array(await (await talk.save()).arrayBuffer())
  const jsonEnd = 76 + new DataView(state.buffer).getUint32(8, true)
  const changed = (/** @type {number} */ at) => state.map((byte, i) => (i === at ? byte ^ 4 : byte))
  for (const bad of [new Uint8Array(0), state.slice(0, 50), state.slice(0, 90), state.slice(0, -1), state.slice(0, jsonEnd + 20), new Uint8Array([...state, 0]), changed(3), changed(9), changed(20), changed(80), changed(jsonEnd + 1),
    changed(jsonEnd + 9), changed(jsonEnd + 44), changed(jsonEnd + 900), changed(state.length - 1)]) {
    await assert.rejects(model.restore(bad), niblError('BAD_STATE', /saved|ends|model/))
  }
  const other = await loadFor(t, tinyPath, { kv: 'f16' })
  await assert.rejects(other.restore(state), niblError('BAD_STATE', /kv_type/))
  const narrow = await loadFor(t, tinyPath, { contextLength: 8 })
  await assert.rejects(narrow.restore(state), niblError('CONTEXT_FULL', /8/))
  const stranger = await loadFor(t, longContext)
  await assert.rejects(stranger.restore(state), niblError('BAD_STATE', /another model/))
  const back = await model.restore(state)
  assert.deepEqual(back.messages, talk.messages)
  assert.deepEqual(await say(back, model, 'More'), await say(talk, model, 'More'))
})

test('conversations keep what is theirs, and take over what they have in common', async (t) => {
  const alone = await loadFor(t, modelPath)
  const model = await loadFor(t, modelPath, { sessions: 3 })
  const system = { role: 'system', content: 'You are a helpful assistant who answers in one short sentence, without any list. '.repeat(3) }
  const first = model.conversation([system])
  const second = model.conversation([system])
  const reused = () => Number(model.stats.prefill.reused)
  const one = await say(first, model, 'Name a river.')
  assert.equal(reused(), 0)
  const two = await say(second, model, 'Name a mountain.')
  const common = await alone.countTokens([system])
  assert.ok(reused() >= common - 4, `${reused()} of ${common}`)
  const third = first.fork()
  await say(third, model, 'And a bird.')
  assert.ok(reused() > common + 8)
  /* Each one still has its own. */
  for (const [talk, question] of /** @type {const} */ ([[first, 'Where is it?'], [second, 'How high is it?'], [third, 'What does it eat?']])) {
    const had = await alone.countTokens(talk.messages)
    const given = await say(talk, model, question)
    assert.ok(reused() >= had - 8, `${question} ${reused()} of ${had}`)
    assert.equal(given.text, await answer(alone, talk.messages.slice(0, -1), few))
  }
  assert.deepEqual([one.text, two.text], [first.messages[2].content, second.messages[2].content])
})

test('a stopped answer is no part of the conversation, calls on it queue', async (t) => {
  const model = await loadFor(t, tinyPath)
  const talk = model.conversation()
  const stop = new AbortController()
  const running = say(talk, model, 'Hello', { signal: stop.signal })
  const next = say(talk, model, 'Again', { maxTokens: 3 })
  stop.abort()
  await assert.rejects(running, isAbort)
  await next
  assert.deepEqual(talk.messages.map(({ role, content }) => role === 'user' && content), ['Again', false])
  for await (const piece of talk.generate('Stay')) if (piece) break
  assert.equal(talk.messages.length, 2)
  const before = await talk.save()
  const empty = await model.restore(await model.conversation().save())
  assert.deepEqual(empty.messages, [])
  assert.deepEqual((await model.restore(before)).messages, talk.messages)
})

test('overflow: the oldest turns go, system prompt and question stay, the rest is as if they had never been', async (t) => {
  const model = await loadFor(t, modelPath, { contextLength: 256 })
  const plain = await loadFor(t, modelPath, { contextLength: 256 })
  const system = { role: 'system', content: 'Be brief.' }
  const messages = [system]
  const long = 'Say one word about the sea and the wind and the ships. '.repeat(2)
  let computed = 0
  let shifts = 0
  for (let turn = 0; turn < 12; turn++) {
    messages.push(user(`${turn}: ${long}`))
    const text = await answer(model, messages, { maxTokens: 8, overflow: 'shift' })
    const { dropped, hash, finish, prefill } = model.stats
    assert.ok(dropped % 2 === 0 && dropped < messages.length - 1)
    assert.ok(prefill.tokens + Number(prefill.reused) + 8 <= 256)
    if (dropped !== shifts) {
      shifts = dropped
      computed++
      assert.equal(text, await answer(plain, [system, ...messages.slice(1 + dropped)], { maxTokens: 8 }))
    }
    assert.notEqual(finish, 'abort')
    assert.equal(hash.length, 16)
    messages.push({ role: 'assistant', content: text })
  }
  assert.ok(shifts > 0)
  assert.ok(computed < 8, `computed again in ${computed} of 12 turns`)
  await assert.rejects(answer(model, messages, few), niblError('CONTEXT_FULL', /256/))
  await assert.rejects(answer(model, [system, user(long.repeat(30))], { overflow: 'shift' }), niblError('CONTEXT_FULL', /256/))
})

/* What they are is compared with transformers in tests/c/test_state.c. */
test('embeddings: alone and together, mean and last, beside answers', async (t) => {
  const model = await loadFor(t, tinyPath, { sessions: 3 })
  const text = 'There is the other thing.'
  const [mean, last] = [await model.embed(text, { normalize: false }), await model.embed(text, { pooling: 'last', normalize: false })]
  assert.notDeepEqual(mean, last)
  const one = await model.embed('x', { normalize: false })
  assert.equal(await model.countTokens('x'), 1)
  assert.deepEqual(one, await model.embed('x', { pooling: 'last', normalize: false }))
  const norm = Math.hypot(...mean)
  const [unit] = await model.embed([text])
  unit.forEach((x, d) => assert.ok(Math.abs(x - mean[d] / norm) < 1e-6))
  const texts = ['Hello', text, 'The other thing.', 'Hello', 'x']
  const before = await answer(model, text, few)
  const [together, beside] = await Promise.all([model.embed(texts), answer(model, text, few)])
  for (const [i, each] of texts.entries()) assert.deepEqual(await model.embed(each), together[i])
  assert.deepEqual([beside, await answer(model, text, few)], [before, before])
  await assert.rejects(model.embed(/** @type {any} */ ([1])), niblError('BAD_ARGUMENT', /string/))
  await assert.rejects(model.embed(''), niblError('BAD_ARGUMENT', /empty/))
  await assert.rejects(model.embed(Array(50).fill(text), { signal: AbortSignal.abort() }), isAbort)
})

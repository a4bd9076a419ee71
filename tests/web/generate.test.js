/** Text out of a model: options, aborts, queueing, and what is computed again. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from 'nibl'
import { answer, answerTokens, isAbort, loadFor, modelPath, niblError, tinyPath } from './support.js'

const user = (/** @type {string} */ content) => ({ role: 'user', content })
const long = 'The quick brown fox jumps over the lazy dog. '
/** An answer that goes on until the context is full: what is to be stopped must not end before. */
const endless = { logitBias: { 0: -Infinity, 2: -Infinity } }

test('the same seed gives the same text, another seed another', async (t) => {
  const model = await loadFor(t, tinyPath)
  const options = { temperature: 1, maxTokens: 40 }
  const first = await answerTokens(model, 'Hello', { ...options, seed: 7 })
  const { hash } = model.stats
  assert.equal(model.stats.seed, 7)
  assert.deepEqual(await answerTokens(model, 'Hello', { ...options, seed: 7 }), first)
  assert.equal(model.stats.hash, hash)
  assert.notDeepEqual(await answerTokens(model, 'Hello', { ...options, seed: 8 }), first)
  assert.notDeepEqual(await answerTokens(model, 'Hello', { ...options, seed: 7 + 2 ** 40 }), first)

  const other = await loadFor(t, tinyPath, { threads: 3, chunk: 1, worker: false })
  assert.deepEqual(await answerTokens(other, 'Hello', { ...options, seed: 7 }), first)
  assert.equal(other.stats.hash, hash)
})

test('without a seed one is drawn, told, and gives the text again', async (t) => {
  const model = await loadFor(t, tinyPath)
  const options = { temperature: 1, maxTokens: 40 }
  const first = await answerTokens(model, 'Hello', options)
  const { seed } = model.stats
  assert.notDeepEqual(await answerTokens(model, 'Hello', options), first)
  assert.deepEqual(await answerTokens(model, 'Hello', { ...options, seed }), first)
})

test('threads, chunks and a prefix that is there already leave the logits as they are', async (t) => {
  const prompt = long.repeat(6)
  const plain = await loadFor(t, modelPath, { threads: 1 })
  const expected = await answerTokens(plain, prompt, { maxTokens: 8 })
  const { hash } = plain.stats
  for (const options of [{ threads: 2 }, { threads: 3, chunk: 7 }, { threads: 1, chunk: 64, worker: false }]) {
    const model = await loadFor(t, modelPath, options)
    await answer(model, prompt.slice(0, 100), { maxTokens: 1 })
    assert.deepEqual(await answerTokens(model, prompt, { maxTokens: 8 }), expected)
    assert.ok(Number(model.stats.prefill.reused) > 10)
    assert.equal(model.stats.hash, hash, JSON.stringify(options))
    model.close()
  }
})

test('pieces tell token and probability; their text is the tokens’ text', async (t) => {
  const model = await loadFor(t, modelPath)
  const pieces = []
  for await (const piece of model.generate([user('Write 🎉 and 日本語.')], { maxTokens: 24 })) pieces.push(piece)
  const text = pieces.map((piece) => piece.text).join('')
  assert.equal(text, await model.detokenize(pieces.map((piece) => piece.token), { special: false }))
  assert.ok(pieces.every((piece) => Number.isInteger(piece.token) && piece.logprob <= 0 && !/[\ud800-\udbff]$/.test(piece.text)))
  assert.equal(model.stats.decode.tokens, pieces.length - 1)
})

test('a model that follows its template ends by itself', async (t) => {
  const model = await loadFor(t, modelPath)
  const text = await answer(model, [user('Reply with the one word: yes.')], { maxTokens: 200 })
  assert.equal(model.stats.finish, 'end')
  assert.ok(text.length > 0 && !text.includes('<|im_end|>'))
})

test('one turn on, only the new tokens are computed', async (t) => {
  const model = await loadFor(t, modelPath)
  const messages = [user('Name a colour.')]
  const reply = await answer(model, messages, { maxTokens: 200 })
  const before = model.stats.prefill.tokens + model.stats.decode.tokens
  assert.equal(model.stats.finish, 'end')
  messages.push({ role: 'assistant', content: reply }, user('Another one.'))
  await answer(model, messages, { maxTokens: 1 })
  assert.equal(model.stats.prefill.reused, before)
  const added = await model.tokenize('<|im_end|>\n<|im_start|>user\nAnother one.<|im_end|>\n<|im_start|>assistant\n')
  assert.equal(model.stats.prefill.tokens, added.length)
})

test('the same prompt again costs one token', async (t) => {
  const model = await loadFor(t, tinyPath)
  await answer(model, long, { maxTokens: 5 })
  await answer(model, long, { maxTokens: 5 })
  assert.equal(model.stats.prefill.tokens, 1)
})

test('stop strings end the text and are no part of it', async (t) => {
  const model = await loadFor(t, modelPath)
  const prompt = 'One, two, three, four,'
  const free = await answer(model, prompt, { maxTokens: 30 })
  assert.equal(model.stats.finish, 'length')
  for (const stop of [free.slice(9, 12), free.slice(3, 20), free.slice(0, 1), free.slice(-1)]) {
    const expected = free.slice(0, free.indexOf(stop))
    assert.equal(await answer(model, prompt, { maxTokens: 30, stop }), expected, stop)
    assert.equal(model.stats.finish, 'stop')
    assert.equal(await answer(model, prompt, { maxTokens: 30, stop: ['never', stop] }), expected)
  }
  /* What only looks like a stop string comes out in the end. */
  assert.equal(await answer(model, prompt, { maxTokens: 30, stop: `${free.slice(-4)}#` }), free)
})

test('biased and forbidden tokens', async (t) => {
  const model = await loadFor(t, tinyPath)
  const [first] = await answerTokens(model, 'Hello', { maxTokens: 1 })
  const [second] = await answerTokens(model, 'Hello', { maxTokens: 1, logitBias: { [first]: -Infinity } })
  assert.notEqual(second, first)
  const forced = await answerTokens(model, 'Hello', { maxTokens: 3, logitBias: new Map([[42, 1000]]) })
  assert.deepEqual(forced, [42, 42, 42])
})

test('a full context ends the answer, a prompt that is too long is refused', async (t) => {
  const model = await loadFor(t, tinyPath, { contextLength: 32 })
  const bias = { 42: 1000 }
  const prompt = await model.detokenize(Array(20).fill(42))
  assert.equal((await model.tokenize(prompt)).length, 20)
  const tokens = await answerTokens(model, prompt, { logitBias: bias })
  assert.equal(model.stats.finish, 'length')
  assert.equal(tokens.length, 13)
  await assert.rejects(answer(model, long.repeat(4)), niblError('CONTEXT_FULL', /32/))
  assert.deepEqual(await answerTokens(model, prompt, { logitBias: bias, maxTokens: 2 }), [42, 42])
})

test('maxTokens 0 computes the prompt and says nothing', async (t) => {
  const model = await loadFor(t, tinyPath)
  assert.deepEqual(await answerTokens(model, long, { maxTokens: 0 }), [])
  assert.ok(model.stats.prefill.tokens > 1)
})

test('an abort while the prompt is computed', async (t) => {
  for (const worker of [true, false]) {
    const model = await loadFor(t, modelPath, { worker })
    const expected = await answer(model, 'Hello', { maxTokens: 4 })
    const controller = new AbortController()
    const pending = answer(model, long.repeat(300), { signal: controller.signal })
    setTimeout(() => controller.abort(), 50)
    await assert.rejects(pending, isAbort)
    assert.equal(await answer(model, 'Hello', { maxTokens: 4 }), expected)
    model.close()
  }
})

test('an abort while the answer is computed', async (t) => {
  for (const worker of [true, false]) {
    const model = await loadFor(t, modelPath, { worker })
    const options = { maxTokens: 12 }
    const expected = await answer(model, long, options)
    const controller = new AbortController()
    let count = 0
    const reading = async () => {
      for await (const _ of model.generate(long, { signal: controller.signal })) if (++count === 3) controller.abort()
    }
    await assert.rejects(reading(), isAbort)
    assert.equal(count, 3)
    assert.equal(await answer(model, long, options), expected)
    model.close()
  }
})

test('an abort before the start, while waiting, and with a reason', async (t) => {
  const model = await loadFor(t, tinyPath)
  await assert.rejects(answer(model, 'Hello', { signal: AbortSignal.abort() }), isAbort)
  await assert.rejects(answer(model, 'Hello', { signal: AbortSignal.abort('because') }), isAbort)
  const first = answer(model, 'Hello', { maxTokens: 200, temperature: 1 })
  const controller = new AbortController()
  const second = answer(model, 'Hello', { signal: controller.signal })
  const third = answer(model, 'Hello', { maxTokens: 3 })
  controller.abort()
  await assert.rejects(second, isAbort)
  await first
  await third
  await assert.rejects(answer(model, long.repeat(9), { signal: AbortSignal.timeout(0) }), { name: 'TimeoutError' })
})

test('leaving the loop stops the computation', async (t) => {
  /* The tiny model would be done with all 400 before an abort gets there from a thread that has to wait. */
  const model = await loadFor(t, modelPath, { contextLength: 512 })
  const stopped = async (/** @type {number} */ seed) => {
    while (model.stats.seed !== seed) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(model.stats.finish, 'abort')
    assert.ok(model.stats.decode.tokens < 400)
  }
  for await (const _ of model.generate('Hello', { ...endless, seed: 1 })) break
  await stopped(1)
  const generator = model.generate('Hello', { ...endless, seed: 2 })
  await generator.next()
  await generator.return()
  assert.deepEqual(await generator.next(), { value: undefined, done: true })
  await stopped(2)
  await answer(model, 'Hello', { maxTokens: 1 })
})

test('calls at the same time queue', async (t) => {
  const model = await loadFor(t, tinyPath)
  const prompts = ['Hello', 'A dog', 'What', 'x = 5', 'Hello']
  const alone = []
  for (const prompt of prompts) alone.push(await answer(model, prompt, { maxTokens: 30 }))
  assert.deepEqual(await Promise.all(prompts.map((prompt) => answer(model, prompt, { maxTokens: 30 }))), alone)

  /* Read in turns: what one reader leaves unread does not hold the other up. */
  const [a, b] = [model.generate('Hello', { maxTokens: 30 }), model.generate('A dog', { maxTokens: 30 })]
  const texts = ['', '']
  for (let index = 0; index < 30; index++) {
    texts[0] += (await a.next()).value?.text ?? ''
    texts[1] += (await b.next()).value?.text ?? ''
  }
  assert.deepEqual(texts, alone.slice(0, 2))
})

test('tokenizing does not wait for a generation', async (t) => {
  const model = await loadFor(t, modelPath)
  const generator = model.generate(long, { maxTokens: 1000 })
  await generator.next()
  const text = 'Bonjour 🎉 <|im_start|>x'
  assert.equal(await model.detokenize(await model.tokenize(text)), text)
  assert.ok((await model.tokenize(text, { special: false })).length > (await model.tokenize(text)).length)
  assert.equal(await model.detokenize(await model.tokenize(text), { special: false }), text.replace('<|im_start|>', ''))
  assert.equal(await model.detokenize([]), '')
  assert.equal((await generator.next()).done, false)
  await generator.return()
})

test('closing ends what runs and what comes', async () => {
  for (const worker of [true, false]) {
    const model = await load(modelPath, { worker })
    const running = answer(model, long, endless)
    const waiting = answer(model, long, endless)
    setTimeout(() => model.close(), 100)
    await assert.rejects(running, niblError('CLOSED', /closed/))
    await assert.rejects(waiting, niblError('CLOSED', /closed/))
    await assert.rejects(answer(model, long), niblError('CLOSED', /closed/))
    await assert.rejects(model.tokenize('x'), niblError('CLOSED', /closed/))
    model.close()
  }
})

test('prompts and options that make no sense', async (t) => {
  const model = await loadFor(t, tinyPath)
  const bad = (/** @type {any} */ prompt, /** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(async () => answer(model, prompt, options), niblError('BAD_ARGUMENT', message))
  await bad(7, {}, /prompt must be a string or an array of messages/)
  await bad('', {}, /prompt is empty/)
  await bad([], {}, /role/)
  await bad([{ content: 'x' }], {}, /role/)
  await bad('x', { max_tokens: 5 }, /no option "max_tokens".*maxTokens/)
  await bad('x', { maxTokens: -1 }, /"maxTokens"/)
  await bad('x', { temperature: '1' }, /"temperature" must be a number/)
  await bad('x', { topP: NaN }, /"topP"/)
  await bad('x', { seed: 0.5 }, /"seed"/)
  await bad('x', { stop: [''] }, /"stop"/)
  await bad('x', { logitBias: { foo: 1 } }, /"logitBias"/)
  await bad('x', { logitBias: { 1: 'a' } }, /"logitBias"/)
  await assert.rejects(model.detokenize([1e9]), niblError('BAD_ARGUMENT', /token/))
  await answer(model, 'Hello', { maxTokens: 1 })
})

test('guesses change neither tokens nor logits nor what the next turn finds, wherever an answer ends', async (t) => {
  const messages = [user(`Repeat the following text exactly, word for word.\n\n${long.repeat(2)}`)]
  /** @param {import('nibl').LoadOptions} loadOptions @param {boolean} speculate */
  const talk = async (loadOptions, speculate) => {
    const model = await loadFor(t, modelPath, loadOptions)
    const told = []
    let right = 0
    for (const options of [
      { maxTokens: 40 },
      { maxTokens: 17 },
      { maxTokens: 40, temperature: 0.5, topP: 0.9, repeatPenalty: 1.05, seed: 3 },
      { maxTokens: 40, stop: 'lazy' },
      { maxTokens: 40, stop: ['over the'] },
    ]) {
      for (const turn of [messages, [...messages, { role: 'assistant', content: long }, user('Again.')]]) {
        const pieces = []
        for await (const piece of model.generate(turn, { ...options, speculate })) pieces.push(piece)
        const { finish, hash, prefill, decode } = model.stats
        assert.ok(speculate ? decode.right <= decode.guessed : decode.guessed === 0)
        right += decode.right
        told.push([pieces, finish, hash, prefill.reused, prefill.tokens, decode.tokens])
      }
    }
    assert.equal(right > 20, speculate, `${right} right`)
    return told
  }
  const plain = await talk({ threads: 1 }, false)
  assert.deepEqual(await talk({ threads: 1 }, true), plain)
  assert.deepEqual(await talk({ threads: 2, chunk: 8 }, true), plain)
})

test('an answer full of guesses can be stopped at any token', async (t) => {
  const model = await loadFor(t, modelPath)
  const options = { ...endless, maxTokens: 40, speculate: true }
  const whole = await answerTokens(model, long.repeat(3), options)
  const { hash } = model.stats
  assert.ok(model.stats.decode.right > 10, `${model.stats.decode.right} right`)
  for (const stopAt of [5, 10, 11, 12, 25]) {
    const tokens = []
    for await (const { token } of model.generate(long.repeat(3), options)) if (tokens.push(token) === stopAt) break
    assert.deepEqual(tokens, whole.slice(0, stopAt))
    assert.deepEqual(await answerTokens(model, long.repeat(3), options), whole)
    assert.equal(model.stats.hash, hash)
  }
})

test('several answers at a time are the ones that each gets alone', async (t) => {
  const prompts = [long.repeat(9), 'The capital of France is', [user('Name three rivers.')], [user('Name three rivers.')], 'Once']
  const requests = prompts.map((prompt, i) => /** @type {const} */ ([prompt, { maxTokens: 12 + i, temperature: i % 2, seed: i }]))
  const alone = await loadFor(t, modelPath)
  const expected = []
  for (const [prompt, options] of requests) {
    expected.push({ tokens: await answerTokens(alone, prompt, options), hash: alone.stats.hash, finish: alone.stats.finish })
  }
  alone.close()
  for (const sessions of [2, 5]) {
    const model = await loadFor(t, modelPath, { sessions })
    const answers = requests.map(async ([prompt, options]) => {
      const tokens = await answerTokens(model, prompt, options)
      return { tokens, hash: model.stats.hash, finish: model.stats.finish }
    })
    const got = await Promise.all(answers)
    /* Where a session had answered before, rows of the prompt that it kept are not in the hash again. */
    if (sessions === 5) assert.deepEqual(got, expected)
    else assert.deepEqual(got.map(({ tokens }) => tokens), expected.map(({ tokens }) => tokens))
    model.close()
  }
})

test('answers come and go: one that is long waits for none, an abort stops one alone', async (t) => {
  const model = await loadFor(t, modelPath, { sessions: 3 })
  const expected = await answerTokens(model, 'Rivers are', { maxTokens: 20 })
  const controller = new AbortController()
  const stopped = answerTokens(model, long, { ...endless, maxTokens: 3000, signal: controller.signal })
  assert.deepEqual(await answerTokens(model, 'Rivers are', { maxTokens: 20 }), expected)
  const others = [1, 2, 3, 4].map(() => answerTokens(model, 'Rivers are', { maxTokens: 20 }))
  assert.deepEqual(await others[0], expected)
  controller.abort()
  await assert.rejects(stopped, isAbort)
  for (const other of others) assert.deepEqual(await other, expected)

  /* A call that waits for its turn can be aborted, and keeps no session. */
  const busy = [1, 2, 3].map(() => answerTokens(model, 'Rivers are', { ...endless, maxTokens: 60 }))
  await assert.rejects(answerTokens(model, 'Lakes', { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' })
  await Promise.all(busy)
  assert.deepEqual(await answerTokens(model, 'Rivers are', { maxTokens: 20 }), expected)
})

test('a conversation finds the session that knows it', async (t) => {
  const model = await loadFor(t, modelPath, { sessions: 2 })
  const [first, second] = ['Name three rivers.', 'What is a whale?'].map((text) => [user(text)])
  const opening = await answer(model, first, { maxTokens: 10 })
  await answer(model, second, { maxTokens: 10 })
  await answer(model, [...first, { role: 'assistant', content: opening }, user('And a lake?')], { maxTokens: 4 })
  assert.ok(Number(model.stats.prefill.reused) >= (await model.tokenize('Name three rivers.')).length + 10)
})

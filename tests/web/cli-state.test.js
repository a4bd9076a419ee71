// `nibl run --prompt-cache`, and `nibl embed` beside the vectors of the package.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { file, fixture, folder, json, nibl, refuse, succeed, tiny } from './command.js'
import { loadFor } from './support.js'

describe('--prompt-cache', () => {
  const greedy = ['run', tiny, '--temp', '0', '-n', '12', '--ignore-eos', '--logits-hash']
  const prompt = ['-p', 'Once upon a time there was a cat. What did it eat?']
  const at = (/** @type {string} */ name) => path.join(folder, name)
  const [plain] = json([...greedy, ...prompt])

  test('a prompt is computed once; the answer and its logits stay the same', () => {
    const cache = ['--prompt-cache', at('prompt.state')]
    const [first] = json([...greedy, ...prompt, ...cache])
    assert.equal(first.reused_tokens, 0)
    const written = fs.readFileSync(at('prompt.state'))
    const [second] = json([...greedy, ...prompt, ...cache, '-t', '2', '--chunk', '3'])
    assert.equal(second.reused_tokens, plain.prompt_tokens - 1)
    for (const answer of [first, second]) {
      assert.deepEqual(answer.tokens, plain.tokens)
      assert.equal(answer.logits_hash, plain.logits_hash)
    }
    assert.deepEqual(fs.readFileSync(at('prompt.state')), written)
  })

  test('with the answer, and of a conversation; only read', () => {
    const all = ['--prompt-cache', at('all.state'), '--prompt-cache-all']
    const [first] = json([...greedy, '--no-chat', '-p', 'A cat', ...all])
    const [second] = json([...greedy, '--no-chat', '-p', `A cat${first.text}`, ...all.slice(0, 2), '--prompt-cache-ro'])
    assert.ok(second.reused_tokens > first.prompt_tokens, `${second.reused_tokens}`)
    const talk = [...greedy, '--chat', '--prompt-cache', at('talk.state')]
    json(talk, 'hello\nand then?\n')
    const before = fs.readFileSync(at('talk.state'))
    const [again] = json([...talk, '--prompt-cache-ro'], 'hello\n')
    assert.equal(again.reused_tokens, again.prompt_tokens - 1)
    assert.deepEqual(fs.readFileSync(at('talk.state')), before)
  })

  test('files that are none, cut, of another model or cache type are refused, and stay', () => {
    json([...greedy, ...prompt, '--prompt-cache', at('good.state')])
    const good = fs.readFileSync(at('good.state'))
    const damaged = Buffer.from(good)
    damaged[good.length >> 1] ^= 1
    /** @type {[string, Buffer | string, string[], RegExp][]} */
    const cases = [
      ['none.state', 'no state at all, but long enough to be looked at', [], /no saved session/],
      ['cut.state', good.subarray(0, good.length - 1), [], /ends too early/],
      ['damaged.state', damaged, [], /damaged/],
      ['f16.state', good, ['-ctk', 'f16', '-ctv', 'f16'], /another kv_type/],
      ['short.state', good, ['-c', '4'], /the context 4/],
    ]
    for (const [name, bytes, more, message] of cases) {
      const state = file(name, bytes)
      refuse(['run', tiny, ...prompt, '--prompt-cache', state, ...more], 1, message)
      assert.deepEqual(fs.readFileSync(state), Buffer.from(bytes))
    }
    refuse(['run', fixture('tiny-llama-q8_0.gguf'), ...prompt, '--prompt-cache', at('good.state')], 1, /another model/)
    refuse(['run', tiny, ...prompt, '--prompt-cache', path.join(folder, 'nowhere/x')], 1, /nowhere/)
  })
})

describe('embed', () => {
  const texts = ['The cat sat on the mat.', 'Interest rates rose again.', 'é 😀']
  const vectors = (/** @type {string} */ stdout) => stdout.trimEnd().split('\n').map(line => line.split(' ').map(Number))

  test('what embed() gives, by -p, a file or a pipe, as lines or JSON', async (t) => {
    const model = await loadFor(t, tiny)
    for (const pooling of /** @type {const} */ (['mean', 'last']))
      for (const normalize of [true, false]) {
        const how = ['--pooling', pooling, '--embd-normalize', normalize ? '2' : '-1']
        const expected = (await model.embed(texts, { pooling, normalize })).map(vector => [...vector])
        const args = ['embed', tiny, ...how]
        const lines = vectors(succeed([...args, ...texts.flatMap(text => ['-p', text])]).stdout)
        assert.deepEqual(lines.map(line => [...Float32Array.from(line)]), expected)
        const [answer] = json([...args, '-f', file('texts.txt', texts.join('\r\n'))])
        assert.deepEqual(answer.data.map((/** @type {any} */ one) => [...Float32Array.from(one.embedding)]), expected)
        assert.deepEqual(answer.data.map((/** @type {any} */ one) => one.index), [0, 1, 2])
        const counts = await Promise.all(texts.map(text => model.countTokens(text)))
        assert.equal(answer.usage.total_tokens, counts.reduce((sum, count) => sum + count))
        assert.deepEqual(vectors(succeed(args, `${texts.join('\n')}\n`).stdout), lines)
      }
  })

  test('what cannot be embedded', () => {
    assert.equal(nibl(['embed', tiny], { input: '' }).status, 1)
    refuse(['embed', tiny, '-c', '8', '-p', 'too long '.repeat(20)], 1, /a text: ./)
    refuse(['embed', path.join(folder, 'missing.gguf'), '-p', 'a'], 1, /No such file/)
  })
})

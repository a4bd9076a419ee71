/** 64-bit memory: only for what 32 bits do not hold, and the same results. A context of millions of tokens asks for it
 * without taking it: memory is only taken where it is written. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { compileBinary, instantiate } from '../../web/binaries.js'
import { chooseBinary, chooseLarger } from '../../web/features.js'
import { answer, fromRoot, loadFor, longContext, longLength, niblError, tinyBytes } from './support.js'

const [major] = process.versions.node.split('.').map(Number)
const with64 = major >= 24 ? test : () => {}
const without64 = major < 24 ? test : () => {}

without64('an engine without 64-bit memory says so, with what is needed', async (/** @type {any} */ t) => {
  const advice = niblError('OUT_OF_MEMORY', /needs \d{4} MB; 32-bit .* 4096 MB.*no 64-bit memory.*shorter contextLength/)
  await assert.rejects(loadFor(t, longContext, { contextLength: longLength }), advice)
})

with64('every binary with 64-bit memory gives the same logits', async (t) => {
  const small = await loadFor(t, tinyBytes)
  const expected = await answer(small, 'The quick brown fox', { maxTokens: 8 })
  for (const binary of /** @type {('simd128' | 'relaxed')[]} */ (['simd128', 'relaxed'])) {
    for (const options of [{ threads: 1 }, { threads: 2 }, { threads: 3, early: true }, { worker: false }]) {
      const model = await loadFor(t, longContext, { binary, contextLength: longLength, ...options })
      assert.equal(model.info.binary, `${binary}-memory64`)
      assert.equal(model.info.threads, options.threads ?? 1)
      assert.equal(model.info.contextLength, longLength)
      assert.match(model.info.why, /64-bit memory: the model needs \d{4} MB/)
      assert.equal(await answer(model, 'The quick brown fox', { maxTokens: 8 }), expected)
      assert.equal(model.stats.hash, small.stats.hash)
      model.close()
    }
  }
})

with64('64-bit memory is not taken where 32 bits do', async (t) => {
  const model = await loadFor(t, longContext, { contextLength: 4096 })
  assert.match(model.info.binary, /^relaxed(-threads)?$/)
  assert.doesNotMatch(model.info.why, /64/)
})

with64('more than engines allow for 64 bits is refused in words', async () => {
  const choice = chooseLarger(chooseBinary({ threads: 1 }), 2 ** 33)
  const compiled = await compileBinary(choice.binary)
  const size = { initial: 1 << 20, maximum: 2 ** 34 + 1, threads: 1 }
  await assert.rejects(instantiate(compiled, size), niblError('OUT_OF_MEMORY', /needs 16385 MB.*64-bit memory holds 16384 MB/))
})

/** JavaScript without comments, strings and regular expressions. @param {string} source */
const bare = (source) =>
  source.replace(/\/\*[^]*?\*\/|^\s*\/\/.*$|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`|(?<=[(!=,:] ?|=> ?|return )\/(?:[^/\\\n]|\\.)+\//gm, ' ')

/** Operators that cut a number to 32 bits, but between two literals. @param {string} source */
const cuts = (source) =>
  [...bare(source).matchAll(/(\S+)\s*(>>>|>>|<<|(?<![|])[|](?![|])|(?<!&)&(?!&)|\^|~)(?!>)=?\s*(\S*)/g)]
    .filter(([, left, operator, right]) => !(operator === '<<' && /^\(?\d+$/.test(left) && /^\d/.test(right)))
    .map(([text]) => text)

test('no size or offset in web/ is cut to 32 bits', () => {
  const files = readdirSync(fromRoot('web')).filter((name) => name.endsWith('.js') && name !== 'sha256.js') /* words of 32 bits are what it is about */
  assert.ok(files.length > 15)
  for (const name of files) assert.deepEqual(cuts(readFileSync(fromRoot(`web/${name}`), 'utf8')), [], name)
  for (const wrong of ['a | 0', 'x(a) >> 0', 'a >>> 0', '~~a', 'a |= 0', 'a >>= 1', '1 << a', 'a << 20', 'a & b', 'a ^ 1', 'f(a)|0'])
    assert.equal(cuts(wrong).length, 1, wrong)
  for (const right of ['1 << 20', 'const A = 512 << 10', 'a || b', 'a && b', 'a ||= b', "'a | b'", '/* a | 0 */', '(a) => b > c'])
    assert.deepEqual(cuts(right), [], right)
})

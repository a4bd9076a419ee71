/** Which binary is chosen, and whether the probe of the relaxed dot product knows the right answer. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { test } from 'node:test'
import { chooseBinary, knownBad } from '../../web/features.js'
import { answer, fromRoot, loadFor, niblError, tinyPath } from './support.js'

const bad = knownBad(process.versions.v8) !== ''

test('versions known to be bad', () => {
  assert.match(knownBad('11.3.244.8-node.38'), /V8 11\.3/)
  assert.equal(knownBad('11.4.1'), '')
  assert.equal(knownBad('13.6.233.10-node.28'), '')
  assert.match(knownBad(undefined, 'Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/112.0.0.0 Safari/537.36'), /V8 11\.2/)
  assert.equal(knownBad(undefined, 'Mozilla/5.0 (X11) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36'), '')
  assert.equal(knownBad(undefined, 'Mozilla/5.0 (X11; rv:128.0) Gecko/20100101 Firefox/128.0'), '')
})

test('the choice says why', () => {
  const choice = chooseBinary({})
  assert.equal(choice.simd, bad ? 'simd128' : 'relaxed')
  assert.equal(choice.threads > 1, availableParallelism() > 1)
  assert.equal(choice.binary, choice.simd + (choice.threads > 1 ? '-threads' : ''))
  assert.match(choice.why, bad ? /no relaxed SIMD: / : /validated and self-tested/)
  assert.equal(chooseBinary({ binary: 'simd128', threads: 3 }).binary, 'simd128-threads')
  assert.deepEqual(chooseBinary({ threads: 3, inProcess: true }).threads, 1)
  if (bad) assert.throws(() => chooseBinary({ binary: 'relaxed' }), niblError('UNSUPPORTED_ENGINE', /relaxed/))
})

/** The instruction as its specification defines it, for operands where all engines must agree.
 * @param {Int32Array} a @param {Int32Array} b @param {Int32Array} c */
function dot(a, b, c) {
  const [x, y] = [new Int8Array(a.buffer), new Int8Array(b.buffer)]
  assert.ok(y.every((value) => value >= 0), 'the second operand has 7 bits')
  return c.map((sum, lane) => {
    for (let k = 4 * lane; k < 4 * lane + 4; k++) sum += x[k] * y[k]
    return sum
  })
}

test('the probe expects what the instruction means', () => {
  const source = readFileSync(fromRoot('web/features.js'), 'utf8')
  const constants = [...source.matchAll(/v128\.const i8x16 ([-\d ]+)\)/g)].map(([, list]) => list.split(' ').map(Number))
  const expected = [...source.matchAll(/^ {2}\[(\d+), (-?\d+)\],$/gm)].map(([, n, sum]) => [Number(n), Number(sum)])
  assert.equal(constants.length, 2)
  assert.equal(expected.length, 3)
  for (const [n, sum] of expected) {
    let acc = new Int32Array(4)
    for (let turn = 0; turn < n; turn++) {
      let [x, y] = constants.map((list) => new Int32Array(Int8Array.from(list).buffer))
      acc = dot(x, y, acc)
      acc = dot(acc, y, acc)
      x = dot(x, y, x)
      acc = acc.map((value, lane) => value + x[lane])
      y = dot(x, y, y)
      acc = acc.map((value, lane) => value ^ y[lane])
    }
    assert.equal(acc.reduce((a, b) => (a + b) | 0), sum)
  }
})

test('all binaries give the same logits, and the one asked for runs', async (t) => {
  const hashes = new Set()
  /** @type {('simd128' | 'relaxed')[]} */
  const binaries = bad ? ['simd128'] : ['simd128', 'relaxed']
  for (const binary of binaries) {
    for (const threads of [1, 2]) {
      const model = await loadFor(t, tinyPath, { binary, threads })
      assert.equal(model.info.binary, binary + (threads > 1 ? '-threads' : ''))
      assert.equal(model.info.threads, threads)
      await answer(model, 'The quick brown fox', { maxTokens: 8 })
      hashes.add(model.stats.hash)
    }
  }
  assert.equal(hashes.size, 1)
})

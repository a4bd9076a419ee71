import assert from 'node:assert/strict'
import { test } from 'node:test'
import { StopMatcher } from '../../web/stop.js'

/** @param {string[]} stops @param {string[]} pieces */
function run(stops, pieces) {
  const matcher = new StopMatcher(stops)
  let out = ''
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece)
    out += text
    if (stopped) return [out, true]
  }
  return [out + matcher.end(), false]
}

test('stop strings are found wherever pieces begin and end', () => {
  const cases = /** @type {[string[], string, string, boolean][]} */ ([
    [['###'], 'abc###def', 'abc', true],
    [['###'], 'abc##def', 'abc##def', false],
    [['###'], '####', '', true],
    [['aab'], 'aaab', 'a', true],
    [['abab', 'bc'], 'xababc', 'x', true],
    [['abab', 'bc'], 'xabac', 'xabac', false],
    [['end', 'en'], 'the end', 'the ', true],
    [['\n\n'], 'a\nb\n', 'a\nb\n', false],
    [['🎉'], 'a🎉b', 'a', true],
    [[], 'abc', 'abc', false],
  ])
  for (const [stops, text, expected, stopped] of cases) {
    for (let size = 1; size <= text.length; size++) {
      const pieces = text.match(new RegExp(`.{1,${size}}`, 'gs')) ?? []
      assert.deepEqual(run(stops, pieces), [expected, stopped], `${stops} in pieces of ${size}`)
    }
  }
})

test('only what may become a stop string is held back', () => {
  const matcher = new StopMatcher(['###', 'stop'])
  assert.deepEqual(matcher.push('one #'), { text: 'one ', stopped: false })
  assert.deepEqual(matcher.push('two'), { text: '#two', stopped: false })
  assert.deepEqual(matcher.push(' st'), { text: ' ', stopped: false })
  assert.equal(matcher.end(), 'st')
  assert.equal(matcher.end(), '')
})

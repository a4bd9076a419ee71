/** Some of the public JSON-Schema-Test-Suite's schemas: every answer is valid (all of them: tests/bench/schemas.js). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { checkSchemas } from './bench/schemas.js'

test('answers are valid JSON for their schemas', async () => {
  const { taken, replies, failures } = await checkSchemas({ count: 20, seeds: 2 })
  assert.deepEqual(failures, [])
  assert.deepEqual([taken, replies], [20, 40])
})

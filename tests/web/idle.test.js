/** Between answers nothing runs: workers that wait for work are asleep. */
import { test } from 'node:test'
import { answer, loadFor, sleepsSoon, tinyPath } from './support.js'

test('after an answer no thread takes processor time', async (t) => {
  const model = await loadFor(t, tinyPath, { threads: 3 })
  await answer(model, 'The quick brown fox', { maxTokens: 8 })
  await sleepsSoon(() => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1e6
  })
})

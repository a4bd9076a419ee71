/** Generating while the weights arrive, and each byte of the file only once. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { load } from 'nibl'
import { faultyServer } from './faulty-server.js'
import { answer, loadFor, modelPath, niblError, tinyBytes, tinyPath } from './support.js'

const prompt = 'The quick brown fox'

test('a slow server with ranges: layers come in the order of need, once', async (t) => {
  const bytes = readFileSync(modelPath)
  const server = await faultyServer(bytes, { rate: 60e6 })
  t.after(() => server.close())
  const whole = await loadFor(t, modelPath)
  const expected = await answer(whole, prompt, { maxTokens: 5 })

  const model = await loadFor(t, server.url, { early: true })
  assert.ok(server.sent < bytes.length, 'the model is there before its weights')
  let ready = false
  model.ready.then(() => (ready = true))
  const pending = answer(model, prompt, { maxTokens: 5 })
  assert.equal((await model.tokenize(prompt)).length, (await whole.tokenize(prompt)).length)
  assert.equal(ready, false)
  assert.equal(await pending, expected)
  assert.equal(model.stats.hash, whole.stats.hash)
  await model.ready
  assert.equal(model.stats.load.bytes, bytes.length)
  assert.ok(server.sent <= bytes.length * 1.001, `${server.sent} bytes were sent for ${bytes.length}`)

  /* In this file block 10 stands before block 2: the second needed is not the second stored. */
  const starts = server.ranges.map((range) => Number(/\d+/.exec(range)?.[0]))
  assert.ok(starts.length > 5 && starts.some((start, index) => index > 0 && start < starts[index - 1]))
})

test('a server without ranges: one request, file order', async (t) => {
  const server = await faultyServer(tinyBytes, { ranges: false, rate: 500e3 })
  t.after(() => server.close())
  const whole = await loadFor(t, tinyPath)
  const expected = await answer(whole, prompt, { maxTokens: 5 })
  const model = await loadFor(t, server.url, { early: true })
  assert.equal(await answer(model, prompt, { maxTokens: 5 }), expected)
  assert.equal(model.stats.hash, whole.stats.hash)
  assert.equal(server.sent, tinyBytes.length)
  assert.equal(server.ranges.length, 1)
})

test('early from files and streams', async (t) => {
  const whole = await loadFor(t, tinyPath)
  await answer(whole, prompt, { maxTokens: 5 })
  const sources = [() => tinyPath, () => new Blob([tinyBytes]), () => new Response(tinyBytes), () => tinyBytes]
  for (const source of sources) {
    for (const worker of [true, false]) {
      const model = await load(source(), { early: true, worker })
      await answer(model, prompt, { maxTokens: 5 })
      assert.equal(model.stats.hash, whole.stats.hash)
      await model.ready
      model.close()
    }
  }
})

test('an early load that breaks tells everybody who waits', async (t) => {
  const server = await faultyServer(tinyBytes, { cutAt: 0.9, rate: 2e6 })
  t.after(() => server.close())
  const model = await loadFor(t, server.url, { early: true })
  const lost = niblError('DOWNLOAD_FAILED', /lost/)
  await Promise.all([
    assert.rejects(model.ready, lost),
    assert.rejects(answer(model, prompt), lost),
    assert.rejects(answer(model, prompt), lost),
  ])
  await assert.rejects(answer(model, prompt), lost)
})

test('a file that changes between two ranges is refused', async (t) => {
  let count = 0
  const faults = { rate: 2e6, headers: { get ETag() { return `"${count++}"` } } }
  const server = await faultyServer(readFileSync(modelPath), faults)
  t.after(() => server.close())
  const loading = load(server.url, { early: true }).then((model) => model.ready.finally(() => model.close()))
  await assert.rejects(loading, niblError('DOWNLOAD_FAILED', /changed/))
})

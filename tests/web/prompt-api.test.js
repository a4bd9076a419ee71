/** The shape of the browsers' LanguageModel. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { promptApi } from 'nibl/prompt-api'
import { answer, isAbort, loadFor, modelPath } from './support.js'

test('sessions: create, prompt, stream, append, clone, destroy', async (t) => {
  const LanguageModel = promptApi(modelPath, { contextLength: 256 })
  t.after(() => LanguageModel.close())
  assert.equal(await LanguageModel.availability(), 'downloadable')
  /** @type {number[]} */
  const progress = []
  const initialPrompts = [{ role: /** @type {const} */ ('system'), content: 'Be brief.' }]
  const monitor = (/** @type {EventTarget} */ target) => target.addEventListener('downloadprogress', (event) => progress.push(/** @type {any} */ (event).loaded))
  const session = await LanguageModel.create({ initialPrompts, temperature: 0, monitor })
  assert.equal(await LanguageModel.availability(), 'available')
  assert.deepEqual([progress[0], progress[progress.length - 1]], [0, 1])
  assert.deepEqual([...progress].sort((a, b) => a - b), progress)

  const model = await loadFor(t, modelPath, { contextLength: 256 })
  const question = { role: 'user', content: 'Name a river.' }
  const expected = await answer(model, [...initialPrompts, question])
  const twin = await session.clone()
  assert.equal(await session.prompt('Name a river.'), expected)
  assert.ok(session.contextUsage > 0 && session.contextWindow === 256)
  let text = ''
  for await (const piece of /** @type {any} */ (twin.promptStreaming([{ role: 'user', content: [{ type: 'text', value: 'Name a river.' }] }]))) text += piece
  assert.equal(text, expected)

  const next = await answer(model, [...initialPrompts, question, { role: 'assistant', content: expected }, { role: 'user', content: 'Another?' }])
  await session.append([])
  assert.equal(await session.prompt('Another?'), next)
  assert.ok((await session.measureContextUsage('Hello there')) > 2)

  assert.deepEqual(Object.keys(JSON.parse(await twin.prompt('A person', { responseConstraint: { type: 'object', properties: { age: { type: 'integer' } }, required: ['age'] } }))), ['age'])
  assert.match(await twin.prompt('Yes or no?', { responseConstraint: /^(yes|no)$/ }), /^(yes|no)$/)
  await assert.rejects(twin.prompt([/** @type {any} */ ({ role: 'user', content: [{ type: 'image', value: 0 }] })]), { name: 'NotSupportedError' })

  const stop = new AbortController()
  const stopped = session.prompt('Write a long story.', { signal: stop.signal })
  stop.abort()
  await assert.rejects(stopped, isAbort)
  twin.destroy()
  await assert.rejects(twin.prompt('Hello'), { name: 'InvalidStateError' })
})

test('a conversation that outgrows the context loses its oldest turns, not its beginning', async (t) => {
  const LanguageModel = promptApi(modelPath, { contextLength: 160 })
  t.after(() => LanguageModel.close())
  const session = await LanguageModel.create({ initialPrompts: [{ role: 'system', content: 'Be brief.' }], temperature: 0 })
  let overflows = 0
  session.oncontextoverflow = () => overflows++
  for (let turn = 0; turn < 4; turn++) await session.prompt('Say one word. '.repeat(6), { responseConstraint: { type: 'string', maxLength: 8 } })
  assert.ok(overflows > 0)
  assert.ok(session.contextUsage <= 160)
  await assert.rejects(session.prompt('word '.repeat(300)), { name: 'QuotaExceededError' })
})

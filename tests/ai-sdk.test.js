/** The package `ai` with a model of ours. */
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { languageModel } from 'nibl/ai-sdk'
import { folder } from '../wasm/setup.js'
import { answer, loadFor, modelPath } from './web/support.js'

const require = createRequire(join(folder('packagetools'), 'package.json'))
const { generateText, streamText, Output, jsonSchema, tool } = await import(pathToFileURL(require.resolve('ai')).href)

const schema = jsonSchema({ type: 'object', properties: { city: { type: 'string', maxLength: 20 }, unit: { enum: ['C', 'F'] } }, required: ['city', 'unit'], additionalProperties: false })

/** @param {any} stream @returns {Promise<any[]>} */
async function partsOf({ fullStream }) {
  const parts = []
  for await (const part of fullStream) parts.push(part)
  return parts
}

/** What kinds of parts come, those in a row once. @param {any[]} parts */
const kindsOf = (parts) => parts.map(({ type }) => type).filter((type, i, all) => /^tool|^text/.test(type) && type !== all[i - 1])

const callKinds = ['tool-input-start', 'tool-input-delta', 'tool-input-end', 'tool-call']
const textKinds = ['text-start', 'text-delta', 'text-end']

test('text, streams, objects and tools', async (t) => {
  const loaded = await loadFor(t, modelPath)
  const model = languageModel(loaded)
  const prompt = 'Name three rivers.'
  const expected = await answer(loaded, [{ role: 'user', content: prompt }], { maxTokens: 16 })
  const whole = await generateText({ model, prompt, maxOutputTokens: 16 })
  assert.equal(whole.text, expected)
  assert.equal(whole.finishReason, 'length')
  assert.equal(whole.usage.outputTokens, 16)

  let text = ''
  for await (const piece of streamText({ model, prompt, maxOutputTokens: 16 }).textStream) text += piece
  assert.equal(text, expected)

  const { output } = await generateText({ model, prompt: 'The weather of Oslo', maxOutputTokens: 60, output: Output.object({ schema }) })
  assert.ok(typeof output.city === 'string' && ['C', 'F'].includes(output.unit))

  const tools = { weather: tool({ description: 'Weather of a city', inputSchema: schema }) }
  const called = await generateText({ model, prompt: 'What is the weather in Oslo?', maxOutputTokens: 80, tools, toolChoice: 'required' })
  assert.equal(called.finishReason, 'tool-calls')
  assert.equal(called.toolCalls[0].toolName, 'weather')
  assert.ok(['C', 'F'].includes(called.toolCalls[0].input.unit))

  const stream = streamText({ model, prompt: 'What is the weather in Oslo?', maxOutputTokens: 80, tools, toolChoice: 'required', temperature: 0 })
  const parts = await partsOf(stream)
  const input = parts.filter(({ type }) => type === 'tool-input-delta').map(({ delta }) => delta)
  assert.ok(input.length > 3, `${input.length} pieces`)
  const [call, ...others] = await stream.toolCalls
  assert.deepEqual(others, [])
  assert.deepEqual({ ...call.input }, JSON.parse(input.join('')))
  assert.ok(['C', 'F'].includes(call.input.unit))
  assert.equal(await stream.finishReason, 'tool-calls')
  assert.deepEqual(kindsOf(parts), callKinds)
})

/** A model that answers with this text, in pieces. @param {string} text @returns {any} */
const saying = (text) => ({
  info: { chatTemplate: 'tools' },
  stats: { prefill: { tokens: 1 }, finish: 'end' },
  async *generate() {
    for (let at = 0; at < text.length; at += 3) yield { text: text.slice(at, at + 3) }
  },
})

test('a stream of text and calls: in pieces, in order, and no call that was cut off', async () => {
  const tools = { weather: tool({ inputSchema: schema }) }
  const call = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo", "unit": "C"}}</tool_call>'
  const parts = (/** @type {string} */ text) => partsOf(streamText({ model: languageModel(saying(text)), prompt: 'x', tools }))
  assert.deepEqual(kindsOf(await parts(`Let me see. ${call}\n${call}`)), [...textKinds, ...callKinds, ...callKinds])
  assert.deepEqual(kindsOf(await parts('Just < a text.')), textKinds)
  assert.deepEqual(kindsOf(await parts(call.slice(0, 60))), callKinds.slice(0, 3))
  const all = await parts(`Let me see. ${call}`)
  const said = all.filter(({ type }) => type === 'text-delta').map(({ text }) => text)
  assert.ok(said.length > 2)
  assert.equal(said.join(''), 'Let me see.')
  const id = all.find(({ type }) => type === 'tool-input-start')?.id
  assert.deepEqual(all.filter(({ type }) => type === 'tool-call').map(({ toolCallId, input }) => [toolCallId, input]), [[id, { city: 'Oslo', unit: 'C' }]])
})

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
})

/** Answers of a form: JSON Schema, grammars, JSON, tools; as options of generate() and as OpenAI's clients ask for them. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import OpenAI from 'openai'
import { openai } from 'nibl/openai'
import { CallReader, readCalls } from '../../web/calls.js'
import { answer, loadFor, modelPath, niblError, tinyPath } from './support.js'

const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    tags: { type: 'array', items: { enum: ['red', 'green', 'blue'] }, minItems: 1, maxItems: 3 },
  },
  required: ['name', 'age', 'tags'],
  additionalProperties: false,
}

/** @param {any} value */
function assertValid(value) {
  assert.deepEqual(Object.keys(value), ['name', 'age', 'tags'])
  assert.ok(typeof value.name === 'string' && [...value.name].length <= 12)
  assert.ok(Number.isInteger(value.age) && value.age >= 0 && value.age <= 120)
  assert.ok(value.tags.length >= 1 && value.tags.length <= 3 && value.tags.every((/** @type {string} */ tag) => ['red', 'green', 'blue'].includes(tag)))
}

test('a schema is obeyed by a model without sense, at any temperature and number of tokens', async (t) => {
  const model = await loadFor(t, tinyPath)
  for (let seed = 0; seed < 12; seed++) {
    assertValid(JSON.parse(await answer(model, 'Hello', { schema, temperature: seed / 4, seed, maxTokens: 60 + seed })))
    assert.equal(model.stats.finish, 'end')
    assertValid(JSON.parse(await answer(model, 'Hello', { schema, temperature: 2, topK: 1 + seed, minP: 0.01, repeatPenalty: 1.3, seed, maxTokens: 200 })))
  }
  await assert.rejects(answer(model, 'Hello', { schema, maxTokens: 5 }), niblError('BAD_GRAMMAR', /5 are allowed/))
  assert.ok(await answer(model, 'Hello', { maxTokens: 5 }))
})

test('the default model: a schema, guesses or none, several at a time, a full context', async (t) => {
  const model = await loadFor(t, modelPath, { sessions: 3 })
  const messages = [{ role: 'user', content: 'Describe a person as JSON.' }]
  const alone = await answer(model, messages, { schema })
  assertValid(JSON.parse(alone))
  assert.equal(await answer(model, messages, { schema, speculate: false }), alone)
  const both = await Promise.all([1, 2, 3].map((seed) => answer(model, messages, { schema, temperature: 1, seed })))
  both.forEach((text) => assertValid(JSON.parse(text)))
  assert.equal(await answer(model, messages, { schema, temperature: 1, seed: 2 }), both[1])
  const small = await loadFor(t, modelPath, { contextLength: 120 })
  JSON.parse(await answer(small, messages, { json: true, temperature: 1.5, seed: 1 }))
})

test('a grammar in GBNF, any JSON object', async (t) => {
  const model = await loadFor(t, tinyPath)
  assert.match(await answer(model, 'Hello', { grammar: 'root ::= "yes" | "no"', temperature: 3 }), /^(yes|no)$/)
  assert.match(await answer(model, 'Hello', { grammar: 'root ::= [0-9]{3} ("-" [a-f]+)?', temperature: 1, maxTokens: 9 }), /^[0-9]{3}(-[a-f]+)?$/)
  for (let seed = 0; seed < 5; seed++) {
    const value = JSON.parse(await answer(model, 'Hello', { json: true, temperature: 1, seed, maxTokens: 50 }))
    assert.ok(typeof value === 'object' && !Array.isArray(value))
  }
})

test('what is not supported is refused by name and place', async (t) => {
  const model = await loadFor(t, tinyPath)
  const refused = (/** @type {any} */ options, /** @type {RegExp} */ message, code = 'BAD_GRAMMAR') => assert.rejects(async () => answer(model, 'Hello', options), niblError(code, message))
  await refused({ schema: { properties: { a: { not: {} } } } }, /#\/properties\/a\/not/)
  await refused({ grammar: 'root ::= x' }, /no rule 'x'/)
  await refused({ json: true, schema: {} }, /Only one/, 'BAD_ARGUMENT')
  await refused({ schema: 'x' }, /"schema" must/, 'BAD_ARGUMENT')
  const loop = /** @type {any} */ ({})
  loop.properties = loop
  await refused({ schema: loop }, /is no JSON/, 'BAD_ARGUMENT')
})

const weather = /** @type {const} */ ({
  type: 'function',
  function: {
    name: 'get_weather',
    description: 'Current weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 20 }, unit: { $ref: '#/$defs/unit' } }, required: ['city', 'unit'], $defs: { unit: { enum: ['C', 'F'] } } },
  },
})
const clock = /** @type {const} */ ({ type: 'function', function: { name: 'get_time' } })

test('OpenAI: response_format and tools, whole and streamed', async (t) => {
  const model = await loadFor(t, modelPath)
  const client = new OpenAI({ baseURL: 'http://nibl/v1', apiKey: 'none', maxRetries: 0, fetch: openai({ smol: model }).fetch })
  const messages = /** @type {any} */ ([{ role: 'user', content: 'What is the weather in Oslo?' }])
  const base = { model: 'smol', temperature: 0, max_tokens: 100, messages }
  const formed = await client.chat.completions.create({ ...base, response_format: { type: 'json_schema', json_schema: { name: 'person', schema, strict: true } } })
  assertValid(JSON.parse(formed.choices[0].message.content ?? ''))
  assert.equal(formed.choices[0].finish_reason, 'stop')
  const object = await client.chat.completions.create({ ...base, response_format: { type: 'json_object' } })
  assert.equal(typeof JSON.parse(object.choices[0].message.content ?? ''), 'object')

  const called = await client.chat.completions.create({ ...base, tools: [weather, clock], tool_choice: { type: 'function', function: { name: 'get_weather' } } })
  const [call] = called.choices[0].message.tool_calls ?? []
  assert.ok(call?.type === 'function' && call.function.name === 'get_weather' && call.id)
  const { city, unit } = JSON.parse(call.function.arguments)
  assert.ok(typeof city === 'string' && ['C', 'F'].includes(unit))
  assert.equal(called.choices[0].message.content, null)

  let pieces = 0
  let streamed = ''
  const begun = []
  for await (const { choices } of await client.chat.completions.create({ ...base, stream: true, tools: [weather, clock], tool_choice: { type: 'function', function: { name: 'get_weather' } } })) {
    for (const { index, id, function: part } of choices[0].delta.tool_calls ?? []) {
      assert.equal(index, 0)
      if (part?.name) begun.push([part.name, typeof id, streamed])
      streamed += part?.arguments ?? ''
      pieces += part?.arguments ? 1 : 0
    }
  }
  assert.deepEqual(begun, [['get_weather', 'string', '']])
  assert.deepEqual(JSON.parse(streamed), { city, unit })
  assert.ok(pieces > 3, `${pieces}`)

  const runner = client.chat.completions.stream({ ...base, tools: [weather, clock], tool_choice: 'required' })
  const { choices } = await runner.finalChatCompletion()
  assert.equal(choices[0].finish_reason, 'tool_calls')
  assert.ok(['get_weather', 'get_time'].includes(/** @type {any} */ (choices[0].message.tool_calls?.[0]).function.name))

  const result = { role: 'tool', tool_call_id: call.id, content: '12 degrees' }
  const followed = await client.chat.completions.create({ ...base, max_tokens: 20, messages: [...messages, called.choices[0].message, result], tools: [weather] })
  assert.ok(followed.choices[0].message.content)
  await assert.rejects(client.chat.completions.create({ ...base, tool_choice: 'required' }), /no tools/)
  await assert.rejects(client.chat.completions.create({ ...base, response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } } }), /#\/not/)
})

test('calls as models write them', () => {
  const tools = [weather, clock]
  const one = { name: 'get_weather', arguments: '{"city":"Oslo"}' }
  /** @type {[string, string | null, { name: string, arguments: string }[]][]} */
  const cases = [
    ['<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>', null, [one]],
    ['Let me see. <tool_call>{"name":"get_time"}</tool_call><tool_call>{"name":"get_weather","arguments":{"city":"Oslo"}}</tool_call>', 'Let me see.', [{ name: 'get_time', arguments: '{}' }, one]],
    ['[TOOL_CALLS] [{"name":"get_weather","arguments":{"city":"Oslo"}}]', null, [one]],
    ['{"name":"get_weather","parameters":{"city":"Oslo"}}', null, [one]],
    ['<|python_tag|>{"name":"get_weather","parameters":{"city":"Oslo"}}', null, [one]],
    ['{"name":"other","arguments":{}}', '{"name":"other","arguments":{}}', []],
    ['<tool_call>{"name": broken</tool_call>', '<tool_call>{"name": broken</tool_call>', []],
    ['It is 12 degrees.', 'It is 12 degrees.', []],
  ]
  for (const [text, content, calls] of cases) assert.deepEqual(readCalls(text, tools), { content, calls }, text)
})

test('calls that come in pieces, cut anywhere, are those of the whole text', () => {
  const tools = [weather, clock]
  const nested = '{"city": "a } \\" ] <tool_call> é", "unit": {"x": [1, {"y": "]"}]}}'
  const texts = [
    `Let me see. <tool_call>\n{"name": "get_weather", "arguments": ${nested}}\n</tool_call>\n<tool_call>{"name":"get_time"}</tool_call>`,
    `<tool_call>{"arguments": ${nested}, "name": "get_weather"}</tool_call> and so on`,
    `[TOOL_CALLS] [{"name":"get_weather","arguments":${nested}}, {"name":"get_time","arguments":{}}]`,
    ` <|python_tag|>{"name":"get_weather","parameters":${nested}}`,
    `[{"name":"get_time","arguments":null},{"name":"get_weather","arguments":${JSON.stringify(nested)}}]`,
    '{"name":"other","arguments":{}}', '[1, 2]', '{"a": 1}', ' It is < 12 degrees. <tool_cal', '<tool_call>{"name": broken</tool_call> x', '<tool_call>', '{', '',
  ]
  for (const text of texts) {
    const { content, calls } = readCalls(text, tools)
    for (let size = 1; size < 9; size++) {
      const reader = new CallReader(tools)
      const pieces = Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size))
      const parts = [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()]
      const told = calls.map((_, call) => {
        const [name, ...rest] = parts.filter((part) => 'call' in part && part.call === call).map((part) => ('name' in part ? part.name : 'arguments' in part ? part.arguments : ''))
        return { name, arguments: JSON.stringify(JSON.parse(rest.join(''))) }
      })
      assert.deepEqual(told, calls, text)
      assert.equal(reader.count, calls.length)
      const said = parts.map((part) => ('text' in part ? part.text : '')).join('')
      assert.equal(calls.length ? said.trim() || null : said, content, text)
    }
  }
  /* Every character is read once: with all of it read anew at each piece this would take minutes. */
  const long = new CallReader(tools)
  long.push('{"name":"get_weather","arguments":{"city":"')
  let told = 0
  for (let i = 0; i < 200000; i++) for (const part of long.push('ab')) told += 'arguments' in part ? part.arguments.length : 0
  assert.deepEqual([told, long.push('"}}')], [400000, [{ call: 0, arguments: '"}' }]])
  const cut = new CallReader(tools)
  const parts = [...cut.push('{"name":"get_weather","arguments":{"city":"Os'), ...cut.end()]
  assert.deepEqual(parts, [{ call: 0, name: 'get_weather' }, { call: 0, arguments: '{"city":"Os' }])
  assert.ok(cut.open)
})

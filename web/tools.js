/** Tools in OpenAI's shape: how a model is told of them, and is made to call one. How its calls are read: calls.js. */

/** @typedef {{ type: 'function', function: { name: string, description?: string, parameters?: any } }} Tool */

/** The schema of an answer that is a call of one of the tools. @param {Tool[]} tools */
export function callSchema(tools) {
  const calls = tools.map(({ function: { name, parameters = { type: 'object' } } }, index) => ({
    type: 'object',
    properties: { name: { const: name }, arguments: { $ref: `#/$defs/${index}` } },
    required: ['name', 'arguments'],
    additionalProperties: false,
    parameters,
  }))
  const anyOf = calls.map(({ parameters, ...call }) => call)
  return { anyOf, $defs: Object.fromEntries(calls.map(({ parameters }, index) => [index, rebased(parameters, `#/$defs/${index}`)])) }
}

/** A schema that has moved: what it points to in itself is elsewhere now. @param {any} schema @param {string} place @returns {any} */
function rebased(schema, place) {
  if (Array.isArray(schema)) return schema.map((part) => rebased(part, place))
  if (typeof schema !== 'object' || schema === null) return schema
  const moved = Object.entries(schema).map(([key, value]) => {
    const points = key === '$ref' && typeof value === 'string' && value.startsWith('#')
    return [key, points ? place + value.slice(1) : rebased(value, place)]
  })
  return Object.fromEntries(moved)
}

const howToCall =
  'You can call these functions:\n%\nTo call one, answer with nothing but <tool_call>{"name": its name, "arguments": an object}</tool_call>.'

/** Messages for a template that knows no tools: they are described in the system message, calls and results are text.
 * @param {any[]} messages @param {Tool[]} tools */
function plainMessages(messages, tools) {
  const told = howToCall.replace('%', () => tools.map((tool) => JSON.stringify(tool.function)).join('\n'))
  const [first, ...others] = messages
  const system = first?.role === 'system' ? `${first.content}\n\n${told}` : told
  return [{ role: 'system', content: system }, ...(first?.role === 'system' ? others : messages)].map((message) => {
    if (message.role === 'tool') return { role: 'user', content: `<tool_response>${message.content}</tool_response>` }
    if (!message.tool_calls) return message
    const calls = message.tool_calls.map((/** @type {any} */ { function: call }) => `<tool_call>${JSON.stringify(call)}</tool_call>`)
    return { role: message.role, content: [message.content, ...calls].filter(Boolean).join('\n') }
  })
}

/** What generate() is given. @param {string | null} template @param {any[]} messages @param {Tool[]} tools */
export function withTools(template, messages, tools) {
  /* Templates take arguments as an object. */
  const parsed = messages.map((message) => {
    if (!message.tool_calls) return message
    const tool_calls = message.tool_calls.map((/** @type {any} */ call) => ({ ...call, function: { ...call.function, arguments: argumentsOf(call) } }))
    return { ...message, tool_calls }
  })
  const knows = /\btools\b/.test(template ?? '')
  const used = tools.length > 0 || messages.some((message) => message.tool_calls || message.role === 'tool')
  if (knows || !used) return { messages: parsed, tools }
  return { messages: tools.length ? plainMessages(parsed, tools) : plainMessages(parsed, []).slice(messages[0]?.role === 'system' ? 0 : 1), tools: [] }
}

/** @param {any} call */
function argumentsOf({ function: { arguments: text } }) {
  try {
    return typeof text === 'string' ? JSON.parse(text) : text
  } catch {
    return text
  }
}

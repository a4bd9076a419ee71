/** A loaded model as a language model of the AI SDK (provider specification v4). Types and manual: ai-sdk.d.ts. */
import { CallReader, readCalls } from './calls.js'
import { callSchema, withTools } from './tools.js'

/** @typedef {import('./nibl.d.ts').Model} Model */

/** @param {any} output of a tool */
function outputText({ type, value, reason }) {
  if (type === 'text' || type === 'error-text') return value
  if (type === 'execution-denied') return `The call was denied${reason ? `: ${reason}` : ''}.`
  return JSON.stringify(value)
}

/** @param {any[]} parts */
function textOf(parts) {
  return parts
    .map((part) => {
      if (part.type === 'text' || part.type === 'reasoning') return part.type === 'text' ? part.text : ''
      throw new TypeError(`This model reads text alone; the prompt has a part of type '${part.type}'.`)
    })
    .join('')
}

/** A message of the SDK as those of a chat template; a tool's message may hold several results. @param {any} message @returns {any[]} */
function messagesOf({ role, content }) {
  if (typeof content === 'string') return [{ role, content }]
  if (role === 'tool') {
    const results = content.filter((/** @type {any} */ part) => part.type === 'tool-result')
    return results.map((/** @type {any} */ { toolCallId, toolName, output }) => ({ role, tool_call_id: toolCallId, name: toolName, content: outputText(output) }))
  }
  const isCall = (/** @type {any} */ part) => part.type === 'tool-call'
  const tool_calls = content.filter(isCall).map((/** @type {any} */ { toolCallId, toolName, input }) => ({
    id: toolCallId,
    type: 'function',
    function: { name: toolName, arguments: typeof input === 'string' ? input : JSON.stringify(input) },
  }))
  const text = textOf(content.filter((/** @type {any} */ part) => !isCall(part)))
  return [{ role, content: text, ...(tool_calls.length && { tool_calls }) }]
}

/** @param {any} options of doGenerate and doStream */
function requestOf({ prompt, maxOutputTokens, temperature, topP, topK, stopSequences, seed, responseFormat, tools = [], toolChoice, abortSignal, ...others }) {
  const ignored = ['presencePenalty', 'frequencyPenalty'].filter((name) => others[name])
  const warnings = ignored.map((feature) => ({ type: 'unsupported', feature }))
  const given = toolChoice?.type === 'none' ? [] : tools
  const known = given
    .filter((/** @type {any} */ tool) => tool.type === 'function' && (toolChoice?.type !== 'tool' || tool.name === toolChoice.toolName))
    .map((/** @type {any} */ { name, description, inputSchema }) => ({ type: 'function', function: { name, description, parameters: inputSchema } }))
  for (const { type, name } of given) if (type !== 'function') warnings.push(/** @type {any} */ ({ type: 'unsupported', feature: `tool ${name}` }))
  const forced = ['required', 'tool'].includes(toolChoice?.type)
  const schema = forced ? callSchema(known) : responseFormat?.type === 'json' ? (responseFormat.schema ?? { type: 'object' }) : undefined
  const options = { maxTokens: maxOutputTokens, temperature, topP, topK, stop: stopSequences, seed, schema, signal: abortSignal }
  const set = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  return { messages: prompt.flatMap(messagesOf), tools: known, options: set, warnings }
}

/** @param {import('./nibl.d.ts').Stats} stats @param {string[]} pieces @param {boolean} called */
function endOf({ prefill, finish }, pieces, called) {
  const cacheRead = prefill.reused ?? 0
  const reason = called ? 'tool-calls' : finish === 'length' ? 'length' : finish === 'abort' ? 'other' : 'stop'
  return {
    finishReason: { unified: reason, raw: finish },
    usage: {
      inputTokens: { total: prefill.tokens + cacheRead, noCache: prefill.tokens, cacheRead, cacheWrite: undefined },
      outputTokens: { total: pieces.length, text: pieces.length, reasoning: undefined },
    },
  }
}

/** The parts of an answer as those of the SDK's stream: texts and calls, each begun, in pieces, and ended. */
class Telling {
  /** @type {{ id: string, toolName?: string, input: string } | null} what was begun and not ended */
  #open = null
  #count = 0

  /** @param {string} type @param {string} delta */
  #delta(type, delta) {
    const open = /** @type {{ id: string, input: string }} */ (this.#open)
    open.input += delta
    return { type, id: open.id, delta }
  }

  /** @param {import('./calls.js').Part} part */
  *part(part) {
    if ('name' in part) yield* this.#begin(part.name)
    else if ('arguments' in part) yield this.#delta('tool-input-delta', part.arguments)
    else if (part.text) {
      if (!this.#open || this.#open.toolName !== undefined) yield* this.#begin()
      yield this.#delta('text-delta', part.text)
    }
  }

  /** @param {string} [toolName] */
  *#begin(toolName) {
    yield* this.end()
    const isCall = toolName !== undefined
    this.#open = { id: isCall ? crypto.randomUUID() : String(this.#count++), toolName, input: '' }
    const { id } = this.#open
    yield isCall ? { type: 'tool-input-start', id, toolName } : { type: 'text-start', id }
  }

  /** @param {boolean} [cut] a call that did not come whole is none */
  *end(cut = false) {
    if (!this.#open) return
    const { id, toolName, input } = this.#open
    this.#open = null
    yield { type: toolName === undefined ? 'text-end' : 'tool-input-end', id }
    if (toolName !== undefined && !cut) yield { type: 'tool-call', toolCallId: id, toolName, input }
  }
}

/** @type {typeof import('./ai-sdk.d.ts').languageModel} */
export function languageModel(model, { modelId = 'nibl' } = {}) {
  /** @param {any} given */
  function ask(given) {
    const { messages, tools, options, warnings } = requestOf(given)
    const told = withTools(model.info.chatTemplate, messages, tools)
    return { pieces: model.generate(told.messages, { ...options, tools: told.tools }), tools, warnings }
  }

  /** @param {string} text @param {any[]} tools */
  function contentOf(text, tools) {
    const { content, calls } = readCalls(text, tools)
    const called = calls.map(({ name, arguments: input }) => ({ type: /** @type {const} */ ('tool-call'), toolCallId: crypto.randomUUID(), toolName: name, input }))
    return { text: content, called }
  }

  return {
    specificationVersion: 'v4',
    provider: 'nibl',
    modelId,
    supportedUrls: {},

    async doGenerate(given) {
      const { pieces, tools, warnings } = ask(given)
      const texts = []
      for await (const { text } of pieces) texts.push(text)
      const { text, called } = contentOf(texts.join(''), tools)
      const content = [...(text ? [{ type: /** @type {const} */ ('text'), text }] : []), ...called]
      return { content, ...endOf(model.stats, texts, called.length > 0), warnings }
    },

    async doStream(given) {
      const { pieces, tools, warnings } = ask(given)
      async function* parts() {
        yield { type: 'stream-start', warnings }
        const reader = tools.length ? new CallReader(tools) : null
        const told = new Telling()
        const texts = []
        for await (const { text } of pieces) {
          texts.push(text)
          for (const part of reader ? reader.push(text) : [{ text }]) yield* told.part(part)
        }
        for (const part of reader?.end() ?? []) yield* told.part(part)
        yield* told.end(Boolean(reader?.open))
        yield { type: 'finish', ...endOf(model.stats, texts, Boolean(reader?.count) && !reader?.open) }
      }
      const source = parts()
      const stream = new ReadableStream({
        async pull(controller) {
          try {
            const { done, value } = await source.next()
            if (done) controller.close()
            else controller.enqueue(value)
          } catch (error) {
            controller.error(error)
          }
        },
        async cancel() {
          await source.return(undefined)
        },
      })
      return { stream }
    },
  }
}

/**
 * A loaded model behind OpenAI's interface (platform.openai.com/docs/api-reference): as calls, and as a `fetch` for
 * clients that speak it over HTTP. Types and manual: openai.d.ts.
 */
import { CallReader, readCalls } from './calls.js'
import { NiblError } from './errors.js'
import { callSchema, withTools } from './tools.js'

/** @typedef {import('./nibl.d.ts').Model} Model */
/** @typedef {import('./nibl.d.ts').Piece} Piece */
/** @typedef {Record<string, any>} Body */

/** A request that cannot be served; `status` and the fields are those of OpenAI's error answers. */
class RequestError extends Error {
  /** @param {string} message @param {{ param?: string | null, code?: string | null, status?: number }} [detail] */
  constructor(message, { param = null, code = null, status = 400 } = {}) {
    super(message)
    this.status = status
    this.answer = { error: { message, type: status < 500 ? 'invalid_request_error' : 'server_error', param, code } }
  }
}

/** HTTP status of errors of generate() that the request is to blame for. @type {Record<string, string | null>} */
const requestCodes = { BAD_ARGUMENT: null, CONTEXT_FULL: 'context_length_exceeded', UNSUPPORTED_MODEL: null, BAD_GRAMMAR: null }

/** @param {unknown} error */
function toRequestError(error) {
  if (error instanceof RequestError) return error
  const { message, code } = /** @type {any} */ (error)
  const ours = error instanceof NiblError && Object.hasOwn(requestCodes, code)
  return new RequestError(String(message), ours ? { code: requestCodes[code] } : { status: 500, code: code ?? null })
}

// ---- Parameters ----------------------------------------------------------------------------------------------------

/** To options of generate(). The defaults are those of OpenAI; the last three are llama.cpp's names for more of ours.
 * @type {Record<string, string>} */
const passedOn = {
  max_tokens: 'maxTokens',
  max_completion_tokens: 'maxTokens',
  temperature: 'temperature',
  top_p: 'topP',
  stop: 'stop',
  seed: 'seed',
  logit_bias: 'logitBias',
  top_k: 'topK',
  min_p: 'minP',
  repeat_penalty: 'repeatPenalty',
}
/** Read here. */
const read = ['model', 'stream', 'stream_options', 'logprobs', 'response_format', 'tools', 'tool_choice']
/** Without an effect on the answer. */
const ignored = ['user', 'metadata', 'store', 'service_tier', 'safety_identifier', 'prompt_cache_key']
/** Known, but only with the value that changes nothing. @type {Record<string, any[]>} */
const neutral = {
  n: [1],
  best_of: [1],
  echo: [false],
  suffix: [''],
  frequency_penalty: [0],
  presence_penalty: [0],
  top_logprobs: [0],
  parallel_tool_calls: [true, false],
  modalities: [['text']],
}

/** @param {Body} body @param {string} input the one parameter that is the prompt */
function optionsOf(body, input) {
  /** @type {Record<string, any>} */
  const options = { temperature: 1 }
  for (const [name, value] of Object.entries(body)) {
    if (value === null || value === undefined || name === input || read.includes(name) || ignored.includes(name)) continue
    if (Object.hasOwn(passedOn, name)) options[passedOn[name]] = value
    else if (!Object.hasOwn(neutral, name)) throw new RequestError(`There is no parameter '${name}'.`, { param: name })
    else if (!neutral[name].some((same) => JSON.stringify(same) === JSON.stringify(value))) {
      throw new RequestError(`'${name}' is supported only as ${neutral[name].map((v) => JSON.stringify(v)).join(' or ')}.`, { param: name })
    }
  }
  return options
}

/** What the answer must be: options of generate(), and the tools that it may call.
 * @param {Body} body @returns {{ form: { json?: true, schema?: any }, tools: import('./tools.js').Tool[], named: boolean }} */
function formOf({ response_format: format, tools, tool_choice: choice }) {
  if (tools && !(Array.isArray(tools) && tools.every((tool) => tool?.type === 'function' && typeof tool.function?.name === 'string'))) {
    throw new RequestError("'tools' must be an array of { type: 'function', function: { name, ... } }.", { param: 'tools' })
  }
  const named = choice?.type === 'function' ? choice.function?.name : undefined
  const known = [undefined, null, 'none', 'auto', 'required'].includes(choice) || tools?.some((/** @type {any} */ tool) => tool.function.name === named)
  if (!known) throw new RequestError("'tool_choice' must be 'none', 'auto', 'required' or one of the tools.", { param: 'tool_choice' })
  const callable = choice === 'none' || !tools ? [] : tools.filter((/** @type {any} */ tool) => !named || tool.function.name === named)
  if (choice === 'required' && !callable.length) throw new RequestError("'tool_choice' is 'required', but there are no tools.", { param: 'tool_choice' })
  const must = choice === 'required' || named !== undefined
  const form = must ? { schema: callSchema(callable) } : responseForm(format)
  return { form, tools: callable, named: named !== undefined }
}

/** @param {any} format @returns {{ json?: true, schema?: any }} */
function responseForm(format) {
  const type = format?.type ?? 'text'
  if (type === 'text') return {}
  if (type === 'json_object') return { json: true }
  const schema = type === 'json_schema' ? format.json_schema?.schema : undefined
  if (schema !== undefined) return { schema }
  throw new RequestError("'response_format' must be { type: 'text' }, { type: 'json_object' } or { type: 'json_schema', json_schema: { schema } }.", { param: 'response_format' })
}

/** A message's content as text. @param {any} content @param {number} index */
function textOf(content, index) {
  if (typeof content === 'string') return content
  const param = `messages[${index}].content`
  if (!Array.isArray(content)) throw new RequestError(`${param} must be a string or an array of text parts.`, { param })
  return content
    .map((part) => {
      if (part?.type === 'text' && typeof part.text === 'string') return part.text
      throw new RequestError(`${param} has a part of type '${part?.type}'; only text is possible.`, { param })
    })
    .join('')
}

/** What differs between the two kinds of completions.
 * @typedef {object} Kind
 * @property {string} input
 * @property {string} id
 * @property {string} object         of a whole answer
 * @property {string} chunk          of a piece of a streamed one
 * @property {(body: Body) => string | any[]} prompt
 * @property {(text: string, logprobs: any, finish: string) => any} choice
 * @property {(text: string | null, logprobs: any, finish: string | null) => any} delta  text null: the first
 * @property {(pieces: Piece[]) => any} logprobs
 */

const encoder = new TextEncoder()

/** @type {Record<'chat' | 'text', Kind>} */
const kinds = {
  chat: {
    input: 'messages',
    id: 'chatcmpl',
    object: 'chat.completion',
    chunk: 'chat.completion.chunk',
    prompt({ messages }) {
      if (!Array.isArray(messages)) throw new RequestError("'messages' must be an array.", { param: 'messages' })
      return messages.map((message, i) => ({ ...message, content: message?.tool_calls ? textOf(message.content ?? '', i) : textOf(message?.content, i) }))
    },
    choice: (content, logprobs, finish_reason) => ({
      index: 0,
      message: { role: 'assistant', content, refusal: null },
      logprobs,
      finish_reason,
    }),
    delta: (content, logprobs, finish_reason) => ({
      index: 0,
      delta: finish_reason ? {} : content === null ? { role: 'assistant', content: '' } : { content },
      logprobs,
      finish_reason,
    }),
    logprobs: (pieces) => ({
      content: pieces.map(({ text, logprob }) => ({ token: text, logprob, bytes: [...encoder.encode(text)], top_logprobs: [] })),
      refusal: null,
    }),
  },
  text: {
    input: 'prompt',
    id: 'cmpl',
    object: 'text_completion',
    chunk: 'text_completion',
    prompt({ prompt }) {
      if (typeof prompt === 'string') return prompt
      throw new RequestError("'prompt' must be one string.", { param: 'prompt' })
    },
    choice: (text, logprobs, finish_reason) => ({ index: 0, text, logprobs, finish_reason }),
    delta: (text, logprobs, finish_reason) => ({ index: 0, text: text ?? '', logprobs, finish_reason }),
    logprobs: (pieces) => ({
      tokens: pieces.map(({ text }) => text),
      token_logprobs: pieces.map(({ logprob }) => logprob),
      top_logprobs: null,
      text_offset: pieces.map((_, i) => pieces.slice(0, i).reduce((sum, { text }) => sum + text.length, 0)),
    }),
  },
}

/** @type {Record<string, string>} */
const finishReasons = { end: 'stop', stop: 'stop', length: 'length', abort: 'stop' }

/** @param {import('./nibl.d.ts').Stats} stats @param {number} completion_tokens */
function usageOf({ prefill }, completion_tokens) {
  const cached_tokens = prefill.reused ?? 0
  const prompt_tokens = prefill.tokens + cached_tokens
  const prompt_tokens_details = { cached_tokens }
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, prompt_tokens_details }
}

// ---- Completions ---------------------------------------------------------------------------------------------------

/** @param {Model | Record<string, Model>} given @returns {Map<string, Model>} */
function modelsOf(given) {
  if (typeof (/** @type {any} */ (given)?.generate) === 'function') return new Map([['nibl', /** @type {Model} */ (given)]])
  return new Map(Object.entries(given))
}

/** @param {Map<string, Model>} models @param {string} name */
function modelOf(models, name) {
  const model = models.get(name)
  if (model) return model
  throw new RequestError(`There is no model '${name}'.`, { param: 'model', code: 'model_not_found', status: 404 })
}

/** Checks a request as a whole before anything is computed, and says how to answer it.
 * @param {Map<string, Model>} models @param {Kind} kind @param {Body} body @param {AbortSignal} [signal] */
function prepare(models, kind, body, signal) {
  if (typeof body !== 'object' || body === null) throw new RequestError('The body must be a JSON object.')
  const name = body.model ?? [...models.keys()][0]
  const model = modelOf(models, name)
  const { form, tools, named } = formOf(body)
  /** @type {Record<string, any>} */
  const options = { ...optionsOf(body, kind.input), ...form }
  let prompt = kind.prompt(body)
  if (Array.isArray(prompt)) ({ messages: prompt, tools: options.tools } = withTools(model.info.chatTemplate, prompt, tools))
  const id = `${kind.id}-${crypto.randomUUID().replaceAll('-', '')}`
  const head = { id, created: Math.floor(Date.now() / 1000), model: name }
  const withLogprobs = Boolean(body.logprobs)

  const callId = () => `call_${crypto.randomUUID().replaceAll('-', '')}`

  /** An answer that may call tools. @param {string} text */
  const callsIn = (text) => {
    const { content, calls } = readCalls(text, tools)
    const tool_calls = calls.map((call) => ({ id: callId(), type: 'function', function: call }))
    return { content, ...(calls.length && { tool_calls }) }
  }

  async function whole() {
    const pieces = []
    for await (const piece of model.generate(prompt, { ...options, signal })) pieces.push(piece)
    const { stats } = model
    const text = pieces.map((piece) => piece.text).join('')
    const choice = kind.choice(text, withLogprobs ? kind.logprobs(pieces) : null, finishReasons[stats.finish])
    if (tools.length) Object.assign(choice.message, callsIn(text))
    if (choice.message?.tool_calls && !named) choice.finish_reason = 'tool_calls'
    return { ...head, object: kind.object, choices: [choice], usage: usageOf(stats, pieces.length) }
  }

  /** @param {import('./calls.js').Part} part */
  const deltaOf = (part) => {
    if ('text' in part) return kind.delta(part.text, null, null)
    const call = 'name' in part ? { id: callId(), type: 'function', function: { name: part.name, arguments: '' } } : { function: { arguments: part.arguments } }
    return { index: 0, delta: { tool_calls: [{ index: part.call, ...call }] }, logprobs: null, finish_reason: null }
  }

  async function* chunks() {
    /** @param {any[]} choices @param {any} [usage] */
    const chunk = (choices, usage) => ({ ...head, object: kind.chunk, choices, ...usage })
    const reader = tools.length ? new CallReader(tools) : null
    let count = 0
    /* The first answer comes with the first token, so that an error before it is an error and no broken stream. */
    for await (const piece of model.generate(prompt, { ...options, signal })) {
      if (count++ === 0 && kind === kinds.chat) yield chunk([kind.delta(null, null, null)])
      if (reader) {
        for (const part of reader.push(piece.text)) yield chunk([deltaOf(part)])
      } else if (piece.text || withLogprobs) yield chunk([kind.delta(piece.text, withLogprobs ? kind.logprobs([piece]) : null, null)])
    }
    const { stats } = model
    let finish = finishReasons[stats.finish]
    for (const part of reader?.end() ?? []) yield chunk([deltaOf(part)])
    if (reader?.count && !reader.open && !named) finish = 'tool_calls'
    yield chunk([kind.delta('', null, finish)])
    if (body.stream_options?.include_usage) yield chunk([], { usage: usageOf(stats, count) })
  }
  return body.stream ? chunks() : whole()
}

// ---- Embeddings ----------------------------------------------------------------------------------------------------

const MOST_INPUTS = 2048

/** Little-endian floats. @param {Float32Array} vector */
function base64(vector) {
  const bytes = new Uint8Array(vector.buffer)
  let text = ''
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096))
  return btoa(text)
}

/** @param {Map<string, Model>} models @param {Body} body @param {AbortSignal} [signal] */
async function embeddingsOf(models, body, signal) {
  if (typeof body !== 'object' || body === null) throw new RequestError('The body must be a JSON object.')
  const { input, model: name = [...models.keys()][0], encoding_format: format = 'float', user, ...rest } = body
  for (const [param, value] of Object.entries(rest)) {
    if (value !== null && value !== undefined) throw new RequestError(`There is no parameter '${param}' of embeddings here.`, { param })
  }
  if (format !== 'float' && format !== 'base64') throw new RequestError("'encoding_format' must be 'float' or 'base64'.", { param: 'encoding_format' })
  const texts = [input].flat()
  if (!texts.length || texts.length > MOST_INPUTS || !texts.every((text) => typeof text === 'string' && text !== '')) {
    throw new RequestError(`'input' must be a string, or an array of 1 to ${MOST_INPUTS} strings, none of them empty.`, { param: 'input' })
  }
  const model = modelOf(models, name)
  const vectors = await model.embed(texts, { signal })
  const counts = await Promise.all(texts.map((text) => model.countTokens(text)))
  const prompt_tokens = counts.reduce((sum, count) => sum + count, 0)
  const data = vectors.map((vector, index) => ({ object: 'embedding', index, embedding: format === 'base64' ? base64(vector) : [...vector] }))
  return { object: 'list', data, model: name, usage: { prompt_tokens, total_tokens: prompt_tokens } }
}

// ---- As fetch ------------------------------------------------------------------------------------------------------

/** @param {unknown} value @param {number} [status] */
const json = (value, status = 200) => new Response(JSON.stringify(value), { status, headers: { 'content-type': 'application/json' } })

/** Server-sent events; whoever cancels the stream stops the computation.
 * @param {AsyncGenerator<any>} chunks @param {any} first already taken from it @param {AbortController} stop */
function eventStream(chunks, first, stop) {
  /** @param {string} data */
  const event = (data) => encoder.encode(`data: ${data}\n\n`)
  return new ReadableStream({
    start: (controller) => controller.enqueue(event(JSON.stringify(first))),
    async pull(controller) {
      try {
        const { done, value } = await chunks.next()
        controller.enqueue(event(done ? '[DONE]' : JSON.stringify(value)))
        if (done) controller.close()
      } catch (error) {
        controller.enqueue(event(JSON.stringify(toRequestError(error).answer)))
        controller.close()
      }
    },
    async cancel() {
      stop.abort()
      await chunks.return(undefined)
    },
  })
}

/** @type {typeof import('./openai.d.ts').openai} */
export function openai(given) {
  const models = modelsOf(given)
  const created = Math.floor(Date.now() / 1000)
  const list = () => [...models.keys()].map((id) => ({ id, object: 'model', created, owned_by: 'nibl' }))

  /** @param {Request} request @returns {Promise<any>} */
  const bodyOf = (request) =>
    request.json().catch(() => {
      throw new RequestError('The body is no JSON.')
    })

  /** @param {Kind} kind @param {Request} request */
  async function complete(kind, request) {
    const stop = new AbortController()
    request.signal.addEventListener('abort', () => stop.abort(request.signal.reason))
    const body = await bodyOf(request)
    const answer = prepare(models, kind, body, stop.signal)
    if (!(Symbol.asyncIterator in answer)) return json(await answer)
    const { value } = await answer.next()
    return new Response(eventStream(answer, value, stop), {
      headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' },
    })
  }

  /** @type {Record<string, (request: Request) => Promise<Response> | Response>} */
  const routes = {
    'POST /chat/completions': (request) => complete(kinds.chat, request),
    'POST /completions': (request) => complete(kinds.text, request),
    'POST /embeddings': async (request) => json(await embeddingsOf(models, await bodyOf(request), request.signal)),
    'GET /models': () => json({ object: 'list', data: list() }),
  }

  /** @param {RequestInfo | URL} input @param {RequestInit} [init] */
  async function fetch(input, init) {
    const request = new Request(input, init)
    const path = new URL(request.url).pathname.replace(/^(\/v1)?(?=\/)/, '')
    try {
      const route = routes[`${request.method} ${path}`]
      if (route) return await route(request)
      const name = request.method === 'GET' && path.startsWith('/models/') && path.slice('/models/'.length)
      const found = list().find(({ id }) => encodeURIComponent(id) === name)
      if (found) return json(found)
      if (name) modelOf(models, name)
      throw new RequestError(`There is no ${request.method} ${path}.`, { status: 404 })
    } catch (error) {
      if (error instanceof DOMException) throw error
      const failure = toRequestError(error)
      return json(failure.answer, failure.status)
    }
  }

  /** @param {Kind} kind */
  const create = (kind) => async (/** @type {Body} */ body, /** @type {{ signal?: AbortSignal }} */ { signal } = {}) =>
    prepare(models, kind, body, signal)

  return /** @type {any} */ ({
    chat: { completions: { create: create(kinds.chat) } },
    completions: { create: create(kinds.text) },
    embeddings: {
      create: (/** @type {Body} */ body, /** @type {{ signal?: AbortSignal }} */ { signal } = {}) => embeddingsOf(models, body, signal),
    },
    models: { list: async () => ({ object: 'list', data: list() }) },
    fetch,
  })
}

/**
 * A model behind OpenAI's interface.
 *
 *   import { load } from 'nibl'
 *   import { openai } from 'nibl/openai'
 *   const client = openai(await load('model.gguf'))
 *   const { choices } = await client.chat.completions.create({ messages: [{ role: 'user', content: 'Hello!' }] })
 *
 * or with the package `openai`, which then never touches the network:
 *
 *   new OpenAI({ baseURL: 'http://nibl/v1', apiKey: '-', fetch: client.fetch })
 *
 * Supported: messages of text (strings or text parts), max_tokens, max_completion_tokens, temperature, top_p, stop, seed,
 * logit_bias, logprobs, stream, stream_options.include_usage; response_format (json_object, json_schema: always valid, see
 * `schema` of generate()); tools and tool_choice: 'required' or a named function makes a valid call certain, 'auto' reads
 * what the model writes. Models whose template knows no tools are told of them in the system message. Beyond OpenAI's: top_k, min_p, repeat_penalty. Everything
 * else is refused by name, unless its value changes nothing. Requests on one model are answered together, as many as it has sessions.
 */
import type { Message, Model } from './nibl.d.ts'

export interface TextPart {
  type: 'text'
  text: string
}

export interface Tool {
  type: 'function'
  function: { name: string; description?: string; parameters?: object; [field: string]: unknown }
}

export interface ToolCall {
  id: string
  type: 'function'
  /** `arguments`: JSON. */
  function: { name: string; arguments: string }
}

export type ResponseFormat =
  | { type: 'text' }
  | { type: 'json_object' }
  | { type: 'json_schema'; json_schema: { name?: string; schema: object | boolean; strict?: boolean | null; [field: string]: unknown } }

export interface CompletionParameters {
  /** A name given to openai(); default: the first. */
  model?: string
  max_tokens?: number | null
  max_completion_tokens?: number | null
  /** Default: 1, as OpenAI has it. */
  temperature?: number | null
  top_p?: number | null
  stop?: string | string[] | null
  seed?: number | null
  logit_bias?: Record<string, number> | null
  stream?: boolean | null
  stream_options?: { include_usage?: boolean } | null
  top_k?: number
  min_p?: number
  repeat_penalty?: number
  [parameter: string]: unknown
}

export interface ChatParameters extends CompletionParameters {
  messages: (Omit<Message, 'content'> & { content?: string | TextPart[] | null; tool_calls?: ToolCall[]; tool_call_id?: string })[]
  response_format?: ResponseFormat | null
  tools?: Tool[] | null
  tool_choice?: 'none' | 'auto' | 'required' | { type: 'function'; function: { name: string } } | null
  logprobs?: boolean | null
}

export interface TextParameters extends CompletionParameters {
  prompt: string
  logprobs?: number | boolean | null
}

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
  /** Tokens that were there from the request before. */
  prompt_tokens_details: { cached_tokens: number }
}

/** A piece of a call: first its id and name, then its arguments as they are written. One cut by max_tokens stays without its end,
 * with finish_reason 'length'. */
export interface ToolCallDelta {
  index: number
  id?: string
  type?: 'function'
  function: { name?: string; arguments: string }
}

export type FinishReason = 'stop' | 'length' | 'tool_calls'

export interface TokenLogprob {
  token: string
  /** Natural logarithm. */
  logprob: number
  bytes: number[]
  top_logprobs: never[]
}

export interface ChatLogprobs {
  content: TokenLogprob[]
  refusal: null
}

export interface TextLogprobs {
  tokens: string[]
  token_logprobs: number[]
  top_logprobs: null
  text_offset: number[]
}

interface Answer {
  id: string
  /** Seconds since 1970. */
  created: number
  model: string
}

export interface ChatCompletion extends Answer {
  object: 'chat.completion'
  choices: [{ index: 0; message: { role: 'assistant'; content: string | null; refusal: null; tool_calls?: ToolCall[] }; logprobs: ChatLogprobs | null; finish_reason: FinishReason }]
  usage: Usage
}

export interface ChatCompletionChunk extends Answer {
  object: 'chat.completion.chunk'
  choices: { index: 0; delta: { role?: 'assistant'; content?: string | null; tool_calls?: ToolCallDelta[] }; logprobs: ChatLogprobs | null; finish_reason: FinishReason | null }[]
  usage?: Usage
}

export interface TextCompletion extends Answer {
  object: 'text_completion'
  choices: { index: 0; text: string; logprobs: TextLogprobs | null; finish_reason: FinishReason | null }[]
  usage?: Usage
}

export interface EmbeddingParameters {
  model?: string
  /** Token ids are not taken. */
  input: string | string[]
  encoding_format?: 'float' | 'base64'
  user?: string
}

/** Of the mean of hidden states, scaled to length 1: see embed() of the model. */
export interface EmbeddingList {
  object: 'list'
  /** base64: of little-endian 32-bit floats. */
  data: { object: 'embedding'; index: number; embedding: number[] | string }[]
  model: string
  usage: { prompt_tokens: number; total_tokens: number }
}

export interface RequestOptions {
  signal?: AbortSignal
}

export interface Client {
  chat: {
    completions: {
      create(parameters: ChatParameters & { stream: true }, options?: RequestOptions): Promise<AsyncIterable<ChatCompletionChunk>>
      create(parameters: ChatParameters & { stream?: false | null }, options?: RequestOptions): Promise<ChatCompletion>
    }
  }
  completions: {
    create(parameters: TextParameters & { stream: true }, options?: RequestOptions): Promise<AsyncIterable<TextCompletion>>
    create(parameters: TextParameters & { stream?: false | null }, options?: RequestOptions): Promise<TextCompletion>
  }
  embeddings: { create(parameters: EmbeddingParameters, options?: RequestOptions): Promise<EmbeddingList> }
  models: { list(): Promise<{ object: 'list'; data: { id: string; object: 'model'; created: number; owned_by: string }[] }> }
  /** Answers POST /v1/chat/completions, /v1/completions and /v1/embeddings, GET /v1/models, on any host; errors as OpenAI writes them. */
  fetch: typeof globalThis.fetch
}

/** One model, or several by name. */
export function openai(models: Model | Record<string, Model>): Client

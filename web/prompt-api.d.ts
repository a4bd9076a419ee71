/**
 * A model in the shape of the browsers' `LanguageModel`, for pages written for it:
 *
 *   import { promptApi } from 'nibl/prompt-api'
 *   const LanguageModel = promptApi('/model.gguf')
 *   const session = await LanguageModel.create({ initialPrompts: [{ role: 'system', content: 'Be brief.' }] })
 *   console.log(await session.prompt('Hello!'))
 *
 * The model is loaded by the first create(), once for all sessions. Text only. When a conversation outgrows the context its
 * oldest turns are forgotten, never the initial prompts, and `contextoverflow` is told; an input that is too long by itself
 * fails with QuotaExceededError.
 */
import type { LoadOptions, Source } from './nibl.d.ts'

export interface PromptMessage {
  role: 'system' | 'user' | 'assistant'
  content: string | { type: 'text'; value: string }[]
}

export type PromptInput = string | PromptMessage[]

export interface PromptOptions {
  /** A JSON Schema, as `schema` of generate(); or a RegExp that the whole answer, a text, matches. */
  responseConstraint?: object | RegExp
  signal?: AbortSignal
}

export interface CreateOptions {
  initialPrompts?: PromptMessage[]
  /** Default: 0.8. */
  temperature?: number
  /** Default: 40. */
  topK?: number
  /** Destroys the session. */
  signal?: AbortSignal
  /** Its target is told `downloadprogress`, with `loaded` from 0 to 1. */
  monitor?: (monitor: EventTarget) => void
}

export interface Session extends EventTarget {
  readonly temperature: number
  readonly topK: number
  /** Tokens of the conversation, and that it may have. */
  readonly contextUsage: number
  readonly contextWindow: number
  oncontextoverflow: ((event: Event) => void) | null
  /** Prompts on one session wait for each other. */
  prompt(input: PromptInput, options?: PromptOptions): Promise<string>
  promptStreaming(input: PromptInput, options?: PromptOptions): ReadableStream<string>
  /** Adds to the conversation without an answer. */
  append(input: PromptInput, options?: { signal?: AbortSignal }): Promise<void>
  /** Tokens that the input would add. */
  measureContextUsage(input: PromptInput): Promise<number>
  clone(options?: { signal?: AbortSignal }): Promise<Session>
  /** Ends what runs with an AbortError, and what comes with an InvalidStateError. */
  destroy(): void
}

export interface LanguageModel {
  availability(): Promise<'downloadable' | 'downloading' | 'available'>
  params(): Promise<{ defaultTopK: number; maxTopK: number; defaultTemperature: number; maxTemperature: number }>
  create(options?: CreateOptions): Promise<Session>
  /** Beyond the browsers': gives the model's memory back. */
  close(): Promise<void>
}

export function promptApi(source: Source, options?: Omit<LoadOptions, 'onProgress'>): LanguageModel

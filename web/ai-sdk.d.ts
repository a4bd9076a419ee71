/**
 * A model for the AI SDK (package `ai`), provider specification v4:
 *
 *   import { generateText } from 'ai'
 *   import { load } from 'nibl'
 *   import { languageModel } from 'nibl/ai-sdk'
 *   const { text } = await generateText({ model: languageModel(await load('model.gguf')), prompt: 'Hello!' })
 *
 * Text, streams (also of the input of calls, as it comes), objects (JSON Schema, always valid: see `schema` of generate()) and
 * function tools; a `toolChoice` that demands a call makes a valid one certain. Images and penalties are refused or warned of.
 * Without `temperature` the most likely token is taken.
 */
import type { Model } from './nibl.d.ts'

export interface LanguageModel {
  readonly specificationVersion: 'v4'
  readonly provider: string
  readonly modelId: string
  readonly supportedUrls: Record<string, RegExp[]>
  /** LanguageModelV4CallOptions and results, as the package @ai-sdk/provider has them. */
  doGenerate(options: any): Promise<any>
  doStream(options: any): Promise<{ stream: ReadableStream<any> }>
}

/** `modelId`: as results tell it. Default: 'nibl'. The caller closes the model. */
export function languageModel(model: Model, options?: { modelId?: string }): LanguageModel

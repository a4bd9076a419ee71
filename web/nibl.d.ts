/**
 * nibl: 4-bit language models in a browser tab and under Node.
 *
 *   import { load } from 'nibl'
 *   const model = await load('/model.gguf')
 *   for await (const piece of model.generate([{ role: 'user', content: 'Hello!' }])) show(piece.text)
 *   model.close()
 *
 * Every failure is a NiblError with a `code`; an abort is a DOMException named AbortError (or what the signal's reason
 * says, if that is a DOMException). A model stays usable after either, unless the code is CRASHED or WORKER_FAILED.
 */

/**
 * Where a model comes from: a URL (a relative one is the page's), a File or Blob, a Response, a stream, bytes (copied),
 * or under Node a path. Of a split GGUF name the first part; of a Hugging Face
 * folder the folder or its config.json (a URL of a folder ends in a slash), or give a list of all its files. A Response or stream is used up.
 *
 * 'hf:owner/repository[:quant][@revision][/path]' names a model on a model hub: the path of a GGUF file or of a folder (ends
 * in a slash) in it; without one the safetensors model, or the only GGUF file, or that of type Q4_K_M. `:Q4_0` takes
 * the GGUF file of that type.
 */
export type Source = string | URL | Blob | File[] | FileList | Response | ReadableStream<Uint8Array> | Uint8Array | ArrayBuffer

export interface LoadOptions {
  /**
   * Come back once header and tokenizer are there; generate() then computes while the weights arrive, asking a server
   * that knows Range for them in the order they are needed. `model.ready` tells when all are there. Default: false.
   */
  early?: boolean
  /**
   * Tokens that prompt and answer may have together. Default: the model's own, at most 4096, and at most 1024 a GiB that the
   * device says it has; where there is no memory for so many, half of them, and so on down to 512 (info.why tells).
   */
  contextLength?: number
  /** Threads; more than one need a cross-origin isolated page and the worker. Default: half of the processors, 2 to 8. */
  threads?: number
  /**
   * Answers that may be computed at the same time, 1 (default) to 64: their tokens share one matrix product, each
   * answer's are the same as alone. Every one of them takes the memory of a KV cache. Further calls queue.
   */
  sessions?: number
  /**
   * Quantizes while the model arrives: its 16- and 32-bit matrices are kept as this type alone, the same bits as of a
   * file that was quantized first. 'q4_0'.
   */
  quantize?: 'q4_0' | (string & {})
  /** Format of the KV cache. 'i8' (default) is the fastest and smallest, 'f32' exact. */
  kv?: 'i8' | 'f16' | 'f32'
  /** Makes score() possible: takes the binary that has it, and memory for one session more. Default: false. */
  evaluate?: boolean
  /** Stops the load; in early mode the download as well. */
  signal?: AbortSignal
  /** How often what fails in passing (connection, silence, 429, 5xx) is tried again, each time after a longer pause. Default: 4. */
  retries?: number
  /**
   * Keeps what a URL or hub name gives on this machine, and takes it from there the next time: `true` or a name, in the
   * origin's private file system (needs the worker), under Node in ~/.cache/nibl (a name with a slash is a path); or a
   * backend of one's own (with `worker: false`). A download that was cut off, by a closed tab too, goes on where it
   * was; of two tabs one downloads. Where the cache cannot be used, for want of space or otherwise, the load goes on
   * without it and says so: see `onWarning`. Default: none. See openCache().
   */
  cache?: boolean | string | CacheBackend
  /** A model that is in the cache is used without asking its server if that cannot be reached. Default: false. */
  allowOffline?: boolean
  /**
   * SHA-256 of the file, hexadecimal or as 'sha256-' and base64; of several files by file name; or true for what the
   * model hub tells. The load (early: `ready`) fails with INTEGRITY where it is another. A model of several files is
   * read once more for it, from the cache if there is one.
   */
  integrity?: true | string | Record<string, string>
  /** For the request of a URL. From another origin they cost a preflight that many servers refuse. */
  headers?: HeadersInit
  /** Origin of the model hub of 'hf:' names. Default: 'https://huggingface.co'. */
  hub?: string | URL
  /** Access token for that hub; sent to its origin alone. */
  token?: string
  /** Milliseconds without a byte after which the load fails with TIMEOUT; 0 waits for ever. Default: 30000. */
  timeout?: number
  /** Told at most 10 times a second, and at the end. `loaded` never falls. */
  onProgress?: (progress: Progress) => void
  /** Told what did not work and was done without: code QUOTA or CACHE_FAILED. Default: console.warn. */
  onWarning?: (warning: NiblError) => void
  /** Folder with the .wasm files, ending in a slash. Default: dist/ beside this module. */
  wasmUrl?: string | URL
  /** Address of worker.js. Default: beside this module. */
  workerUrl?: string | URL
  /** false: run on the calling thread, on that one alone. Default: true. */
  worker?: boolean
  /** Use this binary's instructions and no others. Default: the best that the engine computes correctly. */
  binary?: 'simd128' | 'relaxed'
  /** 'f32' computes with exact activations: slow, a reference. Default: 'i8'. */
  activations?: 'i8' | 'f32'
  /** Prompt tokens computed together, 1 to 512; results do not depend on it. Default: 64. */
  chunk?: number
}

export interface Progress {
  /** 'measure': what each tensor is worth, of quantize() with a size, or what imatrix() collects; `loaded` is a share then, and `total` 1. */
  phase: 'download' | 'measure' | 'quantize'
  /** Bytes. */
  loaded: number
  /** Bytes; 0 if the source does not tell. */
  total: number
  /** Of this phase, at the pace so far. Of quantize(). */
  secondsLeft?: number
  /** While quantizing: what becomes of every tensor, in the order in which they come out. */
  report?: QuantizationReport
}

export interface Message {
  role: 'system' | 'user' | 'assistant' | (string & {})
  content: string
  [field: string]: unknown
}

export interface GenerateOptions {
  /** Default: until the model ends or the context is full. */
  maxTokens?: number
  /** 0 (default) always takes the most likely token. */
  temperature?: number
  /** Keep the k most likely; 0 (default) = all. */
  topK?: number
  /** Keep the most likely that together have this probability; 1 (default) = all. */
  topP?: number
  /** Keep those at least this fraction as likely as the most likely one; 0 (default) = all. */
  minP?: number
  /** Divides the logits of recent tokens (Keskar et al. 2019); 1 (default) = off. */
  repeatPenalty?: number
  /** Whole number; the same seed gives the same text everywhere. Default: random; `stats.seed` tells it. */
  seed?: number
  /** Ends the answer where one of these would appear; it is not part of the answer. */
  stop?: string | string[]
  /** Added to the logits by token id; -Infinity forbids a token. */
  logitBias?: Record<number, number> | Map<number, number>
  /**
   * The answer is JSON, valid for this schema, and whole within maxTokens: compact, properties in the schema's order, others
   * only where additionalProperties is there. Known are type, enum, const, properties, required, additionalProperties,
   * patternProperties (one pattern), propertyNames, minProperties, maxProperties, items, prefixItems, contains, minContains,
   * minItems, maxItems, minLength, maxLength, pattern (regular), format (date, time, date-time, uuid, ipv4, email), minimum,
   * maximum, exclusiveMinimum, exclusiveMaximum, anyOf, oneOf (that exclude each other), allOf, $ref into the document,
   * unevaluatedProperties, unevaluatedItems, and what only describes; all of them beside each other. Fails with BAD_GRAMMAR
   * for anything else and for what cannot be told, naming keyword and path, and
   * where maxTokens are too few for any answer.
   */
  schema?: object | boolean
  /** The answer is a text of this grammar (GBNF, as llama.cpp has it), whole within maxTokens. */
  grammar?: string
  /** The answer is a JSON object, whole within maxTokens. */
  json?: boolean
  /**
   * What becomes of messages that do not fit the context with their answer (maxTokens, at most half of the context, or 64
   * tokens). 'error' (default): CONTEXT_FULL if they do not fit themselves. 'shift': the oldest turns are left out, a quarter of the context at a
   * time; system messages in front and the last question stay. What is left is computed again, exactly as a conversation that never
   * had those turns; `stats.dropped` tells how many messages they were. An answer that fills the context ends in both cases.
   */
  overflow?: 'error' | 'shift'
  /** Given to the chat template as `tools`, for models that know them. nibl/openai reads the calls. */
  tools?: object[]
  /**
   * Guess ahead where the text repeats itself: tokens and logits are the same, copies come faster. Default: true.
   */
  speculate?: boolean
  signal?: AbortSignal
}

export interface Piece {
  /** Whole characters; may be empty while a character or what may become a stop string is unfinished. */
  text: string
  token: number
  /** Natural logarithm of the token's probability, before temperature and the like. */
  logprob: number
}

export interface Rate {
  tokens: number
  seconds: number
  tokensPerSecond: number
}

export interface Stats {
  /** Of the load: seconds from call to ready (0 before), bytes read. */
  load: { seconds: number; bytes: number }
  /** Prompt tokens computed; `reused` were there from the call before. */
  prefill: Rate & { reused?: number }
  /** Tokens computed one after the other; `guessed` were tried ahead of their turn, `right` of them came true. */
  decode: Rate & { guessed: number; right: number }
  /** Bytes: WebAssembly memory in all; packed weights and the full KV cache in it. */
  memory: { linear: number; weights: number; kv: number }
  /** Why the answer ended: end token or a grammar's end, stop string, maxTokens or full context, abort or error. */
  finish: 'end' | 'stop' | 'length' | 'abort'
  /** Messages that were left out: see `overflow`. */
  dropped: number
  seed: number
  /** Of all logits computed, 16 hexadecimal digits: the same on every machine. */
  hash: string
}

export interface ModelInfo {
  readonly architecture: string
  readonly name: string
  readonly parameters: number
  /** Tokens, as loaded. */
  readonly contextLength: number
  /** Tokens the model was made for. */
  readonly maxContextLength: number
  readonly layers: number
  readonly vocabulary: number
  /** 'relaxed-threads' and the like. */
  readonly binary: string
  readonly threads: number
  /** Why this binary and number of threads, and what was done without for want of memory. */
  readonly why: string
  /** The file's Jinja text, or null. */
  readonly chatTemplate: string | null
}

export interface Model {
  readonly info: ModelInfo
  /** Of the last generate(), also of one that was stopped. */
  readonly stats: Stats
  /** Resolves when all weights are there; at once, unless loaded early. */
  readonly ready: Promise<void>
  /**
   * A string is continued as plain text; messages are written as the model's own chat template says, and answered.
   * What is already computed is used again: one turn on, a conversation costs its new tokens alone. As many conversations
   * as there are `sessions` keep what is computed of them, and each takes over what it begins with in common with
   * another. Calls queue where there are more of them than `sessions`.
   * Leaving the loop stops the computation.
   */
  generate(prompt: string | Message[], options?: GenerateOptions): AsyncGenerator<Piece, void, void>
  /** `special` (default true): recognise special tokens written in the text; `bos` (default false): put BOS first. */
  tokenize(text: string, options?: { special?: boolean; bos?: boolean }): Promise<number[]>
  /** The tokens that generate() would compute for it. */
  encode(prompt: string | Message[]): Promise<number[]>
  /** Their number. */
  countTokens(prompt: string | Message[]): Promise<number>
  /**
   * What the model makes of a text: of every token from index `first` (default 1) on how likely it was, and the token that was
   * likeliest in its place; with a `reference`, a model of the same vocabulary, the same of that one, and the KL divergence
   * KL(reference, this) of the two whole distributions. Both need `evaluate`.
   */
  score(tokens: Iterable<number>, options?: { first?: number; reference?: Model; signal?: AbortSignal }): Promise<TokenScore[]>
  /** `special` (default true): write special tokens too. */
  detokenize(tokens: Iterable<number>, options?: { special?: boolean }): Promise<string>
  /** A conversation that keeps its messages (copied), and can be forked and saved. */
  conversation(messages?: Message[]): Conversation
  /**
   * A saved conversation, which goes on with the same bits without computing again. Fails with BAD_STATE for what is none, is damaged, or
   * is of another model or other options (kv, activations); with CONTEXT_FULL where contextLength is too short. The bytes may be
   * anybody's. A name is that of save(name), with NOT_FOUND where there is none.
   */
  restore(state: string | Blob | Uint8Array<ArrayBuffer> | ArrayBuffer): Promise<Conversation>
  /**
   * Embeddings [width]: hidden states behind the last norm, their mean over the text's tokens or that of the last one (`pooling`:
   * 'mean', the default, or 'last'), scaled to length 1 unless `normalize` is false. Special tokens written in a text
   * count, as do BOS and what else generate() puts in front. Texts are computed together where there are `sessions`.
   */
  embed(text: string, options?: EmbedOptions): Promise<Float32Array>
  embed(texts: string[], options?: EmbedOptions): Promise<Float32Array[]>
  /**
   * What verify() repeats an answer from: that whose `stats` these were, by default the last. Its model's files are hashed
   * for it, once, where they can be read again without a network: a cached URL, a File, a path (`integrity` hashes them
   * already); else it has no SHA-256 of them.
   */
  receipt(stats?: Stats): Promise<Receipt>
  /** Stops everything and gives the memory back. */
  close(): void
}

export interface EmbedOptions {
  pooling?: 'mean' | 'last'
  normalize?: boolean
  signal?: AbortSignal
}

/** Calls on one conversation queue. */
export interface Conversation {
  /** What was said so far; it may be changed. */
  readonly messages: Message[]
  /** Answers the user's words, or messages: both are added once the answer is complete, not where it was stopped. Else as generate() of the model. */
  generate(prompt: string | Message[], options?: GenerateOptions): AsyncGenerator<Piece, void, void>
  /** Another one that begins as this one did, and shares what is computed. */
  fork(): Conversation
  /**
   * Messages, tokens, keys and values, for restore(): layers x KV heads x head size x about 2.2 bytes a token (i8 cache; SmolLM2-135M:
   * 12.6 KB). What is not there any more is computed again first. It tells the whole text. With a name it is kept in the
   * load's cache too, or that of models (see openCache()), where restore() finds it by that name, instead of what was kept
   * so before. In a page that needs the worker. Fails with QUOTA or CACHE_FAILED.
   */
  save(name?: string): Promise<Blob>
}

/** Natural logarithms of probabilities; `top` is a token. */
export interface TokenScore {
  readonly logprob: number
  readonly topLogprob: number
  readonly top: number
  readonly reference?: { readonly logprob: number; readonly topLogprob: number; readonly top: number }
  /** In nats. */
  readonly kl?: number
}

/** How an answer came about; JSON. The native program writes and reads the same. */
export interface Receipt {
  readonly receipt: 1
  /** The version that made it. */
  readonly nibl: string
  /** `sha256`: null where the file was not at hand. */
  readonly model: { readonly name: string; readonly architecture: string; readonly files: { name: string; size: number; sha256: string | null }[] }
  /** `text`: what was tokenized, special tokens recognised, BOS put in front where `bos` says so; `messages` as they were given. */
  readonly prompt: { readonly messages?: Message[]; readonly tools?: object[]; readonly text: string; readonly bos: boolean; readonly tokens: number[] }
  readonly settings: {
    readonly contextLength: number
    readonly kv: 'i8' | 'f16' | 'f32'
    readonly activations: 'i8' | 'f32'
    readonly quantize?: string
    /** null: no limit. */
    readonly maxTokens: number | null
    readonly temperature: number
    readonly topK: number
    readonly topP: number
    readonly minP: number
    readonly repeatPenalty: number
    /** Tokens that it looks back at. */
    readonly repeatWindow: number
    readonly stop: string[]
    /** Token and bias; null is -Infinity. */
    readonly logitBias: [number, number | null][]
    readonly grammar?: { readonly format: 'gbnf' | 'json-schema'; readonly text: string }
  }
  readonly seed: number
  /** All that were sampled, the end token included. */
  readonly tokens: number[]
  readonly text: string
  readonly finish: Stats['finish']
  /** Of the logits from which these tokens were sampled. */
  readonly hash: string
  /** What ran; the result does not depend on it. */
  readonly made?: { readonly binary: string; readonly threads: number }
}

export interface Verification {
  readonly equal: boolean
  /** All files of the model had the SHA-256 that the receipt tells. */
  readonly identified: boolean
  readonly tokens: number
  readonly hash: string
  /** The first one; `at`: index of the token or file. */
  readonly difference: { what: 'model' | 'prompt' | 'tokens' | 'text' | 'hash'; at: number; receipt: string; here: string } | null
}

/**
 * Repeats an answer from its receipt (an object, or JSON) and compares the model's files, the prompt's tokens, every token, the
 * text and the hash of all logits. The options are load()'s; settings are the receipt's. Fails with BAD_RECEIPT for what is none.
 */
export function verify(receipt: Receipt | string, source: Source, options?: LoadOptions): Promise<Verification>

export function load(source: Source, options?: LoadOptions): Promise<Model>

/** As for load(), where they say what would be loaded and how. */
export type InspectOptions = Pick<
  LoadOptions,
  'quantize' | 'contextLength' | 'threads' | 'sessions' | 'kv' | 'binary' | 'worker' | 'timeout' | 'retries' | 'headers' | 'hub' | 'token' | 'wasmUrl' | 'workerUrl' | 'signal'
>

export interface TensorInfo {
  readonly name: string
  /** 'Q4_0' and the like. */
  readonly type: string
  /** Fastest dimension first, as in the file. */
  readonly shape: number[]
  /** In the file. */
  readonly offset: number
  /** null for a type that this build does not know. */
  readonly bytes: number | null
}

/** What load() with the same options would take; all but the first in bytes. */
export interface MemoryPlan {
  /** Tokens. */
  readonly contextLength: number
  readonly weights: number
  /** When the context is full. */
  readonly kv: number
  /** Activations, logits, threads. */
  readonly scratch: number
  readonly vocabulary: number
  /** The sum, and what the allocator adds. */
  readonly total: number
  /** The most that the WebAssembly memory would grow to: the total, program and stacks; grammars take some MB more. */
  readonly memory: number
  /** As in ModelInfo. */
  readonly binary: string
  readonly threads: number
  readonly why: string
}

export interface Inspection {
  readonly format: 'gguf'
  readonly version: number
  readonly architecture: string | null
  readonly name: string | null
  readonly parameters: number
  /** Tensor types of the file. */
  readonly types: Record<string, { tensors: number; bytes: number | null }>
  /** Of the file's own tensors. */
  readonly tensorBytes: number
  /** 0 if the source does not tell. */
  readonly fileBytes: number
  /** What had to be read of it. */
  readonly bytesRead: number
  /** The file's own; a long array is { type, length, first }. */
  readonly metadata: Record<string, any>
  readonly tensors: TensorInfo[]
  /** null if it cannot be planned: see `unsupported`. */
  readonly plan: MemoryPlan | null
  /** Why load() would refuse it here, or null. */
  readonly unsupported: string | null
}

/**
 * Tells what a file is and the memory it needs here, from its header alone: of a URL whose server knows Range that is all
 * that is downloaded, and at most 1 MiB more. A Response or stream is used up.
 */
export function inspect(source: Source, options?: InspectOptions): Promise<Inspection>

export interface FitOptions extends Omit<InspectOptions, 'quantize' | 'kv'> {
  /** Bytes that the device has for it. Default: 4e9. */
  memory?: number
}

export interface FitRecipe {
  /** For quantize(); null: the model as it is. */
  readonly type: string | null
  readonly method: string | null
  /** Of the file that it makes; of the model as it is those of the tensors. */
  readonly fileBytes: number
  /** As planned with each KV cache; `memory` is the whole. */
  readonly plans: Record<'i8' | 'f16' | 'f32', Omit<MemoryPlan, 'binary' | 'threads' | 'why'>>
  /** With the KV cache 'i8', the default. */
  readonly fits: boolean
  /** Tokens at which that cache is as large as the weights. */
  readonly kvOutgrowsWeightsAt: number
  /** Measured on SmolLM2-135M, which loses more than larger models: change of perplexity (0.05: 5 % more) and KL divergence
   * in nats, each with its standard error. null for the model as it is. */
  readonly loss: { perplexity: [number, number]; kl: [number, number] } | null
}

export interface Fitting {
  readonly parameters: number
  readonly contextLength: number
  readonly memory: number
  readonly recipes: FitRecipe[]
  /** That with the least loss of those that fit. */
  readonly choice: FitRecipe | null
  /** Why there are no recipes: the model is quantized already, ... */
  readonly note: string | null
}

/**
 * What of a model fits a device, and at which loss: the model as it is and every recipe with a measured loss, from the
 * header alone. Of a config.json (a path, URL, File, not a folder) nothing else is read.
 */
export function fit(source: Source, options?: FitOptions): Promise<Fitting>

export interface QuantizeOptions
  extends Pick<LoadOptions, 'threads' | 'binary' | 'worker' | 'timeout' | 'retries' | 'headers' | 'hub' | 'token' | 'wasmUrl' | 'workerUrl' | 'signal' | 'onProgress'> {
  /**
   * Of matrices: 'q4_0' (default), 'q8_0', 'q4_k', 'mxfp4', 'f16', ..., any that GGUF has; or integers of 2 to 8 bits, with which
   * a Hugging Face folder comes out: 'w4g64' (a scale for 64 inputs), 'w3g128asym' (with zero points), 'w8row', 'w4tensor',
   * 'W4A16', ... (core/nibl.h has them all).
   */
  type?: string
  /** The same by its other name. */
  scheme?: string
  /** 'q8_0' by default; where the embedding is the head too, the head's. */
  embedding?: string
  head?: string
  /** Exceptions: from patterns of names ('*' any characters, '?' one) to types; the first that matches counts. */
  tensors?: Record<string, string>
  /**
   * One or several, or as one text with commas: 'rtn' (default) rounds by each type's rule, 'clip' searches the scales that lose
   * least, 'recover' finds the grid that weights lie on already (of a model trained for its type, or quantized once), without loss,
   * and fails where they lie on none, unless another follows it ('recover,clip'), 'rotate' turns the model first; 'imatrix', 'awq' and 'gptq' look at what a text makes of it; 'best' is what lost least where
   * it was measured: 'awq,gptq', and iq4_nl for every matrix where no type is told. It is rounded layer by layer then, of which one is in memory.
   */
  method?: string | string[]
  /**
   * That text: itself, its URL, a Blob or File. true, and by default where one is needed: 8,500 tokens that come with the
   * package, most of them English prose. With 'clip' it weighs errors.
   */
  calibration?: string | URL | Blob | true
  /** So many of it, in windows of 512. Default: 8192. */
  calibrationTokens?: number
  /**
   * In place of a text a file of `nibl imatrix` or of llama.cpp's llama-imatrix (GGUF): itself, its URL, or under Node its path. For the
   * methods 'imatrix' (the default then) and 'clip'. What it does not tell of is `uncalibrated` in the report.
   */
  imatrix?: string | URL | Blob | Uint8Array | ArrayBuffer
  /** Mixed precision: types with which a file of at most so many bytes loses least, measured on the text. */
  size?: number
  /** The same by bits per weight, all tensors counted. */
  bitsPerWeight?: number
  /** Those to choose from: ['q3_k', 'q4_0', 'q8_0']. Default: all of 2 to 8 bits. */
  types?: string | string[]
  /** What a quantized file or a report carries, or its JSON, in place of types and methods. */
  recipe?: QuantizationReport['recipe'] | string | object
  /** Of what comes out. Default: as the types demand. Symmetric integers of 4 bits can become 'gguf', as Q4_0. */
  format?: 'gguf' | 'safetensors'
  /** At most so many bytes in a folder's file of weights. Default: 5e9. */
  shardBytes?: number
  /** The source may be quantized already: a second loss is added to the first. */
  requantize?: boolean
  /** 'tq1_0' and 'tq2_0' also of weights that were not trained to be ternary; else they are refused, with what would be lost. */
  force?: boolean
  /** The report tells what rounding lost of every matrix (`error`); takes a second pass over it. Default: false. */
  measure?: boolean
  /**
   * Where the file goes, at the sink's pace; closed at the end, aborted after an error. Of a folder a function that gives a
   * sink for every name; after an error those that are whole are closed already. Without one there are Blobs.
   */
  sink?: WritableStream<Uint8Array> | ((name: string) => WritableStream<Uint8Array> | Promise<WritableStream<Uint8Array>>)
}

export interface QuantizedTensor {
  readonly name: string
  readonly rows: number
  readonly columns: number
  /** Types. */
  readonly from: string
  readonly to: string
  /** Where `to` is not the type that was asked for: that one, and why. */
  readonly wanted?: string
  readonly why?: string
  readonly source_bytes: number
  readonly bytes: number
  /** So many of its matrices were rounded as without text or imatrix, which tell nothing of them. */
  readonly uncalibrated?: number
  /** So many without AWQ: what goes before them can take no scale back. */
  readonly unscaled?: number
  /** With 'recover': groups of weights that share a scale, how many of them lie on the grid of `to`, and have a scale that it stores rounded. */
  readonly groups?: number
  readonly recovered?: number
  readonly scales_rounded?: number
  /** Of matrices, with `measure`: the root mean square of what rounding changed, relative to that of the weights. */
  readonly error?: number
}

export interface QuantizationReport {
  readonly parameters: number
  readonly source_bytes: number
  readonly bytes: number
  readonly file_bytes: number
  readonly bits_per_weight: number
  /** As it stands in the file ("nibl.recipe"): `nibl quantize --recipe` takes it. */
  readonly recipe: { type: string; embedding: string; head: string; tensors: [string, string][]; method: string }
  readonly tensors: QuantizedTensor[]
}

export interface Quantized {
  readonly report: QuantizationReport
  /** Bytes of the file. */
  readonly size: number
  /** Of the text that was looked at; 0: none was. */
  readonly calibrationTokens: number
  /** The file; null where there is a sink, or a folder came out. */
  readonly blob: Blob | null
  /** A folder's files, as load() takes them; null where there is a sink, or one file came out. */
  readonly files: File[] | null
}

/**
 * Makes a smaller GGUF file, which any llama.cpp loads, of a GGUF file, a split one or a Hugging Face folder, row by row as
 * they come: neither file is ever held whole, unless as the Blob; with 'rotate', integers or a text the model comes and goes layer
 * by layer, and only with a size, or as a stream or from a server without ranges, is it loaded first. The same bytes as of `nibl quantize`. onProgress has the phase 'quantize' and counts the bytes that came out. An
 * abort is obeyed at once, and everything it took is given back (with `worker: false` after the layer at hand). Fails with NOT_FINITE, naming tensor and row, for a value that is infinite or NaN.
 */
export function quantize(source: Source, options?: QuantizeOptions): Promise<Quantized>

export interface ImatrixOptions
  extends Pick<QuantizeOptions, 'calibration' | 'calibrationTokens' | 'threads' | 'binary' | 'worker' | 'timeout' | 'retries' | 'headers' | 'hub' | 'token' | 'wasmUrl' | 'workerUrl' | 'signal' | 'onProgress'> {
  /** What the file calls the text. Default: its file's name or URL. */
  dataset?: string
}

export interface Imatrix {
  /** A GGUF file, for quantize() as `imatrix`, `nibl quantize --imatrix` or llama-quantize. */
  readonly blob: Blob
  /** Of the text that was looked at. */
  readonly calibrationTokens: number
}

/**
 * What a text makes of the inputs of every matrix, as `nibl imatrix` and llama.cpp's llama-imatrix keep it: one file for any number of
 * quantized ones, with the bytes of the command. The model comes and goes layer by layer; onProgress has the phase 'measure', whose
 * `loaded` is a share.
 */
export function imatrix(source: Source, options?: ImatrixOptions): Promise<Imatrix>

export interface CachedModel {
  /** As load() was asked for it; of a conversation its name. */
  readonly model: string
  /** A conversation, see save(). */
  readonly state: boolean
  readonly files: string[]
  /** Bytes: of the files, and of what is there of them. */
  readonly size: number
  readonly bytes: number
  /** A load has succeeded with it. */
  readonly complete: boolean
  /** When it was loaded last: milliseconds as of Date.now(). */
  readonly used: number
}

export interface Cache {
  /** Last used first. */
  list(): Promise<CachedModel[]>
  /** Bytes, of all. */
  size(): Promise<number>
  /** All without a name. false if there is none of that name; fails with CACHE_FAILED while a tab uses it. */
  delete(model?: string): Promise<boolean>
  /** Asks the browser not to delete the origin's data when space runs short. Whether it agreed; under Node false. */
  persist(): Promise<boolean>
}

/** What load({ cache }) and save(name) keep. */
export function openCache(cache?: true | string | CacheBackend): Promise<Cache>

/** A place for a cache's files, which all stand beside each other. */
export interface CacheBackend {
  names(): Promise<string[]>
  /** A small file; null if there is none. */
  text(name: string): Promise<string | null>
  /** Opens a file, for writing made where there is none. */
  open(name: string, mode: 'read' | 'write'): Promise<CacheFile>
  /** No error if there is none. */
  remove(name: string): Promise<void>
  /** Waits until nobody else has it; gives what lets it go again. */
  lock(id: string, signal?: AbortSignal): Promise<() => void>
}

export interface CacheFile {
  /** Fills the buffer from an offset on; gives the number of bytes, which is less at the file's end. */
  read(offset: number, buffer: Uint8Array): Promise<number>
  /** All of them, at an offset that may lie behind the end. A want of space is an error named QuotaExceededError. */
  write(offset: number, bytes: Uint8Array): Promise<void>
  /** Comes back when all that was written would survive a loss of power. */
  flush(): Promise<void>
  close(): void
}

export type ErrorCode =
  | 'BAD_ARGUMENT' /* an option or argument is wrong */
  | 'BAD_FILE' /* not a valid model file */
  | 'TRUNCATED' /* the file ends too early */
  | 'UNSUPPORTED_MODEL' /* valid, but something in it is not known here */
  | 'DOWNLOAD_FAILED' /* the server refused (`status`), or the connection broke */
  | 'NOT_FOUND' /* the hub has no such repository, revision or file; the cache no conversation of that name */
  | 'ACCESS_DENIED' /* the hub wants a token, or another one */
  | 'FILE_FAILED' /* a path that cannot be read, or a folder without a model */
  | 'INTEGRITY' /* the file is not the one that was expected */
  | 'QUOTA' /* a warning, or of save(name): no space in the cache */
  | 'CACHE_FAILED' /* a warning, or of save(name) and openCache(): the cache cannot be used */
  | 'TIMEOUT' /* no byte came for `timeout` ms */
  | 'OUT_OF_MEMORY'
  | 'CONTEXT_FULL' /* the prompt is longer than the context */
  | 'BAD_STATE' /* restore() was given something else, or the state of another model */
  | 'BAD_RECEIPT' /* verify() was given something else */
  | 'BAD_GRAMMAR' /* a grammar or schema that is wrong or not supported, or too few tokens for it */
  | 'NOT_FINITE' /* the model computed infinities */
  | 'UNSUPPORTED_ENGINE' /* no WebAssembly SIMD */
  | 'WASM_FAILED' /* the .wasm file could not be loaded */
  | 'WORKER_FAILED' /* the worker could not be started, or ended */
  | 'MISSING_DEPENDENCY' /* messages were given, @huggingface/jinja is not there */
  | 'CLOSED' /* the model was closed */
  | 'CRASHED' /* the core failed; load again */
  | (string & {})

export class NiblError extends Error {
  readonly code: ErrorCode
  /** Of an HTTP answer. */
  readonly status?: number
}

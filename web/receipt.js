/** Receipts: what an answer can be repeated from, on any machine. The native program reads and writes the same
 * (core/cli/receipt.h). Fetched where somebody asks. */
import { NiblError } from './errors.js'
import { biasEntries, generateOptions, loadOptions, readOptions } from './options.js'

/** @typedef {import('./nibl.d.ts').Receipt} Receipt */
/** @typedef {import('./nibl.d.ts').Verification} Verification */

const VERSION = '0.1.0'
const FORMATS = /** @type {const} */ (['gbnf', 'json-schema'])
const FINISHES = ['end', 'stop', 'length', 'abort']
const REPEAT_WINDOW = 64 /* the core's, of which generate() has no option */
const LONGEST = 2 ** 24
const DIGEST = /^[0-9a-f]{64}$/

/**
 * @param {{ info: import('./nibl.d.ts').ModelInfo, loaded: any, request: any, messages?: any[], tools?: any[],
 *   answer: { prompt: number[], tokens: number[], text: string }, stats: import('./nibl.d.ts').Stats,
 *   files: import('./identify.js').ModelFile[] }} parts
 * @returns {Receipt}
 */
export function receiptOf({ info, loaded, request, messages, tools, answer, stats, files }) {
  if (!answer.tokens.length) throw new NiblError('BAD_ARGUMENT', 'There is no receipt of an answer without a token.')
  const { text, chat, bos, maxTokens, temperature, topK, topP, minP, repeatPenalty, stop, logitBias, grammar, seed } = request
  const { kv, activations, quantize } = loaded
  return {
    receipt: 1,
    nibl: VERSION,
    model: { name: info.name, architecture: info.architecture, files },
    prompt: { ...(messages && { messages }), ...(tools?.length && { tools }), text, bos: bos && !chat, tokens: answer.prompt },
    settings: {
      contextLength: info.contextLength, kv, activations, ...(quantize && { quantize }),
      maxTokens: Number.isFinite(maxTokens) ? maxTokens : null,
      temperature, topK, topP, minP, repeatPenalty, repeatWindow: REPEAT_WINDOW, stop,
      logitBias: logitBias.map((/** @type {[number, number]} */ [token, bias]) => [token, Number.isFinite(bias) ? bias : null]),
      ...(grammar && { grammar: { format: FORMATS[grammar.format], text: grammar.text } }),
    },
    seed,
    tokens: answer.tokens,
    text: answer.text,
    finish: stats.finish,
    hash: stats.hash,
    made: { binary: info.binary, threads: info.threads },
  }
}

// ---- Reading ----

/** @param {string} what */
const bad = (what) => new NiblError('BAD_RECEIPT', `This is no receipt: ${what}.`)

/** @param {any} value */
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

/** @param {any} value */
const isTokens = (value) =>
  Array.isArray(value) && value.length > 0 && value.length <= LONGEST && value.every((token) => Number.isInteger(token) && token >= 0 && token < 2 ** 31)

/** @param {any} file */
const isFile = (file) =>
  isObject(file) && typeof file.name === 'string' && Number.isSafeInteger(file.size) && file.size >= 0 &&
  (file.sha256 === null || DIGEST.test(file.sha256))

/** @param {any} grammar */
const isGrammar = (grammar) => isObject(grammar) && FORMATS.includes(grammar.format) && typeof grammar.text === 'string'

/** A member that is missing, or of another kind. @param {any} receipt @returns {string | undefined} */
function faultOf({ model, prompt, settings, seed, tokens, text, finish, hash }) {
  if (!isObject(model) || !Array.isArray(model.files) || !model.files.every(isFile)) return '"model" must have "files" with name, size and sha256'
  if (!isObject(prompt) || typeof prompt.text !== 'string' || typeof prompt.bos !== 'boolean' || !isTokens(prompt.tokens)) {
    return '"prompt" must have a text, "bos" and tokens'
  }
  if (!isTokens(tokens)) return '"tokens" must be a list of ids, one at least'
  if (!isObject(settings)) return '"settings" must be an object'
  if (!(settings.contextLength >= 1 && settings.contextLength <= LONGEST)) return '"contextLength" must be a whole number from 1 on'
  const { repeatWindow, grammar, logitBias, stop } = settings
  if (!Array.isArray(stop)) return '"stop" must be a list of texts'
  if (!Number.isInteger(repeatWindow) || repeatWindow < 1 || repeatWindow >= 2 ** 31) return '"repeatWindow" must be a whole number from 1 on'
  if (!Array.isArray(logitBias) || !logitBias.every((pair) => Array.isArray(pair) && pair.length === 2)) return '"logitBias" must be a list of [token, bias]'
  if (grammar !== undefined && grammar !== null && !isGrammar(grammar)) return '"grammar" must have a format and a text'
  if (!Number.isSafeInteger(seed) || seed < 0) return '"seed" must be a whole number'
  if (typeof text !== 'string') return '"text" must be a text'
  if (!FINISHES.includes(finish)) return `"finish" must be one of ${FINISHES.join(', ')}`
  if (!/^[0-9a-f]{16}$/.test(hash)) return '"hash" must be 16 hexadecimal digits'
  return undefined
}

/** Checks what may be anybody's. @param {any} given @returns {{ receipt: Receipt, loading: any, request: any }} */
function readReceipt(given) {
  let receipt = given
  try {
    if (typeof given === 'string') receipt = JSON.parse(given)
  } catch (cause) {
    throw bad(`it is not JSON (${/** @type {Error} */ (cause).message})`)
  }
  if (!isObject(receipt) || receipt.receipt !== 1) throw bad('it must be an object with "receipt": 1')
  const fault = faultOf(receipt)
  if (fault) throw bad(fault)
  const { contextLength, kv, activations, quantize, maxTokens, repeatWindow, grammar, stop, logitBias, ...sampling } = receipt.settings
  const biases = new Map(logitBias.map((/** @type {any[]} */ [token, bias]) => [token, bias ?? -Infinity]))
  const quantized = quantize === null ? undefined : quantize
  try {
    const loading = readOptions(loadOptions, { contextLength, kv, activations, quantize: quantized })
    const { temperature, topK, topP, minP, repeatPenalty } = sampling
    const options = readOptions(generateOptions, { temperature, topK, topP, minP, repeatPenalty, stop, logitBias: biases, maxTokens: maxTokens ?? Infinity })
    const request = {
      ...options, repeatWindow, seed: receipt.seed, text: receipt.prompt.text, chat: !receipt.prompt.bos,
      stop: [options.stop].flat(), logitBias: biasEntries(biases), cut: receipt.tokens.length,
      grammar: grammar ? { format: FORMATS.indexOf(grammar.format), text: grammar.text } : undefined,
    }
    const [first, more] = receipt.model.files
    const integrity = more ? undefined : (first?.sha256 ?? undefined)
    return { receipt, loading: { contextLength: loading.contextLength, kv: loading.kv, activations: loading.activations, quantize: quantized, integrity }, request }
  } catch (error) {
    if (error instanceof NiblError) throw bad(error.message.replace(/\.$/, ''))
    throw error
  }
}

// ---- Repeating ----

/** @param {import('./identify.js').ModelFile[]} theirs @param {import('./identify.js').ModelFile[]} here */
function compareFiles(theirs, here) {
  if (theirs.length !== here.length) return { what: 'model', at: 0, receipt: `${theirs.length} files`, here: `${here.length} files` }
  for (const [at, file] of theirs.entries()) {
    const other = here[at]
    if (file.size && other.size && file.size !== other.size) return { what: 'model', at, receipt: `${file.size} bytes`, here: `${other.size} bytes` }
    if (file.sha256 && other.sha256 && file.sha256 !== other.sha256) return { what: 'model', at, receipt: file.sha256, here: other.sha256 }
  }
  return null
}

/** The SHA-256 of a file that was hashed on its way. @param {unknown} error @returns {string} */
function otherModel(error) {
  const found = error instanceof NiblError && error.code === 'INTEGRITY' && /[0-9a-f]{64}/.exec(error.message)
  if (!found) throw error
  return found[0]
}

/** @param {string} what @param {ArrayLike<number>} theirs @param {ArrayLike<number>} here */
function compareTokens(what, theirs, here) {
  const length = Math.max(theirs.length, here.length)
  for (let at = 0; at < length; at++) if (theirs[at] !== here[at]) return { what, at, receipt: String(theirs[at] ?? 'nothing'), here: String(here[at] ?? 'nothing') }
  return null
}

/** @param {any} given @param {(settings: any) => Promise<any>} open an engine of a model with these settings
 * @returns {Promise<Verification>} */
export async function repeat(given, open) {
  const { receipt, loading, request } = readReceipt(given)
  const { link, close, args, calls } = await open(loading)
  const { signal } = calls
  const about = { tokens: receipt.tokens.length, hash: receipt.hash }
  try {
    const loaded = await link.call('load', args, calls).catch(otherModel)
    if (!loaded.info) return { ...about, identified: false, equal: false, difference: { what: 'model', at: 0, receipt: String(loading.integrity), here: loaded } }
    const { info } = loaded
    const files = await link.call('files', [], { signal })
    const identified = receipt.model.files.length > 0 && receipt.model.files.every((file, i) => file.sha256 && files[i]?.sha256 === file.sha256)
    const result = (/** @type {any} */ difference) => ({ ...about, identified, equal: !difference, difference })
    const other = compareFiles(receipt.model.files, files)
    if (other) return result(other)
    const prompt = await link.call('tokenize', [receipt.prompt.text, { special: true, bos: receipt.prompt.bos && info.addBos }], { signal })
    const otherPrompt = compareTokens('prompt', receipt.prompt.tokens, prompt)
    if (otherPrompt) return result(otherPrompt)
    /** @type {any} */
    let last
    await link.call('generate', [request], { signal, onEvent: (/** @type {any} */ event) => event.answer && (last = event) })
    const { answer: { tokens, text }, stats: { hash } } = last
    const otherTokens = compareTokens('tokens', receipt.tokens, tokens)
    if (otherTokens) return result(otherTokens)
    if (hash !== receipt.hash) return result({ what: 'hash', at: 0, receipt: receipt.hash, here: hash })
    const same = receipt.finish === 'abort' ? text.startsWith(receipt.text) : text === receipt.text
    return result(same ? null : { what: 'text', at: 0, receipt: receipt.text, here: text })
  } finally {
    close()
  }
}

/** What callers may ask for: names, kinds and defaults, one line each. A name that is not here is refused: a misspelt
 * option would otherwise be ignored in silence. */
import { NiblError } from './errors.js'

/** @typedef {{ fallback?: any, check: (value: any) => boolean, must: string }} Option */

/** @param {number} low @param {number} high */
const integer = (low, high) => ({
  check: (/** @type {any} */ value) => Number.isInteger(value) && value >= low && value <= high,
  must: `be a whole number from ${low} to ${high}`,
})

/** @param {number} low @param {number} high */
const number = (low, high) => ({
  check: (/** @type {any} */ value) => typeof value === 'number' && value >= low && value <= high,
  must: `be a number from ${low} to ${high}`,
})

/** @param {...any} values */
const oneOf = (...values) => ({
  check: (/** @type {any} */ value) => values.includes(value),
  must: `be one of ${values.map((value) => JSON.stringify(value)).join(', ')}`,
})

/** @param {Function} type */
const instance = (type) => ({
  check: (/** @type {any} */ value) => value instanceof type,
  must: `be an ${type.name}`,
})

const address = {
  check: (/** @type {any} */ value) => typeof value === 'string' || value instanceof URL,
  must: 'be a URL',
}
const flag = oneOf(true, false)
const callback = { check: (/** @type {any} */ value) => typeof value === 'function', must: 'be a function' }

/** @param {any} value */
const isObject = (value) => typeof value === 'object' && value !== null

/** @param {any} value */
function isWord(value) {
  return typeof value === 'string' && value.search(/[^!-~]/) < 0 && value !== ''
}

/** @type {Record<string, Option>} */
export const loadOptions = {
  early: { fallback: false, ...flag },
  contextLength: { fallback: 0, ...integer(0, 2 ** 31 - 1) },
  chunk: { fallback: 64, ...integer(1, 512) },
  threads: integer(1, 64),
  sessions: { fallback: 1, ...integer(1, 64) },
  kv: { fallback: 'i8', ...oneOf('i8', 'f16', 'f32') },
  activations: { fallback: 'i8', ...oneOf('i8', 'f32') },
  binary: oneOf('simd128', 'relaxed'),
  worker: { fallback: true, ...flag },
  quantize: { check: (value) => typeof value === 'string' && value !== '', must: "be a type's name, as 'q4_0'" },
  evaluate: { fallback: false, ...flag },
  timeout: { fallback: 30000, ...number(0, 2 ** 31 - 1) },
  retries: { fallback: 4, ...integer(0, 100) },
  cache: {
    check: (value) => typeof value === 'boolean' || (typeof value === 'string' && value !== '') || (isObject(value) && typeof value.open === 'function'),
    must: 'be true, a name or a backend',
  },
  allowOffline: { fallback: false, ...flag },
  integrity: { check: (value) => value === true || typeof value === 'string' || isObject(value), must: 'be true, a SHA-256 or an object of them by file name' },
  headers: { check: isObject, must: 'be an object or Headers' },
  hub: { fallback: 'https://huggingface.co', ...address },
  token: { check: isWord, must: 'be a string without spaces' },
  wasmUrl: address,
  workerUrl: address,
  signal: instance(AbortSignal),
  onProgress: callback,
  onWarning: callback,
}

const inspectNames = [
  'quantize', 'contextLength', 'threads', 'sessions', 'kv', 'binary', 'worker', 'timeout', 'retries', 'headers', 'hub', 'token', 'wasmUrl', 'workerUrl', 'signal',
]
/** @type {Record<string, Option>} */
export const inspectOptions = Object.fromEntries(inspectNames.map((name) => [name, loadOptions[name]]))

/** @type {Record<string, Option>} */
export const fitOptions = { ...inspectOptions, memory: { fallback: 4e9, ...number(1, 1e15) } }

const typeName = loadOptions.quantize
const names = { check: (/** @type {any} */ value) => [value].flat().every(typeName.check), must: "be a name or a list of them, as ['awq', 'gptq']" }
const quantizeNames = ['threads', 'binary', 'worker', 'timeout', 'retries', 'headers', 'hub', 'token', 'wasmUrl', 'workerUrl', 'signal', 'onProgress']
/** @type {Record<string, Option>} */
export const quantizeOptions = {
  type: typeName,
  scheme: typeName,
  embedding: typeName,
  head: typeName,
  tensors: { check: (value) => isObject(value) && Object.values(value).every(typeName.check), must: 'be an object from patterns of names to types' },
  method: names,
  recipe: { check: (value) => isObject(value) || typeof value === 'string', must: 'be a recipe: an object or its JSON' },
  calibration: {
    check: (value) => value === true || typeof value === 'string' || value instanceof URL || value instanceof Blob,
    must: 'be a text, a URL, a Blob, or true for the default text',
  },
  imatrix: {
    check: (value) => [value instanceof Uint8Array, value instanceof ArrayBuffer, value instanceof Blob, address.check(value)].some(Boolean),
    must: 'be a URL, Blob or Uint8Array, or under Node a path',
  },
  calibrationTokens: { fallback: 8192, ...integer(1, 2 ** 20) },
  size: number(1, 2 ** 40),
  bitsPerWeight: number(1, 16),
  types: names,
  format: oneOf('gguf', 'safetensors'),
  shardBytes: { fallback: 0, ...integer(0, 2 ** 32 - 1) },
  requantize: { fallback: false, ...flag },
  force: { fallback: false, ...flag },
  measure: { fallback: false, ...flag },
  sink: { check: (value) => value instanceof WritableStream || typeof value === 'function', must: 'be a WritableStream, or a function that gives one for a name' },
  ...Object.fromEntries(quantizeNames.map((name) => [name, loadOptions[name]])),
}

/** @type {Record<string, Option>} */
export const imatrixOptions = {
  dataset: { check: (value) => typeof value === 'string', must: 'be a name' },
  ...Object.fromEntries(['calibration', 'calibrationTokens', ...quantizeNames].map((name) => [name, quantizeOptions[name]])),
}

/** @type {Record<string, Option>} */
export const scoreOptions = {
  first: { fallback: 1, ...integer(1, 2 ** 31 - 1) },
  reference: { check: (value) => isObject(value?.info), must: 'be a model' },
  signal: instance(AbortSignal),
}

/** @type {Record<string, Option>} */
export const generateOptions = {
  maxTokens: { fallback: Infinity, check: (value) => value >= 0 && (Number.isInteger(value) || value === Infinity), must: 'be a whole number' },
  temperature: { fallback: 0, ...number(0, 100) },
  topK: { fallback: 0, ...integer(0, 2 ** 31 - 1) },
  topP: { fallback: 1, ...number(0, 1) },
  minP: { fallback: 0, ...number(0, 1) },
  repeatPenalty: { fallback: 1, ...number(0.01, 100) },
  seed: integer(0, Number.MAX_SAFE_INTEGER),
  speculate: { fallback: true, ...flag },
  stop: {
    fallback: [],
    check: (value) => [value].flat().every((stop) => typeof stop === 'string' && stop !== ''),
    must: 'be a string or an array of strings that are not empty',
  },
  logitBias: {
    fallback: {},
    check: (value) => isObject(value) && biasEntries(value).every(isBias),
    must: 'be an object or Map from token id to number',
  },
  schema: { check: (value) => typeof value === 'boolean' || isObject(value), must: 'be a JSON Schema' },
  grammar: { check: (value) => typeof value === 'string', must: 'be a grammar in GBNF' },
  json: { fallback: false, ...flag },
  overflow: { fallback: 'error', ...oneOf('error', 'shift') },
  tools: { fallback: [], check: Array.isArray, must: 'be an array of tools' },
  signal: instance(AbortSignal),
}

/** @type {Record<string, Option>} */
export const embedOptions = { pooling: { fallback: 'mean', ...oneOf('mean', 'last') }, normalize: { fallback: true, ...flag }, signal: generateOptions.signal }

/** What the core is told of these. @param {{ schema?: any, grammar?: string, json: boolean }} options */
export function grammarOf({ schema, grammar, json }) {
  if (Number(schema !== undefined) + Number(grammar !== undefined) + Number(json) > 1) {
    throw new NiblError('BAD_ARGUMENT', 'Only one of the options "schema", "grammar" and "json" can be given.')
  }
  if (grammar !== undefined) return { format: 0, text: grammar }
  if (json) return { format: 1, text: '{"type":"object"}' }
  if (schema === undefined) return undefined
  try {
    return { format: 1, text: JSON.stringify(schema) }
  } catch (cause) {
    throw new NiblError('BAD_ARGUMENT', `The option "schema" is no JSON: ${/** @type {Error} */ (cause).message}`, { cause })
  }
}

/** @param {Record<string, number> | Map<number, number>} bias @returns {[number, number][]} */
export function biasEntries(bias) {
  const entries = bias instanceof Map ? [...bias] : Object.entries(bias)
  return entries.map(([token, value]) => [Number(token), value])
}

/** @param {[number, number]} entry */
function isBias([token, value]) {
  return Number.isInteger(token) && token >= 0 && typeof value === 'number' && !Number.isNaN(value)
}

/** Checks what was given and fills in the rest. @param {Record<string, Option>} table @param {Record<string, any>} given
 * @returns {any} */
export function readOptions(table, given) {
  if (!isObject(given)) throw new NiblError('BAD_ARGUMENT', 'The options must be an object.')
  for (const name of Object.keys(given)) {
    if (name in table) continue
    const names = Object.keys(table).join(', ')
    throw new NiblError('BAD_ARGUMENT', `There is no option "${name}". There are: ${names}.`)
  }
  /** @type {Record<string, any>} */
  const options = {}
  for (const [name, { fallback, check, must }] of Object.entries(table)) {
    const value = given[name] ?? fallback
    if (value !== undefined && value !== fallback && !check(value)) {
      throw new NiblError('BAD_ARGUMENT', `The option "${name}" must ${must}, but is ${JSON.stringify(value)}.`)
    }
    options[name] = value
  }
  return options
}

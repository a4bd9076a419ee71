/** Calls of tools in a model's text, found as it comes: Hermes and Qwen write them within <tool_call>, Mistral as a list behind
 * [TOOL_CALLS], Llama 3 as bare JSON. */
import { overlap } from './stop.js'

/** @typedef {import('./tools.js').Tool} Tool */
/** @typedef {{ name: string, arguments: string }} Call `arguments`: JSON */

/** A piece of the answer: text that is no call; or of call number `call` its name, which comes first, or more of its arguments.
 * @typedef {{ text: string } | { call: number, name: string } | { call: number, arguments: string }} Part */

const TAG = '<tool_call>'
const END_TAG = '</tool_call>'
const LIST = '[TOOL_CALLS]'
const PYTHON = '<|python_tag|>'

export class CallReader {
  #names
  #rest = ''
  /** Before anything but blanks came; in a text; in calls. @type {'start' | 'text' | 'calls'} */
  #mode = 'start'
  /** Of calls: the text since they began, until one was told: it may turn out to be none; what ends them. */
  #opening = ''
  /** @type {'' | ']' | '</tool_call>'} */
  #close = ''
  /** Of the call at hand, characters of its arguments that were told; -1: not even its name. */
  #told = -1
  /** Whether one was told since they began. */
  #any = false
  /** Calls that were begun. */
  count = 0

  /** @param {Tool[]} tools other names are no calls */
  constructor(tools) {
    this.#names = new Set(tools.map((tool) => tool.function.name))
  }

  /** Whether a call was begun that has not ended. */
  get open() {
    return this.#told >= 0
  }

  /** @param {string} piece @returns {Part[]} */
  push(piece) {
    this.#rest += piece
    /** @type {Part[]} */
    const parts = []
    while (this.#mode === 'calls' ? this.#readCall(parts) : this.#readText(parts));
    return parts
  }

  /** What was held back, once nothing follows. @returns {Part[]} */
  end() {
    const rest = this.open ? '' : this.#opening + this.#rest
    this.#rest = ''
    const text = this.count ? rest.trimEnd() : rest
    return text ? [{ text }] : []
  }

  /** @param {'' | ']' | '</tool_call>'} close @param {number} from @param {number} to where the opening stands */
  #begin(close, from, to) {
    this.#mode = 'calls'
    this.#any = false
    this.#opening = this.#rest.slice(from, to)
    this.#close = close
    this.#rest = this.#rest.slice(to)
    return true
  }

  /** Reads what is no call; returns whether there is more to read. @param {Part[]} parts */
  #readText(parts) {
    const rest = this.#rest
    if (this.#mode === 'start') {
      const [before, first] = /** @type {RegExpExecArray} */ (/^\s*(?:<\|python_tag\|>\s*)?([^]?)/.exec(rest))
      if (!first || (first === '<' && PYTHON.startsWith(rest.trim())) || LIST.startsWith(rest.trim())) return false
      if (first === '{') return this.#begin('', 0, before.length - 1)
      if (first === '[' && !rest.trim().startsWith(LIST)) return this.#begin(']', 0, before.length)
      this.#mode = 'text'
    }
    const found = [TAG, LIST].map((opening) => rest.indexOf(opening)).filter((at) => at >= 0)
    const at = Math.min(...found, rest.length)
    const held = found.length ? 0 : Math.max(overlap(rest, TAG), overlap(rest, LIST))
    /* Blanks before a call are no part of the text. */
    const text = rest.slice(0, at - held).trimEnd()
    if (text) parts.push({ text })
    if (found.length) return rest.startsWith(TAG, at) ? this.#begin(END_TAG, text.length, at + TAG.length) : this.#begin(']', text.length, at + LIST.length)
    this.#rest = rest.slice(text.length)
    return false
  }

  /** What follows is no call: where none was told, what began it is text. @param {Part[]} parts */
  #leave(parts, length = 0 /* of what ends them */) {
    this.#take(length)
    if (this.#opening) parts.push({ text: this.#opening })
    this.#opening = ''
    this.#mode = 'text'
    return true
  }

  /** @param {number} length */
  #take(length) {
    if (!this.#any) this.#opening += this.#rest.slice(0, length)
    this.#rest = this.#rest.slice(length)
    return true
  }

  /** Reads a call, or what stands around it; returns whether there is more to read. @param {Part[]} parts */
  #readCall(parts) {
    if (!this.open) this.#take(this.#rest.length - this.#rest.trimStart().length)
    const rest = this.#rest
    if (!rest) return false
    if (this.#close === ']' && '[,'.includes(rest[0])) return this.#take(1)
    if (this.#close && rest.startsWith(this.#close)) return this.#leave(parts, this.#close.length)
    if (this.#close && this.#close.startsWith(rest)) return false
    const { name, at, stop, end, bad } = scanCall(rest)
    if (bad && this.open) {
      this.#told = -1
      return this.#leave(parts, stop)
    }
    if (bad || (name !== undefined && !this.#names.has(name))) return this.#leave(parts)
    if (name === undefined || (at === undefined && end === undefined)) return false
    const value = at === undefined ? '{}' : rest.slice(at, stop)
    /* A text is JSON within JSON, and told when it is whole; so is what is no object. */
    const isObject = value[0] === '{'
    if (!isObject && end === undefined) return false
    if (!this.open) {
      parts.push({ call: this.count, name })
      this.count++
      this.#told = 0
      this.#any = true
      this.#opening = ''
    }
    const text = isObject ? value : value[0] === '"' ? parseText(value) : value
    if (text.length > this.#told) parts.push({ call: this.count - 1, arguments: text.slice(this.#told) })
    this.#told = text.length
    if (end === undefined) return false
    this.#told = -1
    this.#take(end)
    return this.#close ? true : this.#leave(parts)
  }
}

/** Of an object that begins the text, as far as it is there: its name, where its arguments begin and stop, where it ends.
 * @param {string} text @returns {{ name?: string, at?: number, stop?: number, end?: number, bad?: boolean }} */
function scanCall(text) {
  /** @type {ReturnType<typeof scanCall>} */
  const call = {}
  if (text[0] !== '{') return { bad: true }
  const blanks = /[\s,]*/y
  const skip = (/** @type {number} */ from) => {
    blanks.lastIndex = from
    blanks.exec(text)
    return blanks.lastIndex
  }
  for (let i = skip(1); i < text.length; i = skip(i)) {
    if (text[i] === '}') return { ...call, end: i + 1 }
    if (text[i] !== '"') return { ...call, bad: true }
    const colon = skip(valueEnd(text, i) ?? text.length)
    if (colon >= text.length) return call
    if (text[colon] !== ':') return { ...call, bad: true }
    const key = text.slice(i + 1, text.lastIndexOf('"', colon))
    const at = skip(colon + 1)
    const stop = valueEnd(text, at)
    if (key === 'name') {
      if (at < text.length && text[at] !== '"') return { bad: true }
      if (stop !== undefined) call.name = parseText(text.slice(at, stop))
    } else if (['arguments', 'parameters'].includes(key) && call.at === undefined && at < text.length) {
      Object.assign(call, { at, stop })
    }
    if (stop === undefined) return call
    i = stop
  }
  return call
}

/** @param {string} json @returns {string} */
function parseText(json) {
  try {
    return JSON.parse(json)
  } catch {
    return json
  }
}

/** Where the JSON value ends that begins there; undefined: not yet. @param {string} text @param {number} at */
function valueEnd(text, at) {
  const nested = '{['.includes(text[at])
  if (!nested && text[at] !== '"') {
    const length = text.slice(at).search(/[\s,\]}]/)
    return length < 0 ? undefined : at + length
  }
  let depth = 0
  let quoted = false
  for (let i = at; i < text.length; i++) {
    const c = text[i]
    if (quoted && c === '\\') i++
    else if (c === '"') quoted = !quoted
    else if (!quoted && '{['.includes(c)) depth++
    else if (!quoted && '}]'.includes(c)) depth--
    if (depth === 0 && !quoted) return i + 1
  }
  return undefined
}

/** The calls of a whole answer, and what is left of it; one with arguments that are no JSON has none.
 * @param {string} text @param {Tool[]} tools @returns {{ content: string | null, calls: Call[] }} */
export function readCalls(text, tools) {
  const reader = new CallReader(tools)
  let content = ''
  /** @type {Call[]} */
  const calls = []
  for (const part of [...reader.push(text), ...reader.end()]) {
    if ('text' in part) content += part.text
    else if ('name' in part) calls.push({ name: part.name, arguments: '' })
    else calls[part.call].arguments += part.arguments
  }
  try {
    if (!calls.length || reader.open) return { content: text, calls: [] }
    const compact = calls.map(({ name, arguments: json }) => ({ name, arguments: JSON.stringify(JSON.parse(json)) }))
    return { content: content.trim() || null, calls: compact }
  } catch {
    return { content: text, calls: [] }
  }
}

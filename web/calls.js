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
  /** @type {CallScanner | null} the call at hand, as far as it was read */
  #call = null
  /** Whether one was told since they began. */
  #any = false
  /** Calls that were begun. */
  count = 0

  /** @param {Tool[]} tools other names are no calls */
  constructor(tools) {
    this.#names = new Set(tools.map((tool) => tool.function.name))
  }

  /** Whether a call was begun that has not ended. */
  open = false

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
    const rest = this.open ? '' : this.#opening + (this.#call?.text ?? '') + this.#rest
    this.#rest = ''
    this.#call = null
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
    if (!this.#call) {
      this.#take(this.#rest.length - this.#rest.trimStart().length)
      const rest = this.#rest
      if (!rest) return false
      if (this.#close === ']' && '[,'.includes(rest[0])) return this.#take(1)
      if (this.#close && rest.startsWith(this.#close)) return this.#leave(parts, this.#close.length)
      if (this.#close && this.#close.startsWith(rest)) return false
      this.#call = new CallScanner()
    }
    const call = this.#call
    const used = call.push(this.#rest)
    this.#rest = this.#rest.slice(used)
    const { name, ended, bad } = call
    if (bad || (name !== undefined && !this.#names.has(name))) {
      this.#rest = (this.open ? call.behind : call.text) + this.#rest
      this.open = false
      this.#call = null
      return this.#leave(parts)
    }
    /* A text is JSON within JSON, and told when it is whole; so is what is no object. */
    if (name === undefined || !(ended || call.first === '{')) return false
    if (!this.open) {
      parts.push({ call: this.count, name })
      this.count++
      this.open = true
      this.#any = true
      this.#opening = ''
      call.text = ''
    }
    const value = call.first === '' ? '{}' : call.take()
    const text = call.first === '"' ? parseText(value) : value
    if (text) parts.push({ call: this.count - 1, arguments: text })
    if (!ended) return false
    this.open = false
    this.#call = null
    return this.#close ? true : this.#leave(parts)
  }
}

/** Reads an object that is a call as it comes, every character once. */
class CallScanner {
  /** All of it; what came behind its arguments. */
  text = ''
  behind = ''
  /** @type {string | undefined} */
  name
  /** What its arguments, the first of them, begin with; '' before they do. */
  first = ''
  #inArguments = false
  ended = false
  bad = false
  /** Of its arguments, what was not taken. */
  #arguments = ''
  /** @type {'{' | 'key' | ':' | 'value'} */
  #awaits = '{'
  #key = ''
  /** The key or name at hand; what the key or value at hand begins with, '' between them. */
  #part = ''
  #kind = ''
  #depth = 0
  #quoted = false
  #escaped = false

  /** What came of the arguments since this was asked last. */
  take() {
    const some = this.#arguments
    this.#arguments = ''
    return some
  }

  /** @param {string} text @returns {number} how much of it belongs to the object */
  push(text) {
    let at = 0
    while (at < text.length && !this.ended && !this.bad) {
      const wasIn = this.#inArguments
      const next = this.#kind ? this.#read(text, at) : this.#next(text, at)
      const some = text.slice(at, next)
      this.text += some
      if (wasIn) this.#arguments += some
      else if (this.first) this.behind += some
      at = next
    }
    return at
  }

  /** A character between keys and values. @param {string} text @param {number} at @returns {number} where to go on */
  #next(text, at) {
    const c = text[at]
    if (this.#awaits !== '{' && /[\s,]/.test(c)) return at + 1
    if (this.#awaits === 'key' && c === '}') {
      this.ended = true
      return at + 1
    }
    if (this.#awaits === '{' || this.#awaits === ':') {
      this.bad = c !== this.#awaits
      this.#awaits = this.#awaits === '{' ? 'key' : 'value'
      return this.bad ? at : at + 1
    }
    const isText = this.#awaits === 'key' || this.#key === 'name'
    if (isText && c !== '"') {
      this.bad = true
      return at
    }
    this.#kind = c
    this.#part = ''
    if (!this.first && this.#awaits === 'value' && ['arguments', 'parameters'].includes(this.#key)) {
      this.first = c
      this.#inArguments = true
    }
    return at
  }

  /** More of a key or value. @param {string} text @param {number} from @returns {number} where to go on */
  #read(text, from) {
    const nested = '{['.includes(this.#kind)
    let at = from
    let done = false
    while (at < text.length && !done) {
      const c = text[at]
      if (!nested && this.#kind !== '"') {
        done = /[\s,\]}]/.test(c)
        if (done) break
      } else {
        if (this.#escaped) this.#escaped = false
        else if (this.#quoted && c === '\\') this.#escaped = true
        else if (c === '"') this.#quoted = !this.#quoted
        else if (!this.#quoted && '{['.includes(c)) this.#depth++
        else if (!this.#quoted && '}]'.includes(c)) this.#depth--
        done = this.#depth === 0 && !this.#quoted
      }
      at++
    }
    if (this.#awaits === 'key' || this.#key === 'name') this.#part += text.slice(from, at)
    if (done) this.#end()
    return at
  }

  #end() {
    this.#kind = ''
    this.#inArguments = false
    if (this.#awaits === 'key') this.#key = this.#part.slice(1, -1)
    else if (this.#key === 'name') this.name = parseText(this.#part)
    this.#awaits = this.#awaits === 'key' ? ':' : 'key'
  }
}

/** @param {string} json @returns {string} */
function parseText(json) {
  try {
    return JSON.parse(json)
  } catch {
    return json
  }
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

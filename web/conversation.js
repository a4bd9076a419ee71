/**
 * Conversations on one model, and their states: what was said, and the keys and values computed of it.
 *
 *   8 bytes   "nibltalk"
 *   u32       bytes of the messages, little-endian
 *   64 bytes  their SHA-256, hexadecimal
 *   messages  JSON
 *   the rest  nibl_session_save's, which has a checksum of its own
 */
import { NiblError } from './errors.js'
import { sha256 as hasher } from './sha256.js'

/** @typedef {import('./nibl.d.ts').Message} Message */
/** @typedef {import('./nibl.d.ts').Piece} Piece */

const MAGIC = 'nibltalk'
const HEAD = MAGIC.length + 4 + 64
const LONGEST = 1 << 28

/** @param {Uint8Array} bytes */
const sha256 = (bytes) => hasher().update(bytes).digest('hex')

/** @param {Message[]} messages @param {Blob} kv */
function writeConversation(messages, kv) {
  const json = new TextEncoder().encode(JSON.stringify(messages))
  const head = new Uint8Array(HEAD)
  head.set(new TextEncoder().encode(MAGIC))
  new DataView(head.buffer).setUint32(MAGIC.length, json.length, true)
  head.set(new TextEncoder().encode(sha256(json)), MAGIC.length + 4)
  return new Blob([head, json, kv])
}

/** @param {Blob} state anybody's @returns {Promise<{ messages: Message[], kv: Blob }>} */
export async function readConversation(state) {
  const bytes = async (/** @type {number} */ from, /** @type {number} */ to) => new Uint8Array(await state.slice(from, to).arrayBuffer())
  const bad = (/** @type {string} */ what) => new NiblError('BAD_STATE', `This is no saved conversation: ${what}.`)
  const head = await bytes(0, HEAD)
  if (head.length < HEAD || new TextDecoder().decode(head.subarray(0, MAGIC.length)) !== MAGIC) throw bad('it begins otherwise')
  const end = HEAD + new DataView(head.buffer).getUint32(MAGIC.length, true)
  if (end > state.size || end > LONGEST) throw bad('it ends too early')
  const json = await bytes(HEAD, end)
  if (sha256(json) !== new TextDecoder().decode(head.subarray(MAGIC.length + 4))) throw bad('its messages are damaged')
  const messages = parsed(json)
  if (!Array.isArray(messages) || !messages.every((message) => typeof message?.role === 'string')) throw bad('its messages are none')
  return { messages, kv: state.slice(end) }
}

/** @param {Uint8Array} json */
function parsed(json) {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json))
  } catch {
    return undefined
  }
}

/** @typedef {{ save: (messages: Message[]) => Promise<Blob>, keep: (name: string, state: Blob) => Promise<void> }} States */

/** @implements {ConversationType} */
export class Conversation {
  #model
  #states
  /** The call before. @type {Promise<unknown>} */
  #before = Promise.resolve()

  /** @param {import('./nibl.d.ts').Model} model @param {States} states @param {Message[]} messages */
  constructor(model, states, messages) {
    this.#model = model
    this.#states = states
    this.messages = [...messages]
  }

  /** Waits for the call before; gives what lets the next one go on. @returns {Promise<() => void>} */
  async #turn() {
    const before = this.#before
    let done = () => {}
    this.#before = new Promise((resolve) => (done = () => resolve(undefined)))
    await before
    return done
  }

  /** @param {string | Message[]} prompt @param {import('./nibl.d.ts').GenerateOptions} [options] @returns {AsyncGenerator<Piece, void, void>} */
  async *generate(prompt, options) {
    const turns = typeof prompt === 'string' ? [{ role: 'user', content: prompt }] : [...prompt]
    const done = await this.#turn()
    try {
      let content = ''
      for await (const piece of this.#model.generate([...this.messages, ...turns], options)) {
        content += piece.text
        yield piece
      }
      this.messages.push(...turns, { role: 'assistant', content })
    } finally {
      done()
    }
  }

  fork() {
    return new Conversation(this.#model, this.#states, this.messages)
  }

  /** @param {string} [name] */
  async save(name) {
    const done = await this.#turn()
    try {
      const messages = [...this.messages]
      const state = writeConversation(messages, messages.length ? await this.#states.save(messages) : new Blob())
      if (name !== undefined) await this.#states.keep(String(name), state)
      return state
    } finally {
      done()
    }
  }
}

/** @typedef {import('./nibl.d.ts').Conversation} ConversationType */

/**
 * Files that must have a certain SHA-256. What is read in order is hashed on the way; what was not read so, because the
 * model wanted it in another order or not at all, is read at the end: from the cache, else once more from its source.
 */
import { NiblError } from './errors.js'
import { sha256 } from './sha256.js'

/** @typedef {import('./stream.js').Source} Source */
/** @typedef {import('./stream.js').Stream} Stream */

/** What is expected of files by name. @param {true | string | Record<string, string>} integrity as in nibl.d.ts */
export function readIntegrity(integrity) {
  if (integrity === true) return true
  const expected = typeof integrity === 'string' ? { '': integrity } : integrity
  return Object.fromEntries(Object.entries(expected).map(([name, value]) => [name, hexOf(value)]))
}

/** @param {unknown} value hexadecimal, or as HTML has it: 'sha256-' and base64 */
function hexOf(value) {
  const text = String(value)
  if (/^[0-9a-f]{64}$/i.test(text)) return text.toLowerCase()
  if (/^sha256-[\w+/]{43}=$/.test(text)) return Array.from(atob(text.slice(7)), (c) => c.charCodeAt(0).toString(16).padStart(2, '0')).join('')
  throw new NiblError('BAD_ARGUMENT', `The option "integrity" must be a SHA-256 in hexadecimal or as 'sha256-...' in base64, but is ${JSON.stringify(value)}.`)
}

/** @implements {Source} */
export class CheckedSource {
  #source
  #expected
  #isFirst
  /** @type {CheckedSource[]} */
  #siblings = []
  #hash = sha256()
  #hashed = 0
  #size = 0
  /** @type {Stream | null} */
  #stream = null
  /** @type {string | null} */
  checked = null

  /** @param {Source} source @param {true | Record<string, string>} expected by file name; '' is the first file */
  constructor(source, expected, isFirst = true) {
    this.#source = source
    this.#expected = expected
    this.#isFirst = isFirst
  }

  get name() {
    return this.#source.name
  }

  get fileName() {
    return this.#source.fileName
  }

  again() {
    return this.#source.again?.() ?? false
  }

  async resolve() {
    await this.#source.resolve?.()
    if (this.#expected !== true || this.#source.sha256 !== undefined || this.fileName === 'config.json') return
    const message = `${this.name}: nobody tells the SHA-256 of this file: "integrity" must be that instead of true.`
    throw new NiblError('BAD_ARGUMENT', message)
  }

  /** @param {import('./stream.js').Range} [range] @returns {Promise<Stream>} */
  async open(range) {
    const stream = await this.#source.open(range)
    this.#size ||= stream.size
    const read = async () => {
      const at = stream.offset
      const bytes = await stream.read()
      if (bytes && at <= this.#hashed && at + bytes.length > this.#hashed) {
        this.#hash.update(bytes.subarray(this.#hashed - at))
        this.#hashed = at + bytes.length
      }
      return bytes
    }
    this.#stream = {
      get offset() {
        return stream.offset
      },
      size: stream.size,
      ranged: stream.ranged,
      read,
      cancel: () => stream.cancel(),
    }
    return this.#stream
  }

  /** @param {string} fileName */
  sibling(fileName) {
    const sibling = new CheckedSource(this.#source.sibling(fileName), this.#expected, false)
    this.#siblings.push(sibling)
    return sibling
  }

  /** The SHA-256 that the file should have; undefined if anything goes. */
  get #wanted() {
    if (this.#expected === true) return this.#source.sha256
    return this.#expected[this.fileName] ?? (this.#isFirst ? this.#expected[''] : undefined)
  }

  /** Reads the rest and compares, this file and the others. */
  async verify() {
    for (const sibling of this.#siblings) await sibling.verify()
    const wanted = this.#wanted
    if (wanted === undefined) return
    if (this.#stream) while (this.#stream.offset === this.#hashed && (await this.#stream.read()));
    if (this.#hashed < this.#size) {
      const rest = await this.open({ start: this.#hashed, end: this.#size })
      while (await rest.read());
    }
    const found = (this.checked = this.#hash.digest('hex'))
    if (found === wanted) return
    throw new NiblError('INTEGRITY', `${this.name} has the SHA-256 ${found}, but ${wanted} is expected. It was not used; is it the right file?`)
  }
}

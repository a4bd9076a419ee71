/**
 * One file in a cache: its bytes, as far as they are there, and a journal that tells which. The journal is only ever
 * appended to, a line of JSON at a time, behind the bytes that it speaks of:
 *   { key, name, model, size, validator }   the beginning: whose bytes these are; size 0, validator null if unknown; `state`: a
 *                                           conversation's, `turn`: the later of two counts
 *   [start, end]                            these bytes are there
 *   { complete: true, size, used }          a load has had all it needs
 *   { used }                                when, in ms
 * A line that was cut off is as if it had not been written.
 */

/** @typedef {import('./nibl.d.ts').CacheBackend} Backend */
/** @typedef {import('./nibl.d.ts').CacheFile} CacheFile */
/** @typedef {{ key: string, name: string, model: string, size: number, validator: string | null, state?: boolean, turn?: number }} Head */

/** Written at least this often, so that little is lost with a closed tab. */
const STEP = 512 << 10
const STEPS = 512 /* of a large file */

const utf8 = new TextEncoder()

/** What a journal says. @param {string} text */
export function readJournal(text) {
  /** @type {{ head: Head | null, ranges: Ranges, complete: boolean, used: number }} */
  const state = { head: null, ranges: new Ranges(), complete: false, used: 0 }
  for (const line of text.split('\n')) {
    let record
    try {
      record = JSON.parse(line)
    } catch {
      continue
    }
    if (Array.isArray(record)) state.ranges.add(Number(record[0]), Number(record[1]))
    else if (typeof record?.key === 'string') Object.assign(state, { head: record, ranges: new Ranges(), complete: false })
    else if (record?.complete && state.head) {
      state.complete = true
      state.head.size ||= Number(record.size)
    }
    if (record?.used) state.used = Number(record.used)
  }
  return state
}

/** Ranges of bytes that do not touch, in order. */
export class Ranges {
  /** @type {[number, number][]} */
  list = []

  /** @param {number} start @param {number} end */
  add(start, end) {
    if (!(start >= 0 && start < end)) return
    const before = this.list.filter((range) => range[1] < start)
    const after = this.list.filter((range) => range[0] > end)
    const met = this.list.slice(before.length, this.list.length - after.length)
    /** @type {[number, number]} */
    const joined = [Math.min(start, ...met.map((range) => range[0])), Math.max(end, ...met.map((range) => range[1]))]
    this.list = [...before, joined, ...after]
  }

  /** Where the bytes that are there from `offset` on end; `offset` if there are none. @param {number} offset */
  endOf(offset) {
    return this.list.find(([start, end]) => start <= offset && offset < end)?.[1] ?? offset
  }

  /** Where the next bytes that are there begin. @param {number} offset */
  nextStart(offset) {
    return this.list.find(([start]) => start > offset)?.[0] ?? Infinity
  }

  get bytes() {
    return this.list.reduce((sum, [start, end]) => sum + end - start, 0)
  }
}

export class Entry {
  #backend
  #id
  #signal
  #release = () => {}
  /** @type {Promise<CacheFile> | null} */
  #data = null
  /** @type {CacheFile | null} */
  #journal = null
  #written = 0
  /** Of a complete file, that it was used. @type {Promise<void>} */
  #noted = Promise.resolve()
  /** Not in the journal yet. */
  #fresh = new Ranges()
  /** @type {Head | null} */
  head = null
  ranges = new Ranges()
  complete = false

  /** @param {Backend} backend @param {string} id @param {AbortSignal} [signal] */
  constructor(backend, id, signal) {
    this.#backend = backend
    this.#id = id
    this.#signal = signal
  }

  /** Waits until nobody else fills it. @param {Backend} backend @param {string} id @param {AbortSignal} [signal] */
  static async open(backend, id, signal) {
    const entry = new Entry(backend, id, signal)
    try {
      await entry.#lock()
      if (entry.complete) entry.#open().catch(() => {}) /* read() tells */
      const noted = entry.#append({ used: Date.now() })
      /* Nothing will be written: others may read as well. */
      if (entry.complete) entry.#noted = noted.finally(() => entry.#letGo())
      else await noted
      entry.#noted.catch(() => {}) /* close() tells */
      return entry
    } catch (error) {
      await entry.close().catch(() => {})
      throw error
    }
  }

  async #lock() {
    this.#release = await this.#backend.lock(this.#id, this.#signal)
    const text = (await this.#backend.text(`${this.#id}.journal`)) ?? ''
    const { head, ranges, complete } = readJournal(text)
    Object.assign(this, { head, ranges, complete })
    this.#written = utf8.encode(text).length
  }

  /** @param {...object} records */
  async #append(...records) {
    this.#journal ??= await this.#backend.open(`${this.#id}.journal`, 'write')
    const bytes = utf8.encode(records.map((record) => `\n${JSON.stringify(record)}`).join(''))
    await this.#journal.write(this.#written, bytes)
    this.#written += bytes.length
  }

  #open() {
    return (this.#data ??= this.#backend.open(`${this.#id}.data`, this.complete ? 'read' : 'write'))
  }

  /** @param {number} offset @param {Uint8Array} buffer @returns {Promise<number>} bytes */
  async read(offset, buffer) {
    return (await this.#open()).read(offset, buffer)
  }

  /** @param {Head} head of which these bytes are @param {number} offset @param {Uint8Array} bytes */
  async write(head, offset, bytes) {
    /* A model that was complete wants more, as with other options. */
    if (this.complete) await this.#reopen()
    if (!this.head) await this.#append((this.head = head))
    await (await this.#open()).write(offset, bytes)
    this.ranges.add(offset, offset + bytes.length)
    this.#fresh.add(offset, offset + bytes.length)
    if (this.#fresh.bytes >= Math.max(STEP, this.head.size / STEPS)) await this.#checkpoint()
  }

  async #reopen() {
    await this.close()
    await this.#lock()
    this.complete = false
  }

  async #checkpoint() {
    if (!this.#fresh.list.length) return
    await (await this.#data)?.flush()
    await this.#append(...this.#fresh.list)
    this.#fresh = new Ranges()
  }

  /** All that a load needs is there. @param {number} size */
  async commit(size) {
    if (this.complete) return
    await this.#checkpoint()
    await this.#append({ complete: true, size, used: Date.now() })
    this.complete = true
  }

  /** Forgets the bytes. */
  async clear() {
    if (this.complete) await this.#reopen()
    await this.#closeData()
    this.#closeJournal()
    this.head = null
    this.ranges = new Ranges()
    this.#fresh = new Ranges()
    this.#written = 0
    await this.#backend.remove(`${this.#id}.journal`)
    await this.#backend.remove(`${this.#id}.data`)
  }

  async #closeData() {
    const data = this.#data
    this.#data = null
    await data?.then((file) => file.close(), () => {})
  }

  #closeJournal() {
    this.#journal?.close()
    this.#journal = null
  }

  /** Others may have the file. */
  #letGo() {
    this.#closeJournal()
    this.#release()
    this.#release = () => {}
  }

  async close() {
    const noted = this.#noted
    this.#noted = Promise.resolve()
    try {
      if (this.complete) await noted
      else await this.#checkpoint()
    } finally {
      await this.#closeData()
      this.#letGo()
    }
  }
}

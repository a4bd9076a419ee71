/**
 * Models kept on this machine. A cached source reads what is there and fetches the rest, keeping it on its way: nothing is
 * read twice. One load at a time fills a file (a second one waits, and finds it there); a load that ends early leaves
 * what it has for the next one; only one that has succeeded calls a file complete.
 */
import { openBackend } from './backend.js'
import { FileChanged, NiblError, throwIfAborted } from './errors.js'
import { Entry, readJournal } from './journal.js'
import { sha256 } from './sha256.js'
import { CHUNK } from './stream.js'

/** Compared with the server's, where a file may have changed since. */
const PROBE = 16 << 10

/** @typedef {import('./nibl.d.ts').CacheBackend} Backend */
/** @typedef {import('./stream.js').Range} Range */
/** @typedef {import('./stream.js').Source} Source */
/** @typedef {import('./http.js').UrlSource} UrlSource */

/** @param {string} key */
const idOf = (key) => sha256().update(new TextEncoder().encode(key)).digest('hex').slice(0, 32)

/** Why the cache cannot be used, in words. @param {unknown} cause @param {(reason: string) => string} say */
function failure(cause, say) {
  const { name, code, message } = /** @type {any} */ (cause)
  const full = name === 'QuotaExceededError' || code === 'ENOSPC' || code === 'EDQUOT'
  return new NiblError(full ? 'QUOTA' : 'CACHE_FAILED', say(full ? 'there is not enough space' : message), { cause })
}

/** Nothing answered, as it is without a network. @param {unknown} error */
function isUnreachable(error) {
  return error instanceof NiblError && (error.code === 'TIMEOUT' || (error.code === 'DOWNLOAD_FAILED' && error.status === undefined && error.retryAfter !== undefined))
}

/** What one load has to do with the cache. */
export class Shelf {
  /** @type {Set<{ entry: Entry, file: UrlSource }>} */
  #open = new Set()
  #warn
  #trusting
  /** @type {Backend | null} */
  backend = null
  offline = false
  /** Nothing was read of which the server has not said yet that it is still the same. */
  confirmed = true
  /** That it is not, or why it does not say. @type {unknown} */
  problem
  #confirming = Promise.resolve()

  /** @param {{ cache: true | string | Backend, allowOffline: boolean, signal?: AbortSignal, trusting?: boolean }} options `trusting`: a
   * complete file is read while the server is asked, and confirm() waited for @param {string} model @param {(warning: NiblError) => void} warn */
  constructor({ cache, allowOffline, signal, trusting = false }, model, warn) {
    this.#trusting = trusting
    this.cache = cache
    this.allowOffline = allowOffline
    this.signal = signal
    this.model = model
    this.#warn = warn
  }

  async start() {
    try {
      this.backend = await openBackend(this.cache)
    } catch (error) {
      await this.fail(error)
    }
  }

  /** @param {UrlSource} file @returns {Promise<Entry | null>} */
  async entryOf(file) {
    if (!this.backend) return null
    await this.confirm()
    let entry
    try {
      entry = await Entry.open(this.backend, idOf(file.key), this.signal)
    } catch (error) {
      if (this.signal?.aborted) throw error
      await this.fail(error)
      return null
    }
    this.#open.add({ entry, file })
    await this.#compare(entry, file)
    return entry
  }

  /** Whether the server still has what the entry holds: one look at some bytes, and at what tells versions apart.
   * @param {Entry} entry @param {UrlSource} file */
  async #compare(entry, file) {
    const { head, ranges, complete } = entry
    if (!head) return
    if (file.size && head.size && file.size !== head.size) return entry.clear()
    if (file.fixed || !ranges.list.length || (this.offline && complete)) return
    const [first, end] = ranges.list[0]
    const start = Math.max(first, end - PROBE)
    const ours = new Uint8Array(end - start)
    const got = await entry.read(start, ours).catch(() => 0)
    const same = this.#isSame(entry, file, start, got < ours.length ? null : ours)
    if (!this.#trusting || !complete) return (await same) ? undefined : entry.clear()
    this.confirmed = false
    this.#confirming = same.then((same) => {
      if (!same) throw new FileChanged()
      this.confirmed = true
    })
    this.#confirming.catch((problem) => (this.problem = problem))
  }

  /** @param {Entry} entry @param {UrlSource} file @param {number} start @param {Uint8Array | null} ours what it has there */
  async #isSame({ head, complete }, file, start, ours) {
    try {
      const mayFail = this.allowOffline && complete
      const stream = await file.open({ start, end: start + (ours?.length ?? 1) }, mayFail ? 0 : undefined)
      const same = ours !== null && (await isEqual(stream, ours))
      await stream.cancel()
      const versions = [file.validator === head?.validator, !file.size || !head?.size || file.size === head.size]
      const sure = stream.ranged ? same : file.validator !== null
      return sure && !versions.includes(false)
    } catch (error) {
      if (!isUnreachable(error) || !complete) throw error
      if (this.allowOffline) return (this.offline = true)
      const { message, code } = /** @type {NiblError} */ (error)
      throw new NiblError(code, `${message} The model is in the cache, which may be used unasked with allowOffline.`, { cause: error })
    }
  }

  /** Rejects with FileChanged where what was read is not what the server has. */
  confirm() {
    return this.#confirming
  }

  /** The cache cannot be written or read: the load goes on without it. @param {unknown} cause */
  async fail(cause) {
    this.backend = null
    for (const place of this.#open) {
      if (place.entry.complete) continue
      this.#open.delete(place)
      await place.entry.clear().catch(() => {})
      await place.entry.close().catch(() => {})
    }
    this.#warn(failure(cause, (reason) => `${this.model} is not kept in the cache: ${reason}. The load goes on without it.`))
  }

  /** The end of a load. @param {unknown} [error] that it ended with */
  async close(error) {
    const bad = error instanceof NiblError && ['BAD_FILE', 'TRUNCATED', 'INTEGRITY'].includes(error.code)
    await this.#confirming.catch(() => {})
    try {
      for (const { entry, file } of this.#open) {
        if (bad) await entry.clear()
        else if (!error) await entry.commit(file.size)
      }
      for (const { entry } of this.#open) await entry.close()
    } catch (failure) {
      await this.fail(failure)
    }
  }

  // ---- The hub's lists, for when it cannot be reached ----

  /** @param {string} key @param {any[]} list */
  async keep(key, list) {
    const { backend, model } = this
    if (!backend || this.offline) return
    const id = idOf(key)
    const text = JSON.stringify({ model, list })
    let release = () => {}
    try {
      release = await backend.lock(id, this.signal)
      if ((await backend.text(`${id}.list`)) === text) return
      await backend.remove(`${id}.list`)
      const file = await backend.open(`${id}.list`, 'write')
      await file.write(0, new TextEncoder().encode(text)).finally(() => file.close())
    } catch (error) {
      if (this.signal?.aborted) throw error
      await this.fail(error)
    } finally {
      release()
    }
  }

  /** @param {string} key @param {unknown} error why it has to be from here @returns {Promise<any[]>} */
  async recall(key, error) {
    const text = this.allowOffline && isUnreachable(error) ? await this.backend?.text(`${idOf(key)}.list`) : null
    if (!text) throw error
    this.offline = true
    return JSON.parse(text).list
  }
}

/** @param {import('./stream.js').Stream} stream @param {Uint8Array} ours */
async function isEqual(stream, ours) {
  if (!stream.ranged) return false
  for (let at = 0; at < ours.length; ) {
    const bytes = await stream.read()
    if (!bytes || bytes.some((byte, i) => byte !== ours[at + i])) return false
    at += bytes.length
  }
  return true
}

/** A file or model of which a part may be on the shelf. @implements {Source} */
export class CachedSource {
  #source
  #shelf
  /** @type {Promise<Entry | null> | null} */
  #entry = null

  /** @param {UrlSource | import('./hub.js').HubSource} source @param {Shelf} shelf */
  constructor(source, shelf) {
    this.#source = source
    this.#shelf = shelf
  }

  get name() {
    return this.#source.name
  }

  get fileName() {
    return this.#source.fileName
  }

  get #file() {
    return 'first' in this.#source ? this.#source.first : this.#source
  }

  get sha256() {
    return this.#file.sha256
  }

  async again() {
    return Boolean((await this.#entry)?.complete)
  }

  async resolve() {
    await this.#shelf.start()
    if ('first' in this.#source) await this.#source.resolve(this.#shelf)
  }

  /** @param {string} fileName */
  sibling(fileName) {
    return new CachedSource(this.#source.sibling(fileName), this.#shelf)
  }

  /** @param {Range} [range] */
  async open(range) {
    const file = this.#file
    const entry = await (this.#entry ??= this.#shelf.entryOf(file))
    if (!entry) return file.open(range)
    if (this.#shelf.offline && !entry.head) {
      throw new NiblError('NOT_FOUND', `${file.name} is not in the cache, and there is no network.`, { status: 404 })
    }
    const stream = new CachedStream(file, entry, this.#shelf, range ?? { start: 0, end: Infinity })
    await stream.start()
    return stream
  }
}

/** @implements {Stream} */
class CachedStream {
  #file
  #entry
  #shelf
  #end
  /** @type {import('./http.js').ResumingStream | null} */
  #net = null
  /** @type {Uint8Array | null} */
  #buffer = null
  ranged = true

  /** @typedef {import('./stream.js').Stream} Stream */
  /** @param {UrlSource} file @param {Entry} entry @param {Shelf} shelf @param {Range} range */
  constructor(file, entry, shelf, { start, end }) {
    this.#file = file
    this.#entry = entry
    this.#shelf = shelf
    this.offset = start
    this.#end = end
  }

  get size() {
    return this.#file.size || (this.#entry.head?.size ?? 0)
  }

  /** Where the stream ends; Infinity if unknown. */
  get #last() {
    return Math.min(this.#end, this.size || Infinity)
  }

  async start() {
    if (this.offset >= this.#last || this.#entry.ranges.endOf(this.offset) > this.offset) return
    this.#net = await this.#open()
    this.ranged = this.#net.ranged
    if (this.ranged) return
    /* All of it comes, wanted or not. */
    this.offset = 0
    this.#end = Infinity
  }

  async #open() {
    await this.#shelf.confirm()
    return this.#file.open({ start: this.offset, end: Math.min(this.#entry.ranges.nextStart(this.offset), this.#end) })
  }

  async read() {
    while (this.offset < this.#last) {
      const known = Math.min(this.#entry.ranges.endOf(this.offset), this.#last)
      const chunk = known > this.offset && !this.#unranged ? await this.#fromCache(known) : await this.#fromNet()
      if (chunk === undefined) continue
      if (chunk) this.offset += chunk.length
      return chunk
    }
    return null
  }

  get #unranged() {
    return this.#net !== null && !this.#net.ranged
  }

  /** @param {number} end @returns {Promise<Uint8Array | undefined>} undefined: it cannot be read */
  async #fromCache(end) {
    await this.#net?.cancel()
    this.#net = null
    this.#buffer ??= new Uint8Array(CHUNK)
    const view = this.#buffer.subarray(0, Math.min(CHUNK, end - this.offset))
    try {
      const got = await this.#entry.read(this.offset, view)
      if (got === view.length) return view
      throw new Error(`${got} of ${view.length} bytes are there at ${this.offset}`)
    } catch (error) {
      await this.#entry.clear().catch(() => {})
      await this.#shelf.fail(error)
      return undefined
    }
  }

  /** @returns {Promise<Uint8Array | null | undefined>} undefined: to be asked again, null: the end */
  async #fromNet() {
    const net = (this.#net ??= await this.#open())
    if (net.offset < this.offset) net.skipTo(this.offset)
    const chunk = await net.read()
    if (chunk) {
      await this.#keep(chunk)
      return chunk
    }
    this.#net = null
    return this.#entry.ranges.endOf(this.offset) > this.offset ? undefined : null
  }

  /** @param {Uint8Array} bytes */
  async #keep(bytes) {
    if (!this.#shelf.backend) return
    const { key, name, validator } = this.#file
    try {
      await this.#entry.write({ key, name, model: this.#shelf.model, size: this.size, validator }, this.offset, bytes)
    } catch (error) {
      await this.#shelf.fail(error)
    }
  }

  async cancel() {
    await this.#net?.cancel()
    this.#net = null
  }
}

// ---- Conversations ----

/** @typedef {true | string | Backend} Place */

/** Two places for every name: a state is written beside the one that is there, which goes once the new one is whole.
 * @param {string} name */
const statePlaces = (name) => ['', ' (other)'].map((other) => idOf(`state ${name}${other}`))

/** Which of the two holds the state, and how often one was kept; place -1: neither. @param {Backend} backend @param {string} name */
async function findState(backend, name) {
  const found = { place: -1, turn: 0 }
  for (const [place, id] of statePlaces(name).entries()) {
    const { head, complete } = readJournal((await backend.text(`${id}.journal`)) ?? '')
    const turn = head?.turn ?? 0
    if (complete && (found.place < 0 || turn > found.turn)) Object.assign(found, { place, turn })
  }
  return found
}

/** @param {Backend} backend @param {string} id @param {AbortSignal} [signal] */
async function clearState(backend, id, signal) {
  const entry = await Entry.open(backend, id, signal)
  await entry.clear().finally(() => entry.close())
}

/** Keeps the state of a conversation, instead of one that had this name. @param {Place} cache @param {string} name @param {Blob} state
 * @param {AbortSignal} [signal] */
export async function keepState(cache, name, state, signal) {
  const places = statePlaces(name)
  let unlock = () => {}
  try {
    const backend = await openBackend(cache)
    unlock = await backend.lock(`${places[0]}-keep`, signal)
    const { place, turn } = await findState(backend, name)
    const id = places[place === 0 ? 1 : 0]
    await writeState(backend, id, { key: id, name, model: name, size: state.size, validator: null, state: true, turn: turn + 1 }, state, signal)
    /* Where somebody reads it still, it stays until the next one is kept. */
    if (place >= 0) await clearState(backend, places[place], signal).catch(() => {})
  } catch (error) {
    throw signal?.aborted ? error : failure(error, (reason) => `The conversation "${name}" is not kept in the cache: ${reason}.`)
  } finally {
    unlock()
  }
}

/** @param {Backend} backend @param {string} id @param {import('./journal.js').Head} head @param {Blob} state @param {AbortSignal} [signal] */
async function writeState(backend, id, head, state, signal) {
  const entry = await Entry.open(backend, id, signal)
  try {
    await entry.clear()
    for (let at = 0; at < state.size; at += CHUNK) {
      throwIfAborted(signal)
      await entry.write(head, at, new Uint8Array(await state.slice(at, at + CHUNK).arrayBuffer()))
    }
    await entry.commit(state.size)
  } catch (error) {
    await entry.clear().catch(() => {})
    throw error
  } finally {
    await entry.close()
  }
}

/** @param {Place} cache @param {string} name @param {AbortSignal} [signal] @returns {Promise<Blob>} */
export async function keptState(cache, name, signal) {
  const backend = await openBackend(cache)
  const { place } = await findState(backend, name)
  if (place < 0) throw new NiblError('NOT_FOUND', `There is no conversation "${name}" in the cache.`)
  const entry = await Entry.open(backend, statePlaces(name)[place], signal)
  try {
    const { head, complete } = entry
    if (!head || !complete) throw new NiblError('NOT_FOUND', `The conversation "${name}" was replaced while it was read. Try again.`)
    const parts = []
    for (let at = 0; at < head.size; at += CHUNK) {
      const part = new Uint8Array(Math.min(CHUNK, head.size - at))
      await entry.read(at, part)
      parts.push(part)
    }
    return new Blob(parts)
  } finally {
    await entry.close()
  }
}

// ---- For those who want to see ----

/** @type {typeof import('./nibl.d.ts').openCache} */
export async function openCache(cache = true) {
  const backend = await openBackend(cache)

  /** Models and conversations, with the ids that their files' names begin with. */
  async function contents() {
    /** @type {Map<string, { model: string, state: boolean, ids: string[], files: string[], size: number, bytes: number, complete: boolean, used: number }>} */
    const found = new Map()
    const of = (model = '', state = false) => {
      const key = `${state} ${model}`
      const entry = found.get(key) ?? { model, state, ids: [], files: [], size: 0, bytes: 0, complete: true, used: 0 }
      found.set(key, entry)
      return entry
    }
    for (const name of await backend.names()) {
      const [id, kind] = name.split('.')
      if (kind !== 'journal' && kind !== 'list') continue
      const text = (await backend.text(name)) ?? ''
      if (kind === 'list') {
        of(JSON.parse(text).model).ids.push(id)
        continue
      }
      const { head, ranges, complete, used } = readJournal(text)
      const entry = of(head?.model, head?.state)
      entry.ids.push(id)
      if (!head || (head.state && id !== statePlaces(head.name)[(await findState(backend, head.name)).place])) continue
      entry.files.push(head.name)
      entry.size += head.size || ranges.bytes
      entry.bytes += ranges.bytes
      entry.complete &&= complete
      entry.used = Math.max(entry.used, used)
    }
    return [...found.values()]
  }

  const list = async () => {
    const some = (await contents()).filter(({ files }) => files.length)
    return some.map(({ ids, ...about }) => about).sort((a, b) => b.used - a.used)
  }

  return {
    list,
    size: async () => (await list()).reduce((sum, { bytes }) => sum + bytes, 0),
    async delete(model) {
      const ids = (await contents()).filter((entry) => model === undefined || entry.model === model).flatMap(({ ids }) => ids)
      for (const name of await backend.names()) if (ids.includes(name.split('.')[0])) await backend.remove(name)
      return ids.length > 0
    },
    persist: async () => Boolean(await globalThis.navigator?.storage?.persist?.()),
  }
}

/** A cache's files in the browser's CacheStorage, where there is no private file system: each file in pieces of 1 MiB. */

/** @typedef {import('./nibl.d.ts').CacheBackend} Backend */
/** @typedef {import('./nibl.d.ts').CacheFile} CacheFile */

const PIECE = 1 << 20

/** Nothing is ever asked from there. @param {string} file @param {number | string} piece */
const addressOf = (file, piece) => `https://cache.invalid/${encodeURIComponent(file)}/${piece}`

/** @param {string} name @returns {Promise<Omit<Backend, 'lock'>>} */
export async function storedFiles(name) {
  const storage = await caches.open(`nibl ${name}`)

  /** @param {string} file @param {number} index @returns {Promise<Uint8Array<ArrayBuffer>>} empty if it is not there */
  async function piece(file, index) {
    const response = await storage.match(addressOf(file, index))
    return new Uint8Array(response ? await response.arrayBuffer() : new ArrayBuffer(0))
  }

  return {
    async names() {
      const names = (await storage.keys()).map(({ url }) => decodeURIComponent(url.split('/')[3]))
      return [...new Set(names)]
    },
    async text(file) {
      const decoder = new TextDecoder()
      let text = ''
      for (let index = 0; ; index++) {
        const bytes = await piece(file, index)
        if (!bytes.length) return index ? text + decoder.decode() : null
        text += decoder.decode(bytes, { stream: true })
      }
    },
    open: async (file) => new StoredFile(storage, piece, file),
    async remove(file) {
      const prefix = addressOf(file, '')
      for (const request of await storage.keys()) if (request.url.startsWith(prefix)) await storage.delete(request)
    },
  }
}

/** Keeps one piece in memory: files are read and written from front to back. Records of a journal are there when they are
 * written, bytes of a model when they are flushed. @implements {CacheFile} */
class StoredFile {
  #storage
  #piece
  #file
  #index = -1
  #bytes = new Uint8Array(0)
  #dirty = false

  /** @param {Cache} storage @param {(file: string, index: number) => Promise<Uint8Array<ArrayBuffer>>} piece @param {string} file */
  constructor(storage, piece, file) {
    this.#storage = storage
    this.#piece = piece
    this.#file = file
  }

  /** @param {number} index */
  async #turnTo(index) {
    if (index === this.#index) return
    await this.flush()
    this.#bytes = await this.#piece(this.#file, index)
    this.#index = index
  }

  /** @param {number} at @param {Uint8Array} buffer @returns {Promise<number>} */
  async read(at, buffer) {
    let done = 0
    while (done < buffer.length) {
      const within = (at + done) % PIECE
      await this.#turnTo(Math.floor((at + done) / PIECE))
      const bytes = this.#bytes.subarray(within, within + buffer.length - done)
      if (!bytes.length) break
      buffer.set(bytes, done)
      done += bytes.length
    }
    return done
  }

  /** @param {number} at @param {Uint8Array} bytes */
  async write(at, bytes) {
    for (let done = 0; done < bytes.length; ) {
      const within = (at + done) % PIECE
      await this.#turnTo(Math.floor((at + done) / PIECE))
      const part = bytes.subarray(done, done + PIECE - within)
      if (this.#bytes.length < within + part.length) {
        const longer = new Uint8Array(within + part.length)
        longer.set(this.#bytes)
        this.#bytes = longer
      }
      this.#bytes.set(part, within)
      this.#dirty = true
      done += part.length
    }
    if (!this.#file.endsWith('.data')) await this.flush()
  }

  async flush() {
    if (!this.#dirty) return
    await this.#storage.put(addressOf(this.#file, this.#index), new Response(this.#bytes))
    this.#dirty = false
  }

  /** What was not flushed is written behind the caller's back: as with any file, it may be lost. */
  close() {
    this.flush().catch(() => {})
  }
}

/**
 * Models on a model hub, by name: hf:owner/repository[:quant][@revision][/path]. The hub lists a repository's files
 * (api/models/NAME/tree/REVISION, in pages) and sends a file's readers on to a signed address of another origin, which
 * expires. The token goes to the hub alone: fetch() takes it off where it follows to another origin.
 */
import { NiblError } from './errors.js'
import { firstFile, ggufModels } from './folder.js'
import { UrlSource, persistently, refusal, request } from './http.js'
import { ByteStream, emptyStream, readText } from './stream.js'

const PAGES = 200
const PAGE_BYTES = 8 << 20
/** Taken where a repository has several GGUF files and none was named. */
const USUAL_QUANT = 'Q4_K_M'

/** @typedef {import('./describe.js').Name} Name */
/** @typedef {import('./stream.js').Limits} Limits */
/** @typedef {{ size: number, key: string, sha256?: string }} Entry a file in the list */

/** @typedef {import('./stream.js').Source} Source */

/** @implements {Source} */
export class HubSource {
  #hub
  #model
  #headers
  #limits
  #folder
  /** @type {Map<string, Entry>} */
  #entries = new Map()
  /** @type {UrlSource | null} */
  #first = null

  /** @param {{ hub: string, model: Name, token?: string, headers?: Record<string, string> }} descriptor @param {Limits} limits */
  constructor({ hub, model, token, headers }, limits) {
    this.name = model.text
    this.fileName = model.path.slice(model.path.lastIndexOf('/') + 1)
    this.#folder = model.path.slice(0, model.path.length - this.fileName.length)
    this.#hub = new URL(hub.endsWith('/') ? hub : `${hub}/`)
    this.#model = model
    this.#headers = { ...headers, ...(token !== undefined && { Authorization: `Bearer ${token}` }) }
    this.#limits = limits
  }

  /** Lists the folder and chooses the file.
   * @param {{ keep: (key: string, list: any[]) => Promise<void>, recall: (key: string, error: unknown) => Promise<any[]> }} [memory]
   *   of lists */
  async resolve(memory) {
    const key = this.#listUrl().href
    const list = await this.#list().catch((error) => {
      if (!memory) throw error
      return memory.recall(key, error)
    })
    this.#entries = readEntries(list, this.#folder, this.name)
    await memory?.keep(key, list)
    this.fileName ||= this.#choose()
    this.#first = this.sibling(this.fileName)
    this.name = this.#first.name
  }

  /** The file that was chosen. */
  get first() {
    return /** @type {UrlSource} */ (this.#first)
  }

  get sha256() {
    return this.first.sha256
  }

  #listUrl() {
    const { repository, revision } = this.#model
    const path = `api/models/${repository}/tree/${encodeURIComponent(revision)}/${encodePath(this.#folder)}`
    return new URL(path.replace(/\/$/, ''), this.#hub)
  }

  /** The hub's list of the folder, as it sent it. @returns {Promise<any[]>} */
  async #list() {
    const entries = []
    let url = this.#listUrl()
    for (let page = 0; page < PAGES; page++) {
      const { list, next } = await persistently(this.#limits, () => this.#page(url))
      entries.push(...list)
      if (!next) return entries
      url = new URL(next, url)
      /* The token is the hub's alone. */
      if (url.origin !== this.#hub.origin) throw this.#noList(`its next page is at ${url.origin}`)
    }
    throw this.#noList(`it has more than ${PAGES} pages`)
  }

  /** @param {URL} url */
  async #page(url) {
    const response = await request(url.href, this.#headers, this.#limits, { name: this.name })
    if (!response.ok) {
      await response.body?.cancel()
      throw this.#explain(response.status) ?? refusal(response, this.name)
    }
    const about = { name: this.name, offset: 0, size: 0, expected: 0, ranged: false }
    const stream = new ByteStream(response.body ?? emptyStream(), about, this.#limits)
    const text = await readText(stream, PAGE_BYTES, this.name)
    let list
    try {
      list = JSON.parse(text)
    } catch {
      throw this.#noList('it is no JSON')
    }
    if (!Array.isArray(list)) throw this.#noList('it is no array')
    const next = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get('Link') ?? '')?.[1]
    return { list, next }
  }

  /** @param {string} what */
  #noList(what) {
    const message = `${this.name}: ${this.#hub.origin} did not send a list of files: ${what}. Is that a model hub? (hub)`
    return new NiblError('DOWNLOAD_FAILED', message)
  }

  #choose() {
    const { repository, quant, text } = this.#model
    const names = [...this.#entries.keys()]
    const models = ggufModels(names)
    const like = (/** @type {string} */ wanted) => models.filter((name) => isQuant(name, wanted))
    if (quant) {
      const [name, another] = like(quant)
      if (name && !another) return name
      const which = models.length ? models.join(', ') : 'none'
      throw new NiblError('BAD_ARGUMENT', `${text}: of the repository's GGUF files ${name ? 'several are' : 'none is'} of type ${quant}. There are: ${which}.`)
    }
    const usual = names.some((name) => name.endsWith('.safetensors')) ? [] : like(USUAL_QUANT)
    return usual.length === 1 ? usual[0] : firstFile(names, `hf:${repository}/${this.#folder}`)
  }

  /** @param {string} fileName @returns {UrlSource} */
  sibling(fileName) {
    const { repository, revision } = this.#model
    const entry = this.#entries.get(fileName)
    const name = `hf:${repository}${revision === 'main' ? '' : `@${revision}`}/${this.#folder}${fileName}`
    if (!entry) throw new NiblError('NOT_FOUND', `${name} is not in this repository. Check the name.`, { status: 404 })
    const url = new URL(`${repository}/resolve/${encodeURIComponent(revision)}/${encodePath(this.#folder + fileName)}`, this.#hub)
    const explain = (/** @type {number} */ status) => this.#explain(status)
    return new UrlSource({ url: url.href, headers: this.#headers }, this.#limits, { ...entry, key: `${repository}/${this.#folder}${fileName} ${entry.key}`, name, explain })
  }

  /** @param {import('./stream.js').Range} [range] */
  open(range) {
    return this.first.open(range)
  }

  /** What the hub means. @param {number} status */
  #explain(status) {
    const { repository, revision } = this.#model
    const page = new URL(repository, this.#hub).href
    if (status === 404) {
      const message = `${this.name}: the hub has no such repository, revision (${revision}) or file. Check the name at ${page}; a private one needs an access token (token).`
      return new NiblError('NOT_FOUND', message, { status })
    }
    if (status !== 401 && status !== 403) return undefined
    const given = 'Authorization' in this.#headers
    const what = given ? 'the token does not open it' : 'it is gated, private or does not exist'
    const advice = `Check the name, ask for access or accept the terms at ${page}, and give a token that may read it (token).`
    return new NiblError('ACCESS_DENIED', `${this.name}: the hub answered ${status}: ${what}. ${advice}`, { status })
  }
}

/** Keeps the slashes. @param {string} path */
function encodePath(path) {
  return path.split('/').map(encodeURIComponent).join('/')
}

/** @param {string} fileName @param {string} quant */
function isQuant(fileName, quant) {
  const words = fileName.replace(/(-\d{5}-of-\d{5})?\.gguf$/, '').toLowerCase().split(/[.-]/)
  return words.includes(quant.toLowerCase())
}

/** The files that stand in a folder itself. @param {any[]} list of the hub @param {string} folder @param {string} name */
function readEntries(list, folder, name) {
  /** @type {Map<string, Entry>} */
  const entries = new Map()
  for (const { type, path, size, oid, lfs } of list.map((entry) => entry ?? {})) {
    if (type !== 'file' || typeof path !== 'string' || !path.startsWith(folder)) continue
    const fileName = path.slice(folder.length)
    if (!fileName || fileName.includes('/')) continue
    const bytes = lfs?.size ?? size
    const sha256 = lfs ? lfs.oid : undefined
    const isHash = /^[0-9a-f]{40,64}$/.test(sha256 ?? oid) && (!lfs || sha256?.length === 64)
    if (!isHash || !Number.isSafeInteger(bytes) || bytes < 0) {
      throw new NiblError('DOWNLOAD_FAILED', `${name}: the hub's list has no valid size and hash of ${path}. Try again later.`)
    }
    entries.set(fileName, { size: bytes, key: sha256 ? `sha256:${sha256}` : `git:${oid}`, sha256 })
  }
  return entries
}

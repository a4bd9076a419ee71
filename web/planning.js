/**
 * What a model needs, before any of it is there. A memory's maximum and the width of its addresses are fixed before the
 * header is known, so an instance with little memory reads the header and plans: with the binary that most models need, and
 * where 32 bits do not hold this one, again with the one for 64.
 */
import { Binding } from './binding.js'
import { LARGEST, LARGEST64, MEMORY_ADVICE, checkSize, compileBinary, instantiate } from './binaries.js'
import { NiblError, unlessAborted } from './errors.js'
import { chooseLarger, deviceMemory } from './features.js'
import { openSource } from './source.js'
import { isMissing, readBytes } from './stream.js'
import { isPart } from './folder.js'

/* Static data, stacks, the staging buffer and what the allocator needs between blocks. */
const MARGIN = 10 << 20
const THREAD_MARGIN = 3 << 19
const GRAMMAR_MARGIN = 8 << 20
/* Of the memory in which a header is read, and a model of that size loaded. */
const FIRST_MAXIMUM = 512 << 20
const LEAST_MAXIMUM = 64 << 20
/* Tokens a GiB that the device has, where nobody says how many. */
const CONTEXT_PER_GIB = 1024
const LEAST_CONTEXT = 512

/** Before anything is known: enough for the header of most files, little to wait for. */
export const FIRST_RANGE = 1 << 20

/** @typedef {import('./stream.js').Stream} Stream */
/** @typedef {import('./stream.js').Source} Source */
/** @typedef {import('./source.js').Descriptor} Descriptor */
/** @typedef {import('./features.js').Choice} Choice */
/** @typedef {import('./binaries.js').Compiled} Compiled */
/** @typedef {import('./binding.js').Plan} Plan */
/** `offset`: an address, the file's number times FILE and the offset in it. `bytes`: null where the file has no more.
 * @typedef {{ offset: number, bytes: Uint8Array | null }} Chunk */
/** What the core asks for. @typedef {{ wanted: () => { offset: number, length: number }, fileName: (file: number) => string }} Asker */
/** @typedef {{ timeout: number, retries: number, cache?: any, allowOffline?: boolean, integrity?: true | Record<string, string>, trusting?: boolean }} InputOptions
 *   how bytes are brought */
/** @typedef {{ planner: Planner, header: Chunk[], compiled: Compiled, choice: Choice, plan: Plan | null,
 *   unsupported: unknown }} Planned */
/** `extra`: bytes that calibrating takes. `share`: of the weights, that is there at a time where they are `parts`. @typedef {{ contextLength: number, kv: 'i8' | 'f16' | 'f32', sessions: number, quantize?: string,
 *   evaluate?: boolean, configOnly?: boolean, wasmUrl?: string, extra?: number, share?: number, parts?: boolean }} PlanOptions */

/** Bytes of addresses that each file of a model has: NIBL_ADDRESS_BITS. */
const FILE = 2 ** 40

/** Chunks of a model's files: in the order the loader wants them where the source can jump, else in the files' order. */
export class Input {
  /** @type {Stream | null} */
  #stream = null
  #source
  #shelf
  /** Of the other files, by number. @type {Source[]} */
  #siblings = []
  #jumps
  #ranged = false
  #file = 0
  /** Of each file opened so far: its size as far as it is known, else 0. @type {number[]} */
  #sizes = []
  /** Where a stream that cannot be had again has ended. */
  #over = false
  /** Bytes read so far. */
  loaded = 0

  /** @param {Source} source @param {boolean} jumps @param {import('./cache.js').Shelf} [shelf] */
  constructor(source, jumps, shelf) {
    this.#shelf = shelf
    this.#source = source
    this.#jumps = jumps
  }

  /** @param {Descriptor} descriptor @param {InputOptions} options @param {{ jumps: boolean, signal?: AbortSignal }} how
   * @param {(warning: NiblError) => void} [warn] */
  static async of(descriptor, options, { jumps, signal }, warn = () => {}) {
    const { timeout, retries, cache, allowOffline = false, integrity, trusting } = options
    const isRelay = descriptor.kind === 'relay'
    const limits = { signal, timeout, retries }
    let source = isRelay ? new (await import('./relay.js')).RelaySource(descriptor.port, descriptor.name)
      : descriptor.kind === 'hub' ? new (await import('./hub.js')).HubSource(descriptor, limits) : openSource(descriptor, limits)
    let shelf
    if (cache && (descriptor.kind === 'url' || descriptor.kind === 'hub')) {
      const { CachedSource, Shelf } = await import('./cache.js')
      shelf = new Shelf({ cache, allowOffline, signal, trusting }, source.name, warn)
      source = new CachedSource(/** @type {any} */ (source), shelf)
    }
    if (integrity) {
      const { CheckedSource } = await import('./integrity.js')
      source = new CheckedSource(source, integrity)
    }
    return new Input(source, jumps, shelf)
  }

  /** Sends the first request. */
  async start() {
    await this.#source.resolve?.()
    this.#jumps ||= isPart(this.fileName)
    await this.#open(this.#source, { offset: 0, length: FIRST_RANGE })
  }

  /** The same beside the compiling of a binary, which is returned. @param {Promise<import('./binaries.js').Compiled>} compiling @param {AbortSignal} [signal] */
  async startBeside(compiling, signal) {
    compiling.catch(() => {})
    await this.start()
    return unlessAborted(compiling, signal)
  }

  /** Whether bytes can be had in any order, and again. */
  get seekable() {
    return this.#jumps && this.#ranged
  }

  /** Rejects where what was read from a cache is not what the server has (cache.js). */
  async confirm() {
    await this.#shelf?.confirm()
  }

  get confirmed() {
    return this.#shelf?.confirmed ?? true
  }

  /** Why what was read must not be used. */
  get problem() {
    return this.#shelf?.problem
  }

  /** For messages. */
  get name() {
    return this.#source.name
  }

  /** Of file 0. */
  get fileName() {
    return this.#source.fileName
  }

  /** Of file 0; 0 if unknown. */
  get firstSize() {
    return this.#sizes[0]
  }

  /** Of all files opened so far; 0 if unknown. */
  get size() {
    return this.#sizes.every(Boolean) ? this.#sizes.reduce((sum, size) => sum + size, 0) : 0
  }

  /** Those that were read, file 0 first; size 0 if unknown. */
  get files() {
    return [this.#source, ...this.#siblings.slice(1)]
      .map((source, file) => ({ source, size: this.#sizes[file] ?? 0 }))
      .filter(({ source, size }, file) => source && (file === 0 || size > 0))
  }

  /** @param {Source} source @param {{ offset: number, length: number }} range */
  async #open(source, { offset, length }) {
    const start = offset % FILE
    this.#file = Math.floor(offset / FILE)
    this.#stream = await source.open(this.#jumps ? { start, end: start + length } : undefined)
    this.#ranged = this.#stream.ranged
    const known = this.#sizes[this.#file] ?? 0
    this.#sizes[this.#file] = known || this.#stream.size
    return this.#sizes[this.#file] > known
  }

  /** The next chunk; null where nothing more is wanted.
   * @param {Asker} asker @returns {Promise<Chunk | null>} */
  async next(asker) {
    for (;;) {
      if (this.problem) throw this.problem
      const fresh = this.#stream === null
      if (fresh) {
        const range = asker.wanted()
        if (range.length === 0) return null
        const told = await this.#reopen(asker, range)
        if (told) return told
      }
      const stream = /** @type {Stream} */ (this.#stream)
      const offset = this.#file * FILE + stream.offset
      const bytes = await stream.read()
      if (bytes) {
        this.loaded += bytes.length
        return { offset, bytes }
      }
      this.#stream = null
      if (!fresh && stream.ranged && this.#jumps) continue
      this.#over = !stream.ranged
      return { offset, bytes: null }
    }
  }

  /** @param {Asker} asker @param {{ offset: number, length: number }} range
   * @returns {Promise<Chunk | null>} what there is to tell of the file before its first byte */
  async #reopen(asker, range) {
    const file = Math.floor(range.offset / FILE)
    if (this.#over && file === this.#file) {
      throw new NiblError('TRUNCATED', `the file ends at ${range.offset % FILE} bytes, before its data does.`)
    }
    try {
      const isNews = await this.#open(file === 0 ? this.#source : this.#sibling(file, asker), range)
      return isNews && file > 0 ? { offset: file * FILE + this.#sizes[file], bytes: null } : null
    } catch (error) {
      if (file === 0 || !isMissing(error)) throw error
      this.#sizes[file] ??= 0
      return { offset: file * FILE, bytes: null }
    }
  }

  /** @param {number} file @param {Asker} asker */
  #sibling(file, asker) {
    return (this.#siblings[file] ??= this.#source.sibling(asker.fileName(file)))
  }

  /** Leaves the file at hand where another one is wanted, or what was read of it already. @param {Asker} asker */
  async turn({ wanted }) {
    const { offset, length } = wanted()
    const isBehind = this.#jumps && this.#stream && offset < this.#file * FILE + this.#stream.offset
    if (length > 0 && (isBehind || Math.floor(offset / FILE) !== this.#file)) await this.close()
  }

  /** Another file of the folder, whole; null where there is none. @param {string} name @param {number} limit bytes */
  async document(name, limit) {
    try {
      return await readBytes(await this.#source.sibling(name).open(), limit, name)
    } catch (error) {
      if (isMissing(error)) return null
      throw error
    }
  }

  /** All that the model needs has been read. */
  async complete() {
    await this.confirm()
    await this.#source.verify?.()
  }

  async close() {
    await this.#stream?.cancel()
    this.#stream = null
  }

  /** Ends it for good. @param {unknown} [error] what the load failed with */
  async end(error) {
    await this.close()
    await this.#shelf?.close(error)
  }
}

/** Bytes of memory beside the plan's. @param {Choice} choice */
export function marginOf({ threads }) {
  return MARGIN + THREAD_MARGIN * threads
}

/** The most that the memory grows to: the plan, and where there is room for it what grammars take.
 * @param {import('./binding.js').Plan} plan @param {Choice} choice @param {number} sessions @param {number} [extra] bytes besides */
function maximumOf(plan, choice, sessions, extra = 0) {
  const needed = plan.total + marginOf(choice) + extra
  const grammars = 2 * plan.vocabulary + GRAMMAR_MARGIN + GRAMMAR_MARGIN * sessions
  const largest = choice.binary.endsWith('-memory64') ? LARGEST64 : LARGEST
  return Math.max(needed, Math.min(largest, needed + grammars))
}

/** Does something else where there was too little memory. @template T @param {() => T} otherwise */
const unlessMemory = (otherwise) => (/** @type {unknown} */ error) => {
  if (isOutOfMemory(error)) return otherwise()
  throw error
}

/** @param {unknown} error */
const isOutOfMemory = (error) => error instanceof NiblError && error.code === 'OUT_OF_MEMORY'

/** An instance that knows a header, small as yet: the model is loaded in it too, where its memory may grow so far. */
export class Planner {
  /** @param {Compiled} compiled @param {{ firstSize: number, fileName: string }} input
   * @param {{ quantize?: string, configOnly?: boolean }} options @param {{ initial: number, maximum: number }} [size] memory in bytes
   * @returns {Promise<Planner>} */
  static async of(compiled, input, options, size) {
    if (!size) {
      const small = () => Planner.of(compiled, input, options, { initial: MARGIN, maximum: LEAST_MAXIMUM })
      return Planner.of(compiled, input, options, { initial: MARGIN, maximum: FIRST_MAXIMUM }).catch(unlessMemory(small))
    }
    const { quantize, configOnly } = options
    const binding = new Binding(await instantiate(compiled, size))
    return new Planner(binding, binding.newLoader(input.firstSize, input.fileName, quantize, configOnly), size.maximum)
  }

  /** @param {Binding} binding @param {number} loader @param {number} maximum bytes of memory */
  constructor(binding, loader, maximum) {
    this.binding = binding
    this.loader = loader
    this.maximum = maximum
  }

  /** Reads up to the header's end. @param {Input} input @returns {Promise<Chunk[]>} what it read */
  async read(input) {
    const asker = {
      wanted: () => this.#wanted(),
      fileName: (/** @type {number} */ file) => this.binding.fileName(this.loader, file),
    }
    /** @type {Chunk[]} */
    const header = []
    do {
      const chunk = await input.next(asker)
      if (!chunk) break
      header.push({ offset: chunk.offset, bytes: chunk.bytes && chunk.bytes.slice() })
      this.feed(header.slice(-1))
      await input.turn(asker)
    } while (!this.binding.call('nibl_loader_header_ready', this.loader))
    return header
  }

  /** No more at once than may turn out not to be needed. */
  #wanted() {
    const { offset, length } = this.binding.wantedRange(this.loader)
    return { offset, length: Math.min(length, FIRST_RANGE) }
  }

  /** @param {Chunk[]} header */
  feed(header) {
    for (const chunk of header) this.binding.feed(this.loader, chunk)
  }

  /** @param {PlanOptions} options @param {Choice} choice */
  plan({ contextLength, kv, sessions, share = 1 }, { threads }) {
    const plan = this.binding.plan(this.loader, { contextLength, kv, sessions, threads })
    const absent = plan.weights - Math.ceil(share * plan.weights)
    return { ...plan, weights: plan.weights - absent, total: plan.total - absent }
  }

  describe() {
    return this.binding.describe(this.loader)
  }

  /** Whether this recipe needs the model in memory, and whether a text to calibrate with. @param {import('./binding.js').QuantizeOptions} recipe */
  needs(recipe) {
    return this.binding.recipeNeeds(this.loader, recipe)
  }

  /** Of the file that a recipe makes, the size and the beginning. Nothing else can be asked afterwards.
   * @param {import('./binding.js').QuantizeOptions} recipe */
  output(recipe) {
    const quantizer = this.binding.newQuantizer(this.loader, recipe)
    return { size: this.binding.quantizerSize(quantizer), bytes: this.binding.quantizerOutput(quantizer) }
  }
}

/**
 * Reads the header and finds what to load with. A model that cannot be planned is `unsupported`; one that needs more than
 * this engine has is so too, but has a plan.
 * @param {Input} input
 * @param {Compiled} compiled of `choice`
 * @param {PlanOptions} options
 * @param {Choice} choice
 * @param {AbortSignal} signal
 * @returns {Promise<Planned>}
 */
export async function planFile(input, compiled, options, choice, signal) {
  const planner = await Planner.of(compiled, input, options)
  return planHeader({ planner, header: await planner.read(input), compiled, choice }, input, options, signal)
}

/** The same with a header that was read.
 * @param {{ planner: Planner, header: Chunk[], compiled: Compiled, choice: Choice }} read @param {Input} input
 * @param {PlanOptions} options @param {AbortSignal} signal @returns {Promise<Planned>} */
export async function planHeader({ planner, header, compiled, choice }, input, options, signal) {
  /** @type {Planned} */
  const planned = { planner, header, compiled, choice, plan: null, unsupported: null }
  try {
    planned.plan = planner.plan(options, choice)
    if (!options.contextLength) shorten(planned, options, deviceMemory() * CONTEXT_PER_GIB, `the device has ${deviceMemory()} GiB of memory`)
    const needed = planned.plan.total + marginOf(choice) + (options.extra ?? 0)
    if (needed <= LARGEST) return planned
    planned.choice = chooseLarger(planned.choice, needed)
    checkSize(needed, true)
  } catch (error) {
    return { ...planned, unsupported: error }
  }
  const { wasmUrl, evaluate, quantize = options.extra !== undefined } = options
  planned.compiled = await unlessAborted(compileBinary(planned.choice.binary, { wasmUrl, evaluate, quantize }), signal)
  /* What has 4 bytes more there is no hundredth of it. */
  const maximum = Math.min(LARGEST64, maximumOf(planned.plan, planned.choice, options.sessions, options.extra) * 1.01)
  planned.planner = await Planner.of(planned.compiled, input, options, { initial: MARGIN, maximum })
  planned.planner.feed(planned.header)
  planned.plan = planned.planner.plan(options, planned.choice)
  return planned
}

/** Plans for a context that is no longer than this. @param {Planned} planned @param {PlanOptions} options @param {number} most tokens
 * @param {string} reason */
function shorten(planned, options, most, reason) {
  const { planner, plan, choice } = planned
  if (!plan || plan.contextLength <= most) return
  planned.plan = planner.plan({ ...options, contextLength: most }, choice)
  planned.choice = { ...choice, why: `${choice.why.replace(/; a context.*/, '')}; a context of ${most} tokens: ${reason}` }
}

/**
 * Begins the model: in the planner's memory where that may grow so far, else in one of the plan's size; where there is none,
 * with a shorter context, unless that was asked for.
 * @param {Planned} planned its plan and choice are then those of the model @param {Input} input @param {PlanOptions} options
 * @param {AbortSignal} signal
 * @returns {Promise<{ binding: Binding, loader: number, model: number }>}
 */
export async function beginModel(planned, input, options, signal) {
  const { planner, header, compiled } = planned
  const begin = (/** @type {Planner} */ { binding, loader }, /** @type {number} */ bytes) => {
    binding.grow(bytes)
    return { binding, loader, model: binding.begin(loader, options.parts) }
  }
  for (let own = false; ; own = true) {
    const plan = /** @type {Plan} */ (planned.plan)
    const maximum = maximumOf(plan, planned.choice, options.sessions, options.extra)
    try {
      const initial = plan.total - plan.kv + marginOf(planned.choice)
      if (!own && planner.maximum >= maximum) return begin(planner, initial)
      const other = await unlessAborted(Planner.of(compiled, input, options, { initial, maximum }), signal)
      other.feed(header)
      return begin(other, initial)
    } catch (error) {
      if (!isOutOfMemory(error) || (own && (options.contextLength || plan.contextLength <= LEAST_CONTEXT))) throw error
      if (own) shorten(planned, options, Math.floor(plan.contextLength / 2), 'there is no memory for more')
    }
  }
}

/** The core knows what is wrong, not with which file, nor what can be done. @param {unknown} error @param {string} name */
export function located(error, name) {
  if (!(error instanceof NiblError) || error.message.includes(name)) return error
  const advice = isOutOfMemory(error) && !error.message.includes('contextLength') ? `. ${MEMORY_ADVICE}` : ''
  return new NiblError(error.code, `${name}: ${error.message}${advice}`, { status: error.status, cause: error.cause })
}

/**
 * Bytes to model. A memory's maximum is fixed before the header is known, so a small instance reads the header and
 * plans; then the real instance gets a memory of that size, and the header's bytes again. From there on each chunk is
 * copied once, into linear memory, and the core packs it into its final place.
 */
import { Binding, OK } from './binding.js'
import { compileBinary, instantiate } from './binaries.js'
import { NiblError, unlessAborted } from './errors.js'
import { RelaySource } from './relay.js'
import { openSource } from './source.js'

/* Static data, stacks, the staging buffer and what the allocator needs between blocks. */
const MARGIN = 10 << 20
const THREAD_MARGIN = 3 << 19
const PLANNER_MAXIMUM = 512 << 20
const PROGRESS_INTERVAL = 100 /* ms */

/** @typedef {import('./source.js').Stream} Stream */
/** @typedef {import('./source.js').Descriptor} Descriptor */
/** @typedef {import('./features.js').Choice} Choice */
/** @typedef {{ phase: string, loaded: number, total: number }} Progress */

/**
 * @typedef {object} LoadOptions
 * @property {boolean} early
 * @property {number} contextLength
 * @property {number} chunk
 * @property {'i8' | 'f16' | 'f32'} kv
 * @property {'i8' | 'f32'} activations
 * @property {number} timeout
 * @property {string} [wasmUrl]
 */

/** Chunks of the file: in the order the loader wants them where the source can jump, else in the file's order. */
class Input {
  /** @type {Stream | null} */
  #stream = null
  #source
  #jumps
  size = 0
  /** Bytes read so far. */
  loaded = 0
  /** Where the source ended. */
  end = 0

  /** @param {import('./source.js').Source} source @param {boolean} jumps */
  constructor(source, jumps) {
    this.#source = source
    this.#jumps = jumps
  }

  /** Sends the first request. @param {{ offset: number, length: number }} range */
  async open({ offset, length }) {
    this.#stream = await this.#source.open(this.#jumps ? { start: offset, end: offset + length } : undefined)
    this.#jumps &&= this.#stream.ranged
    this.size ||= this.#stream.size
  }

  /** The next chunk, or null at the end of the source.
   * @param {() => { offset: number, length: number }} wanted */
  async next(wanted) {
    for (;;) {
      const fresh = this.#stream === null
      if (fresh) {
        const range = wanted()
        if (range.length === 0) return null
        await this.open(range)
      }
      const stream = /** @type {Stream} */ (this.#stream)
      const offset = stream.offset
      const bytes = await stream.read()
      if (bytes) {
        this.loaded += bytes.length
        return { offset, bytes }
      }
      this.#stream = null
      this.end = offset
      if (fresh || !this.#jumps) return null
    }
  }

  async close() {
    await this.#stream?.cancel()
    this.#stream = null
  }
}

export class Loading {
  #input
  #name
  #binding
  #loader
  #status
  #reported = 0
  /** @type {(() => void)[]} */
  #waiting = []
  /** @type {(progress: Progress) => void} */
  onProgress

  /** @param {{ input: Input, name: string, binding: Binding, loader: number, model: number, status: number,
   *   plan: import('./binding.js').Plan, onProgress: (progress: Progress) => void }} parts */
  constructor({ input, name, binding, loader, model, status, plan, onProgress }) {
    this.#input = input
    this.#name = name
    this.#binding = binding
    this.#loader = loader
    this.#status = status
    this.onProgress = onProgress
    this.binding = binding
    this.model = model
    this.plan = plan
    /** Ends when all weights have arrived. */
    this.complete = this.#receive()
    this.complete.catch(() => {})
  }

  /**
   * Comes back as soon as the model is there, its weights still arriving.
   * @param {Descriptor} descriptor
   * @param {LoadOptions} options
   * @param {Choice} choice
   * @param {{ signal: AbortSignal, onProgress: (progress: Progress) => void }} hooks
   */
  static async start(descriptor, options, choice, { signal, onProgress }) {
    const compiling = compileBinary(choice.binary, options.wasmUrl)
    compiling.catch(() => {})
    const source =
      descriptor.kind === 'relay'
        ? new RelaySource(descriptor.port, descriptor.name)
        : openSource(descriptor, { signal, timeout: options.timeout })
    const input = new Input(source, options.early)
    try {
      /* The first request goes out while the binary is compiled. */
      const opening = input.open({ offset: 0, length: FIRST_RANGE })
      opening.catch(() => {})
      const compiled = await unlessAborted(compiling, signal)
      const planner = { initial: 0, maximum: PLANNER_MAXIMUM, threads: 1 }
      const small = new Binding(await instantiate(compiled, planner))
      await opening
      const { header, plan } = await readHeader(small, input, options, choice)

      const margin = MARGIN + THREAD_MARGIN * choice.threads
      const initial = plan.total - plan.kv + margin
      const memory = { initial, maximum: plan.total + margin, threads: choice.threads }
      const binding = new Binding(await unlessAborted(instantiate(compiled, memory), signal))
      const loader = binding.newLoader(input.size)
      for (const { offset, bytes } of header) binding.feed(loader, offset, bytes)
      const model = binding.begin(loader)
      const last = header[header.length - 1]
      const status = binding.feed(loader, last.offset, last.bytes)
      return new Loading({ input, name: source.name, binding, loader, model, status, plan, onProgress })
    } catch (error) {
      await input.close()
      throw located(error, source.name)
    }
  }

  async #receive() {
    const binding = this.#binding
    const loader = this.#loader
    const wanted = () => binding.wantedRange(loader)
    try {
      while (this.#status !== OK) {
        const chunk = await this.#input.next(wanted)
        if (!chunk) {
          binding.call('nibl_abi_loader_end', loader, this.#input.end)
          throw new NiblError('TRUNCATED', `the file ends at ${this.#input.end} bytes, before its data does.`)
        }
        this.#status = binding.feed(loader, chunk.offset, chunk.bytes)
        this.#report(false)
        this.#wake()
      }
      this.#report(true)
    } catch (error) {
      throw located(error, this.#name)
    } finally {
      await this.#input.close()
      binding.free('loader', loader)
      this.#wake()
    }
  }

  /** Resolves when more weights have arrived; rejects when none will. */
  async more() {
    await Promise.race([this.complete, new Promise((resolve) => this.#waiting.push(() => resolve(undefined)))])
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve()
  }

  /** @param {boolean} last */
  #report(last) {
    const now = performance.now()
    if (!last && now - this.#reported < PROGRESS_INTERVAL) return
    this.#reported = now
    const { loaded, size } = this.#input
    this.onProgress({ phase: 'download', loaded, total: last ? loaded : size })
  }

  get bytes() {
    return this.#input.loaded
  }
}

/* Before anything is known: enough for the header of most files, little to wait for. */
const FIRST_RANGE = 1 << 20

/** Reads up to the header's end and keeps what it read.
 * @param {Binding} planner @param {Input} input @param {LoadOptions} options @param {Choice} choice */
async function readHeader(planner, input, options, choice) {
  const loader = planner.newLoader(input.size)
  const header = []
  do {
    const chunk = await input.next(() => planner.wantedRange(loader))
    if (!chunk) {
      planner.call('nibl_abi_loader_end', loader, input.end)
      throw new NiblError('TRUNCATED', `the file ends at ${input.end} bytes, inside its header.`)
    }
    const bytes = chunk.bytes.slice()
    header.push({ offset: chunk.offset, bytes })
    planner.feed(loader, chunk.offset, bytes)
  } while (!planner.call('nibl_loader_header_ready', loader))
  const { contextLength, kv } = options
  return { header, plan: planner.plan(loader, { contextLength, kv, threads: choice.threads }) }
}

/** The core knows what is wrong, not with which file. @param {unknown} error @param {string} name */
function located(error, name) {
  if (!(error instanceof NiblError) || error.message.includes(name)) return error
  return new NiblError(error.code, `${name}: ${error.message}`, { status: error.status, cause: error.cause })
}

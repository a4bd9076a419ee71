/**
 * Bytes to model: plans (planning.js), and where the planner's memory is too small gives an instance with a memory of that
 * size the header's bytes again. From there on each chunk is copied once, into linear memory, and the core packs it into its final place.
 */
import { NEED_DATA, OK } from './binding.js'
import { compileBinary, startThreads } from './binaries.js'
import { FileChanged, NiblError, unlessAborted } from './errors.js'
import { Input, beginModel, located, planFile } from './planning.js'
import { yieldToEvents } from './platform.js'

const PROGRESS_INTERVAL = 100 /* ms */
const BREATH = 4 /* ms: bytes of the cache come without a pause, in which threads could start and an abort be heard */

/** @typedef {import('./source.js').Descriptor} Descriptor */
/** @typedef {import('./features.js').Choice} Choice */
/** @typedef {{ phase: string, loaded: number, total: number }} Progress */

/**
 * @typedef {import('./planning.js').InputOptions & ModelOptions} LoadOptions
 *
 * @typedef {object} ModelOptions
 * @property {boolean} early
 * @property {number} contextLength
 * @property {number} chunk
 * @property {'i8' | 'f16' | 'f32'} kv
 * @property {number} sessions
 * @property {string} [quantize]
 * @property {boolean} [evaluate]
 * @property {'i8' | 'f32'} activations
 * @property {string} [wasmUrl]
 */

export class Loading {
  #input
  #binding
  #loader
  #asker
  #status = NEED_DATA
  #parts
  /** What came with the header. @type {import('./planning.js').Chunk[] | undefined} */
  #header
  #reported = 0
  /** @type {(() => void)[]} */
  #waiting = []
  /** @type {(progress: Progress) => void} */
  onProgress
  /** @type {(warning: NiblError) => void} */
  onWarning = () => {}

  /** @param {{ input: Input, binding: import('./binding.js').Binding, loader: number, model: number, choice: Choice, plan: import('./binding.js').Plan,
   *   onProgress: (progress: Progress) => void, header: import('./planning.js').Chunk[], parts?: boolean }} of */
  constructor({ input, binding, loader, model, choice, plan, onProgress, header, parts }) {
    this.#input = input
    this.#binding = binding
    this.#loader = loader
    this.#parts = parts
    this.onProgress = onProgress
    this.binding = binding
    this.model = model
    this.plan = plan
    /** What runs: for a large model another binary than was asked for. */
    this.choice = choice
    this.#asker = {
      wanted: () => binding.wantedRange(loader),
      fileName: (/** @type {number} */ file) => binding.fileName(loader, file),
    }
    /* Where weights come and go, not before whoever asks for them has said in which parts. */
    if (parts) this.#header = header
    else this.#replay(header)
    /** Ends when all weights have arrived; at once where they come and go, which whoever needs them asks for (feed()). */
    this.complete = parts ? Promise.resolve() : this.#receive()
    this.complete.catch(() => {})
  }

  /**
   * Comes back as soon as the model is there, its weights still arriving.
   * @param {Descriptor} descriptor
   * @param {LoadOptions} options
   * @param {Choice} choice
   * @param {{ signal: AbortSignal, onProgress: (progress: Progress) => void, onWarning: (warning: NiblError) => void }} hooks
   */
  static start(descriptor, options, choice, hooks) {
    return Loading.#start(descriptor, { ...options, trusting: true }, choice, hooks).catch((error) => {
      if (error instanceof FileChanged) return Loading.#start(descriptor, options, choice, hooks)
      throw error
    })
  }

  /** @param {Descriptor} descriptor @param {LoadOptions} options @param {Choice} choice
   * @param {{ signal: AbortSignal, onProgress: (progress: Progress) => void, onWarning: (warning: NiblError) => void }} hooks */
  static async #start(descriptor, options, choice, { signal, onProgress, onWarning }) {
    const compiling = compileBinary(choice.binary, options)
    compiling.catch(() => {})
    /** @type {Loading | undefined} */
    let loading
    const input = await Input.of(descriptor, options, { signal, jumps: options.early }, (warning) => (loading?.onWarning ?? onWarning)(warning))
    try {
      /* The first request goes out while the binary is compiled. */
      const opening = input.start()
      opening.catch(() => {})
      const first = await unlessAborted(compiling, signal)
      await opening
      const planned = await planFile(input, first, options, choice, signal)
      loading = await Loading.of(input, planned, options, { signal, onProgress, onWarning })
      await input.confirm()
      return loading
    } catch (error) {
      await input.end(error)
      const { problem = error } = input
      if (loading && problem instanceof FileChanged) await loading.#free()
      throw located(problem, input.name)
    }
  }

  /** Of a file that has changed. */
  async #free() {
    await this.complete.catch(() => {})
    this.binding.free('model', this.model)
  }

  /** The same from a header that was read.
   * @param {Input} input @param {import('./planning.js').Planned} planned
   * @param {import('./planning.js').PlanOptions} options
   * @param {{ signal: AbortSignal, onProgress: (progress: Progress) => void, onWarning: (warning: NiblError) => void }} hooks */
  static async of(input, planned, options, { signal, onProgress, onWarning }) {
    if (!planned.plan || planned.unsupported) throw planned.unsupported
    const { binding, loader, model } = await beginModel(planned, input, options, signal)
    const { header, plan, choice } = planned
    const threads = startThreads(binding.module, choice.threads)
    threads.catch(() => {})
    const loading = new Loading({ input, binding, loader, model, plan, choice, onProgress, header, parts: options.parts })
    loading.onWarning = onWarning
    await unlessAborted(threads, signal)
    return loading
  }

  async #receive() {
    let breathed = performance.now()
    try {
      while (this.#status !== OK) {
        if (performance.now() - breathed > BREATH) {
          await yieldToEvents()
          breathed = performance.now()
        }
        await this.feed()
        this.#report(false)
        this.#wake()
      }
      await this.#input.complete()
      await this.#input.end()
      this.#report(true)
    } catch (error) {
      await this.#input.end(error)
      throw located(error, this.#input.name)
    } finally {
      this.#binding.free('loader', this.#loader)
      this.#wake()
    }
  }

  /** Of a file, its first weights. @param {import('./planning.js').Chunk[]} header */
  #replay(header) {
    for (const chunk of header) this.#status = this.#binding.feed(this.#loader, chunk)
  }

  /** Hands over what comes next. */
  async feed() {
    if (this.#header) {
      this.#replay(this.#header)
      this.#header = undefined
      return
    }
    if (this.#parts) await this.#input.turn(this.#asker)
    const chunk = await this.#input.next(this.#asker)
    if (!chunk) throw new NiblError('TRUNCATED', 'nothing more is wanted, but the model is not complete.')
    this.#status = this.#binding.feed(this.#loader, chunk)
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
    if (!this.#input.confirmed) return
    if (!last && now - this.#reported < PROGRESS_INTERVAL) return
    this.#reported = now
    const { loaded, size } = this.#input
    this.onProgress({ phase: 'download', loaded, total: last ? loaded : size && Math.max(size, loaded) })
  }

  get input() {
    return this.#input
  }

  get bytes() {
    return this.#input.loaded
  }
}

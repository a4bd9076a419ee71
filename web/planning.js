/**
 * What a model needs, before any of it is there. A memory's maximum and the width of its addresses are fixed before the
 * header is known, so a small instance reads the header and plans: with the binary that most models need, and where 32
 * bits do not hold this one, again with the one for 64.
 */
import { Binding } from './binding.js'
import { LARGEST, checkSize, compileBinary, instantiate } from './binaries.js'
import { NiblError, unlessAborted } from './errors.js'
import { chooseLarger } from './features.js'
import { RelaySource } from './relay.js'
import { openSource } from './source.js'

/* Static data, stacks, the staging buffer and what the allocator needs between blocks. */
const MARGIN = 10 << 20
const THREAD_MARGIN = 3 << 19
const PLANNER_MAXIMUM = 512 << 20

/** Before anything is known: enough for the header of most files, little to wait for. */
export const FIRST_RANGE = 1 << 20

/** @typedef {import('./source.js').Stream} Stream */
/** @typedef {import('./source.js').Descriptor} Descriptor */
/** @typedef {import('./features.js').Choice} Choice */
/** @typedef {import('./binaries.js').Compiled} Compiled */
/** @typedef {import('./binding.js').Plan} Plan */
/** @typedef {{ offset: number, bytes: Uint8Array }} Chunk */
/** @typedef {{ planner: Planner, header: Chunk[], compiled: Compiled, choice: Choice, plan: Plan | null,
 *   unsupported: unknown }} Planned */
/** @typedef {{ contextLength: number, kv: 'i8' | 'f16' | 'f32', sessions: number, wasmUrl?: string }} PlanOptions */

/** Chunks of the file: in the order the loader wants them where the source can jump, else in the file's order. */
export class Input {
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
    this.name = source.name
    this.#source = source
    this.#jumps = jumps
  }

  /** @param {Descriptor} descriptor @param {import('./source.js').Limits & { jumps: boolean }} how */
  static of(descriptor, { signal, timeout, jumps }) {
    const isRelay = descriptor.kind === 'relay'
    const source = isRelay ? new RelaySource(descriptor.port, descriptor.name) : openSource(descriptor, { signal, timeout })
    return new Input(source, jumps)
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

/** Bytes of memory beside the plan's. @param {Choice} choice */
export function marginOf({ threads }) {
  return MARGIN + THREAD_MARGIN * threads
}

/** A small instance that knows a header. */
export class Planner {
  #binding
  #loader

  /** @param {Compiled} compiled @param {number} fileSize 0 if unknown */
  static async of(compiled, fileSize) {
    const size = { initial: 0, maximum: PLANNER_MAXIMUM, threads: 1 }
    return new Planner(new Binding(await instantiate(compiled, size)), fileSize)
  }

  /** @param {Binding} binding @param {number} fileSize */
  constructor(binding, fileSize) {
    this.#binding = binding
    this.#loader = binding.newLoader(fileSize)
  }

  /** Reads up to the header's end. @param {Input} input @returns {Promise<Chunk[]>} what it read */
  async read(input) {
    const header = []
    do {
      const chunk = await input.next(() => this.#wanted())
      if (!chunk) {
        this.#binding.call('nibl_abi_loader_end', this.#loader, input.end)
        throw new NiblError('TRUNCATED', `the file ends at ${input.end} bytes, inside its header.`)
      }
      header.push({ offset: chunk.offset, bytes: chunk.bytes.slice() })
      this.feed(header.slice(-1))
    } while (!this.#binding.call('nibl_loader_header_ready', this.#loader))
    return header
  }

  /** No more at once than may turn out not to be needed. */
  #wanted() {
    const { offset, length } = this.#binding.wantedRange(this.#loader)
    return { offset, length: Math.min(length, FIRST_RANGE) }
  }

  /** @param {Chunk[]} header */
  feed(header) {
    for (const { offset, bytes } of header) this.#binding.feed(this.#loader, offset, bytes)
  }

  /** @param {PlanOptions} options @param {Choice} choice */
  plan({ contextLength, kv, sessions }, { threads }) {
    return this.#binding.plan(this.#loader, { contextLength, kv, sessions, threads })
  }

  describe() {
    return this.#binding.describe(this.#loader)
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
  const planner = await Planner.of(compiled, input.size)
  /** @type {Planned} */
  const planned = { planner, header: await planner.read(input), compiled, choice, plan: null, unsupported: null }
  try {
    planned.plan = planner.plan(options, choice)
    const needed = planned.plan.total + marginOf(choice)
    if (needed <= LARGEST) return planned
    planned.choice = chooseLarger(choice, needed)
    checkSize(needed, true)
  } catch (error) {
    return { ...planned, unsupported: error }
  }
  planned.compiled = await unlessAborted(compileBinary(planned.choice.binary, options.wasmUrl), signal)
  planned.planner = await Planner.of(planned.compiled, input.size)
  planned.planner.feed(planned.header)
  planned.plan = planned.planner.plan(options, planned.choice)
  return planned
}

/** The core knows what is wrong, not with which file. @param {unknown} error @param {string} name */
export function located(error, name) {
  if (!(error instanceof NiblError) || error.message.includes(name)) return error
  return new NiblError(error.code, `${name}: ${error.message}`, { status: error.status, cause: error.cause })
}

/**
 * The compiled core: per variant one WebAssembly file, and one with the quantizer, and the glue that Emscripten writes for
 * them. The paths are literals, one per file, as bundlers want them.
 */
import { NiblError } from './errors.js'
import { isNode, nodeModule } from './platform.js'

/** @type {Record<string, { wasm: () => URL, glue: () => Promise<any> }>} */
const binaries = {
  simd128: {
    wasm: () => new URL('./dist/nibl-simd128.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128.js'),
  },
  'simd128-quantize': {
    wasm: () => new URL('./dist/nibl-simd128-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-quantize.js'),
  },
  'simd128-threads': {
    wasm: () => new URL('./dist/nibl-simd128-threads.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-threads.js'),
  },
  'simd128-threads-quantize': {
    wasm: () => new URL('./dist/nibl-simd128-threads-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-threads-quantize.js'),
  },
  relaxed: {
    wasm: () => new URL('./dist/nibl-relaxed.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed.js'),
  },
  'relaxed-quantize': {
    wasm: () => new URL('./dist/nibl-relaxed-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-quantize.js'),
  },
  'relaxed-threads': {
    wasm: () => new URL('./dist/nibl-relaxed-threads.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-threads.js'),
  },
  'relaxed-threads-quantize': {
    wasm: () => new URL('./dist/nibl-relaxed-threads-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-threads-quantize.js'),
  },
  'simd128-memory64': {
    wasm: () => new URL('./dist/nibl-simd128-memory64.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-memory64.js'),
  },
  'simd128-memory64-quantize': {
    wasm: () => new URL('./dist/nibl-simd128-memory64-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-memory64-quantize.js'),
  },
  'relaxed-memory64': {
    wasm: () => new URL('./dist/nibl-relaxed-memory64.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-memory64.js'),
  },
  'relaxed-memory64-quantize': {
    wasm: () => new URL('./dist/nibl-relaxed-memory64-quantize.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-memory64-quantize.js'),
  },
}

/**
 * @typedef {object} Compiled
 * @property {WebAssembly.Module} module
 * @property {(options: object) => Promise<any>} glue
 * @property {boolean} shared has threads
 * @property {boolean} memory64
 */

/** @typedef {{ module: any, memory: WebAssembly.Memory, wordBytes: 4 | 8 }} Instance `wordBytes`: of an address */

/**
 * @param {string} variant
 * @param {{ wasmUrl?: string, quantize?: string | boolean, evaluate?: boolean }} [options] wasmUrl: of the folder that holds the
 *   .wasm files, if not beside this module; quantize, evaluate: the one with the quantizer and the evaluation
 * @returns {Promise<Compiled>}
 */
export async function compileBinary(variant, { wasmUrl, quantize, evaluate } = {}) {
  const name = quantize || evaluate ? `${variant}-quantize` : variant
  const { wasm, glue } = binaries[name]
  const url = wasmUrl ? new URL(`nibl-${name}.wasm`, wasmUrl) : wasm()
  try {
    const [module, { default: factory }] = await Promise.all([compile(url), glue()])
    const memory64 = variant.endsWith('-memory64')
    return { module, glue: factory, shared: memory64 || variant.endsWith('-threads'), memory64 }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause
    throw new NiblError('WASM_FAILED', `Cannot load ${url}: ${reason}. Is it served? (wasmUrl)`, { cause })
  }
}

/** By address: asked for early by a worker, and once by all loads of a page. @type {Map<string, Promise<WebAssembly.Module>>} */
const modules = new Map()

/** @param {URL} url */
function compile({ href }) {
  const known = modules.get(href)
  if (known) return known
  const compiling = fetchAndCompile(new URL(href))
  modules.set(href, compiling)
  compiling.catch(() => modules.delete(href))
  return compiling
}

/** @param {URL} url */
async function fetchAndCompile(url) {
  if (isNode && url.protocol === 'file:') {
    return WebAssembly.compile(await nodeModule('node:fs').promises.readFile(url))
  }
  const response = await fetch(url, { credentials: 'same-origin' })
  if (!response.ok) throw new Error(`HTTP status ${response.status}`)
  /* Compiling while it arrives asks for the right type; a server that does not know it costs only time. */
  if (response.headers.get('Content-Type') === 'application/wasm') return WebAssembly.compileStreaming(response)
  return WebAssembly.compile(await response.arrayBuffer())
}

export const MEMORY_ADVICE = 'Close other tabs, or take a smaller model or a shorter contextLength.'

const PAGE = 65536
/** Bytes that the binaries' memories can have: 32 bits, and what engines allow for 64. */
export const LARGEST = 65536 * PAGE
export const LARGEST64 = 4 * LARGEST
const SMALLEST = { single: 2 << 20, threads: 4 << 20 } /* as linked: wasm/variant.cmake */

/** Refuses what no memory can hold. @param {number} bytes @param {boolean} memory64 */
export function checkSize(bytes, memory64) {
  const largest = memory64 ? LARGEST64 : LARGEST
  if (bytes <= largest) return
  throw new NiblError(
    'OUT_OF_MEMORY',
    `The model needs ${megabytes(bytes)} MB; WebAssembly's ${memory64 ? 64 : 32}-bit memory holds ` +
      `${megabytes(largest)} MB. Take a smaller model or a shorter contextLength.`,
  )
}

/**
 * Instantiates a binary in a memory of its own.
 * @param {Compiled} compiled
 * @param {{ initial: number, maximum: number }} size memory in bytes
 * @returns {Promise<Instance>}
 */
export async function instantiate({ module, glue, shared, memory64 }, { initial, maximum }) {
  const smallest = shared ? SMALLEST.threads : SMALLEST.single
  const pages = (/** @type {number} */ bytes) => {
    const count = Math.ceil(Math.max(bytes, smallest) / PAGE)
    return memory64 ? BigInt(count) : count
  }
  checkSize(maximum, memory64)
  let memory
  try {
    const descriptor = { initial: pages(initial), maximum: pages(maximum), shared, address: memory64 ? 'i64' : 'i32' }
    memory = new WebAssembly.Memory(/** @type {any} */ (descriptor))
  } catch (cause) {
    throw new NiblError(
      'OUT_OF_MEMORY',
      `This engine does not give ${megabytes(initial)} of ${megabytes(maximum)} MB of memory. ` +
        MEMORY_ADVICE,
      { cause },
    )
  }
  const instance = await new Promise((resolve, reject) => {
    const options = {
      wasmMemory: memory,
      instantiateWasm(/** @type {any} */ imports, /** @type {any} */ done) {
        WebAssembly.instantiate(module, imports).then((result) => done(result, module), reject)
        return {}
      },
    }
    glue(options).then(resolve, reject)
  })
  return { module: instance, memory, wordBytes: memory64 ? 8 : 4 }
}

/** Starts the workers that the core's threads run in: whoever waits for those synchronously must have waited for this.
 * @param {any} module of an instance @param {number} threads the caller's own among them */
export async function startThreads({ PThread }, threads) {
  if (threads === 1) return
  for (let i = 1; i < threads; i++) PThread.allocateUnusedWorker()
  const workers = PThread.unusedWorkers
  await Promise.all(workers.map(PThread.loadWasmModuleToWorker))
  /* Under Node idle ones do not keep the process alive. */
  for (const worker of workers) worker.unref?.()
}

const PARTING = 100 /* ms */

/** Ends those workers, which the core has let go of. Chromium never ends a worker whose own workers end beside it: they have time to.
 * @param {any} module of an instance */
export async function endThreads({ PThread }) {
  if (!PThread) return
  PThread.terminateAllThreads()
  await new Promise((resolve) => setTimeout(resolve, PARTING))
}

/** @param {number} bytes */
function megabytes(bytes) {
  return Math.ceil(bytes / 2 ** 20)
}

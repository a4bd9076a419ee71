/**
 * The compiled core: one WebAssembly file per variant, and the glue that Emscripten writes for it. The paths are
 * literals, one per file, as bundlers want them.
 */
import { NiblError } from './errors.js'
import { isNode, nodeModule } from './platform.js'

/** @type {Record<string, { wasm: () => URL, glue: () => Promise<any> }>} */
const binaries = {
  simd128: {
    wasm: () => new URL('./dist/nibl-simd128.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128.js'),
  },
  'simd128-threads': {
    wasm: () => new URL('./dist/nibl-simd128-threads.wasm', import.meta.url),
    glue: () => import('./dist/nibl-simd128-threads.js'),
  },
  relaxed: {
    wasm: () => new URL('./dist/nibl-relaxed.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed.js'),
  },
  'relaxed-threads': {
    wasm: () => new URL('./dist/nibl-relaxed-threads.wasm', import.meta.url),
    glue: () => import('./dist/nibl-relaxed-threads.js'),
  },
}

/** @typedef {{ module: WebAssembly.Module, glue: (options: object) => Promise<any>, shared: boolean }} Compiled */

/**
 * @param {string} name
 * @param {string} [folder] URL of the folder that holds the .wasm files, if not beside this module
 * @returns {Promise<Compiled>}
 */
export async function compileBinary(name, folder) {
  const { wasm, glue } = binaries[name]
  const url = folder ? new URL(`nibl-${name}.wasm`, folder) : wasm()
  try {
    const [module, { default: factory }] = await Promise.all([compile(url), glue()])
    return { module, glue: factory, shared: name.endsWith('-threads') }
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause
    throw new NiblError('WASM_FAILED', `Cannot load ${url}: ${reason}. Is it served? (wasmUrl)`, { cause })
  }
}

/** @param {URL} url */
async function compile(url) {
  if (isNode && url.protocol === 'file:') {
    return WebAssembly.compile(await nodeModule('node:fs').promises.readFile(url))
  }
  const response = await fetch(url, { credentials: 'same-origin' })
  if (!response.ok) throw new Error(`HTTP status ${response.status}`)
  /* Compiling while it arrives asks for the right type; a server that does not know it costs only time. */
  if (response.headers.get('Content-Type') === 'application/wasm') return WebAssembly.compileStreaming(response)
  return WebAssembly.compile(await response.arrayBuffer())
}

const PAGE = 65536
const LARGEST = 65536 * PAGE
const SMALLEST = { single: 2 << 20, threads: 4 << 20 } /* as linked: wasm/variant.cmake */

/**
 * Instantiates a binary in a memory of its own.
 * @param {Compiled} compiled
 * @param {{ initial: number, maximum: number, threads: number }} size memory in bytes
 * @returns {Promise<{ module: any, memory: WebAssembly.Memory }>}
 */
export async function instantiate({ module, glue, shared }, { initial, maximum, threads }) {
  const smallest = shared ? SMALLEST.threads : SMALLEST.single
  const pages = (/** @type {number} */ bytes) => Math.ceil(Math.max(bytes, smallest) / PAGE)
  if (maximum > LARGEST) {
    throw new NiblError(
      'OUT_OF_MEMORY',
      `The model needs ${megabytes(maximum)} MB; WebAssembly's 32-bit memory holds 4096 MB. ` +
        'Take a smaller model or a shorter contextLength.',
    )
  }
  let memory
  try {
    memory = new WebAssembly.Memory({ initial: pages(initial), maximum: pages(maximum), shared })
  } catch (cause) {
    throw new NiblError(
      'OUT_OF_MEMORY',
      `This engine does not give ${megabytes(initial)} of ${megabytes(maximum)} MB of memory. ` +
        'Close other tabs, or take a smaller model or a shorter contextLength.',
      { cause },
    )
  }
  const instance = await new Promise((resolve, reject) => {
    const options = {
      wasmMemory: memory,
      poolSize: threads - 1,
      instantiateWasm(/** @type {any} */ imports, /** @type {any} */ done) {
        WebAssembly.instantiate(module, imports).then((result) => done(result, module), reject)
        return {}
      },
    }
    glue(options).then(resolve, reject)
  })
  return { module: instance, memory }
}

/** @param {number} bytes */
function megabytes(bytes) {
  return Math.ceil(bytes / 2 ** 20)
}

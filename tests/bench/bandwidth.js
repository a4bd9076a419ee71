// The read bandwidth of this machine: what no engine that reads its weights for every token can be above.

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { root, setup } from '../../wasm/setup.js'
import { llvm } from '../../wasm/toolchain.js'
import { browser } from './host-javascript.js'

const source = join(root, 'tests/bench/bandwidth.c')
const folder = join(root, 'build/bench')
const native = join(folder, 'bandwidth')
const wasm = join(folder, 'bandwidth.wasm')
const mebibytes = 96

export async function buildBandwidth() {
  await setup(['native', 'wasm'])
  fs.mkdirSync(folder, { recursive: true })
  execFileSync('cc', ['-std=gnu11', '-O3', '-march=native', '-pthread', '-o', native, source])
  const target = ['--target=wasm32', '-nostdlib', '-msimd128', `-B${llvm}/bin`]
  const link = ['--no-entry', '--export=__heap_base', '--export-memory'].map((flag) => `-Wl,${flag}`)
  execFileSync(`${llvm}/bin/clang`, ['-std=gnu11', '-O3', ...target, ...link, '-o', wasm, source])
}

/** The bandwidths that limits are named by, to what measures them: bytes per second.
 * @type {Record<string, () => Promise<number>>} */
export const bandwidths = {
  'native 1T': async () => readNative(1),
  'native 2T': async () => readNative(2),
  'wasm 1T': readInPage,
}

/** @param {number} threads */
const readNative = (threads) => Number(execFileSync(native, [`${threads}`, `${mebibytes}`], { encoding: 'utf8' }).split(' ')[0])

/** In a worker of a page, as engines run there: the best of passes until the compiler has long settled. */
async function readInPage() {
  const page = await (await browser()).newPage()
  try {
    return await page.evaluate(
      async ([url, bytes]) => {
        const work = async (/** @type {MessageEvent} */ { data: [url, bytes] }) => {
          const { instance } = await WebAssembly.instantiateStreaming(fetch(url))
          const { memory, __heap_base, bench_read } = /** @type {any} */ (instance.exports)
          memory.grow(bytes / 65536 + 1)
          const start = Math.ceil(__heap_base.value / 64) * 64
          new Uint8Array(memory.buffer, start, bytes).fill(1)
          let best = Infinity
          for (let pass = 0; pass < 24; pass++) {
            const begin = performance.now()
            bench_read(start, bytes)
            best = Math.min(best, performance.now() - begin)
          }
          postMessage((bytes / best) * 1e3)
        }
        const worker = new Worker(URL.createObjectURL(new Blob([`onmessage = ${work}`], { type: 'text/javascript' })))
        try {
          return await new Promise((done, fail) => {
            worker.onmessage = ({ data }) => done(data)
            worker.onerror = ({ message }) => fail(new Error(message))
            worker.postMessage([new URL(url, location.href).href, bytes])
          })
        } finally {
          worker.terminate()
        }
      },
      /** @type {const} */ ([wasm.slice(root.length), mebibytes << 20]),
    )
  } finally {
    await page.close()
  }
}

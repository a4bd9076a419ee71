// The engines that are measured: where each runs, with which files and how many threads.

import { gzipSync } from 'node:zlib'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { published } from '../../demo/publish.js'
import { pageSizes } from '../../wasm/build.js'
import { root } from '../../wasm/setup.js'
import { openLlama, openNibl } from './host-command.js'
import { openInChromium, openInNode } from './host-javascript.js'
import { llamaBench, llamaPackage } from './peers.js'

/** @typedef {import('./models.js').ModelFile} ModelFile */
/** @typedef {import('./rows.js').Trial} Trial */

/**
 * One engine with one file and a number of threads.
 * @typedef {object} Case
 * @property {string} name      'nibl-chromium Q4_1 1T'
 * @property {string} engine
 * @property {ModelFile} file
 * @property {number} threads
 * @property {string} [about]   of the engine
 *
 * @typedef {object} Session
 * @property {(trial: Trial) => Promise<{ perSecond: number, cpu?: number }>} sample
 *   tokens per second; processor seconds per token
 * @property {() => Facts} facts  once something was sampled
 * @property {() => Promise<void>} close
 *
 * @typedef {{ about: string, load: number, memory: number }} Facts
 *   the binary and instruction set that ran; ms until it could answer; bytes it took
 *
 * @typedef {object} Engine
 * @property {(item: Case) => Promise<Session>} open
 * @property {string[]} cases         'FILE THREADST'
 * @property {string} [about]
 * @property {() => number} shipped   bytes that a user must fetch besides the model, gzip
 * @property {'node24' | 'wasmtime'} [setup]
 * @property {'npm' | 'llama'} [peer] what peers.js brings
 * @property {string[]} [rows]        of rows.js; default: all
 * @property {boolean} [optional]     only when it is asked for
 */

const everything = ['Q4_1 1T', 'Q4_1 2T', 'Q4_0 1T', 'Q4_0 2T']
const wllama = '.toolchain/peers/node_modules/@wllama/wllama/esm'
const ort = '.toolchain/peers/node_modules/onnxruntime-web/dist'

/** @param {string[]} files below the root */
const gzip = (...files) => files.reduce((sum, file) => sum + gzipSync(fs.readFileSync(join(root, file))).length, 0)
const page = () => pageSizes(published).find(({ variant }) => variant === 'relaxed-threads')?.total ?? 0

/** @type {(module: string) => Engine['open']} */
const inChromium = (module) => (item) => openInChromium(`tests/bench/${module}`, item)

/** @type {Record<string, Engine>} */
export const engines = {
  'nibl-native': {
    open: (item) => openNibl([join(root, 'build/native/nibl')], item),
    cases: everything,
    shipped: () => gzip('build/native/nibl'),
  },
  'llama.cpp': {
    open: openLlama,
    cases: everything,
    about: `${llamaPackage.name} ${llamaPackage.version}, -march=native`,
    shipped: () => gzip(llamaBench.slice(root.length + 1)),
    peer: 'llama',
  },
  'nibl-chromium': { open: inChromium('engine-nibl.js'), cases: everything, shipped: page },
  wllama: {
    open: inChromium('peer-wllama.js'),
    cases: ['Q4_1 1T', 'Q4_1 2T'],
    shipped: () => gzip(`${wllama}/index.js`, `${wllama}/wasm/wllama.wasm`),
    peer: 'npm',
  },
  'ort-web': {
    open: inChromium('peer-ort.js'),
    cases: ['int8 1T', 'int8 2T', 'int4 1T'],
    shipped: () => gzip(`${ort}/ort.wasm.bundle.min.mjs`, `${ort}/ort-wasm-simd-threaded.wasm`),
    peer: 'npm',
  },
  'nibl-node': {
    open: (item) => openInNode('tests/bench/engine-nibl.js', item),
    cases: ['Q4_1 1T', 'Q4_1 2T'],
    shipped: page,
    setup: 'node24',
  },
  'nibl-wasmtime': {
    open: (item) => openNibl(['python3', 'wasm/run-wasi.py', '--module', 'build/wasi-relaxed/nibl.wasm'], item),
    cases: ['Q4_1 1T'],
    shipped: () => gzip('build/wasi-relaxed/nibl.wasm'),
    setup: 'wasmtime',
  },
  'nibl-simd128': {
    open: inChromium('engine-nibl.js?binary=simd128'),
    cases: ['Q4_1 1T', 'Q4_1 2T'],
    shipped: page,
    optional: true,
  },
}

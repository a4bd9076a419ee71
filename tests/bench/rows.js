// What is measured and what it should be, as data. Cases are named 'ENGINE FILE THREADST', as in engines.js.

/**
 * @typedef {object} Trial
 * @property {'prefill' | 'decode'} measure
 * @property {number} count    tokens that are measured
 * @property {number} depth    tokens before them
 *
 * @typedef {object} RowFields
 * @property {string} label
 * @property {boolean} [quick]   belongs to --quick
 * @property {boolean} [beside]  while another program keeps one core busy
 * @property {RegExp} [cases]    these alone
 *
 * @typedef {Trial & RowFields} Row
 */

const ours = /^nibl-(native|chromium) Q4_1 /

/** @type {Record<string, Row>} */
export const rows = {
  'prefill-128': { label: 'prefill 128', measure: 'prefill', count: 128, depth: 0, quick: true },
  'prefill-512': { label: 'prefill 512', measure: 'prefill', count: 512, depth: 0, quick: true },
  decode: { label: 'decode 64', measure: 'decode', count: 64, depth: 0, quick: true },
  'decode-1024': { label: 'decode 64 at depth 1,024', measure: 'decode', count: 64, depth: 1024 },
  'decode-4096': { label: 'decode 64 at depth 4,096', measure: 'decode', count: 64, depth: 4096, cases: /^nibl-(native|chromium) Q4_1 1T/ },
  busy: { label: 'decode 64 beside a busy core', measure: 'decode', count: 64, depth: 0, beside: true, cases: ours },
}

/**
 * A bar: the median of `row` in `of`, divided by that of the best of `over` in `overRow`, or by what the read bandwidth
 * named `limit` allows.
 * @typedef {object} Bar
 * @property {string} row
 * @property {string} of
 * @property {string[]} [over]
 * @property {string} [overRow]  default: `row`
 * @property {string} [limit]
 * @property {number} [least]
 * @property {number} [most]     instead of `least`: no more than this
 * @property {boolean} [vnni]    made for machines with AVX-VNNI: half of it elsewhere
 */

/** Rows that a table would repeat for several cases. @template T @param {T[]} values @param {(value: T) => Bar[]} bars */
const each = (values, bars) => values.flatMap(bars)
const oneAndTwo = ['1T', '2T']
/** Its faster weights count. @param {string} t */
const ortWeb = (t) => [`ort-web int8 ${t}`, `ort-web int4 ${t}`]

/** @type {Bar[]} */
export const bars = [
  { row: 'load', of: 'nibl-chromium Q4_1 1T', over: ['arrayBuffer() Q4_1'], most: 1.3 },
  { row: 'decode', of: 'nibl-chromium Q4_1 1T', over: ['wllama Q4_1 1T'], least: 12, vnni: true },
  { row: 'decode', of: 'nibl-chromium Q4_1 1T', over: ortWeb('1T'), least: 6, vnni: true },
  { row: 'decode', of: 'nibl-chromium Q4_1 1T', limit: 'wasm 1T', least: 0.6, vnni: true },
  { row: 'decode', of: 'nibl-chromium Q4_1 2T', over: ['nibl-chromium Q4_1 1T'], least: 1.6 },
  ...each(oneAndTwo, (t) => [
    { row: 'prefill-512', of: `nibl-chromium Q4_1 ${t}`, over: [`wllama Q4_1 ${t}`], least: 30, vnni: true },
    { row: 'prefill-512', of: `nibl-chromium Q4_1 ${t}`, over: ortWeb(t), least: 7, vnni: true },
  ]),
  ...each(['decode', 'prefill-512'], (row) =>
    each(oneAndTwo, (t) => [{ row, of: `nibl-chromium Q4_0 ${t}`, over: [`nibl-chromium Q4_1 ${t}`], least: 1 }]),
  ),
  ...each(['Q4_1', 'Q4_0'], (file) => [
    { row: 'decode', of: `nibl-native ${file} 1T`, over: [`llama.cpp ${file} 1T`], least: 1.5 },
  ]),
  { row: 'decode', of: 'nibl-native Q4_1 1T', limit: 'native 1T', least: 0.75 },
  { row: 'decode', of: 'nibl-native Q4_1 2T', over: ['nibl-native Q4_1 1T'], least: 1.3 },
  ...each(oneAndTwo, (t) =>
    each(['Q4_1', 'Q4_0'], (file) => [
      { row: 'prefill-512', of: `nibl-native ${file} ${t}`, over: [`llama.cpp Q4_0 ${t}`], least: 1.5 },
    ]),
  ),
  ...each(['decode', 'prefill-512'], (row) => [
    { row, of: 'nibl-chromium Q4_1 1T', over: ['llama.cpp Q4_1 1T'], least: 1, vnni: true },
  ]),
  ...each(['nibl-chromium', 'nibl-native'], (engine) => [
    { row: 'decode-4096', of: `${engine} Q4_1 1T`, over: [`${engine} Q4_1 1T`], overRow: 'decode', least: 0.6 },
    { row: 'busy', of: `${engine} Q4_1 2T`, over: [`${engine} Q4_1 1T`], least: 0.9 },
  ]),
]

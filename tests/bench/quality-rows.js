// What `quality.js` measures and what it should be, as data: a table's rows, each a recipe of `nibl quantize` or of llama.cpp.

/**
 * @typedef {object} Row
 * @property {string} [recipe]    of `nibl quantize`: TYPE and options
 * @property {string} [llama]     or of llama-quantize: TYPE and options
 * @property {boolean} [imatrix]  llama.cpp's, of the calibration text
 * @property {boolean} [mixed]    calibrated with a text that is half code
 * @property {boolean} [own]      calibrated with the command's own text
 * @property {boolean} [twin]     of the model with outliers put in
 * @property {Most} [most]
 * @property {{ row: string, by: number }} [beats]  its KL is lower by this share
 * @property {{ row: string, from: string, by: number }} [recovers]  this share of what `row` loses more than `from`, in KL
 *
 * @typedef {{ perplexity?: number, kl?: number, bits?: number }} Most  % more perplexity, nats, bits of a body's weight
 *
 * @typedef {object} Table
 * @property {string} title
 * @property {string} [rest]       options of all recipes: types of embedding and head
 * @property {string} [llamaRest]  the same for llama-quantize
 * @property {string} [evaluate]   options of `nibl eval`
 * @property {boolean} [decode]    decode time is measured
 * @property {boolean} [domains]   by domain, on the texts of the command's own
 * @property {boolean} [elsewhere] files are run by llama.cpp, too
 * @property {Record<string, Row>} rows
 */

const floats = '--embedding f16 --head f16'
/** llama.cpp counts an embedding that is the head, too, as the embedding. */
const llamaFloats = '--token-embedding-type f16'
/** Types without a free minimum per 32 inputs: those would return the source itself. */
const types = '--types q3_k,iq4_xs,iq4_nl,q4_0,q5_0,q6_k,q8_0'

const exact = '--activations f32 -ctk f32 -ctv f32 --chunk 512'

/** @param {string} size @param {string} row the best of that size with one type @returns {Row} */
const mixed = (size, row) => ({ recipe: `--size ${size} ${types} --method awq,gptq`, beats: { row, by: 0.15 } })

/** @type {Record<string, Row>} */
const granularity = Object.fromEntries(
  ['tensor', 'row', 'g128', 'g64', 'g32'].flatMap((group) => ['', 'asym'].map((kind) => [`w4${group}${kind}`, { recipe: `w4${group}${kind}` }])),
)

/** @type {Record<string, Table>} */
export const tables = {
  bars: {
    title: 'Weights, body alone (embedding and head F16)',
    rest: floats,
    rows: {
      'w4g64asym rtn': { recipe: 'w4g64asym' },
      'w4g64asym awq': { recipe: 'w4g64asym --method awq', most: { perplexity: 18, kl: 0.16 }, beats: { row: 'w4g64asym rtn', by: 0.45 } },
      'w4g64 rtn': { recipe: 'w4g64-absmax' },
      'w4g64 gptq': { recipe: 'w4g64 --method gptq', most: { perplexity: 22, kl: 0.22 }, beats: { row: 'w4g64 rtn', by: 0.6 } },
      'w4row rtn': { recipe: 'w4row-absmax' },
      'w4row rotate,gptq': { recipe: 'w4row --method rotate,gptq', most: { perplexity: 15, kl: 0.16 }, beats: { row: 'w4row rtn', by: 0.8 } },
      'w3g64asym rtn': { recipe: 'w3g64asym' },
      'w3g64asym gptq': { recipe: 'w3g64asym --method gptq', most: { perplexity: 60, kl: 0.46 }, beats: { row: 'w3g64asym rtn', by: 0.6 } },
      'q4_0 rtn': { recipe: 'q4_0' },
      'q4_0 imatrix': { recipe: 'q4_0 --method imatrix' },
      'q4_0 awq,gptq': { recipe: 'q4_0 --method awq,gptq', most: { perplexity: 8, kl: 0.09, bits: 4.6 } },
      'iq4_nl awq,gptq': { recipe: 'iq4_nl --method awq,gptq', most: { perplexity: 8, kl: 0.09, bits: 4.6 } },
    },
  },
  llama: {
    title: "Beside llama.cpp's quantizer, Q4_0, embedding and head F16",
    rest: floats,
    llamaRest: llamaFloats,
    elsewhere: true,
    rows: {
      'llama.cpp q4_0': { llama: 'q4_0' },
      'llama.cpp q4_0 imatrix': { llama: 'q4_0', imatrix: true },
      'nibl q4_0 imatrix': { recipe: 'q4_0 --method imatrix' },
      'nibl q4_0 awq,gptq': { recipe: 'q4_0 --method awq,gptq', beats: { row: 'llama.cpp q4_0 imatrix', by: 0.25 } },
      'nibl q4_0 rotate,gptq': { recipe: 'q4_0 --method rotate,gptq' },
    },
  },
  size: {
    title: 'Whole files, embedding and head included',
    rows: {
      'llama.cpp q4_0, embedding q4_0': { llama: 'q4_0 --token-embedding-type q4_0', imatrix: true },
      'llama.cpp q4_0, embedding iq4_nl': { llama: 'q4_0 --token-embedding-type iq4_nl', imatrix: true },
      'nibl q4_0 awq,gptq': { recipe: 'q4_0 --embedding q4_0 --head q4_0 --method awq,gptq' },
      'nibl iq4_nl awq,gptq': { recipe: 'iq4_nl --embedding iq4_nl --head iq4_nl --method awq,gptq' },
      'nibl --size 75MB': { ...mixed('75MB', ''), beats: { row: 'llama.cpp q4_0, embedding iq4_nl', by: 0.25 } },
    },
  },
  mixed: {
    title: 'Mixed precision beside the best of one type for the body and one for the embedding, of no more bytes (exact activations)',
    evaluate: exact,
    rows: {
      iq4_nl: { recipe: 'iq4_nl --embedding iq4_nl --head iq4_nl --method awq,gptq' },
      '--size 77.572MB': mixed('77.572MB', 'iq4_nl'),
      'iq4_nl, embedding q5_0': { recipe: 'iq4_nl --embedding q5_0 --head q5_0 --method awq,gptq' },
      '--size 81.111MB': mixed('81.111MB', 'iq4_nl, embedding q5_0'),
      'q5_0, embedding iq4_nl': { recipe: 'q5_0 --embedding iq4_nl --head iq4_nl --method awq,gptq' },
      '--size 90.843MB': mixed('90.843MB', 'q5_0, embedding iq4_nl'),
      q5_0: { recipe: 'q5_0 --embedding q5_0 --head q5_0 --method awq,gptq' },
      '--size 94.382MB': mixed('94.382MB', 'q5_0'),
    },
  },
  granularity: {
    title: 'Granularity: 4 bits, plain rounding, embedding and head F16',
    rest: floats,
    decode: true,
    rows: granularity,
  },
  domains: {
    title: 'By domain',
    rest: floats,
    domains: true,
    rows: {
      'q4_0 awq,gptq': { recipe: 'q4_0 --method awq,gptq' },
      'iq4_nl awq,gptq': { recipe: 'iq4_nl --method awq,gptq' },
      'iq4_nl awq,gptq, half code': { recipe: 'iq4_nl --method awq,gptq', mixed: true },
      'iq4_nl awq,gptq, own text': { recipe: 'iq4_nl --method awq,gptq', own: true },
    },
  },
  outliers: {
    title: 'Outliers: channels of norms x 50, their columns / 50 (exact activations)',
    rest: floats,
    evaluate: exact,
    rows: {
      'without outliers, rtn': { recipe: 'q4_0' },
      'not rounded': { recipe: 'f32', twin: true, most: { kl: 1e-6 } },
      rtn: { recipe: 'q4_0', twin: true },
      'without outliers, awq': { recipe: 'q4_0 --method awq' },
      awq: { recipe: 'q4_0 --method awq', twin: true, recovers: { row: 'rtn', from: 'without outliers, rtn', by: 0.9 } },
    },
  },
}

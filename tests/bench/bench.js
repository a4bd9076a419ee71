#!/usr/bin/env node
// Measures nibl on all its hosts beside other engines, on the default model.
//
//   node tests/bench/bench.js [--quick] [--rounds N] [--engines A,B] [--rows A,B] [--retries N] [--write] [--report]
//
// A round opens every case (an engine, a file, a number of threads) once and takes one sample of every row, so that the
// machine's moods fall on all alike. A sample beside which others took more than a tenth of a core is taken again.
// Prints tables; --write keeps them in MEASURED.md, above what is written by hand there, as measured.json and chart.svg;
// --report makes the first and the last of these from the second. The bars of rows.js are shown, not enforced: a busy
// machine is no bug.

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build } from '../../wasm/build.js'
import { SetupError, main, root, setup } from '../../wasm/setup.js'
import { bandwidths, buildBandwidth } from './bandwidth.js'
import { chart } from './chart.js'
import { engines } from './engines.js'
import { browser, closeBrowser, fetchInChromium } from './host-javascript.js'
import { read, since } from './meter.js'
import { modelFile } from './models.js'
import { installPeer } from './peers.js'
import { machine, markdown } from './report.js'
import { rows } from './rows.js'

/** @typedef {import('./engines.js').Case} Case */
/** @typedef {import('./engines.js').Session} Session */
/** @typedef {import('./report.js').Results} Results */
/** @typedef {import('./report.js').Sample} Sample */

const here = join(root, 'tests/bench')
const record = join(here, 'measured.json')
const byHand = '<!-- What follows is written by hand; `npm run bench -- --write` leaves it as it is. -->'
/** A slow case gets no further samples of a row that has taken this long. */
const budgetSeconds = 30

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    engines: { type: 'string' },
    rows: { type: 'string' },
    retries: { type: 'string', default: '2' },
    write: { type: 'boolean', default: false },
    report: { type: 'boolean', default: false },
  },
})

/** @param {string} line */
const say = (line) => process.stderr.write(`${line}\n`)

/** What an option names, or the default. @param {string} kind @param {string | undefined} given
 * @param {Record<string, unknown>} table @param {string[]} fallback */
function choose(kind, given, table, fallback) {
  const names = given?.split(',') ?? fallback
  const unknown = names.find((name) => !Object.hasOwn(table, name))
  if (unknown) throw new SetupError(`no ${kind} '${unknown}'; there are: ${Object.keys(table).join(' ')}`)
  return names
}

/** @param {string} name @param {string | undefined} given @param {number} fallback @param {number} least */
function count(name, given, fallback, least) {
  const value = Number(given ?? fallback)
  if (!Number.isInteger(value) || value < least) throw new SetupError(`--${name} must be a whole number from ${least} on`)
  return value
}

// ---- Samples -------------------------------------------------------------------------------------------------------

/** @param {Results} results @param {string} row @param {string} name @param {Sample} sample */
function add({ samples }, row, name, sample) {
  ;((samples[row] ??= {})[name] ??= []).push(sample)
}

/** Takes a sample, again while others disturb it; the last one counts.
 * @param {number} retries @param {() => Promise<Omit<Sample, 'others' | 'disturbed'>>} take @returns {Promise<Sample>} */
async function undisturbed(retries, take) {
  for (;;) {
    const begin = read()
    const taken = await take()
    const { others, disturbed, joules } = since(begin)
    if (!disturbed || retries-- <= 0) return { ...taken, others, ...(disturbed && { disturbed }), ...(joules && { joules }) }
  }
}

/** Keeps one core busy while `work` runs. @template T @param {() => Promise<T>} work */
async function besideBusyCore(work) {
  const competitor = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' })
  try {
    return await work()
  } finally {
    competitor.kill('SIGKILL')
  }
}

/** What the machine's memory gives, and a plain fetch of the file. @param {Results} results @param {number} retries @param {string} path */
async function measureLimits(results, retries, path) {
  for (const [name, measure] of Object.entries(bandwidths)) {
    add(results, 'bandwidth', name, await undisturbed(retries, async () => ({ value: await measure() })))
  }
  add(results, 'load', 'arrayBuffer() Q4_1', { value: await fetchInChromium(path) })
}

/** One sample of every row of one case.
 * @param {Results} results @param {Case} item @param {string[]} names of rows @param {number} retries */
async function measureCase(results, item, names, retries) {
  const wanted = names.filter((row) => {
    const { cases } = rows[row]
    const spent = (results.samples[row]?.[item.name] ?? []).reduce((sum, { seconds = 0 }) => sum + seconds, 0)
    return (cases?.test(item.name) ?? engines[item.engine].rows?.includes(row) ?? true) && spent < budgetSeconds
  })
  if (!wanted.length) return
  const session = await engines[item.engine].open(item)
  const shown = []
  try {
    for (const row of wanted) {
      const trial = rows[row]
      const begin = performance.now()
      const once = async () => {
        const { perSecond, cpu } = await session.sample(trial)
        return { value: perSecond, ...(cpu !== undefined && !trial.beside && { cpu }) }
      }
      const sample = await undisturbed(retries, trial.beside ? () => besideBusyCore(once) : once)
      const { joules, ...rest } = sample
      const perToken = joules && !trial.depth ? { joules: joules / trial.count } : {}
      add(results, row, item.name, { ...rest, ...perToken, seconds: (performance.now() - begin) / 1e3 })
      shown.push(`${row} ${sample.value.toFixed(1)}${sample.disturbed ? '!' : ''}`)
    }
    const { about, load, memory } = session.facts()
    const known = (results.about[item.engine] ??= [])
    if (!known.includes(about)) known.push(about)
    add(results, 'load', item.name, { value: load })
    add(results, 'memory', item.name, { value: memory })
  } finally {
    await session.close()
  }
  say(`${item.name}: ${shown.join(', ')}`)
}

// ---- The run -------------------------------------------------------------------------------------------------------

/** Brings and builds what the engines need. @param {string[]} names */
async function prepare(names) {
  const chosen = names.map((name) => engines[name])
  await setup(['devmodules', 'browser', ...new Set(chosen.flatMap((engine) => engine.setup ?? []))])
  await build(['native', 'wasm-simd128', 'wasm-relaxed', 'wasm-simd128-threads', 'wasm-relaxed-threads', 'wasi-relaxed'], {
    tests: false,
  })
  await buildBandwidth()
  for (const peer of new Set(chosen.flatMap((engine) => engine.peer ?? []))) await installPeer[peer]()
}

/** @param {string[]} names of engines @returns {Promise<Case[]>} */
async function casesOf(names) {
  const cases = []
  for (const engine of names) {
    for (const name of engines[engine].cases) {
      const [file, threads] = name.split(' ')
      const { about } = engines[engine]
      cases.push({ name: `${engine} ${name}`, engine, file: await modelFile(file), threads: parseInt(threads), about })
    }
  }
  return cases
}

async function measure() {
  const everyday = Object.keys(engines).filter((name) => !engines[name].optional)
  const names = choose('engine', options.engines, engines, everyday)
  const quickRows = Object.keys(rows).filter((row) => rows[row].quick || !options.quick)
  const wanted = choose('row', options.rows, rows, quickRows)
  const rounds = count('rounds', options.rounds, options.quick ? 1 : 5, 1)
  const retries = count('retries', options.retries, 2, 0)

  const where = machine()
  await prepare(names)
  const cases = await casesOf(names)
  /** @type {Results} */
  const results = {
    date: new Date().toISOString().slice(0, 10),
    command: ['npm run bench', ...(process.argv.length > 2 ? ['--', ...process.argv.slice(2)] : [])].join(' '),
    machine: { ...where, chromium: (await browser()).version, node: process.versions.node },
    files: Object.fromEntries(cases.map(({ file: { name, sha256, bytesPerToken } }) => [name, { sha256, bytesPerToken }])),
    about: {},
    shipped: Object.fromEntries(names.map((name) => [name, engines[name].shipped()])),
    rounds,
    samples: {},
  }
  for (const [name, { sha256 }] of Object.entries(results.files)) say(`${name}: sha256 ${sha256}`)
  const { path } = await modelFile('Q4_1')
  try {
    for (let round = 0; round < rounds; round++) {
      say(`round ${round + 1} of ${rounds}`)
      await measureLimits(results, retries, path)
      // Every second round backwards: what the order does falls on all alike.
      for (const item of round % 2 ? cases.toReversed() : cases) await measureCase(results, item, wanted, retries)
    }
  } finally {
    await closeBrowser()
  }
  return results
}

await main(async () => {
  /** @type {Results} */
  const results = options.report ? JSON.parse(fs.readFileSync(record, 'utf8')) : await measure()
  const text = markdown(results)
  console.log(text)
  if (!options.write && !options.report) return
  fs.writeFileSync(record, `${JSON.stringify(results, null, 1)}\n`)
  const measured = join(here, 'MEASURED.md')
  const old = fs.existsSync(measured) ? fs.readFileSync(measured, 'utf8') : ''
  fs.writeFileSync(measured, `${text}\n${byHand}${old.split(byHand)[1] ?? '\n'}`)
  fs.writeFileSync(join(here, 'chart.svg'), chart(results))
})

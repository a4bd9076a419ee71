#!/usr/bin/env node
// Measures nibl beside other engines in one Chromium, on the default model: decode, prefill and load, one thread each.
//
//   node tests/bench/bench.js [--rounds N] [--engines nibl,nibl-simd128,wllama] [--write]
//
// Every round runs every engine once, in a fresh page, so that the machine's moods fall on all alike; a round's first
// completion lets the WebAssembly compiler settle and is not counted. Prints medians, spread and ratios; --write keeps
// them in MEASURED.md. The bars are shown, not enforced: a busy machine is no bug.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { defaultModel, fetchModel } from '../../demo/fetch.js'
import { SetupError, main, root, setup } from '../../wasm/setup.js'
import { installPeers } from './peers.js'
import { machine, samplesTable } from './report.js'
import { serve } from './server.js'

/** @typedef {import('playwright-core').Page} Page */
/** @typedef {Record<string, number[]>} Samples */

/** @type {Record<string, string>} name to the module that runs in the page */
const engines = {
  nibl: '/tests/bench/engine-nibl.js',
  'nibl-simd128': '/tests/bench/engine-nibl.js?binary=simd128',
  wllama: '/tests/bench/peer-wllama.js',
}
const here = join(root, 'tests/bench')
const decodeTokens = 64
const countedCompletions = 2
const baseline = 'arrayBuffer()'

const chromiumFlags =
  '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking ' +
  '--disable-component-update --disable-sync'

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    engines: { type: 'string', default: 'nibl,wllama' },
    write: { type: 'boolean', default: false },
  },
})

/** @param {string} line */
const say = (line) => process.stderr.write(`${line}\n`)

/** @param {Samples} samples @param {string} name @param {number} value */
function add(samples, name, value) {
  ;(samples[name] ??= []).push(value)
}

/** Opens a page of its own for `work`.
 * @template T @param {() => Promise<Page>} newPage @param {(page: Page) => Promise<T>} work */
async function inPage(newPage, work) {
  const page = await newPage()
  try {
    return await work(page)
  } finally {
    await page.close()
  }
}

/** Loads the model; the engine stays in the page as `engine`.
 * @param {Page} page @param {string} module @param {string} url */
function openEngine(page, module, url) {
  return page.evaluate(
    async ([module, url]) => {
      const { open } = await import(module)
      const begin = performance.now()
      const engine = await open(new URL(url, location.href).href)
      Object.assign(globalThis, { engine })
      return { ms: performance.now() - begin, about: /** @type {string} */ (engine.about) }
    },
    [module, url],
  )
}

/** @param {Page} page @param {string} url */
function fetchBaseline(page, url) {
  return page.evaluate(async (url) => {
    const begin = performance.now()
    await (await fetch(url)).arrayBuffer()
    return performance.now() - begin
  }, url)
}

/** @param {Page} page @param {string} prompt @returns {Promise<import('./timing.js').Completion>} */
function complete(page, prompt) {
  return page.evaluate(([prompt, tokens]) => /** @type {any} */ (globalThis).engine.complete(prompt, tokens), [
    prompt,
    decodeTokens,
  ])
}

async function run() {
  const names = options.engines.split(',')
  const rounds = Number(options.rounds)
  const unknown = names.find((name) => !Object.hasOwn(engines, name))
  if (unknown) throw new SetupError(`no engine '${unknown}'; there are: ${Object.keys(engines).join(' ')}`)
  if (!(rounds >= 1)) throw new SetupError('--rounds must be a whole number from 1 on')

  const where = machine()
  await setup(['devmodules', 'browser'])
  if (names.includes('wllama')) installPeers()
  const url = (await fetchModel()).slice(root.length)

  const { origin, close } = await serve()
  const { chromium } = await import('playwright-core')
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  const browser = await chromium.launch({ executablePath, args: chromiumFlags.split(' ') })
  const newPage = async () => {
    const page = await browser.newPage()
    await page.goto(origin)
    return page
  }
  try {
    const load = await measureLoad(names, rounds, newPage, url)
    const speed = await measureSpeed(names, rounds, newPage, url)
    report({ ...speed, load }, `${where}, Chromium ${browser.version()}`)
  } finally {
    await browser.close()
    close()
  }
}

/**
 * From the request until the engine answers, beside a plain fetch of the same bytes.
 * @param {string[]} names @param {number} rounds @param {() => Promise<Page>} newPage @param {string} url
 */
async function measureLoad(names, rounds, newPage, url) {
  /** @type {Samples} */
  const load = {}
  for (let round = 0; round < 2 * rounds; round++) {
    add(load, baseline, await inPage(newPage, (page) => fetchBaseline(page, url)))
    for (const name of names) {
      const { ms } = await inPage(newPage, (page) => openEngine(page, engines[name], url))
      add(load, name, ms)
    }
  }
  return load
}

/** @param {string[]} names @param {number} rounds @param {() => Promise<Page>} newPage @param {string} url */
async function measureSpeed(names, rounds, newPage, url) {
  /** @type {string[]} of 128 tokens each */
  const prompts = JSON.parse(fs.readFileSync(join(here, 'prompts.json'), 'utf8'))
  /** @type {Samples} */ const decode = {}
  /** @type {Samples} */ const prefill = {}
  /** @type {Record<string, string>} */ const about = {}

  /** @param {string} name @param {number} round @param {Page} page */
  async function measure(name, round, page) {
    about[name] = (await openEngine(page, engines[name], url)).about
    for (let i = 0; i <= countedCompletions; i++) {
      const { promptTokens, tokens, firstMs, restMs } = await complete(page, prompts[(round + i) % prompts.length])
      if (promptTokens !== 128) throw new Error(`${name} made ${promptTokens} tokens of a prompt of 128`)
      if (tokens !== decodeTokens) throw new Error(`${name} wrote ${tokens} tokens instead of ${decodeTokens}`)
      if (i === 0) continue
      add(prefill, name, (promptTokens / firstMs) * 1e3)
      add(decode, name, ((tokens - 1) / restMs) * 1e3)
      const [fill, step] = [prefill, decode].map((samples) => samples[name].at(-1)?.toFixed(1))
      say(`round ${round + 1} of ${rounds}: ${name} prefill ${fill}, decode ${step} tok/s`)
    }
  }

  for (let round = 0; round < rounds; round++) {
    for (const name of names) await inPage(newPage, (page) => measure(name, round, page))
  }
  return { decode, prefill, about }
}

/**
 * @param {{ decode: Samples, prefill: Samples, load: Samples, about: Record<string, string> }} measured
 * @param {string} where
 */
function report({ decode, prefill, load, about }, where) {
  const day = new Date().toISOString().slice(0, 10)
  const text = [
    `${day}, ${where}, Node ${process.versions.node}`,
    `\`npm run bench\`: ${defaultModel.name}, one thread, greedy; prefill of 128 tokens (to the first token), decode` +
      ` of ${decodeTokens}, load from the request until the engine answers; over loopback, nothing cached.`,
    Object.entries(about).map(([name, what]) => `${name}: ${what}.`).join(' '),
    samplesTable([
      { name: 'decode', unit: 'tok/s', samples: decode, against: 'wllama', bar: '>= 3' },
      { name: 'prefill', unit: 'tok/s', samples: prefill, against: 'wllama', bar: '>= 3' },
      { name: 'load', unit: 'ms', samples: load, against: baseline, bar: '<= 1.3' },
    ]),
  ].join('\n\n')
  console.log(text)
  if (options.write) {
    fs.writeFileSync(join(here, 'MEASURED.md'), `# Measured\n\n${text}\n`)
  }
}

await main(run)

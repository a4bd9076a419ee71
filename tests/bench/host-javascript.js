// Engines with a JavaScript interface (see timing.js): in a page of their own in Chromium, or in a process of their own
// under Node.

import { fork } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { root } from '../../wasm/setup.js'
import { memory, read, since } from './meter.js'
import { serve } from './server.js'

/** @typedef {import('./engines.js').Session} Session */
/** @typedef {import('./engines.js').Case} Case */
/** @typedef {import('./timing.js').Prompt} Prompt */

/**
 * A place where an engine was opened.
 * @typedef {object} Place
 * @property {{ ms: number, about: string }} opened
 * @property {import('./timing.js').Engine['complete']} complete
 * @property {() => Promise<void>} close
 */

const contextLength = 4352

/** Texts of 128 tokens each; joined by spaces their tokens add up. @type {string[]} */
const pieces = JSON.parse(fs.readFileSync(join(root, 'tests/bench/prompts.json'), 'utf8'))
const pieceTokens = 128
let nextPiece = 0

/** A prompt that begins unlike the one before, so that no engine can use again what it computed.
 * @param {number} tokens @returns {Prompt} */
function prompt(tokens) {
  if (tokens === 1) return { text: 'The', tokens }
  const start = nextPiece++
  const parts = Array.from({ length: tokens / pieceTokens }, (_, i) => pieces[(start + i) % pieces.length])
  return { text: parts.join(' '), tokens }
}

/** @param {() => Promise<Place>} newPlace @returns {Promise<Session>} */
async function session(newPlace) {
  const before = memory()
  const { opened, complete, close } = await newPlace()

  /** @param {number} promptTokens @param {number} tokens */
  async function run(promptTokens, tokens) {
    const done = await complete(prompt(promptTokens), tokens)
    if (done.promptTokens === promptTokens && done.tokens === tokens) return done
    throw new Error(`made ${done.promptTokens} + ${done.tokens} tokens instead of ${promptTokens} + ${tokens}`)
  }

  // The WebAssembly compiler settles.
  await run(pieceTokens, 16)
  return {
    async sample({ measure, count, depth }) {
      const begin = read()
      if (measure === 'prefill') {
        const { firstMs } = await run(count, 1)
        return { perSecond: (count / firstMs) * 1e3, cpu: since(begin).cpu / count }
      }
      const { restMs } = await run(depth || 1, count + 1)
      // The first pass is the prompt's.
      return { perSecond: (count / restMs) * 1e3, cpu: depth ? undefined : since(begin).cpu / (count + 1) }
    },
    facts: () => ({ about: opened.about, load: opened.ms, memory: memory() - before }),
    close,
  }
}

// ---- Chromium ------------------------------------------------------------------------------------------------------

const chromiumFlags =
  '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking ' +
  '--disable-component-update --disable-sync'

/** @type {Promise<Awaited<ReturnType<typeof startBrowser>>> | undefined} */
let started

async function startBrowser() {
  const { origin, close } = await serve()
  const { chromium } = await import('playwright-core')
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  const browser = await chromium.launch({ executablePath, args: chromiumFlags.split(' ') })
  const newPage = async () => {
    const page = await browser.newPage()
    await page.goto(origin)
    return page
  }
  // The processes of the browser are there before anybody's memory is measured.
  await (await newPage()).close()
  const stop = async () => {
    await browser.close()
    close()
  }
  return { newPage, stop, version: browser.version() }
}

/** The one Chromium of this run. */
export const browser = () => (started ??= startBrowser())

export async function closeBrowser() {
  await (await started)?.stop()
}

/** @param {string} path below the root @returns {string} as the page names it */
const inPage = (path) => `/${path}`

/** @param {string} module @param {Case} item @returns {Promise<Session>} */
export async function openInChromium(module, { file, threads }) {
  const { newPage } = await browser()
  return session(async () => {
    const page = await newPage()
    const opened = await page.evaluate(
      async ([module, url, options]) => {
        const { open } = await import(module)
        const begin = performance.now()
        const engine = await open(new URL(url, location.href).href, options)
        Object.assign(globalThis, { engine })
        return { ms: performance.now() - begin, about: /** @type {string} */ (engine.about) }
      },
      /** @type {const} */ ([inPage(module), inPage(file.path), { threads, contextLength }]),
    )
    /** @type {Place['complete']} */
    const complete = (prompt, tokens) =>
      page.evaluate(([prompt, tokens]) => /** @type {any} */ (globalThis).engine.complete(prompt, tokens), [
        prompt,
        tokens,
      ])
    return { opened, complete, close: () => page.close() }
  })
}

/** From the request to the last byte, ms: what a load is compared with. @param {string} path below the root */
export async function fetchInChromium(path) {
  const page = await (await browser()).newPage()
  try {
    return await page.evaluate(async (url) => {
      const begin = performance.now()
      await (await fetch(url)).arrayBuffer()
      return performance.now() - begin
    }, inPage(path))
  } finally {
    await page.close()
  }
}

// ---- Node ----------------------------------------------------------------------------------------------------------

/** @param {string} module @param {Case} item @returns {Promise<Session>} */
export function openInNode(module, { file, threads }) {
  return session(async () => {
    const execPath = join(root, '.toolchain/bin/node24')
    const child = fork(join(root, 'tests/bench/node-child.js'), { execPath, execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] })
    /** @param {string} name @param {unknown[]} args @returns {Promise<any>} */
    const call = (name, ...args) =>
      new Promise((done, fail) => {
        const ended = () => fail(new Error('the engine under Node ended'))
        child.once('exit', ended)
        child.once('message', (/** @type {{ value?: unknown, error?: string }} */ { value, error }) => {
          child.off('exit', ended)
          if (error) fail(new Error(error))
          else done(value)
        })
        child.send({ name, args })
      })
    const opened = await call('open', join(root, module), join(root, file.path), { threads, contextLength })
    return {
      opened,
      complete: (prompt, tokens) => call('complete', prompt, tokens),
      close: () =>
        new Promise((done) => {
          child.once('exit', () => done())
          child.kill()
        }),
    }
  })
}

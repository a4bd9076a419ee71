/** A Chromium and a server for the browser tests. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, readdirSync } from 'node:fs'
import { after, before } from 'node:test'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'
import { pageRoots, serve } from '../../demo/serve.js'

/** @typedef {import('playwright-core').Page} Page */

/** @param {string} path from the repository's root */
const fromRoot = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

export const tiny = 'fixtures/tiny-llama-q4_1.gguf'
export const modelPath = fromRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf')
export const modelUrl = 'model/SmolLM2-135M-Instruct.Q4_1.gguf'
export const tinyPath = fromRoot(`tests/${tiny}`)

const screenshots = fromRoot('build/screenshots')
const roots = { ...pageRoots, '/fixtures/': fromRoot('tests/fixtures'), '/tests/': fromRoot('tests/browser') }
const flags = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
]

const launch = { executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: flags }

/** @type {import('playwright-core').Browser} */
let browser
/** @type {Awaited<ReturnType<typeof serve>>} */
let isolated
/** @type {Awaited<ReturnType<typeof serve>>} */
let plain

/** Starts what the tests of a file need; ends it behind them. */
export function withBrowser() {
  before(async () => {
    browser = await chromium.launch(launch)
    isolated = await serve({ port: 0, roots })
    plain = await serve({ port: 0, roots, isolated: false })
  })
  after(async () => {
    await browser?.close()
    await isolated?.close()
    await plain?.close()
  })
}

/** What several pages of a test share: as tabs of one window. @param {{ after: (fn: () => any) => void }} t
 * @param {string} [profile] folder for what pages keep: as in no private window */
export async function openContext(t, profile) {
  const context = await (profile ? chromium.launchPersistentContext(profile, launch) : browser.newContext())
  t.after(() => context.close())
  return context
}

/**
 * A page of its own for one test. Afterwards: nothing was asked from another host, no error was on the console.
 * @param {{ after: (fn: () => any) => void }} t
 * @param {string} path below the server's address
 * @param {{ isolation?: boolean, expectErrors?: boolean, context?: import('playwright-core').BrowserContext }
 *   & import('playwright-core').BrowserContextOptions} [options]
 */
export async function openPage(t, path, { isolation = true, expectErrors = false, context, ...options } = {}) {
  const { url } = isolation ? isolated : plain
  const page = await (context ? context.newPage() : browser.newPage(options))
  /** @type {{ type: string, text: string }[]} */
  const log = []
  /** @type {string[]} */
  const requests = []
  page.on('console', (message) => log.push({ type: message.type(), text: message.text() }))
  page.on('pageerror', (error) => log.push({ type: 'error', text: String(error) }))
  page.on('request', (request) => requests.push(request.url()))
  t.after(async () => {
    await page.close()
    const foreign = requests.filter((address) => !/^(data:|blob:|http:\/\/127\.0\.0\.1[:/])/.test(address))
    assert.deepEqual(foreign, [])
    if (!expectErrors) assert.deepEqual(log.filter(({ type }) => type === 'error' || type === 'warning'), [])
  })
  await page.goto(url + path)
  return { page, url, log, requests }
}

/** @param {Page} page @param {string} name */
export async function screenshot(page, name) {
  mkdirSync(screenshots, { recursive: true })
  await page.screenshot({ path: `${screenshots}/${name}.png` })
}

/** Until all models that the page has asked for are kept whole, which an answer does not wait for. @param {Page} page */
export const keptWhole = (page) =>
  page.evaluate(async () => {
    const { openCache } = await import(String(new URL('../web/nibl.js', location.href)))
    const cache = await openCache()
    for (;;) {
      const kept = await cache.list()
      if (kept.length && kept.every((/** @type {any} */ { complete }) => complete)) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })

/** Downloads of models wait until the returned function is called. @param {Page} page */
export async function holdModels(page) {
  let release = () => {}
  const held = new Promise((resolve) => (release = () => resolve(undefined)))
  await page.context().route('**/*.gguf', async (route) => {
    if (route.request().method() === 'GET') await held
    await route.continue().catch(() => {})
  })
  return release
}

/** What /proc tells of a process; '' where it has ended. @param {string} pid @param {string} what */
export function tellsOf(pid, what) {
  try {
    return readFileSync(`/proc/${pid}/${what}`, 'utf8')
  } catch {
    return ''
  }
}

/** The processes that descend from this one and run a page, or wait for one. */
export function renderers() {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  const parents = new Map(pids.map((pid) => [pid, /^PPid:\s+(\d+)/m.exec(tellsOf(pid, 'status'))?.[1]]))
  const mine = (/** @type {string} */ pid) => {
    for (let at = pid; at && at !== '0'; at = parents.get(at) ?? '') if (at === String(process.pid)) return true
    return false
  }
  return pids.filter((pid) => mine(pid) && tellsOf(pid, 'cmdline').includes('--type=renderer'))
}

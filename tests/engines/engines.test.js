/**
 * The library and the page in engines other than Chromium's: NIBL_BROWSER names one. The answers are those that Node
 * gives; what an engine lacks is told, and only that differs.
 */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { load, quantize } from 'nibl'
import { pageRoots, serve } from '../../demo/serve.js'
import { faultyServer } from '../web/faulty-server.js'
import { answerTokens } from '../web/support.js'

/**
 * @typedef {object} Page
 * @property {string} version
 * @property {<A, R>(work: (argument: A) => R | Promise<R>, argument?: A) => Promise<R>} evaluate calls a function in the page
 * @property {() => Promise<Uint8Array>} screenshot a PNG
 * @typedef {(t: { after: (fn: () => any) => void }, url: string) => Promise<Page>} Open
 */

/** What each engine has. @type {Record<string, { binary: string, threads: number, why: RegExp }>} */
const engines = {
  firefox: { binary: 'relaxed-threads', threads: 2, why: /relaxed SIMD: validated and self-tested; 2 threads/ },
  webkit: { binary: 'simd128', threads: 1, why: /no relaxed SIMD: the engine does not have it; one thread: the engine has no shared memory/ },
}
const name = process.env.NIBL_BROWSER ?? ''
const engine = engines[name]
assert.ok(engine, `NIBL_BROWSER is one of ${Object.keys(engines)}`)
const { openPage } = /** @type {{ openPage: Open }} */ (await import(`./${name}.js`))

const path = (/** @type {string} */ relative) => fileURLToPath(new URL(`../../${relative}`, import.meta.url))
const folders = ['tests/fixtures', 'tests/browser'].map((folder) => [`/${folder}/`, path(folder)])
const modelPath = path('.models/SmolLM2-135M-Instruct.Q4_1.gguf')
const f16 = 'tests/fixtures/tiny-llama-f16.gguf'
const blank = 'tests/browser/blank.html'

/** @param {{ after: (fn: () => any) => void }} t @param {string} address below the server's */
async function open(t, address) {
  const server = await serve({ port: 0, roots: { ...pageRoots, ...Object.fromEntries(folders) } })
  t.after(() => server.close())
  return { url: server.url, ...(await openPage(t, server.url + address)) }
}

/** In the page. @param {{ source: string, options?: any, prompt?: string }} request */
async function runModel({ source, options = {}, prompt = 'The quick brown fox' }) {
  const { load } = await import('nibl')
  /** @type {string[]} */
  const warnings = []
  const model = await load(source, { onWarning: (/** @type {any} */ warning) => warnings.push(warning.message), ...options })
  const tokens = []
  for await (const piece of model.generate(prompt, { maxTokens: 8 })) tokens.push(piece.token)
  await model.ready
  const { info, stats } = model
  model.close()
  return { tokens, hash: stats.hash, warnings, binary: info.binary, threads: info.threads, why: info.why }
}

/** @param {BufferSource} bytes */
const digestOf = async (bytes) => [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))]

test("the real model: Node's logits, from the binary that this engine can run, with the reason told", async (t) => {
  const page = await open(t, blank)
  t.diagnostic(page.version)
  const model = await load(modelPath)
  const expected = { tokens: await answerTokens(model, 'The quick brown fox', { maxTokens: 8 }), hash: model.stats.hash }
  model.close()
  const source = `${page.url}model/SmolLM2-135M-Instruct.Q4_1.gguf`
  const { tokens, hash, binary, threads, why } = await page.evaluate(runModel, { source, options: { threads: 2 } })
  assert.deepEqual({ tokens, hash, binary, threads }, { ...expected, binary: engine.binary, threads: engine.threads })
  assert.match(why, engine.why)
  const inPage = await page.evaluate(runModel, { source, options: { early: true, worker: false } })
  assert.deepEqual({ tokens: inPage.tokens, hash: inPage.hash, threads: inPage.threads }, { ...expected, threads: 1 })
})

test('errors are typed, an abort leaves the model usable, quantize() makes the bytes that Node makes', async (t) => {
  const page = await open(t, blank)
  const { blob } = await quantize(path(f16))
  const digest = await digestOf(await /** @type {Blob} */ (blob).arrayBuffer())
  const made = await page.evaluate(async (source) => {
    const { NiblError, load, quantize } = await import('nibl')
    const codes = []
    for (const wrong of [`${source}.missing`, new URL('blank.html', location.href).href]) {
      codes.push(await load(wrong, { retries: 0 }).then(() => 'loaded', (error) => error instanceof NiblError && error.code))
    }
    const model = await load(source)
    const answer = async (/** @type {any} */ options, stop = () => {}) => {
      let count = 0
      for await (const _ of model.generate('Hello', options)) if (++count === 3) stop()
      return count
    }
    const controller = new AbortController()
    const aborted = await answer({ maxTokens: 100000, signal: controller.signal }, () => controller.abort()).catch((error) => error.name)
    const after = await answer({ maxTokens: 4 })
    model.close()
    const { blob } = await quantize(source)
    const digest = await crypto.subtle.digest('SHA-256', await /** @type {Blob} */ (blob).arrayBuffer())
    return { codes, aborted, after: after > 0, digest: [...new Uint8Array(digest)] }
  }, page.url + f16)
  assert.deepEqual(made, { codes: ['DOWNLOAD_FAILED', 'BAD_FILE'], aborted: 'AbortError', after: true, digest })
})

test('the cache: filled after a cut, read offline, listed, deleted', async (t) => {
  const page = await open(t, blank)
  /* A WebKit that is driven keeps all in memory, and only while somebody has it open. */
  await page.evaluate(async () => void Object.assign(globalThis, { held: await caches.open('nibl models') }))
  const headers = { 'Cross-Origin-Resource-Policy': 'cross-origin', ETag: '"1"' }
  const bytes = new Uint8Array(readFileSync(modelPath))
  const server = await faultyServer(bytes, { headers })
  server.choose = () => ({ headers, ...(server.ranges.length === 0 && { cutAt: 0.6 }) })
  t.after(() => server.close())
  const source = server.url
  const load = (/** @type {any} */ options) => page.evaluate(runModel, { source, options: { cache: true, ...options } })
  const first = await load({})
  assert.deepEqual(first.warnings, [])
  await server.close()
  const second = await load({ allowOffline: true, early: true })
  assert.deepEqual({ hash: second.hash, warnings: second.warnings }, { hash: first.hash, warnings: [] })
  const kept = await page.evaluate(async (model) => {
    const { openCache } = await import('nibl')
    const cache = await openCache()
    const [{ complete }] = await cache.list()
    return [complete, await cache.size(), await cache.delete(model), await cache.size()]
  }, source)
  assert.deepEqual(kept, [true, bytes.length, true, 0])
})

test('the page: load, ask, answer', async (t) => {
  const page = await open(t, 'demo/')
  const text = await page.evaluate(async () => {
    const $ = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (document.querySelector(selector))
    const until = async (/** @type {() => any} */ ready) => {
      while (!ready()) await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await until(() => $('#default-size').textContent?.includes('98 MB'))
    $('#load-default').click()
    await until(() => !$('#suggestions').hidden)
    $('#suggestions button').click()
    await until(() => $('.assistant .text')?.textContent && !$('#send').hidden)
    return $('.assistant .text').textContent
  })
  assert.ok(String(text).length > 20)
  mkdirSync(path('build/screenshots'), { recursive: true })
  writeFileSync(path(`build/screenshots/${name}.png`), await page.screenshot())
})

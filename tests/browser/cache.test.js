/** The cache in the origin's private file system: two tabs, a tab that is closed, a quota, a page without a worker. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { hubServer } from '../web/hub-server.js'
import { faultyServer } from '../web/faulty-server.js'
import { tinyBytes } from '../web/support.js'
import { modelPath, openContext, openPage, withBrowser } from './support.js'

withBrowser()

const headers = { 'Cross-Origin-Resource-Policy': 'cross-origin' }
const PROBE = 16 << 10

/** In the page. @param {{ source: string, options?: any, prompt?: string }} request */
async function loadHere({ source, options = {}, prompt = 'Hello' }) {
  const { load } = await import('nibl')
  /** @type {string[]} */
  const warnings = []
  const model = await load(source, { cache: true, onWarning: (/** @type {any} */ warning) => warnings.push(warning.code), ...options })
  for await (const _ of model.generate(prompt, { maxTokens: 2 }));
  const { hash, load: { bytes, seconds } } = model.stats
  model.close()
  return { hash, bytes, seconds, warnings }
}

/** In the page. */
async function listHere() {
  const { openCache } = await import('nibl')
  const cache = await openCache()
  const list = await cache.list()
  return list.map(({ model, size, bytes, complete }) => ({ model, size, bytes, complete }))
}

test('filled, read, listed, deleted; offline', async (t) => {
  const { page } = await openPage(t, 'tests/blank.html', { expectErrors: true })
  const server = await faultyServer(tinyBytes, { headers })
  t.after(() => server.close())
  const source = server.url
  const first = await page.evaluate(loadHere, { source })
  assert.deepEqual(first.warnings, [])
  const sent = server.sent
  for (const options of [{}, { early: true }]) assert.equal((await page.evaluate(loadHere, { source, options })).hash, first.hash)
  assert.ok(server.sent - sent <= 2 * PROBE)
  assert.deepEqual(await page.evaluate(listHere), [{ model: source, size: tinyBytes.length, bytes: tinyBytes.length, complete: true }])
  await server.close()
  assert.equal((await page.evaluate(loadHere, { source, options: { allowOffline: true } })).hash, first.hash)
  const left = await page.evaluate(async (model) => {
    const { openCache } = await import('nibl')
    const cache = await openCache()
    return [await cache.delete(model), await cache.size(), typeof (await cache.persist())]
  }, source)
  assert.deepEqual(left, [true, 0, 'boolean'])
  assert.deepEqual(await page.evaluate(listHere), [])
})

test('two tabs, one download; both read what is there at once', async (t) => {
  const context = await openContext(t)
  const [one, two] = [await openPage(t, 'tests/blank.html', { context }), await openPage(t, 'tests/blank.html', { context })]
  const server = await hubServer(t, { 'a/b': { 'tiny.gguf': tinyBytes } }, { cutAfter: tinyBytes.length / 4 })
  const request = { source: 'hf:a/b', options: { hub: server.url } }
  const results = await Promise.all([one, two].map(({ page }) => page.evaluate(loadHere, request)))
  assert.equal(results[0].hash, results[1].hash)
  assert.equal(server.sent, tinyBytes.length)
  const again = await Promise.all([one, two].map(({ page }) => page.evaluate(loadHere, { ...request, options: { ...request.options, early: true } })))
  assert.deepEqual(again.map(({ hash, warnings }) => ({ hash, warnings })), [1, 2].map(() => ({ hash: results[0].hash, warnings: [] })))
  assert.equal(server.sent, tinyBytes.length)
})

/** The same numbers each time (mulberry32). @param {number} seed */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

test('a tab that is killed or closed at 20 random points: the next one goes on', { timeout: 300000 }, async (t) => {
  const body = new Uint8Array(readFileSync(modelPath))
  const context = await openContext(t)
  const server = await faultyServer(body, { headers: { ...headers, ETag: '"1"' }, rate: 25e6 })
  t.after(() => server.close())
  const integrity = createHash('sha256').update(body).digest('hex')
  const next = random(Number(process.env.NIBL_SEED ?? 7))
  const points = Array.from({ length: 20 }, next).sort((a, b) => a - b)
  /** Bytes that came a second time, of each death. @type {number[]} */
  const again = []
  let loaded = 0
  await context.exposeFunction('told', (/** @type {number} */ bytes) => (loaded = bytes))
  /** Up to where the server had sent when it happened. */
  let reached = 0
  for (const [i, point] of points.entries()) {
    const { page } = await openPage(t, 'tests/blank.html', { context, expectErrors: true })
    const [sent, asked] = [server.sent, server.ranges.length]
    loaded = 0
    page.evaluate(async (source) => {
      const { load } = await import('nibl')
      await load(source, { cache: true, onProgress: ({ loaded }) => /** @type {any} */ (window).told(loaded) })
    }, server.url).catch(() => {})
    while (loaded < point * body.length) await new Promise((resolve) => setTimeout(resolve, 2))
    const atDeath = server.sent
    if (i % 2) await page.close()
    else {
      const session = await context.newCDPSession(page)
      const gone = page.waitForEvent('crash')
      session.send('Page.crash').catch(() => {})
      await gone
      await page.close()
    }
    while (server.open()) await new Promise((resolve) => setTimeout(resolve, 2))
    const starts = server.ranges.slice(asked).map((range) => Number(/^bytes=(\d+)/.exec(range)?.[1] ?? 0))
    const start = starts.at(-1) ?? 0
    if (i) again.push(Math.max(0, reached - start))
    reached = start + (atDeath - sent)
  }
  const { page } = await openPage(t, 'tests/blank.html', { context })
  const before = server.ranges.length
  const { bytes, warnings } = await page.evaluate(loadHere, { source: server.url, options: { integrity } })
  again.push(Math.max(0, reached - Number(/^bytes=(\d+)/.exec(server.ranges.slice(before).at(-1) ?? '')?.[1] ?? 0)))
  assert.deepEqual(warnings, [])
  assert.equal(bytes, body.length)
  const shares = again.map((count) => count / body.length).sort((a, b) => a - b)
  t.diagnostic(`of what was sent before each death, sent again: ${shares.map((share) => (100 * share).toFixed(2)).join(' ')} %; and of all that was sent, until sockets were closed: ${((100 * (server.sent - body.length)) / body.length).toFixed(1)} %`)
  assert.ok(shares[10] < 0.01, 'the median; more only where the machine is too busy for the page to keep up')
})

test('without space, and without a worker, the load goes on and says so', async (t) => {
  const profile = await mkdtemp(join(tmpdir(), 'nibl-'))
  const { page, url } = await openPage(t, 'tests/blank.html', { context: await openContext(t, profile) })
  t.after(() => rm(profile, { recursive: true, maxRetries: 5 }))
  const server = await faultyServer(tinyBytes, { headers })
  t.after(() => server.close())
  const { hash } = await page.evaluate(loadHere, { source: server.url, options: { cache: false } })
  const inPage = await page.evaluate(loadHere, { source: server.url, options: { worker: false } })
  assert.deepEqual([inPage.hash, inPage.warnings], [hash, ['CACHE_FAILED']])
  const session = await page.context().newCDPSession(page)
  await session.send('Storage.overrideQuotaForOrigin', { origin: new URL(url).origin, quotaSize: 50000 })
  const full = await page.evaluate(loadHere, { source: server.url })
  assert.deepEqual([full.hash, full.warnings], [hash, ['QUOTA']])
  assert.deepEqual(await page.evaluate(listHere), [])
})

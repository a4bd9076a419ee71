/** The library in Chromium: the same logits as under Node, a worker by default, threads where the page is isolated. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from 'nibl'
import { faultyServer } from '../web/faulty-server.js'
import { answerTokens, longContext, longLength, sleepsSoon, tinyBytes } from '../web/support.js'
import { modelPath, modelUrl, openPage, tiny, tinyPath, withBrowser } from './support.js'

withBrowser()

/** In the page: loads, generates, and tells all about it.
 * @param {{ source: string | null, options?: any, prompt?: any, generate?: any }} request `source` null: the file input's */
async function runModel({ source, options = {}, prompt = 'The quick brown fox', generate = { maxTokens: 8 } }) {
  const { load } = await import('nibl')
  const input = /** @type {HTMLInputElement} */ (document.getElementById('file'))
  const file = input.files?.[0]
  const model = await load(source ?? /** @type {File} */ (file), options)
  const tokens = []
  for await (const piece of model.generate(prompt, generate)) tokens.push(piece.token)
  await model.ready
  const { info, stats } = model
  model.close()
  return { tokens, info, stats }
}

/** Waits until all workers of the page have ended. @param {import('./support.js').Page} page */
async function noWorkers(page) {
  while (page.workers().length > 0) await page.workers()[0].waitForEvent('close', { timeout: 10000 })
}

/** The same under Node. @param {string} path @param {any} prompt @param {any} generate */
async function underNode(path, prompt = 'The quick brown fox', generate = { maxTokens: 8 }) {
  const model = await load(path, { threads: 1 })
  const tokens = await answerTokens(model, prompt, generate)
  const { hash } = model.stats
  model.close()
  return { tokens, hash }
}

test('every binary and number of threads gives the logits that Node gives', async (t) => {
  const { page, url, log } = await openPage(t, 'tests/blank.html')
  const prompt = [{ role: 'user', content: 'Tell me about the sea, the moon and the tides, and how they belong together.' }]
  const generate = { maxTokens: 8 }
  const expected = await underNode(modelPath, prompt, generate)
  for (const binary of ['simd128', 'relaxed']) {
    for (const threads of [1, 2, 3]) {
      const options = { binary, threads, early: threads === 2 }
      const { tokens, info, stats } = await page.evaluate(runModel, { source: url + modelUrl, options, prompt, generate })
      assert.equal(info.binary, threads > 1 ? `${binary}-threads` : binary)
      assert.equal(info.threads, threads)
      assert.deepEqual({ tokens, hash: stats.hash }, expected, info.binary)
      assert.ok(stats.memory.linear <= stats.memory.weights + stats.memory.kv + (32 << 20))
    }
  }
  assert.deepEqual(log, [])
})

test('by default: relaxed SIMD, threads, a worker', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const { info } = await page.evaluate(runModel, { source: url + tiny })
  assert.match(info.binary, /^relaxed/)
  assert.match(info.why, /relaxed SIMD: validated and self-tested/)
  await noWorkers(page)
})

test('without isolation: one thread, and one line that says what to send', async (t) => {
  const { page, url, log } = await openPage(t, 'tests/blank.html', { isolation: false })
  const expected = await underNode(tinyPath)
  for (let again = 0; again < 2; again++) {
    const { tokens, info, stats } = await page.evaluate(runModel, { source: url + tiny, options: { threads: 4 } })
    assert.equal(info.binary, 'relaxed')
    assert.equal(info.threads, 1)
    assert.match(info.why, /one thread: the page is not cross-origin isolated/)
    assert.deepEqual({ tokens, hash: stats.hash }, expected)
  }
  assert.equal(log.length, 1)
  assert.match(log[0].text, /Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp/)
})

test('64-bit memory, with threads and without isolation', async (t) => {
  const { hash } = await underNode(tinyPath)
  for (const isolation of [true, false]) {
    const { page, url, requests } = await openPage(t, 'tests/blank.html', { isolation })
    await page.evaluate(runModel, { source: url + tiny })
    assert.ok(!requests.some((address) => address.includes('memory64')), 'fetched for a small model')
    await page.setInputFiles('#file', { name: 'long.gguf', mimeType: '', buffer: Buffer.from(longContext) })
    const request = { source: null, options: { contextLength: longLength, threads: 2 } }
    const { info, stats } = await page.evaluate(runModel, request)
    assert.equal(info.binary, 'relaxed-memory64')
    assert.ok(requests.some((address) => address.includes('memory64')))
    assert.equal(info.threads, isolation ? 2 : 1)
    assert.equal(stats.hash, hash)
  }
})

test('every kind of source, in the worker and in the page', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const { hash } = await underNode(tinyPath)
  await page.setInputFiles('#file', tinyPath)
  for (const worker of [true, false]) {
    const relative = await page.evaluate(runModel, { source: '../fixtures/tiny-llama-q4_1.gguf', options: { worker } })
    assert.equal(relative.stats.hash, hash)
    const file = await page.evaluate(runModel, { source: null, options: { worker, early: true } })
    assert.equal(file.stats.hash, hash)
    const others = await page.evaluate(
      async ({ address, worker }) => {
        const { load } = await import('nibl')
        const bytes = new Uint8Array(await (await fetch(address)).arrayBuffer())
        const response = await fetch(address)
        const sources = [response, (await fetch(address)).body, bytes, new Blob([bytes]), new URL(address)]
        const hashes = []
        for (const source of sources) {
          const model = await load(/** @type {any} */ (source), { worker })
          for await (const _ of model.generate('The quick brown fox', { maxTokens: 8 }));
          hashes.push(model.stats.hash)
          model.close()
        }
        return { hashes, length: bytes.length }
      },
      { address: url + tiny, worker },
    )
    assert.deepEqual(others, { hashes: Array(5).fill(hash), length: tinyBytes.length })
  }
})

test('errors come typed from the worker, and the page goes on', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html', { expectErrors: true })
  const cut = await faultyServer(tinyBytes, { cutAt: 0.3, headers: { 'Cross-Origin-Resource-Policy': 'cross-origin' } })
  t.after(() => cut.close())
  const stall = await faultyServer(tinyBytes, { stallAt: 0.5, headers: { 'Cross-Origin-Resource-Policy': 'cross-origin' } })
  t.after(() => stall.close())
  const failures = await page.evaluate(
    async ({ url, cut, stall }) => {
      const { NiblError, load } = await import('nibl')
      const attempt = async (/** @type {any} */ source, /** @type {any} */ options) => {
        try {
          await load(source, { retries: 0, ...options })
          return 'loaded'
        } catch (error) {
          if (error instanceof NiblError) return error.code
          return error instanceof DOMException ? error.name : String(error)
        }
      }
      const soon = new AbortController()
      setTimeout(() => soon.abort(), 100)
      return [
        await attempt(`${url}missing.gguf`, {}),
        await attempt(`${url}tests/blank.html`, {}),
        await attempt(cut, {}),
        await attempt(stall, { timeout: 200 }),
        await attempt(stall, { signal: soon.signal }),
        await attempt('http://127.0.0.1:1/', {}),
        await attempt(`${url}fixtures/tiny-llama-q4_1.gguf`, { workerUrl: `${url}missing.js` }),
        await attempt(`${url}fixtures/tiny-llama-q4_1.gguf`, { wasmUrl: `${url}missing/` }),
        await attempt('x.gguf', { thread: 1 }),
      ]
    },
    { url, cut: cut.url, stall: stall.url },
  )
  assert.deepEqual(failures, [
    'DOWNLOAD_FAILED', 'BAD_FILE', 'DOWNLOAD_FAILED', 'TIMEOUT', 'AbortError', 'DOWNLOAD_FAILED', 'WORKER_FAILED',
    'WASM_FAILED', 'BAD_ARGUMENT',
  ])
  await noWorkers(page)
  await page.evaluate(runModel, { source: url + tiny })
})

test('aborts in prefill and decode, with the model usable after', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const result = await page.evaluate(async (address) => {
    const { load } = await import('nibl')
    const model = await load(address)
    const text = async (/** @type {string} */ prompt, /** @type {any} */ options) => {
      let all = ''
      for await (const piece of model.generate(prompt, options)) all += piece.text
      return all
    }
    const expected = await text('Hello', { maxTokens: 4 })
    const names = []
    for (const [prompt, wait] of /** @type {[string, number][]} */ ([['word '.repeat(3000), 30], ['Hello', 300]])) {
      const controller = new AbortController()
      setTimeout(() => controller.abort(), wait)
      const logitBias = { 0: -Infinity, 2: -Infinity } /* no end */
      names.push(await text(prompt, { signal: controller.signal, logitBias }).then(() => 'done', (error) => error.name))
    }
    const same = (await text('Hello', { maxTokens: 4 })) === expected
    model.close()
    return { names, same }
  }, url + modelUrl)
  assert.deepEqual(result, { names: ['AbortError', 'AbortError'], same: true })
})

test('the page is free while the worker computes', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const ticks = await page.evaluate(async (address) => {
    const { load } = await import('nibl')
    const model = await load(address)
    let count = 0
    const timer = setInterval(() => count++, 0)
    for await (const _ of model.generate('word '.repeat(200), { maxTokens: 4 }));
    clearInterval(timer)
    model.close()
    return count
  }, url + modelUrl)
  assert.ok(ticks > 10, `${ticks} timer events`)
})

test('quantize() makes the bytes that Node makes', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const { quantize } = await import('nibl')
  const { blob } = await quantize('tests/fixtures/tiny-llama-f16.gguf', { threads: 1 })
  const expected = [...new Uint8Array(await crypto.subtle.digest('SHA-256', await /** @type {Blob} */ (blob).arrayBuffer()))]
  const made = await page.evaluate(async (source) => {
    const { quantize } = await import('nibl')
    const { blob, report } = await quantize(source)
    const digest = await crypto.subtle.digest('SHA-256', await /** @type {Blob} */ (blob).arrayBuffer())
    return { digest: [...new Uint8Array(digest)], tensors: report.tensors.length }
  }, `${url}fixtures/tiny-llama-f16.gguf`)
  assert.deepEqual(made.digest, expected)
  assert.ok(made.tensors > 10)
})

test('after an answer no thread takes processor time', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  await page.evaluate(async (source) => {
    const { load } = await import('nibl')
    const model = await load(source, { threads: 3 })
    for await (const _ of model.generate('The quick brown fox', { maxTokens: 8 }));
  }, url + tiny)
  const session = await /** @type {import('playwright-core').Browser} */ (page.context().browser()).newBrowserCDPSession()
  await sleepsSoon(async () => {
    const { processInfo } = await session.send('SystemInfo.getProcessInfo')
    return processInfo.filter(({ type }) => type === 'renderer').reduce((sum, { cpuTime }) => sum + cpuTime, 0)
  })
})

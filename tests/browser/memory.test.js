/** Memory that comes back: what a page's process has after models were closed. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { openPage, renderers, tellsOf, tiny, withBrowser } from './support.js'

withBrowser()

const MiB = 2 ** 20

/** Bytes of a page's process that no file stands behind. @param {string} pid */
const memoryNow = (pid) => 1024 * Number(/^RssAnon:\s+(\d+)/m.exec(tellsOf(pid, 'status'))?.[1] ?? 0)

test('a page is as large as before after 20 loads and closes', async (t) => {
  const { page } = await openPage(t, 'tests/blank.html')
  const cdp = await page.context().newCDPSession(page)
  const cycles = (/** @type {number} */ count) => page.evaluate(async ([url, count]) => {
    const { load } = await import('nibl')
    for (let i = 0; i < Number(count); i++) {
      const model = await load(String(url), { threads: 1 + (i % 2) })
      for await (const piece of model.generate('Hello', { maxTokens: 3 })) void piece
      model.close()
    }
  }, [`/${tiny}`, count])
  /* Chromium gives back what it has free by and by: the least of some seconds counts. */
  const settled = async () => {
    let least = Infinity
    for (let i = 0; i < 8; i++) {
      await pause(400)
      await cdp.send('HeapProfiler.collectGarbage')
      least = Math.min(least, memoryNow(pid))
    }
    return least
  }
  await cycles(4)
  /* The page's own: Chromium keeps another for the next page, which comes and goes. */
  const pid = renderers().reduce((largest, pid) => (memoryNow(pid) > memoryNow(largest) ? pid : largest))
  const before = await settled()
  await cycles(20)
  const more = (await settled()) - before
  t.diagnostic(`${(more / MiB).toFixed(1)} MiB more`)
  assert.ok(more <= 5 * MiB, `${more} bytes are left`)
})

/** Workers of all pages: each is a thread of its process. */
const workersNow = () => renderers().reduce((sum, pid) => sum + readdirSync(`/proc/${pid}/task`).filter((id) => /^DedicatedWorker/.test(tellsOf(pid, `task/${id}/comm`))).length, 0)

test('no worker outlives a model or a quantizer that was closed', async (t) => {
  const { page } = await openPage(t, 'tests/blank.html')
  for (let i = 0; i < 12; i++) {
    await page.evaluate(async ([url, method]) => {
      const { load, quantize } = await import('nibl')
      if (method) await quantize(String(url), { type: 'q4_0', method: /** @type {any} */ (method), requantize: true, threads: 3, calibrationTokens: 64 })
      else (await load(String(url), { threads: 3 })).close()
    }, [`/${tiny}`, ['', 'rtn', 'gptq'][i % 3]])
  }
  for (let i = 0; i < 50 && workersNow() > 0; i++) await pause(100)
  assert.equal(workersNow(), 0)
})

/** The page as a static host without headers serves it: isolated all the same, and without a network. */
import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { publish } from '../../demo/publish.js'
import { serve } from '../../demo/serve.js'
import { keptWhole, openContext, screenshot, tiny, withBrowser } from './support.js'

withBrowser()

const patience = { timeout: 60000 }

/** @param {import('./support.js').Page} page */
async function answer(page) {
  await page.waitForSelector('#composer:not([hidden])', patience)
  await page.fill('#prompt', 'Hello')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => Number(document.querySelector('.assistant .text')?.textContent?.length) > 0, null, patience)
  await page.waitForSelector('#send:not([hidden])', patience)
  return page.innerText('#fact-binary')
}

test('from a static host without headers: threads at once, and without a network all that was kept', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nibl-'))
  t.after(() => rm(folder, { recursive: true }))
  publish(join(folder, 'site'))
  const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url))
  const server = await serve({ port: 0, isolated: false, roots: { '/fixtures/': fixtures, '/': join(folder, 'site') } })
  t.after(() => server.close())
  const context = await openContext(t)
  const page = await context.newPage()
  /** @type {string[]} */
  const errors = []
  page.on('pageerror', (error) => errors.push(String(error)))
  await page.goto(`${server.url}demo/?model=/${tiny}`)
  await page.waitForFunction(() => crossOriginIsolated, null, patience)
  await page.click('#load-default')
  assert.match(await answer(page), /relaxed SIMD, [2-8] threads/)
  await keptWhole(page)

  await server.close()
  await page.reload()
  await page.waitForFunction(() => document.querySelectorAll('#kept li').length === 1, null, patience)
  assert.equal(await page.evaluate(() => crossOriginIsolated), true)
  await screenshot(page, 'offline')
  await page.click('#kept li button')
  assert.match(await answer(page), /relaxed SIMD, [2-8] threads/)
  assert.deepEqual(errors, [])
})

test('it can be installed', async (t) => {
  const server = await serve({ port: 0 })
  t.after(() => server.close())
  const page = await (await openContext(t)).newPage()
  await page.goto(`${server.url}demo/`)
  const session = await page.context().newCDPSession(page)
  const { url, errors, data } = await session.send('Page.getAppManifest')
  assert.deepEqual({ url, errors }, { url: `${server.url}demo/page.webmanifest`, errors: [] })
  const { icons, start_url: start } = JSON.parse(String(data))
  for (const address of [icons[0].src, start]) assert.equal((await fetch(new URL(address, url))).status, 200)
})

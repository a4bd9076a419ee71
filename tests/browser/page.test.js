/** The page in Chromium: choose, watch, talk, stop, again; by keyboard, at 360 px, in light and dark. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { publish } from '../../demo/publish.js'
import { holdModels, openPage, screenshot, tiny, tinyPath, withBrowser } from './support.js'

/** @typedef {import('./support.js').Page} Page */

withBrowser()

const demo = 'demo/'
const small = `demo/?model=/${tiny}`
const patience = { timeout: 60000 }

/** @param {Page} page */
const idle = (page) => page.waitForSelector('#send:not([hidden])', patience)
/** @param {Page} page */
const answering = (page) => page.waitForSelector('#stop:not([hidden])', patience)
/** @param {Page} page */
const answers = (page) => page.locator('.assistant .text').allInnerTexts()
/** @param {Page} page */
const noSideScroll = (page) =>
  page.evaluate(() => {
    const root = document.documentElement
    return root.scrollWidth <= root.clientWidth
  })

/** @param {Page} page @param {string} text */
async function ask(page, text) {
  const asked = await page.locator('.user').count()
  await page.fill('#prompt', text)
  await page.keyboard.press('Enter')
  /* The answer has begun then, and a short one may have ended. */
  await page.waitForFunction((asked) => document.querySelectorAll('.user').length > asked, asked)
}

for (const theme of /** @type {('light' | 'dark')[]} */ (['light', 'dark'])) {
  test(`the default model, ${theme}: load, stream, stop, again, reload`, async (t) => {
    const options = { viewport: { width: 1180, height: 760 }, colorScheme: theme }
    const { page } = await openPage(t, demo, options)
    await page.waitForFunction(() => document.getElementById('default-size')?.textContent?.includes('98 MB'))
    await screenshot(page, `${theme}-welcome`)
    await page.click('#load-default')
    await page.waitForSelector('#suggestions:not([hidden])', patience)
    await page.click('#suggestions button')
    await answering(page)
    await page.waitForFunction(() => Number(document.querySelector('.assistant .text')?.textContent?.length) > 20, null, patience)
    const [partial] = await answers(page)
    await screenshot(page, `${theme}-answering`)
    await idle(page)
    const [first] = await answers(page)
    assert.ok(first.length > partial.length && first.startsWith(partial.slice(0, 20)))
    assert.match(await page.innerText('#fact-decode'), /tok\/s/)
    assert.match(await page.innerText('#fact-prefill'), /tok\/s/)
    assert.match(await page.innerText('#fact-memory'), /\d MB/)
    assert.match(await page.innerText('#fact-binary'), /relaxed SIMD, \d thread/)

    await ask(page, 'Write a very long story about a lighthouse.')
    await page.waitForFunction(() => Number(document.querySelectorAll('.assistant .text')[1]?.textContent?.length) > 20, null, patience)
    await page.click('#stop')
    await idle(page)
    const [, stopped] = await answers(page)
    await page.click('.again')
    await answering(page)
    await page.keyboard.press('Escape')
    await idle(page)
    assert.ok(stopped.length > 0)
    assert.ok((await answers(page)).length <= 2)

    await ask(page, 'Name a colour.')
    await idle(page)
    await page.click('#settings summary')
    await screenshot(page, `${theme}-settings`)
    await page.keyboard.press('Escape')

    await page.reload()
    await page.waitForSelector('#welcome:not([hidden])')
    await page.click('#load-default')
    await page.waitForSelector('#composer:not([hidden])', patience)
    await ask(page, 'Hello')
    await idle(page)
    assert.equal((await answers(page)).length, 1)
  })
}

test('a local file, chosen and dropped; a wrong one is refused in words', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nibl-'))
  t.after(() => rm(folder, { recursive: true }))
  const wrong = join(folder, 'notes.gguf')
  await writeFile(wrong, '<!doctype html><html></html>')
  const { page } = await openPage(t, small)
  await page.setInputFiles('#file', wrong)
  await page.waitForSelector('#error:not([hidden])')
  assert.match(await page.innerText('#error'), /^notes\.gguf: .*HTML/)
  await screenshot(page, 'error')
  await page.setInputFiles('#file', tinyPath)
  await page.waitForSelector('#composer:not([hidden])', patience)
  assert.equal(await page.isHidden('#error'), true)
  assert.equal(await page.innerText('#model-name'), 'tiny-llama-q4_1.gguf')
  await ask(page, 'Hello')
  await idle(page)

  const data = await page.evaluateHandle(async (address) => {
    const transfer = new DataTransfer()
    transfer.items.add(new File([await (await fetch(address)).blob()], 'dropped.gguf'))
    return transfer
  }, `/${tiny}`)
  await page.dispatchEvent('body', 'drop', { dataTransfer: data })
  await page.waitForFunction(() => document.getElementById('model-name')?.textContent === 'dropped.gguf')
  assert.deepEqual(await answers(page), [])
})

test('a model that is not there', async (t) => {
  const { page } = await openPage(t, 'demo/?model=/model/missing.gguf', { expectErrors: true })
  await page.waitForFunction(() => document.getElementById('default-size')?.textContent === 'not on this server')
  await page.click('#load-default')
  await page.waitForSelector('#error:not([hidden])')
  assert.match(await page.innerText('#error'), /missing\.gguf: the server answered 404/)
  await page.waitForSelector('#welcome:not([hidden])')
})

test('by keyboard alone', async (t) => {
  const { page } = await openPage(t, small)
  const focused = () => page.evaluate(() => document.activeElement?.id)
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'load-default')
  await page.keyboard.press('Tab')
  assert.equal(await focused(), 'file')
  await page.keyboard.press('Shift+Tab')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#composer:not([hidden])', patience)
  await page.waitForFunction(() => document.activeElement?.id === 'prompt')
  await page.keyboard.type('first line')
  await page.keyboard.press('Shift+Enter')
  await page.keyboard.type('second line')
  assert.equal(await page.inputValue('#prompt'), 'first line\nsecond line')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelectorAll('.assistant .text').length === 1)
  await idle(page)
  assert.equal(await focused(), 'prompt')
  for (const name of ['quiet', 'quiet again']) {
    await page.keyboard.press('Shift+Tab')
    assert.equal(await page.evaluate(() => document.activeElement?.className), name)
  }
  for (const id of ['prompt', 'file', 'temperature', 'max-tokens']) {
    const named = await page.evaluate((id) => Boolean(/** @type {any} */ (document.getElementById(id)).labels[0]?.textContent.trim()), id)
    assert.ok(named, `${id} has a label`)
  }
})

test('the page can be used while it answers', async (t) => {
  const { page } = await openPage(t, demo)
  await page.click('#load-default')
  await page.waitForSelector('#composer:not([hidden])', patience)
  await ask(page, 'Write a very long story about the sea.')
  await page.fill('#prompt', 'typed meanwhile')
  await page.click('#settings summary')
  assert.equal(await page.isVisible('#temperature'), true)
  assert.equal(await page.isVisible('#stop'), true, 'still answering')
  await page.click('#new-chat')
  await idle(page)
  assert.deepEqual(await answers(page), [])
  assert.equal(await page.inputValue('#prompt'), 'typed meanwhile')
})

test('360 px wide, light and dark', async (t) => {
  for (const theme of /** @type {('light' | 'dark')[]} */ (['light', 'dark'])) {
    const viewport = { width: 360, height: 720 }
    const { page } = await openPage(t, demo, { viewport, colorScheme: theme, deviceScaleFactor: 2, hasTouch: true, isMobile: true })
    await page.waitForFunction(() => document.getElementById('default-size')?.textContent?.includes('MB'))
    assert.ok(await noSideScroll(page))
    await screenshot(page, `phone-${theme}-welcome`)
    await page.tap('#load-default')
    await page.waitForSelector('#suggestions:not([hidden])', patience)
    assert.ok(await noSideScroll(page))
    await screenshot(page, `phone-${theme}-ready`)
    await page.tap('#suggestions button')
    await answering(page)
    await idle(page)
    await ask(page, `A word without end: ${'x'.repeat(200)}`)
    await idle(page)
    assert.ok(await noSideScroll(page))
    await page.tap('#settings summary')
    assert.ok(await noSideScroll(page))
    await screenshot(page, `phone-${theme}-settings`)
  }
})

test('a cancelled download', async (t) => {
  const { page } = await openPage(t, small)
  const release = await holdModels(page)
  await page.click('#load-default')
  await page.click('#cancel')
  await page.waitForSelector('#welcome:not([hidden])')
  assert.equal(await page.isHidden('#error'), true)
  release()
})

test('a file that is chosen while a model loads takes its place', async (t) => {
  const { page } = await openPage(t, small)
  const release = await holdModels(page)
  await page.click('#load-default')
  await page.waitForSelector('#loading:not([hidden])')
  await page.setInputFiles('#file', tinyPath)
  await page.waitForSelector('#composer:not([hidden])', patience)
  release()
  await ask(page, 'Hello')
  await idle(page)
  assert.equal(await page.innerText('#model-name'), 'tiny-llama-q4_1.gguf')
  assert.equal((await answers(page)).length, 1)
  assert.equal(await page.isHidden('#error'), true)
})

test('everything but the model is small', async (t) => {
  const { page, url, requests } = await openPage(t, small)
  await page.click('#load-default')
  await page.waitForSelector('#composer:not([hidden])', patience)
  await ask(page, 'Hello')
  await idle(page)
  /* A browser does not tell of the service worker's own script. */
  const files = [...new Set([...requests, `${url}sw.js`])].filter((url) => url.startsWith('http') && !url.includes('.gguf'))
  assert.ok(files.some((url) => url.endsWith('.wasm')) && files.some((url) => url.includes('jinja')))
  const site = join(await mkdtemp(join(tmpdir(), 'nibl-')), 'site')
  t.after(() => rm(join(site, '..'), { recursive: true }))
  publish(site)
  let total = 0
  for (const url of files) {
    const { pathname } = new URL(url)
    total += gzipSync(await readFile(join(site, pathname.endsWith('/') ? `${pathname}index.html` : pathname)), { level: 9 }).length
  }
  t.diagnostic(`${files.length} files, ${total} bytes with gzip`)
  assert.ok(total <= 250e3, `${total} bytes`)
})

/** The page and where models come from: a folder, several files, a drop, a name on a hub, what is kept. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { hubServer } from '../web/hub-server.js'
import { tinyBytes } from '../web/support.js'
import { keptWhole, openPage, screenshot, tiny, withBrowser } from './support.js'

withBrowser()

const patience = { timeout: 60000 }
const fixture = (/** @type {string} */ name) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
const folder = fixture('tiny-hf-f16')
const parts = [1, 2, 3].map((part) => fixture(`tiny-split-0000${part}-of-00003.gguf`))

/** @param {import('./support.js').Page} page @param {string} name */
async function opened(page, name) {
  await page.waitForFunction((name) => document.getElementById('model-name')?.textContent === name, name, patience)
  await page.fill('#prompt', 'Hello')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => Number(document.querySelector('.assistant .text')?.textContent?.length) > 0, null, patience)
  await page.waitForSelector('#send:not([hidden])', patience)
}

/** @param {import('./support.js').Page} page */
async function unload(page) {
  await page.click('#settings summary')
  await page.click('#unload')
}

test('load() takes the File[] of a picked folder and of several files', async (t) => {
  const { page } = await openPage(t, 'tests/blank.html')
  await page.evaluate(() => document.getElementById('file')?.setAttribute('multiple', ''))
  const hash = () =>
    page.evaluate(async () => {
      const { load } = await import('nibl')
      const input = /** @type {HTMLInputElement} */ (document.getElementById('file'))
      const hashes = []
      for (const source of [input.files, [...(input.files ?? [])]]) {
        const model = await load(/** @type {any} */ (source))
        for await (const _ of model.generate('Hello', { maxTokens: 4 }));
        hashes.push(model.stats.hash)
        model.close()
      }
      return hashes
    })
  await page.setInputFiles('#file', parts)
  const split = await hash()
  await page.setInputFiles('#file', readdirSync(folder).map((name) => `${folder}/${name}`))
  const files = await hash()
  await page.evaluate(() => document.getElementById('file')?.setAttribute('webkitdirectory', ''))
  await page.setInputFiles('#file', folder)
  assert.deepEqual([...split, ...files, ...(await hash())], Array(6).fill(split[0]))
})

test('a folder, the parts of a split file, a dropped folder', async (t) => {
  const { page } = await openPage(t, `demo/?model=/${tiny}`)
  await page.setInputFiles('#folder', folder)
  await opened(page, 'tiny-hf-f16')
  await unload(page)
  await page.setInputFiles('#file', parts)
  await opened(page, '3 files')
  await unload(page)
  await page.setInputFiles('#file', parts.slice(0, 2))
  await page.waitForSelector('#error:not([hidden])', patience)
  assert.match(await page.innerText('#error'), /00003-of-00003\.gguf.* is missing/)
})

test('a name on a hub; then it is on this machine, without a network too, until it is deleted', async (t) => {
  const files = Object.fromEntries(readdirSync(folder).map((name) => [name, new Uint8Array(readFileSync(`${folder}/${name}`))]))
  const server = await hubServer(t, { 'a/folder': files, 'a/gguf': { 'tiny.gguf': tinyBytes } }, { token: 'secret' })
  const { page } = await openPage(t, `demo/?model=/${tiny}&hub=${server.url}`, { expectErrors: true })
  await page.fill('#address', 'hf:a/gguf')
  await page.click('#by-name button')
  await page.waitForSelector('#error:not([hidden])', patience)
  assert.match(await page.innerText('#error'), /401.*give a token/)
  await page.click('#by-name summary')
  await page.fill('#token', 'secret')
  await page.click('#by-name button')
  await opened(page, 'a/gguf')
  await keptWhole(page)
  await unload(page)
  await page.fill('#address', 'a/folder')
  await page.keyboard.press('Enter')
  await opened(page, 'a/folder')
  await unload(page)
  await page.waitForFunction(() => document.querySelectorAll('#kept li').length === 2)
  await screenshot(page, 'kept')
  server.close()
  await page.click('#kept li:nth-child(2) button')
  await opened(page, 'a/gguf')
  await unload(page)
  for (const left of [1, 0]) {
    await page.click('#kept li:first-child .quiet')
    await page.waitForFunction((left) => document.querySelectorAll('#kept li').length === left, left)
  }
  assert.equal(await page.isHidden('#kept-title'), true)
})

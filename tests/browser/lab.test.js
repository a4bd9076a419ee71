/** The quantize lab in Chromium: a recipe, tensors being done, the report, both models side by side, the file saved; at 360 px,
 * in light and dark. Nothing of it is fetched before it is opened. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { openPage, screenshot, tiny, withBrowser } from './support.js'

/** @typedef {import('./support.js').Page} Page */

withBrowser()

const small = `demo/?model=/${tiny}`
const patience = { timeout: 60000 }

/** @param {Page} page */
async function openLab(page) {
  await page.click('#open-lab')
  await page.waitForSelector('#lab form')
}

/** @param {Page} page */
const finished = (page) => page.waitForSelector('#lab iframe', patience)

for (const colorScheme of /** @type {('light' | 'dark')[]} */ (['light', 'dark'])) {
  test(`quantize, read, ask both, save, close; ${colorScheme}`, async (t) => {
    const { page } = await openPage(t, small, { viewport: { width: colorScheme === 'dark' ? 360 : 1180, height: 760 }, colorScheme })
    /** @type {string[]} */
    const before = await page.evaluate(() => performance.getEntriesByType('resource').map(({ name }) => name))
    assert.deepEqual(before.filter((name) => /lab|report|quant/.test(name)), [])
    await openLab(page)
    assert.equal(await page.isHidden('#welcome'), true)
    await page.click('#lab button.primary')
    await finished(page)
    const tensors = await page.locator('#lab .tensors li').count()
    assert.ok(tensors > 10)
    assert.equal(await page.locator('#lab .tensors li.done').count(), tensors)
    assert.match(await page.innerText('#lab .figures'), /MB became .* bits per weight/)
    const report = page.frameLocator('#lab iframe')
    await report.locator('h1').waitFor()
    assert.match(await report.locator('h1').innerText(), /\.Q4_0\.gguf$/)
    assert.ok((await report.locator('tbody tr').count()) > tensors)

    await page.click('#lab form button:has-text("Ask both")')
    await report.locator('blockquote').first().waitFor(patience)
    const [left, right] = await page.locator('#lab .pair > section > div').allInnerTexts()
    assert.ok(left.length > 0 && right.length > 0)
    await page.evaluate(() => delete (/** @type {any} */ (window).showSaveFilePicker))
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#lab button:has-text("Save the model")')])
    assert.match(download.suggestedFilename(), /^tiny-llama\S*\.Q4_0\.gguf$/)
    const saved = readFileSync(/** @type {string} */ (await download.path()))
    assert.equal(saved.subarray(0, 4).toString(), 'GGUF')
    await screenshot(page, `lab-${colorScheme}`)
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth))
    await page.click('#lab button:has-text("Close the lab")')
    await page.waitForSelector('#welcome:not([hidden])')
    assert.equal(await page.locator('#lab').count(), 0)
  })
}

test('what cannot be done is told, and another try works', async (t) => {
  const { page } = await openPage(t, small, { expectErrors: true })
  await openLab(page)
  await page.fill('#lab .grow input', '/model/missing.gguf')
  await page.click('#lab button.primary')
  await page.waitForSelector('#lab .error:not([hidden])', patience)
  assert.match(await page.innerText('#lab .error'), /missing\.gguf: the server answered 404/)
  await page.fill('#lab .grow input', `/${tiny}`)
  await page.uncheck('#lab input[type=checkbox]')
  await page.click('#lab button.primary')
  await page.waitForFunction(() => /is Q4_1 already/.test(document.querySelector('#lab .error')?.textContent ?? ''), null, patience)
  await page.check('#lab input[type=checkbox]')
  await page.click('#lab button.primary')
  await finished(page)
})

test('a method that looks at a text: the one of the package, or a file', async (t) => {
  const { page } = await openPage(t, small)
  await openLab(page)
  assert.equal(await page.isHidden('#lab input[accept^=text]'), true)
  await page.selectOption('#lab select >> nth=1', 'awq,gptq')
  assert.equal(await page.isHidden('#lab input[accept^=text]'), false)
  await page.click('#lab button.primary')
  await finished(page)
  const report = page.frameLocator('#lab iframe')
  await report.getByText('a small text of its own').first().waitFor()
  await page.setInputFiles('#lab input[accept^=text]', { name: 'mine.txt', mimeType: 'text/plain', buffer: Buffer.from('Reefs are in the north. '.repeat(40)) })
  await page.click('#lab button.primary')
  await report.getByText('mine.txt').first().waitFor(patience)
})

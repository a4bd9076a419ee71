/** The compare view in Chromium: two settings of the default model, two models, links that open it; fetched only when opened. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from 'nibl'
import { modelPath, openPage, screenshot, tiny, withBrowser } from './support.js'

/** @typedef {import('./support.js').Page} Page */

withBrowser()

const patience = { timeout: 120000 }
const question = 'Why is the sky blue?'

/** @param {Page} page */
async function compare(page) {
  await page.click('#compare button.primary')
  await page.waitForFunction(() => /part at token|are the same|other tokens/.test(document.querySelector('#compare .figures')?.textContent ?? ''), null, patience)
}

/** @param {Page} page @param {number} pane */
const spansOf = (page, pane) =>
  page.locator('#compare .answer').nth(pane).evaluate((text) => [...text.children].map((span) => ({
    differs: span.classList.contains('differs'), kl: Number(/** @type {HTMLElement} */ (span).style.getPropertyValue('--kl')), title: /** @type {HTMLElement} */ (span).title,
  })))

/** What the view should show of the model with the KV cache i8, beside the same with f32: by the package, under Node. */
async function expected() {
  const [a, b] = await Promise.all(/** @type {const} */ (['i8', 'f32']).map((kv) => load(modelPath, { kv, evaluate: true, contextLength: 512 })))
  const messages = [{ role: 'user', content: question }]
  const prompt = await a.encode(messages)
  const tokens = []
  for await (const { token } of a.generate(messages, { maxTokens: 40 })) tokens.push(token)
  const scores = await b.score([...prompt, ...tokens], { first: prompt.length, reference: a })
  a.close()
  b.close()
  return scores
}

for (const colorScheme of /** @type {('light' | 'dark')[]} */ (['light', 'dark'])) {
  test(`two KV caches, ${colorScheme}`, async (t) => {
    const viewport = { width: colorScheme === 'dark' ? 360 : 1180, height: 900 }
    const { page, requests, url } = await openPage(t, 'demo/', { viewport, colorScheme })
    assert.deepEqual(requests.filter((name) => /compare|lab\.|scor|quantize/.test(name)), [])
    await page.click('#open-compare')
    await page.waitForSelector('#compare form')
    await page.fill('#compare textarea', question)
    await page.fill('#compare form > div input[type=number]', '40')
    await compare(page)
    const spans = await spansOf(page, 0)
    const scores = await expected()
    assert.equal(spans.length, scores.length)
    for (const [i, { kl, top, reference }] of scores.entries()) {
      assert.equal(spans[i].differs, top !== reference?.top, String(i))
      assert.ok(Math.abs(spans[i].kl - Math.min(1, Number(kl))) < 1e-3)
      assert.match(spans[i].title, /^KL \d\.\d{3}; here “.*” \d.* %, on the right “.*” \d.* %$/)
    }
    assert.ok(spans.some(({ kl }) => kl > 0))
    assert.equal((await spansOf(page, 1)).length > 0, true)
    assert.match(await page.innerText('#compare .pair section:first-child'), /tokens would be others on the right\. Mean KL 0\.\d{4} nats/)
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth))
    await screenshot(page, `compare-${colorScheme}-form`)
    await page.locator('#compare .pair').scrollIntoViewIfNeeded()
    await page.evaluate(() => document.querySelector('#compare .pair')?.scrollIntoView())
    await screenshot(page, `compare-${colorScheme}`)
    const { search } = new URL(page.url())
    assert.deepEqual(Object.fromEntries(new URLSearchParams(search)), { view: 'compare', kv: 'i8', kv2: 'f32', prompt: question, tokens: '40' })
    await page.click('#compare button:has-text("Close")')
    await page.waitForSelector('#welcome:not([hidden])')
    assert.equal(await page.evaluate(() => document.activeElement?.id), 'open-compare')
    assert.ok(page.url().startsWith(`${url}demo/?kv=`))
  })
}

test('a link opens it: two models, other words, then one twice; errors in words', async (t) => {
  const { page, url } = await openPage(t, `demo/?view=compare&model=/${tiny}&kv=f16&kv2=f16&model2=/fixtures/tiny-llama-q8_0.gguf&prompt=Hi&tokens=9`, { expectErrors: true })
  await page.waitForSelector('#compare form')
  assert.equal(await page.isHidden('#welcome'), true)
  assert.equal(await page.inputValue('#compare textarea'), 'Hi')
  await compare(page)
  assert.match(await page.innerText('#compare .figures'), /^The answers part at token \d/)
  assert.equal(await page.locator('#compare .parted').count(), 2)
  const models = page.locator('#compare fieldset input[list]')
  await models.nth(1).fill(`${url}${tiny}`)
  await compare(page)
  assert.match(await page.innerText('#compare .figures'), /^Both answers are the same\. One model computed both/)
  await models.nth(1).fill(`${url}model/SmolLM2-135M-Instruct.Q4_1.gguf`)
  await compare(page)
  assert.match(await page.innerText('#compare .figures'), /other tokens/)
  await models.nth(1).fill('/model/missing.gguf')
  await page.click('#compare button.primary')
  await page.waitForSelector('#compare .error:not([hidden])', patience)
  assert.match(await page.innerText('#compare .error'), /missing\.gguf: the server answered 404/)
})

test('stopped, then again', async (t) => {
  const { page } = await openPage(t, 'demo/?view=compare&tokens=900&prompt=Write a very long story about the sea.')
  await page.click('#compare button.primary')
  await page.waitForFunction(() => [...document.querySelectorAll('#compare .answer')].every(({ textContent }) => Number(textContent?.length) > 20), null, patience)
  await page.click('#compare button:has-text("Stop")')
  await page.waitForSelector('#compare button.primary:not([hidden])')
  assert.equal(await page.isHidden('#compare .error'), true)
  await page.fill('#compare form > div input[type=number]', '5')
  await compare(page)
})

test('a prompt in the address waits in the composer', async (t) => {
  const { page } = await openPage(t, `demo/?model=/${tiny}&prompt=Name three rivers.`)
  await page.click('#load-default')
  await page.waitForSelector('#composer:not([hidden])', patience)
  assert.equal(await page.inputValue('#prompt'), 'Name three rivers.')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelectorAll('.user').length === 1)
})

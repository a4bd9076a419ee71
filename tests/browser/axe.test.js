/** Accessibility: axe has nothing to say of any view, in both themes, wide and at 360 px; all of it by keyboard; what is said to
 * those who listen; less motion for those who want that. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fromRoot } from '../web/support.js'
import { holdModels, openPage, tiny, withBrowser } from './support.js'

/** @typedef {import('./support.js').Page} Page */

withBrowser()

const patience = { timeout: 120000 }
const small = `demo/?model=/${tiny}&model2=/fixtures/tiny-llama-q8_0.gguf&prompt=Hi&tokens=8`

/** @param {Page} page @param {string} view */
async function check(page, view) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.addScriptTag({ path: fromRoot('node_modules/axe-core/axe.min.js') })
  const violations = await page.evaluate(async () => {
    const { violations } = await /** @type {any} */ (window).axe.run(document, { iframes: false })
    return violations.map((/** @type {any} */ { id, nodes }) => `${id}: ${nodes.map((/** @type {any} */ { target, failureSummary }) => `${target} ${failureSummary}`).join('; ')}`)
  })
  assert.deepEqual(violations, [], view)
}

for (const colorScheme of /** @type {('light' | 'dark')[]} */ (['light', 'dark'])) {
  for (const width of [1180, 360]) {
    test(`axe: every view, ${colorScheme}, ${width} px`, async (t) => {
      const { page } = await openPage(t, small, { colorScheme, viewport: { width, height: 800 }, expectErrors: true })
      await page.waitForFunction(() => document.getElementById('default-size')?.textContent?.includes('MB'))
      await check(page, 'welcome')
      await page.fill('#address', '/model/missing.gguf')
      await page.keyboard.press('Enter')
      await page.waitForSelector('#error:not([hidden])')
      await check(page, 'error')
      const release = await holdModels(page)
      await page.click('#load-default')
      await page.waitForSelector('#loading:not([hidden])')
      await check(page, 'loading')
      release()
      await page.waitForSelector('#composer:not([hidden])', patience)
      await check(page, 'ready')
      await page.press('#prompt', 'Enter')
      await page.waitForSelector('.foot', patience)
      await page.click('#settings summary')
      await check(page, 'chat and settings')
      await page.click('#unload')
      await page.waitForSelector('#kept li')
      await check(page, 'kept models')
      await page.click('#open-compare')
      await page.waitForSelector('#compare form')
      await page.click('#compare button.primary')
      await page.waitForFunction(() => /part at token/.test(document.querySelector('#compare .figures')?.textContent ?? ''), null, patience)
      await check(page, 'compare')
      await page.click('#compare button:has-text("Close")')
      await page.click('#open-lab')
      await page.waitForSelector('#lab form')
      await check(page, 'lab')
      await page.click('#lab button.primary')
      await page.waitForSelector('#lab iframe', patience)
      await check(page, 'lab with a report')
    })
  }
}

test('compare and lab by keyboard alone, and what is said meanwhile', async (t) => {
  const { page } = await openPage(t, small)
  await page.evaluate(() => {
    const said = (/** @type {any} */ (window).said = /** @type {string[]} */ ([]))
    const status = /** @type {HTMLElement} */ (document.getElementById('status'))
    new MutationObserver(() => said.push(status.textContent ?? '')).observe(status, { childList: true, characterData: true, subtree: true })
  })
  const focused = () => page.evaluate(() => document.activeElement?.textContent || document.activeElement?.tagName)
  /** @param {string} text */
  const tabTo = async (text) => {
    for (let presses = 0; presses < 30; presses++) {
      await page.keyboard.press('Tab')
      if ((await focused()) === text) return
    }
    assert.fail(`${text} is not reached by Tab`)
  }
  await tabTo('Compare two models')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#compare form')
  assert.equal(await focused(), 'Compare')
  await tabTo('Compare')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => /part at token/.test(document.getElementById('status')?.textContent ?? ''), null, patience)
  await page.focus('#compare h2')
  await page.keyboard.press('Shift+Tab')
  await page.focus('#compare h2')
  await tabTo('Close the comparison')
  await page.keyboard.press('Enter')
  assert.equal(await focused(), 'Compare two models')
  await page.keyboard.press('Shift+Tab')
  assert.equal(await focused(), 'Make a model smaller')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#lab form')
  await tabTo('Quantize')
  await page.keyboard.press('Enter')
  await page.waitForSelector('#lab iframe', patience)
  await page.focus('#lab h2')
  await tabTo('Close the lab')
  await page.keyboard.press('Enter')
  assert.equal(await focused(), 'Make a model smaller')
  const said = /** @type {string[]} */ (await page.evaluate(() => /** @type {any} */ (window).said))
  assert.deepEqual(said.filter((text) => /^(Both are answering|The answers part|Quantizing|The model is quantized)/.test(text)).length, 4, said.join('; '))
})

test('an answer is said once, in order; nothing moves for those who want no motion', async (t) => {
  const { page } = await openPage(t, small, { reducedMotion: 'reduce' })
  await page.click('#load-default')
  await page.waitForSelector('#composer:not([hidden])', patience)
  assert.equal(await page.getAttribute('#log', 'aria-live'), 'polite')
  await page.evaluate(() => {
    const seen = /** @type {any} */ ((/** @type {any} */ (window).seen = { said: [], moving: 0, busy: new Set() }))
    const [status, log] = ['status', 'log'].map((id) => /** @type {HTMLElement} */ (document.getElementById(id)))
    new MutationObserver(() => {
      if (seen.said.at(-1) !== status.textContent) seen.said.push(status.textContent)
      seen.busy.add(log.getAttribute('aria-busy'))
      const moving = document.getAnimations().filter((animation) => Number(animation.effect?.getComputedTiming().duration) > 1)
      seen.moving = Math.max(seen.moving, moving.length)
    }).observe(document.body, { childList: true, characterData: true, subtree: true, attributes: true })
  })
  await page.press('#prompt', 'Enter')
  await page.waitForSelector('.foot', patience)
  const { said, moving, busy } = await page.evaluate(() => {
    const { said, moving, busy } = /** @type {any} */ (window).seen
    return { said, moving, busy: [...busy] }
  })
  assert.deepEqual(said.slice(-2), ['Answering', 'Done'])
  assert.deepEqual(busy.sort(), ['false', 'true'])
  assert.equal(moving, 0)
})

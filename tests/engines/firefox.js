/** A page in Debian's Firefox, through WebDriver BiDi. */
import puppeteer from 'puppeteer-core'

/** One page, closed behind the test. @type {import('./engines.test.js').Open} */
export async function openPage(t, url) {
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: '/usr/bin/firefox-esr', protocolTimeout: 120000 })
  t.after(() => browser.close())
  const page = await browser.newPage()
  await page.setViewport({ width: 1280, height: 800 })
  await page.goto(url)
  return {
    version: await browser.version(),
    evaluate: (/** @type {any} */ work, /** @type {any} */ argument) => page.evaluate(work, argument ?? null),
    screenshot: () => page.screenshot(),
  }
}

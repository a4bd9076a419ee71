/**
 * How long rounding a model to Q4_0 takes: natively, under Node and in Chromium, of a picked file and from a server on
 * loopback, whole calls each. `node tests/bench/quantize-speed.js MODEL.gguf [RUNS] [PATTERN]`; rows whose text fits the pattern.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { pageRoots, serve } from '../../demo/serve.js'
import { quantize } from '../../web/nibl.js'
import { root } from '../../wasm/setup.js'

const [model, runs = '3', pattern = ''] = process.argv.slice(2)
const place = fs.mkdtempSync(path.join(os.tmpdir(), 'nibl-speed-'))
process.on('exit', () => fs.rmSync(place, { recursive: true }))
const out = path.join(place, 'out.gguf')
const size = fs.statSync(model).size

/** @param {string} what @param {() => Promise<number>} run milliseconds, and a result in `out` */
async function measure(what, run) {
  if (!new RegExp(pattern).test(what)) return
  const times = []
  for (let i = 0; i < Number(runs); i++) times.push((await run()) / 1000)
  const sorted = [...times].sort((a, b) => a - b)
  const hash = createHash('sha256').update(fs.readFileSync(out)).digest('hex').slice(0, 8)
  const median = sorted[sorted.length >> 1]
  console.log(`| ${what} | ${median.toFixed(2)} | ${times.map((time) => time.toFixed(2)).join(' ')} | ${(size / 2e6 / median).toFixed(0)} | ${hash} |`)
}

/** @param {() => unknown} run */
async function timed(run) {
  const start = performance.now()
  await run()
  return performance.now() - start
}

console.log('| | s, median | s | million weights/s, of 16 bits | SHA-256 |\n|---|---|---|---|---|')
await measure('natively', () => timed(() => execFileSync(path.join(root, 'build/native/nibl'), ['quantize', model, out, '-t', '2'])))
await measure('Node', async () => {
  const file = fs.openSync(out, 'w')
  const sink = new WritableStream({ write: (bytes) => void fs.writeSync(file, bytes) })
  const time = await timed(() => quantize(model, { threads: 2, sink }))
  fs.closeSync(file)
  return time
})

const server = await serve({ port: 0, roots: { ...pageRoots, '/tests/': path.join(root, 'tests/browser'), '/models/': `${path.dirname(path.resolve(model))}/` } })
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] })

/** @param {(page: import('playwright-core').Page) => Promise<void>} prepare @param {string} source an expression in the page */
async function inChromium(prepare, source) {
  const page = await browser.newPage()
  await page.goto(`${server.url}tests/blank.html`)
  await page.setContent('<input type="file">')
  await prepare(page)
  const { time, base64 } = await page.evaluate(async (expression) => {
    const { quantize } = await import(new URL('../web/nibl.js', location.href).href)
    const source = await eval(expression)
    const start = performance.now()
    const { blob } = await quantize(source, { threads: 2 })
    const time = performance.now() - start
    const url = await new Promise((resolve) => {
      const reader = new FileReader()
      reader.onload = () => resolve(reader.result)
      reader.readAsDataURL(blob)
    })
    return { time, base64: url.slice(url.indexOf(',') + 1) }
  }, source)
  fs.writeFileSync(out, Buffer.from(base64, 'base64'))
  await page.close()
  return time
}

const pick = (/** @type {import('playwright-core').Page} */ page) => page.setInputFiles('input', model)
const nothing = async () => {}
await measure('Chromium, a picked file', () => inChromium(pick, `document.querySelector('input').files[0]`))
await measure('Chromium, from a server', () => inChromium(nothing, `new URL('../models/${path.basename(model)}', location.href).href`))
await browser.close()
await server.close()

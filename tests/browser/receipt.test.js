/** A receipt that the page gives for an answer, repeated natively and under Node. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { verify } from 'nibl'
import { fromRoot } from '../web/support.js'
import { modelPath, openPage, withBrowser } from './support.js'

withBrowser()

test('made in Chromium, the same everywhere; a changed token or seed is not', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'nibl-receipt-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const { page } = await openPage(t, 'demo/')
  await page.evaluate(() => delete (/** @type {any} */ (window).showSaveFilePicker))
  await page.click('#load-default')
  await page.waitForSelector('#suggestions:not([hidden])', { timeout: 60000 })
  await page.click('#settings summary')
  await page.fill('#temperature', '0.9')
  await page.fill('#max-tokens', '24')
  for (const [i, question] of ['Why is the sky blue?', 'And at night?'].entries()) {
    await page.fill('#prompt', question)
    await page.keyboard.press('Enter')
    await page.waitForFunction((count) => document.querySelectorAll('.foot button:last-child').length === count, i + 1, { timeout: 60000 })
  }
  const receipts = []
  for (const i of [0, 1]) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator('.foot button:last-child').nth(i).click()])
    receipts.push(JSON.parse(readFileSync(/** @type {string} */ (await download.path()), 'utf8')))
  }
  const sha256 = createHash('sha256').update(readFileSync(modelPath)).digest('hex')
  assert.deepEqual(receipts.map(({ prompt }) => prompt.messages.length), [1, 3])
  assert.equal(receipts[0].model.files[0].sha256, sha256)
  assert.match(receipts[0].made.binary, /^relaxed/)
  const file = join(folder, 'receipt.json')
  const native = (/** @type {any} */ receipt) => {
    writeFileSync(file, JSON.stringify(receipt))
    const { stdout, stderr } = spawnSync(fromRoot('build/native/nibl'), ['verify', file, modelPath], { encoding: 'utf8' })
    return stdout + stderr
  }
  for (const receipt of receipts) {
    const equal = `equal: ${receipt.tokens.length} tokens, logits ${receipt.hash}, the model's SHA-256\n`
    assert.equal(native(receipt), equal)
    const { made, ...rest } = receipt
    assert.deepEqual(await verify(rest, modelPath), { equal: true, identified: true, tokens: receipt.tokens.length, hash: receipt.hash, difference: null })
  }
  const [{ tokens, seed }] = receipts
  const changes = { tokens: tokens.with(5, tokens[5] + 1), seed: seed + 1 }
  for (const [name, value] of Object.entries(changes)) {
    /** @type {any} */
    const changed = { ...receipts[0], [name]: value }
    assert.match(native(changed), /^differs: tokens \d+/)
    assert.equal((await verify(changed, modelPath)).difference?.what, 'tokens')
  }
})

/** The package in one file, from another origin than the page, which has nothing else of it: threads, one thread, no worker, a
 * conversation, the cache, quantize, inspect, receipts. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { load } from 'nibl'
import { onePath } from '../../wasm/one.js'
import { answerTokens } from '../web/support.js'
import { openPage, tiny, tinyPath, withBrowser } from './support.js'

withBrowser()

/** Serves that file alone, with CORS. @param {any} t */
async function cdn(t) {
  const server = createServer((request, response) => {
    const found = request.url === '/nibl.one.js'
    response.writeHead(found ? 200 : 404, { 'Access-Control-Allow-Origin': '*', 'Content-Type': 'text/javascript' }).end(found ? readFileSync(onePath) : '')
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  t.after(() => server.close())
  t.after(() => server.closeAllConnections())
  return `http://127.0.0.1:${/** @type {any} */ (server.address()).port}/nibl.one.js`
}

for (const isolation of [true, false]) {
  test(`one file from another origin, ${isolation ? 'with' : 'without'} threads`, async (t) => {
    const library = await cdn(t)
    const { page, url, requests } = await openPage(t, 'tests/blank.html', { isolation })
    const result = await page.evaluate(async ({ library, source }) => {
      await new Promise((resolve) => {
        const script = document.createElement('script')
        Object.assign(globalThis, { began: resolve })
        script.type = 'module'
        script.textContent = `import * as nibl from ${JSON.stringify(library)}; globalThis.nibl = nibl; began()`
        document.head.append(script)
      })
      const nibl = /** @type {typeof import('nibl')} */ (/** @type {any} */ (globalThis).nibl)
      const answers = []
      for (const options of [{ threads: 3 }, { worker: false }, { cache: true, binary: /** @type {const} */ ('simd128') }, { cache: true, evaluate: true }]) {
        const model = await nibl.load(source, options)
        const tokens = []
        for await (const { token } of model.generate([{ role: 'user', content: 'Hello' }], { maxTokens: 6 })) tokens.push(token)
        answers.push(tokens)
        if (options.evaluate) answers.push((await model.score([...(await model.encode('Hello')), ...tokens])).length > 5, (await nibl.verify(await model.receipt(), source)).equal)
        if (options.threads) answers.push(model.info.threads)
        model.close()
      }
      const { size } = await nibl.quantize(source, { type: 'q8_0', requantize: true })
      const { architecture } = await nibl.inspect(source)
      const error = await nibl.load('missing.gguf').catch((/** @type {any} */ error) => error instanceof nibl.NiblError && error.code)
      return { answers, size, architecture, error, kept: (await (await nibl.openCache()).list()).length }
    }, { library, source: url + tiny })
    const model = await load(tinyPath)
    const expected = await answerTokens(model, [{ role: 'user', content: 'Hello' }], { maxTokens: 6 })
    model.close()
    assert.deepEqual(result.answers, [expected, isolation ? 3 : 1, expected, expected, expected, true, true])
    assert.ok(result.size > 150000)
    assert.deepEqual([result.architecture, result.error, result.kept], ['llama', 'DOWNLOAD_FAILED', 1])
    const asked = requests.filter((address) => address.startsWith('http') && !/blank|gguf|favicon/.test(address))
    assert.deepEqual([...new Set(asked)], [library])
  })
}

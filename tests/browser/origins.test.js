/** The package on another origin than the page, and in a module worker of the page's own. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { readFile } from 'node:fs/promises'
import { extname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { test } from 'node:test'
import { load } from 'nibl'
import { answerTokens } from '../web/support.js'
import { openPage, tiny, tinyPath, withBrowser } from './support.js'

withBrowser()

const types = { '.js': 'text/javascript', '.wasm': 'application/wasm' }

/** web/ as on a CDN: with CORS alone. @param {any} t */
async function cdn(t) {
  const server = createServer(async (request, response) => {
    const path = fileURLToPath(new URL(`../..${new URL(String(request.url), 'http://x').pathname}`, import.meta.url))
    const bytes = path.includes('/web/') ? await readFile(path).catch(() => null) : null
    const headers = { 'Access-Control-Allow-Origin': '*', 'Content-Type': types[/** @type {'.js'} */ (extname(path))] ?? 'text/plain', 'Cross-Origin-Embedder-Policy': 'require-corp' }
    response.writeHead(bytes ? 200 : 404, headers).end(bytes)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  t.after(() => server.close())
  t.after(() => server.closeAllConnections())
  return `http://127.0.0.1:${/** @type {any} */ (server.address()).port}/web/`
}

async function expectedTokens() {
  const model = await load(tinyPath)
  const tokens = await answerTokens(model, 'Hello', { maxTokens: 6 })
  model.close()
  return tokens
}

for (const isolation of [true, false]) {
  test(`from another origin, ${isolation ? 'with' : 'without'} threads`, async (t) => {
    const base = await cdn(t)
    const { page, url } = await openPage(t, 'tests/blank.html', { isolation })
    const result = await page.evaluate(async ({ base, source }) => {
      const { load } = await import(`${base}nibl.js`)
      const model = await load(source, { threads: 3, early: true })
      const tokens = []
      for await (const piece of model.generate('Hello', { maxTokens: 6 })) tokens.push(piece.token)
      model.close()
      return { tokens, threads: model.info.threads }
    }, { base, source: url + tiny })
    assert.deepEqual(result, { tokens: await expectedTokens(), threads: isolation ? 3 : 1 })
  })
}

test('in a module worker of the page', async (t) => {
  const { page, url } = await openPage(t, 'tests/blank.html')
  const result = await page.evaluate(async ({ library, source }) => {
    const script = `
      import { load } from ${JSON.stringify(library)}
      const results = []
      for (const worker of [true, false]) {
        const model = await load(${JSON.stringify(source)}, { worker, cache: worker })
        const tokens = []
        for await (const piece of model.generate('Hello', { maxTokens: 6 })) tokens.push(piece.token)
        model.close()
        results.push(tokens)
      }
      postMessage(results)`
    const worker = new Worker(URL.createObjectURL(new Blob([script], { type: 'text/javascript' })), { type: 'module' })
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data)
      worker.onerror = ({ message }) => reject(new Error(message))
    })
  }, { library: `${url}web/nibl.js`, source: url + tiny })
  const expected = await expectedTokens()
  assert.deepEqual(result, [expected, expected])
})

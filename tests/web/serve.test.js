/** The file server of the page. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { test } from 'node:test'
import { serve } from '../../demo/serve.js'
import { fromRoot, tinyBytes } from './support.js'

const roots = { '/files/': fromRoot('tests/fixtures'), '/demo/': fromRoot('demo'), '/web/': fromRoot('web') }

/** A request as it is written: fetch would tidy the path. @param {number} port @param {string} path @param {string} [method]
 * @returns {Promise<number | undefined>} */
function status(port, path, method = 'GET') {
  return new Promise((resolve, reject) => {
    request({ port, host: '127.0.0.1', path, method }, (response) => resolve(response.resume().statusCode))
      .on('error', reject)
      .end()
  })
}

test('files, types, isolation headers, ranges', async (t) => {
  const { url, close } = await serve({ port: 0, roots })
  t.after(close)
  const file = `${url}files/tiny-llama-q4_1.gguf`
  const whole = await fetch(file)
  assert.equal(whole.headers.get('Cross-Origin-Opener-Policy'), 'same-origin')
  assert.equal(whole.headers.get('Cross-Origin-Embedder-Policy'), 'require-corp')
  assert.equal(whole.headers.get('Cross-Origin-Resource-Policy'), 'same-origin')
  assert.equal(whole.headers.get('Content-Type'), 'application/octet-stream')
  assert.deepEqual(new Uint8Array(await whole.arrayBuffer()), tinyBytes)

  const part = async (/** @type {string} */ Range) => {
    const response = await fetch(file, { headers: { Range } })
    const bytes = response.status === 206 ? new Uint8Array(await response.arrayBuffer()) : null
    return { status: response.status, range: response.headers.get('Content-Range'), bytes }
  }
  const size = tinyBytes.length
  assert.deepEqual(await part('bytes=5-9'), { status: 206, range: `bytes 5-9/${size}`, bytes: tinyBytes.slice(5, 10) })
  assert.deepEqual((await part('bytes=-7')).bytes, tinyBytes.slice(-7))
  assert.deepEqual((await part(`bytes=${size - 3}-`)).bytes, tinyBytes.slice(-3))
  assert.deepEqual((await part(`bytes=10-${size + 99}`)).bytes, tinyBytes.slice(10))
  assert.deepEqual(await part(`bytes=${size}-`), { status: 416, range: `bytes */${size}`, bytes: null })
  assert.equal((await part('bytes=9-5')).status, 416)
  assert.equal((await part('lines=1-2')).status, 200)

  const head = await fetch(file, { method: 'HEAD' })
  assert.equal(Number(head.headers.get('Content-Length')), size)
  const tag = { 'If-None-Match': String(head.headers.get('ETag')) }
  assert.equal((await fetch(file, { headers: tag })).status, 304)

  const page = await fetch(url)
  assert.equal(page.url, `${url}demo/`)
  assert.equal(page.headers.get('Content-Type'), 'text/html; charset=utf-8')
  assert.equal(await page.text(), readFileSync(fromRoot('demo/index.html'), 'utf8'))
  const script = await fetch(`${url}web/nibl.js`)
  assert.equal(script.headers.get('Content-Type'), 'text/javascript; charset=utf-8')
})

test('nothing outside of the roots', async (t) => {
  const { port, close } = await serve({ port: 0, roots })
  t.after(close)
  assert.equal(await status(port, '/files/README.md'), 200)
  for (const path of [
    '/files/../web/stop.test.js', '/files/%2e%2e/web/stop.test.js', '/files/..%2fweb/stop.test.js', '/files/../../package.json',
    '/files//etc/passwd', '/package.json', '/files', '/files/', '/files/tokenizer', '/demo/nothing.html', '/demo/serve.js/',
    '/demo/..', '/../../../../etc/passwd',
  ]) {
    assert.equal(await status(port, path), 404, path)
  }
  assert.equal(await status(port, '/files/%zz'), 400)
  assert.equal(await status(port, '/files/a%00b'), 400)
  assert.equal(await status(port, '/files/README.md', 'POST'), 405)
})

test('a busy port gives way to the next one', async (t) => {
  const first = await serve({ port: 0, roots })
  t.after(first.close)
  const second = await serve({ port: first.port, roots })
  t.after(second.close)
  assert.ok(second.port > first.port)
})

test('without isolation, when asked', async (t) => {
  const { url, close } = await serve({ port: 0, roots, isolated: false })
  t.after(close)
  assert.equal((await fetch(`${url}files/README.md`)).headers.get('Cross-Origin-Opener-Policy'), null)
})

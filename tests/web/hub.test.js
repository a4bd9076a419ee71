/** Models by name, from a copy of a model hub's interface on two loopback origins. */
import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { test } from 'node:test'
import { inspect, load } from 'nibl'
import { faultyServer } from './faulty-server.js'
import { hubServer } from './hub-server.js'
import { fromRoot, hashOf, niblError, tinyBytes, tinyPath } from './support.js'

const fixture = (/** @type {string} */ name) => fromRoot(`tests/fixtures/${name}`)
const text = (/** @type {string} */ content) => new TextEncoder().encode(content)
const read = (/** @type {string} */ name) => new Uint8Array(readFileSync(fixture(name)))
/** @param {string} name @param {string} [into] */
const folder = (name, into = '') => Object.fromEntries(readdirSync(fixture(name)).map((file) => [into + file, read(`${name}/${file}`)]))

const q4_0 = read('tiny-llama-q4_0.gguf')
const repositories = {
  'a/safetensors': { 'README.md': text('# hello'), ...folder('tiny-hf-f16') },
  'a/both': { ...folder('tiny-hf-f16'), 'model-Q4_1.gguf': tinyBytes },
  'a/gguf': { 'config.json': text('{}'), 'README.md': text('x'), 'tiny-Q4_0.gguf': q4_0, 'tiny.Q4_1.gguf': tinyBytes },
  'a/usual': { 'tiny-Q4_0.gguf': q4_0, 'tiny-Q4_K_M.gguf': tinyBytes },
  'a/one': { 'config.json': text('{}'), 'tiny.gguf': tinyBytes },
  'a/deep': { 'README.md': text('x'), ...folder('tiny-hf-f16', 'deep/er/'), 'ggufs/x y.gguf': tinyBytes },
  'a/split': Object.fromEntries([1, 2, 3].map((part) => `tiny-split-0000${part}-of-00003.gguf`).map((name) => [name, read(name)])),
  'a/none': { 'README.md': text('x'), 'pytorch_model.bin': text('x') },
}

test('a name finds the model that is meant', async (t) => {
  const { url: hub } = await hubServer(t, repositories)
  const f16 = await hashOf(fixture('tiny-llama-f16.gguf'))
  const q4_1 = await hashOf(tinyPath)
  /** @type {[string, string][]} */
  const names = [
    ['hf:a/safetensors', f16],
    ['hf:a/safetensors@main/config.json', f16],
    ['hf:a/both', f16],
    ['hf:a/both:q4_1', q4_1],
    ['hf:a/gguf:Q4_1', q4_1],
    ['hf:a/gguf/tiny.Q4_1.gguf', q4_1],
    ['hf:a/usual', q4_1],
    ['hf:a/one', q4_1],
    ['hf:a/deep/deep/er/', f16],
    ['hf:a/deep/ggufs/x y.gguf', q4_1],
    ['hf:a/split', f16],
  ]
  for (const [name, hash] of names) {
    for (const options of [{}, { worker: false }, { early: true }]) assert.equal(await hashOf(name, { hub, ...options }), hash, name)
  }
  assert.equal((await inspect('hf:a/one', { hub })).architecture, 'llama')
})

test('a token is shown to the hub and to nobody else; no request has headers that need a preflight', async (t) => {
  const { url: hub, asked } = await hubServer(t, repositories, { token: 'secret' })
  await hashOf('hf:a/safetensors', { hub, token: 'secret' })
  await hashOf('hf:a/one', { hub, token: 'secret', early: true })
  assert.ok(asked.hub.length > 3 && asked.hub.every(({ authorization }) => authorization === 'Bearer secret'))
  assert.ok(asked.storage.length > 3 && asked.storage.every(({ authorization }) => authorization === undefined))
  const plain = ['host', 'connection', 'accept', 'accept-language', 'accept-encoding', 'sec-fetch-mode', 'user-agent', 'range']
  assert.deepEqual(asked.storage.flatMap(({ headers }) => headers.filter((name) => !plain.includes(name))), [])
  assert.ok(asked.storage.every(({ range = 'bytes=0-1' }) => /^bytes=\d+-\d*$/.test(range)))
})

test('ranges are asked for where the hub sent us on to, and anew where that has expired', async (t) => {
  const expected = await hashOf(fixture('tiny-llama-f16.gguf'))
  const lasting = await hubServer(t, repositories)
  assert.equal(await hashOf('hf:a/split', { hub: lasting.url, early: true }), expected)
  const resolved = lasting.asked.hub.filter(({ url }) => url.includes('/resolve/')).length
  assert.ok(resolved < lasting.asked.storage.length)
  const expiring = await hubServer(t, repositories, { uses: 1 })
  assert.equal(await hashOf('hf:a/split', { hub: expiring.url, early: true }), expected)
  const addresses = new Set(expiring.asked.storage.map(({ url }) => url)).size
  assert.ok(addresses < expiring.asked.storage.length, 'an address that had expired was met')
  assert.ok(expiring.asked.hub.filter(({ url }) => url.includes('/resolve/')).length > resolved, 'and asked for anew')
})

test('connections that break, addresses that expire meanwhile, a busy hub: the right bytes, each once', async (t) => {
  const expected = await hashOf(tinyPath)
  for (const hidden of [false, true]) {
    const server = await hubServer(t, repositories, { uses: 1, cutAfter: Math.ceil(tinyBytes.length / 3), busy: 2, hidden })
    assert.equal(await hashOf('hf:a/one', { hub: server.url }), expected)
    assert.equal(server.sent, tinyBytes.length)
  }
})

/** @type {[string, string, import('./hub-server.js').Faults, string, RegExp][]} */
const refusals = [
  ['missing', 'hf:a/nothing', {}, 'NOT_FOUND', /hf:a\/nothing.*no such repository.*\/a\/nothing/],
  ['missing revision', 'hf:a/one@v2', {}, 'NOT_FOUND', /revision \(v2\)/],
  ['missing file', 'hf:a/one/other.gguf', {}, 'NOT_FOUND', /hf:a\/one\/other\.gguf is not in this repository/],
  ['private', 'hf:a/nothing', { token: 'x' }, 'ACCESS_DENIED', /401.*gated, private or does not exist.*\(token\)/],
  ['gated', 'hf:a/one', { token: 'x' }, 'ACCESS_DENIED', /hf:a\/one\/tiny\.gguf.*401.*accept the terms at http.*\/a\/one/],
  ['without weights', 'hf:a/none', {}, 'FILE_FAILED', /hf:a\/none.*neither config\.json nor a GGUF file/],
  ['several', 'hf:a/gguf', {}, 'BAD_ARGUMENT', /2 models \(tiny-Q4_0\.gguf, tiny\.Q4_1\.gguf\): name one/],
  ['unknown type', 'hf:a/gguf:Q8_0', {}, 'BAD_ARGUMENT', /none is of type Q8_0. There are: tiny-Q4_0\.gguf/],
  ['bad name', 'hf:a', {}, 'BAD_ARGUMENT', /hf:owner\/repository/],
  ['name that climbs', 'hf:a/../one', {}, 'BAD_ARGUMENT', /no name of a model/],
  ['page instead of the file', 'hf:a/one', { html: 'tiny.gguf' }, 'BAD_FILE', /HTML page/],
  ['next page elsewhere', 'hf:a/safetensors', { foreignPage: 'http://127.0.0.1:9/' }, 'DOWNLOAD_FAILED', /next page is at http:\/\/127\.0\.0\.1:9/],
  ['page instead of a listed file', 'hf:a/safetensors', { html: 'tokenizer.json' }, 'BAD_FILE', /tokenizer\.json: the server sent an HTML page/],
  ['other bytes than listed', 'hf:a/one', { changed: { 'tiny.gguf': q4_0 } }, 'DOWNLOAD_FAILED', /but the list says/],
]
for (const [name, source, faults, code, message] of refusals) {
  test(`${name}: ${code}`, async (t) => {
    const { url: hub } = await hubServer(t, repositories, faults)
    await assert.rejects(load(source, { hub }), niblError(code, message))
  })
}

test('a token that is not enough, and a hub that is none', async (t) => {
  const { url: hub } = await hubServer(t, repositories, { token: 'right' })
  await assert.rejects(load('hf:a/one', { hub, token: 'wrong' }), niblError('ACCESS_DENIED', /403.*the token does not open it/))
  await assert.rejects(load('hf:a/one', { hub, token: 'two words' }), niblError('BAD_ARGUMENT', /"token"/))
  const page = await faultyServer(text('<!doctype html>'), { type: 'text/html' })
  t.after(page.close)
  await assert.rejects(load('hf:a/one', { hub: page.url }), niblError('DOWNLOAD_FAILED', /no JSON.*\(hub\)/))
})

test('a server of single-page applications: a page instead of a file means that it is not there', async (t) => {
  const without = (/** @type {string} */ name) => async (/** @type {any} */ request, /** @type {any} */ response) => {
    const file = String(request.url).slice(1)
    const bytes = file === name ? null : await readFile(fixture(`tiny-hf-f16/${file}`)).catch(() => null)
    const type = bytes ? 'application/octet-stream' : 'text/html; charset=utf-8'
    response.writeHead(200, { 'Content-Type': type }).end(bytes ?? '<!doctype html><title>App</title>')
  }
  const serve = async (/** @type {string} */ name) => {
    const server = createServer(without(name))
    await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
    t.after(() => server.close())
    t.after(() => server.closeAllConnections())
    return `http://127.0.0.1:${/** @type {any} */ (server.address()).port}/`
  }
  assert.equal(await hashOf(await serve('')), await hashOf(fixture('tiny-hf-f16')))
  await assert.rejects(load(await serve('tokenizer.json')), /tokenizer\.json/)
  await assert.rejects(load(await serve('config.json')), niblError('BAD_FILE', /config\.json: the server sent an HTML page/))
})

/** What a load asks with under Node, beside the fetch() that it stands for: the same answers, and what goes over the wire. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { lean } from '../../web/nodefetch.js'

const body = Buffer.alloc(3 << 20)
for (let at = 0; at < body.length; at += 4) body.writeUInt32LE(Math.imul(at, 0x9e3779b1) >>> 0, at)

/** @typedef {(request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse) => void} Answer */

/** @param {import('node:test').TestContext} t @param {Answer} answer @param {{ key: string, cert: string }} [secure] */
async function serve(t, answer, secure) {
  const server = (secure ? createSecureServer(secure, answer) : createServer(answer)).listen(0, '127.0.0.1')
  t.after(() => (server.close(), server.closeAllConnections()))
  await once(server, 'listening')
  return { server, url: `http${secure ? 's' : ''}://127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (server.address()).port}` }
}

const none = () => assert.fail('it was left to fetch()')

/** As fetch() does it. @param {RegExp} why */
const failed = (why) => (/** @type {any} */ error) => error.name === 'TypeError' && why.test(error.cause.message)

/** @param {any} response @param {number} [size] of the buffers */
async function read({ body }, size = 512 << 10) {
  const reader = body.getReader({ mode: 'byob' })
  const parts = []
  for (;;) {
    const { value, done } = await reader.read(new Uint8Array(size))
    if (done) return Buffer.concat(parts)
    parts.push(value)
  }
}

test('bytes and headers, into buffers of any size, over one connection', async (t) => {
  const { server, url } = await serve(t, (request, response) => {
    response.writeHead(request.url === '/none' ? 404 : 200, { ETag: '"1"', 'Content-Length': body.length }).end(body)
  })
  let connections = 0
  server.on('connection', () => connections++)
  const ask = lean(none)
  for (const [path, size] of /** @type {[string, number][]} */ ([['', 512 << 10], ['', 1000], ['/none', 65537]])) {
    const response = await ask(url + path)
    const { status, statusText, ok } = await fetch(url + path, { method: 'HEAD' })
    assert.deepEqual([response.status, response.statusText, response.ok], [status, statusText, ok])
    assert.deepEqual([response.url, response.redirected], [new URL(path, url).href, false])
    assert.deepEqual(['etag', 'Content-Length', 'Content-Range'].map(response.headers.get), ['"1"', String(body.length), null])
    connections = 0
    assert.ok((await read(response, size)).equals(body))
  }
  assert.equal(connections, 0)
})

test('redirects: a token goes to its own origin alone, as with fetch()', async (t) => {
  /** @type {any[]} */
  let seen = []
  const note = (/** @type {any} */ { headers }) => seen.push([headers.authorization, headers.cookie, headers.range, headers['accept-encoding']])
  const other = await serve(t, (request, response) => void (note(request), response.end('there')))
  const { url } = await serve(t, (request, response) => {
    note(request)
    if (request.url === '/again') return void response.writeHead(301, { Location: '/again' }).end()
    response.writeHead(request.url === '/' ? 302 : 307, { Location: request.url === '/' ? '/next' : `${other.url}/there` }).end()
  })
  const headers = { authorization: 'Bearer secret', Cookie: 'a=b', Range: 'bytes=0-' }
  const answers = []
  for (const ask of [fetch, lean(none)]) {
    await assert.rejects(ask(`${url}/again`), failed(/^redirect count exceeded$/))
    seen = []
    const response = await ask(`${url}/`, { headers })
    answers.push([[...seen], response.status, response.url, response.redirected, String(await read(response))])
  }
  assert.equal(answers[0][0][0][0], 'Bearer secret')
  assert.deepEqual(answers[1], answers[0])
})

test('what is encoded is left to fetch()', async (t) => {
  const { url } = await serve(t, (_, response) => void response.writeHead(200, { 'Content-Encoding': 'gzip' }).end(gzipSync(body)))
  assert.ok((await read(await lean(fetch)(url))).equals(body))
  assert.equal(String(await read(await lean(fetch)('data:,text'))), 'text')
})

test('faults: no server, a cut, a connection closed between two requests, an abort, a cancel', async (t) => {
  let asked = 0
  let stalled = () => {}
  const { server, url } = await serve(t, (request, response) => {
    asked++
    response.writeHead(200, { 'Content-Length': body.length })
    if (request.url === '/cut') return void response.write(body.subarray(0, 1 << 20), () => setTimeout(() => response.destroy(), 50))
    if (request.url === '/stall') return void response.on('close', () => stalled()).write(body.subarray(0, 1 << 20))
    if (request.url === '/silent') return
    response.end(body)
  })
  const ask = lean(none)
  await assert.rejects(read(await ask(`${url}/cut`)))
  await read(await ask(url))
  server.closeIdleConnections()
  assert.ok((await read(await ask(url))).equals(body))

  const controller = new AbortController()
  const before = asked
  const silent = ask(`${url}/silent`, { signal: controller.signal })
  while (asked === before) await new Promise((resolve) => setTimeout(resolve, 5))
  controller.abort()
  await assert.rejects(silent, { name: 'AbortError' })

  const gone = new Promise((resolve) => (stalled = () => resolve(undefined)))
  const reader = (await ask(`${url}/stall`)).body.getReader({ mode: 'byob' })
  await reader.read(new Uint8Array(10))
  await reader.cancel()
  await gone

  server.close()
  server.closeAllConnections()
  await assert.rejects(ask(url), failed(/ECONNREFUSED/))
})

/** Of this test alone, for whoever calls itself localhost. */
const secure = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNd19QeHWYsJSDmRB
G9OeODzg/mXVa+HYdyq/GUvJ5hWhRANCAASx2Z+xPVRTw//0OfCq9bBzMT3hv8RA
h9PhV4TVcaHYLPdE52FxxiB0mIAJ5XUsmizt9BnSjl/GqD41LFeqhy8p
-----END PRIVATE KEY-----`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBfjCCASWgAwIBAgIUZ+DgJY650Xa7Tp1aI1F/wQrJc/wwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzE2MDcwM1oYDzIxMjYxMTAz
MTYwNzAzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASx2Z+xPVRTw//0OfCq9bBzMT3hv8RAh9PhV4TVcaHYLPdE52FxxiB0
mIAJ5XUsmizt9BnSjl/GqD41LFeqhy8po1MwUTAdBgNVHQ4EFgQUeE5SzesUU/o3
0Tte5kSqqp0Hy1gwHwYDVR0jBBgwFoAUeE5SzesUU/o30Tte5kSqqp0Hy1gwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiAsfgAXnGL83tZElcWQARRy
rAlHtrJEwqy6/+MBmIQv9AIgBMA9o3NyDb+3vzvkhyGUlevYKULmxDwMgbD5TtXG
7M8=
-----END CERTIFICATE-----`,
}

test('https', async (t) => {
  const { url } = await serve(t, (_, response) => void response.writeHead(200, { 'Content-Length': body.length }).end(body), secure)
  const ask = lean(none)
  await assert.rejects(ask(url), failed(/self-signed/))
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
  t.after(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED)
  for (const _ of [1, 2]) assert.ok((await read(await ask(url))).equals(body))
})

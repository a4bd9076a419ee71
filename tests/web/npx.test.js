/** `npx nibl`: the native program's verbs under WASI, and the server. */
import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { test } from 'node:test'
import { load } from 'nibl'
import OpenAI from 'openai'
import { serveModel } from '../../web/bin/serve.js'
import { mixedRequests } from '../bench/requests.js'
import { answer, fromRoot, loadFor, tinyPath } from './support.js'

const bin = fromRoot('web/bin/nibl.js')

/** @param {string[]} args @param {Record<string, string>} [env] */
function nibl(args, env = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, ...args], { encoding: 'utf8', cwd: fromRoot('tests'), env: { ...process.env, ...env } })
  return { status, stdout, stderr }
}

test('run, inspect, eval and bad usage, as the native program has them', () => {
  const native = fromRoot('build/native/nibl')
  /** @type {string[][]} */
  const commands = [
    ['run', 'fixtures/tiny-llama-q4_1.gguf', '-p', 'Hello', '-n', '6', '--temp', '0', '--logits-hash'],
    ['inspect', tinyPath],
    ['eval', tinyPath, '-f', 'fixtures/README.md', '-c', '64', '--chunks', '1'],
    ['embed', tinyPath, '-p', 'Hello', '--json'],
    ['run', 'missing.gguf', '-p', 'x'],
    ['help', 'run'],
    ['nothing'],
  ]
  for (const args of commands) {
    const ours = nibl(args)
    const theirs = spawnSync(native, args, { encoding: 'utf8', cwd: fromRoot('tests') })
    assert.equal(ours.status, theirs.status, `${args} ${ours.stderr}`)
    if (args[0] !== 'inspect') assert.equal(ours.stdout, theirs.stdout)
    else assert.ok(ours.stdout.length > 200, ours.stdout)
    assert.doesNotMatch(ours.stderr, /Warning/)
  }
})

/** @param {any} t @param {Partial<Parameters<typeof serveModel>[1]>} [options] */
async function serverFor(t, options) {
  const model = await loadFor(t, tinyPath, { sessions: 2, contextLength: 256 })
  const server = await serveModel(model, { name: 'tiny', host: '127.0.0.1', port: 0, maxBody: 10000, queue: 4, sessions: 2, ...options })
  t.after(() => server.close())
  return { model, ...server }
}

const body = { model: 'tiny', prompt: 'Hello', max_tokens: 8, temperature: 0 }
const post = (/** @type {any} */ value, headers = {}) => ({ method: 'POST', body: JSON.stringify(value), headers })

test('the server: completions whole and streamed, models, tokens, health, metrics', async (t) => {
  const { model, url } = await serverFor(t)
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  const expected = await answer(model, 'Hello', { maxTokens: 8 })
  const whole = await client.completions.create(body)
  assert.equal(whole.choices[0].text, expected)
  const texts = await Promise.all([1, 2, 3].map(async () => {
    let text = ''
    for await (const chunk of await client.completions.create({ ...body, stream: true })) text += chunk.choices[0]?.text ?? ''
    return text
  }))
  assert.deepEqual(texts, [expected, expected, expected])
  assert.deepEqual((await client.models.list()).data.map(({ id }) => id), ['tiny'])
  assert.deepEqual(await (await fetch(`${url}/health`)).json(), { status: 'ok' })
  assert.deepEqual(await (await fetch(`${url}/tokenize`, post({ content: 'Hello' }))).json(), { tokens: await model.tokenize('Hello') })
  assert.equal((await fetch(`${url}/tokenize`, { method: 'POST', body: '{' })).status, 400)
  const metrics = await (await fetch(`${url}/metrics`)).text()
  assert.match(metrics, /nibl_requests_total\{status="200"\} \d+/)
  assert.match(metrics, /nibl_tokens_predicted_total 32\n/)
})

test('what is refused', async (t) => {
  const { url } = await serverFor(t, { key: 'secret' })
  const status = async (/** @type {string} */ path, /** @type {any} */ init) => (await fetch(url + path, init)).status
  assert.equal(await status('/v1/completions', post(body)), 401)
  assert.equal(await status('/metrics', {}), 401)
  assert.equal(await status('/health', {}), 200)
  const headers = { authorization: 'Bearer secret' }
  assert.equal(await status('/v1/completions', post(body, headers)), 200)
  assert.equal(await status('/v1/completions', post({ ...body, prompt: 'x'.repeat(20000) }, headers)), 413)
  assert.equal(await status('/v1/completions', { method: 'POST', body: '{', headers }), 400)
  assert.equal(await status('/v1/completions', post({ ...body, model: 'other' }, headers)), 404)
  assert.equal(await status('/v1/nothing', { headers }), 404)

  const open = await serverFor(t)
  assert.equal(await new Promise((resolve) => {
    request(`${open.url}/v1/models`, { headers: { host: 'evil.example' } }, (response) => resolve(response.resume().statusCode)).end()
  }), 403)
  const foreign = await fetch(`${open.url}/v1/completions`, post(body, { origin: 'https://evil.example' }))
  assert.equal(foreign.status, 403)
  /* A length that is not told, and a body that goes on. */
  const long = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(4096)) })
  const endless = await fetch(`${open.url}/v1/completions`, /** @type {any} */ ({ method: 'POST', body: long, duplex: 'half' })).then(({ status }) => status, () => 413)
  assert.equal(endless, 413)
  assert.equal((await fetch(`${open.url}/health`)).status, 200)
})

/** Waits until no request but the one that asks is left. @param {string} url @returns {Promise<string>} the metrics */
async function noneActive(url) {
  for (let tries = 0; ; tries++) {
    const metrics = await (await fetch(`${url}/metrics`)).text()
    const active = /requests_active (\d+)/.exec(metrics)?.[1]
    if (active === '1') return metrics
    assert.ok(tries < 100, `${active} are left`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

test('clients that leave or do not read stop their answers; too many are told so', async (t) => {
  const { url, model } = await serverFor(t, { queue: 0, sessions: 1 })
  const long = JSON.stringify({ ...body, max_tokens: 200, stream: true })
  const { port } = new URL(url)
  for (let i = 0; i < 20; i++) {
    const socket = connect(Number(port), '127.0.0.1')
    socket.on('error', () => {})
    socket.write(`POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: ${long.length}\r\n\r\n${long.slice(0, i % 2 ? undefined : 10)}`)
    if (i % 3) await Promise.race([once(socket, 'data'), new Promise((resolve) => setTimeout(resolve, 50))])
    socket.destroy()
  }
  await noneActive(url)
  const statuses = await Promise.all(Array.from({ length: 8 }, () => fetch(`${url}/v1/completions`, post({ ...body, max_tokens: 100 })).then(({ status }) => status)))
  assert.ok(statuses.includes(503) && statuses.includes(200), `${statuses}`)
  assert.ok((await answer(model, 'Hello', { maxTokens: 4 })).length > 0)
})

test('300 requests, good, bad, cut and aborted: each is answered or refused, none is left, and memory stays', async (t) => {
  const { url, model } = await serverFor(t, { queue: 64 })
  const expected = await answer(model, 'Hello', { maxTokens: 8 })
  const one = mixedRequests(url, 7)
  const seen = new Set()
  /** @type {number[]} */
  const memory = []
  for (let burst = 0; burst < 30; burst++) {
    for (const what of await Promise.all(Array.from({ length: 10 }, one))) seen.add(what)
    memory.push(model.stats.memory.linear)
  }
  /* A body too large is refused while it is being sent: where the client notices first, fetch fails. */
  seen.delete('TypeError')
  assert.deepEqual([...seen].filter((what) => !['200', '400', '404', '413', 'TimeoutError', 'AbortError', 'cut'].includes(what)), [])
  assert.ok(['200', '400', '404', 'TimeoutError', 'cut'].every((what) => seen.has(what)), `${[...seen]}`)
  assert.deepEqual(new Set(memory.slice(10)), new Set([memory[10]]))
  assert.doesNotMatch(await noneActive(url), /status="5/)
  assert.deepEqual(await Promise.all([1, 2, 3].map(() => answer(model, 'Hello', { maxTokens: 8 }))), [expected, expected, expected])
})

test('nibl serve: its command line, and its end', async () => {
  assert.equal(nibl(['serve', '--help']).status, 0)
  for (const args of [[], ['a', 'b'], ['m', '--port', 'x'], ['m', '--what']]) {
    const { status, stderr } = nibl(['serve', ...args])
    assert.equal(status, 2)
    assert.match(stderr, /usage: nibl serve/)
  }
  assert.match(nibl(['serve', tinyPath, '--host', '0.0.0.0'], { NIBL_API_KEY: '' }).stderr, /reached by others: set --api-key/)
  assert.deepEqual([nibl(['serve', '/nowhere.gguf']).status, /nowhere/.test(nibl(['serve', '/nowhere.gguf']).stderr)], [1, true])
  const child = spawn(process.execPath, [bin, 'serve', tinyPath, '--port', '0', '-np', '2'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = await once(child.stdout, 'data')
  const url = /at (http\S+)\/v1/.exec(String(line))?.[1]
  assert.deepEqual((await (await fetch(`${url}/v1/models`)).json()).data.map((/** @type {any} */ { id }) => id), ['tiny-llama-q4_1'])
  child.kill('SIGTERM')
  const [status] = await once(child, 'exit')
  assert.equal(status, 0)
})

// The default model's fetch (demo/fetch.js) in a copy of the project, from a loopback hub that behaves well or badly.
// The Python package is out of reach, so a bad hub must end in one clear error and leave nothing behind.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { defaultModel } from '../demo/fetch.js'
import { root } from '../wasm/setup.js'

/** @typedef {import('node:http').ServerResponse} Response */

const model = fs.readFileSync(defaultModel.file)
const wrong = Buffer.from(model)
wrong[wrong.length >> 1] ^= 1

/** @param {Response} response @param {Buffer} bytes */
const whole = (response, bytes) => response.writeHead(200, { 'content-length': bytes.length }).end(bytes)

/**
 * Runs demo/fetch.js against a hub.
 * @param {import('node:test').TestContext} t
 * @param {(response: Response, path: string) => void} answer
 */
async function fetchFrom(t, answer) {
  const project = fs.mkdtempSync(join(tmpdir(), 'nibl-fetch-'))
  t.after(() => fs.rmSync(project, { recursive: true, force: true }))
  for (const name of ['package.json', 'wasm', 'demo'])
    fs.cpSync(join(root, name), join(project, name), { recursive: true })
  const server = createServer((request, response) => answer(response, request.url ?? '')).listen(0, '127.0.0.1')
  t.after(() => (server.close(), server.closeAllConnections()))
  await new Promise((listening) => server.once('listening', listening))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const env = { ...process.env, HF_ENDPOINT: `http://127.0.0.1:${port}`, PIP_NO_INDEX: '1', PIP_FIND_LINKS: '' }
  const child = spawn(process.execPath, ['demo/fetch.js'], { cwd: project, env, stdio: ['ignore', 'pipe', 'pipe'] })
  let [out, err] = ['', '']
  child.stdout.on('data', (data) => (out += data))
  child.stderr.on('data', (data) => (err += data))
  const code = await new Promise((ended) => child.on('close', ended))
  /** @param {string} name */
  const left = (name) => (fs.existsSync(join(project, name)) ? fs.readdirSync(join(project, name)) : [])
  return { code, out: out.trim(), err, models: left('.models'), temporary: left('.toolchain') }
}

test('the hub is followed through its redirect, and the file is used', async (t) => {
  const { code, out, err, models, temporary } = await fetchFrom(t, (response, path) => {
    if (path === '/elsewhere') return whole(response, model)
    return response.writeHead(302, { location: '/elsewhere' }).end()
  })
  assert.equal(code, 0, err)
  assert.deepEqual(models, [out.split('/').pop()])
  assert.equal(fs.existsSync(out) && fs.statSync(out).size, model.length)
  assert.deepEqual(temporary, [])
})

/** @type {[string, (response: Response) => void, RegExp][]} */
const badHubs = [
  ['refuses', (response) => response.writeHead(404).end(), /HTTP 404/],
  ['sends another size', (response) => whole(response, model.subarray(1)), /98362431 bytes instead of 98362432/],
  ['sends wrong bytes', (response) => whole(response, wrong), /sha256 [0-9a-f]{64}, expected b179c952/],
  [
    'is cut off',
    (response) => {
      response.writeHead(200, { 'content-length': model.length })
      response.write(model.subarray(0, 30e6), () => response.destroy())
    },
    /model hub: /,
  ],
]

for (const [what, answer, words] of badHubs) {
  test(`a hub that ${what}: one error, nothing left`, async (t) => {
    const { code, err, models, temporary } = await fetchFrom(t, answer)
    assert.equal(code, 1)
    assert.match(err, words)
    assert.match(err, /^nibl: the default model could not be fetched/m)
    assert.deepEqual([models, temporary], [[], []])
  })
}

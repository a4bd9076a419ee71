// A model of more than 4.5 GB, made up while it is sent, so that no file of that size is needed: loads and generates
// within its size and 64 MiB, natively, in Chromium and under Node 24, and gives one logits hash. One at a time.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { once } from 'node:events'
import { test } from 'node:test'
import { root } from '../wasm/setup.js'
import { openPage, renderers, tiny, withBrowser } from './browser/support.js'
import { serveModel, size, stream } from './made-up-model.js'

const native = join(root, 'build/native/nibl')
const node24 = join(root, '.toolchain/bin/node24')
const slack = 64 << 20
const prompt = 'Once upon a time'
const maxTokens = 4
const options = { contextLength: 64, threads: 2, timeout: 0 }

/** What /proc tells of a process in bytes. @param {number | string} pid @param {string} name as in /proc/PID/status */
function memoryOf(pid, name) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024
}

/** Runs a program that prints one JSON object.
 * @param {string[]} command @param {import('node:stream').Readable} [input] @returns {Promise<any>} */
async function json([program, ...args], input) {
  const child = spawn(program, args, { cwd: root, stdio: [input ? 'pipe' : 'ignore', 'pipe', 'inherit'] })
  input?.pipe(/** @type {import('node:stream').Writable} */ (child.stdin))
  let text = ''
  child.stdout?.on('data', (data) => (text += data))
  const [code] = await once(child, 'close')
  assert.equal(code, 0, `${program} ${args.join(' ')}`)
  return JSON.parse(text)
}

/** Loads a model as small as can be: what the process takes from then on is the model's. @param {any} load
 * @param {string} url */
async function warmUp(load, url) {
  const model = await load(url, { threads: 2 })
  for await (const piece of model.generate('Once', { maxTokens: 2 })) void piece
  model.close()
}

/** What runs under Node and in the page. @param {any} load @param {string} url @param {any} options @param {string} prompt
 * @param {number} maxTokens */
async function generate(load, url, options, prompt, maxTokens) {
  const model = await load(url, options)
  for await (const piece of model.generate(prompt, { maxTokens })) void piece
  const { info, stats } = model
  model.close()
  return { info, stats }
}

/** @type {string} */
let expected

/** @param {{ info: import('nibl').ModelInfo, stats: import('nibl').Stats }} got @param {number} peak bytes, of the process */
function check({ info, stats }, peak) {
  assert.equal(info.binary, 'relaxed-memory64')
  assert.match(info.why, /64-bit memory: the model needs \d{4} MB/)
  assert.equal(stats.load.bytes, size)
  assert.equal(stats.decode.tokens, maxTokens - 1)
  assert.equal(stats.hash, expected)
  assert.ok(stats.memory.linear > 2 ** 32)
  assert.ok(stats.memory.linear <= size + slack, `${stats.memory.linear} bytes of memory for ${size}`)
  assert.ok(peak <= size + slack, `the process took ${(peak - size) / 2 ** 20} MiB more than the model`)
}

test('natively, from a pipe', async () => {
  assert.ok(size > 4.5e9)
  const command = [native, 'run', '-', '--no-chat', '-p', prompt, '-n', String(maxTokens), '-c', '64', '-t', '2', '--temp', '0']
  const got = await json([...command, '--json', '--logits-hash'], stream())
  assert.equal(got.generated_tokens, maxTokens)
  assert.ok(got.memory.process_peak <= size + slack)
  expected = got.logits_hash
})

test('under Node 24', async (t) => {
  const server = await serveModel()
  t.after(() => server.close())
  const program = `import { load } from 'nibl'\nimport { readFileSync } from 'node:fs'\n${generate}\n${warmUp}\n${memoryOf}\n` +
    `await warmUp(load, 'tests/${tiny}')\nconst before = memoryOf('self', 'VmRSS')\nconst got = await generate(load, ${JSON.stringify(server.url)}, ` +
    `${JSON.stringify(options)}, ${JSON.stringify(prompt)}, ${maxTokens})\n` +
    `console.log(JSON.stringify({ ...got, peak: memoryOf('self', 'VmHWM') - before }))`
  const { peak, ...got } = await json([node24, '--input-type=module', '--eval', program])
  t.diagnostic(`${(got.stats.memory.linear - size) / 2 ** 20} MiB of memory, ${(peak - size) / 2 ** 20} MiB of the process beside ` +
    `the model; load ${got.stats.load.seconds} s`)
  check(got, peak)
})

withBrowser()

test('in Chromium', async (t) => {
  const server = await serveModel()
  t.after(() => server.close())
  const { page } = await openPage(t, 'tests/blank.html')
  await page.evaluate(`import('/web/nibl.js').then(({ load }) => (${warmUp})(load, '/${tiny}'))`)
  const before = new Map(renderers().map((pid) => [pid, memoryOf(pid, 'VmRSS')]))
  const got = await page.evaluate(`import('/web/nibl.js').then(({ load }) => (${generate})(load, '${server.url}', ` +
    `${JSON.stringify(options)}, ${JSON.stringify(prompt)}, ${maxTokens}))`)
  const peak = Math.max(...renderers().map((pid) => memoryOf(pid, 'VmHWM') - (before.get(pid) ?? 0)))
  const { stats } = /** @type {any} */ (got)
  t.diagnostic(`${(peak - size) / 2 ** 20} MiB beside the model; load ${stats.load.seconds} s`)
  check(/** @type {any} */ (got), peak)
})

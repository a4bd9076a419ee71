/** inspect(): what a file is and needs, from its first bytes. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { inspect, load } from 'nibl'
import { serveModel, size } from '../made-up-model.js'
import { faultyServer } from './faulty-server.js'
import { isAbort, longContext, modelPath, niblError, tinyBytes, tinyPath } from './support.js'

const slack = 1 << 20
const has64 = Number(process.versions.node.split('.')[0]) >= 24

/** Where the header ends, as the file itself says. @param {import('nibl').Inspection} about */
const headerEnd = ({ tensors }) => Math.min(...tensors.map(({ offset }) => offset))

test('a large model over HTTP: its header and little more is asked for', async (t) => {
  const server = await serveModel()
  t.after(() => server.close())
  const about = await inspect(server.url, { contextLength: 1000, threads: 2 })
  assert.ok(server.sent <= headerEnd(about) + slack, `${server.sent} bytes were sent`)
  assert.ok(about.bytesRead <= headerEnd(about) + slack)
  assert.ok(server.ranges.every((range) => range !== ''))
  assert.equal(about.architecture, 'llama')
  assert.equal(about.fileBytes, size)
  assert.equal(about.metadata['llama.block_count'], 10)
  assert.deepEqual(Object.keys(about.types).sort(), ['F32', 'Q4_0'])
  const products = about.tensors.map(({ shape }) => shape.reduce((a, b) => a * b))
  assert.equal(about.parameters, products.reduce((a, b) => a + b))
  assert.ok(about.tensorBytes + headerEnd(about) <= size && about.tensorBytes > 0.99 * size)
  const { plan, unsupported } = about
  assert.ok(plan)
  assert.ok(plan.weights >= about.tensorBytes && plan.weights <= 1.01 * about.tensorBytes)
  /* whole pages of 64 positions; layers, 8 heads, K and V of 128 in one byte each, with three scales of 4 bytes */
  assert.equal(plan.kv, 1024 * 10 * 8 * (2 * 128 + 3 * 4))
  assert.ok(plan.total >= plan.weights + plan.kv + plan.scratch + plan.vocabulary && plan.memory > plan.total)
  if (has64) assert.match(plan.binary, /-memory64$/)
  assert.equal(unsupported !== null, !has64)
  if (unsupported) assert.match(unsupported, /64-bit memory/)
})

test('a long header comes in steps', async (t) => {
  const bytes = readFileSync(modelPath)
  const server = await faultyServer(bytes)
  t.after(() => server.close())
  const about = await inspect(server.url)
  assert.ok(headerEnd(about) > slack)
  assert.ok(server.sent <= headerEnd(about) + slack, `${server.sent} bytes for a header of ${headerEnd(about)}`)
  assert.ok(server.ranges.length > 1 && server.ranges.length <= 4)
  assert.equal(about.unsupported, null)
})

test('the plan is that of a load', async () => {
  for (const options of /** @type {any[]} */ ([{}, { contextLength: 128, kv: 'f32', threads: 1 }, { threads: 2, binary: 'simd128' }])) {
    const { plan, unsupported } = await inspect(tinyPath, options)
    const model = await load(tinyPath, options)
    assert.equal(unsupported, null)
    assert.ok(plan)
    assert.deepEqual([plan.binary, plan.threads, plan.why], [model.info.binary, model.info.threads, model.info.why])
    assert.equal(plan.contextLength, model.info.contextLength)
    const { weights, kv, linear } = model.stats.memory
    assert.deepEqual([plan.weights, plan.kv], [weights, kv])
    assert.ok(linear <= Math.ceil(plan.memory / 65536) * 65536)
    model.close()
  }
})

test('every kind of source, in the worker and here', async () => {
  const expected = await inspect(tinyPath)
  for (const source of [() => tinyBytes, () => new Blob([tinyBytes]), () => new Response(tinyBytes)]) {
    for (const worker of [true, false]) {
      const about = await inspect(source(), { worker, threads: 1 })
      assert.deepEqual(about.tensors, expected.tensors)
    }
  }
})

test('a server without ranges is left when the header is there', async (t) => {
  const bytes = readFileSync(modelPath)
  const server = await faultyServer(bytes, { ranges: false, rate: 40e6 })
  t.after(() => server.close())
  const about = await inspect(server.url)
  assert.equal(server.ranges.length, 1)
  assert.ok(server.sent < bytes.length / 2, `${server.sent} bytes were sent`)
  assert.ok(about.plan)
})

test('what cannot be loaded is told, not thrown', async () => {
  const bytes = tinyBytes.slice()
  bytes.set(new TextEncoder().encode('mamba'), Buffer.from(bytes.buffer).indexOf('llama', 40))
  const about = await inspect(bytes)
  assert.equal(about.architecture, 'mamba')
  assert.equal(about.plan, null)
  assert.match(String(about.unsupported), /architecture 'mamba' is not supported/)
  assert.equal(about.tensors.length, (await inspect(tinyBytes)).tensors.length)

  const long = await inspect(longContext, { contextLength: 2 ** 24, kv: 'f32' })
  assert.ok(long.plan && long.plan.kv === 2 * 2 ** 24 * 384)
  const tooMuch = has64 ? /^The model needs \d{5} MB; WebAssembly's 64-bit/ : /^The model needs \d{5} MB; 32-bit/
  assert.match(String(long.unsupported), tooMuch)
})

test('what is no model, and an abort', async (t) => {
  await assert.rejects(inspect(new Uint8Array(100).fill(65)), niblError('BAD_FILE', /GGUF/))
  await assert.rejects(inspect(tinyBytes.slice(0, 5000)), niblError('TRUNCATED', /end/))
  await assert.rejects(inspect(tinyPath, /** @type {any} */ ({ early: true })), niblError('BAD_ARGUMENT', /"early"/))
  const server = await faultyServer(tinyBytes, { silent: true })
  t.after(() => server.close())
  const controller = new AbortController()
  const pending = inspect(server.url, { signal: controller.signal })
  setTimeout(() => controller.abort(), 100)
  await assert.rejects(pending, isAbort)
})

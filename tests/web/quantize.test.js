/** quantize(): files of other types, the same bytes as the command line's, at the pace of whoever takes them. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { quantize } from 'nibl'
import { faultyServer } from './faulty-server.js'
import { fromRoot, hashOf, isAbort, niblError, tinyPath } from './support.js'

const f16 = fromRoot('tests/fixtures/tiny-llama-f16.gguf')

/** @param {Uint8Array | ArrayBuffer} bytes */
const digest = (bytes) => createHash('sha256').update(new Uint8Array(bytes)).digest('hex')

test('a file of the type that was asked for, from a path, bytes, a server and a folder', async (t) => {
  const expected = await hashOf(fromRoot('tests/fixtures/tiny-llama-f16-as-q4_0.gguf'))
  const bytes = new Uint8Array(readFileSync(f16))
  const server = await faultyServer(bytes)
  t.after(() => server.close())
  const digests = new Set()
  /** @type {import('nibl').QuantizeOptions[]} */
  const ways = [{ threads: 1 }, { threads: 2 }, { worker: false }, { binary: 'simd128' }]
  for (const options of ways) {
    for (const source of [f16, bytes, server.url]) {
      const { report, size, blob } = await quantize(source, { embedding: 'q4_0', ...options })
      assert.ok(blob)
      const file = await blob.arrayBuffer()
      assert.equal(file.byteLength, size)
      assert.equal(report.file_bytes, size)
      assert.ok(report.bits_per_weight < 5)
      digests.add(digest(file))
      if (digests.size === 1) assert.equal(await hashOf(new Uint8Array(file)), expected)
    }
  }
  assert.equal(digests.size, 1)
  const { blob } = await quantize(fromRoot('tests/fixtures/tiny-hf-f16') + '/', { embedding: 'q4_0' })
  assert.ok(blob)
  assert.equal(await hashOf(new Uint8Array(await blob.arrayBuffer())), expected)
})

test('a sink sets the pace, and exceptions are told', async () => {
  /** @type {Uint8Array[]} */
  const parts = []
  let busy = false
  const sink = new WritableStream({
    async write(bytes) {
      assert.ok(!busy)
      busy = true
      await new Promise((resolve) => setTimeout(resolve, 1))
      parts.push(bytes)
      busy = false
    },
  })
  /** @type {any[]} */
  const progress = []
  const { report, size, blob } = await quantize(f16, {
    type: 'q4_k', tensors: { 'blk.0.*': 'mxfp4' }, method: 'clip', sink, onProgress: ({ phase, loaded, total }) => progress.push({ phase, loaded, total }),
  })
  assert.equal(blob, null)
  assert.equal(parts.reduce((sum, part) => sum + part.length, 0), size)
  assert.deepEqual(progress.at(-1), { phase: 'quantize', loaded: size, total: size })
  const of = (/** @type {string} */ name) => report.tensors.find((tensor) => tensor.name === name)
  assert.equal(of('blk.0.ffn_up.weight')?.to, 'MXFP4')
  assert.equal(of('blk.1.ffn_up.weight')?.wanted, 'Q4_K')
  assert.match(of('blk.1.ffn_up.weight')?.why ?? '', /no multiple of 256/)
})

test('what cannot be done is refused, and an abort ends it', async () => {
  await assert.rejects(quantize(tinyPath), niblError('BAD_ARGUMENT', /is Q4_1 already/))
  await assert.rejects(quantize(f16, { type: 'q9' }), niblError('BAD_ARGUMENT', /'q9'; possible are: f32/))
  await assert.rejects(quantize(f16, { method: 'magic' }), niblError('BAD_ARGUMENT', /no method 'magic'; possible are: rtn, clip/))
  const spoilt = new Uint8Array(readFileSync(f16))
  spoilt.fill(0xff, spoilt.length - 4000, spoilt.length - 3990)
  let reason
  const sink = new WritableStream({ abort: (error) => void (reason = error) })
  await assert.rejects(quantize(spoilt, { sink }), niblError('NOT_FINITE', /row \d+: a value is infinite or NaN/))
  assert.ok(niblError('NOT_FINITE', /row/)(reason))
  await assert.rejects(quantize(new Uint8Array(readFileSync(f16)).subarray(0, 100000)), niblError('TRUNCATED', /ends/))
  const controller = new AbortController()
  const aborting = quantize(f16, { signal: controller.signal, onProgress: () => controller.abort() })
  await assert.rejects(aborting, isAbort)
  await assert.rejects(quantize(f16, { signal: AbortSignal.abort() }), isAbort)
})

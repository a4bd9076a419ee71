/** quantize() with methods that look at a text, with integers and mixed precision: the same bytes as the command line's. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, openAsBlob, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { imatrix, load, quantize } from 'nibl'
import { makeUp } from '../made-up-model.js'
import { answer, fromRoot, isAbort, niblError } from './support.js'

const f16 = fromRoot('tests/fixtures/tiny-llama-f16.gguf')
const hf = fromRoot('tests/fixtures/tiny-hf-f16')
const arch = (/** @type {string} */ name) => fromRoot(`tests/fixtures/arch/${name}`)
const binary = process.env.NIBL_CLI ?? fromRoot('build/native/nibl')

const folder = mkdtempSync(join(tmpdir(), 'nibl-calibrate-'))
after(() => rmSync(folder, { recursive: true }))

const text = 'The reef is in the north. 12 + 30 = 42. const reef = north(12) '.repeat(24)
const textFile = join(folder, 'text.txt')
writeFileSync(textFile, text)
const imatrixFile = join(folder, 'imatrix.gguf')
assert.equal(spawnSync(binary, ['imatrix', f16, imatrixFile, textFile]).status, 0)

/** What the command makes: a file's bytes, or a folder's by name. @param {string} source @param {string[]} args */
function native(source, args) {
  const out = join(folder, 'native')
  rmSync(out, { recursive: true, force: true })
  const { status, stderr } = spawnSync(binary, ['quantize', source, out, ...args, '--threads', '2'])
  assert.equal(status, 0, String(stderr))
  const isFolder = args.some((arg) => /^w\d/.test(arg)) && !args.includes('gguf')
  const names = isFolder ? readdirSync(out).sort() : null
  return names ? Object.fromEntries(names.map((name) => [name, readFileSync(join(out, name))])) : { '': readFileSync(out) }
}

/** The same from JavaScript. @param {string} source @param {import('nibl').QuantizeOptions} options */
async function made(source, options) {
  const { blob, files, size } = await quantize(source, options)
  const parts = blob ? /** @type {[string, Blob][]} */ ([['', blob]]) : (files ?? []).map((file) => /** @type {[string, Blob]} */ ([file.name, file])).sort(([a], [b]) => (a < b ? -1 : 1))
  if (blob) assert.equal(blob.size, size)
  return Object.fromEntries(await Promise.all(parts.map(async ([name, part]) => [name, Buffer.from(await part.arrayBuffer())])))
}

/** @type {[string, string, string[], import('nibl').QuantizeOptions][]} */
const cases = [
  ['AWQ and GPTQ', f16, ['--method', 'awq,gptq'], { method: ['awq', 'gptq'], calibration: text }],
  ['imatrix, another type, exceptions, tokens', f16, ['q4_1', '--method', 'imatrix', '--head', 'q6_k', '--tensor', 'blk.0.*_down.weight=q8_0', '--calibration-tokens', '100'], { type: 'q4_1', method: 'imatrix', head: 'q6_k', tensors: { 'blk.0.*_down.weight': 'q8_0' }, calibration: text, calibrationTokens: 100 }],
  ['clip, weighed by a text', f16, ['--method', 'clip'], { method: 'clip', calibration: pathToFileURL(textFile) }],
  ['imatrix from a file', f16, ['q4_1', '--imatrix', imatrixFile], { type: 'q4_1', imatrix: imatrixFile }],
  ['mixed precision for a size', f16, ['--size', '0.11MB', '--types', 'q4_0,q5_0,q8_0'], { size: 110e3, types: ['q4_0', 'q5_0', 'q8_0'], calibration: new Blob([text]) }],
  ['mixed precision for bits, with GPTQ', f16, ['--bpw', '6', '--method', 'gptq'], { bitsPerWeight: 6, method: 'gptq', calibration: text }],
  ['rotated', f16, ['--method', 'rotate,gptq'], { method: 'rotate,gptq', calibration: text }],
  ['a folder of integers', f16, ['w4g32asym', '--method', 'awq'], { scheme: 'w4g32asym', method: 'awq', calibration: text }],
  ['a folder from a folder', hf, ['w3g32', '--method', 'gptq', '--shard-size', '1'], { type: 'w3g32', method: 'gptq', calibration: text, shardBytes: 1e6 }],
  ['a rotated folder, whose head is a tensor of its own then', hf, ['w4g32', '--method', 'rotate'], { type: 'w4g32', method: 'rotate' }],
  ['a folder with transposed matrices', arch('gpt2'), [], {}],
  ['experts of a folder, one tensor each', arch('qwen3moe'), ['q8_0', '--method', 'gptq'], { type: 'q8_0', method: 'gptq', calibration: text }],
  ['experts of a folder, in one tensor, by size', arch('gpt-oss'), ['--size', '0.1MB', '--types', 'q4_0,q8_0'], { size: 100e3, types: ['q4_0', 'q8_0'], calibration: text }],
  ['a folder whose RoPE has factors', arch('llama-llama3'), ['--method', 'awq'], { method: 'awq', calibration: text }],
  ['lists of factors', arch('phi3-longrope'), ['q8_0'], { type: 'q8_0' }],
  ['a folder of a folder with convolutions', arch('lfm2'), ['w4g32'], { type: 'w4g32' }],
  ['integers as GGUF', f16, ['w4row', '--as', 'gguf'], { type: 'w4row', format: 'gguf' }],
]
for (const [name, source, args, options] of cases) {
  test(`${name}: the bytes of the native program`, async () => {
    const needsText = options.calibration !== undefined
    const expected = native(source, needsText ? [...args, '--calibration', textFile] : args)
    for (const how of [{ threads: 2 }, { threads: 1, binary: /** @type {const} */ ('simd128') }]) {
      const files = await made(source, { ...options, ...how })
      assert.deepEqual(Object.keys(files), Object.keys(expected))
      for (const file of Object.keys(expected)) assert.ok(expected[file].equals(files[file]), `${file} differs, ${JSON.stringify(how)}`)
    }
  })
}

test('without a text the one of the package is taken, as the command takes its own; a recipe repeats what it tells', async () => {
  const expected = native(f16, ['--method', 'awq,gptq'])['']
  const { blob, report, calibrationTokens } = await quantize(f16, { method: 'awq,gptq' })
  assert.ok(expected.equals(Buffer.from(await /** @type {Blob} */ (blob).arrayBuffer())))
  assert.equal(calibrationTokens, 8192)
  const again = await made(f16, { recipe: report.recipe })
  assert.ok(expected.equals(again['']))
  assert.ok(expected.equals((await made(f16, { recipe: JSON.stringify({ quantization: report }), worker: false }))['']))
  await assert.rejects(quantize(f16, { recipe: report.recipe, type: 'q8_0' }), niblError('BAD_ARGUMENT', /"recipe" says/))
  await assert.rejects(quantize(f16, { recipe: { tensors: [['a']] } }), niblError('BAD_ARGUMENT', /no pairs/))
})

test('a folder loads again; its files go where they are wanted; progress has phases and the time left', async () => {
  const { files, blob } = await quantize(f16, { type: 'w4g32' })
  assert.equal(blob, null)
  const model = await load(/** @type {File[]} */ (files))
  assert.equal(typeof (await answer(model, 'Once upon a time', { maxTokens: 4 })), 'string')
  model.close()
  /** @type {Record<string, number>} */
  const written = {}
  /** @type {Set<string>} */
  const phases = new Set()
  const result = await quantize(f16, {
    type: 'w4g32', sink: async (name) => new WritableStream({ write: (bytes) => void (written[name] = (written[name] ?? 0) + bytes.length) }),
  })
  assert.equal(result.files, null)
  assert.deepEqual(written, Object.fromEntries((files ?? []).map(({ name, size }) => [name, size])))
  await quantize(f16, {
    size: 110e3, calibration: text,
    onProgress: ({ phase, loaded, total, secondsLeft }) => {
      phases.add(phase)
      assert.ok(loaded <= total && !(Number(secondsLeft) < 0), `${phase} ${loaded} ${total} ${secondsLeft}`)
    },
  })
  assert.deepEqual([...phases], ['download', 'measure', 'quantize'])
})

test('layers come and go: of a model of 75 MB not all is in memory, unless it is a stream', async (t) => {
  const { size, read } = makeUp({ layers: 12, width: 512, ffn: 1536, heads: 8, kvHeads: 4, type: 1 })
  const source = join(folder, 'made-up.gguf')
  writeFileSync(source, read(0, size))
  assert.ok(size > 70e6)
  /** @type {WebAssembly.Memory[]} */
  const memories = []
  const { Memory } = WebAssembly
  WebAssembly.Memory = class extends Memory {
    /** @param {WebAssembly.MemoryDescriptor} descriptor */
    constructor(descriptor) {
      super(descriptor)
      memories.push(this)
    }
  }
  t.after(() => void (WebAssembly.Memory = Memory))
  const options = { method: 'rotate', worker: false }
  const expected = native(source, ['--method', 'rotate'])['']
  for (const [from, most] of /** @type {[any, number][]} */ ([[source, 50e6], [(await openAsBlob(source)).stream(), 130e6]])) {
    memories.length = 0
    const { blob } = await quantize(from, options)
    assert.ok(expected.equals(Buffer.from(await /** @type {Blob} */ (blob).arrayBuffer())))
    const largest = Math.max(...memories.map(({ buffer }) => buffer.byteLength))
    assert.ok(largest < most && largest > most / 2, `${largest} bytes`)
  }
})

test('an imatrix file from anywhere, and none that is wrong', async (t) => {
  const bytes = readFileSync(imatrixFile)
  const server = createServer((request, response) => void response.writeHead(request.url === '/none' ? 404 : 200).end(bytes))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  t.after(() => server.close())
  const url = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}`
  const expected = native(f16, ['--imatrix', imatrixFile])['']
  const ways = [bytes, new Uint8Array(bytes).buffer, new Blob([bytes]), new URL(url), pathToFileURL(imatrixFile)]
  for (const imatrix of ways) assert.ok(expected.equals((await made(f16, { imatrix }))['']))
  const { report, calibrationTokens } = await quantize(f16, { imatrix: bytes, worker: false })
  assert.deepEqual([report.recipe.method, calibrationTokens], ['imatrix', 0])
  await assert.rejects(quantize(f16, { imatrix: `${url}/none`, retries: 0 }), niblError('DOWNLOAD_FAILED', /404/))
  await assert.rejects(quantize(f16, { imatrix: bytes.subarray(0, 300) }), niblError('TRUNCATED', /imatrix file/))
  await assert.rejects(quantize(f16, { imatrix: readFileSync(f16) }), niblError('BAD_FILE', /not 'imatrix'/))
  await assert.rejects(quantize(f16, { imatrix: bytes, method: 'gptq' }), niblError('BAD_ARGUMENT', /need the text/))
  await assert.rejects(quantize(f16, { imatrix: bytes, size: 110e3 }), niblError('BAD_ARGUMENT', /stands for a text/))
  await assert.rejects(quantize(f16, { imatrix: 'hf:someone/something' }), niblError('BAD_ARGUMENT', /URL of the file/))
})

test('an imatrix of a text: the bytes of the native program, which quantize() takes', async () => {
  for (const source of [f16, hf, arch('qwen3moe')]) {
    const out = join(folder, 'native-imatrix.gguf')
    assert.equal(spawnSync(binary, ['imatrix', source, out, textFile, '--tokens', '600']).status, 0)
    for (const how of [{ threads: 2 }, { threads: 1, binary: /** @type {const} */ ('simd128'), worker: false }]) {
      const { blob, calibrationTokens } = await imatrix(source, { calibration: text, calibrationTokens: 600, dataset: textFile, ...how })
      assert.ok(readFileSync(out).equals(Buffer.from(await blob.arrayBuffer())), `${source} ${JSON.stringify(how)}`)
      assert.equal(calibrationTokens, 600)
    }
  }
  /** @type {Set<string>} */
  const phases = new Set()
  const { blob } = await imatrix(f16, { calibration: pathToFileURL(textFile), dataset: textFile, onProgress: ({ phase }) => phases.add(phase) })
  assert.ok(readFileSync(imatrixFile).equals(Buffer.from(await blob.arrayBuffer())))
  assert.ok(phases.has('measure'))
  assert.deepEqual(await made(f16, { imatrix: blob }), await made(f16, { imatrix: imatrixFile }))
  assert.equal((await imatrix(f16)).calibrationTokens, 8192)
  await assert.rejects(imatrix(f16, { calibration: '' }), niblError('BAD_ARGUMENT', /0 calibration tokens/))
  await assert.rejects(imatrix(f16, /** @type {any} */ ({ type: 'q4_0' })), niblError('BAD_ARGUMENT', /type/))
  await assert.rejects(imatrix(join(folder, 'none.gguf')), niblError('FILE_FAILED', /none/))
  const controller = new AbortController()
  await assert.rejects(imatrix(f16, { calibration: text, signal: controller.signal, onProgress: ({ phase }) => phase === 'measure' && controller.abort() }), isAbort)
})

test('refusals, and an abort in every phase', async (t) => {
  const server = createServer((request, response) => void response.writeHead(request.url === '/none' ? 404 : 200).end(text))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  t.after(() => server.close())
  const url = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}`
  assert.equal((await quantize(f16, { method: 'gptq', calibration: new URL(url), calibrationTokens: 64 })).calibrationTokens, 64)
  await assert.rejects(quantize(f16, { method: 'gptq', calibration: new URL(`${url}/none`) }), niblError('DOWNLOAD_FAILED', /HTTP status 404/))
  await assert.rejects(quantize(f16, { method: ['awq', 'magic'], calibration: text }), niblError('BAD_ARGUMENT', /no method 'magic'/))
  await assert.rejects(quantize(f16, { method: 'gptq', calibration: '' }), niblError('BAD_ARGUMENT', /needs a calibration text/))
  await assert.rejects(quantize(f16, { size: 1000, calibration: text }), niblError('BAD_ARGUMENT', /too few for the tensors/))
  await assert.rejects(quantize(f16, { type: 'w4g32', sink: new WritableStream() }), niblError('BAD_ARGUMENT', /"sink" must be a function/))
  for (const worker of [true, false]) {
    for (const at of ['download', 'measure', 'quantize']) {
      const controller = new AbortController()
      let reason
      const sink = new WritableStream({ abort: (error) => void (reason = error) })
      const aborted = quantize(f16, { size: 110e3, method: 'awq,gptq', calibration: text, worker, sink, signal: controller.signal, onProgress: ({ phase }) => phase === at && controller.abort() })
      await assert.rejects(aborted, isAbort, `${at} ${worker}`)
      assert.ok(isAbort(reason))
    }
  }
})

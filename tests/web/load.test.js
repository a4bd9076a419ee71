/** Where models come from, and what goes wrong on the way. */
import assert from 'node:assert/strict'
import { openAsBlob, readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { load } from 'nibl'
import { faultyServer } from './faulty-server.js'
import { answer, fromRoot, isAbort, loadFor, niblError, tinyBytes, tinyPath } from './support.js'

/** @typedef {import('./faulty-server.js').Faults} Faults */

/** @param {any} t @param {Faults} [faults] @param {Uint8Array} [body] */
async function serverFor(t, faults, body = tinyBytes) {
  const server = await faultyServer(body, faults)
  t.after(() => server.close())
  return server
}

/** @param {Uint8Array} bytes @param {number} size */
function streamOf(bytes, size) {
  let at = 0
  return new ReadableStream({
    pull(controller) {
      if (at < bytes.length) controller.enqueue(bytes.slice(at, (at += size)))
      else controller.close()
    },
  })
}

test('every kind of source gives the same model', async (t) => {
  const { url } = await serverFor(t)
  const { url: unknown } = await serverFor(t, { unknownLength: true })
  /** @type {Record<string, () => any>} */
  const sources = {
    path: () => tinyPath,
    'file URL': () => pathToFileURL(tinyPath),
    'file URL as text': () => pathToFileURL(tinyPath).href,
    URL: () => new URL(url),
    'URL as text': () => url,
    'URL without length': () => unknown,
    Blob: () => new Blob([tinyBytes]),
    'Blob of a file': () => openAsBlob(tinyPath),
    Uint8Array: () => tinyBytes,
    ArrayBuffer: () => tinyBytes.buffer,
    Response: () => fetch(url),
    stream: () => streamOf(tinyBytes, 1000),
    'stream of large chunks': () => streamOf(tinyBytes, 1 << 30),
  }
  const hashes = new Set()
  for (const [name, source] of Object.entries(sources)) {
    for (const worker of [true, false]) {
      const model = await load(await source(), { worker })
      assert.equal(model.info.architecture, 'llama', name)
      await answer(model, 'Hello', { maxTokens: 4 })
      assert.equal(model.stats.load.bytes, tinyBytes.length, name)
      hashes.add(model.stats.hash)
      model.close()
    }
  }
  assert.equal(hashes.size, 1)
  assert.match([...hashes][0], /^[0-9a-f]{16}$/)
  assert.equal(tinyBytes.length, readFileSync(tinyPath).length, 'the caller keeps the bytes')
})

test('bytes may come one at a time', async (t) => {
  const whole = await loadFor(t, tinyPath)
  await answer(whole, 'Hello', { maxTokens: 4 })
  const model = await loadFor(t, streamOf(tinyBytes, 1), { worker: false })
  await answer(model, 'Hello', { maxTokens: 4 })
  assert.equal(model.stats.hash, whole.stats.hash)
})

test('every fixture loads and answers', async (t) => {
  for (const type of ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1']) {
    const model = await loadFor(t, fromRoot(`tests/fixtures/tiny-llama-${type}.gguf`))
    await answer(model, 'Hello', { maxTokens: 3 })
    assert.equal(model.stats.decode.tokens, 2, type)
  }
})

test('progress rises to the end', async (t) => {
  const { url } = await serverFor(t, { rate: 1e6 })
  /** @type {any[]} */
  const seen = []
  await loadFor(t, url, { onProgress: (progress) => seen.push(progress) })
  assert.deepEqual(seen.at(-1), { phase: 'download', loaded: tinyBytes.length, total: tinyBytes.length })
  const loaded = seen.map((progress) => progress.loaded)
  assert.deepEqual(loaded, loaded.toSorted((a, b) => a - b))
})

test('info and stats say what was loaded', async (t) => {
  const model = await loadFor(t, tinyPath, { contextLength: 64, threads: 1 })
  const { info, stats } = model
  assert.equal(info.contextLength, 64)
  assert.equal(info.threads, 1)
  assert.ok(info.parameters > 0 && info.layers > 0 && info.vocabulary > 0)
  assert.match(info.binary, /^(simd128|relaxed)$/)
  assert.match(info.why, /relaxed SIMD.*one thread/)
  assert.ok(stats.memory.linear > stats.memory.weights && stats.memory.weights > 0)
  assert.ok(stats.load.seconds > 0)
  await model.ready
})

/** @type {[string, Faults, string, RegExp][]} */
const faults = [
  ['404', { status: 404 }, 'DOWNLOAD_FAILED', /model\.gguf.*404.*address/],
  ['401', { status: 401 }, 'DOWNLOAD_FAILED', /model\.gguf.*401.*headers/],
  ['500', { status: 500 }, 'DOWNLOAD_FAILED', /model\.gguf.*500.*later/],
  ['cut at 30 %', { cutAt: 0.3 }, 'DOWNLOAD_FAILED', /lost after \d+ of \d+ bytes/],
  ['cut at 30 %, length unknown', { cutAt: 0.3, unknownLength: true }, 'TRUNCATED', /model\.gguf: .*end/],
  ['cut in the header', { cutAt: 0.001 }, 'DOWNLOAD_FAILED', /lost after/],
  ['cut in the header, length unknown', { cutAt: 0.001, unknownLength: true }, 'TRUNCATED', /model\.gguf: .*end/],
  ['stall at the start', { stallAt: 0 }, 'TIMEOUT', /no byte came for 0\.2 s/],
  ['stall in the middle', { stallAt: 0.5 }, 'TIMEOUT', /no byte came for 1 s after \d+ bytes/],
  ['no answer', { silent: true }, 'TIMEOUT', /no byte came for 0\.2 s after the request/],
]
for (const [name, fault, code, message] of faults) {
  for (const early of [false, true]) {
    test(`${name}${early ? ', early' : ''}: ${code}`, async (t) => {
      const { url } = await serverFor(t, fault)
      const loading = async () => {
        const timeout = code !== 'TIMEOUT' ? 30000 : fault.stallAt ? 1000 /* in which bytes come also on a busy machine */ : 200
        const model = await load(url, { timeout, retries: 0, early })
        try {
          await model.ready
        } finally {
          await assert.rejects(answer(model, 'Hello', { maxTokens: 1 }), niblError(code, message))
          model.close()
        }
      }
      await assert.rejects(loading(), niblError(code, message))
    })
  }
}

test('an HTTP status is told as a number', async (t) => {
  const { url } = await serverFor(t, { status: 403 })
  await assert.rejects(load(url), { status: 403 })
  await assert.rejects(async () => load(await fetch(url)), { status: 403, code: 'DOWNLOAD_FAILED' })
})

test('HTML instead of a model', async (t) => {
  const page = new TextEncoder().encode('<!doctype html><html><body>Please log in</body></html>')
  const { url } = await serverFor(t, { type: 'text/html' }, page)
  await assert.rejects(load(url), niblError('BAD_FILE', /model\.gguf: .*HTML/))
})

test('a file that is too short, empty, or no model at all', async () => {
  for (const length of [0, 3, 20, 500, tinyBytes.length >> 1, tinyBytes.length - 1]) {
    const cut = tinyBytes.slice(0, length)
    await assert.rejects(load(cut), niblError('TRUNCATED', /the bytes: /), `${length} bytes`)
    await assert.rejects(load(new Blob([cut]), { early: true }).then((model) => model.ready), niblError('TRUNCATED', /the blob: /))
  }
  await assert.rejects(load(new Uint8Array(1000).fill(65)), niblError('BAD_FILE', /the bytes: /))
})

test('a server that cannot be reached', async () => {
  const { url, close } = await faultyServer(tinyBytes)
  await close()
  await assert.rejects(load(url, { retries: 0 }), niblError('DOWNLOAD_FAILED', /cannot be reached: .*ECONNREFUSED/))
})

test('a path that cannot be read', async (t) => {
  await assert.rejects(load('/nowhere/model.gguf'), niblError('FILE_FAILED', /\/nowhere\/model\.gguf cannot be read/))
  const folder = await mkdtemp(join(tmpdir(), 'nibl-'))
  t.after(() => rm(folder, { recursive: true }))
  await assert.rejects(load(folder), niblError('FILE_FAILED', /directory/))
  await writeFile(join(folder, 'empty.gguf'), '')
  await assert.rejects(load(join(folder, 'empty.gguf')), niblError('TRUNCATED', /empty\.gguf/))
})

test('a source or option that makes no sense', async () => {
  const bad = async (/** @type {any} */ source, /** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(load(source, options), niblError('BAD_ARGUMENT', message))
  await bad(undefined, {}, /A model comes from/)
  await bad(7, {}, /A model comes from/)
  await bad(tinyPath, { context_length: 5 }, /no option "context_length".*contextLength/)
  await bad(tinyPath, { threads: 0 }, /"threads" must be a whole number from 1/)
  await bad(tinyPath, { threads: 1.5 }, /"threads"/)
  await bad(tinyPath, { kv: 'i3' }, /"kv" must be one of "i8", "f16", "f32"/)
  await bad(tinyPath, { timeout: -1 }, /"timeout"/)
  await bad(tinyPath, { signal: {} }, /"signal" must be an AbortSignal/)
  await bad(tinyPath, { contextLength: 2 ** 30 }, /context/)
  await bad(streamOf(new Uint8Array(1), 1).pipeThrough(new TextDecoderStream()), {}, /string/)
  const used = new Response('x')
  await used.text()
  await bad(used, {}, /body/)
})

test('an abort ends a load at once', async (t) => {
  const server = await serverFor(t, { stallAt: 0.5 })
  for (const worker of [true, false]) {
    await assert.rejects(load(server.url, { worker, signal: AbortSignal.abort() }), isAbort)
    const controller = new AbortController()
    const loading = load(server.url, { worker, signal: controller.signal, timeout: 0 })
    setTimeout(() => controller.abort(), 300)
    await assert.rejects(loading, isAbort)
  }
  while (server.open() > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  const model = await loadFor(t, tinyPath)
  await answer(model, 'Hello', { maxTokens: 1 })
})

test('an abort ends an early load, also behind the header', async (t) => {
  const server = await serverFor(t, { stallAt: 0.9 })
  for (const worker of [true, false]) {
    const controller = new AbortController()
    const model = await loadFor(t, server.url, { worker, early: true, signal: controller.signal, timeout: 0 })
    const pending = answer(model, 'Hello')
    controller.abort()
    await assert.rejects(model.ready, isAbort)
    await assert.rejects(pending, isAbort)
  }
  while (server.open() > 0) await new Promise((resolve) => setTimeout(resolve, 10))
})

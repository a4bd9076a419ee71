/** Models of several files: split GGUF files and Hugging Face folders; and quantizing on arrival. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { copyFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect, load } from 'nibl'
import { fromRoot, hashOf, loadFor, niblError } from './support.js'

const fixture = (/** @type {string} */ name) => fromRoot(`tests/fixtures/${name}`)
const splitNames = [1, 2, 3].map((part) => `tiny-split-0000${part}-of-00003.gguf`)

/** A server of the fixtures' folder. @param {any} t @param {{ ranges?: boolean, without?: string }} [how] */
async function serve(t, { ranges = true, without } = {}) {
  const state = { sent: 0, url: '' }
  const server = createServer(async (request, response) => {
    const name = decodeURIComponent(String(request.url).slice(1))
    const bytes = name === without ? null : await readFile(fixture(name)).catch(() => null)
    if (!bytes) return void response.writeHead(404).end()
    const range = ranges && /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    const [start, end] = range ? [Number(range[1]), Math.min(bytes.length, Number(range[2]) + 1)] : [0, bytes.length]
    if (start >= end) return void response.writeHead(416).end()
    const headers = { 'Content-Length': end - start }
    const partial = { 'Content-Range': `bytes ${start}-${end - 1}/${bytes.length}` }
    response.writeHead(range ? 206 : 200, range ? { ...headers, ...partial } : headers)
    state.sent += end - start
    response.end(bytes.subarray(start, end))
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  t.after(() => server.close())
  t.after(() => server.closeAllConnections())
  state.url = `http://127.0.0.1:${/** @type {any} */ (server.address()).port}`
  return state
}

/** @param {string} folder @param {string[]} [names] */
async function filesOf(folder, names) {
  const files = (names ?? (await readdir(folder))).map(async (name) => new File([await readFile(join(folder, name))], name))
  return Promise.all(files)
}

/* The same weights in one file, whose logits are the reference's (tests/fixtures). */
/** @type {[string, string, string[] | undefined][]} */
const models = [
  ['tiny-hf-f16', 'tiny-llama-f16.gguf', undefined],
  ['tiny-hf-bf16', 'tiny-llama-bf16.gguf', undefined],
]

for (const [folder, single] of models) {
  test(`${folder}: a path, a URL with and without ranges, and files give the model of one file`, async (t) => {
    const expected = await hashOf(fixture(single))
    const { url } = await serve(t)
    const { url: whole } = await serve(t, { ranges: false })
    /** @type {Record<string, any>} */
    const sources = {
      folder: fixture(folder),
      'config.json': join(fixture(folder), 'config.json'),
      'URL of config.json': `${url}/${folder}/config.json`,
      'URL of the folder': `${url}/${folder}/`,
      'URL without ranges': `${whole}/${folder}/`,
      files: await filesOf(fixture(folder)),
    }
    for (const [name, source] of Object.entries(sources)) {
      for (const options of [{}, { worker: false }, { early: true }]) {
        assert.equal(await hashOf(source, options), expected, `${name} ${JSON.stringify(options)}`)
      }
    }
  })
}

/** The files of a layout of tests/fixtures/quantized by the names they have in a folder. @param {string} layout */
function quantizedFiles(layout) {
  /** @type {Record<string, string>} */
  const files = {
    'config.json': `quantized/${layout}.json`,
    'model.safetensors.index.json': 'quantized/index.json',
    'shared.safetensors': 'quantized/shared.safetensors',
    'layout.safetensors': `quantized/${layout}.safetensors`,
    'tokenizer.json': 'tiny-hf-f16/tokenizer.json',
    'tokenizer_config.json': 'tiny-hf-f16/tokenizer_config.json',
  }
  return files
}

/* Their weights and logits are checked against the reference libraries by tests/c/test_quantized.c. */
for (const layout of ['awq', 'gptq-order', 'int8', 'nvfp4']) {
  test(`a folder with ${layout} weights: a path and files give one model`, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), 'nibl-'))
    t.after(() => rm(folder, { recursive: true }))
    for (const [name, file] of Object.entries(quantizedFiles(layout))) await copyFile(fixture(file), join(folder, name))
    const expected = await hashOf(folder)
    for (const source of [folder, await filesOf(folder)]) {
      for (const options of [{ worker: false }, { early: true }, { quantize: 'q4_0' }]) {
        const hash = await hashOf(source, options)
        assert[options.quantize ? 'notEqual' : 'equal'](hash, expected) // the embedding is still quantized on arrival
      }
      const about = await inspect(source)
      assert.equal(about.unsupported, null)
      assert.equal(about.parameters, 3 * 64 + 272 * 64 * (layout === 'gptq-order' ? 2 : 1) + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128)
      const model = await loadFor(t, source)
      assert.equal(about.plan?.weights, model.stats.memory.weights)
    }
  })
}

test('a split GGUF: a path, a URL with and without ranges, and files', async (t) => {
  const { url } = await serve(t)
  const { url: whole } = await serve(t, { ranges: false })
  const expected = await hashOf(fixture('tiny-llama-f16.gguf'))
  const sources = [fixture(splitNames[0]), `${url}/${splitNames[0]}`, `${whole}/${splitNames[0]}`, await filesOf(fixture(''), splitNames)]
  for (const source of sources) {
    for (const options of [{}, { worker: false }, { early: true }]) assert.equal(await hashOf(source, options), expected)
  }
})

test('a folder that holds a GGUF file, or too many', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nibl-'))
  t.after(() => rm(folder, { recursive: true }))
  await assert.rejects(load(folder), niblError('FILE_FAILED', /neither config\.json nor a GGUF file/))
  for (const name of splitNames) await copyFile(fixture(name), join(folder, name))
  assert.equal(await hashOf(folder), await hashOf(fixture(splitNames[0])))
  await copyFile(fixture('tiny-llama-q4_0.gguf'), join(folder, 'b.gguf'))
  await assert.rejects(load(folder), niblError('BAD_ARGUMENT', /2 models \(b\.gguf, tiny-split/))
})

test('a part that is missing is named', async (t) => {
  const { url } = await serve(t, { without: splitNames[1] })
  const shard = 'tiny-hf-f16/model-00002-of-00003.safetensors'
  const { url: hf } = await serve(t, { without: shard })
  for (const early of [false, true]) {
    const loading = async (/** @type {any} */ source) => {
      const model = await load(source, { early })
      await model.ready.finally(() => model.close())
    }
    await assert.rejects(loading(`${url}/${splitNames[0]}`), /00002-of-00003/)
    await assert.rejects(loading(`${hf}/tiny-hf-f16/`), /model-00002-of-00003/)
    await assert.rejects(loading(await filesOf(fixture(''), [splitNames[0], splitNames[2]])), /00002-of-00003/)
  }
  await assert.rejects(load(await readFile(fixture(splitNames[0]))), niblError('BAD_FILE', /split|part/))
})

test('inspect() reads the headers alone, and plans', async (t) => {
  const server = await serve(t)
  for (const source of [`${server.url}/tiny-hf-f16/`, fixture('tiny-hf-f16'), await filesOf(fixture('tiny-hf-f16'))]) {
    const about = await inspect(source)
    assert.equal(about.architecture, 'llama')
    assert.equal(about.unsupported, null)
    const model = await loadFor(t, source)
    assert.equal(about.plan?.weights, model.stats.memory.weights)
  }
})

test('quantizing on arrival: the bits of a file that was quantized first, and its memory', async () => {
  const expected = await hashOf(fixture('tiny-llama-f16-as-q4_0.gguf'))
  for (const source of [fixture('tiny-llama-f16.gguf'), fixture('tiny-hf-f16'), await readFile(fixture('tiny-llama-f16.gguf'))]) {
    for (const options of [{}, { worker: false }, { early: true }]) {
      assert.equal(await hashOf(source, { ...options, quantize: 'q4_0' }), expected)
    }
    const small = await inspect(source, { quantize: 'Q4_0' })
    const large = await inspect(source)
    const model = await load(source, { quantize: 'q4_0' })
    assert.equal(small.plan?.weights, model.stats.memory.weights)
    assert.ok(model.stats.memory.weights < Number(large.plan?.weights) / 2)
    model.close()
  }
  await assert.rejects(load(fixture('tiny-llama-f16.gguf'), { quantize: 'q9' }), niblError('BAD_ARGUMENT', /'q9'.*q4_0/))
})

// One result everywhere: the logits hash of one computation on every host, instruction set, number of threads and way of
// running. Nothing is compared with a stored value: the first run of each group is what the others must equal, and each
// run must say that the variant it was asked for really ran.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { test } from 'node:test'
import { defaultModel } from '../demo/fetch.js'
import { root } from '../wasm/setup.js'
import { features, isas, json, native, needs, node24 } from './hosts.js'
import { modelUrl, openPage, withBrowser } from './browser/support.js'

const model = relative(root, defaultModel.file)

/** @param {string[]} host @param {string[]} options @param {Record<string, string>} [env] */
const hash = (host, options, env) => json([...host, 'hash', model, '--json', ...options], env)

test('512 prefilled and 64 decoded: native, every instruction set and way of running', (t) => {
  const expected = hash([native], []).hash
  for (const isa of isas) {
    if (needs[isa] && !features.includes(needs[isa])) {
      t.diagnostic(`${isa}: not on this CPU`)
      continue
    }
    const got = hash([native], ['-t', '2'], { NIBL_ISA: isa })
    assert.equal(got.isa.split(' ')[0], isa)
    assert.equal(got.hash, expected, isa)
  }
  for (const options of ['-t 1', '-t 2', '-t 3', '--chunk 1', '--chunk 7', '--chunk 64', '--chunk 512', '--reuse', '--batch',
    '--batch --reuse -t 3 --chunk 7']) {
    assert.equal(hash([native], options.split(' ')).hash, expected, options)
  }
})

test('every type of KV cache: native, instruction sets and threads', () => {
  for (const type of ['i8', 'f16', 'f32']) {
    const options = ['--prefill', '200', '--decode', '8', '-ctk', type, '-ctv', type]
    const expected = hash([native], [...options, '-t', '1']).hash
    for (const isa of isas.filter((name) => !needs[name] || features.includes(needs[name])))
      for (const threads of ['1', '3'])
        assert.equal(hash([native], [...options, '-t', threads], { NIBL_ISA: isa }).hash, expected, `${type} ${isa} ${threads}`)
  }
})

const short = ['--prefill', '16', '--decode', '8']

test('16 prefilled and 8 decoded: ARM under qemu', () => {
  const expected = hash([native], short).hash
  for (const isa of ['i8mm', 'dotprod', 'neon', 'scalar']) {
    const got = hash(['qemu-aarch64', 'build/aarch64/nibl'], [...short, '-t', '1'], { NIBL_ISA: isa })
    assert.equal(got.isa.split(' ')[0], isa)
    assert.equal(got.hash, expected, isa)
  }
})

test('512 prefilled and 64 decoded: WASI, SIMD128 and relaxed, under wasmtime and node:wasi', () => {
  const expected = hash([native], []).hash
  for (const [preset, isa] of /** @type {[string, RegExp][]} */ ([['wasi', /^wasmsimd /], ['wasi-relaxed', /^wasm(relaxed|pairs) /]])) {
    const module = `build/${preset}/nibl.wasm`
    for (const host of [['python3', 'wasm/run-wasi.py', '--module', module], [node24, '--no-warnings', 'wasm/node-wasi.js', module]]) {
      const got = hash(host, [])
      assert.match(got.isa, isa)
      assert.equal(got.hash, expected, host.join(' '))
    }
  }
})

// ---- The JavaScript layer takes text; the native command runs the same ------------------------------------------------

const prompt = readFileSync(join(root, 'README.md'), 'utf8').slice(0, 2000)
const script = join(root, 'build/one-result.mjs')
const promptFile = join(root, 'build/one-result-prompt.txt')
const tokens = 64

function nativeAnswer() {
  writeFileSync(promptFile, prompt)
  const got = json([native, 'run', model, '--no-chat', '-f', promptFile, '-n', String(tokens), '--temp', '0', '--json', '--logits-hash'])
  assert.ok(got.prompt_tokens >= 512, `the prompt has ${got.prompt_tokens} tokens, 512 are wanted`)
  assert.equal(got.generated_tokens, tokens)
  return got.logits_hash
}

/** Binaries and threads that both Node 24 and Chromium can run. */
const ways = [{ binary: 'simd128', threads: 1 }, { binary: 'relaxed', threads: 1 }, { binary: 'simd128', threads: 2 },
  { binary: 'relaxed', threads: 2 }, { binary: 'relaxed', threads: 3, chunk: 7 }]

/** What runs under Node and in the page, as text. @param {any} load @param {string} source @param {string} prompt @param {any} way @param {number} maxTokens */
async function generate(load, source, prompt, way, maxTokens) {
  const model = await load(source, way)
  for await (const piece of model.generate(prompt, { maxTokens, temperature: 0 })) void piece
  const { binary, threads } = model.info
  const { hash } = model.stats
  await model.close()
  return { binary, threads, hash }
}

/** @param {{ binary: string, threads: number, hash: string }} got @param {{ binary: string, threads: number }} way @param {string} expected */
function check(got, way, expected) {
  assert.equal(got.binary, way.binary + (way.threads > 1 ? '-threads' : ''))
  assert.equal(got.threads, way.threads)
  assert.equal(got.hash, expected, JSON.stringify(way))
}

test('a text of more than 512 tokens: Node', () => {
  const expected = nativeAnswer()
  for (const way of ways) {
    const program = `import { load } from 'nibl'\nimport { readFileSync } from 'node:fs'\n${generate}\n` +
      `console.log(JSON.stringify(await generate(load, ${JSON.stringify(defaultModel.file)}, readFileSync(${JSON.stringify(promptFile)}, 'utf8'), ` +
      `${JSON.stringify(way)}, ${tokens})))`
    writeFileSync(script, program)
    check(json([node24, script]), way, expected)
  }
})

withBrowser()

test('a text of more than 512 tokens: Chromium', async (t) => {
  const expected = nativeAnswer()
  const { page } = await openPage(t, 'tests/blank.html')
  for (const way of ways) {
    const got = await page.evaluate(`import('/web/nibl.js').then(({ load }) => (${generate})(load, '/${modelUrl}', ` +
      `${JSON.stringify(prompt)}, ${JSON.stringify(way)}, ${tokens}))`)
    check(/** @type {any} */ (got), way, expected)
  }
})

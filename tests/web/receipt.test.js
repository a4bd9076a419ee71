/** Receipts: made under Node and by the native program, repeated by both; what was changed is found, what is none is refused. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, test } from 'node:test'
import { verify } from 'nibl'
import { faultyServer } from './faulty-server.js'
import { answer, fromRoot, loadFor, niblError, tinyBytes, tinyPath } from './support.js'

const folder = mkdtempSync(join(tmpdir(), 'nibl-receipt-'))
after(() => rmSync(folder, { recursive: true }))

const split = fromRoot('tests/fixtures/tiny-split-00001-of-00003.gguf')
const version = JSON.parse(readFileSync(fromRoot('package.json'), 'utf8')).version
const sha256 = (/** @type {Uint8Array} */ bytes) => createHash('sha256').update(bytes).digest('hex')

/** @param {string[]} args */
function native(...args) {
  const { status, stdout, stderr } = spawnSync(process.env.NIBL_CLI ?? fromRoot('build/native/nibl'), args, { encoding: 'utf8' })
  return { status, stdout, stderr }
}

/** @param {any} receipt an object, or text */
function file(receipt) {
  const path = join(folder, 'receipt.json')
  writeFileSync(path, typeof receipt === 'string' ? receipt : JSON.stringify(receipt))
  return path
}

/** Both say so. @param {any} receipt @param {string} model @param {object} [expected] of the difference */
async function bothSay(receipt, model, expected) {
  const here = await verify(JSON.parse(JSON.stringify(receipt)), model)
  const there = native('verify', file(receipt), model, '--json')
  const said = JSON.parse(there.stdout || 'null')
  assert.equal(here.equal, !expected, JSON.stringify(here))
  assert.deepEqual([there.status, said?.equal], [expected ? 1 : 0, !expected], there.stderr + there.stdout)
  if (!expected) return assert.deepEqual([here.hash, here.tokens, here.identified], [said.hash, said.tokens, said.identified])
  for (const difference of [here.difference, said.difference]) {
    for (const [name, value] of Object.entries(expected)) assert.equal(difference[name], value, JSON.stringify(difference))
  }
}

/** @type {[string, any, any][]} name, prompt, options of generate() */
const answers = [
  ['text, greedy', 'Hello', { maxTokens: 9 }],
  ['a conversation, sampled', [{ role: 'user', content: 'Grüße "quoted" \\ 🙂\n' }], { maxTokens: 12, temperature: 1.1, topK: 30, topP: 0.9, minP: 0.01, repeatPenalty: 1.2, seed: 2 ** 40 + 7 }],
  ['biases and until the end', 'Hello', { logitBias: { 100: 3.5, 101: -Infinity }, maxTokens: 5, temperature: 0.5 }],
  ['a schema', 'Hello', { schema: { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] }, maxTokens: 40, temperature: 1 }],
  ['a grammar', 'Hello', { grammar: 'root ::= "yes" | "no"', maxTokens: 8 }],
]

test('made here: the native program and JavaScript come to the same hash', async (t) => {
  const model = await loadFor(t, tinyPath, { contextLength: 256, kv: 'f16' })
  await assert.rejects(model.receipt(), niblError('BAD_ARGUMENT', /no answer/))
  for (const [name, prompt, options] of answers) {
    await answer(model, prompt, options)
    const receipt = await model.receipt()
    assert.equal(receipt.hash, model.stats.hash, name)
    assert.deepEqual(receipt.model.files, [{ name: basename(tinyPath), size: tinyBytes.length, sha256: sha256(tinyBytes) }])
    assert.deepEqual([receipt.nibl, receipt.settings.kv, receipt.seed], [version, 'f16', model.stats.seed])
    await bothSay(receipt, tinyPath)
  }
  /* An earlier answer has its own. */
  const { stats } = model
  await answer(model, 'Something else', { maxTokens: 2 })
  assert.notEqual((await model.receipt(stats)).hash, (await model.receipt()).hash)
})

test('stopped by a text, by the reader, and cut inside a character', async (t) => {
  const model = await loadFor(t, tinyPath)
  const text = await answer(model, 'Hello', { maxTokens: 30 })
  const stop = [...text].slice(4, 7).join('')
  await answer(model, 'Hello', { stop, maxTokens: 30 })
  const stopped = await model.receipt()
  assert.deepEqual([stopped.finish, stopped.text], ['stop', text.slice(0, text.indexOf(stop))])
  await bothSay(stopped, tinyPath)
  /* On this thread: a worker may be done with all before an abort gets there. */
  const here = await loadFor(t, tinyPath, { worker: false })
  let count = 0
  for await (const _ of here.generate('Hello', { maxTokens: 400 })) if (++count === 5) break
  while (!here.stats.hash) await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(here.stats.finish, 'abort')
  await bothSay(await here.receipt(), tinyPath)
  for (let maxTokens = 1; maxTokens < 6; maxTokens++) {
    await answer(model, 'Hello', { maxTokens, temperature: 2, seed: 3 })
    await bothSay(await model.receipt(), tinyPath)
  }
})

test('split files, weights quantized on arrival, a model that was downloaded', async (t) => {
  const parts = await loadFor(t, split)
  await answer(parts, 'Hello', { maxTokens: 4 })
  const receipt = await parts.receipt()
  assert.equal(receipt.model.files.length, 3)
  assert.ok(receipt.model.files.every(({ sha256 }) => sha256))
  await bothSay(receipt, split)
  await bothSay({ ...receipt, model: { ...receipt.model, files: receipt.model.files.with(2, { ...receipt.model.files[2], sha256: '0'.repeat(64) }) } }, split, { what: 'model', at: 2 })
  const float = fromRoot('tests/fixtures/tiny-llama-f16.gguf')
  const quantized = await loadFor(t, float, { quantize: 'q4_0' })
  await answer(quantized, 'Hello', { maxTokens: 4 })
  await bothSay(await quantized.receipt(), float)
  const server = await faultyServer(tinyBytes)
  t.after(() => server.close())
  const remote = await loadFor(t, server.url)
  await answer(remote, 'Hello', { maxTokens: 4 })
  const unknown = await remote.receipt()
  assert.equal(unknown.model.files[0].sha256, null)
  assert.equal((await verify(unknown, tinyPath)).identified, false)
  await bothSay(unknown, tinyPath)
  const cached = await loadFor(t, server.url, { cache: join(folder, 'cache') })
  await answer(cached, 'Hello', { maxTokens: 4 })
  const { sent } = server
  const known = await cached.receipt()
  assert.equal(known.model.files[0].sha256, sha256(tinyBytes))
  assert.equal(server.sent, sent)
  assert.deepEqual([(await verify(known, server.url)).equal, (await verify(known, server.url)).identified], [true, true])
  const wrong = { ...known, model: { ...known.model, files: [{ ...known.model.files[0], sha256: '1'.repeat(64) }] } }
  assert.deepEqual((await verify(wrong, server.url)).difference, { what: 'model', at: 0, receipt: '1'.repeat(64), here: sha256(tinyBytes) })
})

test('made by the native program', async () => {
  const path = join(folder, 'native.json')
  const [schema, grammar] = ['schema.json', 'grammar.gbnf'].map((name) => join(folder, name))
  writeFileSync(schema, '{"type":"object"}')
  writeFileSync(grammar, 'root ::= [a-z]+')
  for (const args of [
    ['-p', 'Hello', '-n', '8'], ['-p', 'Hello', '--no-chat', '-n', '8', '--ignore-eos', '--repeat-last-n', '3', '--repeat-penalty', '1.3', '-ctk', 'f32', '-ctv', 'f32'],
    ['-p', 'Hello', '-n', '30', '--json-schema', schema], ['-p', 'Hello', '-n', '6', '--grammar', grammar, '-r', 'e', '-c', '100', '--activations', 'f32'],
  ]) {
    const run = native('run', tinyPath, ...args, '--receipt', path, '--json', '--logits-hash')
    assert.equal(run.status, 0, run.stderr)
    const receipt = JSON.parse(readFileSync(path, 'utf8'))
    assert.equal(receipt.hash, JSON.parse(run.stdout).logits_hash)
    assert.equal(receipt.model.files[0].sha256, sha256(tinyBytes))
    await bothSay(receipt, tinyPath)
  }
  assert.equal(native('run', split, '-p', 'a', '-n', '3', '--receipt', path).status, 0)
  await bothSay(JSON.parse(readFileSync(path, 'utf8')), split)
  writeFileSync(join(folder, basename(tinyPath)), tinyBytes)
  assert.equal(native('run', tinyPath, '-p', 'a', '-n', '3', '--receipt', path).status, 0)
  const { stdout } = native('verify', path)
  assert.match(stdout, /^equal: 3 tokens, logits [0-9a-f]{16}, the model's SHA-256\n$/)
  assert.equal(spawnSync(process.execPath, [fromRoot('web/bin/nibl.js'), 'verify', path], { encoding: 'utf8' }).stdout, stdout)
  assert.match(native('help', 'verify').stdout, /^usage: nibl verify RECEIPT \[MODEL\]/)
})

test('whatever is changed is found', async (t) => {
  const model = await loadFor(t, tinyPath)
  await answer(model, 'Hello', { maxTokens: 8, temperature: 1, seed: 11 })
  const receipt = await model.receipt()
  await bothSay({ ...receipt, tokens: receipt.tokens.with(3, receipt.tokens[3] + 1) }, tinyPath, { what: 'tokens', at: 3 })
  await bothSay({ ...receipt, seed: 12 }, tinyPath, { what: 'tokens' })
  await bothSay({ ...receipt, text: `${receipt.text}!` }, tinyPath, { what: 'text' })
  await bothSay({ ...receipt, hash: '0'.repeat(16) }, tinyPath, { what: 'hash', here: receipt.hash })
  await bothSay({ ...receipt, settings: { ...receipt.settings, kv: 'f32' } }, tinyPath, {})
  const { prompt } = receipt
  await bothSay({ ...receipt, prompt: { ...prompt, text: 'Hellp' } }, tinyPath, { what: 'prompt' })
  await bothSay({ ...receipt, prompt: { ...prompt, tokens: prompt.tokens.slice(1) } }, tinyPath, { what: 'prompt' })
  await bothSay(receipt, fromRoot('tests/fixtures/tiny-llama-q4_0.gguf'), { what: 'model' })
})

test('what is no receipt is refused in words, by both', async (t) => {
  const model = await loadFor(t, tinyPath)
  await answer(model, 'Hello', { maxTokens: 2 })
  const good = await model.receipt()
  /** @type {any[]} */
  const hostile = [
    '', '{', '[]', 'null', '7', '{"receipt":2}', JSON.stringify(good).slice(0, -9), '['.repeat(1000),
    { ...good, receipt: '1' }, { ...good, tokens: [] }, { ...good, tokens: ['1'] }, { ...good, tokens: [-1] }, { ...good, tokens: [2 ** 31] },
    { ...good, tokens: [1.5] }, { ...good, prompt: null }, { ...good, prompt: { ...good.prompt, text: 7 } }, { ...good, prompt: { ...good.prompt, bos: 'yes' } },
    { ...good, model: {} }, { ...good, model: { files: [{ name: 'a', size: -1, sha256: null }] } },
    { ...good, model: { files: [{ name: 'a', size: 1, sha256: 'abc' }] } }, { ...good, seed: -1 }, { ...good, seed: 1e300 }, { ...good, seed: '1' },
    { ...good, hash: 'xyz' }, { ...good, hash: 7 }, { ...good, finish: 'maybe' }, { ...good, text: null },
    ...[
      { contextLength: 0 }, { contextLength: 1e12 }, { kv: 'q2' }, { activations: 1 }, { maxTokens: -1 }, { temperature: 1e9 }, { temperature: 'hot' },
      { topP: 2 }, { repeatWindow: 0 }, { stop: 'x' }, { stop: [7] }, { logitBias: [[1]] }, { logitBias: {} }, { logitBias: [['a', 1]] },
      { grammar: { format: 'regex', text: '' } }, { grammar: { format: 'gbnf' } },
    ].map((settings) => ({ ...good, settings: { ...good.settings, ...settings } })),
  ]
  for (const receipt of hostile) {
    const text = typeof receipt === 'string' ? receipt : JSON.stringify(receipt)
    await assert.rejects(verify(text, tinyPath), niblError('BAD_RECEIPT', /^This is no receipt: /), text)
    const { status, stdout, stderr } = native('verify', file(receipt), tinyPath)
    assert.deepEqual([status, stdout], [1, ''], text)
    assert.match(stderr, /^nibl: \S+receipt\.json: is no receipt/, text)
  }
  /* A file that it names is never looked for elsewhere. */
  const climbing = { ...good, model: { ...good.model, files: [{ ...good.model.files[0], name: '../../etc/passwd' }] } }
  assert.match(native('verify', file(climbing)).stderr, /without its folder/)
  /* What its model does not have is an error too, not a crash. */
  await assert.rejects(verify({ ...good, settings: { ...good.settings, grammar: { format: 'gbnf', text: '((' } } }, tinyPath), niblError('BAD_GRAMMAR', /./))
  assert.equal(native('verify', file({ ...good, settings: { ...good.settings, grammar: { format: 'gbnf', text: '((' } } }), tinyPath).status, 1)
  await assert.rejects(verify({ ...good, settings: { ...good.settings, quantize: 'q9' } }, tinyPath), niblError('BAD_ARGUMENT', /./))
})

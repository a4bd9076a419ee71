// `nibl eval`: texts by domain, tasks, and a reference that is kept, against figures from transformers and the definitions
// (tests/fixtures/evaluation.py). NIBL_CLI names another binary than the native build's.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after, test } from 'node:test'
import { makeTasks } from '../bench/tasks.js'
import { fromRoot } from './support.js'

const binary = process.env.NIBL_CLI ?? fromRoot('build/native/nibl')
const fixture = (/** @type {string} */ name) => fromRoot(`tests/fixtures/${name}`)
const oracle = JSON.parse(fs.readFileSync(fixture('evaluation.json'), 'utf8'))
const realModel = fromRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf')
const needsModel = { skip: fs.existsSync(realModel) ? false : 'the default model is not there: run npm start once' }
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'nibl-eval-'))
after(() => fs.rmSync(folder, { recursive: true }))

const exact = ['--activations', 'f32', '-ctk', 'f32', '-ctv', 'f32']
const [reference, model] = ['f16', 'f16-as-q4_0'].map((kind) => fixture(`tiny-llama-${kind}.gguf`))

/** @param {string[]} args */
function run(args) {
  const { status, stdout, stderr } = spawnSync(binary, ['eval', ...args], { encoding: 'utf8', maxBuffer: 1 << 26 })
  return { status, stdout, stderr }
}

/** The JSON lines of a run that must succeed. @param {string[]} args @returns {any[]} */
function json(args) {
  const { status, stdout, stderr } = run([...args, '--json'])
  assert.equal(status, 0, stderr)
  return stdout.trimEnd().split('\n').filter(Boolean).map((line) => JSON.parse(line))
}

/** @param {string[]} args @param {number} status @param {RegExp} message */
function refuse(args, status, message) {
  const result = run(args)
  assert.match(result.stderr, message)
  assert.equal(result.status, status)
}

/** @param {string} name @param {string | Buffer} content */
function file(name, content) {
  const at = path.join(folder, name)
  fs.mkdirSync(path.dirname(at), { recursive: true })
  fs.writeFileSync(at, content)
  return at
}

/** @param {any} got @param {any} expected @param {number} tolerance of each number, relative where it is above 1 */
function near(got, expected, tolerance, where = '') {
  if (typeof expected !== 'object') {
    assert.ok(Math.abs(got - expected) <= tolerance * Math.max(1, Math.abs(expected)), `${where}: ${got}, expected ${expected}`)
    return
  }
  for (const [key, value] of Object.entries(expected)) near(got[key], value, tolerance, `${where}.${key}`)
}

const text = file('domains/prose.txt', oracle.text)
const items = oracle.items.map((/** @type {any} */ item) => `${JSON.stringify(item)}\n`).join('')
const tasks = path.dirname(file('tasks/words.jsonl', items))
const windows = ['-c', String(oracle.window), '--chunks', String(oracle.windows)]

test('a text and a task have the figures of transformers, beside a model and from what it left', () => {
  const kept = path.join(folder, 'tiny.reference')
  const args = ['--domains', path.dirname(text), '--tasks', tasks, ...windows, ...exact]
  const [alone] = json([reference, ...args, '--keep', kept])
  near(alone.perplexity.value, oracle.expected.reference_perplexity, 1e-5)
  const beside = json([model, ...args, '--reference', reference])
  const from = json([model, '--tasks', tasks, ...exact, '--reference', kept])
  for (const [prose, words] of [beside, from]) {
    assert.deepEqual([prose.text, prose.windows, words.task, words.items], ['prose', oracle.windows, 'words', oracle.items.length])
    const { perplexity, reference_perplexity, ...expected } = oracle.expected
    near([prose.perplexity.value, prose.reference_perplexity.value], [perplexity, reference_perplexity], 1e-5)
    near(prose, expected, 2e-5, 'text')
    near(words, oracle.task, 1e-4, 'task')
    assert.equal(words.dropped, true)
  }
  assert.equal(from[0].reference, 'tiny-llama-f16.gguf')
  assert.ok(fs.statSync(kept).size < oracle.windows * (4 * oracle.window + (oracle.window / 2 - 1) * 2568) + 1000)
  const [itself] = json([reference, '--reference', kept, ...exact])
  assert.ok(Math.abs(itself.kl.value) < 1e-7 && itself.same_top.value === 1)
})

test('a kept reference that is damaged, cut or of another model is refused', () => {
  const kept = path.join(folder, 'whole.reference')
  json([reference, '--domains', path.dirname(text), '-c', '16', '--chunks', '2', '--tasks', tasks, '--keep', kept])
  const whole = fs.readFileSync(kept)
  const bad = (/** @type {(bytes: Buffer) => Buffer | void} */ change) => {
    const bytes = Buffer.from(whole)
    return file('bad.reference', change(bytes) ?? bytes)
  }
  refuse([realModel, '--reference', kept].slice(fs.existsSync(realModel) ? 0 : 3), fs.existsSync(realModel) ? 1 : 2, /another vocabulary|MODEL is missing/)
  for (let length = 8; length < whole.length; length += 1 + Math.floor(whole.length / 60)) {
    refuse([model, '--tasks', tasks, '--reference', bad((bytes) => bytes.subarray(0, length))], 1, /ends (too early|within)/)
  }
  refuse([model, '--tasks', tasks, '--reference', bad((bytes) => Buffer.concat([bytes, Buffer.from('x')]))], 1, /1 bytes follow its end/)
  for (const [at, value, message] of /** @type {[number, number, RegExp][]} */ ([
    [12, 2 ** 31, /windows of 2147483648/],
    [24, 2 ** 31, /a name of 2147483648 bytes/],
    [47, 9, /section of kind 9/],
  ])) {
    refuse([model, '--reference', bad((bytes) => void bytes.writeUInt32LE(value, at))], 1, message)
  }
  const tokens = 47 + 4 + 4 + 5
  refuse([model, '--reference', bad((bytes) => void bytes.writeUInt32LE(2 ** 30, tokens))], 1, /ends within the tokens/)
  refuse([model, '--reference', bad((bytes) => void bytes.writeInt32LE(-1, tokens + 4))], 1, /has token 4294967295, but there are/)
  const rows = tokens + 4 + 2 * 16 * 4
  refuse([model, '--reference', bad((bytes) => void bytes.writeFloatLE(NaN, rows))], 1, /probabilities are none/)
  refuse([model, '--reference', bad((bytes) => void bytes.writeUInt32LE(1e6, rows + 8))], 1, /has token 1000000 of/)
  refuse([model, '--reference', kept, '-f', text], 2, /brings its texts/)
  const other = path.dirname(file('other/words.jsonl', items.replace('"answer":0', '"answer":1')))
  refuse([model, '--reference', kept, '--tasks', other], 1, /items are not those of the reference/)
  assert.match(run([model, '--reference', kept]).stderr, /task words of the reference is left out/)
})

test('a fine-tuned model beside its base: what each lost, and the quotient', () => {
  const tuned = path.join(folder, 'tuned.gguf')
  assert.equal(spawnSync(binary, ['quantize', reference, tuned, 'q8_0']).status, 0)
  const args = ['--domains', path.dirname(text), ...windows, ...exact]
  const [alone, base] = [tuned, model].map((quantized) => json([quantized, '--reference', reference, ...args])[0])
  const [both] = json([tuned, '--reference', reference, '--base', model, '--base-reference', reference, ...args])
  const { base: beside, kl_to_base, perplexity_ratio_to_base, ...rest } = both
  assert.deepEqual(rest, alone)
  assert.equal(beside.model, model)
  for (const key of ['perplexity', 'perplexity_ratio', 'kl', 'kl_99', 'same_top']) assert.deepEqual(beside[key], base[key])
  near(kl_to_base.value, alone.kl.value / base.kl.value, 1e-9)
  near(perplexity_ratio_to_base.value, alone.perplexity_ratio.value / base.perplexity_ratio.value, 1e-9)
  assert.ok(kl_to_base.value < 0.1 && kl_to_base.error > 0 && kl_to_base.error < kl_to_base.value)
  const [same] = json([model, '--reference', reference, '--base', model, '--base-reference', reference, ...args])
  assert.deepEqual([same.kl_to_base, same.perplexity_ratio_to_base], [{ value: 1, error: 0 }, { value: 1, error: 0 }])
  assert.match(run([tuned, '--reference', reference, '--base', model, '--base-reference', reference, ...args]).stdout, /mean KLD \/ base's +0\.\d+ +\+- 0\.\d+/)
  const kept = ['a', 'b'].map((name, i) => path.join(folder, `${name}${i}.reference`))
  for (const at of kept) json([reference, ...args, '--keep', at])
  const [saved] = json([tuned, '--reference', kept[0], '--base', model, '--base-reference', kept[1], ...exact])
  near(saved.kl_to_base.value, kl_to_base.value, 1e-4)
  const short = path.join(folder, 'short.reference')
  json([reference, '--domains', path.dirname(text), '-c', '16', '--chunks', '1', '--keep', short])
  refuse([tuned, '--reference', kept[0], '--base', model, '--base-reference', short], 1, /prose is not compared with the base: its tokenizer.*\n.*no text could be compared/)
  refuse([tuned, '--reference', kept[0], '--base', model, '--base-reference', reference], 2, /must both be models, or both files/)
  refuse([tuned, '--reference', reference, '--base', model], 2, /go together/)
  refuse([tuned, '--base', model, '--base-reference', reference], 2, /go together/)
  refuse([tuned, '--reference', reference, '--base', model, '--base-reference', reference, '--tasks', tasks], 2, /neither with --tasks/)
})

test('tasks and folders that are none are refused', () => {
  for (const [line, message] of /** @type {[string, RegExp][]} */ ([
    ['{"prompt": "a", "choices": ["b"], "answer": 0}', /line 2: must be/],
    ['{"prompt": "", "choices": ["b", "c"], "answer": 0}', /line 2: must be/],
    ['{"prompt": "a", "choices": ["b", "c"], "answer": 2}', /line 2: must be/],
    ['{"prompt": "a", "choices": ["b", "\\ud800"], "answer": 0}', /line 2: must be/],
    ['{"prompt": "a", "choices": "bc", "answer": 0}', /line 2: must be/],
    ['{"prompt"', /line 2: must be/],
  ])) {
    const at = path.dirname(file('wrong/task.jsonl', `${items.split('\n')[0]}\n${line}\n`))
    refuse([model, '--tasks', at], 1, message)
  }
  refuse([model, '--tasks', path.join(folder, 'nowhere')], 1, /nowhere: No such file/)
  fs.mkdirSync(path.join(folder, 'nothing'))
  refuse([model, '--domains', path.join(folder, 'nothing')], 1, /no files in this folder/)
})

test('the tasks that are generated: 500 items at least, all different, answers everywhere', () => {
  const counts = makeTasks(path.join(folder, 'made'))
  assert.deepEqual(Object.keys(counts), ['arithmetic', 'code', 'facts'])
  for (const [name, count] of Object.entries(counts)) {
    assert.ok(count >= 500, `${name}: ${count}`)
    const made = fs.readFileSync(path.join(folder, 'made', `${name}.jsonl`), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line))
    assert.equal(new Set(made.map(({ prompt }) => prompt)).size, count)
    const places = [0, 0, 0, 0]
    for (const { choices, answer } of made) {
      assert.equal(new Set(choices).size, 4, JSON.stringify(choices))
      places[answer]++
    }
    assert.ok(Math.min(...places) > count / 6, `${name}: ${places}`)
  }
})

test('what quantization calibrates with by default is none of the texts that judge it', async () => {
  const { default: seen } = await import('../../web/calibration.js')
  const runs = (/** @type {string} */ text) => {
    const words = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? []
    return words.slice(7).map((_, i) => words.slice(i, i + 8).join(' '))
  }
  const known = new Set(runs(seen))
  assert.ok(known.size > 3000)
  const judges = fromRoot('core/cli/domains')
  for (const name of fs.readdirSync(judges)) {
    const shared = runs(fs.readFileSync(path.join(judges, name), 'utf8')).filter((run) => known.has(run))
    assert.deepEqual(shared, [], name)
  }
})

test('the default texts, by domain; conversations through the chat template', needsModel, () => {
  const names = json([realModel, '--chunks', '1', '-c', '64'])
  assert.deepEqual(names.map(({ text }) => text), ['arithmetic', 'chat', 'code', 'languages', 'prose'])
  for (const { text, perplexity } of names) assert.ok(perplexity.value > 1 && perplexity.value < 1000, `${text}: ${perplexity.value}`)
})

test('a kept reference of a large vocabulary: another KV cache is near, itself is nearer', needsModel, () => {
  const kept = path.join(folder, 'real.reference')
  json([realModel, '-f', fromRoot('core/cli/domains/prose.txt'), '-c', '64', '--chunks', '2', '--keep', kept])
  const [itself] = json([realModel, '--reference', kept])
  const [other] = json([realModel, '--reference', kept, '-ctk', 'f16', '-ctv', 'f16'])
  assert.ok(Math.abs(itself.kl.value) < 1e-6 && itself.same_top.value === 1, `${itself.kl.value}`)
  assert.ok(other.kl.value > 1e-6 && other.kl.value < 5e-3, `${other.kl.value}`)
})

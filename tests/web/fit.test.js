/** `nibl fit` and fit(): the memory that loads really take, from a header or a config.json alone; the choice. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fit, inspect, quantize } from 'nibl'
import { fromRoot, niblError, tinyPath } from './support.js'

const binary = process.env.NIBL_CLI ?? fromRoot('build/native/nibl')
const folder = fromRoot('tests/fixtures/tiny-hf-f16')
const config = join(folder, 'config.json')
const place = mkdtempSync(join(tmpdir(), 'nibl-fit-'))
after(() => rmSync(place, { recursive: true }))

/** @param {string[]} args */
function run(args) {
  const { status, stdout, stderr } = spawnSync(binary, ['fit', ...args], { encoding: 'utf8' })
  return { status, stdout, stderr }
}

/** @param {string[]} args */
function json(args) {
  const { status, stdout, stderr } = run([...args, '--json'])
  assert.equal(status, 0, stderr)
  return JSON.parse(stdout)
}

test('sizes and memory are those of the file that quantize() makes, in C and in JavaScript', async () => {
  const native = json([folder, '--memory', '100MB', '-c', '256'])
  const ours = await fit(`${folder}/`, { memory: 1e8, contextLength: 256, threads: 1 })
  assert.equal(ours.recipes.length, native.recipes.length)
  for (const [i, { type, method, fileBytes, plans, loss, kvOutgrowsWeightsAt }] of ours.recipes.entries()) {
    const theirs = native.recipes[i]
    assert.deepEqual([type ?? 'as it is', method ?? undefined, fileBytes], [theirs.type, theirs.method, theirs.file_bytes])
    assert.deepEqual(loss?.kl, theirs.loss && Object.values(theirs.loss.kl))
    assert.deepEqual([plans.i8.weights, plans.i8.kv, plans.f16.kv], [theirs.weights, theirs.kv.i8, theirs.kv.f16])
    assert.ok(Math.abs(kvOutgrowsWeightsAt - theirs.kv_outgrows_weights_at) < 1e-3)
    if (!type) continue
    const { size, blob } = await quantize(`${folder}/`, { type })
    assert.equal(fileBytes, size)
    const { plan } = await inspect(/** @type {Blob} */ (blob), { contextLength: 256, threads: 1 })
    assert.deepEqual(plan && [plan.weights, plan.kv, plan.memory], [plans.i8.weights, plans.i8.kv, plans.i8.memory])
  }
  assert.equal(ours.choice?.type, null)
  assert.equal(native.choice, 0)
})

test('config.json alone: the weights of the folder; the least loss that fits is chosen', async () => {
  const whole = json([folder, '--memory', '1GB'])
  const alone = json([config, '--memory', '1GB'])
  assert.deepEqual(alone.recipes.map((/** @type {any} */ r) => r.weights), whole.recipes.map((/** @type {any} */ r) => r.weights))
  assert.equal(alone.parameters, whole.parameters)
  const copy = join(place, 'config.json')
  writeFileSync(copy, readFileSync(config))
  assert.deepEqual({ ...json([place, '--memory', '1GB']), model: config }, alone)
  const ours = await fit(copy, { threads: 1 })
  assert.deepEqual(ours.recipes.map(({ plans }) => plans.f32.weights), alone.recipes.map((/** @type {any} */ r) => r.weights))
  const needed = alone.recipes.map((/** @type {any} */ r) => r.total.i8)
  for (const [index, bytes] of needed.entries()) {
    const { choice, recipes } = json([config, '--memory', String(bytes)])
    assert.equal(choice, needed.findIndex((/** @type {number} */ other) => other <= bytes))
    assert.ok(recipes[index].fits && recipes[index].longest_context >= alone.context_length)
  }
  assert.equal(json([config, '--memory', String(Math.min(...needed) - 1)]).choice, undefined)
})

test('a published configuration: Llama 3.2 1B has its parameters, and a known KV cache', () => {
  const llama = {
    model_type: 'llama', hidden_size: 2048, num_hidden_layers: 16, num_attention_heads: 32, num_key_value_heads: 8, intermediate_size: 8192,
    vocab_size: 128256, max_position_embeddings: 131072, rms_norm_eps: 1e-5, rope_theta: 500000, hidden_act: 'silu', tie_word_embeddings: true, head_dim: 64,
  }
  const at = join(place, 'llama')
  spawnSync('mkdir', [at])
  writeFileSync(join(at, 'config.json'), JSON.stringify(llama))
  const fitting = json([at, '--memory', '4GB', '-c', '8192'])
  assert.equal(fitting.parameters, 1_235_814_400) /* as its model card has it: 1.23 billion */
  assert.equal(fitting.recipes[0].kv.f16, 8192 * 16 * 8 * 64 * 2 * 2)
  assert.equal(fitting.recipes[0].weights, 2 * 1_235_814_400 + 2 * 33 * 2048) /* norms are kept in 32 bits */
  for (const [change, message] of /** @type {[any, RegExp][]} */ ([
    [{ vocab_size: -1 }, /vocab_size is missing or not a possible number/],
    [{ num_hidden_layers: 4e9 }, /layers|block_count/],
    [{ quantization_config: { quant_method: 'awq' } }, /alone does not tell the tensors/],
    [{ model_type: 'other' }, /'other' is not supported/],
  ])) {
    writeFileSync(join(at, 'config.json'), JSON.stringify({ ...llama, ...change }))
    const { status, stderr } = run([at, '--memory', '4GB'])
    assert.equal(status, 1)
    assert.match(stderr, message)
  }
})

test('what is quantized already has no recipes; sizes that are none are refused', async () => {
  const { recipes, note, choice } = await fit(tinyPath)
  assert.equal(recipes.length, 1)
  assert.equal(choice, recipes[0])
  assert.match(note ?? '', /is Q4_1 already/)
  assert.match(json([tinyPath, '--memory', '1GB']).note, /is Q4_1 already/)
  for (const memory of ['', 'x', '4XB', '-1', '0', '1e30GB']) assert.equal(run([tinyPath, '--memory', memory]).status, 2, memory)
  for (const [memory, bytes] of /** @type {[string, number][]} */ ([['4GB', 4e9], ['1.5 GiB', 1.5 * 2 ** 30], ['800M', 800 * 2 ** 20], ['5000', 5000]])) {
    assert.equal(json([tinyPath, '--memory', memory]).memory, bytes)
  }
  await assert.rejects(fit(tinyPath, { memory: 0 }), niblError('BAD_ARGUMENT', /"memory" must be a number/))
})

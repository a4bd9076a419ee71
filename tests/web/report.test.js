/** The report: from what the command writes to one page that needs nothing else; recipes that go round. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { quantize } from 'nibl'
import { mergeReport, reportHtml } from '../../web/report.js'
import { fromRoot } from './support.js'

const binary = process.env.NIBL_CLI ?? fromRoot('build/native/nibl')
const f16 = fromRoot('tests/fixtures/tiny-llama-f16.gguf')
const place = mkdtempSync(join(tmpdir(), 'nibl-report-'))
after(() => rmSync(place, { recursive: true }))
const at = (/** @type {string} */ name) => join(place, name)

/** @param {string[]} args */
function nibl(args) {
  const { status, stdout, stderr } = spawnSync(binary, args, { encoding: 'utf8' })
  return { status, stdout, stderr }
}

/** @param {string[]} args */
function report(args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [fromRoot('web/bin/nibl.js'), 'report', ...args], { encoding: 'utf8' })
  return { status, stdout, stderr }
}

const calibration = at('text.txt')
writeFileSync(calibration, 'There is the other thing: it is in the mind and on the water. '.repeat(60))

test('a calibrated quantization and its evaluation become a page', () => {
  const [out, json, html] = [at('small & <b>.gguf'), at('quantize.json'), at('out.html')]
  const made = nibl(['quantize', f16, out, 'q4_0', '--method', 'awq,gptq', '--calibration', calibration, '--report', json])
  assert.equal(made.status, 0, made.stderr)
  assert.ok(made.stdout.trimEnd().split('\n').length <= 10)
  assert.match(made.stdout, /rounding changed matrices by \d+\.\d % on average, blk\.\d\.\S+ most/)
  assert.match(made.stdout, /the channel that stands out most: \d+ of the input of blk\./)
  const whole = JSON.parse(readFileSync(json, 'utf8'))
  const { quantization } = whole
  assert.match(whole.command, /^nibl quantize .* '.*small & <b>\.gguf' q4_0 --method awq,gptq/)
  assert.deepEqual(quantization.recipe, { type: 'Q4_0', embedding: 'Q8_0', head: 'Q8_0', tensors: [], method: 'awq,gptq' })
  for (const { name, to, rows, error } of quantization.tensors) {
    if (rows === 1) assert.equal(error, undefined)
    else if (to === 'Q4_0') assert.ok(error > 0.02 && error < 0.3, `${name}: ${error}`)
    else assert.ok(error < 0.02, `${name}: ${error}`)
  }
  assert.equal(quantization.inputs.length, 4 * quantization.tensors.filter((/** @type {any} */ t) => /attn_q/.test(t.name)).length)
  for (const { channels, median } of quantization.inputs) {
    const magnitudes = channels.map((/** @type {number[]} */ [, magnitude]) => magnitude)
    assert.deepEqual(magnitudes, magnitudes.toSorted((/** @type {number} */ a, /** @type {number} */ b) => b - a))
    assert.equal(new Set(channels.map((/** @type {number[]} */ [channel]) => channel)).size, 4)
    assert.ok(magnitudes[3] >= median && median > 0)
  }
  const eval_ = nibl(['eval', out, '-f', `tiny=${calibration}`, '-c', '64', '--reference', f16, '--json'])
  assert.equal(eval_.status, 0, eval_.stderr)
  writeFileSync(at('eval.json'), eval_.stdout)
  const page = report([json, at('eval.json'), '-o', html])
  assert.equal(page.status, 0, page.stderr)
  const text = readFileSync(html, 'utf8')
  assert.ok(text.length < 100_000)
  assert.doesNotMatch(text, /(src|href)=|@import|url\(|https?:/)
  assert.ok(text.includes('<h1>small &amp; &lt;b&gt;.gguf</h1>') && !text.includes('<b>.gguf'))
  for (const part of ['What was lost, by domain', 'Where the bits went', 'Error by layer', 'Channels that carry most', '>tiny<']) assert.ok(text.includes(part), part)
  const data = /id="data">(.*?)<\/script>/s.exec(text)?.[1] ?? ''
  assert.deepEqual(JSON.parse(data).quantization, quantization)
})

test('what rounding lost is what the file says', async () => {
  const { report, blob } = await quantize(f16, { type: 'q4_0', embedding: 'q4_0', measure: true, threads: 1 })
  const { tensors, recipe } = report
  assert.equal(recipe.type, 'Q4_0')
  const native = at('native.json')
  assert.equal(nibl(['quantize', f16, at('native.gguf'), 'q4_0', '--embedding', 'q4_0', '--report', native]).status, 0)
  assert.deepEqual(tensors, JSON.parse(readFileSync(native, 'utf8')).quantization.tensors)
  /* Q4_0 decoded by hand: per 32 a float16 and 16 bytes of two codes. */
  const small = Buffer.from(await /** @type {Blob} */ (blob).arrayBuffer())
  const large = readFileSync(f16)
  const name = 'blk.0.attn_q.weight'
  const inspect = (/** @type {string} */ path) => JSON.parse(nibl(['inspect', path, '--json']).stdout).model.tensors.find((/** @type {any} */ t) => t.name === name)
  const [a, b] = [inspect(f16), inspect(at('native.gguf'))]
  let [changed, weights] = [0, 0]
  for (let i = 0; i < a.shape[0] * a.shape[1]; i++) {
    const block = b.offset + 18 * Math.floor(i / 32)
    const byte = small[block + 2 + (i % 16)]
    const code = i % 32 < 16 ? byte & 15 : byte >> 4
    const x = half(large.readUInt16LE(a.offset + 2 * i))
    changed += (half(small.readUInt16LE(block)) * (code - 8) - x) ** 2
    weights += x * x
  }
  const told = tensors.find((tensor) => tensor.name === name)?.error ?? 0
  assert.ok(Math.abs(told - Math.sqrt(changed / weights)) < 1e-5, `${told}, ${Math.sqrt(changed / weights)}`)
})

/** @param {number} bits of a float16 */
function half(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024))
}

test('a recipe is data: a file made by options and by the recipe that it carries is the same', () => {
  const [first, second, third, json] = ['first.gguf', 'second.gguf', 'third.gguf', 'recipe.json'].map(at)
  const options = ['--type', 'q5_0', '--head', 'f16', '--tensor', 'blk.0.*_down.weight=q8_0', '--method', 'clip']
  assert.equal(nibl(['quantize', f16, first, ...options, '--report', json]).status, 0)
  assert.equal(nibl(['quantize', f16, second, '--recipe', json]).status, 0)
  assert.ok(readFileSync(first).equals(readFileSync(second)))
  writeFileSync(at('bare.json'), JSON.stringify(JSON.parse(readFileSync(json, 'utf8')).quantization.recipe))
  assert.equal(nibl(['quantize', f16, third, '--recipe', at('bare.json')]).status, 0)
  assert.ok(readFileSync(first).equals(readFileSync(third)))
  for (const [text, message] of /** @type {[string, RegExp][]} */ ([
    ['', /is no recipe/], ['[]', /is no recipe/], ['{"type": 4}', /a recipe has/], ['{"typ": "q4_0"}', /a recipe has/], ['{"tensors": [["a"]]}', /a recipe has/],
    ['{"tensors": [["a", "q4_0", "b"]]}', /a recipe has/], ['{"tensors": {"a": "b"}}', /a recipe has/], ['{"type": "q9"}', /'q9'; possible are/], ['{"tensors": [["nothing", "q4_0"]]}', /'nothing' is the name of no tensor/],
  ])) {
    writeFileSync(at('wrong.json'), text)
    const { status, stderr } = nibl(['quantize', f16, at('none.gguf'), '--recipe', at('wrong.json')])
    assert.match(stderr, message)
    assert.equal(status, 1)
  }
  assert.match(nibl(['quantize', f16, at('none.gguf'), 'q4_0', '--recipe', json]).stderr, /are not for it/)
})

test('reports that are none, and bad usage', () => {
  assert.equal(report([]).status, 2)
  assert.equal(report(['--help']).status, 0)
  assert.equal(report([at('missing.json'), '-o', '-']).status, 1)
  writeFileSync(at('text.json'), '{"a": 1}\n{')
  assert.match(report([at('text.json'), '-o', '-']).stderr, /line 2/)
  assert.throws(() => mergeReport([{ a: 1 }]), /none that nibl writes/)
  assert.match(reportHtml(mergeReport([])), /<h1>Evaluation<\/h1>/)
})

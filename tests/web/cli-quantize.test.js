// `nibl quantize` as its users meet it: what it says, what it refuses, and that a file is whole or not there at all.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { readGguf } from '../bench/gguf.js'
import { makeUp } from '../made-up-model.js'
import { binary, file, fixture, folder, json, refuse, succeed, tiny } from './command.js'

describe('quantize', () => {
  const out = path.join(folder, 'quantized.gguf')
  const leftovers = () => fs.readdirSync(folder).filter(name => name.startsWith('quantized.gguf'))

  test('makes a file that loads, says what it did, and leaves nothing else', () => {
    const { stdout } = succeed(['quantize', fixture('tiny-llama-f16.gguf'), out, '--embedding', 'q4_0'])
    assert.match(stdout, /quantized\.gguf: 0\.1 MB from 0\.3 MB, 4\.\d{3} bits per weight/)
    assert.deepEqual(leftovers(), ['quantized.gguf'])
    const hash = (/** @type {string} */ model) => json(['hash', model, '--prefill', '20', '--decode', '4'])[0].hash
    assert.equal(hash(out), hash(fixture('tiny-llama-f16-as-q4_0.gguf')))
  })

  test('takes a folder, standard input, types by place and by name, and tells exceptions', () => {
    const source = fixture('tiny-hf-f16')
    const [{ tensors }] = json(['quantize', source, out, 'Q5_1', '--head=f16', '--tensor', 'blk.0.*_down.weight=q8_0'])
    const to = (/** @type {string} */ name) => tensors.find((/** @type {any} */ tensor) => tensor.name === name).to
    assert.deepEqual(['blk.0.ffn_down.weight', 'blk.1.ffn_down.weight', 'blk.1.attn_norm.weight'].map(to), ['Q8_0', 'Q5_1', 'F32'])
    const input = fs.readFileSync(fixture('tiny-llama-bf16.gguf'))
    const { stdout } = succeed(['quantize', '-', '--type', 'q4_k', '-o', out], input)
    assert.match(stdout, /Q5_0 \(96 columns are no multiple of 256\)/)
    assert.equal(stdout.trimEnd().split('\n').length, 3)
  })

  test('refuses what it cannot do, and leaves what was there', () => {
    fs.writeFileSync(out, 'old')
    const source = fixture('tiny-llama-f16.gguf')
    refuse(['quantize', source], 2, /OUT is missing/)
    refuse(['quantize', source, out, 'q4_0', 'more'], 2, /one too many/)
    refuse(['quantize', source, out, '--tensor', 'a'], 2, /PATTERN=TYPE/)
    refuse(['quantize', source, out, 'q9'], 1, /'q9'; possible are: f32, /)
    refuse(['quantize', tiny, out], 1, /is Q4_1 already/)
    refuse(['quantize', source, path.join(folder, 'none', 'x.gguf')], 1, /No such file/)
    const spoilt = file('spoilt.gguf', (() => {
      const bytes = fs.readFileSync(source)
      bytes.fill(0xff, bytes.length - 4000, bytes.length - 3990)
      return bytes
    })())
    refuse(['quantize', spoilt, out], 1, /tensor '.*', row \d+: a value is infinite or NaN/)
    const cut = file('cut.gguf', fs.readFileSync(source).subarray(0, 150000))
    refuse(['quantize', cut, out], 1, /ends/)
    assert.equal(fs.readFileSync(out, 'utf8'), 'old')
    assert.deepEqual(leftovers(), ['quantized.gguf'])
    if (fs.existsSync('/dev/full')) refuse(['quantize', source, '/dev/full'], 1, /No space left/)
  })
})

test('quantize with a calibration text', () => {
  const out = path.join(folder, 'calibrated.gguf')
  const text = file('calibration.txt', 'The reef is in the north. '.repeat(20))
  const { stderr, stdout } = succeed(['quantize', fixture('tiny-llama-f16.gguf'), out, '--method', 'awq,gptq', '--calibration', text])
  assert.match(stderr, /only \d+ tokens/)
  assert.match(stdout, /bits per weight/)
  const [{ types }] = [json(['inspect', out])[0].model]
  assert.deepEqual(Object.keys(types).sort(), ['F32', 'Q4_0', 'Q8_0'])
  json(['hash', out, '--prefill', '20', '--decode', '4'])
  const own = succeed(['quantize', fixture('tiny-llama-f16.gguf'), out, '--method', 'gptq', '--calibration-tokens', '600'])
  assert.match(own.stderr, /calibrated with a small text of the command's own/)
  refuse(['quantize', fixture('tiny-llama-f16.gguf'), out, '--method', 'gptq', '--calibration', path.join(folder, 'none')], 1, /No such file/)
})

test('a text without words is no calibration, one in another language is', () => {
  const out = path.join(folder, 'languages.gguf')
  const args = ['quantize', fixture('tiny-llama-f16.gguf'), out, '--method', 'awq,gptq', '--calibration']
  refuse([...args, file('empty.txt', '')], 1, /empty\.txt: there is no text to calibrate with/)
  assert.ok(!fs.existsSync(out))
  for (const text of ['这是一个测试。你好世界，今天天气很好。', '\n', Buffer.from(Uint8Array.from({ length: 500 }, (_, i) => (i * i * 89) >> 3))]) {
    succeed([...args, file('text.txt', text)])
    json(['hash', out, '--prefill', '20', '--decode', '4'])
  }
})

/** A GGUF file as llama-imatrix makes it: of each tensor sums of squares and counts. @param {[string, number[], number][]} tensors */
function imatrixFile(tensors, kind = 'imatrix') {
  const number = (/** @type {number} */ value, /** @type {4 | 8} */ bytes) => {
    const out = Buffer.alloc(bytes)
    out.writeUInt32LE(value)
    return out
  }
  const string = (/** @type {string} */ text) => Buffer.concat([number(text.length, 8), Buffer.from(text)])
  const head = [Buffer.from('GGUF'), number(3, 4), number(2 * tensors.length, 8), number(1, 8), string('general.type'), number(8, 4), string(kind)]
  const data = []
  let at = 0
  for (const [name, sums, count] of tensors) {
    for (const [suffix, values] of /** @type {[string, number[]][]} */ ([['in_sum2', sums], ['counts', [count]]])) {
      head.push(string(`${name}.${suffix}`), number(2, 4), number(values.length, 8), number(1, 8), number(0, 4), number(at, 8))
      const bytes = Buffer.alloc(Math.ceil(values.length / 8) * 32)
      values.forEach((value, i) => bytes.writeFloatLE(value, 4 * i))
      data.push(bytes)
      at += bytes.length
    }
  }
  const header = Buffer.concat(head)
  return Buffer.concat([header, Buffer.alloc(-header.length & 31), ...data])
}

test('weights that lie on a grid already are recovered, or what lies on none is told', () => {
  const [wide, out] = ['wide.gguf', 'recovered.gguf'].map((name) => path.join(folder, name))
  succeed(['quantize', fixture('tiny-llama-q4_1.gguf'), wide, 'f32', '--embedding', 'f32', '--head', 'f32', '--allow-requantize'])
  const { stdout } = succeed(['quantize', wide, out, 'q4_1', '--embedding', 'f32', '--head', 'f32', '--method', 'recover'])
  assert.match(stdout, /14 of 14 tensors lie on their grid and are the same$/m)
  refuse(['quantize', wide, path.join(folder, 'none'), 'q4_0', '--method', 'recover'], 1, /only \d+ of its \d+ groups of weights lie on a grid of Q4_0, but its first row on one of Q4_1/)
  const [{ tensors }] = json(['quantize', wide, out, 'q4_1', '--method', 'recover,clip'])
  const whole = tensors.filter((/** @type {any} */ { groups, recovered }) => groups === recovered)
  assert.ok(whole.length >= 14 && tensors.some((/** @type {any} */ { groups, recovered }) => recovered < groups / 10))
})

test('an imatrix file in place of the text', () => {
  const model = fixture('tiny-llama-f16.gguf')
  const text = file('imatrix.txt', 'The reef is in the north. 12 + 30 = 42. '.repeat(40))
  const [own, once, again] = ['own.imatrix', 'once.gguf', 'again.gguf'].map((name) => path.join(folder, name))
  const { stdout, stderr } = succeed(['imatrix', model, '-f', text, '-o', own, '--tokens', '600'])
  assert.match(stdout, /own\.imatrix: \d+ bytes/)
  assert.equal(stderr, '')
  const [{ model: { metadata, tensors } }] = json(['inspect', own])
  assert.deepEqual([metadata['general.type'], metadata['imatrix.datasets'], metadata['imatrix.chunk_size']], ['imatrix', [text], 512])
  assert.ok(tensors.some((/** @type {any} */ { name }) => name === 'blk.1.ffn_down.weight.counts'))
  for (const method of ['imatrix', 'clip']) {
    succeed(['quantize', model, once, 'q4_0', '--method', method, '--calibration', text, '--calibration-tokens', '600'])
    succeed(['quantize', model, again, 'q4_0', '--method', method, '--imatrix', own])
    assert.deepEqual(fs.readFileSync(again), fs.readFileSync(once))
  }
  const foreign = file('foreign.gguf', imatrixFile([['blk.0.attn_q.weight', Array.from({ length: 96 }, (_, i) => i + 1), 900]]))
  const [{ recipe, tensors: made }] = json(['quantize', model, again, '--imatrix', foreign])
  assert.equal(recipe.method, 'imatrix')
  assert.deepEqual(made.filter((/** @type {any} */ tensor) => tensor.to === 'Q4_0' && !tensor.uncalibrated).map((/** @type {any} */ { name }) => name), ['blk.0.attn_q.weight'])
  assert.match(succeed(['quantize', model, again, '--imatrix', foreign]).stdout, /14 tensors: the imatrix file tells nothing of token_embd\.weight and others/)
})

/** Tensors of F32 of a GGUF file. @param {string} at @returns {Map<string, Float32Array>} */
function floatsOf(at) {
  const bytes = fs.readFileSync(at)
  const [{ model }] = json(['inspect', at])
  return new Map(model.tensors.map((/** @type {any} */ { name, offset, bytes: length }) => [name, new Float32Array(bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + offset + length))]))
}

test('the sums of an imatrix file are those of transformers', () => {
  const { text, tokens, sums } = JSON.parse(fs.readFileSync(fixture('imatrix.json'), 'utf8'))
  const out = path.join(folder, 'sums.gguf')
  succeed(['imatrix', fixture('tiny-llama-f16.gguf'), out, file('sums.txt', text), '--tokens', String(tokens)])
  const found = floatsOf(out)
  for (const [name, expected] of Object.entries(sums)) {
    assert.deepEqual([...(found.get(`${name}.counts`) ?? [])], [tokens])
    const got = found.get(`${name}.in_sum2`) ?? []
    assert.equal(got.length, expected.length)
    /* the first layer's inputs are exact; what follows is computed with activations of 8 bits */
    const tolerance = name === 'blk.0.attn_q.weight' ? 1e-5 : 0.03
    const total = expected.reduce((/** @type {number} */ sum, /** @type {number} */ x) => sum + x, 0)
    const off = expected.reduce((/** @type {number} */ sum, /** @type {number} */ x, /** @type {number} */ i) => sum + Math.abs(got[i] - x), 0)
    assert.ok(off < tolerance * total, `${name}: ${off / total}`)
  }
})

test('imatrix files that cannot be, and what they cannot do', () => {
  const model = fixture('tiny-llama-f16.gguf')
  const out = path.join(folder, 'refused.gguf')
  const sums = Array.from({ length: 96 }, () => 1)
  const good = file('good.gguf', imatrixFile([['blk.0.attn_q.weight', sums, 900]]))
  const legacy = Buffer.concat([Buffer.from(Uint32Array.of(1, 19).buffer), Buffer.from('blk.0.attn_q.weight'), Buffer.alloc(300)])
  for (const [bytes, message] of /** @type {[Buffer, RegExp][]} */ ([
    [legacy, /\.dat.*llama-imatrix --in-file/],
    [Buffer.from('The reef'), /the imatrix file: /],
    [Buffer.alloc(0), /the imatrix file: /],
    [fs.readFileSync(model), /general\.type is '.*', not 'imatrix'/],
    [fs.readFileSync(good).subarray(0, 300), /the imatrix file: .*ends/],
    [imatrixFile([['blk.0.attn_q.weight', sums.slice(1), 900]]), /of another model: .* 95 sums/],
    [imatrixFile([['blk.9.attn_q.weight', sums, 900]]), /of another model/],
    [imatrixFile([['blk.0.attn_q.weight', sums.map((x, i) => (i ? x : NaN)), 900]]), /negative or not finite/],
    [imatrixFile([['blk.0.attn_q.weight', sums, -3]]), /negative or not finite/],
  ])) {
    refuse(['quantize', model, out, '--imatrix', file('bad.gguf', bytes)], 1, message)
  }
  refuse(['quantize', model, out, '--imatrix', path.join(folder, 'none')], 1, /No such file/)
  refuse(['quantize', model, out, '--imatrix', good, '--method', 'awq,gptq'], 1, /method awq,gptq: .* need the text/)
  refuse(['quantize', model, out, '--imatrix', good, '--method', 'rtn'], 1, /rtn does not look/)
  refuse(['quantize', model, out, '--imatrix', good, '--calibration', good], 2, /stands for a text/)
  refuse(['quantize', model, out, '--imatrix', good, '--size', '1MB'], 2, /stands for a text/)
  refuse(['imatrix', model], 2, /OUT is missing/)
  refuse(['imatrix', model, out, path.join(folder, 'none')], 1, /No such file/)
  assert.ok(!fs.existsSync(out))
})

test('groups that do not divide rows become smaller ones, which is told', () => {
  const { stdout } = succeed(['quantize', fixture('tiny-llama-f16.gguf'), path.join(folder, 'group'), 'w4g64'])
  assert.match(stdout, /w4g32sym \(96 columns are no multiple of 64\)/)
  refuse(['quantize', fixture('tiny-llama-f16.gguf'), path.join(folder, 'none'), 'w4g0'], 1, /'w4g0'; possible are/)
})

test('folders whose tensors are not those of a file', () => {
  const hash = (/** @type {string} */ model) => json(['hash', model, '--prefill', '20', '--decode', '4'])[0].hash
  for (const name of ['qwen3moe', 'gpt-oss', 'gpt2']) {
    const hashes = [`arch/${name}`, `arch/${name}.gguf`].map((source) => {
      const out = path.join(folder, 'architecture.gguf')
      succeed(['quantize', fixture(source), out, '--head', 'f16', '--embedding', 'f16'])
      return hash(out)
    })
    assert.equal(hashes[0], hashes[1])
  }
})

/* Fixtures are made by converter scripts of Python, tensor by tensor. */
test('a folder becomes the tensors that its architecture has in GGUF, and metadata of the same types', () => {
  const quantized = ['bitnet', 'gpt-oss-mxfp4']
  const names = fs.readdirSync(fixture('arch')).filter(name => fs.existsSync(fixture(`arch/${name}.gguf`)) && !quantized.includes(name))
  assert.ok(names.length > 15, names.join(' '))
  for (const name of names) {
    const expected = fs.readFileSync(fixture(`arch/${name}.gguf`))
    const header = readGguf(expected)
    const matrix = header.tensors.find(tensor => tensor.name === 'token_embd.weight')
    const type = String(matrix?.format).toLowerCase()
    const out = path.join(folder, 'converted.gguf')
    succeed(['quantize', fixture(`arch/${name}`), out, type, '--head', type, '--embedding', type])
    const written = fs.readFileSync(out)
    const ours = readGguf(written)
    for (const [key, type] of ours.types) assert.equal(type, header.types.get(key) ?? type, `${name}: ${key}`)
    const tensors = new Map(ours.tensors.map(tensor => [tensor.name, tensor]))
    for (const { name: tensor, shape, format, start, bytes } of header.tensors) {
      const found = tensors.get(tensor)
      assert.deepEqual([found?.shape, found?.format], [shape, format], `${name}: ${tensor}`)
      const [made, theirs] = [written.subarray(found?.start).subarray(0, bytes), expected.subarray(start, start + bytes)]
      if (format === 'F32') /* 0 and -0 are equal */
        for (let i = 0; i < bytes; i += 4) assert.ok(made.readFloatLE(i) === theirs.readFloatLE(i), `${name}: ${tensor}[${i / 4}]`)
      else assert.ok(made.equals(theirs), `${name}: ${tensor}`)
      tensors.delete(tensor)
    }
    assert.deepEqual([...tensors.keys()], [], name)
  }
})

/* ---- A file is whole or not there ---- */

const source = fixture('tiny-llama-f16.gguf')
const text = file('words.txt', 'The reef is in the north. '.repeat(20))
const leftovers = (/** @type {string} */ name) => fs.readdirSync(folder).filter((entry) => entry.startsWith(name))

/** Numbers below `n`, the same each time (Steele, Lea and Flood's splitmix32). */
function numbers() {
  let seed = 7
  return (/** @type {number} */ n) => {
    let z = (seed = (seed + 0x9e3779b9) | 0)
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad)
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
    return ((z ^ (z >>> 15)) >>> 0) % n
  }
}

const posix = { skip: process.env.NIBL_CLI ? 'of the native program' : false }

test('where no more can be written, that is told and nothing stays', posix, () => {
  const ways = [[], ['w4g32'], ['--method', 'awq', '--calibration', text], ['w4g32', '--method', 'gptq', '--calibration', text]]
  for (const way of ways) {
    for (const blocks of [0, 1, 13, 40]) {
      const args = ['-c', `ulimit -f ${blocks}; exec "$@"`, 'bash', binary, 'quantize', source, path.join(folder, 'full'), ...way]
      const { status, stderr } = spawnSync('bash', args, { encoding: 'utf8' })
      assert.equal(status, 1, stderr)
      assert.match(stderr, /^nibl: .*full.*: File too large/m)
      assert.deepEqual(leftovers('full'), [])
    }
  }
})

test('an interrupt at any point leaves nothing', posix, async () => {
  const below = numbers()
  const bytes = fs.readFileSync(source)
  for (let i = 0; i < 50; i++) {
    const child = spawn(binary, ['quantize', '-', '-o', path.join(folder, 'ended.gguf')], { stdio: ['pipe', 'ignore', 'pipe'] })
    child.stdin.on('error', () => {})
    const ended = once(child, 'close')
    child.stdin.write(bytes.subarray(0, below(bytes.length)))
    await new Promise((resolve) => setTimeout(resolve, below(12)))
    child.kill(below(2) ? 'SIGINT' : 'SIGTERM')
    const [code, signal] = await ended
    assert.ok(code === 1 || signal, `${code} ${signal}`) /* the signal's own end: before it is caught */
    assert.deepEqual(leftovers('ended.gguf'), [])
  }
  for (let i = 0; i < 10; i++) {
    const args = ['quantize', source, path.join(folder, 'ended'), 'w4g32', '--method', 'awq,gptq', '--calibration', text]
    const child = spawn(binary, args, { stdio: 'ignore' })
    const ended = once(child, 'close')
    await new Promise((resolve) => setTimeout(resolve, below(60)))
    child.kill('SIGINT')
    const [code] = await ended
    assert.deepEqual(leftovers('ended'), code === 0 ? ['ended'] : [], String(i))
    fs.rmSync(path.join(folder, 'ended'), { recursive: true, force: true })
  }
})

test('after a kill the same command goes on where it was, and makes the same bytes; other states are none', posix, async () => {
  const made = makeUp({ layers: 16, width: 512, ffn: 1536, heads: 8, kvHeads: 4, type: 1 })
  const big = file('killed-source.gguf', made.read(0, made.size))
  const out = path.join(folder, 'killed.gguf')
  const args = ['quantize', big, out, '--method', 'gptq', '--calibration', text, '--calibration-tokens', '64', '--threads', '1']
  const state = () => leftovers('killed.gguf').find((name) => name.endsWith('.state'))
  const saved = () => fs.statSync(path.join(folder, String(state())), { throwIfNoEntry: false })?.mtimeMs
  /** Ends the command when it has saved a state, if `kills`. @param {boolean} kills */
  const run = async (kills) => {
    const before = saved()
    const child = spawn(binary, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let told = ''
    child.stderr.on('data', (data) => (told += data))
    const timer = setInterval(() => {
      const now = kills && saved()
      if (now && now !== before) child.kill('SIGKILL')
    }, 2)
    const [code] = await once(child, 'close')
    clearInterval(timer)
    return { code, told }
  }
  assert.equal((await run(false)).code, 0)
  const whole = fs.readFileSync(out)
  fs.rmSync(out)
  for (const damage of [undefined, (/** @type {Buffer} */ bytes) => bytes.fill(1, 30, 60)]) {
    assert.equal((await run(true)).code, null)
    const name = path.join(folder, String(state()))
    if (damage) fs.writeFileSync(name, damage(fs.readFileSync(name)))
    const { code, told } = await run(false)
    assert.equal(code, 0, told)
    assert.equal(/goes on, \d+ % were made already/.test(told), !damage, told)
    assert.ok(whole.equals(fs.readFileSync(out)))
    assert.deepEqual(leftovers('killed.gguf'), ['killed.gguf'])
    fs.rmSync(out)
  }
})

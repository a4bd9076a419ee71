// A 16-bit model that is quantized while it arrives: SmolLM2 written back as a Hugging Face folder of F16 from its
// dequantized weights gives, with `quantize: 'q4_0'`, the logits of the file that was quantized first, and takes no more
// memory than the 4-bit model and 32 MiB: natively, and under Node 24 from a folder and from a server.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { after, before, test } from 'node:test'
import { defaultModel } from '../demo/fetch.js'
import { root } from '../wasm/setup.js'
import { serve } from './bench/server.js'

const native = join(root, 'build/native/nibl')
const node24 = join(root, '.toolchain/bin/node24')
const folder = join(root, 'build/arrival')
const prompt = 'Once upon a time'
const slack = 32 << 20

/** @param {string} program @param {string[]} args */
function run(program, ...args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8' })
  assert.ifError(error)
  assert.equal(status, 0, `${program} ${args.join(' ')}:\n${stderr}`)
  return stdout
}

// ---- From GGUF to a folder -------------------------------------------------------------------------------------------

const readers = /** @type {const} */ ({ 4: ['getUint32', 4], 5: ['getInt32', 4], 6: ['getFloat32', 4], 7: ['getUint8', 1] })

/** Metadata and tensors of a GGUF file. @param {Buffer} file */
function readGguf(file) {
  const view = new DataView(file.buffer, file.byteOffset)
  let at = 24
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true))
  const u32 = () => view.getUint32((at += 4) - 4, true)
  const text = () => {
    const length = u64()
    return file.toString('utf8', at, (at += length))
  }
  /** @param {number} type @returns {any} */
  const value = (type) => {
    if (type === 8) return text()
    if (type === 9) {
      const of = u32()
      return Array.from({ length: u64() }, () => value(of))
    }
    const [get, width] = readers[/** @type {keyof typeof readers} */ (type)]
    return view[get]((at += width) - width, true)
  }
  const [tensors, keys] = [Number(view.getBigUint64(8, true)), Number(view.getBigUint64(16, true))]
  const metadata = Object.fromEntries(Array.from({ length: keys }, () => [text(), value(u32())]))
  const infos = Array.from({ length: tensors }, () => {
    const name = text()
    return { name, shape: Array.from({ length: u32() }, u64).reverse(), type: u32(), offset: u64() }
  })
  const data = Math.ceil(at / 32) * 32
  return { metadata, tensors: infos.map((info) => ({ ...info, offset: info.offset + data })) }
}

/** @type {Record<string, string>} */
const names = {
  token_embd: 'model.embed_tokens', output_norm: 'model.norm', attn_norm: 'input_layernorm', ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj', attn_k: 'self_attn.k_proj', attn_v: 'self_attn.v_proj', attn_output: 'self_attn.o_proj',
  ffn_gate: 'mlp.gate_proj', ffn_up: 'mlp.up_proj', ffn_down: 'mlp.down_proj',
}

/** GGUF has the two halves of a head's rows interleaved. @param {Buffer} rows @param {number} count @param {number} head */
function halves(rows, count, head) {
  const width = rows.length / count
  return Buffer.concat(Array.from({ length: count }, (_, row) => {
    const within = row % head
    const from = row - within + (within < head / 2 ? 2 * within : 2 * (within - head / 2) + 1)
    return rows.subarray(from * width, (from + 1) * width)
  }))
}

/** @param {string} path @param {string} to */
function writeFolder(path, to) {
  const file = readFileSync(path)
  const { metadata, tensors } = readGguf(file)
  const head = metadata['llama.embedding_length'] / metadata['llama.attention.head_count']
  const shards = [0, 1, 2].map((shard) => {
    /** @type {Record<string, any>} */
    const header = {}
    const parts = /** @type {Buffer[]} */ ([])
    let end = 0
    for (const { name, shape, type, offset } of tensors.filter((_, index) => Math.floor((index * 3) / tensors.length) === shard)) {
      const [, layer, part] = /** @type {RegExpExecArray} */ (/^(?:blk\.(\d+)\.)?(\w+)\.weight$/.exec(name))
      const bytes = file.subarray(offset, offset + shape.reduce((a, b) => a * b) * (type === 1 ? 2 : 4))
      parts.push(['attn_q', 'attn_k'].includes(part) ? halves(bytes, shape[0], head) : bytes)
      const key = `${layer ? `model.layers.${layer}.` : ''}${names[part]}.weight`
      header[key] = { dtype: type === 1 ? 'F16' : 'F32', shape, data_offsets: [end, (end += bytes.length)] }
    }
    const text = Buffer.from(JSON.stringify(header))
    writeFileSync(join(to, `${shard}.safetensors`), Buffer.concat([Buffer.from(BigUint64Array.of(BigInt(text.length)).buffer), text, ...parts]))
    return Object.keys(header).map((key) => [key, `${shard}.safetensors`])
  })
  /** @type {string[]} */
  const tokens = metadata['tokenizer.ggml.tokens']
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const special = tokens.map((content, id) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }))
  const documents = {
    'config.json': {
      model_type: 'llama', hidden_act: 'silu', tie_word_embeddings: true, vocab_size: tokens.length,
      hidden_size: metadata['llama.embedding_length'], intermediate_size: metadata['llama.feed_forward_length'],
      num_hidden_layers: metadata['llama.block_count'], num_attention_heads: metadata['llama.attention.head_count'],
      num_key_value_heads: metadata['llama.attention.head_count_kv'], max_position_embeddings: metadata['llama.context_length'],
      rms_norm_eps: metadata['llama.attention.layer_norm_rms_epsilon'], rope_theta: metadata['llama.rope.freq_base'],
    },
    'generation_config.json': { eos_token_id: metadata['tokenizer.ggml.eos_token_id'] },
    'tokenizer.json': {
      added_tokens: special.filter(({ id }) => metadata['tokenizer.ggml.token_type'][id] === 3), normalizer: null,
      pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, level] },
      post_processor: null, decoder: level,
      model: { type: 'BPE', unk_token: null, fuse_unk: false, byte_fallback: false,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges: metadata['tokenizer.ggml.merges'] },
    },
    'model.safetensors.index.json': { weight_map: Object.fromEntries(shards.flat()) },
  }
  for (const [name, content] of Object.entries(documents)) writeFileSync(join(to, name), JSON.stringify(content))
}

// ---- The tests -------------------------------------------------------------------------------------------------------

/** @type {string} */
let expected
let weights = 0

before(() => {
  mkdirSync(folder, { recursive: true })
  const [f16, q4] = [join(folder, 'f16.gguf'), join(folder, 'q4_0.gguf')]
  const all = (/** @type {string} */ type) => ['--type', type, '--embedding', type, '--head', type]
  run(native, 'quantize', defaultModel.file, f16, ...all('f16'), '--allow-requantize')
  run(native, 'quantize', f16, q4, ...all('q4_0'))
  writeFolder(f16, folder)
  const options = ['--no-chat', '-p', prompt, '-n', '4', '-c', '64', '-t', '2', '--temp', '0', '--json', '--logits-hash']
  expected = JSON.parse(run(native, 'run', q4, ...options)).logits_hash
  weights = statSync(q4).size
  rmSync(f16)
})
after(() => rmSync(folder, { recursive: true }))

test('natively', (t) => {
  const options = ['--quantize', 'q4_0', '--no-chat', '-p', prompt, '-n', '4', '-c', '64', '-t', '2', '--temp', '0']
  const got = JSON.parse(run(native, 'run', folder, ...options, '--json', '--logits-hash'))
  t.diagnostic(`${((got.memory.process_peak - weights) / 2 ** 20).toFixed(1)} MiB beside the 4-bit file of ${weights} bytes`)
  assert.equal(got.logits_hash, expected)
  assert.ok(got.memory.process_peak <= weights + slack)
})

/** Loads under Node 24 in a process of its own. @param {string} source @param {object} options
 * @returns {Promise<{ stats: import('nibl').Stats, peak: number }>} `peak`: bytes of the process beside those that a tiny model takes */
async function loadInNode(source, options) {
  const program = `import { load } from 'nibl'
    import { readFileSync } from 'node:fs'
    const memory = (name) => Number(new RegExp('^' + name + ':\\\\s+(\\\\d+) kB', 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
    const generate = async (source, options) => {
      const model = await load(source, { threads: 2, ...options })
      for await (const piece of model.generate(${JSON.stringify(prompt)}, { maxTokens: 4 })) void piece
      const { stats } = model
      model.close()
      return stats
    }
    await generate('tests/fixtures/tiny-hf-f16')
    const before = memory('VmRSS')
    const stats = await generate(${JSON.stringify(source)}, { contextLength: 64, ...${JSON.stringify(options)} })
    console.log(JSON.stringify({ stats, peak: memory('VmHWM') - before }))`
  const child = spawn(node24, ['--input-type=module', '--eval', program], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (data) => (text += data))
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  return JSON.parse(text)
}

const beside = (/** @type {number} */ bytes) => `${((bytes - weights) / 2 ** 20).toFixed(1)} MiB`

/** What V8 keeps besides differs from run to run and only adds: the least of three runs counts. @param {() => Promise<number>} measure */
async function least(measure) {
  let least = Infinity
  for (let run = 0; run < 3; run++) least = Math.min(least, await measure())
  return least
}

test('under Node 24', async (t) => {
  const { origin, close } = await serve()
  t.after(close)
  const address = `${origin}/${relative(root, folder)}`
  for (const source of [folder, `${address}/config.json`]) {
    const peak = await least(async () => {
      const { stats, peak } = await loadInNode(source, { quantize: 'q4_0' })
      t.diagnostic(`${source === folder ? 'folder' : 'server'}: ${beside(stats.memory.linear)} of WebAssembly memory and ${beside(peak)} of the process`)
      assert.equal(stats.hash, expected)
      assert.ok(stats.memory.linear <= weights + slack)
      return peak
    })
    assert.ok(peak <= weights + slack)
  }
})

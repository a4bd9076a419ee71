/**
 * A llama model of any size that stands nowhere: its bytes are made up as they are asked for, the same ones each time.
 * Few layers, wide, Q4_0 or F16; a vocabulary of the 256 bytes and an end token. And a server for it, and a stream.
 */
import { createServer } from 'node:http'
import { Readable } from 'node:stream'

const F32 = 0
const F16 = 1
const Q4_0 = 2
const BLOCK = 32
const BLOCK_BYTES = 18
const ALIGNMENT = 32
const PIECE = 1 << 20

/** @typedef {{ layers: number, width: number, ffn: number, heads: number, kvHeads: number, type?: number }} Shape */

// ---- The header: GGUF version 3 --------------------------------------------------------------------------------------

/** @param {number} value */
const u32 = (value) => Buffer.from(Uint32Array.of(value).buffer)
/** @param {number} value */
const u64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer)
/** @param {number} value */
const f32 = (value) => Buffer.from(Float32Array.of(value).buffer)
/** @param {string} text */
const string = (text) => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)])
const types = { u32: 4, f32: 6, string: 8, array: 9, i32: 5 }

/** The 257 tokens: each byte as the character that byte-level BPE writes for it. */
function vocabulary() {
  const printable = (/** @type {number} */ byte) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173)
  let next = 256
  return [...Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++)), '<|end|>']
}

/** @param {Shape} shape @param {{ name: string, type: number, rows: number, columns: number }[]} tensors in file order */
function layOut({ layers, width, ffn, heads, kvHeads }, tensors) {
  const tokens = vocabulary()
  const metadata = [
    ...Object.entries({ 'general.architecture': 'llama', 'general.name': 'made up', 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'gpt-2' })
      .map(([key, text]) => [string(key), u32(types.string), string(text)]),
    ...Object.entries({ block_count: layers, context_length: 4096, embedding_length: width, feed_forward_length: ffn,
      'attention.head_count': heads, 'attention.head_count_kv': kvHeads, vocab_size: tokens.length })
      .map(([key, value]) => [string(`llama.${key}`), u32(types.u32), u32(value)]),
    [string('llama.attention.layer_norm_rms_epsilon'), u32(types.f32), f32(1e-5)],
    [string('tokenizer.ggml.tokens'), u32(types.array), u32(types.string), u64(tokens.length), ...tokens.map(string)],
    [string('tokenizer.ggml.token_type'), u32(types.array), u32(types.i32), u64(tokens.length),
      ...tokens.map((_, index) => u32(index < 256 ? 1 : 3))],
    [string('tokenizer.ggml.merges'), u32(types.array), u32(types.string), u64(0)],
    [string('tokenizer.ggml.eos_token_id'), u32(types.u32), u32(256)],
  ]
  let end = 0
  const placed = tensors.map((tensor) => {
    const rowBytes = tensor.type === Q4_0 ? (tensor.columns / BLOCK) * BLOCK_BYTES : (tensor.type === F16 ? 2 : 4) * tensor.columns
    const offset = end
    end = Math.ceil((end + rowBytes * tensor.rows) / ALIGNMENT) * ALIGNMENT
    return { ...tensor, rowBytes, offset }
  })
  const infos = placed.map(({ name, type, rows, columns, offset }) => {
    const shape = type === F32 ? [u32(1), u64(columns)] : [u32(2), u64(columns), u64(rows)]
    return Buffer.concat([string(name), ...shape, u32(type), u64(offset)])
  })
  const start = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(metadata.length), ...metadata.flat(), ...infos])
  const header = Buffer.concat([start, Buffer.alloc((ALIGNMENT - (start.length % ALIGNMENT)) % ALIGNMENT)])
  return { header, size: header.length + end, tensors: placed.map((t) => ({ ...t, offset: header.length + t.offset })) }
}

/** @param {Shape} shape @param {number} layer */
const layerTensors = ({ width, ffn, heads, kvHeads, type = Q4_0 }, layer) => [
  { name: 'attn_norm', type: F32, rows: 1, columns: width },
  { name: 'attn_q', type, rows: width, columns: width },
  { name: 'attn_k', type, rows: (width / heads) * kvHeads, columns: width },
  { name: 'attn_v', type, rows: (width / heads) * kvHeads, columns: width },
  { name: 'attn_output', type, rows: width, columns: width },
  { name: 'ffn_norm', type: F32, rows: 1, columns: width },
  { name: 'ffn_gate', type, rows: ffn, columns: width },
  { name: 'ffn_up', type, rows: ffn, columns: width },
  { name: 'ffn_down', type, rows: width, columns: ffn },
].map((tensor) => ({ ...tensor, name: `blk.${layer}.${tensor.name}.weight` }))

// ---- The weights -----------------------------------------------------------------------------------------------------

/** Mixes the bits of a whole number (Steele and Vigna 2021's constants). @param {number} value */
function hash(value) {
  let x = (value + 0x9e3779b9) >>> 0
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
  return (x ^ (x >>> 15)) >>> 0
}

/** Blocks that all rows are cut from: any codes, scales of five values about 0.0008 (f16). */
const tile = Buffer.alloc((1 << 18) * BLOCK_BYTES)
for (let at = 0; at < tile.length; at += 2) {
  const number = hash(at)
  tile.writeUInt16LE(at % BLOCK_BYTES === 0 ? 0x1200 + (number % 5) * 0x40 : number & 0xffff, at)
}

/** The same for F16: numbers of 2^-8 to 2^-4, of any sign. */
const floats = Buffer.alloc(1 << 22)
for (let at = 0; at < floats.length; at += 2) floats.writeUInt16LE((hash(at) & 0x8fff) + 0x1c00, at)

/** Each row begins in the tile where a hash of its place in the file says: bytes that went astray show in the logits.
 * @param {{ type: number, rowBytes: number, offset: number, columns: number }} tensor @param {number} row @returns {Buffer} */
function rowOf({ type, rowBytes, offset, columns }, row) {
  if (type === F32) return Buffer.from(new Float32Array(columns).fill(1).buffer)
  const [from, block] = type === F16 ? [floats, 2] : [tile, BLOCK_BYTES]
  const start = (hash(Math.floor(offset / ALIGNMENT) + 7919 * row) % ((from.length - rowBytes) / block)) * block
  return from.subarray(start, start + rowBytes)
}

/** @param {Shape} shape */
export function makeUp(shape) {
  const { header, size, tensors } = layOut(shape, [
    { name: 'token_embd.weight', type: shape.type ?? Q4_0, rows: 257, columns: shape.width },
    ...Array.from({ length: shape.layers }, (_, layer) => layerTensors(shape, layer)).flat(),
    { name: 'output_norm.weight', type: F32, rows: 1, columns: shape.width },
  ])
  /** The bytes of the file from `start` to `end`. @param {number} start @param {number} end @returns {Buffer} */
  const read = (start, end) => {
    const out = Buffer.alloc(end - start)
    header.subarray(start, end).copy(out)
    for (const tensor of tensors) {
      const { offset, rows, rowBytes } = tensor
      const first = Math.max(0, Math.floor((start - offset) / rowBytes))
      for (let row = first; row < rows && offset + row * rowBytes < end; row++) {
        const at = offset + row * rowBytes - start
        rowOf(tensor, row).copy(out, Math.max(at, 0), Math.max(-at, 0))
      }
    }
    return out
  }
  return { header, size, tensors, read }
}

/** More than 4.5 GB. */
export const { header, size, tensors, read } = makeUp({ layers: 10, width: 8192, ffn: 28672, heads: 64, kvHeads: 8 })

/** @param {number} start @param {number} end */
function* pieces(start, end) {
  for (let at = start; at < end; at += PIECE) yield read(at, Math.min(end, at + PIECE))
}

/** @param {number} [start] @param {number} [end] */
export const stream = (start = 0, end = size) => Readable.from(pieces(start, end), { objectMode: false, highWaterMark: PIECE })

/** Serves it on the loopback interface. @returns {Promise<{ url: string, sent: number, ranges: string[], close: () => void }>}
 *   `sent`: bytes of bodies so far; `ranges`: the Range header of each request or '' */
export async function serveModel() {
  const server = createServer((request, response) => {
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '')
    state.ranges.push(range?.[0] ?? '')
    const [start, end] = range ? [Number(range[1]), Math.min(Number(range[2]) + 1, size)] : [0, size]
    response.writeHead(range ? 206 : 200, {
      'Access-Control-Allow-Origin': '*',
      'Access-Control-Allow-Headers': 'Range',
      'Cross-Origin-Resource-Policy': 'cross-origin',
      'Cache-Control': 'no-store',
      'Content-Length': end - start,
      ...(range && { 'Content-Range': `bytes ${start}-${end - 1}/${size}` }),
    })
    const body = stream(start, end)
    body.on('data', (/** @type {Buffer} */ { length }) => (state.sent += length))
    response.on('close', () => body.destroy())
    body.pipe(response)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  server.unref()
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  /** @type {{ url: string, sent: number, ranges: string[], close: () => void }} */
  const state = { url: `http://127.0.0.1:${port}/model.gguf`, sent: 0, ranges: [], close }
  return state
}

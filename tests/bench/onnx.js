// Makes an ONNX model of a GGUF file of the llama architecture, for onnxruntime: the graph that its own exporters make
// (grouped-query attention with rotary embedding in one operator, fused q, k, v and gate, up), with weights either in
// int8 with a scale per output, or in 4 bits as they are in a Q4_0 file. Protocol buffers are written by hand: a
// message is a list of fields, and a field a number, its wire type and its bytes.

import { dequantize, fromHalf, readGguf } from './gguf.js'

// ---- Protocol buffers ----------------------------------------------------------------------------------------------

/** A message's bytes, in pieces, so that large weights are not copied. @typedef {Uint8Array[]} Message */

/** @param {number | bigint} value */
function varint(value) {
  const bytes = []
  for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
    if (rest < 128n) return Uint8Array.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 127n) | 128)
  }
}

/** @type {(field: number, value: number) => Message} */
const integer = (field, value) => [varint(field << 3), varint(value)]
/** @type {(field: number, parts: Message) => Message} */
const bytes = (field, parts) => [
  varint((field << 3) | 2),
  varint(parts.reduce((sum, part) => sum + part.length, 0)),
  ...parts,
]
/** @type {(field: number, text: string) => Message} */
const string = (field, text) => bytes(field, [Buffer.from(text)])
/** @type {(field: number, value: number) => Message} */
const float = (field, value) => [varint((field << 3) | 5), raw(Float32Array.of(value))]

/** @param {ArrayBufferView} array */
const raw = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

// ---- ONNX ----------------------------------------------------------------------------------------------------------

const types = { float: 1, uint8: 2, int8: 3, int32: 6, int64: 7 }

/** @param {string} name @param {keyof typeof types} type @param {number[]} shape @param {ArrayBufferView} data @returns {Message} */
const initializer = (name, type, shape, data) =>
  bytes(5, [...shape.flatMap((size) => integer(1, size)), ...integer(2, types[type]), ...string(8, name), ...bytes(9, [raw(data)])])

/** An input or output of the graph. @param {number} field @param {string} name @param {keyof typeof types} type
 * @param {(number | string)[]} shape @returns {Message} */
function port(field, name, type, shape) {
  const sizes = shape.flatMap((size) => bytes(1, typeof size === 'number' ? integer(1, size) : string(2, size)))
  return bytes(field, [...string(1, name), ...bytes(2, bytes(1, [...integer(1, types[type]), ...bytes(2, sizes)]))])
}

/** Whole numbers are integers here, and what should be a float is written 'f:0.5'.
 * @param {string} name @param {number | string} value @returns {Message} */
const attribute = (name, value) =>
  bytes(5, [
    ...string(1, name),
    ...(typeof value === 'number' ? integer(3, value) : float(2, Number(value.slice(2)))),
    ...integer(20, typeof value === 'number' ? 2 : 1),
  ])

/** @param {string} operator 'com.microsoft.X' or 'X' @param {string[]} inputs @param {string[]} outputs
 * @param {Record<string, number | string>} [attributes] @returns {Message} */
function node(operator, inputs, outputs, attributes = {}) {
  const [, domain = '', type] = /** @type {RegExpExecArray} */ (/^(?:(.+)\.)?(\w+)$/.exec(operator))
  return bytes(1, [
    ...inputs.flatMap((input) => string(1, input)),
    ...outputs.flatMap((output) => string(2, output)),
    ...string(4, type),
    ...Object.entries(attributes).flatMap(([name, value]) => attribute(name, value)),
    ...string(7, domain),
  ])
}

// ---- Weights -------------------------------------------------------------------------------------------------------

/** Rows of outputs to int8 with a scale per row. @param {Float32Array} weights @param {number} width */
function toInt8(weights, width) {
  const [codes, scales] = [new Int8Array(weights.length), new Float32Array(weights.length / width)]
  for (let row = 0; row < scales.length; row++) {
    const values = weights.subarray(row * width, (row + 1) * width)
    const most = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    scales[row] = most / 127
    values.forEach((value, i) => (codes[row * width + i] = Math.round(value / (scales[row] || 1))))
  }
  return { codes, scales }
}

/** @param {Int8Array} codes @param {number} rows @param {number} width */
function transpose(codes, rows, width) {
  const out = new Int8Array(codes.length)
  for (let row = 0; row < rows; row++) for (let i = 0; i < width; i++) out[i * rows + row] = codes[row * width + i]
  return out
}

/** Q4_0 blocks to pairs of neighbours in a byte, and their scales. @param {Buffer} file @param {number} start @param {number} blocks */
function toPairs(file, start, blocks) {
  const [codes, scales] = [new Uint8Array(blocks * 16), new Float32Array(blocks)]
  for (let block = 0; block < blocks; block++) {
    const at = start + block * 18
    scales[block] = fromHalf(file.readUInt16LE(at))
    const code = (/** @type {number} */ i) => (i < 16 ? file[at + 2 + i] & 15 : file[at + 2 + i - 16] >> 4)
    for (let i = 0; i < 16; i++) codes[block * 16 + i] = code(2 * i) | (code(2 * i + 1) << 4)
  }
  return { codes, scales }
}

// ---- The model -----------------------------------------------------------------------------------------------------

const maxPositions = 8192

/**
 * @param {Buffer} file GGUF; of Q4_0 for 4 bits
 * @param {4 | 8} bits of the layers' weights; embedding and head have 8
 * @returns {Message}
 */
export function toOnnx(file, bits) {
  const { tensors, values } = readGguf(file)
  /** @param {string} name */
  const tensor = (name) => {
    const found = tensors.find((tensor) => tensor.name === name)
    if (!found) throw new Error(`no tensor ${name}`)
    return found
  }
  /** @param {string} name */
  const parameter = (name) => values.get(`llama.${name}`) ?? 0
  const [heads, kvHeads] = [parameter('attention.head_count'), parameter('attention.head_count_kv')]
  const width = parameter('embedding_length')
  const layers = parameter('block_count')
  const head = width / heads
  const epsilon = `f:${parameter('attention.layer_norm_rms_epsilon')}`
  const vocabulary = tensor('token_embd.weight').shape[1]
  /** @type {Message[]} */
  const graph = []
  const add = (/** @type {Message} */ message) => void graph.push(message)

  /** A vector or matrix of floats. @param {string} name */
  const floats = (name) => {
    const { shape } = tensor(name)
    add(initializer(name, 'float', shape.toReversed(), dequantize(file, tensor(name))))
    return name
  }

  /** Quantizes the input of one or several int8 layers. @param {string} input */
  const quantized = (input) => {
    const names = ['codes', 'scale', 'zero'].map((part) => `${input}.${part}`)
    add(node('DynamicQuantizeLinear', [input], names))
    return names
  }

  /** int8 layer: rows of outputs with their scales. @param {string} name @param {string} input @param {string} output
   * @param {Int8Array} codes @param {Float32Array} scales @param {number} inputs */
  const int8Layer = (name, input, output, codes, scales, inputs) => {
    add(initializer(`${name}.codes`, 'int8', [inputs, scales.length], transpose(codes, scales.length, inputs)))
    add(initializer(`${name}.scales`, 'float', [scales.length], scales))
    const [a, aScale, aZero] = quantized(input)
    add(node('com.microsoft.MatMulIntegerToFloat', [a, `${name}.codes`, aScale, `${name}.scales`, aZero], [output]))
  }

  /** output = input x the weights, several tensors' outputs one after the other.
   * @param {string[]} names @param {string} input @param {string} output */
  const linear = (names, input, output) => {
    const parts = names.map(tensor)
    const [inputs] = parts[0].shape
    const outputs = parts.reduce((sum, part) => sum + part.shape[1], 0)
    if (bits === 8) {
      const pieces = parts.map((part) => toInt8(dequantize(file, part), inputs))
      const codes = new Int8Array(inputs * outputs)
      const scales = new Float32Array(outputs)
      let row = 0
      for (const piece of pieces) {
        codes.set(piece.codes, row * inputs)
        scales.set(piece.scales, row)
        row += piece.scales.length
      }
      return int8Layer(names[0], input, output, codes, scales, inputs)
    }
    const pieces = parts.map(({ start, bytes }) => toPairs(file, start, bytes / 18))
    const codes = Buffer.concat(pieces.map(({ codes }) => codes))
    const scales = Buffer.concat(pieces.map(({ scales }) => raw(scales)))
    add(initializer(`${names[0]}.codes`, 'uint8', [outputs, inputs / 32, 16], codes))
    add(initializer(`${names[0]}.scales`, 'float', [(outputs * inputs) / 32], scales))
    const attributes = { K: inputs, N: outputs, bits: 4, block_size: 32, accuracy_level: 4 }
    add(node('com.microsoft.MatMulNBits', [input, `${names[0]}.codes`, `${names[0]}.scales`], [output], attributes))
  }

  // Angles of the rotary embedding.
  const [cos, sin] = [Math.cos, Math.sin].map((wave) => {
    const base = parameter('rope.freq_base')
    return Float32Array.from({ length: (maxPositions * head) / 2 }, (_, i) => {
      const [position, pair] = [Math.floor(i / (head / 2)), i % (head / 2)]
      return wave(position * base ** ((-2 * pair) / head))
    })
  })
  add(initializer('cos', 'float', [maxPositions, head / 2], cos))
  add(initializer('sin', 'float', [maxPositions, head / 2], sin))

  // Embedding: int8 rows and their scales.
  const embedding = toInt8(dequantize(file, tensor('token_embd.weight')), width)
  add(initializer('embedding.codes', 'int8', [vocabulary, width], embedding.codes))
  add(initializer('embedding.scales', 'float', [vocabulary, 1], embedding.scales))
  add(node('Gather', ['embedding.codes', 'ids'], ['row.codes']))
  add(node('Gather', ['embedding.scales', 'ids'], ['row.scales']))
  add(node('Cast', ['row.codes'], ['row.floats'], { to: types.float }))
  add(node('Mul', ['row.floats', 'row.scales'], ['x.0']))
  add(node('SimplifiedLayerNormalization', ['x.0', floats('blk.0.attn_norm.weight')], ['normal.0'], { epsilon, axis: -1 }))

  /** The sum of a layer's input and output, and its norm with the next weights.
   * @param {string} a @param {string} b @param {string} weight @param {string} normal @param {string} sum */
  const addAndNormalize = (a, b, weight, normal, sum) =>
    add(node('com.microsoft.SkipSimplifiedLayerNormalization', [a, b, floats(weight)], [normal, '', '', sum], { epsilon }))

  for (let i = 0; i < layers; i++) {
    const at = (/** @type {string} */ name) => `${name}.${i}`
    const weight = (/** @type {string} */ name) => `blk.${i}.${name}.weight`
    linear(['attn_q', 'attn_k', 'attn_v'].map(weight), at('normal'), at('qkv'))
    const cache = [at('past_key'), at('past_value')]
    const attention = { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1, rotary_interleaved: 1 }
    const inputs = [at('qkv'), '', '', ...cache, 'seqlens', 'total', 'cos', 'sin']
    const kept = [at('present_key'), at('present_value')]
    add(node('com.microsoft.GroupQueryAttention', inputs, [at('attention'), ...kept], attention))
    linear([weight('attn_output')], at('attention'), at('projected'))
    addAndNormalize(at('x'), at('projected'), weight('ffn_norm'), at('middle'), at('y'))
    linear(['ffn_gate', 'ffn_up'].map(weight), at('middle'), at('wide'))
    add(node('Split', [at('wide')], [at('gate'), at('up')], { axis: -1, num_outputs: 2 }))
    add(node('Sigmoid', [at('gate')], [at('sigmoid')]))
    add(node('Mul', [at('gate'), at('sigmoid')], [at('silu')]))
    add(node('Mul', [at('silu'), at('up')], [at('product')]))
    linear([weight('ffn_down')], at('product'), at('down'))
    const next = i + 1 < layers ? `blk.${i + 1}.attn_norm.weight` : 'output_norm.weight'
    addAndNormalize(at('y'), at('down'), next, `normal.${i + 1}`, `x.${i + 1}`)
    for (const name of cache) add(port(11, name, 'float', [1, kvHeads, 'past', head]))
    for (const name of kept) add(port(12, name, 'float', [1, kvHeads, 'present', head]))
  }

  // The head sees the last position alone.
  add(initializer('last', 'int64', [1], BigInt64Array.of(-1n)))
  add(node('Gather', [`normal.${layers}`, 'last'], ['end'], { axis: 1 }))
  const { codes, scales } = tensors.some(({ name }) => name === 'output.weight')
    ? toInt8(dequantize(file, tensor('output.weight')), width)
    : embedding
  int8Layer('head', 'end', 'logits', codes, scales, width)
  add(port(11, 'ids', 'int64', [1, 'tokens']))
  add(port(11, 'seqlens', 'int32', [1]))
  add(port(11, 'total', 'int32', [1]))
  add(port(12, 'logits', 'float', [1, 1, vocabulary]))
  const opsets = [['', 18], ['com.microsoft', 1]].flatMap(([domain, version]) =>
    bytes(8, [...string(1, String(domain)), ...integer(2, Number(version))]),
  )
  return [...integer(1, 9), ...string(2, 'nibl benchmark'), ...opsets, ...bytes(7, [...graph.flat(), ...string(2, 'llama')])]
}

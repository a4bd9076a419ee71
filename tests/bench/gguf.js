// Reads a GGUF file, and rewrites it with Q4_0 weights in place of Q4_1: all metadata as it was, tensor for tensor.

/** Of the formats met here: values and bytes of a block, and its number in the file. */
export const formats = {
  F32: { code: 0, values: 1, bytes: 4 },
  F16: { code: 1, values: 1, bytes: 2 },
  BF16: { code: 30, values: 1, bytes: 2 },
  Q4_0: { code: 2, values: 32, bytes: 18 },
  Q4_1: { code: 3, values: 32, bytes: 20 },
  Q8_0: { code: 8, values: 32, bytes: 34 },
}
/** @typedef {keyof typeof formats} Format */

const scalarBytes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]
const [stringType, arrayType] = [8, 9]

/**
 * @typedef {object} Tensor
 * @property {string} name
 * @property {number[]} shape     innermost first
 * @property {Format} format
 * @property {number} entry       where its format stands in the header
 * @property {number} start       in the file
 * @property {number} bytes
 */

/** @param {Buffer} file @returns {{ tensors: Tensor[], values: Map<string, number>, types: Map<string, number>, data: number }} values: the
 *   numbers among the metadata; types: of all of them; data: where the header ends */
export function readGguf(file) {
  let at = 8
  const u32 = () => file.readUInt32LE((at += 4) - 4)
  const u64 = () => Number(file.readBigUInt64LE((at += 8) - 8))
  const string = () => {
    const length = u64()
    return file.toString('utf8', at, (at += length))
  }
  /** @param {number} type @returns {number} */
  const value = (type) => {
    if (type === stringType) return string().length
    if (type === arrayType) {
      const [item, count] = [u32(), u64()]
      for (let i = 0; i < count; i++) value(item)
      return count
    }
    const start = at
    at += scalarBytes[type]
    if (type === 6) return file.readFloatLE(start)
    return scalarBytes[type] === 4 ? file.readUInt32LE(start) : 0
  }
  const [tensorCount, valueCount] = [u64(), u64()]
  const [values, types] = [new Map(), new Map()]
  for (let i = 0; i < valueCount; i++) {
    const name = string()
    const type = u32()
    types.set(name, type)
    values.set(name, value(type))
  }
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = string()
    const shape = Array.from({ length: u32() }, u64)
    const entry = at
    const code = u32()
    const found = Object.entries(formats).find(([, format]) => format.code === code)
    if (!found) throw new Error(`${name} has format ${code}, which is not known here`)
    const [format, { values, bytes }] = found
    return {
      name,
      shape,
      entry,
      format: /** @type {Format} */ (format),
      start: u64(),
      bytes: (shape.reduce((product, size) => product * size) / values) * bytes,
    }
  })
  const alignment = values.get('general.alignment') ?? 32
  const data = Math.ceil(at / alignment) * alignment
  for (const tensor of tensors) tensor.start += data
  return { tensors, values, types, data }
}

/** @param {number} bits of a float16 @returns {number} */
export function fromHalf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023]
  const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24
  return bits & 0x8000 ? -size : size
}

/** To the nearest, ties to even; of numbers that a float16 can hold. @param {number} value @returns {number} its bits */
export function toHalf(value) {
  const size = Math.abs(value)
  const exponent = Math.max(-14, Math.floor(Math.log2(size)))
  const scaled = size * 2 ** (10 - exponent)
  const low = Math.floor(scaled)
  const up = scaled - low > 0.5 || (scaled - low === 0.5 && low % 2 === 1)
  const bits = ((exponent + 14) << 10) + low + Number(up)
  return size === 0 ? 0 : bits | (value < 0 ? 0x8000 : 0)
}

/** The values of a block. @type {Record<Format, (file: Buffer, at: number, out: Float32Array) => void>} */
const readBlock = {
  F32: (file, at, out) => void (out[0] = file.readFloatLE(at)),
  F16: (file, at, out) => void (out[0] = fromHalf(file.readUInt16LE(at))),
  BF16: (file, at, out) => void (out[0] = new Float32Array(new Uint32Array([file.readUInt16LE(at) << 16]).buffer)[0]),
  Q4_0(file, at, out) {
    const scale = fromHalf(file.readUInt16LE(at))
    for (let i = 0; i < 16; i++) {
      out[i] = ((file[at + 2 + i] & 15) - 8) * scale
      out[i + 16] = ((file[at + 2 + i] >> 4) - 8) * scale
    }
  },
  Q4_1(file, at, out) {
    const [scale, least] = [fromHalf(file.readUInt16LE(at)), fromHalf(file.readUInt16LE(at + 2))]
    for (let i = 0; i < 16; i++) {
      out[i] = (file[at + 4 + i] & 15) * scale + least
      out[i + 16] = (file[at + 4 + i] >> 4) * scale + least
    }
  },
  Q8_0(file, at, out) {
    const scale = fromHalf(file.readUInt16LE(at))
    for (let i = 0; i < 32; i++) out[i] = file.readInt8(at + 2 + i) * scale
  },
}

/** @param {Buffer} file @param {Tensor} tensor @returns {Float32Array} */
export function dequantize(file, { format, start, bytes }) {
  const { values, bytes: size } = formats[format]
  const out = new Float32Array((bytes / size) * values)
  for (let block = 0; block < bytes / size; block++) {
    readBlock[format](file, start + block * size, out.subarray(block * values, (block + 1) * values))
  }
  return out
}

/** Rounds 32 values as ggml's quantize_row_q4_0_ref does: the value furthest from zero becomes -8. The scale is used
 * before it is rounded to half, and products are of single precision.
 * @param {Float32Array} values @param {Buffer} out @param {number} at */
function writeQ4_0(values, out, at) {
  const furthest = values.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0)
  const scale = Math.fround(furthest / -8)
  const inverse = scale ? Math.fround(1 / scale) : 0
  const code = (/** @type {number} */ value) =>
    Math.min(15, Math.trunc(Math.fround(Math.fround(value * inverse) + 8.5)))
  out.writeUInt16LE(toHalf(scale), at)
  for (let i = 0; i < 16; i++) out[at + 2 + i] = code(values[i]) | (code(values[i + 16]) << 4)
}

/** @param {Buffer} file of Q4_1 @returns {Uint8Array[]} the pieces of the new file */
export function toQ4_0(file) {
  const { tensors, values, data } = readGguf(file)
  const alignment = values.get('general.alignment') ?? 32
  const head = Buffer.from(file.subarray(0, data))
  const pieces = [head]
  let at = 0
  for (const tensor of tensors) {
    const { format, entry, start, bytes } = tensor
    let piece = Buffer.from(file.subarray(start, start + bytes))
    if (format === 'Q4_1') {
      const weights = dequantize(file, tensor)
      piece = Buffer.alloc((bytes / formats.Q4_1.bytes) * formats.Q4_0.bytes)
      for (let block = 0; block < weights.length / 32; block++) {
        writeQ4_0(weights.subarray(block * 32, block * 32 + 32), piece, block * formats.Q4_0.bytes)
      }
      head.writeUInt32LE(formats.Q4_0.code, entry)
    }
    head.writeBigUInt64LE(BigInt(at), entry + 4)
    const padding = Buffer.alloc((alignment - (piece.length % alignment)) % alignment)
    pieces.push(piece, padding)
    at += piece.length + padding.length
  }
  return pieces
}

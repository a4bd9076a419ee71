// A model with outliers put in that computes the same: some channels of each norm before matrices are multiplied by 50, and
// the columns that they meet are divided by it. Plain rounding loses those columns; scales that move between the two do not.

import * as fs from 'node:fs'
import { readGguf } from './gguf.js'

const FACTOR = 50
/** A norm, and the matrices that take what it gives. @type {[string, string[]][]} */
const pairs = [
  ['attn_norm', ['attn_q', 'attn_k', 'attn_v']],
  ['ffn_norm', ['ffn_gate', 'ffn_up']],
]
/** Channels of every layer, one in 72. @param {number} width */
const channelsOf = (width) => Array.from({ length: Math.ceil(width / 72) }, (_, i) => (i * 72 + 31 * (i + 1)) % width)

/** Puts outliers into a GGUF file of floats of 32 bits. @param {string} path */
export function putOutliers(path) {
  const file = fs.readFileSync(path)
  const tensors = new Map(readGguf(file).tensors.map((tensor) => [tensor.name, tensor]))
  /** @param {string} name */
  const floatsOf = (name) => {
    const tensor = tensors.get(name)
    if (tensor?.format !== 'F32') throw new Error(`${name} is not there as F32`)
    return tensor
  }
  const scale = (/** @type {number} */ at, /** @type {number} */ factor) => file.writeFloatLE(file.readFloatLE(at) * factor, at)
  for (let layer = 0; tensors.has(`blk.${layer}.attn_norm.weight`); layer++)
    for (const [norm, matrices] of pairs) {
      const { start, shape } = floatsOf(`blk.${layer}.${norm}.weight`)
      for (const channel of channelsOf(shape[0])) {
        scale(start + 4 * channel, FACTOR)
        for (const matrix of matrices) {
          const { start, shape: [columns, rows] } = floatsOf(`blk.${layer}.${matrix}.weight`)
          for (let row = 0; row < rows; row++) scale(start + 4 * (row * columns + channel), 1 / FACTOR)
        }
      }
    }
  fs.writeFileSync(path, file)
}

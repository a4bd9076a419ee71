// The files that are measured, made where they are missing: Q4_1 as published, and what is made of it.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { defaultModel, fetchModel } from '../../demo/fetch.js'
import { root, sha256Of } from '../../wasm/setup.js'
import { readGguf, toQ4_0 } from './gguf.js'
import { toOnnx } from './onnx.js'

/**
 * @typedef {object} ModelFile
 * @property {string} name
 * @property {string} path            below the root
 * @property {number} bytesPerToken   weights that one token reads: every tensor once
 * @property {string} sha256
 *
 * @typedef {object} Recipe
 * @property {string} suffix
 * @property {string} of
 * @property {(file: Buffer) => Uint8Array[]} make
 */

/** @type {Record<string, Recipe>} */
const recipes = {
  Q4_0: { suffix: 'Q4_0.gguf', of: 'Q4_1', make: toQ4_0 },
  int8: { suffix: 'int8.onnx', of: 'Q4_1', make: (file) => toOnnx(file, 8) },
  int4: { suffix: 'int4.onnx', of: 'Q4_0', make: (file) => toOnnx(file, 4) },
}

/** Bytes of all tensors, or one for each weight. @param {Buffer} file @param {boolean} asInt8 */
const tensorBytes = (file, asInt8) =>
  readGguf(file).tensors.reduce((sum, { shape, bytes }) => sum + (asInt8 ? shape.reduce((a, b) => a * b) : bytes), 0)

/** Writes a file aside and renames it into place. @param {string} path @param {Uint8Array[]} parts */
function write(path, parts) {
  const file = fs.openSync(`${path}.part`, 'w')
  for (const part of parts) fs.writeSync(file, part)
  fs.closeSync(file)
  fs.renameSync(`${path}.part`, path)
}

/** @param {string} name @returns {Promise<string>} its path, once the file is there */
async function pathOf(name) {
  if (name === 'Q4_1') return fetchModel()
  const { suffix, of, make } = recipes[name]
  const path = defaultModel.file.replace(/Q4_1\.gguf$/, suffix)
  if (!fs.existsSync(path)) write(path, make(fs.readFileSync(await pathOf(of))))
  return path
}

/** @param {string} name @returns {Promise<ModelFile>} */
export async function modelFile(name) {
  const path = await pathOf(name)
  const gguf = path.endsWith('.gguf') ? path : await pathOf(recipes[name].of)
  const bytesPerToken = tensorBytes(fs.readFileSync(gguf), name === 'int8')
  return { name, path: path.slice(root.length + 1), bytesPerToken, sha256: await sha256Of(path) }
}

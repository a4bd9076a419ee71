// The files that are measured, made where they are missing: Q4_1 as published, and what is made from it.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { defaultModel, fetchModel } from '../../demo/fetch.js'
import { root, sha256Of } from '../../wasm/setup.js'
import { readGguf, toQ4_0 } from './gguf.js'

/**
 * @typedef {object} ModelFile
 * @property {string} name
 * @property {string} path            below the root
 * @property {number} bytesPerToken   weights that one token reads: every tensor once
 * @property {string} sha256
 */

/** Name of a file to what makes it of the published one. @type {Record<string, (model: Buffer) => Uint8Array[]>} */
const makers = {
  Q4_0: toQ4_0,
}

/** @param {string} name */
const pathOf = (name) =>
  name === 'Q4_1' ? defaultModel.file : join(root, `.models/SmolLM2-135M-Instruct.${name}.gguf`)

/** Writes a file aside and renames it into place. @param {string} path @param {Uint8Array[]} parts */
function write(path, parts) {
  const file = fs.openSync(`${path}.part`, 'w')
  for (const part of parts) fs.writeSync(file, part)
  fs.closeSync(file)
  fs.renameSync(`${path}.part`, path)
}

/** @param {string} name @returns {Promise<ModelFile>} */
export async function modelFile(name) {
  const model = await fetchModel()
  const path = pathOf(name)
  if (!fs.existsSync(path)) write(path, makers[name](fs.readFileSync(model)))
  const { tensors } = readGguf(fs.readFileSync(path))
  const bytesPerToken = tensors.reduce((sum, tensor) => sum + tensor.bytes, 0)
  return { name, path: path.slice(root.length + 1), bytesPerToken, sha256: await sha256Of(path) }
}

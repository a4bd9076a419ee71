/**
 * Peak memory of quantizing a made-up model of F16: from a GGUF file and from a folder, natively and under Node, plain and
 * with a calibration. `node tests/bench/quantize-memory.js [LAYERS] [TOKENS] [PATTERN]`: 15 layers are 3 GB; twice that on
 * disk; rows whose text fits the pattern.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { root } from '../../wasm/setup.js'
import { makeUp } from '../made-up-model.js'

const [layers = 15, tokens = 512] = process.argv.slice(2, 4).map(Number)
const pattern = new RegExp(process.argv[4] ?? '')
const MIB = 2 ** 20
const native = path.join(root, 'build/native/nibl')
const { tensors, size, read } = makeUp({ layers, width: 3072, ffn: 8192, heads: 24, kvHeads: 8, type: 1 })
const bytes = tensors.map(({ name, rows, rowBytes }) => ({ name, bytes: rows * rowBytes }))
const largest = Math.max(...bytes.map((tensor) => tensor.bytes))
const layer = bytes.filter(({ name }) => name.startsWith('blk.0.')).reduce((sum, tensor) => sum + tensor.bytes, 0)

const place = fs.mkdtempSync(path.join(os.tmpdir(), 'nibl-memory-'))
process.on('exit', () => fs.rmSync(place, { recursive: true }))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))
const [model, folder, out, text] = ['model.gguf', 'folder', 'out', 'text.txt'].map((name) => path.join(place, name))

/** The largest VmHWM of a program while it runs, less its first VmRSS after a line on its standard output.
 * @param {string} what @param {string[]} command */
async function measure(what, [program, ...args]) {
  if (args[2] !== folder && !pattern.test(what)) return
  const start = Date.now()
  const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  const memory = (/** @type {string} */ name) => {
    try {
      const found = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(fs.readFileSync(`/proc/${child.pid}/status`, 'utf8'))
      return Number(found?.[1] ?? 0) * 1024
    } catch {
      return 0
    }
  }
  let [peak, before, errors] = [0, 0, '']
  const timer = setInterval(() => (peak = Math.max(peak, memory('VmHWM'))), 2)
  child.stdout.once('data', (data) => (before = String(data) === 'ready\n' ? memory('VmRSS') : 0))
  child.stderr.on('data', (data) => (errors += data))
  const [code] = await once(child, 'close')
  clearInterval(timer)
  const seconds = (Date.now() - start) / 1000
  console.log(`| ${what} | ${code === 0 ? ((peak - before) / MIB).toFixed(0) : errors.trim()} | ${seconds.toFixed(0)} |`)
  fs.rmSync(out, { recursive: true, force: true })
}

/** @param {string} source */
const underNode = (source) => [process.execPath, '--input-type=module', '--eval', `import { quantize } from 'nibl'
  console.log('ready')
  await new Promise((resolve) => setTimeout(resolve, 50))
  await quantize(${JSON.stringify(source)}, { threads: 2, sink: new WritableStream({}) })`]

const file = fs.openSync(model, 'w')
for (let at = 0; at < size; at += 16 * MIB) fs.writeSync(file, read(at, Math.min(size, at + 16 * MIB)))
fs.closeSync(file)
fs.writeFileSync(text, 'The reef lies in the north, and 12 ships wait for the tide. '.repeat(400))
console.log(`${(size / 1e9).toFixed(2)} GB, the largest tensor ${(largest / MIB).toFixed(0)} MiB, a layer ${(layer / MIB).toFixed(0)} MiB\n`)
console.log('| | MiB | s |\n|---|---|---|')
const calibrated = ['--calibration', text, '--calibration-tokens', String(tokens)]
await measure('natively: the folder, F16', [native, 'quantize', model, folder, 'f16', '--as', 'safetensors'])
await measure('natively: RTN, Q4_0, of a file', [native, 'quantize', model, out])
await measure('natively: RTN, Q4_0, of the folder', [native, 'quantize', folder, out])
await measure('natively: RTN, w4g128, a folder of a folder', [native, 'quantize', folder, out, 'w4g128'])
await measure('Node: RTN, Q4_0, of a file', underNode(model))
await measure('Node: RTN, Q4_0, of the folder', underNode(`${folder}/`))
await measure(`natively: clip, ${tokens} tokens`, [native, 'quantize', model, out, '--method', 'clip', ...calibrated])
await measure(`natively: AWQ and GPTQ, ${tokens} tokens`, [native, 'quantize', model, out, '--method', 'awq,gptq', ...calibrated])

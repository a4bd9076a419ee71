// Runs a WASI program under node:wasi: `node wasm/node-wasi.js FILE.wasm [argument ...]`; it sees the current folder.

import { readFileSync } from 'node:fs'
import { WASI } from 'node:wasi'

const [file, ...args] = process.argv.slice(2)
const wasi = new WASI({ version: 'preview1', args: [file, ...args], env: process.env, preopens: { '.': '.' } })
const { instance } = await WebAssembly.instantiate(readFileSync(file), { wasi_snapshot_preview1: wasi.wasiImport })
process.exitCode = wasi.start(instance)

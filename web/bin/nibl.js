#!/usr/bin/env node
/**
 * `npx nibl VERB ...`: the command line without a compiler. `serve` and `report` are JavaScript; every other verb is the native program's
 * own code, compiled for WASI (one thread).
 */
import { readFileSync } from 'node:fs'

const program = new URL('../dist/nibl-cli.wasm', import.meta.url)

/** @param {string[]} args @returns {Promise<number>} exit status */
async function runProgram(args) {
  /* Node calls its WASI experimental each time; this is not for users to weigh. */
  const { emitWarning } = process
  process.emitWarning = () => {}
  const { WASI } = await import('node:wasi')
  process.emitWarning = emitWarning
  /* The current folder, and the folders below the root that arguments name: '/' itself would hide the former. */
  const tops = args.flatMap((arg) => /^\/[^/]+(?=\/)/.exec(arg) ?? [])
  const preopens = Object.fromEntries(['.', ...tops].map((folder) => [folder, folder]))
  const wasi = new WASI({ version: 'preview1', args: ['nibl', ...args], env: process.env, preopens, returnOnExit: true })
  const imports = /** @type {WebAssembly.Imports} */ ({ wasi_snapshot_preview1: wasi.wasiImport })
  const { instance } = await WebAssembly.instantiate(readFileSync(program), imports)
  return wasi.start(instance)
}

const [verb, ...rest] = process.argv.slice(2)
if (verb === 'serve' || verb === 'report') {
  const { main } = await import(`./${verb}.js`)
  process.exitCode = await main(rest)
} else {
  process.exitCode = await runProgram(process.argv.slice(2))
}

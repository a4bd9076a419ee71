// One result of every architecture and of every type of weights, on tiny models: instruction sets, ARM under qemu, WASI.

import assert from 'node:assert/strict'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { root } from '../wasm/setup.js'
import { features, isas, json, native, needs, node24 } from './hosts.js'
import { makeUp } from './made-up-model.js'

const fixtures = 'tests/fixtures/arch'
const small = join('build', 'one-result-small')
const types = ['f32', 'f16', 'bf16', 'q8_0', 'q5_0', 'q5_1', 'q4_0', 'q4_1', 'q2_k', 'q3_k', 'q4_k', 'q5_k', 'q6_k', 'iq4_nl', 'iq4_xs',
  'tq1_0', 'tq2_0', 'mxfp4', 'nvfp4']

/** One hash of a model file on every kind of host. @param {import('node:test').TestContext} t @param {string} file */
function sameEverywhere(t, file) {
  const options = ['hash', file, '--json', '--prefill', '90', '--decode', '4']
  const expected = json([native, ...options, '-t', '1']).hash
  /** @type {[string[], string, Record<string, string>][]} */
  const runs = [
    ...isas.filter((isa) => !needs[isa] || features.includes(needs[isa]))
      .map((isa) => /** @type {any} */ ([[native, ...options, '-t', '3', '--chunk', '7'], isa, { NIBL_ISA: isa }])),
    ...['i8mm', 'dotprod', 'neon'].map((isa) => /** @type {any} */ ([['qemu-aarch64', 'build/aarch64/nibl', ...options, '-t', '1'], isa, { NIBL_ISA: isa }])),
    ...['wasi', 'wasi-relaxed'].map((preset) => /** @type {any} */ ([[node24, '--no-warnings', 'wasm/node-wasi.js', `build/${preset}/nibl.wasm`, ...options], preset, {}])),
  ]
  for (const [command, name, env] of runs) assert.equal(json(command, env).hash, expected, `${file}: ${name}`)
  t.diagnostic(`${file}: ${runs.length + 1} hosts and instruction sets`)
}

test('every architecture: instruction sets, ARM under qemu, WASI', (t) => {
  const files = readdirSync(join(root, fixtures)).filter((file) => file.endsWith('.gguf'))
  assert.ok(files.length >= 15)
  for (const file of files) sameEverywhere(t, `${fixtures}/${file}`)
})

test('every type of weights: instruction sets, ARM under qemu, WASI', (t) => {
  const source = makeUp({ layers: 1, width: 256, ffn: 512, heads: 4, kvHeads: 2 })
  writeFileSync(join(root, `${small}.gguf`), source.read(0, source.size))
  for (const type of types) {
    const file = `${small}-${type}.gguf`
    json([native, 'quantize', `${small}.gguf`, file, type, '--embedding', type, '--head', type, '--allow-requantize', '--force', '--json'])
    sameEverywhere(t, file)
    rmSync(join(root, file))
  }
})

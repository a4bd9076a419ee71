// The hosts that must give one result, and how to ask a program for it.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { root } from '../wasm/setup.js'

export const node24 = join(root, '.toolchain/bin/node24')
export const native = 'build/native/nibl'
const minutes = 10

/** Runs a program that prints one JSON object. @param {string[]} command @param {Record<string, string>} [env] */
export function json([program, ...args], env = {}) {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd: root, env: { ...process.env, ...env }, encoding: 'utf8', timeout: minutes * 60e3 })
  assert.ifError(error)
  assert.equal(status, 0, `${[program, ...args].join(' ')}:\n${stderr}`)
  return JSON.parse(stdout)
}

export const features = /^flags\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].split(' ') ?? []
/** What a CPU must say to run an x86 variant. @type {Record<string, string>} */
export const needs = { avx2: 'avx2', avxvnni: 'avx_vnni', avx512vnni: 'avx512_vnni' }
export const isas = ['scalar', ...new Set(readdirSync(join(root, 'kernels/x86')).flatMap((file) => /_([a-z0-9]+)\.c$/.exec(file)?.[1] ?? []))]

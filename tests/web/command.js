/** The `nibl` command for tests: run, and what must hold of it. NIBL_CLI names another binary than the native build's. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('../../', import.meta.url))
export const binary = process.env.NIBL_CLI ?? path.join(root, 'build/native/nibl')
export const fixture = (/** @type {string} */ name) => path.join(root, 'tests/fixtures', name)
export const tiny = fixture('tiny-llama-q4_1.gguf')
export const realModel = path.join(root, '.models/SmolLM2-135M-Instruct.Q4_1.gguf')
export const needsModel = { skip: fs.existsSync(realModel) ? false : 'the default model is not there: run npm start once' }

export const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'nibl-cli-'))
after(() => fs.rmSync(folder, { recursive: true }))

export const HANG = 60_000 // ms; nothing here takes a tenth of it

/**
 * @param {string[]} args
 * @param {{ input?: string | Buffer, stdio?: any }} [options]
 */
export function nibl(args, { input = '', stdio = 'pipe' } = {}) {
  const result = spawnSync(binary, args, { input, stdio, timeout: HANG, maxBuffer: 1 << 28 })
  if (result.error) throw result.error
  const { status, signal, stdout, stderr } = result
  return { status, signal, stdout: stdout?.toString() ?? '', stderr: stderr?.toString() ?? '' }
}

/** Runs what must succeed. @param {string[]} args @param {string | Buffer} [input] */
export function succeed(args, input) {
  const result = nibl(args, { input })
  assert.equal(result.status, 0, `nibl ${args.join(' ')}: ${result.stderr}`)
  return result
}

/** The JSON lines of a run that must succeed. @param {string[]} args @param {string | Buffer} [input] */
export function json(args, input) {
  return succeed([...args, '--json'], input).stdout.trimEnd().split('\n').map(line => JSON.parse(line))
}

/** Runs what must fail: exit code, a message, no output. @param {string[]} args @param {number} status @param {RegExp} message */
export function refuse(args, status, message) {
  const result = nibl(args)
  assert.equal(result.status, status, `nibl ${args.join(' ')}: ${result.signal ?? ''} ${result.stderr}`)
  assert.match(result.stderr, /^nibl: /)
  assert.match(result.stderr, message)
  assert.equal(result.stdout, '')
}

/** @param {string} name @param {string | Buffer} content */
export function file(name, content) {
  const at = path.join(folder, name)
  fs.writeFileSync(at, content)
  return at
}

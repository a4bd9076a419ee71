// Engines that are commands: one run of the command is one sample.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { root } from '../../wasm/setup.js'
import { llamaBench } from './peers.js'
import { peakMemory, read, since } from './meter.js'

/** @typedef {import('./engines.js').Session} Session */
/** @typedef {import('./engines.js').Facts} Facts */
/** @typedef {import('./engines.js').Case} Case */
/** @typedef {import('./rows.js').Trial} Trial */

/**
 * Runs a command and answers with what it wrote on standard output.
 * @param {string[]} command @param {(line: string, pid: number) => void} [onLine] told the lines of standard error
 * @returns {Promise<string>}
 */
function run([program, ...args], onLine) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, words, rest] = ['', '', '']
    child.stdout.on('data', (data) => (out += data))
    child.stderr.on('data', (data) => {
      words = (words + data).slice(-2000)
      const lines = (rest + data).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) onLine?.(line, child.pid ?? 0)
    })
    child.on('error', fail)
    child.on('close', (code) => (code === 0 ? done(out) : fail(new Error(`${program} ended with ${code}: ${words}`))))
  })
}

/** @param {Trial} trial @param {Case} item what both `nibl bench` and llama-bench understand */
const options = ({ measure, count, depth }, { threads }) =>
  ['-p', measure === 'prefill' ? count : 0, '-n', measure === 'decode' ? count : 0, '-d', depth, '-t', threads, '-r', 1].map(
    String,
  )

/** `nibl bench`. @param {string[]} command @param {Case} item @returns {Promise<Session>} */
export async function openNibl(command, item) {
  /** @type {Facts} */
  let facts
  return {
    async sample(trial) {
      const { results, ...about } = JSON.parse(
        await run([...command, 'bench', item.file.path, ...options(trial, item), '-o', 'json']),
      )
      facts = { about: about.isa, load: about.load_seconds * 1e3, memory: about.process_peak }
      return { perSecond: results[0].median, cpu: results[0].cpu_seconds_per_token ?? undefined }
    },
    facts: () => facts,
    close: async () => {},
  }
}

/** llama-bench: its progress lines tell when it has loaded, and when the test proper begins.
 * @param {Case} item @returns {Promise<Session>} */
export async function openLlama(item) {
  /** @type {Facts} */
  let facts
  return {
    async sample(trial) {
      const start = performance.now()
      let [loaded, peak, begin] = [0, 0, read()]
      const command = [llamaBench, '-m', join(root, item.file.path), ...options(trial, item), '-o', 'jsonl', '--progress']
      const out = await run(command, (line, pid) => {
        if (/: warmup /.test(line)) loaded ||= performance.now() - start
        if (!/: (prompt|generation) run /.test(line)) return
        begin = read()
        peak = peakMemory(pid)
      })
      const cpu = since(begin).cpu / trial.count
      const result = JSON.parse(out)
      facts = { about: item.about ?? result.backends, load: loaded, memory: peak }
      return { perSecond: result.avg_ts, cpu }
    },
    facts: () => facts,
    close: async () => {},
  }
}

/** What Node 24 itself takes to fetch, measured: what a load over HTTP may take beside the model and its own. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { node24 } from './hosts.js'

const program = `import { readFileSync } from 'node:fs'
import { Worker } from 'node:worker_threads'
const memory = (name) => Number(new RegExp('^' + name + ':\\\\s+(\\\\d+) kB', 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
const script = \`const { workerData } = process.getBuiltinModule('node:worker_threads')
  fetch(workerData, { headers: { Range: 'bytes=0-268435455' } }).then(async ({ body }) => {
    const reader = body.getReader({ mode: 'byob' })
    for (let buffer = new ArrayBuffer(1 << 19); ; ) {
      const { value, done } = await reader.read(new Uint8Array(buffer))
      if (done) return
      buffer = value.buffer
    }
  })\`
const run = (url) => new Promise((resolve) => new Worker(script, { eval: true, workerData: url }).once('exit', resolve))
await run('data:,')
const before = memory('VmRSS')
await run(process.argv[1])
console.log(memory('VmHWM') - before)`

/** Bytes that the process grows by where a worker reads up to 256 MiB of a URL into one buffer and keeps nothing.
 * @param {string} url @returns {Promise<number>} */
export async function fetchAlone(url) {
  const child = spawn(node24, ['--input-type=module', '--eval', program, url], { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (data) => (text += data))
  const [code] = await once(child, 'close')
  assert.equal(code, 0)
  return Number(text)
}

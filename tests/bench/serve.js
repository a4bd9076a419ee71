// `nibl serve` under load: `node tests/bench/serve.js [MODEL] [--tokens N] [--streams 1,4,16] [--requests N]`.
// Tokens per second of all streams together, then of the same answers without HTTP; with --requests so many requests, good
// and bad, and what memory they leave (a tiny model will do: MODEL tests/fixtures/tiny-llama-q4_1.gguf).

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { load } from '../../web/nibl.js'
import { completion, mixedRequests } from './requests.js'

const fromRoot = (/** @type {string} */ path) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const { values, positionals } = parseArgs({
  options: { tokens: { type: 'string', default: '64' }, streams: { type: 'string', default: '1,4,16' }, requests: { type: 'string' }, seed: { type: 'string', default: '1' } },
  allowPositionals: true,
})
const model = positionals[0] ?? fromRoot('.models/SmolLM2-135M-Instruct.Q4_1.gguf')
const tokens = Number(values.tokens)
const counts = values.streams.split(',').map(Number)
const most = Math.max(...counts)

/** @param {(i: number, first: () => void) => Promise<number>} answer @param {number} streams tokens a second behind the first one of each */
async function rate(answer, streams) {
  let begin = 0
  let started = 0
  const done = await Promise.all(Array.from({ length: streams }, (_, i) => answer(i, () => ++started === streams && (begin = performance.now()))))
  return done.reduce((sum, count) => sum + count - 1, 0) / ((performance.now() - begin) / 1000)
}

const child = spawn(process.execPath, [fromRoot('web/bin/nibl.js'), 'serve', model, '--port', '0', '-np', String(most), '-c', '512'], { stdio: ['ignore', 'pipe', 'inherit'] })
const [line] = await once(child.stdout, 'data')
const url = /at (http\S+)\/v1/.exec(String(line))?.[1]
process.stdout.write(String(line))

/** @param {number} i @param {() => void} first */
async function stream(i, first) {
  const response = await fetch(`${url}/v1/completions`, { method: 'POST', body: JSON.stringify(completion(i, tokens)) })
  let count = 0
  let rest = ''
  const decoder = new TextDecoder()
  for await (const part of /** @type {any} */ (response.body)) {
    const events = (rest + decoder.decode(part, { stream: true })).split('\n\n')
    rest = String(events.pop())
    for (const event of events) if (event.includes('"text":"')) count++
    if (count) first()
  }
  return tokens
}

const memory = async () => Number(/memory_bytes (\d+)/.exec(await (await fetch(`${url}/metrics`)).text())?.[1]) / 2 ** 20

try {
  if (values.requests) await storm(Number(values.requests))
  else {
    await rate(onceFirst(stream), 1)
    const found = []
    for (const streams of counts) found.push([streams, await rate(onceFirst(stream), streams)])
    for (const [streams, value] of found) console.log(`HTTP ${streams} streams: ${value.toFixed(1)} tok/s, ${(value / found[0][1]).toFixed(2)} x`)
  }
} finally {
  child.kill()
  await once(child, 'exit')
}

if (!values.requests) {
  const local = await load(model, { sessions: most, contextLength: 512 })
  const own = onceFirst(async (i, first) => {
    for await (const piece of local.generate(completion(i, tokens).prompt, { maxTokens: tokens, logitBias: { 0: -100, 2: -100 } })) if (piece) first()
    return tokens
  })
  await rate(own, 1)
  let one = 0
  for (const streams of counts) {
    const value = await rate(own, streams)
    one ||= value
    console.log(`generate() ${streams}: ${value.toFixed(1)} tok/s, ${(value / one).toFixed(2)} x`)
  }
  local.close()
}

/** @param {(i: number, first: () => void) => Promise<number>} answer @returns {typeof answer} */
function onceFirst(answer) {
  return (i, first) => {
    let told = false
    return answer(i, () => {
      if (!told) first()
      told = true
    })
  }
}

/** @param {number} requests */
async function storm(requests) {
  const one = mixedRequests(String(url), Number(values.seed))
  /** @type {Map<string, number>} */
  const answers = new Map()
  const begin = performance.now()
  /** @type {number[]} */
  const memories = []
  for (let made = 0; made < requests; ) {
    const burst = Math.min(16, requests - made)
    for (const what of await Promise.all(Array.from({ length: burst }, one))) answers.set(what, (answers.get(what) ?? 0) + 1)
    if (Math.floor((made + burst) / (requests / 10)) > Math.floor(made / (requests / 10))) memories.push(Math.round(await memory()))
    made += burst
  }
  const health = await (await fetch(`${url}/health`)).json()
  console.log(`${requests} requests, ${((performance.now() - begin) / 1000).toFixed(0)} s: ${[...answers].map(([what, n]) => `${what} ${n}`).join(', ')}; ${health.status}; MiB after each tenth: ${memories.join(' ')}`)
}

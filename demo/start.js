#!/usr/bin/env node
// `npm start [-- -p TEXT] [-n N] [--port N] [--once]`: sets up, builds, fetches the default model, serves it on
// loopback, streams it into the WebAssembly build under Node, prints its answer and the figures of that and of the native build.
// On a terminal the page is then served until Ctrl+C.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { build, variants } from '../wasm/build.js'
import { SetupError, main, plan, root, setup } from '../wasm/setup.js'
import { defaultModel, fetchModel, haveModel } from './fetch.js'

/** @typedef {import('../web/nibl.js').Stats} Stats */

const usage = 'usage: npm start [-- -p TEXT] [-n TOKENS] [--port N] [--once]'
const presets = ['native', ...variants.map((variant) => `wasm-${variant}`)]
const buildDiskMB = 25

function options() {
  try {
    const { values } = parseArgs({
      options: {
        prompt: { type: 'string', short: 'p', default: 'Why is the sky blue? Answer in two sentences.' },
        predict: { type: 'string', short: 'n', default: '128' },
        port: { type: 'string', default: '8080' },
        once: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    const [tokens, port] = [Number(values.predict), Number(values.port)]
    if (!Number.isInteger(tokens) || tokens < 1) throw new Error(`-n ${values.predict} is not a number of tokens`)
    if (!Number.isInteger(port) || port < 1 || port > 65535) throw new Error(`--port ${values.port} is not a port`)
    return { ...values, tokens, port }
  } catch (error) {
    console.error(`nibl: ${/** @type {Error} */ (error).message}\n${usage}`)
    process.exit(2)
  }
}

/** The first line: what will be downloaded, what it takes on disk, the steps. @param {string[]} parts */
function announce(parts) {
  const { steps, download, disk } = plan(parts)
  const model = haveModel() ? 0 : Math.round(defaultModel.bytes / 1e6)
  const all = [
    ...steps.map((step) => `set up ${step}`),
    'build',
    ...(model ? [`fetch ${defaultModel.name}`] : []),
    'answer',
  ]
  const cost =
    download + model
      ? `downloads about ${download + model} MB, takes about ${disk + model + buildDiskMB} MB of disk`
      : 'nothing to download'
  console.log(`nibl: ${cost}; steps: ${all.map((step, index) => `${index + 1}. ${step}`).join(', ')}`)
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`
/** @param {number} perSecond */
const speed = (perSecond) => `${perSecond.toFixed(1)} tok/s`

/** Prints rows as a table: a first column of names, the others right-aligned. @param {string[][]} rows */
function printTable(rows) {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)))
  for (const row of rows) {
    const cells = row.map((cell, column) => (column ? cell.padStart(widths[column]) : cell.padEnd(widths[0])))
    console.log(`  ${cells.join('  ')}`.trimEnd())
  }
}

/** Runs the native build on the same question. @param {string} prompt @param {number} tokens @param {number} threads */
function nativeAnswer(prompt, tokens, threads) {
  const args = [
    'run',
    defaultModel.file,
    '-p',
    prompt,
    '-n',
    String(tokens),
    '-t',
    String(threads),
    '--temp',
    '0',
    '--logits-hash',
    '--json',
  ]
  return new Promise((done, fail) => {
    const child = spawn(join(root, 'build/native/nibl'), args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let [out, err] = ['', '']
    child.stdout.on('data', (data) => (out += data))
    child.stderr.on('data', (data) => (err += data))
    child.on('error', fail)
    child.on('close', (code) =>
      code === 0 ? done(JSON.parse(out)) : fail(new SetupError(`the native build failed: ${err}`)),
    )
  })
}

/**
 * Loads the model over HTTP and prints its answer as it comes.
 * @param {string} url
 * @param {string} prompt
 * @param {number} tokens
 */
async function wasmAnswer(url, prompt, tokens) {
  const { load } = await import('../web/nibl.js')
  const model = await load(url)
  try {
    console.log(`\n> ${prompt}\n`)
    let text = ''
    for await (const piece of model.generate([{ role: 'user', content: prompt }], {
      maxTokens: tokens,
      temperature: 0,
    })) {
      process.stdout.write(piece.text)
      text += piece.text
    }
    console.log('\n')
    return { text, info: model.info, stats: model.stats }
  } finally {
    model.close()
  }
}

const { prompt, tokens, port, once, help } = options()
if (help) {
  console.log(usage)
} else {
  await main(async () => {
    const parts = ['native', 'modules', 'wasm']
    announce(parts)
    await setup(parts)
    await build(presets, { tests: false })
    await fetchModel()

    const { serve } = await import('./serve.js')
    const staying = process.stdout.isTTY && !once
    const server = await serve({ port: staying ? port : 0 })
    const { text, info, stats } = await wasmAnswer(
      `${server.url}model/${defaultModel.file.split('/').pop()}`,
      prompt,
      tokens,
    )
    const native = await nativeAnswer(prompt, tokens, info.threads)

    console.log(`${defaultModel.name} ran in ${info.binary}: ${info.why}`)
    printTable([
      ['', 'prefill', 'decode', 'load', 'memory', 'weights', 'logits'],
      [
        `WebAssembly (${info.binary})`,
        speed(stats.prefill.tokensPerSecond),
        speed(stats.decode.tokensPerSecond),
        `${stats.load.seconds.toFixed(2)} s`,
        megabytes(stats.memory.linear),
        megabytes(stats.memory.weights),
        stats.hash,
      ],
      [
        `native (${native.isa})`,
        speed(native.prefill_per_second),
        speed(native.decode_per_second),
        `${native.load_seconds.toFixed(2)} s`,
        megabytes(native.memory.process_peak),
        megabytes(native.memory.weights),
        native.logits_hash,
      ],
    ])
    if (native.text.trim() !== text.trim())
      throw new SetupError(`the native build answered differently: ${native.text}`)

    if (!staying) return server.close()
    console.log(`\nThe page: ${server.url}demo/ (Ctrl+C ends)`)
  })
}

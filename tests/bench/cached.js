#!/usr/bin/env node
// Loads of the default model from the cache in Chromium: nibl and wllama, each in a page of its own, beside reading the same
// file from the origin's private file system and doing nothing with it. In turns, so that the machine's moods fall on all. nibl
// as a bundler makes it (nibl and its worker a file each), as wllama comes; and module by module, each of which is fetched anew.
//
//   node tests/bench/cached.js [rounds]

import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { defaultModel, fetchModel } from '../../demo/fetch.js'
import { build } from '../../wasm/build.js'
import { main, root } from '../../wasm/setup.js'
import { installPeer } from './peers.js'
import { serve } from './server.js'

const rounds = Number(process.argv[2] ?? 5)

/** What runs in the page; each gives milliseconds. @type {Record<string, (url: string) => Promise<number>>} */
const cases = {
  'nibl, 1 thread': (url) => loadHere(url, 1, '/build/cached/nibl.js'),
  'nibl, 2 threads': (url) => loadHere(url, 2, '/build/cached/nibl.js'),
  'nibl, 1 thread, modules': (url) => loadHere(url, 1, '/web/nibl.js'),
  async wllama(url) {
    const folder = '/.toolchain/peers/node_modules/@wllama/wllama/esm'
    const { Wllama } = await import(`${folder}/index.js`)
    const begin = performance.now()
    const wllama = new Wllama({ default: `${folder}/wasm/wllama.wasm` }, { suppressNativeLog: true })
    await wllama.loadModelFromUrl(url, { useCache: true, n_threads: 2, n_gpu_layers: 0, n_ctx: 4096 })
    const end = performance.now()
    await wllama.exit()
    return end - begin
  },
  /** A sync access handle in a worker, into one buffer of 1 MiB. */
  async 'OPFS, one buffer'() {
    return readHere(1)
  },
  /** The same, into as many buffers as there are bytes: memory that was never touched. */
  async 'OPFS, new memory'() {
    return readHere(Infinity)
  },
  async 'OPFS, File.arrayBuffer()'() {
    const folder = await (await (await navigator.storage.getDirectory()).getDirectoryHandle('nibl')).getDirectoryHandle('models')
    for await (const [name, handle] of /** @type {any} */ (folder).entries()) {
      if (!name.endsWith('.data')) continue
      const begin = performance.now()
      await (await handle.getFile()).arrayBuffer()
      return performance.now() - begin
    }
    throw new Error('there is no file')
  },
}

/** Put into the page. @param {string} url @param {number} threads @param {string} module */
async function loadHere(url, threads, module) {
  const { load } = await import(module)
  const begin = performance.now()
  const model = await load(url, { cache: true, threads })
  const end = performance.now()
  model.close()
  return end - begin
}

/** nibl as a bundler makes it. */
async function bundle() {
  const { build } = await import('esbuild')
  const entryPoints = ['nibl.js', 'worker.js'].map((name) => join(root, 'web', name))
  const outdir = join(root, 'build/cached')
  await build({ entryPoints, outdir, bundle: true, minify: true, format: 'esm', target: 'es2022', external: ['./dist/*'], logLevel: 'error' })
  for (const name of ['relaxed', 'relaxed-threads']) for (const end of ['js', 'wasm']) cpSync(join(root, `web/dist/nibl-${name}.${end}`), join(outdir, `dist/nibl-${name}.${end}`))
}

/** Put into the page. @param {number} buffers @returns {Promise<number>} */
function readHere(buffers) {
  const script = `onmessage = async ({ data: buffers }) => {
    const folder = await (await (await navigator.storage.getDirectory()).getDirectoryHandle('nibl')).getDirectoryHandle('models')
    for await (const [name, handle] of folder.entries()) {
      if (!name.endsWith('.data')) continue
      const begin = performance.now()
      const access = await handle.createSyncAccessHandle()
      const size = access.getSize()
      const memory = new Uint8Array(Math.min(size, buffers * 2 ** 20))
      for (let at = 0; at < size; at += 2 ** 20) {
        const start = buffers === 1 ? 0 : at
        access.read(memory.subarray(start, start + Math.min(2 ** 20, size - at)), { at })
      }
      const end = performance.now()
      access.close()
      postMessage(end - begin)
    }
  }`
  const worker = new Worker(URL.createObjectURL(new Blob([script])))
  return new Promise((resolve) => {
    worker.onmessage = ({ data }) => {
      worker.terminate()
      resolve(data)
    }
    worker.postMessage(buffers)
  })
}

await main(async () => {
  await fetchModel()
  await build(['wasm-relaxed', 'wasm-relaxed-threads'])
  await bundle()
  await installPeer.npm()
  const { origin, close } = await serve()
  const { chromium } = await import('playwright-core')
  const profile = mkdtempSync(join(tmpdir(), 'nibl-cached-'))
  const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
  const context = await chromium.launchPersistentContext(profile, { executablePath, args: ['--no-sandbox', '--disable-gpu'] })
  const url = `${origin}/${relative(root, defaultModel.file)}`
  /** @type {Record<string, number[]>} */
  const taken = {}
  try {
    for (let round = 0; round <= rounds; round++) {
      for (const [name, run] of Object.entries(cases)) {
        const page = await context.newPage()
        await page.goto(origin)
        await page.addScriptTag({ content: `${readHere}\n${loadHere}` })
        const code = String(run).replace(/^async ('[^']*'|\w+)/, 'async function ')
        const ms = /** @type {number} */ (await page.evaluate(`(${code})(${JSON.stringify(url)})`))
        if (round > 0) (taken[name] ??= []).push(ms) /* the first one fills */
        await page.close()
      }
    }
  } finally {
    await context.close()
    close()
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
  }
  const { size } = statSync(defaultModel.file)
  for (const [name, all] of Object.entries(taken)) {
    const sorted = all.sort((a, b) => a - b)
    const median = sorted[sorted.length >> 1]
    const [least, most] = [sorted[0], sorted[sorted.length - 1]].map((ms) => ms.toFixed(0))
    console.log(`${name.padEnd(26)} ${median.toFixed(0).padStart(5)} ms (${least} to ${most}), ${(size / median / 1e6).toFixed(2)} GB/s`)
  }
})

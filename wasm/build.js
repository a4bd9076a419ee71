#!/usr/bin/env node
// Configures and builds CMake presets: `node wasm/build.js [--no-tests] [preset ...]`. Without names: the native build
// and the six WebAssembly variants, followed by the gzip size of everything a page must fetch besides the model.

import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { SetupError, isProgram, main, progress, replaceFile, root, setup } from './setup.js'

export const variants = [
  'simd128', 'relaxed', 'simd128-threads', 'relaxed-threads', 'simd128-memory64', 'relaxed-memory64',
]
export const wasmPresets = variants.map((variant) => `wasm-${variant}`)

/**
 * The parts of wasm/setup.js that presets need.
 * @param {string[]} presets
 * @returns {string[]}
 */
export function partsOf(presets) {
  const parts = presets.flatMap((preset) => {
    if (preset.startsWith('wasm-')) return ['native', 'wasm']
    if (preset.startsWith('wasi')) return ['native', 'wasi']
    if (preset === 'aarch64') return ['native', 'aarch64']
    return ['asan', 'tsan', 'fuzz'].includes(preset) ? ['native', 'fuzz'] : ['native']
  })
  return [...new Set(parts)]
}

/**
 * Runs cmake; what it printed is shown only when it fails.
 * @param {string[]} args
 * @param {(line: string) => void} [onLine]
 */
function cmake(args, onLine) {
  return /** @type {Promise<void>} */ (
    new Promise((done, fail) => {
      const child = spawn('cmake', args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
      let log = ''
      /** @param {Buffer} data */
      const keep = (data) => {
        log += data
        String(data)
          .split('\n')
          .forEach((line) => onLine?.(line))
      }
      child.stdout.on('data', keep)
      child.stderr.on('data', keep)
      child.on('error', (error) => fail(new SetupError(`cannot run cmake: ${error.message}`)))
      child.on('close', (code) => {
        if (code === 0) return done()
        const words = log.split('\n').filter((line) => line && !/^\[ *\d+%\]/.test(line))
        fail(new SetupError(`cmake ${args.join(' ')} failed:\n${words.slice(-60).join('\n')}`))
      })
    })
  )
}

/**
 * Configures a preset where that was not done or is out of date; a build by another compiler is thrown away.
 * @param {string} preset
 */
async function configure(preset) {
  const dir = join(root, 'build', preset)
  const compiler = preset.startsWith('wasm-') ? 'emcc' : preset.startsWith('wasi') ? 'wasi-clang' : ''
  /** @param {string} file */
  const text = (file) => (fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : '')
  const [used, wanted] = [join(dir, 'compiler'), compiler && text(join(root, '.toolchain/bin', compiler))]
  if (text(used) !== wanted) fs.rmSync(dir, { recursive: true, force: true })
  const made = fs.statSync(join(dir, 'CMakeCache.txt'), { throwIfNoEntry: false })?.mtimeMs ?? 0
  const inputs = ['CMakePresets.json', 'wasm/emscripten.cmake', 'wasm/wasi.cmake'].map((file) => join(root, file))
  if (made && inputs.every((file) => fs.statSync(file).mtimeMs < made)) return
  await cmake(['--preset', preset])
  if (wanted) fs.writeFileSync(used, wanted)
  fs.utimesSync(join(dir, 'CMakeCache.txt'), new Date(), new Date())
}

/**
 * Brings the tools, configures where needed and builds. Progress goes to stderr when something is compiled.
 * @param {string[]} presets
 * @param {{ tests?: boolean }} [options] tests: false builds only the command or the variant
 */
export async function build(presets, { tests = true } = {}) {
  await setup(partsOf(presets))
  /** @type {ReturnType<typeof progress> | undefined} */
  let bar
  try {
    for (const [index, preset] of presets.entries()) {
      await configure(preset)
      const target = tests ? [] : ['--target', preset.startsWith('wasm-') ? 'variant' : 'nibl']
      await cmake(['--build', '--preset', preset, `-j${availableParallelism()}`, ...target], (line) => {
        const percent = /^\[ *(\d+)%\] Building/.exec(line)
        if (!percent) return
        bar ??= progress(`build ${presets.length > 1 ? 'all' : preset}`, 0)
        bar.show((index + Number(percent[1]) / 101) / presets.length)
      })
      /* What `npx nibl` runs. */
      if (preset === 'wasi') replaceFile(join(root, 'web/dist/nibl-cli.wasm'), fs.readFileSync(join(root, 'build/wasi/nibl.wasm')))
    }
    bar?.done()
    /* Bundled anew each time: a module may have changed. It needs the development's modules. */
    const isWhole = wasmPresets.every((preset) => presets.includes(preset))
    if (isWhole && fs.existsSync(join(root, 'node_modules/esbuild'))) await (await import('./one.js')).writeOne(variants)
  } catch (error) {
    bar?.done(false)
    throw error
  }
}

/** What a page fetches besides the model, for each variant, with gzip.
 * @param {(file: string) => string | Uint8Array} [sent] what is sent of a file */
export function pageSizes(sent = (file) => fs.readFileSync(file)) {
  /** @param {string} file */
  const size = (file) => gzipSync(sent(file), { level: 9 }).length
  const web = join(root, 'web')
  /** A module and what it imports at its top; of the worker, which imports nothing there, what it asks for first.
   * @param {string} name @param {Set<string>} [seen] */
  const withImports = (name, seen = new Set()) => {
    if (seen.has(name)) return seen
    seen.add(name)
    const text = fs.readFileSync(join(web, name), 'utf8')
    const pattern = name === 'worker.js' ? /import\('\.\/([\w-]+\.js)'\)/g : /^(?:import|export) .*from '\.\/([\w-]+\.js)'/gm
    for (const [, imported] of text.matchAll(pattern)) withImports(imported, seen)
    return seen
  }
  const modules = [...withImports('worker.js', withImports('nibl.js'))].map((name) => join(web, name))
  const jinja = join(root, 'node_modules/@huggingface/jinja/dist/index.js')
  const javascript = [...modules, jinja]
    .filter((file) => fs.existsSync(file))
    .reduce((sum, file) => sum + size(file), 0)
  return variants.map((variant) => {
    const glue = size(join(web, 'dist', `nibl-${variant}.js`))
    const wasm = size(join(web, 'dist', `nibl-${variant}.wasm`))
    return { variant, javascript, glue, wasm, total: javascript + glue + wasm }
  })
}

if (isProgram(import.meta.url)) {
  const names = process.argv.slice(2).filter((arg) => arg !== '--no-tests')
  await main(async () => {
    await build(names.length ? names : ['native', ...wasmPresets], { tests: !process.argv.includes('--no-tests') })
    if (names.length) return
    const one = join(root, 'web/dist/nibl.one.js')
    if (fs.existsSync(one)) {
      const text = fs.readFileSync(one)
      console.log(`${one.slice(root.length + 1)}, the package in one file: ${text.length} bytes, ${gzipSync(text, { level: 9 }).length} with gzip`)
    }
    console.log('gzip bytes a page fetches besides the model (JavaScript as it is written; demo/publish.js makes it smaller):')
    for (const { variant, javascript, glue, wasm, total } of pageSizes()) {
      console.log(
        `  ${variant.padEnd(16)} ${String(total).padStart(7)}  (JavaScript ${javascript}, glue ${glue}, wasm ${wasm})`,
      )
    }
  })
}

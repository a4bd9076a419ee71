#!/usr/bin/env node
// Runs the tests: `node tests/run.js [--quick] [--strict] [--seconds=N] [part ...]`; without names all parts that belong
// to a full (or, with --quick, a quick) run. Each part brings the tools it needs, builds what it needs and is counted; the
// last line is the sum. --strict fails when something was skipped. --seconds is the time of each fuzz target. Two parts run
// at a time, one of C and one of JavaScript, which waits more than it computes; each is shown when it has ended.

import { AsyncLocalStorage } from 'node:async_hooks'
import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join, relative } from 'node:path'
import { defaultModel, fetchModel } from '../demo/fetch.js'
import { build, partsOf, wasmPresets } from '../wasm/build.js'
import { SetupError, main, root, setup } from '../wasm/setup.js'

/**
 * @typedef {{ passed: number, failed: number, skipped: number }} Counts
 * @typedef {object} Part
 * @property {string} about
 * @property {boolean} [quick]      belongs to `npm run check`
 * @property {string[]} [setup]     parts of wasm/setup.js
 * @property {string[]} [build]     presets
 * @property {boolean} [script]     JavaScript: runs beside a part of C
 * @property {boolean} [alone]      runs beside no other: it builds
 * @property {boolean} [model]      needs the default model; tests find its path, relative to the root, in NIBL_MODEL
 * @property {() => (() => Promise<Counts>)[]} steps
 */

const flags = process.argv.slice(2).filter((arg) => arg.startsWith('--'))
// The README's test runs the commands that the README names, this one among them.
const named = process.env.NIBL_TEST_PARTS?.split(' ') ?? process.argv.slice(2).filter((arg) => !arg.startsWith('--'))
const strict = flags.includes('--strict')
const quick = flags.includes('--quick')
const fuzzSeconds = Number(flags.find((flag) => flag.startsWith('--seconds='))?.slice(10) ?? 20)
const stepMinutes = 15

const node24 = join(root, '.toolchain/bin/node24')
const architecture = 'tests/web/architecture.test.js'
/** Where a test is many runs. */
const long = { NIBL_TEST_SECONDS: '540' }

// ---- Running and counting ------------------------------------------------------------------------------------------

/** What a part has to say, where it is not the only one. @type {AsyncLocalStorage<{ text: string }>} */
const hidden = new AsyncLocalStorage()

/** @param {string} text */
function say(text, page = hidden.getStore()) {
  if (page) page.text += text
  else process.stdout.write(text)
}

/** Says a line. @param {string} line */
const tell = (line) => say(`${line}\n`)

/**
 * Runs a program in the root, its output shown.
 * @param {string[]} command
 * @param {Record<string, string>} [env]
 * @returns {Promise<{ ok: boolean, text: string }>}
 */
function run([program, ...args], env = {}) {
  return new Promise((done) => {
    const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
    tell(`$ ${[...variables, program.replace(`${root}/`, ''), ...args].join(' ')}`)
    const child = spawn(program, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    const page = hidden.getStore()
    let text = ''
    child.stdout.on('data', (data) => {
      text += data
      say(String(data), page)
    })
    child.stderr.on('data', (data) => say(String(data), page))
    const kill = () => {
      try {
        process.kill(-Number(child.pid), 'SIGKILL')
      } catch {
        /* all of them have ended */
      }
    }
    const timer = setTimeout(() => {
      tell(`killed after ${stepMinutes} minutes`)
      kill()
    }, stepMinutes * 60e3)
    process.once('exit', kill)
    child.on('error', (error) => tell(`cannot run ${program}: ${error.message}`))
    child.on('exit', kill) /* what a test has left behind that was ended */
    child.on('close', (code) => {
      clearTimeout(timer)
      process.removeListener('exit', kill)
      done({ ok: code === 0, text })
    })
  })
}

let reports = 0

/**
 * Runs a command that writes a report, and reads that.
 * @param {(file: string) => string[]} command
 * @param {Record<string, string>} [env]
 */
async function runWithReport(command, env) {
  const file = join(root, 'build', `report-${process.pid}-${reports++}`)
  fs.mkdirSync(join(root, 'build'), { recursive: true })
  const { ok } = await run(command(file), env)
  const report = fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
  fs.rmSync(file, { force: true })
  return { ok, report }
}

/** A part without tests is a failure. @returns {Counts} */
function none() {
  tell('there are no such tests')
  return { passed: 0, failed: 1, skipped: 0 }
}

/** One program is one test. @type {(command: string[], env?: Record<string, string>) => Promise<Counts>} */
async function program(command, env) {
  const { ok } = await run(command, env)
  return { passed: Number(ok), failed: Number(!ok), skipped: 0 }
}

/** checkkern counts its kernels; those that this CPU cannot run are named in its output and are no skipped tests.
 * @type {(command: string[], env?: Record<string, string>) => Promise<Counts>} */
async function checkkern(command, env) {
  const { ok, text } = await run(command, env)
  const [passed, failed] = (/^(\d+) passed, (\d+) failed/m.exec(text)?.slice(1) ?? ['0', '1']).map(Number)
  return { passed, failed: Math.max(failed, Number(!ok)), skipped: 0 }
}

/** @param {string} preset @returns {Promise<Counts>} */
async function ctest(preset) {
  const { ok, report } = await runWithReport((file) => [
    'ctest',
    '--preset',
    preset,
    `-j${availableParallelism()}`,
    '--output-junit',
    file,
  ])
  const suite = /<testsuite [^>]*>/s.exec(report)?.[0] ?? ''
  /** @param {string} name */
  const number = (name) => Number(new RegExp(`${name}="(\\d+)"`).exec(suite)?.[1] ?? 0)
  const [tests, failures, skipped] = ['tests', 'failures', 'skipped'].map(number)
  return { passed: tests - failures - skipped, failed: Math.max(failures, Number(!ok)), skipped }
}

/** Runs test files of node:test. A test that hangs ends its file, and is named (limit.js). @param {string} program
 * @param {string[]} files @param {Record<string, string>} [env] @returns {Promise<Counts>} */
async function nodeTests(program, files, env) {
  if (!files.length) return none()
  const { ok, report } = await runWithReport((file) => [
    program,
    '--import=./tests/limit.js',
    '--test',
    '--test-concurrency=1',
    '--test-timeout=600000',
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    '--test-reporter=tap',
    `--test-reporter-destination=${file}`,
    ...files,
  ], { NIBL_TEST_SECONDS: '120', ...env })
  /** @param {string} name */
  const number = (name) => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(report)?.[1] ?? 0)
  const failed = number('fail') + number('cancelled')
  return { passed: number('pass'), failed: Math.max(failed, Number(!ok)), skipped: number('skipped') + number('todo') }
}

/** @param {string} dir @param {string} suffix @returns {string[]} sorted paths relative to the root */
function filesIn(dir, suffix) {
  const folder = join(root, dir)
  return fs.existsSync(folder)
    ? fs
        .readdirSync(folder)
        .filter((name) => name.endsWith(suffix))
        .sort()
        .map((name) => join(dir, name))
    : []
}

const webTests = () => filesIn('tests/web', '.test.js').filter((file) => file !== architecture)

/** All C but generated tables. */
const cFiles = () =>
  ['core', 'kernels', 'wasm', 'tests'].flatMap((dir) =>
    fs
      .readdirSync(join(root, dir), { recursive: true })
      .map((name) => join(dir, String(name)))
      .filter((file) => /\.[ch]$/.test(file) && file !== 'core/unicode_tables.h'),
  )

/** The kernel checker with every ISA of the table as the cap. @param {string[]} command @param {string} family */
function kernelChecks(command, family) {
  const isas = new Set(filesIn(`kernels/${family}`, '.c').map((file) => /_([a-z0-9]+)\.c$/.exec(file)?.[1] ?? ''))
  return ['scalar', ...isas].map((isa) => () => checkkern(command, { NIBL_ISA: isa }))
}

/** @param {string} target */
function fuzz(target) {
  const found = join(root, 'build/fuzz/found', target)
  const kept = join(root, 'tests/fuzz/corpus', target.replace('fuzz_', ''))
  fs.mkdirSync(found, { recursive: true })
  return program([
    join(root, 'build/fuzz', target),
    `-max_total_time=${fuzzSeconds}`,
    '-timeout=10',
    '-rss_limit_mb=2048',
    '-print_final_stats=0',
    '-verbosity=0',
    `-artifact_prefix=${join(root, 'build/fuzz', `${target}-`)}`,
    found,
    ...(fs.existsSync(kept) ? [kept] : []),
  ])
}

// ---- The parts -----------------------------------------------------------------------------------------------------

/** @type {Record<string, Part>} */
const parts = {
  lint: {
    script: true,
    about: 'format, types, file length, include arrows',
    quick: true,
    setup: ['lint', 'modules', 'devmodules'],
    build: wasmPresets,
    steps: () => [
      () => program(['clang-format-19', '--dry-run', '--Werror', '--ferror-limit=3', ...cFiles()]),
      () => program(['node_modules/.bin/tsc', '-p', '.']),
      () => nodeTests(process.execPath, [architecture]),
    ],
  },
  native: { about: 'C tests', quick: true, build: ['native'], model: true, steps: () => [() => ctest('native')] },
  kernels: {
    about: 'kernels against the reference, natively, for each ISA',
    quick: true,
    build: ['native'],
    steps: () => kernelChecks(['build/native/checkkern'], 'x86'),
  },
  'kernels-wasm': {
    about: 'kernels against the reference, in WebAssembly',
    quick: true,
    setup: ['node24'],
    build: ['wasm-simd128', 'wasm-relaxed'],
    steps: () => [
      () => checkkern([process.execPath, 'build/wasm-simd128/checkkern.cjs']),
      () => checkkern([node24, 'build/wasm-simd128/checkkern.cjs']),
      () => checkkern([node24, 'build/wasm-relaxed/checkkern.cjs']),
    ],
  },
  web: {
    script: true,
    about: 'JavaScript under Node',
    quick: true,
    setup: ['modules'],
    build: ['native', 'wasi', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(process.execPath, webTests())],
  },
  'web-node24': {
    script: true,
    about: 'JavaScript under Node 24, with relaxed SIMD',
    setup: ['modules', 'node24'],
    build: ['native', 'wasi', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(node24, webTests())],
  },
  fetch: {
    script: true,
    about: "the default model's download",
    quick: true,
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/fetch.test.js'])],
  },
  wasi: {
    about: 'C tests and kernels under wasmtime and node:wasi; with relaxed SIMD all but those of portable code that take minutes',
    setup: ['wasmtime', 'node24'],
    build: ['wasi', 'wasi-relaxed'],
    model: true,
    steps: () => [
      () => ctest('wasi'),
      () => ctest('wasi-relaxed'),
      ...['wasi', 'wasi-relaxed'].map(
        (preset) => () => checkkern(['python3', 'wasm/run-wasi.py', '--module', `build/${preset}/checkkern.wasm`]),
      ),
      ...['wasi', 'wasi-relaxed'].map(
        (preset) => () => checkkern([node24, '--no-warnings', 'wasm/node-wasi.js', `build/${preset}/checkkern.wasm`]),
      ),
    ],
  },
  aarch64: {
    about: 'C tests and kernels for ARM under qemu, but those of portable code that take minutes',
    build: ['aarch64'],
    model: true,
    steps: () => [() => ctest('aarch64'), ...kernelChecks(['qemu-aarch64', 'build/aarch64/checkkern'], 'arm')],
  },
  browser: {
    script: true,
    about: 'the library and the page in Chromium',
    setup: ['modules', 'devmodules', 'browser'],
    build: ['native', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(process.execPath, filesIn('tests/browser', '.test.js'), { NIBL_TEST_SECONDS: '300' })],
  },
  firefox: {
    about: 'the library and the page in Firefox',
    setup: ['modules', 'devmodules', 'firefox'],
    build: wasmPresets,
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/engines/engines.test.js'], { NIBL_BROWSER: 'firefox' })],
  },
  webkit: {
    about: 'the same in WebKit, which has neither relaxed SIMD nor shared memory nor a private file system',
    setup: ['modules', 'devmodules', 'webkit'],
    build: wasmPresets,
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/engines/engines.test.js'], { NIBL_BROWSER: 'webkit' })],
  },
  package: {
    script: true,
    about: 'the package as it would be published: its list of files, its types, three bundlers',
    setup: ['modules', 'devmodules', 'browser', 'packagetools'],
    build: ['wasi', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/package.test.js', 'tests/ai-sdk.test.js', 'tests/schemas.test.js'], { NIBL_TEST_SECONDS: '300' })],
  },
  readme: {
    alone: true,
    about: 'every code block of the README',
    setup: ['modules', 'devmodules', 'wasmtime', 'browser'],
    build: ['native', 'wasi', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/readme.test.js'], long)],
  },
  'one-result': {
    script: true,
    about: 'one logits hash on every host, instruction set, number of threads and way of running and loading',
    setup: ['modules', 'devmodules', 'node24', 'wasmtime', 'browser'],
    build: ['native', 'aarch64', 'wasi', 'wasi-relaxed', ...wasmPresets],
    model: true,
    steps: () => [() => nodeTests(process.execPath, ['tests/one-result.test.js', 'tests/one-result-small.test.js', 'tests/arrival.test.js'], long)],
  },
  asan: {
    about: 'C tests with address and undefined-behaviour sanitizers',
    build: ['asan'],
    model: true,
    steps: () => [() => ctest('asan')],
  },
  tsan: {
    about: 'C tests with the thread sanitizer',
    build: ['tsan'],
    model: true,
    steps: () => [() => ctest('tsan')],
  },
  fuzz: {
    about: 'libFuzzer on every parser',
    build: ['fuzz'],
    steps: () =>
      filesIn('tests/fuzz', '.c')
        .filter((file) => basename(file).startsWith('fuzz_'))
        .map((file) => () => fuzz(basename(file, '.c'))),
  },
}

/** One after the other: two parts may want the same tool or build. @type {Promise<unknown>} */
let preparing = Promise.resolve()

/** Brings what a part needs. @param {Part} part @returns {Promise<Counts | undefined>} what the part counts as without it */
function prepare(part) {
  const ready = preparing.then(async () => {
    const none = { passed: 0, failed: 0, skipped: 0 }
    try {
      await setup([...(part.setup ?? []), ...partsOf(part.build ?? [])])
      if (part.model) await fetchModel()
    } catch (error) {
      if (!(error instanceof SetupError)) throw error
      tell(`skipped: ${error.message}`)
      return { ...none, skipped: 1 }
    }
    try {
      await build(part.build ?? [])
    } catch (error) {
      if (!(error instanceof SetupError)) throw error
      tell(error.message)
      return { ...none, failed: 1 }
    }
    return undefined
  })
  preparing = ready.catch(() => {})
  return ready
}

/** @param {Part} part @returns {Promise<Counts>} */
async function runPart(part) {
  const instead = await prepare(part)
  if (instead) return instead
  const sum = { passed: 0, failed: 0, skipped: 0 }
  const steps = part.steps()
  if (!steps.length) return none()
  for (const step of steps) {
    const counts = await step()
    sum.passed += counts.passed
    sum.failed += counts.failed
    sum.skipped += counts.skipped
  }
  return sum
}

/** @typedef {Counts & { name: string, seconds: number }} Row */

/** Runs parts two at a time. @param {[string, Part][]} chosen @returns {Promise<Row[]>} in the order they were chosen */
async function runParts(chosen) {
  /** @type {Map<string, Row>} */
  const rows = new Map()
  /** @param {[string, Part]} named */
  const runOne = async ([name, part]) => {
    tell(`\n==== ${name}: ${part.about}`)
    const started = performance.now()
    const counts = await runPart(part)
    rows.set(name, { name, ...counts, seconds: (performance.now() - started) / 1000 })
  }
  const left = chosen.filter(([, { alone }]) => !alone)
  /** A lane takes parts of its own kind first. @param {boolean} script */
  const lane = async (script) => {
    while (left.length) {
      const own = left.findIndex(([, part]) => Boolean(part.script) === script)
      const [next] = left.splice(Math.max(own, 0), 1)
      const page = { text: '' }
      await hidden.run(page, () => runOne(next)).finally(() => process.stdout.write(page.text))
    }
  }
  if (left.length > 1 && availableParallelism() > 1) await Promise.all([lane(true), lane(false)])
  else for (const part of left) await runOne(part)
  for (const part of chosen.filter(([, { alone }]) => alone)) await runOne(part)
  return chosen.flatMap(([name]) => rows.get(name) ?? [])
}

process.env.NIBL_MODEL = relative(root, defaultModel.file)

await main(async () => {
  const unknown = named.filter((name) => !Object.hasOwn(parts, name))
  if (unknown.length) throw new SetupError(`no part '${unknown[0]}'; there are: ${Object.keys(parts).join(' ')}`)
  const chosen = Object.entries(parts).filter(([name, part]) =>
    named.length ? named.includes(name) : !quick || part.quick,
  )
  const rows = await runParts(chosen)
  const sum = { passed: 0, failed: 0, skipped: 0 }
  console.log('')
  for (const { name, passed, failed, skipped, seconds } of rows) {
    console.log(`${name.padEnd(14)} ${passed} passed, ${failed} failed, ${skipped} skipped (${seconds.toFixed(1)} s)`)
    sum.passed += passed
    sum.failed += failed
    sum.skipped += skipped
  }
  console.log(`${sum.passed} passed, ${sum.failed} failed, ${sum.skipped} skipped`)
  if (sum.failed || (strict && sum.skipped)) process.exitCode = 1
})

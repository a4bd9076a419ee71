/** The package as it would be published: what is in it, what checkers say, and pages that three bundlers make with it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { chromium } from 'playwright-core'
import { load } from 'nibl'
import { serve } from '../demo/serve.js'
import { variants } from '../wasm/build.js'
import { folder, root } from '../wasm/setup.js'
import { answerTokens } from './web/support.js'

const tools = join(folder('packagetools'), 'node_modules')
const place = mkdtempSync(join(tmpdir(), 'nibl-package-'))
after(() => rmSync(place, { recursive: true }))

/** @param {string} tool @param {string[]} args @param {string} cwd */
const run = (tool, args, cwd) => execFileSync(process.execPath, [join(tools, tool), ...args], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })

const [packed] = JSON.parse(execFileSync('npm', ['pack', '--json', '--pack-destination', place], { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
const tarball = join(place, packed.filename)

test('it holds what a user needs and nothing else', () => {
  const built = variants.flatMap((variant) => [variant, `${variant}-quantize`]).flatMap((variant) => ['d.ts', 'js', 'wasm'].map((kind) => `web/dist/nibl-${variant}.${kind}`))
  const modules = ['web', 'web/bin'].flatMap((dir) => readdirSync(join(root, dir)).filter((name) => /\.(js|d\.ts)$/.test(name)).map((name) => `${dir}/${name}`))
  const expected = ['LICENSE', 'README.md', 'package.json', 'web/dist/nibl-cli.wasm', 'web/dist/nibl.one.js', ...built, ...modules].sort()
  assert.deepEqual(packed.files.map((/** @type {any} */ { path }) => path).sort(), expected)
  const { dependencies, sideEffects, type } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  assert.deepEqual({ dependencies: Object.keys(dependencies), sideEffects, type }, { dependencies: ['@huggingface/jinja'], sideEffects: false, type: 'module' })
})

test('publint and attw have nothing to say', () => {
  assert.match(run('publint/src/cli.js', [tarball, '--strict'], place), /All good/)
  run('@arethetypeswrong/cli/dist/index.js', [tarball, '--profile', 'esm-only', '--exclude-entrypoints', 'dist/*'], place)
})

/** Files of an application that has the package. @returns {string} its folder */
function application() {
  const app = mkdtempSync(join(place, 'app-'))
  const modules = join(app, 'node_modules')
  mkdirSync(join(modules, 'nibl'), { recursive: true })
  mkdirSync(join(modules, '@huggingface'))
  execFileSync('tar', ['xzf', tarball, '-C', join(modules, 'nibl'), '--strip-components', '1'])
  symlinkSync(join(root, 'node_modules/@huggingface/jinja'), join(modules, '@huggingface/jinja'))
  writeFileSync(join(app, 'main.js'), "import { load } from 'nibl'\nglobalThis.load = load\n")
  writeFileSync(join(app, 'index.html'), '<!doctype html><link rel="icon" href="data:,"><script type="module" src="./main.js"></script>')
  return app
}

/** What each bundler needs to be told. @type {Record<string, (app: string, out: string) => any>} options of load() */
const bundlers = {
  vite(app, out) {
    writeFileSync(join(app, 'vite.config.js'), "export default { worker: { format: 'es' }, base: './' }\n")
    run('vite/bin/vite.js', ['build', '--outDir', out, '--logLevel', 'error'], app)
  },
  webpack(app, out) {
    const script = `
      const webpack = require(${JSON.stringify(join(tools, 'webpack'))})
      webpack({ mode: 'production', context: ${JSON.stringify(app)}, entry: './main.js', output: { path: ${JSON.stringify(out)}, filename: 'main.js' } },
        (error, stats) => { if (error || stats.hasErrors()) { console.error(error ?? stats.toString('errors-only')); process.exit(1) } })`
    execFileSync(process.execPath, ['-e', script], { stdio: ['ignore', 'inherit', 'inherit'] })
    cpSync(join(app, 'index.html'), join(out, 'index.html'))
  },
  esbuild(app, out) {
    const nibl = join(app, 'node_modules/nibl/web')
    const program = join(tools, `@esbuild/${process.platform}-${process.arch}/bin/esbuild`)
    const args = ['main.js', `nibl=${nibl}/worker.js`, '--bundle', '--splitting', '--format=esm', '--minify', `--outdir=${out}`, '--log-level=warning']
    execFileSync(program, args, { cwd: app, stdio: ['ignore', 'inherit', 'inherit'] })
    cpSync(join(app, 'index.html'), join(out, 'index.html'))
    cpSync(join(nibl, 'dist'), out, { recursive: true })
    return { workerUrl: 'nibl.js', wasmUrl: './' }
  },
}

test('bundled by vite, webpack and esbuild: threads, and the same tokens as under Node', { timeout: 240000 }, async (t) => {
  const model = await load(join(root, 'tests/fixtures/tiny-llama-q4_1.gguf'))
  const expected = await answerTokens(model, 'Hello', { maxTokens: 6 })
  model.close()
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  t.after(() => browser.close())
  for (const [name, bundle] of Object.entries(bundlers)) {
    const app = application()
    const out = join(app, 'out')
    const options = bundle(app, out)
    const server = await serve({ port: 0, roots: { '/out/': out, '/fixtures/': join(root, 'tests/fixtures') } })
    t.after(() => server.close())
    const page = await browser.newPage()
    await page.goto(`${server.url}out/`)
    await page.waitForFunction(() => 'load' in globalThis)
    for (const threads of [1, 3]) {
      const result = await page.evaluate(async (options) => {
        const model = await /** @type {any} */ (globalThis).load('/fixtures/tiny-llama-q4_1.gguf', options)
        const tokens = []
        for await (const piece of model.generate('Hello', { maxTokens: 6 })) tokens.push(piece.token)
        const { threads } = model.info
        model.close()
        return { tokens, threads }
      }, { ...options, threads })
      assert.deepEqual(result, { tokens: expected, threads }, name)
    }
    await page.close()
  }
})

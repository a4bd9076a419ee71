// Runs every fenced code block of README.md, in order. `model.gguf` stands for the default model. By language:
//   sh      in the root; `nibl` is the native build; `npm test` and `npm run check` run one small part
//   js      under Node as an ES module of this package, or in Chromium when it speaks of `document`
//   html    as a page in Chromium, which must show some text and no error
//   c       built against the installed library with the cmake block before it (else a plain find_package), then run
//   cmake   the CMakeLists.txt of the next c block
//   text    is not run

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { delimiter, join } from 'node:path'
import { after, test } from 'node:test'
import { defaultModel } from '../demo/fetch.js'
import { root } from '../wasm/setup.js'

const folder = join(root, 'build/readme')
const pageMinutes = 2

const plainCMake = `cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES C)
find_package(nibl REQUIRED)
add_executable(example main.c)
target_link_libraries(example PRIVATE nibl::nibl)
`

const importMap = JSON.stringify({
  imports: { nibl: '/web/nibl.js', '@huggingface/jinja': '/node_modules/@huggingface/jinja/dist/index.js' },
})

/** @param {string} text @returns {{ language: string, code: string, line: number }[]} */
function codeBlocks(text) {
  const blocks = []
  for (const match of text.matchAll(/^```([^\n]*)\n([\s\S]*?)^```$/gm)) {
    blocks.push({ language: match[1].trim(), code: match[2], line: text.slice(0, match.index).split('\n').length })
  }
  return blocks
}

/** Runs a program and returns what it printed. @param {string} program @param {string[]} args @param {string} [cwd] */
function run(program, args, cwd = root) {
  /** @type {NodeJS.ProcessEnv} */
  const env = {
    ...process.env,
    PATH: join(root, 'build/native') + delimiter + process.env.PATH,
    NIBL_TEST_PARTS: 'lint',
  }
  delete env.NODE_TEST_CONTEXT
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd, env, encoding: 'utf8', timeout: 10 * 60e3 })
  assert.ifError(error)
  assert.equal(status, 0, `${program} ended with ${status}:\n${(stdout + stderr).slice(-4000)}`)
  return stdout
}

/** @param {string} name @param {string} text */
function write(name, text) {
  const file = join(folder, name)
  fs.mkdirSync(join(file, '..'), { recursive: true })
  fs.writeFileSync(file, text)
  return file
}

/** @type {{ close: () => Promise<void> }[]} */
const open = []
after(() => Promise.all(open.map((item) => item.close())))

/**
 * Shows a page of build/readme in Chromium until it has text (html) or its module has ended (js).
 * @param {string} name
 * @param {string} condition
 */
async function show(name, condition) {
  const { chromium } = await import('playwright-core')
  const { pageRoots, serve } = await import('../demo/serve.js')
  const server = await serve({ port: 0, roots: { ...pageRoots, '/readme/': folder } })
  open.push(server)
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  })
  open.push(browser)
  const page = await browser.newPage()
  /** @type {Promise<never>} */
  const failed = new Promise((_, fail) => {
    page.on('pageerror', fail)
    page.on('console', (message) => {
      const icon = message.location().url.endsWith('/favicon.ico')
      if (message.type() === 'error' && !icon) fail(new Error(`${message.text()} ${message.location().url}`))
    })
  })
  await page.goto(`${server.url}readme/${name}`)
  await Promise.race([failed, page.waitForFunction(condition, undefined, { timeout: pageMinutes * 60e3 })])
}

const inPage = `/model/${defaultModel.file.split('/').pop()}`
let cmakeLists = plainCMake

/** @type {Record<string, (code: string, name: string) => unknown>} */
const languages = {
  sh: (code) => run('sh', ['-euc', code.replaceAll('model.gguf', defaultModel.file)]),
  js: async (code, name) => {
    if (!/\bdocument\b/.test(code)) {
      run(process.execPath, [write(`${name}.mjs`, code.replaceAll('model.gguf', defaultModel.file))])
      return
    }
    write(`${name}.js`, code.replaceAll(/\/?model\.gguf/g, inPage))
    write(
      `${name}.html`,
      `<script type="importmap">${importMap}</script><pre id="out"></pre>
      <script type="module">await import('./${name}.js'); window.ended = true</script>`,
    )
    await show(`${name}.html`, 'window.ended')
  },
  html: async (code, name) => {
    const page = code.replaceAll(/\/?model\.gguf/g, inPage)
    write(`${name}.html`, page.includes('importmap') ? page : `<script type="importmap">${importMap}</script>${page}`)
    await show(`${name}.html`, 'document.body.innerText.trim().length > 0')
  },
  cmake: (code) => {
    cmakeLists = code
  },
  c: (code, name) => {
    write(`${name}/main.c`, code.replaceAll('model.gguf', defaultModel.file))
    write(`${name}/CMakeLists.txt`, cmakeLists)
    cmakeLists = plainCMake
    const [prefix, binary] = [join(folder, 'prefix'), join(folder, name, 'build')]
    run('cmake', ['--install', 'build/native', '--prefix', prefix])
    run('cmake', ['-S', join(folder, name), '-B', binary, `-DCMAKE_PREFIX_PATH=${prefix}`])
    run('cmake', ['--build', binary])
    const program = fs
      .readdirSync(binary, { withFileTypes: true })
      .find((entry) => entry.isFile() && (fs.statSync(join(binary, entry.name)).mode & 0o111) !== 0)
    assert(program, 'the CMakeLists.txt made no program')
    assert.notEqual(run(join(binary, program.name), [defaultModel.file]).trim(), '', 'it printed nothing')
  },
  text: () => {},
}

fs.rmSync(folder, { recursive: true, force: true })
const blocks = codeBlocks(fs.readFileSync(join(root, 'README.md'), 'utf8'))
test('README.md has code blocks', () => assert(blocks.some(({ language }) => language !== 'text')))
for (const { language, code, line } of blocks) {
  test(`README.md:${line} (${language || 'no language'})`, async () => {
    assert(Object.hasOwn(languages, language), `a block of language '${language}' cannot be run`)
    await languages[language](code, `line${line}`)
  })
}

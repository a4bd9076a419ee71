// What the code must look like: formatted C, typed JavaScript, short files, and #include lines that point downward.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { dirname, extname, join, relative } from 'node:path'
import { test } from 'node:test'
import { root } from '../wasm/setup.js'

const maxLines = 700
const sourceKinds = ['.c', '.h', '.def', '.js', '.py', '.sh', '.cmake', '.html', '.css']

// Generated tables; their generators stand beside the fixtures.
const generated = ['core/unicode_tables.h']

/** @param {string} dir @returns {string[]} paths relative to the root */
function filesBelow(dir) {
  return fs.readdirSync(join(root, dir), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .filter((file) => !file.startsWith('web/dist/') && !file.includes('node_modules/') && !file.includes('__pycache__/'))
}

const files = ['core', 'kernels', 'wasm', 'web', 'demo', 'tests'].flatMap(filesBelow)
const cFiles = files.filter((file) => ['.c', '.h'].includes(extname(file)))

/** @param {string} program @param {string[]} args */
function run(program, args) {
  const { status, stdout, stderr, error } = spawnSync(program, args, { cwd: root, encoding: 'utf8' })
  assert.ifError(error)
  assert.equal(status, 0, (stdout + stderr).split('\n').slice(0, 40).join('\n'))
}

test('C is formatted (clang-format-19 -i FILE)', () => {
  run('clang-format-19', ['--dry-run', '--Werror', '--ferror-limit=3', ...cFiles.filter((file) => !generated.includes(file))])
})

test('JavaScript is typed (tsc --checkJs)', () => run('node_modules/.bin/tsc', ['-p', '.']))

test(`no source file has more than ${maxLines} lines`, () => {
  const long = files.filter((file) => sourceKinds.includes(extname(file)) && !generated.includes(file))
    .map((file) => ({ file, lines: fs.readFileSync(join(root, file), 'utf8').split('\n').length - 1 }))
    .filter(({ lines }) => lines > maxLines)
  assert.deepEqual(long, [])
})

// ---- Who may include whom ------------------------------------------------------------------------------------------

/** From the bottom up: a file includes headers of its own row and of the rows before it. A folder ends in '/'. */
const layers = [
  ['kernels/'],
  ['core/nibl'],
  ['core/base', 'core/plat', 'core/plat/', 'core/maths'],
  ['core/dtype'],
  ['core/json', 'core/gguf', 'core/gguf_parts', 'core/gguf_read', 'core/safetensors'],
  ['core/source'],
  ['core/arch', 'core/plan', 'core/model', 'core/inspect'],
  ['core/kvcache'],
  ['core/forward'],
  ['core/index_table', 'core/unicode', 'core/unicode_tables', 'core/text', 'core/alphabet', 'core/special', 'core/bpe',
    'core/pretokenize', 'core/tokenizer', 'core/detokenize', 'core/template', 'core/sampler'],
  ['core/session'],
  ['core/quant/', 'core/eval/'],
]

/** Files outside the library: what they may include. @type {[string, RegExp][]} */
const outside = [
  ['core/cli/', /^core\/(nibl\.h|cli\/)/],
  ['wasm/', /^core\/nibl\.h$/],
]

/** Every file may include these. */
const everywhere = ['core/nibl.h']

/** What the library may include of the kernels. */
const kernelHeaders = ['kernels/kernels.h', 'kernels/blocks.h']

/** @param {string} file @returns {number} the row of a file of the library, or -1 */
function layerOf(file) {
  const stem = file.replace(/\.[a-z]+$/, '')
  return layers.findIndex((row) => row.some((name) => name.endsWith('/') ? file.startsWith(name) : stem === name))
}

/** @param {string} file @param {string} header @returns {string} what is wrong, or '' */
function wrongArrow(file, header) {
  if (everywhere.includes(header)) return ''
  const rule = outside.find(([folder]) => file.startsWith(folder))
  if (rule) return rule[1].test(header) ? '' : `${file} may not include ${header}`
  const [from, to] = [layerOf(file), layerOf(header)]
  if (from < 0 || to < 0) return `${from < 0 ? file : header} is in no row of the table in tests/lint.test.js`
  if (to > from) return `${file} includes ${header}, which stands above it`
  if (to === 0 && from > 0 && !kernelHeaders.includes(header)) return `${file} includes ${header}: only ${kernelHeaders}`
  return ''
}

test('#include arrows point downward', () => {
  const wrong = cFiles.filter((file) => !file.startsWith('tests/')).flatMap((file) => {
    const headers = [...fs.readFileSync(join(root, file), 'utf8').matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)].map((match) => match[1])
    return headers.map((header) => wrongArrow(file, header)).filter(Boolean)
  })
  assert.deepEqual(wrong, [])
})

test('the web modules import nothing from outside web/', () => {
  const wrong = files.filter((file) => file.startsWith('web/') && file.endsWith('.js')).flatMap((file) => {
    const names = [...fs.readFileSync(join(root, file), 'utf8').matchAll(/(?:from|import\()\s*'([^']+)'/g)].map((match) => match[1])
    return names.filter((name) => name.startsWith('.') ? !join(dirname(file), name).startsWith('web/')
      : !name.startsWith('node:') && name !== '@huggingface/jinja').map((name) => `${file} imports ${name}`)
  })
  assert.deepEqual(wrong, [])
})

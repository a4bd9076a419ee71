// Who may call whom, read from the #include lines: web -> wasm/abi.c -> core/nibl.h -> core -> kernels, and downward
// inside core. Also what the library never does: files, network, printing, exit, intrinsics, uncounted memory.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))
const maxLines = 700

/**
 * The layers of the library from the bottom up. A file is named by its path without extension, a folder ends in '/'.
 * A file may include headers of its own layer and of those below.
 * @type {{ name: string, files: string[], system?: RegExp }[]}
 */
const layers = [
  { name: 'public header', files: ['core/nibl'] },
  { name: 'kernel formats', files: ['kernels/blocks'] },
  { name: 'kernels', files: ['kernels/'] },
  { name: 'base', files: ['core/base', 'core/rows', 'core/maths', 'core/index_table', 'core/lookup', 'core/hash'] },
  { name: 'plat', files: ['core/plat', 'core/plat/', 'core/absence', 'core/pool'] },
  { name: 'dtype', files: ['core/dtype', 'core/encode', 'core/encode_parts', 'core/encode_grid', 'core/encode_search', 'core/encode_write'] },
  { name: 'parsers', files: ['core/json', 'core/gguf', 'core/gguf_parts', 'core/gguf_read', 'core/gguf_join', 'core/gguf_build',
    'core/safetensors'] },
  {
    name: 'tokenizer',
    files: ['core/deltas', 'core/unicode', 'core/unicode_tables', 'core/normalize', 'core/normalize_tables', 'core/alphabet', 'core/pieces', 'core/bpe', 'core/pattern', 'core/pretokenize',
      'core/special', 'core/vocabulary', 'core/tokenizer', 'core/detokenize', 'core/jinja', 'core/jinja_tokens',
      'core/jinja_value', 'core/template', 'core/token_trie'],
  },
  { name: 'grammar', files: ['core/grammar', 'core/grammar_read', 'core/grammar_measure', 'core/schema', 'core/schema_values', 'core/schema_members', 'core/schema_parts', 'core/matcher'] },
  { name: 'arch', files: ['core/arch', 'core/hyper'] },
  { name: 'quantized layouts', files: ['core/hf_quant', 'core/hf_quant_bind'] },
  { name: 'model', files: ['core/model', 'core/model_rows', 'core/text'] },
  { name: 'kvcache', files: ['core/kvcache'] },
  { name: 'forward', files: ['core/forward', 'core/run', 'core/layer', 'core/attention', 'core/experts'] },
  { name: 'session', files: ['core/session', 'core/state', 'core/sampler'] },
  { name: 'loader', files: ['core/plan', 'core/hf', 'core/hf_assumed', 'core/hf_config', 'core/hf_family', 'core/hf_tokenizer', 'core/header', 'core/source', 'core/loader', 'core/inspect'] },
  { name: 'quant', files: ['core/quant/'] },
  { name: 'eval', files: ['core/eval/'] },
]

/** What stands outside the library and sees only its public header. @type {[string, RegExp][]} */
const clients = [
  ['core/cli/', /^core\/(nibl\.h|cli\/[a-z_]+\.h)$/],
  ['wasm/', /^core\/nibl\.h$/],
]

/** All that the library above the kernels may see of them. */
const kernelHeaders = /^kernels\/(kernels|blocks|maths|place)\.h$/

/** Headers of C itself; the rest belongs to an OS, a compiler or a CPU. */
const cHeaders = /^(assert|ctype|errno|float|inttypes|limits|math|stdalign|stdarg|stdatomic|stdbool|stddef|stdint|stdio|stdlib|string)\.h$/

/** Who may include more than the headers of C. The first row whose folder or file fits counts. @type {[string, RegExp][]} */
const systemHeaders = [
  ['core/cli/', /./],
  ['core/plat/', /./],
  ['kernels/cpu.c', /^(cpuid|sys\/auxv)\.h$/],
  ['kernels/x86/', /^immintrin\.h$/],
  ['kernels/arm/', /^arm_neon\.h$/],
  ['kernels/wasm/', /^wasm_simd128\.h$/],
]

/** Words the library does not use outside core/cli and core/plat, whatever header brings them. */
const forbidden = [
  { words: /\b(v?f?printf|f?put[cs]|putchar|perror|f?scanf|getchar|fgets)\s*\(|\bstd(in|out|err)\b/, what: 'prints or reads' },
  { words: /\b(fopen|fread|fwrite|fclose|freopen|open|pread|mmap|socket|remove|rename|tmpfile)\s*\(/, what: 'touches files' },
  { words: /\b(exit|_Exit|abort|atexit|signal|raise|setjmp|longjmp)\s*\(/, what: 'may end the program' },
  { words: /\b(getenv|setlocale|system|clock|time|rand|srand)\s*\(/, what: 'depends on its surroundings' },
]
const counted = { words: /\b(malloc|calloc|realloc|aligned_alloc|free)\s*\(/, what: 'takes memory that is not counted' }

/** Generated tables, which may be long. */
const generated = ['core/unicode_tables.h']

/** @param {string} file @param {string} place a folder (ends in '/') or a file, with or without extension */
const stands = (file, place) => place.endsWith('/') ? file.startsWith(place) : file === place || file.replace(/\.\w+$/, '') === place

/** @param {string} file @returns {number} its layer, the most exact name first; -1 where the table has none */
function layerOf(file) {
  const exact = layers.findIndex(({ files }) => files.some(name => !name.endsWith('/') && stands(file, name)))
  return exact >= 0 ? exact : layers.findIndex(({ files }) => files.some(name => stands(file, name)))
}

/** Source without comments and string literals. @param {string} source */
const bare = source => source.replace(/\/\*[^]*?\*\/|\/\/.*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g, ' ')

/** @param {string} file @param {string} header @returns {string | undefined} what is wrong */
function wrongArrow(file, header) {
  const client = clients.find(([folder]) => file.startsWith(folder))
  if (client) return client[1].test(header) ? undefined : `${file} includes ${header}: only the public header is its`
  const [from, to] = [layerOf(file), layerOf(header)]
  if (to < 0) return `${file} includes ${header}, which is in no layer`
  if (header === 'core/nibl.h') return file.startsWith('kernels/') ? `${file} includes core/nibl.h: kernels know no core` : undefined
  if (to > from) return `${file} (${layers[from].name}) includes ${header} (${layers[to].name}), which stands above it`
  if (header.startsWith('kernels/') && file.startsWith('core/') && !kernelHeaders.test(header))
    return `${file} includes ${header}: core sees only what kernels/kernels.h offers`
  const family = /^kernels\/(\w+)\//
  const theirs = header.match(family)
  if (theirs && theirs[1] !== file.match(family)?.[1]) return `${file} includes ${header} of another family`
  return undefined
}

/** @param {string} file @param {string} source @returns {string[]} all that is wrong with the file */
function violations(file, source) {
  const wrong = []
  const isClient = clients.some(([folder]) => file.startsWith(folder))
  if (!isClient && layerOf(file) < 0) return [`${file} is in no layer: name it in the table of tests/web/architecture.test.js`]
  for (const [, header] of source.matchAll(/^[ \t]*#[ \t]*include[ \t]*"([^"]+)"/gm)) wrong.push(wrongArrow(file, header))
  for (const [, header] of source.matchAll(/^[ \t]*#[ \t]*include[ \t]*<([^>]+)>/gm)) {
    const allowed = systemHeaders.find(([place]) => stands(file, place) || file === place)
    if (!cHeaders.test(header) && !allowed?.[1].test(header)) wrong.push(`${file} includes <${header}>`)
  }
  if (!file.startsWith('core/cli/') && !file.startsWith('core/plat/')) {
    const rules = file === 'core/base.c' ? forbidden : [...forbidden, counted]
    for (const { words, what } of rules) {
      const found = bare(source).match(words)
      if (found) wrong.push(`${file} ${what}: ${found[0]}`)
    }
  }
  return wrong.filter(message => message !== undefined)
}

/** @param {string} folder @param {RegExp} kinds @returns {string[]} paths from the root */
function filesBelow(folder, kinds) {
  return fs.readdirSync(path.join(root, folder), { withFileTypes: true }).flatMap(entry => {
    const name = `${folder}/${entry.name}`
    if (entry.isDirectory()) return ['node_modules', '__pycache__', 'dist'].includes(entry.name) ? [] : filesBelow(name, kinds)
    return kinds.test(name) ? [name] : []
  })
}

/** @param {string} file */
const read = file => fs.readFileSync(path.join(root, file), 'utf8')

test('every #include points downward, and the library keeps to itself', () => {
  const files = ['core', 'kernels', 'wasm'].flatMap(folder => filesBelow(folder, /\.(c|h|inc|def)$/))
  assert.ok(files.length > 50, `only ${files.length} files were found`)
  assert.deepEqual(files.flatMap(file => violations(file, read(file))), [])
})

test('every name in the table of layers can be meant', () => {
  const names = layers.flatMap(({ files }) => files)
  assert.equal(new Set(names).size, names.length)
  for (const file of ['core/nibl.h', 'core/base.c', 'core/plat/posix.c', 'kernels/blocks.h', 'kernels/x86/any_avx2.c'])
    assert.ok(layerOf(file) >= 0, file)
})

test('a wrong arrow is seen', () => {
  /** @type {[string, string][]} */
  const wrong = [
    ['core/base.c', '#include "core/model.h"'],
    ['core/gguf.h', '  #  include "core/session.h"'],
    ['core/cli/run.c', '#include "core/base.h"'],
    ['core/cli/run.c', '#include "kernels/kernels.h"'],
    ['wasm/abi.c', '#include "core/session.h"'],
    ['kernels/dispatch.c', '#include "core/base.h"'],
    ['kernels/dispatch.c', '#include "core/nibl.h"'],
    ['kernels/x86/a_avx2.c', '#include "kernels/arm/panel.h"'],
    ['kernels/scalar/a_scalar.c', '#include <immintrin.h>'],
    ['kernels/wasm/a_wasmsimd.c', '#include <immintrin.h>'],
    ['core/forward.c', '#include <immintrin.h>'],
    ['core/forward.c', '#include "kernels/variants.h"'],
    ['core/loader.c', '#include <unistd.h>'],
    ['wasm/abi.c', '#include <unistd.h>'],
    ['core/model.c', 'void f(void) { printf("x"); }'],
    ['core/model.c', 'void f(void) { fputs("x", stderr); }'],
    ['core/model.c', 'FILE *f = fopen("x", "r");'],
    ['core/model.c', 'void f(void) { exit(1); }'],
    ['core/model.c', 'void *p = malloc(1);'],
    ['core/base.c', 'void f(void) { abort(); }'],
    ['core/novel.c', ''],
    ['core/model.c', '#include "core/novel.h"'],
  ]
  for (const [file, source] of wrong) assert.equal(violations(file, source).length, 1, `${file}: ${source}`)
})

test('a right arrow is not', () => {
  /** @type {[string, string][]} */
  const right = [
    ['core/model.c', '#include "core/base.h"\n#include "kernels/kernels.h"\n#include <string.h>'],
    ['core/cli/run.c', '#include "core/cli/chat.h"\n#include "core/nibl.h"\n#include <unistd.h>\nint main(void) { printf("x"); }'],
    ['core/base.c', 'void *p = malloc(1); int n = vsnprintf(a, b, c, d);'],
    ['core/model.c', '/* printf( */ const char *s = "exit(1)"; nibl_free(p); snprintf(a, b, c); // abort()'],
    ['kernels/x86/a_avx2.c', '#include <immintrin.h>\n#include "kernels/x86/matmul.inc"'],
    ['kernels/cpu.c', '#include <cpuid.h>'],
    ['wasm/abi.c', '#include "core/nibl.h"'],
  ]
  for (const [file, source] of right) assert.deepEqual(violations(file, source), [])
})

test('modules of web/ import only each other, Node and what package.json names', () => {
  const known = Object.keys(JSON.parse(read('package.json')).dependencies ?? {})
  const wrong = filesBelow('web', /\.m?js$/).flatMap(file =>
    [...read(file).matchAll(/(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g)]
      .map(match => match[1])
      .filter(name => name.startsWith('.')
        ? !path.posix.join(path.posix.dirname(file), name).startsWith('web/')
        : !name.startsWith('node:') && !known.includes(name))
      .map(name => `${file} imports ${name}`))
  assert.deepEqual(wrong, [])
})

test(`no source has more than ${maxLines} lines`, () => {
  const kinds = /\.(c|h|inc|def|m?js|ts|py|sh|cmake|html|css)$/
  const long = ['core', 'kernels', 'wasm', 'web', 'demo', 'tests']
    .flatMap(folder => filesBelow(folder, kinds))
    .filter(file => !generated.includes(file))
    .map(file => `${file}: ${read(file).split('\n').length - 1}`)
    .filter(text => Number(text.split(': ')[1]) > maxLines)
  assert.deepEqual(long, [])
})

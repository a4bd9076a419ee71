// Writes web/dist/nibl.one.js: the whole package in one file, for `<script type="module">` without a server of one's own. It
// carries the modules, the worker and every binary (those with the quantizer, which are the others and more), compressed; when
// it is imported they become blobs, and imports and addresses between them those of the blobs.

import * as fs from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { replaceFile, root } from './setup.js'

const web = join(root, 'web')
const dist = join(web, 'dist')
export const onePath = join(dist, 'nibl.one.js')

/** What stands for the addresses of a module, in it. @type {Record<string, (text: string) => string>} */
const addresses = {
  'binaries.js': (text) => text
    .replace(/new URL\('\.\/dist\/nibl-(.+?)(-quantize)?\.wasm', import\.meta\.url\)/g, "new URL(NIBL_ONE['$1.wasm'])")
    .replace(/import\('\.\/dist\/nibl-(.+?)(-quantize)?\.js'\)/g, "import(NIBL_ONE['$1.js'])"),
  'connect.js': (text) => text
    .replace("new URL(import.meta.url.replace(/[^/]*$/, 'worker.js'))", 'new URL(NIBL_ONE.worker)')
    .replace("new URL('./worker.js', import.meta.url), { type: 'module', name: 'nibl' }", "NIBL_ONE.worker, { type: 'module', name: 'nibl' }"),
}

/** All modules as one, which is the worker's too. */
async function bundle() {
  const { build } = await import('esbuild')
  const { outputFiles } = await build({
    stdin: { contents: "export * from './nibl.js'\nif (NIBL_WORKER) import('./worker.js')", resolveDir: web },
    bundle: true, write: false, minify: true, format: 'esm', target: 'es2022', legalComments: 'none', logLevel: 'silent',
    plugins: [{
      name: 'addresses',
      setup: ({ onLoad }) => onLoad({ filter: /web\/(binaries|connect)\.js$/ }, ({ path }) => {
        const name = /** @type {string} */ (path.split('/').at(-1))
        const text = addresses[name](fs.readFileSync(path, 'utf8'))
        if (name === 'binaries.js' ? /import\('|, import\.meta/.test(text) : !text.includes('NIBL_ONE.worker, {')) throw new Error(`${path} has addresses that are not known here`)
        return { contents: text }
      }),
    }],
  })
  return outputFiles[0].text
}

/** Run where the file is imported. @param {[string, string, number][]} files name, type, length @param {string} base64 them and the
 * modules behind each other, with gzip */
const unpack = async (files, base64) => {
  const packed = /** @type {any} */ (Uint8Array).fromBase64?.(base64) ?? Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))
  const bytes = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer()
  const urlOf = (/** @type {any[]} */ parts, /** @type {string} */ type) => URL.createObjectURL(new Blob(parts, { type }))
  /** @type {Record<string, string>} */
  const urls = {}
  let at = 0
  for (const [name, type, length] of files) urls[name] = urlOf([bytes.slice(at, (at += length))], type)
  const library = bytes.slice(at)
  const script = (/** @type {boolean} */ worker) => urlOf([`const NIBL_WORKER=${worker},NIBL_ONE=${JSON.stringify(urls)};`, library], 'text/javascript')
  urls.worker = script(true)
  return import(/* webpackIgnore: true */ /* @vite-ignore */ script(false))
}

/** @param {string[]} variants @returns {Promise<number>} bytes */
export async function writeOne(variants) {
  /** @type {[string, string, Uint8Array][]} */
  const files = variants.flatMap((variant) => {
    const file = join(dist, `nibl-${variant}-quantize`)
    const glue = fs.readFileSync(`${file}.js`, 'utf8').replace(/new URL\("nibl-[\w-]+\.(js|wasm)",import\.meta\.url\)/g, 'new URL(import.meta.url)')
    return [[`${variant}.js`, 'text/javascript', Buffer.from(glue)], [`${variant}.wasm`, 'application/wasm', fs.readFileSync(`${file}.wasm`)]]
  })
  const table = JSON.stringify(files.map(([name, type, { length }]) => [name, type, length]))
  const all = Buffer.concat([...files.map(([, , bytes]) => bytes), Buffer.from(await bundle())])
  const base64 = gzipSync(all, { level: 9 }).toString('base64')
  const { version } = JSON.parse(fs.readFileSync(join(root, 'package.json'), 'utf8'))
  const exported = fs.readFileSync(join(web, 'nibl.js'), 'utf8').matchAll(/^export (?:(?:const|async function) (\w+)|\{ (\w+) \})/gm)
  const names = [...exported].map(([, made, passed]) => made ?? passed)
  const about = `/* nibl ${version}, MIT: the whole package in one file (wasm/one.js); its types are those of nibl.d.ts */`
  const text = `${about}\nexport const { ${names.join(', ')} } = await (${unpack})(${table}, "${base64}")\n`
  replaceFile(onePath, text)
  return text.length
}

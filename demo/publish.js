#!/usr/bin/env node
// Puts the page into a folder that any static host can serve: node demo/publish.js FOLDER

import * as fs from 'node:fs'
import { extname, join, resolve } from 'node:path'
import { transformSync } from 'esbuild'
import { build, wasmPresets } from '../wasm/build.js'
import { SetupError, isProgram, main, root } from '../wasm/setup.js'

const parts = ['demo', 'web', 'node_modules/@huggingface/jinja/dist/index.js']
const unused = /\/(demo\/(fetch|publish|serve|start)\.js|web\/bin|.*\.d\.ts|.*\.png)$/

/** A script or style sheet without comments and long names; any other file as it is.
 * @param {string} path */
export function published(path) {
  const loader = { '.js': /** @type {const} */ ('js'), '.css': /** @type {const} */ ('css') }[extname(path)]
  const bytes = fs.readFileSync(path)
  return loader ? transformSync(String(bytes), { loader, minify: true, target: 'es2022' }).code : bytes
}

/** @param {string} folder must not be there yet */
export function publish(folder) {
  if (fs.existsSync(folder)) throw new SetupError(`${folder} is there already: name a folder that is not`)
  for (const part of parts) {
    fs.cpSync(join(root, part), join(folder, part), { recursive: true, filter: (path) => !unused.test(path) })
  }
  for (const name of fs.readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const path = join(folder, name)
    if (fs.statSync(path).isFile()) fs.writeFileSync(path, published(path))
  }
  fs.renameSync(join(folder, 'demo/sw.js'), join(folder, 'sw.js'))
  fs.writeFileSync(join(folder, 'index.html'), '<!doctype html><meta http-equiv="refresh" content="0; url=demo/"><title>nibl</title>\n')
}

if (isProgram(import.meta.url)) {
  await main(async () => {
    const [folder] = process.argv.slice(2)
    if (!folder) throw new SetupError('usage: node demo/publish.js FOLDER')
    await build(wasmPresets, { tests: false })
    publish(resolve(folder))
    console.log(`${folder} is ready; the default model is looked for as ${folder}/model/SmolLM2-135M-Instruct.Q4_1.gguf`)
  })
}

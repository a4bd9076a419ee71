// The engines that nibl is measured against: installed from npm below .toolchain/peers, never a dependency of nibl.

import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { join } from 'node:path'
import { SetupError, root } from '../../wasm/setup.js'

export const peersFolder = join(root, '.toolchain/peers')

const packages = {
  '@wllama/wllama': {
    version: '3.8.1',
    integrity: 'sha512-Pl7BEJhPU8OHnV/yhn3DFZYhLLOdSHh+4TND79WCftHnlUAdQPAsyc/CfIOY+4mVxvf5VW3Xw3Uf7BBfotS1gw==',
  },
}

/** What npm wrote down of the packages that are installed. @returns {Record<string, { integrity: string }>} */
function installed() {
  const record = join(peersFolder, 'node_modules/.package-lock.json')
  return fs.existsSync(record) ? JSON.parse(fs.readFileSync(record, 'utf8')).packages : {}
}

/** Brings the peers in their pinned versions; does nothing where they are there already. */
export function installPeers() {
  for (const [name, { version, integrity }] of Object.entries(packages)) {
    const found = () => installed()[`node_modules/${name}`]?.integrity
    if (found() === integrity) continue
    fs.mkdirSync(peersFolder, { recursive: true })
    const options = ['--ignore-scripts', '--no-audit', '--no-fund', '--save-exact', '--prefix', peersFolder]
    execFileSync('npm', ['install', ...options, `${name}@${version}`], { stdio: ['ignore', 'ignore', 'inherit'] })
    if (found() !== integrity) throw new SetupError(`${name} ${version} is not the package that was pinned`)
  }
}

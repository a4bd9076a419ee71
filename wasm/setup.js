#!/usr/bin/env node
// Sets up the tools nibl is built and tested with: `node wasm/setup.js [part ...]` (no part: all of them).
// Everything private goes below .toolchain/, each download is checked against a pinned sha256, unpacked aside and
// renamed into place, so an interrupted run leaves nothing half done and a second run has nothing to do. Tools of
// Debian 12 come from apt when root and are otherwise named. Programs are reached through .toolchain/bin.

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { basename, delimiter, dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { llvm, packages, parts } from './toolchain.js'

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const home = join(root, '.toolchain')

/** @typedef {import('./toolchain.js').Part} Part */
/** @typedef {import('./toolchain.js').Deb} Deb */
/** @typedef {import('./toolchain.js').Pack} Pack */

/** A failure the user can do something about; printed as one line. */
export class SetupError extends Error {}

// ---- progress ----------------------------------------------------------------------------------------------------

/**
 * A bar that moves on a terminal, one line per 10 % elsewhere. `total` may be 0 when it is not known.
 * @param {string} label @param {number} total
 */
export function progress(label, total) {
  const tty = process.stderr.isTTY
  let last = -1
  /** @param {number} part between 0 and 1 */
  const show = (part) => {
    const percent = Math.floor(Math.min(1, Math.max(0, part)) * 100)
    const step = tty ? percent : Math.floor(percent / 10) * 10
    if (step <= last || (step === 0 && !tty)) return
    last = step
    const size = total > 1e6 ? ` of ${Math.round(total / 1e6)} MB` : ''
    const bar = '#'.repeat(Math.floor(step / 4)).padEnd(25, '.')
    process.stderr.write(tty ? `\r  ${label} [${bar}] ${step} %${size} ` : `  ${label}: ${step} %${size}\n`)
  }
  show(0)
  return {
    show,
    /** @param {boolean} [ok] */
    done: (ok = true) => {
      if (ok) show(1)
      if (tty) process.stderr.write('\n')
    },
  }
}

// ---- processes ---------------------------------------------------------------------------------------------------

/** @param {string} name @returns {string} the program's path, or '' */
export function which(name) {
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(dir, name)
    if (dir && !dir.startsWith(home) && fs.existsSync(file)) return file
  }
  return ''
}

/** Bytes of all files below a folder whose contents come and go. @param {string} dir @returns {number} */
function folderBytes(dir) {
  let sum = 0
  try {
    for (const entry of fs.readdirSync(dir, { withFileTypes: true })) {
      const path = join(dir, entry.name)
      sum += entry.isDirectory() ? folderBytes(path) : (fs.statSync(path, { throwIfNoEntry: false })?.size ?? 0)
    }
  } catch {
    // The folder was removed.
  }
  return sum
}

/**
 * Runs a program quietly and resolves to its output; its last words become the error.
 * @param {string[]} command
 * @param {{ cwd?: string, env?: Record<string, string>, onLine?: (line: string) => void }} [options]
 * @returns {Promise<string>}
 */
export function run([program, ...args], { cwd = root, env = {}, onLine } = {}) {
  return new Promise((done, fail) => {
    const child = spawn(program, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe', onLine ? 'pipe' : 'ignore'],
    })
    let out = ''
    let err = ''
    child.stdout?.on('data', (data) => (out += data))
    child.stderr?.on('data', (data) => (err = (err + data).slice(-4000)))
    let rest = ''
    const status = /** @type {import('node:stream').Readable | null | undefined} */ (child.stdio[3])
    status?.on('data', (data) => {
      const lines = (rest + data).split('\n')
      rest = /** @type {string} */ (lines.pop())
      lines.forEach((line) => onLine?.(line))
    })
    child.on('error', (error) => fail(new SetupError(`cannot run ${program}: ${error.message}`)))
    child.on('close', (code) => {
      if (code === 0) return done(out)
      const words = err.trim() || out.trim()
      fail(
        new SetupError(
          `${[basename(program), ...args].slice(0, 4).join(' ')} failed (${code}): ` +
            words.split('\n').slice(-6).join('\n'),
        ),
      )
    })
  })
}

/**
 * Shows how a download grows while `work` runs.
 * @template T
 * @param {string} label
 * @param {number} total
 * @param {string} dir
 * @param {() => Promise<T>} work
 */
async function watched(label, total, dir, work) {
  if (total < 2e6) return work()
  const bar = progress(label, total)
  const timer = setInterval(() => bar.show(Math.min(0.99, folderBytes(dir) / total)), 250)
  let ok = false
  try {
    const result = await work()
    ok = true
    return result
  } finally {
    clearInterval(timer)
    bar.done(ok)
  }
}

// ---- files -------------------------------------------------------------------------------------------------------

/** Writes a file that somebody may be reading: they see the old one or the new one, whole. @param {string} path
 * @param {string | Uint8Array} bytes */
export function replaceFile(path, bytes) {
  const made = join(root, 'build', `${basename(path)}.${process.pid}`)
  fs.mkdirSync(dirname(made), { recursive: true })
  fs.writeFileSync(made, bytes)
  fs.renameSync(made, path)
}

// ---- fetching ----------------------------------------------------------------------------------------------------

/** @param {string} file @returns {Promise<string>} */
export function sha256Of(file) {
  return new Promise((done, fail) => {
    const hash = createHash('sha256')
    fs.createReadStream(file, { highWaterMark: 1 << 20 })
      .on('data', (data) => hash.update(data))
      .on('error', fail)
      .on('end', () => done(hash.digest('hex')))
  })
}

/** @param {string} file @param {string} sha256 */
async function verify(file, sha256) {
  const found = await sha256Of(file)
  if (found !== sha256)
    throw new SetupError(`${basename(file)} has sha256 ${found}, expected ${sha256}: it was not used`)
}

/** @param {number} pid */
function alive(pid) {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/**
 * Calls `work` with an empty folder below .toolchain that is gone afterwards, whatever happens; the folder of a process
 * that was killed goes the next time.
 * @template T
 * @param {(dir: string) => Promise<T>} work */
export async function inTemporary(work) {
  fs.mkdirSync(home, { recursive: true })
  for (const name of fs.readdirSync(home)) {
    const pid = Number(/^tmp-(\d+)-/.exec(name)?.[1] ?? 0)
    if (pid && !alive(pid)) fs.rmSync(join(home, name), { recursive: true, force: true })
  }
  const dir = fs.mkdtempSync(join(home, `tmp-${process.pid}-`))
  const remove = () => fs.rmSync(dir, { recursive: true, force: true })
  const stop = () => process.exit(130)
  process.once('exit', remove).once('SIGINT', stop).once('SIGTERM', stop)
  try {
    return await work(dir)
  } finally {
    process.off('exit', remove).off('SIGINT', stop).off('SIGTERM', stop)
    remove()
  }
}

const instead = 'put an emcc >= 3.1.60 on PATH, or for WASI name a wasi-sdk in WASI_SDK_PATH'

const asRoot = () => process.getuid?.() === 0

/** The mirrors this machine's apt uses. */
async function mirrors() {
  const out = await run(['apt-get', 'indextargets', '--no-release-info', '--format', '$(REPO_URI)'])
  return [...new Set(out.split('\n'))].filter((uri) => uri.startsWith('http') && !uri.includes('security'))
}

/** @param {string} uri @param {string} file */
const aptFetch = (uri, file) =>
  run(['/usr/lib/apt/apt-helper', '-o', 'APT::Sandbox::User=root', 'download-file', uri, file])

/** @param {Deb} deb @param {string} dir @returns {Promise<string>} the downloaded file */
async function fetchDeb(deb, dir) {
  const file = join(dir, basename(deb.file))
  const uris = await mirrors()
  const why = []
  for (const uri of uris) {
    try {
      await aptFetch(uri + deb.file, file)
    } catch (error) {
      const { message } = /** @type {Error} */ (error)
      why.push(/Failed to fetch.*/.exec(message)?.[0] ?? message)
      fs.rmSync(file, { force: true })
      continue
    }
    await verify(file, deb.sha256)
    return file
  }
  if (deb.current && uris.length) return fetchCurrentDeb(deb, uris[0], dir)
  throw new SetupError(
    `no mirror of this machine's apt has Debian 13's ${basename(deb.file)} ` +
      `(${why.join('; ') || 'apt knows no mirror'}); ${instead}`,
  )
}

/** A point release replaces packages: takes today's version, checked by apt against Debian's signature.
 * @param {Deb} deb @param {string} uri @param {string} dir @returns {Promise<string>} */
async function fetchCurrentDeb(deb, uri, dir) {
  const list = join(dir, 'list')
  const state = join(dir, 'state')
  fs.mkdirSync(join(state, 'partial'), { recursive: true })
  fs.writeFileSync(list, `deb ${uri} trixie main\n`)
  const options = Object.entries({
    'Dir::Etc::sourcelist': list,
    'Dir::Etc::sourceparts': '/dev/null',
    'Dir::State::lists': state,
    'Dir::Cache::pkgcache': '',
    'Dir::Cache::srcpkgcache': '',
    'APT::Sandbox::User': 'root',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled': 'false',
  }).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  await run(['apt-get', ...options, 'update'])
  await run(['apt-get', ...options, 'download', `${deb.name}/trixie`], { cwd: dir })
  const file = fs.readdirSync(dir).find((name) => name.startsWith(`${deb.name}_`))
  if (!file) throw new SetupError(`Debian 13 has no package ${deb.name} any more`)
  process.stderr.write(`  ${basename(deb.file)} has left the mirror: using ${file}, signed by Debian\n`)
  return join(dir, file)
}

/** @param {string} file @param {string} into @param {string[]} [skip] */
function unpackDeb(file, into, skip = []) {
  return /** @type {Promise<void>} */ (
    new Promise((done, fail) => {
      const deb = spawn('dpkg-deb', ['--fsys-tarfile', file], { stdio: ['ignore', 'pipe', 'inherit'] })
      const tar = spawn('tar', ['-x', '-C', into, ...skip.map((name) => `--exclude=${name}`)], {
        stdio: [deb.stdout, 'ignore', 'inherit'],
      })
      const ended = [deb, tar].map(
        (child) =>
          new Promise((end) => {
            child.on('exit', end).on('error', () => end(-1))
          }),
      )
      Promise.all(ended).then((codes) =>
        codes.every((code) => code === 0)
          ? done()
          : fail(new SetupError(`cannot unpack ${basename(file)}: is the disk full?`)),
      )
    })
  )
}

/** @param {Pack} pack @param {string} dir @param {string} into */
async function fetchNpm(pack, dir, into) {
  const npm = ['npm', 'pack', '--silent', '--pack-destination', dir, `${pack.name}@${pack.version}`]
  await run(npm, { cwd: dir, env: { npm_config_ignore_scripts: 'true' } })
  const file = join(dir, `${pack.name}-${pack.version}.tgz`)
  await verify(file, pack.sha256)
  fs.mkdirSync(into, { recursive: true })
  await run(['tar', '-xzf', file, '-C', into, '--strip-components=1'])
  fs.rmSync(file)
}

/** The command that runs pip here; installs Debian's when root and there is none. @returns {Promise<string[]>} */
async function pipCommand() {
  await aptInstall(['python3'])
  const program = which('python3')
  /** @param {string[]} command */
  const works = (command) => spawnSync(command[0], [...command.slice(1), '--version'], { stdio: 'ignore' }).status === 0
  if (works([program, '-m', 'pip'])) return [program, '-m', 'pip']
  const script =
    'import ensurepip,glob,os;print((glob.glob(os.path.join(os.path.dirname(ensurepip.__file__),' +
    '"_bundled","pip-*.whl"))+glob.glob("/usr/share/python-wheels/pip-*.whl"))[0])'
  const bundled = spawnSync(program, ['-c', script], { encoding: 'utf8' }).stdout.trim()
  if (bundled && works([program, `${bundled}/pip`])) return [program, `${bundled}/pip`]
  await aptInstall(['python3-pip'])
  return ['/usr/bin/python3', '-m', 'pip']
}

/** Downloads one file of the Python registry, checks it and calls `use` with it. Nothing is installed, so it does not
 * matter whether the Python is externally managed.
 * @param {Omit<Pack, 'into'>} pack @param {'only' | 'no'} binary a wheel or the sources
 * @param {(file: string, python: string) => Promise<unknown>} use */
async function fetchPython(pack, binary, use) {
  const pip = await pipCommand()
  await inTemporary(async (dir) => {
    const args = ['download', '--quiet', '--no-deps', '--no-cache-dir', `--${binary}-binary=:all:`, '--dest', dir]
    await watched(`${pack.name} ${pack.version}`, pack.bytes, dir, () =>
      run([...pip, ...args, `${pack.name}==${pack.version}`], { env: { TMPDIR: dir, PIP_REQUIRE_VIRTUALENV: '0' } }),
    )
    const file = fs.readdirSync(dir).find((name) => /\.(whl|tar\.gz)$/.test(name))
    if (!file) throw new SetupError(`pip brought no file of ${pack.name} ${pack.version}`)
    await verify(join(dir, file), pack.sha256)
    await use(join(dir, file), pip[0])
  })
}

/** Unpacks `member` of a wheel (or all of it) into `into`.
 * @param {Omit<Pack, 'into'>} pack @param {string} into @param {string} [member] */
export async function fetchWheel(pack, into, member) {
  const script = 'import sys,zipfile;z=zipfile.ZipFile(sys.argv[1]);z.extractall(sys.argv[2],sys.argv[3:] or None)'
  await fetchPython(pack, 'only', async (file, python) => {
    fs.mkdirSync(into, { recursive: true })
    await run([python, '-c', script, file, into, ...(member ? [member] : [])])
  })
}

/** Unpacks a package's sources into a folder that is gone when `use` ends.
 * @param {Omit<Pack, 'into'>} pack @param {(folder: string) => Promise<unknown>} use */
export async function fetchSources(pack, use) {
  await fetchPython(pack, 'no', async (file) => {
    const folder = join(dirname(file), 'sources')
    fs.mkdirSync(folder)
    await run(['tar', '-xzf', file, '-C', folder, '--strip-components=1'])
    await use(folder)
  })
}

/** @param {string} name of a Debian package */
const havePackage = (name) =>
  packages[name][0].startsWith('/') ? fs.existsSync(packages[name][0]) : which(packages[name][0]) !== ''

/** @param {string[]} wanted */
export async function aptInstall(wanted) {
  const names = wanted.filter((name) => !havePackage(name))
  if (!names.length) return
  if (!which('apt-get'))
    throw new SetupError(`this machine has no apt, and these Debian packages are missing: ${names.join(' ')}`)
  if (!asRoot()) throw new SetupError(`these Debian packages are missing: apt-get install ${names.join(' ')}`)
  const env = { DEBIAN_FRONTEND: 'noninteractive' }
  const bar = progress(`apt: ${names.join(' ')}`, names.reduce((sum, name) => sum + packages[name][1], 0) * 1e6)
  const install = () =>
    run(
      [
        'apt-get',
        '-o',
        'DPkg::Lock::Timeout=600',
        '-o',
        'APT::Status-Fd=3',
        'install',
        '-y',
        '--no-install-recommends',
        ...names,
      ],
      {
        env,
        onLine: (line) => {
          const [kind, , percent] = line.split(':')
          if (kind === 'dlstatus') bar.show(Number(percent) / 200)
          if (kind === 'pmstatus') bar.show(0.5 + Number(percent) / 200)
        },
      },
    )
  // Without package lists, or with old ones, the first attempt fails.
  await install()
    .catch(() => run(['apt-get', 'update'], { env }).then(install))
    .then(
      () => bar.done(),
      (error) => {
        bar.done(false)
        throw error
      },
    )
  const lacking = names.filter((name) => !havePackage(name))
  if (lacking.length)
    throw new SetupError(`apt-get install ${lacking.join(' ')} did not bring ${packages[lacking[0]][0]}`)
}

// ---- the user's own tools, and the wrappers --------------------------------------------------------------------

/** @returns {string} an emcc >= 3.1.60 on PATH */
function ownEmcc() {
  const emcc = which('emcc')
  if (!emcc) return ''
  const version = /(\d+)\.(\d+)\.(\d+)/.exec(spawnSync(emcc, ['--version'], { encoding: 'utf8' }).stdout ?? '')
  const [major, minor, patch] = (version ?? []).slice(1).map(Number)
  return major > 3 || (major === 3 && (minor > 1 || (minor === 1 && patch >= 60))) ? emcc : ''
}

/** @returns {string} the wasi-sdk named by WASI_SDK_PATH */
function ownWasiSdk() {
  const sdk = process.env.WASI_SDK_PATH ?? ''
  if (sdk && !fs.existsSync(join(sdk, 'bin/clang'))) throw new SetupError(`WASI_SDK_PATH=${sdk} has no bin/clang`)
  return sdk
}

/** Writes a file, only when it would change. @param {string} file @param {string} text @param {number} [mode] */
function writeFile(file, text, mode = 0o644) {
  if (fs.existsSync(file) && fs.readFileSync(file, 'utf8') === text) return
  fs.mkdirSync(dirname(file), { recursive: true })
  fs.writeFileSync(`${file}.${process.pid}`, text, { mode })
  fs.renameSync(`${file}.${process.pid}`, file)
}

/** Writes .toolchain/bin/NAME. @param {string} name @param {string} body */
const wrapper = (name, body) => writeFile(join(home, 'bin', name), `#!/bin/sh\n${body}\n`, 0o755)

/** @param {string} dir @param {string} own */
function finishWasm(dir, own) {
  if (own) {
    for (const tool of ['emcc', 'emar', 'emranlib']) wrapper(tool, `exec '${join(dirname(own), tool)}' "$@"`)
    return
  }
  // Debian 13's Binaryen needs Debian 13's C library, so it is started through that library's own loader.
  const libraries = ['usr/lib/x86_64-linux-gnu', 'lib/x86_64-linux-gnu'].map((name) => join(dir, name))
  const loader = libraries.map((name) => join(name, 'ld-linux-x86-64.so.2')).find((name) => fs.existsSync(name))
  const binaryen = join(home, 'bin/binaryen')
  for (const tool of fs.readdirSync(join(dir, 'usr/bin')).filter((name) => name.startsWith('wasm'))) {
    wrapper(
      `binaryen/bin/${tool}`,
      `exec '${loader}' --library-path '${libraries.join(':')}' --argv0 '${tool}' '${dir}/usr/bin/${tool}' "$@"`,
    )
  }
  const python = fs.existsSync('/usr/bin/python3') ? '/usr/bin/python3' : which('python3')
  const emscripten = join(dir, 'usr/share/emscripten')
  const config = join(home, 'bin/emscripten.config')
  writeFile(
    config,
    `LLVM_ROOT = '${llvm}/bin'\nBINARYEN_ROOT = '${binaryen}'\nNODE_JS = '${process.execPath}'\n` +
      `CACHE = '${emscripten}/cache'\n`,
  )
  // Its scripts are CommonJS, which the package.json of nibl would deny.
  writeFile(join(emscripten, 'package.json'), '{ "type": "commonjs" }\n')
  for (const tool of ['emcc', 'emar', 'emranlib']) {
    wrapper(tool, `EM_CONFIG='${config}' exec '${python}' -E '${emscripten}/${tool}.py' "$@"`)
  }
}

/** @param {string} dir @param {string} own */
function finishWasi(dir, own) {
  const bin = own ? `${own}/bin` : `${llvm}/bin`
  const target = own
    ? ''
    : ` --target=wasm32-wasi --sysroot='${dir}/usr' -fuse-ld='${bin}/wasm-ld' -Wno-unused-command-line-argument`
  // clang runs any wasm-opt it finds on PATH, and old ones rewrite relaxed SIMD to wrong opcodes.
  wrapper('wasi-clang', `PATH='${bin}' exec '${bin}/clang'${target} "$@"`)
  for (const tool of ['ar', 'ranlib']) wrapper(`wasi-${tool}`, `exec '${bin}/llvm-${tool}' "$@"`)
}

/** A tool of the user's that replaces a part, or ''. @type {Record<string, () => string>} */
const ownTools = {
  wasm: ownEmcc,
  wasi: ownWasiSdk,
  wasmtime: () => which('wasmtime'),
  browser: () => process.env.CHROMIUM ?? '',
}

/** Writes the wrappers of a part; runs at every set-up. @type {Record<string, (dir: string, own: string) => void>} */
const finish = {
  wasm: finishWasm,
  wasi: finishWasi,
  node24: (dir) => wrapper('node24', `exec '${dir}/bin/node' "$@"`),
}

// ---- parts -------------------------------------------------------------------------------------------------------

/** @returns {{ version: string, dependencies: Record<string, string>, devDependencies: Record<string, string> }} */
const packageJson = () => JSON.parse(fs.readFileSync(join(root, 'package.json'), 'utf8'))

/** @param {'prod' | 'dev'} kind */
function modulesReady(kind) {
  const { dependencies, devDependencies } = packageJson()
  return Object.entries({ ...dependencies, ...(kind === 'dev' ? devDependencies : {}) }).every(([name, version]) => {
    const file = join(root, 'node_modules', name, 'package.json')
    return fs.existsSync(file) && JSON.parse(fs.readFileSync(file, 'utf8')).version === version
  })
}

/** The part's private folder; its name changes with what is pinned. @param {string} name */
export function folder(name) {
  const { debs = [], npm = [], wheels = [], project } = parts[name]
  const pins = [
    ...(project ? [fs.readFileSync(join(root, project, 'package-lock.json'), 'utf8')] : []),
    ...debs.flatMap((deb) => [deb.sha256, ...(deb.skip ?? [])]),
    ...[...npm, ...wheels].map((pack) => pack.sha256),
  ]
  return pins.length ? join(home, `${name}-${createHash('sha256').update(pins.join()).digest('hex').slice(0, 12)}`) : ''
}

/** What is still to be done for a part. @param {string} name */
function missing(name) {
  const part = parts[name]
  const own = ownTools[name]?.() ?? ''
  const dir = folder(name)
  return {
    part,
    own,
    dir,
    apt: own ? [] : (part.apt ?? []).filter((name) => !havePackage(name)),
    fetch: !own && dir !== '' && !fs.existsSync(dir),
    modules: part.modules !== undefined && !modulesReady(part.modules),
  }
}

/**
 * What `setup(names)` would still do: the steps, and megabytes (estimated where apt decides).
 * @param {string[]} names
 */
export function plan(names) {
  let download = 0
  let disk = 0
  const steps = []
  const seen = new Set()
  for (const name of names) {
    const { part, apt, fetch, modules } = missing(name)
    if (!apt.length && !fetch && !modules) continue
    steps.push(part.about)
    for (const item of apt.filter((item) => !seen.has(item))) {
      seen.add(item)
      download += packages[item][1]
      disk += packages[item][2]
    }
    if (fetch) {
      const files = [...(part.debs ?? []), ...(part.npm ?? []), ...(part.wheels ?? [])]
      download += files.reduce((sum, file) => sum + file.bytes, 0) / 1e6
      if (part.project) download += (part.diskMB ?? 0) / 3
    }
    if (fetch || modules) disk += part.diskMB ?? 0
    if (modules) download += (part.diskMB ?? 0) / 3
  }
  return { steps, download: Math.round(download), disk: Math.round(disk) }
}

/** @param {string} name @param {Part} part @param {string} dir */
async function fetchPart(name, part, dir) {
  if (part.debs && (process.arch !== 'x64' || !which('dpkg-deb'))) {
    throw new SetupError(`${part.about}: the private toolchain is for x86-64 Debian; ${instead}`)
  }
  await inTemporary(async (temporary) => {
    const tree = join(temporary, 'tree')
    const downloads = join(temporary, 'downloads')
    fs.mkdirSync(tree)
    for (const deb of part.debs ?? []) {
      fs.mkdirSync(downloads)
      const file = await watched(basename(deb.file), deb.bytes, downloads, () => fetchDeb(deb, downloads))
      await unpackDeb(file, tree, deb.skip)
      fs.rmSync(downloads, { recursive: true })
    }
    for (const pack of part.npm ?? []) {
      fs.mkdirSync(downloads)
      await watched(`${pack.name} ${pack.version}`, pack.bytes, downloads, () =>
        fetchNpm(pack, downloads, join(tree, pack.into)),
      )
      fs.rmSync(downloads, { recursive: true })
    }
    for (const pack of part.wheels ?? []) await fetchWheel(pack, join(tree, pack.into))
    if (part.project) {
      process.stderr.write(`  npm: ${part.about}\n`)
      for (const file of ['package.json', 'package-lock.json']) fs.copyFileSync(join(root, part.project, file), join(tree, file))
      await run(['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: tree })
    }
    const old = fs
      .readdirSync(home)
      .filter((entry) => new RegExp(`^${name}-[0-9a-f]{12}$`).test(entry) && entry !== basename(dir))
    for (const entry of old) fs.rmSync(join(home, entry), { recursive: true, force: true })
    // Another set-up may have been faster.
    if (!fs.existsSync(dir)) fs.renameSync(tree, dir)
  })
}

/**
 * Brings the named parts; does nothing where they are there already.
 * @param {string[]} names
 */
export async function setup(names) {
  const unknown = names.find((name) => !Object.hasOwn(parts, name))
  if (unknown) throw new SetupError(`no part '${unknown}'; there are: ${Object.keys(parts).join(' ')}`)
  await aptInstall([...new Set(names.flatMap((name) => missing(name).apt))])
  for (const name of names) {
    const { part, own, dir, fetch, modules } = missing(name)
    if (fetch) await fetchPart(name, part, dir)
    if (modules) {
      process.stderr.write(`  npm: ${part.about}\n`)
      const omit = part.modules === 'prod' ? ['--omit=dev'] : []
      await run(['npm', 'ci', '--ignore-scripts', '--no-audit', '--no-fund', ...omit])
    }
    finish[name]?.(dir, own)
  }
}

/**
 * Runs a command-line entry: a SetupError is printed as one line, anything else with its stack.
 * @param {() => Promise<unknown>} work
 */
export async function main(work) {
  try {
    await work()
  } catch (error) {
    const known = error instanceof SetupError
    process.stderr.write(`${known ? `nibl: ${error.message}` : /** @type {Error} */ (error).stack}\n`)
    process.exitCode = 1
  }
}

/** Whether the module at `url` is the program that was started. @param {string} url */
export const isProgram = (url) => Boolean(process.argv[1]) && fs.realpathSync(process.argv[1]) === fileURLToPath(url)

if (isProgram(import.meta.url)) {
  const names = process.argv.slice(2)
  await main(async () => {
    if (names.includes('--help')) {
      console.log('usage: node wasm/setup.js [part ...]')
      for (const [name, part] of Object.entries(parts)) console.log(`  ${name.padEnd(11)} ${part.about}`)
      return
    }
    await setup(names.length ? names : Object.keys(parts))
  })
}

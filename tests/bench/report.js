// What was measured, as text: medians, spread, shares of the read bandwidth, and ratios beside their bars.

import { execFileSync } from 'node:child_process'
import * as os from 'node:os'
import { bars, rows } from './rows.js'

/**
 * @typedef {object} Sample
 * @property {number} value         of the row's unit
 * @property {number} [cpu]         processor seconds per token
 * @property {number} [joules]      per token
 * @property {number} [others]      cores that other programs and the hypervisor took meanwhile
 * @property {boolean} [disturbed]  that was too much
 * @property {number} [seconds]     that the sample took
 *
 * @typedef {object} Results
 * @property {string} date
 * @property {string} command
 * @property {ReturnType<typeof machine> & { chromium: string, node: string }} machine
 * @property {Record<string, { sha256: string, bytesPerToken: number }>} files
 * @property {Record<string, string[]>} about     engine to the binaries and instruction sets that ran
 * @property {Record<string, number>} shipped     engine to bytes, gzip
 * @property {number} rounds
 * @property {Record<string, Record<string, Sample[]>>} samples  by row and case; tokens per second, the load's ms, the
 *   memory's bytes and the bandwidth's bytes per second
 */

/** The machine, and how busy it is. */
export function machine() {
  const cpus = os.cpus()
  const cpuinfo = process.platform === 'linux' ? execFileSync('lscpu', { encoding: 'utf8' }) : ''
  const has = (/** @type {string} */ flag) => new RegExp(`\\b${flag}\\b`).test(cpuinfo)
  return {
    cpu: cpus[0].model.trim(),
    family: `${/CPU family:\s*(\d+)/.exec(cpuinfo)?.[1] ?? '?'}/${/\nModel:\s*(\d+)/.exec(cpuinfo)?.[1] ?? '?'}`,
    avxVnni: has('avx_vnni'),
    avx512Vnni: has('avx512_vnni'),
    cores: cpus.length,
    gibibytes: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release().split('-')[0]}`,
    load: Number(os.loadavg()[0].toFixed(1)),
  }
}

// ---- Figures -------------------------------------------------------------------------------------------------------

/** @param {number[]} values */
function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Three digits that count. @param {number} value */
export const short = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3))

/** The samples of a case that count: those that were not disturbed, where there are any.
 * @param {Results} results @param {string} row @param {string} name */
function counted({ samples }, row, name) {
  const all = samples[row]?.[name] ?? []
  const quiet = all.filter(({ disturbed }) => !disturbed)
  return quiet.length ? quiet : all
}

/** Median, lowest and highest; undefined where nothing was measured.
 * @param {Results} results @param {string} row @param {string} name */
export function figure(results, row, name) {
  const values = counted(results, row, name).map(({ value }) => value)
  if (!values.length) return undefined
  return { median: median(values), low: Math.min(...values), high: Math.max(...values) }
}

/** The read bandwidth that bounds a case: of WebAssembly with one thread, otherwise the native one.
 * @param {string} name of a case */
function limitOf(name) {
  const threads = name.endsWith('2T') ? '2T' : '1T'
  return /^(nibl-native|llama)/.test(name) || threads === '2T' ? `native ${threads}` : 'wasm 1T'
}

/** The part of a bandwidth that a decoding case reads its weights with.
 * @param {Results} results @param {string} row @param {string} name @param {string} limit */
function share(results, row, name, limit) {
  const speed = figure(results, row, name)?.median
  const bandwidth = figure(results, 'bandwidth', limit)?.median
  const bytes = results.files[name.split(' ')[1]]?.bytesPerToken
  return speed && bandwidth && bytes ? (speed * bytes) / bandwidth : undefined
}

/** What the bars of rows.js say about the results; those of cases that were not measured are left out.
 * @param {Results} results */
export function verdicts(results) {
  return bars.flatMap(({ row, of, over = [], overRow = row, limit, least, most, vnni }) => {
    const halved = Boolean(vnni) && !results.machine.avxVnni
    const others = over.map((name) => ({ name, speed: figure(results, overRow, name)?.median ?? 0 }))
    const best = others.reduce((best, other) => (other.speed > best.speed ? other : best), { name: '', speed: 0 })
    const own = figure(results, row, of)?.median
    const value = limit ? share(results, row, of, limit) : own && best.speed ? own / best.speed : undefined
    if (value === undefined) return []
    const bar = (least ?? most ?? 1) * (halved ? 0.5 : 1)
    const met = most === undefined ? value >= bar : value <= bar
    const beside = limit ? `read bandwidth, ${limit}` : overRow === row ? best.name : `${best.name}, ${label(overRow)}`
    return [{ row, of, beside, value, bar, most: most !== undefined, halved, met, percent: Boolean(limit) }]
  })
}

// ---- Text ----------------------------------------------------------------------------------------------------------

/** @type {Record<string, { label: string, unit: string, scale: number }>} */
const measures = {
  bandwidth: { label: 'read bandwidth', unit: 'GB/s', scale: 1e-9 },
  load: { label: 'load', unit: 'ms', scale: 1 },
  memory: { label: 'memory', unit: 'MiB', scale: 2 ** -20 },
}

/** @param {string} row */
const label = (row) => measures[row]?.label ?? rows[row].label

/** @param {string[]} head @param {string[][]} body */
function table(head, body) {
  return [head, head.map((_, column) => (column ? '--:' : '---')), ...body]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

/** @param {Results} results @param {string} row */
function rowTable(results, row) {
  const { unit, scale } = measures[row] ?? { unit: 'tok/s', scale: 1 }
  const decode = rows[row]?.measure === 'decode'
  const all = Object.values(results.samples[row]).flat()
  const [cpu, joules] = [all.some((sample) => sample.cpu !== undefined), all.some((sample) => sample.joules)]
  const head = ['', `median, ${unit}`, 'spread', 'runs', ...(decode ? ['of the limit'] : []), ...(cpu ? ['CPU ms/token'] : []), ...(joules ? ['J/token'] : [])]
  const body = Object.entries(results.samples[row]).map(([name, samples]) => {
    const { median: middle, low, high } = /** @type {NonNullable<ReturnType<typeof figure>>} */ (figure(results, row, name))
    const disturbed = samples.filter((sample) => sample.disturbed).length
    const part = decode ? share(results, row, name, limitOf(name)) : undefined
    /** @param {'cpu' | 'joules'} field @param {number} times */
    const mean = (field, times) => {
      const values = counted(results, row, name).flatMap((sample) => sample[field] ?? [])
      return values.length ? short((values.reduce((sum, value) => sum + value, 0) / values.length) * times) : ''
    }
    return [
      name,
      short(middle * scale),
      `${short(low * scale)} to ${short(high * scale)}`,
      `${samples.length}${disturbed ? `, ${disturbed} disturbed` : ''}`,
      ...(decode ? [part ? `${(part * 100).toFixed(0)} %` : ''] : []),
      ...(cpu ? [mean('cpu', 1e3)] : []),
      ...(joules ? [mean('joules', 1)] : []),
    ]
  })
  return `## ${label(row)}\n\n${table(head, body)}`
}

/** @param {Results} results */
function barTable(results) {
  const body = verdicts(results).map(({ row, of, beside, value, bar, most, halved, met, percent }) => {
    const written = (/** @type {number} */ number) => (percent ? `${(number * 100).toFixed(0)} %` : `${short(number)} x`)
    const wanted = `${most ? '<=' : '>='} ${written(bar)}${halved ? ' (halved)' : ''}`
    return [`${label(row)}, ${of}`, written(value), beside, wanted, met ? 'yes' : 'no']
  })
  return table(['', 'measured', 'of', 'bar', 'met'], body)
}

/** @param {Results} results */
export function markdown(results) {
  const { cpu, family, avxVnni, avx512Vnni, cores, gibibytes, system, load, chromium, node } = results.machine
  const vnni = `${avxVnni ? 'with' : 'without'} AVX-VNNI, ${avx512Vnni ? 'with' : 'without'} AVX-512 VNNI`
  const halved = avxVnni
    ? ''
    : ' The bars of WebAssembly beside other engines were made for machines with AVX-VNNI; this one has none, so they are halved.'
  const about = Object.entries(results.about).map(([name, what]) => [
    name,
    what.join('; '),
    `${Math.round(results.shipped[name] / 1000).toLocaleString('en')} kB`,
  ])
  return [
    '# Measured',
    `${results.date}, ${cpu} (family/model ${family}, ${vnni}), ${cores} cores, ${gibibytes} GiB, ${system}, load ${load}, ` +
      `Chromium ${chromium}, Node ${node}. Made by \`${results.command}\`, ${results.rounds} rounds.`,
    'SmolLM2-135M-Instruct; 1T and 2T are one and two threads. Engines in JavaScript are measured by the clock of their ' +
      'caller (prefill: from the call to the first token), commands by their own. The limit is the read bandwidth ' +
      'measured in the same run divided by the bytes of weights that a token reads. A sample is disturbed when others ' +
      'took more than a tenth of a core; medians leave such samples out where there are others.',
    `## Beside the bars\n\nShown, not enforced.${halved}`,
    barTable(results),
    ...Object.keys(results.samples).map((row) => rowTable(results, row)),
    '## What ran, and what must be shipped besides the model (gzip)',
    table(['', 'binary, instruction set', 'shipped'], about),
    table(
      ['file', 'bytes read per token', 'sha256'],
      Object.entries(results.files).map(([name, { bytesPerToken, sha256 }]) => [name, String(bytesPerToken), sha256]),
    ),
  ].join('\n\n') + '\n'
}

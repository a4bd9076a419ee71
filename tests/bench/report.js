// Medians, spread and ratios of the benchmark's samples, as tables in Markdown.

import { execFileSync } from 'node:child_process'
import * as os from 'node:os'

/** @param {number[]} values */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Three digits that count. @param {number} value */
const short = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3))

/** @param {string[][]} rows the first is the head @returns {string} */
export function table(rows) {
  const [head, ...body] = rows
  return [head, head.map((_, column) => (column ? '--:' : '---')), ...body]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n')
}

/**
 * One row per quantity and engine: median, lowest to highest, and how nibl compares.
 * @typedef {object} Quantity
 * @property {string} name
 * @property {string} unit
 * @property {Record<string, number[]>} samples  by engine, in the order to be shown
 * @property {string} against  the engine that nibl's median is divided by
 * @property {string} bar      what the ratio should be
 *
 * @param {Quantity[]} quantities
 */
export function samplesTable(quantities) {
  const rows = quantities.flatMap(({ name, unit, samples, against, bar }) =>
    Object.entries(samples).map(([engine, values]) => {
      const reference = samples[against]
      const ratio = engine.startsWith('nibl') && reference ? median(values) / median(reference) : undefined
      const spread = `${short(Math.min(...values))} to ${short(Math.max(...values))}`
      const compared = ratio === undefined ? ['', ''] : [`${short(ratio)} x ${against}`, bar]
      return [`${name}, ${engine}`, short(median(values)), unit, spread, String(values.length), ...compared]
    }),
  )
  return table([['', 'median', 'unit', 'spread', 'runs', 'ratio', 'bar'], ...rows])
}

/** The machine in words, and how busy it is. */
export function machine() {
  const cpus = os.cpus()
  const cpuinfo = process.platform === 'linux' ? execFileSync('lscpu', { encoding: 'utf8' }) : ''
  const vnni = /\bavx_vnni\b/.test(cpuinfo) ? ', with AVX-VNNI' : /\bavx2\b/.test(cpuinfo) ? ', without AVX-VNNI' : ''
  const family = /CPU family:\s*(\d+)/.exec(cpuinfo)?.[1]
  const model = /\nModel:\s*(\d+)/.exec(cpuinfo)?.[1]
  const kind = family ? ` (family ${family}, model ${model}${vnni})` : ''
  const memory = Math.round(os.totalmem() / 2 ** 30)
  const load = os.loadavg()[0].toFixed(1)
  return `${cpus[0].model.trim()}${kind}, ${cpus.length} cores, ${memory} GiB, ${os.type()}, load ${load}`
}

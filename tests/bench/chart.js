// What was measured, as a picture: one panel per row and number of threads, one bar per engine, with its spread. Colours
// follow the reader's light or dark scheme.

import { figure, short } from './report.js'
import { rows } from './rows.js'

const panels = ['decode', 'prefill-512'].flatMap((row) => ['1T', '2T'].map((threads) => ({ row, threads })))
const [width, left, right, line, head, gap] = [440, 150, 62, 20, 34, 24]

const style = `
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .value { font-variant-numeric: tabular-nums }
  .nibl { fill: #0f766e } .peer { fill: #9aa4b2 } .spread { stroke: #24292f; stroke-width: 1.2 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .nibl { fill: #2dd4bf } .peer { fill: #6b7785 } .spread { stroke: #e6edf3 }
  }`

/** @param {string} text */
const escape = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** @param {import('./report.js').Results} results @param {{ row: string, threads: string }} panel */
function barsOf(results, { row, threads }) {
  return Object.keys(results.samples[row] ?? {})
    .filter((name) => name.endsWith(threads))
    .map((name) => ({ name: name.slice(0, -threads.length - 1), .../** @type {any} */ (figure(results, row, name)) }))
    .toSorted((a, b) => b.median - a.median)
}

/** @param {import('./report.js').Results} results @returns {string} an SVG document */
export function chart(results) {
  const drawn = panels.map((panel) => ({ ...panel, bars: barsOf(results, panel) }))
  const heights = [0, 2].map((i) => head + line * Math.max(...drawn.slice(i, i + 2).map(({ bars }) => bars.length)))
  const body = drawn.map(({ row, threads, bars }, i) => {
    const [x, y] = [(i % 2) * (width + gap), i < 2 ? 0 : heights[0] + gap]
    const scale = (width - left - right) / Math.max(1, ...bars.map(({ high }) => high))
    const title = `${rows[row].label}, ${threads === '1T' ? 'one thread' : 'two threads'}, tok/s`
    const lines = bars.map(({ name, median, low, high }, k) => {
      const [top, middle] = [head + k * line, head + k * line + line / 2 - 2]
      const at = (/** @type {number} */ value) => (left + value * scale).toFixed(1)
      return [
        `<text x="${left - 8}" y="${middle + 4}" text-anchor="end">${escape(name)}</text>`,
        `<rect class="${name.startsWith('nibl') ? 'nibl' : 'peer'}" x="${left}" y="${top}" width="${(median * scale).toFixed(1)}" height="${line - 5}" rx="2"/>`,
        `<line class="spread" x1="${at(low)}" x2="${at(high)}" y1="${middle}" y2="${middle}"/>`,
        `<text class="value" x="${Number(at(high)) + 6}" y="${middle + 4}">${short(median)}</text>`,
      ].join('')
    })
    return `<g transform="translate(${x} ${y})"><text class="title" x="0" y="16">${title}</text>${lines.join('\n')}</g>`
  })
  const size = [2 * width + gap, heights[0] + gap + heights[1]]
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -8 ${size[0] + 24} ${size[1] + 16}" role="img" ` +
    `aria-label="Tokens per second of nibl and other engines">\n<style>${style}\n</style>\n${body.join('\n')}\n</svg>\n`
  )
}

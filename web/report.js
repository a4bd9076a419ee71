/**
 * The report of a quantization as one HTML file: what it saved, what it lost, where. Used by the page and by `npx nibl
 * report`; the data are what C wrote: `nibl quantize --report`, lines of `nibl eval --json`. Nothing is fetched, charts are
 * inline SVG with their figures beside them, so that they read in light and dark and without colour.
 */

/** @typedef {{ value: number, error: number }} Estimate */
/** @typedef {{ name: string, rows: number, columns: number, from: string, to: string, wanted?: string, why?: string, source_bytes: number, bytes: number, error?: number }} Tensor */
/** @typedef {{ tensor: string, median: number, channels: [number, number][] }} InputChannels */
/** @typedef {{ parameters: number, source_bytes: number, bytes: number, file_bytes: number, bits_per_weight: number, recipe?: any, tensors: Tensor[], inputs?: InputChannels[] }} Quantization */
/** @typedef {{ text: string, positions: number, perplexity: Estimate, reference_perplexity?: Estimate, perplexity_ratio?: Estimate, kl?: Estimate, same_top?: Estimate, p_change?: Estimate }} TextScore */
/** @typedef {{ task: string, items: number, chance: number, dropped: boolean, accuracy: Estimate, reference_accuracy?: Estimate, accuracy_change?: Estimate, same_answer?: Estimate }} TaskScore */
/** @typedef {{ prompt: string, reference: string, answer: string }} Sample */
/** @typedef {{ nibl?: string, command?: string, source?: string, output?: string, seconds?: number, calibration?: string, quantization?: Quantization, texts: TextScore[], tasks: TaskScore[], samples: Sample[] }} Report */

const ESCAPES = /** @type {Record<string, string>} */ ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })
const SALIENT = 10 /* times the median */

/** @param {unknown} text */
const escape = (text) => String(text).replace(/[&<>"]/g, (character) => ESCAPES[character])

/** @param {number} bytes */
function size(bytes) {
  if (bytes < 1e6) return `${(bytes / 1e3).toFixed(1)} KB`
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`
}

/** @param {number} value @param {number} [digits] */
const number = (value, digits = 3) => (Number.isFinite(value) ? Number(value.toPrecision(digits)).toString() : '–')

/** @param {Estimate | undefined} estimate @param {number} scale @param {string} unit @param {number} digits after the point */
function plusMinus(estimate, scale, unit, digits) {
  return estimate ? `${(scale * estimate.value).toFixed(digits)} ± ${(scale * estimate.error).toFixed(digits)}${unit}` : '–'
}

/** Change of perplexity. @param {TextScore} score */
function lossOf({ perplexity_ratio: ratio }) {
  if (!ratio) return '–'
  const percent = 100 * (ratio.value - 1)
  return `${percent < 0 ? '−' : '+'}${Math.abs(percent).toFixed(1)} ± ${(100 * ratio.error).toFixed(1)} %`
}

/** @param {string[]} head @param {(string | number)[][]} rows escaped already; the first column names the row */
function table(head, rows) {
  const cells = (/** @type {(string | number)[]} */ row) => row.map((cell, i) => (i === 0 ? `<th scope="row">${cell}</th>` : `<td>${cell}</td>`)).join('')
  return `<div class="wide" role="region" aria-label="Table" tabindex="0"><table><thead><tr>${head.map((cell) => `<th scope="col">${cell}</th>`).join('')}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}</tbody></table></div>`
}

/* ---- Charts ---- */

/**
 * Values with error bars on one axis that begins at 0: a row each, the figure written behind it.
 * @param {string} title @param {{ name: string, value: number, error: number, text: string }[]} rows
 */
function dots(title, rows) {
  const [left, width, right, step] = [110, 330, 130, 30]
  const most = Math.max(...rows.map(({ value, error }) => value + 2 * error), 1e-9)
  const x = (/** @type {number} */ value) => left + (width * Math.max(0, value)) / most
  const height = step * rows.length + 12
  const marks = rows.map(({ name, value, error, text }, i) => {
    const y = step * i + 22
    return `<text x="${left - 12}" y="${y + 4}" text-anchor="end">${escape(name)}</text>
<line class="bar" x1="${x(value - 2 * error).toFixed(1)}" y1="${y}" x2="${x(value + 2 * error).toFixed(1)}" y2="${y}"/><circle class="dot" cx="${x(value).toFixed(1)}" cy="${y}" r="4.5"/>
<text class="figure" x="${left + width + 12}" y="${y + 4}">${escape(text)}</text>`
  })
  return `<svg viewBox="0 0 ${left + width + right} ${height}" role="img" aria-label="${escape(title)}"><line class="axis" x1="${left}" y1="6" x2="${left}" y2="${height - 4}"/>${marks.join('\n')}</svg>`
}

/** What a tensor does, and in which layer. @param {string} name @returns {{ layer: number | null, role: string }} */
function placeOf(name) {
  const match = /^blk\.(\d+)\.(.*?)(\.weight)?$/.exec(name)
  return match ? { layer: Number(match[1]), role: match[2] } : { layer: null, role: name.replace(/\.weight$/, '') }
}

/** @param {Tensor[]} tensors */
const byRole = (tensors) => {
  /** @type {Map<string, Tensor[]>} */
  const roles = new Map()
  for (const tensor of tensors) {
    const { role } = placeOf(tensor.name)
    roles.set(role, [...(roles.get(role) ?? []), tensor])
  }
  return roles
}

/** Bars by layer, a strip for each role. @param {Tensor[]} tensors */
function layers(tensors) {
  const measured = tensors.filter((tensor) => placeOf(tensor.name).layer !== null && Number(tensor.error) > 0)
  if (!measured.length) return ''
  const most = Math.max(...measured.map(({ error = 0 }) => error))
  const count = 1 + Math.max(...measured.map(({ name }) => placeOf(name).layer ?? 0))
  const [left, width, step, tall] = [110, 460, 46, 34]
  const strips = [...byRole(measured)].map(([role, list], i) => {
    const floor = step * i + 42
    const bars = list.map(({ name, error = 0 }) => {
      const x = left + (width * (placeOf(name).layer ?? 0)) / count
      const height = Math.max(1, (tall * error) / most)
      return `<rect x="${x.toFixed(1)}" y="${(floor - height).toFixed(1)}" width="${Math.max(1, (0.8 * width) / count).toFixed(1)}" height="${height.toFixed(1)}"><title>${escape(name)}: ${(100 * error).toFixed(2)} %</title></rect>`
    })
    return `<text x="${left - 12}" y="${floor - 8}" text-anchor="end">${escape(role)}</text><line class="axis" x1="${left}" y1="${floor}" x2="${left + width}" y2="${floor}"/>${bars.join('')}`
  })
  const height = step * strips.length + 26
  return `<div class="wide" role="region" aria-label="Chart" tabindex="0"><svg viewBox="0 0 ${left + width + 10} ${height}" role="img" aria-label="Relative error by layer, a strip for each kind of matrix">${strips.join('\n')}
<text x="${left}" y="${height - 6}">layer 0</text><text x="${left + width}" y="${height - 6}" text-anchor="end">layer ${count - 1}</text></svg></div>
<p class="hint">The highest bar is ${(100 * most).toFixed(1)} %: the root of the mean square of what rounding changed, of that of the weights.</p>`
}

/* ---- Sections ---- */

/** @param {string} title @param {string} content */
const section = (title, content) => (content ? `<section><h2>${title}</h2>\n${content}\n</section>` : '')

/** @param {Report} report */
function tiles({ quantization: q, texts }) {
  /** @type {[string, string, string][]} */
  const list = []
  if (q) {
    list.push(['Size', `${size(q.file_bytes)}`, `from ${size(q.source_bytes)}, ${(q.source_bytes / q.bytes).toFixed(2)} times smaller`])
    list.push(['Bits per weight', q.bits_per_weight.toFixed(3), 'all tensors with their scales, embedding and head included'])
  }
  const compared = texts.filter(({ kl }) => kl)
  if (compared.length) {
    const worst = compared.reduce((a, b) => (Number(a.perplexity_ratio?.value) > Number(b.perplexity_ratio?.value) ? a : b))
    list.push(['Worst domain', lossOf(worst), `perplexity of ${worst.text}`])
    const largest = compared.reduce((a, b) => (Number(a.kl?.value) > Number(b.kl?.value) ? a : b))
    list.push(['Largest divergence', plusMinus(largest.kl, 1, '', 3), `KL in nats, on ${largest.text}`])
  }
  return `<dl class="tiles">${list.map(([name, value, about]) => `<div><dt>${name}</dt><dd><b>${escape(value)}</b> <small>${escape(about)}</small></dd></div>`).join('\n')}</dl>`
}

/** @param {TextScore[]} texts */
function domains(texts) {
  if (!texts.length) return ''
  const compared = texts.filter(({ kl }) => kl)
  const chart = compared.length ? dots('KL divergence by domain, with two standard errors', compared.map(({ text, kl }) => ({
    name: text, value: Number(kl?.value), error: Number(kl?.error), text: plusMinus(kl, 1, '', 3),
  }))) : ''
  const rows = texts.map((score) => [
    escape(score.text), score.positions, score.reference_perplexity ? number(score.reference_perplexity.value, 4) : '–', number(score.perplexity.value, 4), lossOf(score),
    plusMinus(score.kl, 1, '', 4), plusMinus(score.same_top, 100, ' %', 1), plusMinus(score.p_change, 100, ' %', 2),
  ])
  const head = ['Text', 'Positions', 'Perplexity before', 'after', 'Change', 'KL, nats', 'Same top token', 'Change of p']
  const note = '<p class="hint">Errors are standard errors, of differences paired position by position; the chart shows two of them.</p>'
  return `${chart && `<figure><div class="wide" role="region" aria-label="Chart" tabindex="0">${chart}</div><figcaption>KL divergence from the reference in nats</figcaption></figure>`}${table(head, rows)}${note}`
}

/** @param {TaskScore[]} tasks */
function taskTable(tasks) {
  if (!tasks.length) return ''
  const rows = tasks.map((task) => [
    escape(task.task), task.items, `${(100 * task.chance).toFixed(0)} %`, plusMinus(task.reference_accuracy, 100, ' %', 1),
    ...(task.dropped ? ['dropped', '–', '–']
      : [plusMinus(task.accuracy, 100, ' %', 1), plusMinus(task.accuracy_change, 100, ' points', 1), plusMinus(task.same_answer, 100, ' %', 1)]),
  ])
  const note = tasks.some(({ dropped }) => dropped) ? '<p class="hint">Dropped: the model was less than 10 points above chance before already, so nothing can be seen from it.</p>' : ''
  return table(['Task', 'Items', 'By chance', 'Right before', 'after', 'Change', 'Same answer'], rows) + note
}

/** @param {Quantization} q */
function bits({ bytes, tensors }) {
  const rows = [...byRole(tensors)].map(([role, list]) => {
    const sum = (/** @type {(tensor: Tensor) => number} */ of) => list.reduce((total, tensor) => total + of(tensor), 0)
    const [weights, after, before] = [sum(({ rows, columns }) => rows * columns), sum((tensor) => tensor.bytes), sum((tensor) => tensor.source_bytes)]
    const types = [...new Set(list.map(({ to }) => to))].join(', ')
    return { role, weights, before, after, types, count: list.length }
  }).sort((a, b) => b.after - a.after)
  return table(['Tensors', 'How many', 'Type', 'Weights', 'Before', 'After', 'Bits each', 'Share of the file'], rows.map(({ role, weights, before, after, types, count }) => [
    escape(role), count, escape(types), weights.toLocaleString('en'), size(before), size(after), ((8 * after) / weights).toFixed(2),
    `<svg class="share" viewBox="0 0 100 10" aria-hidden="true"><rect width="${((100 * after) / bytes).toFixed(1)}" height="10"/></svg> ${((100 * after) / bytes).toFixed(1)} %`,
  ]))
}

/** @param {Tensor[]} tensors */
function tensorList(tensors) {
  const rows = tensors.map(({ name, rows, columns, from, to, wanted, why, source_bytes: before, bytes, error }) => [
    escape(name), `${columns} × ${rows}`, escape(from), escape(to) + (wanted ? ` <small>instead of ${escape(wanted)}: ${escape(why)}</small>` : ''),
    size(before), size(bytes), error === undefined ? '–' : `${(100 * error).toFixed(2)} %`,
  ])
  return `<details><summary>All ${tensors.length} tensors</summary>${table(['Tensor', 'Columns × rows', 'From', 'To', 'Before', 'After', 'Error'], rows)}</details>`
}

/** @param {InputChannels[]} inputs */
function channels(inputs) {
  const most = [...inputs].sort((a, b) => b.channels[0][1] / (b.median || 1) - a.channels[0][1] / (a.median || 1)).slice(0, 16)
  if (!most.length) return ''
  const rows = most.map(({ tensor, median, channels }) => [
    escape(tensor), number(median),
    channels.map(([channel, magnitude]) => {
      const times = magnitude / (median || 1)
      return `${times >= SALIENT ? `<b title="salient">★ ${channel}</b>` : channel}: ${number(magnitude)} (${number(times, 2)} ×)`
    }).join(', '),
  ])
  return `<p class="hint">The inputs with the largest channels of all ${inputs.length}: root mean square over the calibration text. ★: ${SALIENT} times the median and more.</p>
${table(['Input of', 'Median', 'Largest channels'], rows)}`
}

/** @param {Sample[]} samples */
function answers(samples) {
  return samples.map(({ prompt, reference, answer }) => `<h3>${escape(prompt)}</h3><div class="pair"><blockquote><small>before</small>${escape(reference)}</blockquote><blockquote><small>after</small>${escape(answer)}</blockquote></div>`).join('\n')
}

const style = `
:root{color-scheme:light dark;--text:#1c1f1d;--soft:#5b625e;--ground:#fcfcfa;--raised:#f1f2ee;--line:#d5d8d2;--mark:#1f6f54}
@media (prefers-color-scheme:dark){:root{--text:#e7eae6;--soft:#a2aaa5;--ground:#151816;--raised:#1f2421;--line:#363d38;--mark:#6cc5a2}}
*{box-sizing:border-box}body{margin:0 auto;max-width:62rem;padding:2rem 1.25rem 4rem;font:1rem/1.55 system-ui,sans-serif;color:var(--text);background:var(--ground);overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.5rem 0 .75rem}h3{font-size:1rem;margin:1.25rem 0 .5rem}
.hint,small,figcaption{color:var(--soft);font-size:.85rem}small{display:block}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.75rem;margin:1.5rem 0}.tiles div{background:var(--raised);border-radius:.6rem;padding:.8rem 1rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0}dd b{font-size:1.3rem}figure{margin:0 0 1rem}svg{display:block;width:100%;min-width:30rem;max-width:38rem;height:auto;font:13px system-ui,sans-serif}
svg text{fill:var(--text)}.figure{font-variant-numeric:tabular-nums}.axis{stroke:var(--line)}.bar{stroke:var(--mark);stroke-width:2}.dot,rect{fill:var(--mark)}.share{display:inline-block;min-width:0;width:4rem;height:.6rem;background:var(--line)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}th,td{text-align:right;padding:.35rem .75rem;border-bottom:1px solid var(--line);vertical-align:top;white-space:nowrap}
th:first-child{text-align:left;padding-left:0}thead th{color:var(--soft);font-weight:500;vertical-align:bottom}tbody th{font-weight:500}td:last-child{padding-right:0}
pre{background:var(--raised);border-radius:.6rem;padding:.8rem 1rem;overflow-x:auto;font-size:.85rem}summary{cursor:pointer;margin:.75rem 0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(16rem,1fr));gap:.75rem}blockquote{margin:0;background:var(--raised);border-radius:.6rem;padding:.6rem 1rem;white-space:pre-wrap}`

/** What was said in several files: objects of `nibl quantize --report`, lines of `nibl eval --json`, or whole reports.
 * @param {any[]} parts @returns {Report} */
export function mergeReport(parts) {
  /** @type {Report} */
  const report = { texts: [], tasks: [], samples: [] }
  for (const part of parts) {
    if (typeof part?.text === 'string') report.texts.push(part)
    else if (typeof part?.task === 'string') report.tasks.push(part)
    else if (part?.quantization || part?.texts) {
      const { texts = [], tasks = [], samples = [], ...rest } = part
      Object.assign(report, rest)
      report.texts.push(...texts)
      report.tasks.push(...tasks)
      report.samples.push(...samples)
    } else throw new TypeError('a part of the report is none that nibl writes: the output of quantize --report or eval --json')
  }
  return report
}

/** @param {Report} report @returns {string} the whole file */
export function reportHtml(report) {
  const { quantization: q, texts, tasks, samples, source, output, command, calibration, seconds } = report
  const named = (/** @type {string | undefined} */ path) => path?.replace(/^.*[/\\]/, '')
  const title = named(output) ?? named(source) ?? 'Evaluation'
  const made = [source && `from ${source}`, calibration && `calibrated with ${calibration}`, seconds && `in ${seconds < 100 ? seconds.toFixed(1) : Math.round(seconds)} s`, report.nibl && `nibl ${report.nibl}`].filter(Boolean)
  const body = [
    `<h1>${escape(title)}</h1>`,
    made.length ? `<p class="hint">${escape(made.join(', '))}</p>` : '',
    tiles(report),
    section('What was lost, by domain', domains(texts)),
    section('Tasks', taskTable(tasks)),
    section('Answers side by side', answers(samples)),
    q ? section('Where the bits went', bits(q)) : '',
    q ? section('Error by layer and tensor', layers(q.tensors) + tensorList(q.tensors)) : '',
    section('Channels that carry most', channels(q?.inputs ?? [])),
    section('How it was made', (command ? `<pre>${escape(command)}</pre>` : '') + (q?.recipe ? `<p class="hint">The recipe, which stands in the file as <code>nibl.recipe</code>; <code>--recipe FILE</code> takes it.</p><pre>${escape(JSON.stringify(q.recipe, null, 1))}</pre>` : '')),
  ]
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escape(title)}: what quantization saved and lost</title>
<style>${style}</style>
</head>
<body>
<main>
${body.filter(Boolean).join('\n')}
</main>
<script type="application/json" id="data">${JSON.stringify(report).replaceAll('<', '\\u003c')}</script>
</body>
</html>
`
}

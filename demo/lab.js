/** The quantize lab: choose a model and a recipe, watch its tensors being done, read what was lost, talk with both, save
 * the file. Fetched when somebody opens it. */
import { load, quantize } from 'nibl'
import { mergeReport, reportHtml } from '../web/report.js'
import { save } from './save.js'
import { sourceOf, titleOf } from './sources.js'
import { element, runTask } from './view.js'

/** @typedef {import('../web/nibl.d.ts').QuantizationReport} QuantizationReport */
/** @typedef {import('../web/nibl.d.ts').Model} Model */

const types = [
  ['q4_0', '4 bits, Q4_0: 4.5 with its scales'],
  ['iq4_nl', '4 bits on a curve, IQ4_NL: 4.5'],
  ['mxfp4', '4 bits, MXFP4: 4.25'],
  ['q5_0', '5 bits, Q5_0: 5.5'],
  ['q8_0', '8 bits, Q8_0: 8.5'],
]
const methods = [
  ['rtn', 'round: quick'],
  ['clip', 'search the scales that lose least: slow'],
  ['imatrix', 'the same, by what a text makes of the model'],
  ['awq,gptq', 'AWQ and GPTQ: loses least, takes minutes'],
  ['rotate,gptq', 'rotated, then GPTQ: minutes'],
]
const phases = { download: 'loading', measure: 'measuring', quantize: 'quantizing' }

/** @param {string} text @param {string[][]} options */
function choice(text, options) {
  const select = element('select', {}, options.map(([value, label]) => element('option', { value, textContent: label })))
  return { select, label: element('label', { className: 'grow' }, [text, select]) }
}

/** @param {number} bytes */
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`

/**
 * Shows the lab in `place` until it is closed.
 * @param {HTMLElement} place
 * @param {{ defaultSource: string, hub?: string, announce: (text: string) => void, onClose: () => void }} options
 */
export function openLab(place, { defaultSource, hub, announce, onClose }) {
  const style = element('link', { rel: 'stylesheet', href: new URL('./lab.css', import.meta.url).href })
  document.head.append(style)

  const address = element('input', { value: titleOf(defaultSource), autocomplete: 'off', spellcheck: false, ariaLabel: 'Model: name on the hub, or address' })
  const picker = element('input', { type: 'file', accept: '.gguf', ariaLabel: 'Or a file' })
  const type = choice('Type', types)
  const method = choice('Method', methods)
  const text = element('input', { type: 'file', accept: 'text/*,.txt,.md', ariaLabel: 'A text like those the model will see' })
  const textLabel = element('label', { hidden: true }, ['Text to calibrate with, else a small one of its own', text])
  method.select.addEventListener('change', () => (textLabel.hidden = !/imatrix|awq|gptq/.test(method.select.value)))
  const again = element('input', { type: 'checkbox', checked: true })
  const start = element('button', { className: 'primary', type: 'submit', textContent: 'Quantize' })
  const stop = element('button', { type: 'button', textContent: 'Stop', hidden: true })
  const form = element('form', {}, [
    element('label', { className: 'grow' }, ['Model', address]),
    element('label', { className: 'grow' }, ['or a file', picker]),
    type.label, method.label, textLabel,
    element('label', { className: 'check' }, [again, 'also if it is quantized already: its loss stays']),
    start, stop,
  ])
  const close = element('button', { type: 'button', className: 'quiet', textContent: 'Close the lab' })
  const error = element('p', { className: 'error', role: 'alert', hidden: true })
  const figures = element('p', { className: 'figures' })
  const tensors = element('ol', { className: 'tensors', ariaLabel: 'Tensors; those that are done are filled' })
  const outcome = element('div', { hidden: true, className: 'lab-outcome' })
  const lab = element('section', { className: 'lab', id: 'lab' }, [
    element('div', { className: 'row' }, [element('h2', { textContent: 'Quantize lab', tabIndex: -1 }), close]),
    element('p', { className: 'hint', textContent: 'Makes a model smaller here in the tab, and shows what that cost. Nothing leaves this machine.' }),
    form, error, figures, tensors, outcome,
  ])
  place.append(lab)
  lab.querySelector('h2').focus()

  /** @type {Model[]} */
  let models = []
  /** @type {string[]} */
  let urls = []

  function forget() {
    for (const model of models) model.close()
    models = []
    urls.forEach((url) => URL.revokeObjectURL(url))
    urls = []
    outcome.hidden = true
    outcome.replaceChildren()
    tensors.replaceChildren()
    figures.textContent = ''
  }

  /** Fills the squares of the tensors that `loaded` bytes are of. @param {QuantizationReport} report @param {number} loaded @param {number} total @param {number} [secondsLeft] */
  function showProgress(report, loaded, total, secondsLeft) {
    if (!tensors.children.length) tensors.append(...report.tensors.map(({ name, from, to }) => element('li', { title: `${name}: ${from} to ${to}` })))
    const header = total - report.tensors.reduce((sum, { bytes }) => sum + bytes, 0)
    let end = header
    const done = report.tensors.findIndex(({ bytes }) => (end += bytes) > loaded + 64 * report.tensors.length)
    const count = loaded === total || done < 0 ? report.tensors.length : done
    for (let i = tensors.querySelectorAll('.done').length; i < count; i++) tensors.children[i].className = 'done'
    const left = loaded < total && secondsLeft !== undefined ? `, ${Math.ceil(secondsLeft)} s left: ${report.tensors[Math.min(count, report.tensors.length - 1)].name}` : ''
    figures.textContent = `${megabytes(loaded)} of ${megabytes(total)}, ${count} of ${report.tensors.length} tensors${left}`
  }

  /** @param {string | File} source @param {Blob} blob @param {any} data */
  function showOutcome(source, blob, data) {
    const frame = element('iframe', { title: 'The report', sandbox: 'allow-same-origin' })
    const html = () => reportHtml(mergeReport([data]))
    const draw = () => void (frame.srcdoc = html())
    const button = (/** @type {string} */ text, /** @type {() => any} */ act) => {
      const node = element('button', { type: 'button', textContent: text })
      node.addEventListener('click', () => Promise.resolve(act()).catch(showError))
      return node
    }
    const name = data.output.replace(/\.gguf$/, '')
    const prompt = element('input', { value: 'Why is the sky blue?', ariaLabel: 'What to ask both' })
    const ask = element('button', { type: 'submit', textContent: 'Ask both' })
    const answers = ['Before', 'After'].map((title) => ({ title, text: element('div', { ariaLive: 'polite' }) }))
    const chat = element('form', {}, [element('label', { className: 'grow' }, ['Side by side', prompt]), ask])
    chat.addEventListener('submit', async (/** @type {Event} */ event) => {
      event.preventDefault()
      ask.disabled = true
      showError(null)
      try {
        if (!models.length) {
          const from = typeof source === 'string' ? { cache: true, allowOffline: true, hub } : {}
          const both = await Promise.all([load(source, from), load(blob)])
          /* The lab was closed, or another model is made. */
          if (!chat.isConnected) return both.forEach((model) => model.close())
          models = both
        }
        const texts = await Promise.all(models.map(async (model, i) => {
          answers[i].text.textContent = ''
          for await (const { text } of model.generate([{ role: 'user', content: prompt.value }], { maxTokens: 120 })) answers[i].text.append(text)
          return answers[i].text.textContent
        }))
        data.samples.push({ prompt: prompt.value, reference: texts[0], answer: texts[1] })
        draw()
        announce('Both have answered')
      } catch (reason) {
        showError(reason)
      } finally {
        ask.disabled = false
      }
    })
    outcome.replaceChildren(
      element('div', { className: 'row' }, [
        button('Save the model', () => save(blob, data.output)),
        button('Save the report', () => save(new Blob([html()], { type: 'text/html' }), `${name}.html`)),
        button('Save its data', () => save(new Blob([JSON.stringify(data)], { type: 'application/json' }), `${name}.json`)),
      ]),
      chat,
      element('div', { className: 'pair' }, answers.map(({ title, text }) => element('section', {}, [element('h3', { textContent: title }), text]))),
      frame,
    )
    draw()
    outcome.hidden = false
  }

  /** @param {AbortSignal} signal */
  async function run(signal) {
    forget()
    const began = performance.now()
    const file = picker.files?.[0]
    const source = file ?? (address.value.trim() === titleOf(defaultSource) ? defaultSource : sourceOf(address.value))
    const name = file?.name ?? titleOf(/** @type {string} */ (source))
    const options = { type: type.select.value, method: method.select.value, requantize: again.checked, measure: true }
    announce(`Quantizing ${name}`)
    const { report, blob, calibrationTokens } = await quantize(source, {
      ...options, ...(file ? {} : { hub }), signal,
      ...(textLabel.hidden || !text.files?.[0] ? {} : { calibration: text.files[0] }),
      onProgress: ({ phase, loaded, total, report, secondsLeft }) => {
        if (report) showProgress(report, loaded, total, secondsLeft)
        else figures.textContent = `${phases[phase]}: ${Math.floor((100 * loaded) / (total || Infinity))} %`
      },
    })
    const output = `${name.replace(/^.*\//, '').replace(/(\.[qQf]\w+)?\.gguf$/, '')}.${options.type.toUpperCase()}.gguf`
    const seconds = (performance.now() - began) / 1000
    const command = `quantize(${JSON.stringify(typeof source === 'string' ? source : name)}, ${JSON.stringify(options)})`
    showOutcome(source, /** @type {Blob} */ (blob), { source: name, output, command, seconds, quantization: report, ...(calibrationTokens > 0 && { calibration: text.files?.[0]?.name ?? 'a small text of its own' }), texts: [], tasks: [], samples: [] })
    figures.textContent = `${megabytes(report.source_bytes)} became ${megabytes(report.file_bytes)} in ${seconds.toFixed(1)} s: ${report.bits_per_weight} bits per weight`
    announce('The model is quantized')
  }

  const { showError, abort } = runTask({ form, start, stop, error, announce }, run)
  close.addEventListener('click', () => {
    abort()
    forget()
    lab.remove()
    style.remove()
    onClose()
  })
}

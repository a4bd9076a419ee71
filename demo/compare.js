/** Two models, or two settings of one, side by side on the same prompt. Each answer's tokens are underlined where the two
 * would have gone on differently, the stronger the further their whole distributions are apart (KL divergence, of both on the
 * same text). Fetched when somebody opens it. */
import { load } from 'nibl'
import { keptModels, sourceOf, titleOf } from './sources.js'
import { element, runTask } from './view.js'

/** @typedef {import('../web/nibl.d.ts').Model} Model */
/** @typedef {import('../web/nibl.d.ts').TokenScore} TokenScore */
/** @typedef {{ token: number, text: string }} Piece */
/** @typedef {{ source: string, kv: 'i8' | 'f16' | 'f32', threads?: number, temperature: number }} Side */

const kvTypes = [
  ['i8', '8 bits: quickest'],
  ['f16', '16 bits'],
  ['f32', '32 bits: exact'],
]
const STRONG = 1 /* nats: underlined as strongly as can be */
const TOLD = 5

const percent = (/** @type {number} */ logprob) => `${(100 * Math.exp(logprob)).toFixed(logprob > -2.3 ? 0 : 1)} %`
const quoted = (/** @type {string} */ text) => `“${text.trim().replaceAll('\n', '↵') || '␣'}”`

/** What one side is chosen with; its values are read when somebody asks.
 * @param {string} name @param {Side} side @param {string} list id of the names to choose from */
function chooser(name, side, list) {
  const model = element('input', { value: titleOf(side.source), autocomplete: 'off', spellcheck: false })
  model.setAttribute('list', list)
  const kv = element('select', {}, kvTypes.map(([value, text]) => element('option', { value, textContent: text, selected: value === side.kv })))
  const temperature = element('input', { type: 'number', min: '0', max: '2', step: '0.1', value: String(side.temperature), inputMode: 'decimal' })
  const threads = element('input', { type: 'number', min: '1', max: '16', step: '1', value: String(side.threads ?? ''), placeholder: 'auto', inputMode: 'numeric' })
  const field = element('fieldset', {}, [
    element('legend', { textContent: name }),
    element('label', { className: 'grow' }, ['Model', model]),
    element('label', {}, ['KV cache', kv]),
    element('label', {}, ['Temperature', temperature]),
    element('label', {}, ['Threads', threads]),
  ])
  /** @returns {Side} */
  const read = () => ({
    source: model.value.trim() === titleOf(side.source) ? side.source : sourceOf(model.value),
    kv: kv.value, temperature: Number(temperature.value) || 0, threads: Number(threads.value) || undefined,
  })
  return { field, read }
}

/** The answer's tokens as they come, then underlined. @param {string} title */
function pane(title) {
  const name = element('h3', { textContent: title })
  const about = element('p', { className: 'hint' })
  const text = element('div', { className: 'answer' })
  const notes = element('div', { className: 'hint' })
  const place = element('section', {}, [name, about, text, notes])
  place.setAttribute('aria-label', title)
  return { place, about, text, notes }
}

/** Tokens without text of their own stand with the next one. @param {HTMLElement} text @param {Piece[]} pieces */
function drawTokens(text, pieces) {
  /** @type {HTMLElement[]} */
  const spans = []
  let open = null
  for (const piece of pieces) {
    open ??= element('span')
    open.append(piece.text)
    spans.push(/** @type {HTMLElement} */ (open))
    if (piece.text) open = null
  }
  text.replaceChildren(...new Set(spans))
  return spans
}

/** Underlines, and tells in words. @param {{ text: HTMLElement, notes: HTMLElement }} pane @param {Piece[]} pieces @param {TokenScore[]} scores
 * @param {(token: number) => Promise<string>} textOf @param {string} other @param {number} parted */
async function underline({ text, notes }, pieces, scores, textOf, other, parted) {
  const spans = drawTokens(text, pieces)
  spans[parted]?.classList.add('parted')
  const differ = scores.map(({ top, reference }, at) => ({ at, differs: top !== reference?.top, kl: Number(scores[at].kl) }))
  for (const { at, differs, kl } of differ) {
    const { top, topLogprob, reference } = scores[at]
    if (!reference) continue
    spans[at].style.setProperty('--kl', Math.min(1, Math.max(kl / STRONG, Number(spans[at].style.getPropertyValue('--kl')))).toFixed(3))
    spans[at].classList.toggle('differs', differs || spans[at].classList.contains('differs'))
    spans[at].title = `KL ${kl.toFixed(3)}; here ${quoted(await textOf(reference.top))} ${percent(reference.topLogprob)}, ${other} ${quoted(await textOf(top))} ${percent(topLogprob)}`
  }
  const count = differ.filter(({ differs }) => differs).length
  const mean = differ.reduce((sum, { kl }) => sum + kl, 0) / differ.length
  const strongest = differ.filter(({ differs }) => differs).sort((a, b) => b.kl - a.kl).slice(0, TOLD)
  const rows = await Promise.all(strongest.map(async ({ at, kl }) => {
    const { top, reference } = scores[at]
    const [here, there] = await Promise.all([textOf(Number(reference?.top)), textOf(top)])
    return element('li', { textContent: `token ${at + 1}: ${quoted(here)} here, ${quoted(there)} ${other}; KL ${kl.toFixed(3)}` })
  }))
  notes.replaceChildren(
    element('p', { textContent: `${count} of ${differ.length} tokens would be others ${other}. Mean KL ${mean.toFixed(4)} nats.` }),
    ...(rows.length ? [element('ol', { className: 'strongest' }, rows)] : []),
  )
}

/**
 * Shows the view in `place` until it is closed. What it shows stands in the page's address.
 * @param {HTMLElement} place
 * @param {{ defaultSource: string, hub?: string, announce: (text: string) => void, onClose: () => void }} options
 */
export function openCompare(place, { defaultSource, hub, announce, onClose }) {
  const styles = ['lab.css', 'compare.css'].map((name) => element('link', { rel: 'stylesheet', href: new URL(`./${name}`, import.meta.url).href }))
  document.head.append(...styles)
  const parameters = new URLSearchParams(location.search)
  const given = (/** @type {string} */ name) => parameters.get(name) ?? undefined
  const address = (/** @type {string | undefined} */ text) => (text ? sourceOf(text) : defaultSource)
  const kvOf = (/** @type {string | undefined} */ text, /** @type {Side['kv']} */ fallback) => /** @type {Side['kv']} */ (kvTypes.some(([kv]) => kv === text) ? text : fallback)
  /** @type {Side[]} */
  const sides = ['', '2'].map((number) => ({
    source: address(given(`model${number}`) ?? given('model')), kv: kvOf(given(`kv${number}`), number ? 'f32' : 'i8'),
    temperature: Number(given(`temperature${number}`) ?? 0), threads: Number(given(`threads${number}`)) || undefined,
  }))
  const names = element('datalist', { id: 'compare-models' })
  const choosers = sides.map((side, i) => chooser(['One', 'The other'][i], side, names.id))
  const prompt = element('textarea', { rows: 2, value: given('prompt') ?? 'Why is the sky blue?' })
  const most = element('input', { type: 'number', min: '1', max: '1024', value: given('tokens') ?? '80', inputMode: 'numeric' })
  const start = element('button', { className: 'primary', type: 'submit', textContent: 'Compare' })
  const stop = element('button', { type: 'button', textContent: 'Stop', hidden: true })
  const link = element('button', { type: 'button', textContent: 'Copy link' })
  const form = element('form', {}, [
    ...choosers.map(({ field }) => field), names,
    element('label', { className: 'grow' }, ['Ask both', prompt]),
    element('div', {}, [element('label', {}, ['Longest answer, in tokens', most]), start, stop, link]),
  ])
  const close = element('button', { type: 'button', className: 'quiet', textContent: 'Close the comparison' })
  const error = element('p', { className: 'error', role: 'alert', hidden: true })
  const figures = element('p', { className: 'figures' })
  const panes = ['One', 'The other'].map(pane)
  const outcome = element('div', { className: 'pair', hidden: true }, panes.map(({ place }) => place))
  const view = element('section', { className: 'lab compare', id: 'compare' }, [
    element('div', { className: 'row' }, [element('h2', { textContent: 'Compare', tabIndex: -1 }), close]),
    element('p', { className: 'hint', textContent: 'Two models, or two settings of one, on the same prompt. Underlined is where they would go on differently; the stronger, the further apart.' }),
    form, error, figures, outcome,
  ])
  place.append(view)
  view.querySelector('h2').focus()
  keptModels().then((kept) => names.append(...kept.map(({ model }) => element('option', { value: titleOf(model) }))))

  /** By what they were loaded with. @type {Map<string, Promise<Model>>} */
  const models = new Map()

  /** @param {string[]} [kept] keys */
  function forget(kept = []) {
    for (const [key, model] of models) {
      if (kept.includes(key)) continue
      models.delete(key)
      model.then((model) => model.close(), () => {})
    }
  }

  const read = () => choosers.map((chooser) => chooser.read())

  /** The page's address that shows this. @param {Side[]} sides */
  function addressOf(sides) {
    const url = new URL(location.href)
    const values = /** @type {[string, any][]} */ (sides.flatMap(({ source, kv, temperature, threads }, i) => {
      const number = i ? '2' : ''
      const model = source === defaultSource && !parameters.has('model') ? undefined : source
      return [[`model${number}`, model], [`kv${number}`, kv], [`temperature${number}`, temperature || undefined], [`threads${number}`, threads]]
    }))
    url.searchParams.set('view', 'compare')
    for (const [name, value] of [...values, ['prompt', prompt.value], ['tokens', most.value]]) {
      if (value === undefined) url.searchParams.delete(name)
      else url.searchParams.set(name, value)
    }
    return url.href
  }

  /** @param {Side} side */
  const keyOf = ({ source, kv, threads }) => JSON.stringify([source, kv, threads])

  /** @param {Side} side @param {number} i @param {AbortSignal} signal */
  async function modelOf(side, i, signal) {
    const key = keyOf(side)
    const { source, kv, threads } = side
    const onProgress = (/** @type {any} */ { loaded, total }) => (panes[i].about.textContent = `loading, ${Math.round((100 * loaded) / (total || loaded))} %`)
    if (!models.has(key)) {
      const loading = load(source, { kv, threads, evaluate: true, cache: true, allowOffline: true, hub, signal, onProgress })
      models.set(key, loading)
      loading.catch(() => models.delete(key))
    }
    return /** @type {Promise<Model>} */ (models.get(key))
  }

  /** @param {Model} model @param {Side} side @param {number} i @param {AbortSignal} signal */
  async function answer(model, side, i, signal) {
    /** @type {Piece[]} */
    const pieces = []
    const messages = [{ role: 'user', content: prompt.value }]
    panes[i].text.replaceChildren()
    const options = { temperature: side.temperature, maxTokens: Number(most.value) || 80, seed: 1, signal }
    for await (const { token, text } of model.generate(messages, options)) {
      pieces.push({ token, text })
      panes[i].text.append(text)
    }
    const { decode } = model.stats
    panes[i].about.textContent = `${titleOf(side.source)}, KV ${side.kv}, ${model.info.threads} threads, ${decode.tokensPerSecond.toFixed(0)} tok/s`
    return pieces
  }

  /** Underlines both answers: each is read by the other model as well.
   * @param {Model[]} both @param {Piece[][]} answers @param {AbortSignal} signal */
  async function compare(both, answers, signal) {
    const messages = [{ role: 'user', content: prompt.value }]
    const prompts = await Promise.all(both.map((model) => model.encode(messages)))
    const all = answers.flat().map(({ text }) => text).join('')
    const [one, other] = await Promise.all(both.map((model) => model.tokenize(all)))
    const [a, b] = answers.map((pieces) => pieces.map(({ token }) => token))
    const sameWords = both[0].info.vocabulary === both[1].info.vocabulary && String(one) === String(other)
    if (!sameWords) return 'These models cut text into other tokens: only the texts can be compared.'
    const parted = a.findIndex((token, at) => token !== b[at])
    const where = parted < 0 && a.length === b.length ? 'Both answers are the same' : `The answers part at token ${(parted < 0 ? a.length : parted) + 1}`
    if (both[0] === both[1]) {
      answers.forEach((pieces, i) => drawTokens(panes[i].text, pieces)[parted]?.classList.add('parted'))
      return `${where}. One model computed both, so their distributions are the same on the same text.`
    }
    for (const i of [0, 1]) {
      if (!answers[i].length) continue
      const tokens = [...prompts[i], ...answers[i].map(({ token }) => token)]
      const scores = await both[1 - i].score(tokens, { first: prompts[i].length, reference: both[i], signal })
      const texts = new Map()
      const textOf = async (/** @type {number} */ token) => {
        if (!texts.has(token)) texts.set(token, await both[0].detokenize([token]))
        return texts.get(token)
      }
      await underline(panes[i], answers[i], scores, textOf, i ? 'on the left' : 'on the right', parted)
    }
    return `${where}.`
  }

  /** @param {AbortSignal} signal */
  async function run(signal) {
    figures.textContent = ''
    for (const { text, notes, about } of panes) for (const node of [text, notes, about]) node.replaceChildren()
    try {
      const sides = read()
      forget(sides.map(keyOf))
      history.replaceState(null, '', addressOf(sides))
      outcome.hidden = false
      announce('Both are answering')
      const both = await Promise.all(sides.map((side, i) => modelOf(side, i, signal)))
      const answers = await Promise.all(both.map((model, i) => answer(model, sides[i], i, signal)))
      figures.textContent = 'Reading each answer with the other model'
      figures.textContent = await compare(both, answers, signal)
      announce(figures.textContent ?? '')
    } catch (reason) {
      figures.textContent = ''
      throw reason
    }
  }

  const { showError, abort } = runTask({ form, start, stop, error, announce }, run)
  link.addEventListener('click', async () => {
    try {
      const url = addressOf(read())
      history.replaceState(null, '', url)
      await navigator.clipboard.writeText(url)
      announce('The link is copied')
    } catch {
      announce('The link is in the address bar')
    }
  })
  close.addEventListener('click', () => {
    abort()
    forget()
    view.remove()
    for (const style of styles) style.remove()
    const url = new URL(location.href)
    url.searchParams.delete('view')
    history.replaceState(null, '', url)
    onClose()
  })
}

/** The page: choose a model, watch it load, talk with it. */
import { NiblError, load } from 'nibl'
import { renderMarkdown } from './markdown.js'
import { droppedFiles, forget, keep, keptModels, ofFiles, sourceOf, titleOf } from './sources.js'

/** @typedef {import('../web/nibl.d.ts').Model} Model */
/** @typedef {import('../web/nibl.d.ts').Message} Message */

/** @template {HTMLElement} [T=HTMLElement] @param {string} id @returns {T} */
const $ = (id) => /** @type {T} */ (document.getElementById(id))

const prompt = /** @type {HTMLTextAreaElement} */ ($('prompt'))
const temperature = /** @type {HTMLInputElement} */ ($('temperature'))
const maxTokens = /** @type {HTMLInputElement} */ ($('max-tokens'))
const pickers = ['file', 'folder'].map((id) => /** @type {HTMLInputElement} */ ($(id)))
const address = /** @type {HTMLInputElement} */ ($('address'))
const token = /** @type {HTMLInputElement} */ ($('token'))
const messageList = $('messages')

const parameters = new URLSearchParams(location.search)
const defaultSource = new URL(parameters.get('model') ?? '../model/SmolLM2-135M-Instruct.Q4_1.gguf', location.href).href
const hub = parameters.get('hub') ?? undefined

/** @type {Model | null} */
let model = null
/** What stops the load or the answer under way. @type {AbortController | null} */
let running = null
/** @type {Message[]} */
let conversation = []

/* ---- What is shown ---- */

/** @param {'empty' | 'loading' | 'ready' | 'answering'} state */
function show(state) {
  document.body.dataset.state = state
  const chatting = state === 'ready' || state === 'answering'
  $('welcome').hidden = state !== 'empty'
  if (state === 'empty') showKept()
  $('loading').hidden = state !== 'loading'
  for (const id of ['log', 'composer', 'facts', 'settings', 'new-chat']) $(id).hidden = !chatting
  $('suggestions').hidden = state !== 'ready' || conversation.length > 0
  $('send').hidden = state === 'answering'
  $('stop').hidden = state !== 'answering'
  $('log').setAttribute('aria-busy', String(state === 'answering'))
}

/** @param {unknown} error */
function showError(error) {
  const box = $('error')
  box.hidden = !error
  box.textContent = error instanceof Error ? error.message : ''
}

/** For those who listen. @param {string} text */
function announce(text) {
  $('status').textContent = text
}

/** @param {number} bytes */
function megabytes(bytes) {
  const value = bytes / 1e6
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} MB`
}

/** One of the figures below the prompt; without text it is not shown.
 * @param {'download' | 'decode' | 'prefill' | 'memory' | 'binary'} name @param {string} text */
function showFact(name, text) {
  const value = $(`fact-${name}`)
  value.textContent = text
  if (value.parentElement) value.parentElement.hidden = text === ''
}

/** @param {'decode' | 'prefill'} name @param {number} tokensPerSecond */
function showSpeed(name, tokensPerSecond) {
  if (tokensPerSecond > 0) showFact(name, `${tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)} tok/s`)
}

function showFacts() {
  if (!model) return
  const { info, stats } = model
  const simd = info.binary.startsWith('relaxed') ? 'relaxed SIMD' : 'SIMD'
  showFact('binary', `${simd}, ${info.threads} thread${info.threads > 1 ? 's' : ''}`)
  $('fact-binary').title = info.why
  showFact('memory', megabytes(stats.memory.linear))
  showSpeed('decode', stats.decode.tokensPerSecond)
  showSpeed('prefill', stats.prefill.tokensPerSecond)
}

/* ---- Loading ---- */

/** @param {string | File | File[]} source @param {string} name */
async function open(source, name) {
  closeModel()
  showError(null)
  show('loading')
  $('loading-title').textContent = `Loading ${name}`
  announce(`Loading ${name}`)
  const controller = (running = new AbortController())
  const isRemote = typeof source === 'string'
  /** @type {Model} */
  let opened
  try {
    const onProgress = progressMeter()
    const onWarning = (/** @type {NiblError} */ warning) => showError(warning)
    const from = isRemote && { cache: true, allowOffline: true, hub, token: token.value.trim() || undefined }
    opened = await load(source, { early: true, signal: controller.signal, onProgress, onWarning, ...from })
  } catch (error) {
    if (running === controller) fail(error) /* else it gave way to another one */
    return
  }
  if (running !== controller) return opened.close()
  running = null
  model = opened
  if (isRemote) keep()
  opened.ready.then(
    () => {
      showFacts()
      announce(`${name} is ready`)
    },
    (error) => opened === model && fail(error),
  ).finally(hideProgress)
  $('model-name').textContent = name
  $('model-name').title = `${opened.info.name}, ${opened.info.architecture}`
  maxTokens.max = String(opened.info.contextLength)
  show('ready')
  showFacts()
  prompt.focus()
}

/** @param {unknown} error */
function fail(error) {
  closeModel()
  hideProgress()
  show('empty')
  if (!isAbort(error)) showError(error)
  announce(isAbort(error) ? 'Cancelled' : 'Failed')
}

/** @param {unknown} error */
function isAbort(error) {
  return error instanceof DOMException && error.name === 'AbortError'
}

/** Shows bytes, speed and a bar. @returns {(progress: { loaded: number, total: number }) => void} */
function progressMeter() {
  const start = performance.now()
  const bar = $('progress')
  const fill = /** @type {HTMLElement} */ (bar.firstElementChild)
  fill.style.transform = 'scaleX(0)'
  bar.hidden = false
  $('loading-figures').textContent = ' '
  return ({ loaded, total }) => {
    const seconds = (performance.now() - start) / 1000
    const of = total ? ` of ${megabytes(total)}` : ''
    const figures = `${megabytes(loaded)}${of}, ${megabytes(loaded / seconds)}/s`
    $('loading-figures').textContent = figures
    showFact('download', figures)
    fill.style.transform = `scaleX(${total ? loaded / total : 1})`
    if (total) bar.setAttribute('aria-valuenow', String(Math.round((100 * loaded) / total)))
  }
}

function hideProgress() {
  $('progress').hidden = true
  showFact('download', '')
}

function closeModel() {
  running?.abort()
  running = null
  model?.close()
  model = null
  conversation = []
  messageList.replaceChildren()
  $('model-name').textContent = ''
  showFact('decode', '')
  showFact('prefill', '')
}

/** @param {File[]} files */
function openFiles(files) {
  if (!files.length) return
  const { source, name } = ofFiles(files)
  open(source, name)
}

/** The default model's name and size, where the server has it. */
async function describeDefault() {
  $('default-name').textContent = titleOf(defaultSource).replace(/\.gguf$/, '').replace(/-Instruct|\./g, ' ').trim()
  const kept = (await keptModels()).find(({ model, complete }) => complete && model === defaultSource)
  if (kept) {
    $('default-size').textContent = `${megabytes(kept.size)}, on this machine`
    return
  }
  const isUrl = !defaultSource.startsWith('hf:')
  const response = isUrl ? await fetch(defaultSource, { method: 'HEAD' }).catch(() => null) : null
  const size = Number(response?.headers.get('Content-Length'))
  const here = response?.ok && size ? `${megabytes(size)} to download` : 'not on this server'
  $('default-size').textContent = isUrl ? here : 'from the model hub'
}

/** The models that are on this machine, each to be opened or deleted. */
async function showKept() {
  const models = await keptModels()
  const rows = models.map(({ model: source, size, bytes, complete }) => {
    const row = document.createElement('li')
    const opener = document.createElement('button')
    const name = document.createElement('b')
    const about = document.createElement('small')
    const remover = document.createElement('button')
    opener.type = remover.type = 'button'
    name.textContent = titleOf(source)
    about.textContent = complete ? megabytes(bytes) : `${megabytes(bytes)} of ${megabytes(size)}`
    opener.append(name, about)
    opener.title = source
    opener.addEventListener('click', () => open(source, titleOf(source)))
    remover.className = 'quiet'
    remover.textContent = 'Delete'
    remover.setAttribute('aria-label', `Delete ${titleOf(source)}`)
    remover.addEventListener('click', async () => {
      await forget(source).then(() => announce(`${titleOf(source)} is deleted`), showError)
      await showKept()
    })
    row.append(opener, remover)
    return row
  })
  $('kept').replaceChildren(...rows)
  $('kept-title').hidden = rows.length === 0
}

/* ---- Talking ---- */

/** @param {Message} message @returns {HTMLElement} where its text goes */
function addMessage({ role, content }) {
  const item = document.createElement('li')
  item.className = role
  const who = document.createElement('span')
  who.className = 'unseen'
  who.textContent = role === 'user' ? 'You: ' : 'Answer: '
  const text = document.createElement('div')
  text.className = 'text'
  text.textContent = content
  item.append(who, text)
  messageList.append(item)
  return text
}

/** Keeps the end in sight, unless the reader has scrolled away from it. */
function follow() {
  const page = document.scrollingElement
  if (page && page.scrollHeight - page.scrollTop - page.clientHeight < 160) page.scrollTop = page.scrollHeight
}

/** @param {string} text */
async function ask(text) {
  if (!model || running) return
  const message = { role: 'user', content: text }
  conversation.push(message)
  addMessage(message)
  await reply()
}

/** Answers the last message of the user. */
async function reply() {
  const opened = model
  if (!opened || running) return
  const controller = (running = new AbortController())
  const turn = conversation
  const output = addMessage({ role: 'assistant', content: '' })
  output.classList.add('pending')
  showError(null)
  show('answering')
  announce('Answering')
  document.querySelector('.again')?.remove()
  document.scrollingElement?.scrollTo({ top: document.scrollingElement.scrollHeight })
  let answer = ''
  let drawn = 0
  const draw = () => {
    drawn = 0
    output.replaceChildren(renderMarkdown(answer))
    follow()
  }
  try {
    const options = { temperature: Number(temperature.value), topP: 0.9, repeatPenalty: 1.1, maxTokens: Number(maxTokens.value) || 512 }
    let tokens = 0
    let first = 0
    for await (const piece of opened.generate(turn, { ...options, signal: controller.signal })) {
      answer += piece.text
      output.classList.remove('pending')
      drawn ||= requestAnimationFrame(draw)
      const now = performance.now()
      first ||= now
      if (++tokens % 8 === 0) showSpeed('decode', (tokens - 1) / ((now - first) / 1000))
    }
    announce('Done')
  } catch (error) {
    if (!isAbort(error)) showError(adviceFor(error))
    announce('Stopped')
  }
  cancelAnimationFrame(drawn)
  if (opened !== model) return
  running = null
  if (turn !== conversation) return show('ready')
  draw()
  output.classList.remove('pending')
  if (answer) turn.push({ role: 'assistant', content: answer })
  else output.parentElement?.remove()
  addFoot(output, opened)
  show('ready')
  showFacts()
  follow()
  prompt.focus({ preventScroll: true })
}

/** @param {unknown} error */
function adviceFor(error) {
  const full = error instanceof NiblError && error.code === 'CONTEXT_FULL'
  return full ? new Error('This conversation is longer than the model’s context. Start a new chat.') : error
}

/** What stands under the last answer. @param {HTMLElement} output @param {Model} opened */
function addFoot(output, opened) {
  const { stats } = opened
  const again = document.createElement('button')
  again.type = 'button'
  again.className = 'quiet again'
  again.textContent = 'Ask again'
  again.addEventListener('click', () => {
    if (running) return
    if (conversation.at(-1)?.role === 'assistant') {
      conversation.pop()
      messageList.lastElementChild?.remove()
    }
    reply()
  })
  const item = output.isConnected ? output.parentElement : messageList.lastElementChild
  if (stats.finish === 'length') again.title = 'The answer was cut at its longest allowed length'
  const foot = document.createElement('div')
  foot.className = 'foot'
  foot.append(again)
  if (output.isConnected) foot.append(receiptButton(opened))
  item?.append(foot)
}

/** Saves what anybody can repeat the last answer from. @param {Model} opened */
function receiptButton(opened) {
  const { stats } = opened
  const button = document.createElement('button')
  button.type = 'button'
  button.className = 'quiet'
  button.textContent = 'Receipt'
  button.title = 'A file from which anybody can repeat this answer, bit for bit: nibl verify'
  button.addEventListener('click', async () => {
    button.disabled = true
    announce('Making the receipt')
    try {
      const receipt = await opened.receipt(stats)
      const { save } = await import('./save.js')
      await save(new Blob([JSON.stringify(receipt, null, 1)], { type: 'application/json' }), 'receipt.json')
      announce('The receipt is ready')
    } catch (error) {
      showError(error)
    }
    button.disabled = false
  })
  return button
}

function stop() {
  running?.abort()
}

function newChat() {
  stop()
  conversation = []
  messageList.replaceChildren()
  showError(null)
  show(running ? 'answering' : 'ready')
  prompt.focus()
}

function submit() {
  const text = prompt.value.trim()
  if (!text || running) return
  prompt.value = ''
  fitPrompt()
  ask(text)
}

/** As high as its text, up to a third of the window. */
function fitPrompt() {
  prompt.style.height = 'auto'
  prompt.style.height = `${Math.min(prompt.scrollHeight, innerHeight / 3)}px`
}

/* ---- Wiring ---- */

show('empty')

$('load-default').addEventListener('click', () => open(defaultSource, $('default-name').textContent ?? ''))
for (const picker of pickers) {
  picker.addEventListener('change', () => {
    openFiles([...(picker.files ?? [])])
    picker.value = ''
  })
}
$('by-name').addEventListener('submit', (event) => {
  event.preventDefault()
  try {
    const source = sourceOf(address.value)
    open(source, titleOf(source))
  } catch (error) {
    showError(error)
  }
})
/** A view in place of the welcome, fetched when it is wanted. @param {'lab' | 'compare'} view */
async function openView(view) {
  const open = view === 'lab' ? (await import('./lab.js')).openLab : (await import('./compare.js')).openCompare
  $('welcome').hidden = true
  showError(null)
  open(/** @type {HTMLElement} */ ($('welcome').parentElement), { defaultSource, hub, announce, onClose: () => closeView(view) })
}

/** @param {string} view */
function closeView(view) {
  show('empty')
  $(`open-${view}`).focus()
}

for (const view of /** @type {const} */ (['lab', 'compare'])) {
  $(`open-${view}`).addEventListener('click', () => openView(view))
  if (parameters.get('view') === view) openView(view)
}
prompt.value = parameters.get('prompt') ?? ''
$('cancel').addEventListener('click', stop)
$('stop').addEventListener('click', stop)
$('new-chat').addEventListener('click', newChat)
$('unload').addEventListener('click', () => {
  $('settings').removeAttribute('open')
  closeModel()
  showError(null)
  show('empty')
  $('load-default').focus()
})
$('composer').addEventListener('submit', (event) => {
  event.preventDefault()
  submit()
})
prompt.addEventListener('input', fitPrompt)
prompt.addEventListener('keydown', (event) => {
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
  event.preventDefault()
  submit()
})
for (const button of $('suggestions').querySelectorAll('button')) {
  button.addEventListener('click', () => ask(button.textContent ?? ''))
}
const showTemperature = () => ($('temperature-value').textContent = temperature.value)
temperature.addEventListener('input', showTemperature)

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape') return
  $('settings').removeAttribute('open')
  stop()
})
document.addEventListener('click', (event) => {
  if (!$('settings').contains(/** @type {Node} */ (event.target))) $('settings').removeAttribute('open')
})
document.addEventListener('dragover', (event) => {
  event.preventDefault()
  document.body.classList.add('dropping')
})
for (const end of ['dragleave', 'drop']) {
  document.addEventListener(end, () => document.body.classList.remove('dropping'))
}
document.addEventListener('drop', (event) => {
  event.preventDefault()
  const { dataTransfer } = /** @type {DragEvent} */ (event)
  if (dataTransfer) droppedFiles(dataTransfer).then(openFiles, showError)
})

showTemperature()
describeDefault()
$('welcome').closest('main')?.removeAttribute('inert') /* a click that comes earlier would be lost */
/* What the page itself needs comes first. */
addEventListener('load', async () => {
  const { workOffline } = await import('./offline.js')
  await workOffline(() => document.body.dataset.state === 'empty').catch(() => {})
})

/** A model in the shape of the browsers' LanguageModel (the Prompt API). Types and manual: prompt-api.d.ts. */
import { makeRoom } from './chat.js'
import { abortReason, throwIfAborted } from './errors.js'
import { load } from './nibl.js'

/** @typedef {import('./nibl.d.ts').Model} Model */
/** @typedef {{ role: string, content: string }} Turn */

/** @param {string} message @param {string} name */
const failure = (message, name) => new DOMException(message, name)

/** @param {any} input a string, or messages @returns {Turn[]} */
function turnsOf(input) {
  if (typeof input === 'string') return [{ role: 'user', content: input }]
  if (!Array.isArray(input)) throw new TypeError('The input must be a string or an array of messages.')
  return input.map(({ role, content, prefix }) => {
    if (prefix) throw failure('A prefix of the answer is not supported.', 'NotSupportedError')
    if (typeof content === 'string') return { role, content }
    const texts = content.map((/** @type {any} */ { type, value }) => {
      if (type !== 'text') throw failure(`Input of type '${type}' is not supported.`, 'NotSupportedError')
      return value
    })
    return { role, content: texts.join('') }
  })
}

/** A schema, or a regular expression as one. @param {any} constraint */
const schemaOf = (constraint) => (constraint instanceof RegExp ? { type: 'string', pattern: constraint.source } : constraint)

class Session extends EventTarget {
  #model
  #options
  /** @type {Turn[]} */
  #first
  /** @type {Turn[]} */
  #turns
  /** @type {Promise<unknown>} the prompt before */
  #before = Promise.resolve()
  #ended = new AbortController()
  contextUsage = 0
  /** @type {((event: Event) => void) | null} */
  oncontextoverflow = null

  /** @param {Model} model @param {any} options @param {Turn[]} first @param {Turn[]} [turns] */
  constructor(model, options, first, turns = []) {
    super()
    this.#model = model
    this.#options = options
    this.#first = first
    this.#turns = turns
    this.contextWindow = model.info.contextLength
    options.signal?.addEventListener('abort', () => this.destroy())
  }

  get temperature() {
    return this.#options.temperature
  }

  get topK() {
    return this.#options.topK
  }

  #check() {
    if (this.#ended.signal.aborted) throw failure('The session is destroyed.', 'InvalidStateError')
  }

  /** Forgets the oldest turns until `added` and some of an answer fit. @param {Turn[]} added */
  async #makeRoom(added) {
    const count = (/** @type {Turn[]} */ messages) => this.#model.countTokens(messages)
    const { dropped, used } = await makeRoom([...this.#first, ...this.#turns, ...added], this.#first.length, { count, contextLength: this.contextWindow })
    if (used > this.contextWindow) throw failure(`The input has ${used} tokens, the context ${this.contextWindow}.`, 'QuotaExceededError')
    if (dropped) {
      this.#turns.splice(0, dropped)
      const event = new Event('contextoverflow')
      this.dispatchEvent(event)
      this.oncontextoverflow?.(event)
    }
    this.contextUsage = used
  }

  /** @param {any} input @param {any} options @returns {AsyncGenerator<string, void, void>} */
  async *#answer(input, { responseConstraint, signal }) {
    this.#check()
    const turns = turnsOf(input)
    const before = this.#before
    let done = () => {}
    this.#before = new Promise((resolve) => (done = () => resolve(undefined)))
    const stop = new AbortController()
    const ends = [signal, this.#ended.signal].filter(Boolean)
    const abort = () => stop.abort(ends.find((end) => end.aborted)?.reason)
    try {
      await before
      throwIfAborted(signal)
      this.#check()
      for (const end of ends) end.addEventListener('abort', abort)
      await this.#makeRoom(turns)
      const { temperature, topK } = this.#options
      const raw = responseConstraint instanceof RegExp
      const options = { temperature, topK, signal: stop.signal, ...(responseConstraint && { schema: schemaOf(responseConstraint) }) }
      let text = ''
      for await (const piece of this.#model.generate([...this.#first, ...this.#turns, ...turns], options)) {
        text += piece.text
        if (piece.text && !raw) yield piece.text
      }
      if (raw) yield (text = JSON.parse(text))
      this.#turns.push(...turns, { role: 'assistant', content: text })
      const { prefill, decode } = this.#model.stats
      this.contextUsage = prefill.tokens + Number(prefill.reused ?? 0) + decode.tokens
    } finally {
      for (const end of ends) end.removeEventListener('abort', abort)
      done()
    }
  }

  /** @param {any} input @param {any} [options] */
  async prompt(input, options = {}) {
    let text = ''
    for await (const piece of this.#answer(input, options)) text += piece
    return text
  }

  /** @param {any} input @param {any} [options] @returns {ReadableStream<string>} */
  promptStreaming(input, options = {}) {
    const pieces = this.#answer(input, options)
    return new ReadableStream({
      async pull(controller) {
        try {
          const { done, value } = await pieces.next()
          if (done) controller.close()
          else controller.enqueue(value)
        } catch (error) {
          controller.error(error)
        }
      },
      async cancel() {
        await pieces.return(undefined)
      },
    })
  }

  /** @param {any} input @param {{ signal?: AbortSignal }} [options] */
  async append(input, { signal } = {}) {
    this.#check()
    const turns = turnsOf(input)
    throwIfAborted(signal)
    const added = this.#before.then(async () => {
      await this.#makeRoom(turns)
      this.#turns.push(...turns)
    })
    this.#before = added.catch(() => {})
    await added
  }

  /** @param {any} input */
  async measureContextUsage(input) {
    this.#check()
    const turns = turnsOf(input)
    const base = [...this.#first, ...this.#turns]
    const [all, without] = [await this.#model.countTokens([...base, ...turns]), base.length ? await this.#model.countTokens(base) : 0]
    return all - without
  }

  /** @param {{ signal?: AbortSignal }} [options] */
  async clone({ signal } = {}) {
    this.#check()
    throwIfAborted(signal)
    await this.#before
    return new Session(this.#model, { ...this.#options, signal }, [...this.#first], [...this.#turns])
  }

  destroy() {
    this.#ended.abort(abortReason())
  }
}

/** @type {typeof import('./prompt-api.d.ts').promptApi} */
export function promptApi(source, loadOptions = {}) {
  /** @type {Promise<Model> | undefined} */
  let loading
  let loaded = false
  /** @type {Set<EventTarget>} */
  const monitors = new Set()
  const tell = (/** @type {number} */ progress) => {
    for (const monitor of monitors) monitor.dispatchEvent(Object.assign(new Event('downloadprogress'), { loaded: progress, total: 1, lengthComputable: true }))
  }

  function start() {
    tell(0)
    loading ??= load(source, { ...loadOptions, onProgress: ({ loaded, total }) => total && loaded < total && tell(loaded / total) })
    loading.then(() => (loaded = true), () => (loading = undefined))
    return loading
  }

  return {
    async availability() {
      return loaded ? 'available' : loading ? 'downloading' : 'downloadable'
    },
    async params() {
      return { defaultTopK: 40, maxTopK: 1000, defaultTemperature: 0.8, maxTemperature: 2 }
    },
    async create({ initialPrompts = [], temperature = 0.8, topK = 40, signal, monitor } = {}) {
      throwIfAborted(signal)
      const first = turnsOf(initialPrompts)
      if (first.some(({ role }, index) => role === 'system' && index > 0)) throw new TypeError('A system prompt can only be the first one.')
      const target = new EventTarget()
      monitor?.(/** @type {any} */ (target))
      monitors.add(target)
      try {
        const model = await start()
        throwIfAborted(signal)
        tell(1)
        return /** @type {any} */ (new Session(model, { temperature, topK, signal }, first))
      } finally {
        monitors.delete(target)
      }
    },
    async close() {
      const model = await loading?.catch(() => undefined)
      model?.close()
      loading = undefined
      loaded = false
    },
  }
}

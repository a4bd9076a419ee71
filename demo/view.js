/** What the views of the page share: elements, and a form whose task can be stopped. */

/** @param {string} tag @param {Record<string, any>} [properties] @param {(Node | string)[]} [children] */
export function element(tag, properties = {}, children = []) {
  const node = Object.assign(document.createElement(tag), properties)
  node.append(...children)
  return /** @type {any} */ (node)
}

/**
 * Runs `task` when the form is sent, once at a time, with a button to stop it; what fails is told.
 * @param {{ form: HTMLElement, start: HTMLElement, stop: HTMLElement, error: HTMLElement, announce: (text: string) => void }} parts
 * @param {(signal: AbortSignal) => Promise<void>} task
 */
export function runTask({ form, start, stop, error, announce }, task) {
  /** @type {AbortController | null} */
  let running = null

  /** @param {unknown} reason null: nothing is wrong any more */
  function showError(reason) {
    const aborted = reason instanceof DOMException && reason.name === 'AbortError'
    error.hidden = !reason || aborted
    error.textContent = reason instanceof Error ? reason.message : ''
    if (reason) announce(aborted ? 'Stopped' : 'Failed')
  }

  async function run() {
    const { signal } = (running = new AbortController())
    start.hidden = true
    stop.hidden = false
    showError(null)
    try {
      await task(signal)
    } catch (reason) {
      showError(reason)
    } finally {
      running = null
      start.hidden = false
      stop.hidden = true
    }
  }

  form.addEventListener('submit', (event) => {
    event.preventDefault()
    if (!running) run()
  })
  const abort = () => running?.abort()
  stop.addEventListener('click', abort)
  return { showError, abort }
}

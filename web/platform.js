/** What differs between a browser and Node. Bundlers never see an import of a Node module. */

const process = /** @type {any} */ (globalThis).process

export const isNode = typeof process?.getBuiltinModule === 'function' && !('window' in globalThis)

/** @template {string} Name
 * @param {Name} name as in 'node:fs'
 * @returns {any} */
export function nodeModule(name) {
  return process.getBuiltinModule(name)
}

/** Lets the event loop run: messages, timers, network. @type {() => Promise<void>} */
export const yieldToEvents = isNode
  ? () => new Promise((resolve) => setImmediate(resolve))
  : () =>
      new Promise((resolve) => {
        resumers.push(resolve)
        channel().port2.postMessage(0)
      })

/** @type {(() => void)[]} */
const resumers = []
/** @type {MessageChannel | undefined} */
let shared
/** A message to oneself is the only macrotask browsers do not slow down. */
function channel() {
  if (!shared) {
    shared = new MessageChannel()
    shared.port1.onmessage = () => resumers.shift()?.()
  }
  return shared
}

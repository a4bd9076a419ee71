/** Where the engine runs: in a worker, or on the caller's own thread. */
import { NiblError } from './errors.js'
import { isNode, nodeModule } from './platform.js'
import { Link, serveCalls } from './protocol.js'

/** @typedef {{ link: Link, close: () => void }} Connection */

const LAST = -1 /* id of a worker's last call */
const LAST_WORDS = 1000 /* ms that it may take */

/** @param {boolean} worker @param {URL} [workerUrl] @returns {Promise<Connection>} */
export async function connect(worker, workerUrl) {
  if (!worker) return connectInProcess()
  return isNode ? connectThread(workerUrl) : connectWorker(workerUrl)
}

/** @returns {Promise<Connection>} */
async function connectInProcess() {
  /* The engine comes with the worker; only here the page needs its code as well. */
  const { engineCalls } = await import('./host.js')
  const { receive, abortAll } = serveCalls(engineCalls(), (message) => link.receive(message))
  const link = new Link((message) => void receive(message))
  return { link, close: abortAll }
}

/** A browser starts no worker from there. @param {URL} url */
function isForeign({ protocol, origin }) {
  return protocol.startsWith('http') && origin !== globalThis.location.origin
}

/** A script of this origin that imports the one of another; also for the workers that it starts (the threads).
 * @param {URL} url */
function inBlob(url) {
  const script = `
    const NativeWorker = self.Worker
    const blobOf = (url) => URL.createObjectURL(new Blob([\`import \${JSON.stringify(String(url))}\`], { type: 'text/javascript' }))
    self.Worker = class extends NativeWorker {
      constructor(url, options) {
        super(new URL(url).origin === self.location.origin ? url : blobOf(url), options)
      }
    }
    const early = []
    self.onmessage = (event) => early.push(event)
    await import(${JSON.stringify(url.href)})
    early.forEach((event) => self.onmessage(event))`
  return URL.createObjectURL(new Blob([script], { type: 'text/javascript' }))
}

/** @param {URL} [workerUrl] @returns {Connection} */
function connectWorker(workerUrl) {
  /* Bundlers find the worker by the last line, whole and literal; it must not look so twice. */
  const address = workerUrl ?? new URL(import.meta.url.replace(/[^/]*$/, 'worker.js'))
  const worker = isForeign(address)
    ? new Worker(inBlob(address), { type: 'module', name: 'nibl' })
    : workerUrl
      ? new Worker(workerUrl, { type: 'module', name: 'nibl' })
      : new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'nibl' })
  const link = new Link((message, transfer) => worker.postMessage(message, transfer))
  worker.onmessage = ({ data }) => link.receive(data)
  worker.onerror = (event) => {
    event.preventDefault()
    const reason = event.message || 'its script could not be loaded; is it served? (workerUrl)'
    link.break(new NiblError('WORKER_FAILED', `The worker failed: ${reason}`))
  }
  /* A thread that sleeps is not ended before 2 s in Chromium, and its memory with it: the core lets go of its own first. */
  const close = () => {
    worker.onmessage = ({ data }) => data.id === LAST && worker.terminate()
    worker.postMessage({ id: LAST, call: 'end', args: [] })
    setTimeout(() => worker.terminate(), LAST_WORDS)
  }
  return { link, close }
}

/** @param {URL} [workerUrl] @returns {Connection} */
function connectThread(workerUrl) {
  const { Worker } = nodeModule('node:worker_threads')
  /* Without the process's own flags: some of them, like --input-type, no worker starts with. */
  /* A small heap for what is new: a download's buffers are garbage in it, which V8 lets grow by its size. */
  const options = { name: 'nibl', execArgv: [], resourceLimits: { maxYoungGenerationSizeMb: 2 } }
  const worker = new Worker(workerUrl ?? new URL('./worker.js', import.meta.url), options)
  /* An idle model does not keep the process alive; a running call does. */
  const onBusy = (/** @type {boolean} */ busy) => (busy ? worker.ref() : worker.unref())
  const link = new Link((message, transfer) => worker.postMessage(message, transfer), onBusy)
  worker.unref()
  worker.on('message', (/** @type {any} */ message) => link.receive(message))
  worker.on('error', (/** @type {Error} */ error) => {
    link.break(new NiblError('WORKER_FAILED', `The worker failed: ${error.message}`, { cause: error }))
  })
  worker.on('exit', () => link.break(new NiblError('WORKER_FAILED', 'The worker ended. Load the model again.')))
  return { link, close: () => worker.terminate() }
}

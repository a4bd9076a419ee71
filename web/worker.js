/** The engine in a worker of its own: a Web Worker, or a thread under Node. */
import { engineCalls } from './host.js'
import { isNode, nodeModule } from './platform.js'
import { serveCalls } from './protocol.js'

/* What these import in turn, named here so that it is fetched at once and not one behind the other. */
import './binaries.js'
import './binding.js'
import './engine.js'
import './errors.js'
import './features.js'
import './loading.js'
import './source.js'
import './stop.js'

/** @type {any} */
const port = isNode ? nodeModule('node:worker_threads').parentPort : globalThis
const { receive } = serveCalls(engineCalls(), (message) => port.postMessage(message))

if (isNode) port.on('message', receive)
else port.onmessage = (/** @type {MessageEvent} */ event) => receive(event.data)

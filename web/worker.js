/** The engine in a worker of its own: a Web Worker, or a thread under Node. */
import { engineCalls } from './host.js'
import { isNode, nodeModule } from './platform.js'
import { serveCalls } from './protocol.js'

/** @type {any} */
const port = isNode ? nodeModule('node:worker_threads').parentPort : globalThis
const { receive } = serveCalls(engineCalls(), (message) => port.postMessage(message))

if (isNode) port.on('message', receive)
else port.onmessage = (/** @type {MessageEvent} */ event) => receive(event.data)

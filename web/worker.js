/**
 * The engine in a worker of its own: a Web Worker, or a thread under Node. Nothing is imported at the top: a download is
 * asked for first, and the engine's code comes while it begins.
 */

/** @type {any} */
const port =
  'postMessage' in globalThis
    ? globalThis
    : /** @type {any} */ (globalThis).process.getBuiltinModule('node:worker_threads').parentPort

/** Under Node bytes come another way than by its fetch(), with less memory. */
const ownFetch =
  port !== globalThis &&
  import('./nodefetch.js').then(({ lean }) => {
    globalThis.fetch = lean(globalThis.fetch)
  })

/* What the first two import in turn is named too: so that it is fetched at once and not one behind the other. */
const engine = Promise.all([
  import('./host.js'),
  import('./protocol.js'),
  import('./batch.js'),
  import('./binaries.js'),
  import('./binding.js'),
  import('./engine.js'),
  import('./errors.js'),
  import('./features.js'),
  import('./folder.js'),
  import('./generation.js'),
  import('./http.js'),
  import('./loading.js'),
  import('./planning.js'),
  import('./platform.js'),
  import('./source.js'),
  import('./stop.js'),
  import('./stream.js'),
]).then(([{ engineCalls }, { serveCalls }]) => serveCalls(engineCalls(), (message, transfer) => port.postMessage(message, transfer)))

/** @param {any} request as in protocol.js */
async function receive(request) {
  if (ownFetch) await ownFetch
  if (request.call === 'load') {
    askEarly(request.args[0], request.args[1])
    compileEarly(request.args[1])
  }
  if (request.args?.[1]?.cache) importEarly()
  try {
    const { receive } = await engine
    await receive(request)
    if (request.call === 'end') port.close()
  } catch (error) {
    const message = `The worker cannot load its modules: ${error}. Are they served? (workerUrl)`
    port.postMessage({ id: request.id, error: { name: 'NiblError', code: 'WORKER_FAILED', message } })
  }
}

/** @param {any} descriptor as in source.js, which takes the answer over @param {any} options */
function askEarly(descriptor, { early, cache }) {
  if (descriptor.kind !== 'url' || descriptor.part || early || cache) return
  descriptor.response = fetch(descriptor.url, { headers: descriptor.headers })
  descriptor.response.catch(() => {})
}

/** @param {any} options */
function compileEarly(options) {
  Promise.all([import('./features.js'), import('./binaries.js')])
    .then(([{ chooseBinary }, { compileBinary }]) => compileBinary(chooseBinary(options).binary, options))
    .catch(() => {})
}

/** What a cached load needs, while the engine's code comes. */
function importEarly() {
  for (const coming of [import('./cache.js'), import('./backend.js'), import('./journal.js'), import('./sha256.js')]) coming.catch(() => {})
}

if (port === globalThis) port.onmessage = (/** @type {MessageEvent} */ event) => receive(event.data)
else port.on('message', receive)

/**
 * The page without a network, and with threads where the host sends no isolation headers. It stands at the root of what is
 * served, above demo/ and web/, so that the library's workers are its clients too. Models are not its matter: the library
 * keeps them.
 */
const scope = /** @type {any} */ (self)
const FILES = 'nibl page'
const isModel = /\.(gguf|safetensors)$/
const isolation = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
}

scope.addEventListener('install', () => scope.skipWaiting())
scope.addEventListener('activate', (/** @type {any} */ event) => event.waitUntil(scope.clients.claim()))

/* What the page had loaded before this was there. */
scope.addEventListener('message', (/** @type {any} */ event) => {
  event.waitUntil(Promise.all(event.data.map((/** @type {string} */ url) => answer(new Request(url)).catch(() => {}))))
})

scope.addEventListener('fetch', (/** @type {any} */ event) => {
  /** @type {Request} */
  const request = event.request
  const { origin, pathname } = new URL(request.url)
  const ours = origin === scope.location.origin && request.method === 'GET'
  if (ours && !isModel.test(pathname) && !request.headers.has('Range')) event.respondWith(answer(request))
})

/** From the network while there is one, so that nothing is ever old. @param {Request} request */
async function answer(request) {
  const files = await caches.open(FILES)
  const address = request.url.split(/[?#]/)[0]
  try {
    const response = isolated(await fetch(request))
    if (response.status === 200) await files.put(address, response.clone())
    return response
  } catch (error) {
    const kept = await files.match(address)
    if (kept) return kept
    throw error
  }
}

/** @param {Response} response */
function isolated(response) {
  /* Redirects that a navigation follows by itself cannot be copied. */
  if (response.type === 'opaqueredirect' || response.status === 0) return response
  const headers = new Headers(response.headers)
  for (const [name, value] of Object.entries(isolation)) headers.set(name, value)
  const { status, statusText } = response
  return new Response([204, 304].includes(status) ? null : response.body, { status, statusText, headers })
}

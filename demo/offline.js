/** The service worker: the page without a network, and isolated on hosts that send no headers. */

const RELOADED = 'nibl reloaded'

/** @param {() => boolean} isIdle whether a reload would lose nothing */
export async function workOffline(isIdle) {
  const { serviceWorker } = navigator
  /* There is none over plain HTTP. */
  if (!serviceWorker) return
  await serviceWorker.register('../sw.js')
  const { active } = await serviceWorker.ready
  const loaded = performance.getEntriesByType('resource').map(({ name }) => name)
  const own = [location.href, ...loaded].filter((url) => new URL(url).origin === location.origin && !/\.(gguf|safetensors)$/.test(url))
  active?.postMessage(own)
  /* Once: where even its headers do not isolate the page, one thread it is. */
  if (crossOriginIsolated || sessionStorage.getItem(RELOADED) || !isIdle()) return
  sessionStorage.setItem(RELOADED, '1')
  location.reload()
}

// An engine in a process of its own: answers the calls of host-javascript.js that come over the channel to its parent.

export {}

/** @type {import('./timing.js').Engine} */
let engine

/** @type {Record<string, (...args: any[]) => Promise<unknown>>} */
const calls = {
  async open(module, source, options) {
    const { open } = await import(module)
    const begin = performance.now()
    engine = await open(source, options)
    return { ms: performance.now() - begin, about: engine.about }
  },
  complete: (prompt, tokens) => engine.complete(prompt, tokens),
}

process.on('message', async (/** @type {{ name: string, args: unknown[] }} */ { name, args }) => {
  try {
    process.send?.({ value: await calls[name](...args) })
  } catch (error) {
    process.send?.({ error: /** @type {Error} */ (error).stack })
  }
})

/** Models by name in Chromium: the hub and its storage are two other origins. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { hubServer } from '../web/hub-server.js'
import { tinyBytes } from '../web/support.js'
import { openPage, withBrowser } from './support.js'

withBrowser()

for (const hidden of [false, true]) {
  test(`a gated model${hidden ? ', ETag and Content-Range hidden' : ''}: the token stays with the hub, a range costs the storage no preflight`, async (t) => {
    const faults = { token: 'secret', uses: 2, cutAfter: Math.ceil(tinyBytes.length / 3), hidden }
    const { url: hub, asked } = await hubServer(t, { 'a/b': { 'tiny.gguf': tinyBytes } }, faults)
    const { page } = await openPage(t, 'tests/blank.html', { expectErrors: true })
    const results = await page.evaluate(async (hub) => {
      const { NiblError, load } = await import('nibl')
      const refused = await load('hf:a/b', { hub }).catch((error) => error instanceof NiblError && error.code)
      const lengths = []
      for (const early of [false, true]) {
        const model = await load('hf:a/b', { hub, token: 'secret', early })
        await model.ready
        lengths.push(model.stats.load.bytes)
        model.close()
      }
      return { refused, lengths }
    }, hub)
    assert.equal(results.refused, 'ACCESS_DENIED')
    assert.equal(results.lengths[0], tinyBytes.length)
    assert.ok(asked.storage.length >= 6)
    for (const { method, authorization } of asked.storage) assert.deepEqual({ method, authorization }, { method: 'GET', authorization: undefined })
  })
}

/** Conversations that are kept: by name in the cache, and taken to other engines. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { load } from 'nibl'
import { modelPath, modelUrl, openPage, tiny, withBrowser } from './support.js'

withBrowser()

const root = fileURLToPath(new URL('../../', import.meta.url))

/** @typedef {{ hash: string, reused: number, binary: string }} Said */

/** Also in the page. @param {import('nibl').Conversation} talk @param {import('nibl').Model} model @param {string} prompt @returns {Promise<Said>} */
async function say(talk, model, prompt) {
  for await (const piece of talk.generate(prompt, { maxTokens: 8 })) void piece
  const { hash, prefill } = model.stats
  return { hash, reused: Number(prefill.reused), binary: model.info.binary }
}

/** Elsewhere. @param {typeof import('nibl')['load']} load @param {string} source @param {Uint8Array<ArrayBuffer>} state @param {(talk: any, model: any, prompt: string) => Promise<Said>} say */
async function goOn(load, source, state, say) {
  const model = await load(source, { contextLength: 512 })
  const said = await say(await model.restore(state), model, 'Another one.')
  model.close()
  return said
}

test('a conversation of one instruction set goes on with the same bits on another', async (t) => {
  const model = await load(modelPath, { binary: 'simd128', contextLength: 512 })
  t.after(() => model.close())
  const talk = model.conversation([{ role: 'system', content: 'Be brief.' }])
  await say(talk, model, 'Name a colour.')
  const state = new Uint8Array(await (await talk.save()).arrayBuffer())
  const expected = await say(talk, model, 'Another one.')
  assert.match(expected.binary, /^simd128/)

  const path = join(tmpdir(), `nibl-state-${process.pid}`)
  writeFileSync(path, state)
  t.after(() => rmSync(path))
  const program = `import { load } from 'nibl'\nimport { readFileSync } from 'node:fs'\n${say}\n${goOn}\n` +
    `console.log(JSON.stringify(await goOn(load, ${JSON.stringify(modelPath)}, new Uint8Array(readFileSync(${JSON.stringify(path)})), say)))`
  const { stdout, stderr } = spawnSync(join(root, '.toolchain/bin/node24'), ['--input-type=module', '--eval', program], { cwd: root, encoding: 'utf8' })
  assert.match(stdout, /^{/, stderr)

  const { page } = await openPage(t, 'tests/blank.html')
  const inPage = await page.evaluate(`(async () => {
    const { load } = await import('nibl')
    ${say}
    ${goOn}
    return goOn(load, '/${modelUrl}', Uint8Array.from(atob('${Buffer.from(state).toString('base64')}'), (c) => c.charCodeAt(0)), say)
  })()`)
  for (const { hash, reused, binary } of /** @type {Said[]} */ ([JSON.parse(stdout), inPage])) {
    assert.match(binary, /^relaxed/)
    assert.equal(hash, expected.hash)
    assert.ok(reused > 20, `${reused} tokens were not computed again`)
  }
})

test('conversations by name: kept, listed, restored after the page was left, replaced, deleted', async (t) => {
  const { page } = await openPage(t, 'tests/blank.html')
  const run = (/** @type {string} */ body) => page.evaluate(`(async () => {
    const { load, openCache } = await import('nibl')
    ${say}
    const cache = await openCache()
    const list = async () => (await cache.list()).map(({ model, state, size, bytes, complete, used }) =>
      ({ model, state, whole: size === bytes && complete, recent: Date.now() - used < 60000 }))
    const model = await load('/${tiny}', { cache: true })
    try {
      ${body}
    } finally {
      model.close()
    }
  })()`)
  const first = await run(`
    const talk = model.conversation()
    await say(talk, model, 'Hello')
    const state = await talk.save('a talk')
    return { size: state.size, said: await say(talk, model, 'More'), list: await list() }`)
  const kept = { whole: true, recent: true }
  const sorted = (/** @type {any[]} */ list) => list.sort((a, b) => Number(a.state) - Number(b.state))
  const { url } = { url: page.url() }
  const model = new URL(`/${tiny}`, url).href
  assert.deepEqual(sorted(first.list), [{ model, state: false, ...kept }, { model: 'a talk', state: true, ...kept }])
  await page.reload()
  const second = await run(`
    const talk = await model.restore('a talk')
    const said = await say(talk, model, 'More')
    await talk.save('a talk')
    const size = (await cache.list()).find(({ state }) => state).size
    const deleted = [await cache.delete('a talk'), await cache.delete('a talk')]
    return { said, size, deleted, messages: talk.messages.length, list: await list(), gone: await model.restore('a talk').catch(({ code, message }) => code + ' ' + message) }`)
  assert.deepEqual(second.said, first.said)
  assert.equal(second.messages, 4)
  assert.ok(second.size > first.size)
  assert.deepEqual(second.deleted, [true, false])
  assert.deepEqual(second.list, [{ model, state: false, ...kept }])
  assert.match(second.gone, /^NOT_FOUND .*"a talk"/)
})

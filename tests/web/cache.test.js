/** Models kept on this machine: filled on the way, gone on with, shared, compared, checked, and done without. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { load, openCache } from 'nibl'
import { sha256 } from '../../web/sha256.js'
import { faultyServer } from './faulty-server.js'
import { hubServer } from './hub-server.js'
import { fromRoot, hashOf, modelPath, niblError, tinyBytes, tinyPath } from './support.js'

/** @typedef {import('nibl').LoadOptions} LoadOptions */

const fixture = (/** @type {string} */ name) => fromRoot(`tests/fixtures/${name}`)
const folder = Object.fromEntries(readdirSync(fixture('tiny-hf-f16')).map((name) => [name, new Uint8Array(readFileSync(fixture(`tiny-hf-f16/${name}`)))]))
const PROBE = 16 << 10

const tinyHash = await hashOf(tinyPath)
const folderHash = await hashOf(fixture('tiny-hf-f16'))

/** @param {any} t @param {import('./faulty-server.js').Faults} [faults] @param {Uint8Array} [body] */
async function serverFor(t, faults, body = tinyBytes) {
  const server = await faultyServer(body, faults)
  t.after(() => server.close())
  return server
}

/** An empty place on disk. @param {any} t */
async function placeFor(t) {
  const cache = await mkdtemp(join(tmpdir(), 'nibl-cache-'))
  t.after(() => rm(cache, { recursive: true }))
  return cache
}

/** A backend in memory, for quick tests. @param {{ space?: number, broken?: string }} [how] `broken`: what does not work */
function inMemory({ space = Infinity, broken = '' } = {}) {
  /** @type {Map<string, Uint8Array>} */
  const files = new Map()
  /** @type {Map<string, Promise<void>>} */
  const locks = new Map()
  const state = { files, opened: 0 }
  const check = (/** @type {string} */ what) => assert.notEqual(what, broken, 'it does not work')
  /** @type {import('nibl').CacheBackend} */
  const backend = {
    names: async () => [...files.keys()],
    async text(name) {
      const bytes = files.get(name)
      return bytes ? new TextDecoder().decode(bytes) : null
    },
    async open(name, mode) {
      check('open')
      if (mode === 'write' && !files.has(name)) files.set(name, new Uint8Array(0))
      state.opened++
      return {
        async read(at, buffer) {
          check('read')
          const bytes = (files.get(name) ?? new Uint8Array(0)).subarray(at, at + buffer.length)
          buffer.set(bytes)
          return bytes.length
        },
        async write(at, bytes) {
          const old = files.get(name) ?? new Uint8Array(0)
          const next = new Uint8Array(Math.max(old.length, at + bytes.length))
          if (next.length > space) throw new DOMException('no more', 'QuotaExceededError')
          next.set(old)
          next.set(bytes, at)
          files.set(name, next)
        },
        flush: async () => {},
        close: () => void state.opened--,
      }
    },
    remove: async (name) => void files.delete(name),
    async lock(id) {
      while (locks.has(id)) await locks.get(id)
      /** @type {() => void} */
      let release = () => {}
      locks.set(id, new Promise((resolve) => (release = () => {
        locks.delete(id)
        resolve()
      })))
      return release
    },
  }
  return { ...state, backend, get opened() { return state.opened } }
}

/** Options for a backend in memory. @param {any} cache @param {LoadOptions} [options] @returns {LoadOptions} */
const within = (cache, options) => ({ cache: cache.backend, worker: false, ...options })

test('a URL: the second load takes all but a look from the cache; list, size, delete', async (t) => {
  const server = await serverFor(t, { headers: { ETag: '"1"' } })
  const place = await placeFor(t)
  for (const options of [{}, { worker: false }, { early: true }]) {
    const cache = join(place, String(options.early))
    const before = server.sent
    assert.equal(await hashOf(server.url, { cache, ...options }), tinyHash)
    const first = server.sent - before
    assert.ok(first >= (options.worker === false ? 0 : tinyBytes.length))
    assert.equal(await hashOf(server.url, { cache, ...options }), tinyHash)
    assert.ok(server.sent - before - first <= PROBE)
  }
  const kept = await openCache(join(place, 'undefined'))
  const [model, ...others] = await kept.list()
  assert.deepEqual(others, [])
  assert.deepEqual({ ...model, used: 0 }, { model: server.url, state: false, files: [server.url], size: tinyBytes.length, bytes: tinyBytes.length, complete: true, used: 0 })
  assert.ok(Math.abs(model.used - Date.now()) < 60e3)
  assert.equal(await kept.size(), tinyBytes.length)
  assert.equal(await kept.delete('another'), false)
  assert.equal(await kept.delete(server.url), true)
  assert.deepEqual([await kept.list(), readdirSync(join(place, 'undefined'))], [[], []])
})

test('a hub: nothing of a file is asked for again, nor anything at all without a network', async (t) => {
  const server = await hubServer(t, { 'a/b': folder })
  const cache = await placeFor(t)
  for (const options of [{}, { early: true }, { allowOffline: true }]) {
    const before = server.asked.storage.length
    assert.equal(await hashOf('hf:a/b', { hub: server.url, cache, ...options }), folderHash)
    assert.ok(before === 0 || server.asked.storage.length === before)
  }
  server.close()
  const options = { hub: server.url, cache, retries: 0 }
  await assert.rejects(load('hf:a/b', options), niblError('DOWNLOAD_FAILED', /cannot be reached/))
  assert.equal(await hashOf('hf:a/b', { ...options, allowOffline: true }), folderHash)
  assert.deepEqual((await (await openCache(cache)).list()).map(({ model, complete }) => ({ model, complete })), [{ model: 'hf:a/b', complete: true }])
})

test('a URL without a network: only where that is allowed', async (t) => {
  const cache = inMemory()
  const server = await faultyServer(tinyBytes)
  await hashOf(server.url, within(cache))
  await server.close()
  await assert.rejects(load(server.url, within(cache, { retries: 0 })), niblError('DOWNLOAD_FAILED', /cannot be reached.*allowOffline/))
  assert.equal(await hashOf(server.url, within(cache, { allowOffline: true })), tinyHash)
})

test('a load that was aborted or cut off is gone on with', async (t) => {
  for (const faults of [{ cutAt: 0.6, cutLate: 1000 }, { stallAt: 0.6 }]) {
    for (const headers of /** @type {Record<string, string>[]} */ ([{ ETag: '"1"' }, {}])) {
      const cache = inMemory()
      const broken = await serverFor(t, { ...faults, headers })
      await assert.rejects(load(broken.url, within(cache, { retries: 0, timeout: 'cutAt' in faults ? 30000 : 1000 })), niblError('cutAt' in faults ? 'DOWNLOAD_FAILED' : 'TIMEOUT', /./))
      const [{ bytes, complete }] = await (await openCache(cache.backend)).list()
      assert.ok(bytes > 0.5 * tinyBytes.length && bytes < tinyBytes.length && !complete)
      broken.faults = { headers }
      const before = broken.sent
      assert.equal(await hashOf(broken.url, within(cache)), tinyHash)
      assert.ok(broken.sent - before <= tinyBytes.length - bytes + PROBE)
      assert.ok(broken.ranges.every((range) => /^bytes=\d+-\d*$/.test(range)))
      assert.equal(cache.opened, 0)
    }
  }
})

test('a process that is killed leaves what it has', { timeout: 60000 }, async (t) => {
  const body = new Uint8Array(readFileSync(modelPath))
  const cache = await placeFor(t)
  const server = await serverFor(t, { rate: 200e6, headers: { ETag: '"1"' } }, body)
  const script = `import('nibl').then(({ load }) => load(${JSON.stringify(server.url)}, { cache: ${JSON.stringify(cache)} }))`
  for (const part of [0.4]) {
    const child = spawn(process.execPath, ['-e', script], { cwd: fromRoot(''), stdio: 'inherit' })
    while (server.sent < part * body.length) await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGKILL')
    await new Promise((resolve) => child.once('exit', resolve))
  }
  const expected = createHash('sha256').update(body).digest('hex')
  const model = await load(server.url, { cache, integrity: expected })
  model.close()
  const file = readdirSync(cache).find((name) => name.endsWith('.data'))
  assert.equal(createHash('sha256').update(readFileSync(join(cache, String(file)))).digest('hex'), expected)
  assert.ok(server.sent < 1.5 * body.length)
})

test('what a load has received when it is killed, wherever that is, comes no second time but for 1 %', { timeout: 120000 }, async (t) => {
  const body = new Uint8Array(readFileSync(modelPath))
  const server = await serverFor(t, { headers: { ETag: '"1"' } }, body)
  const points = [0.013, 0.21, 0.5, 0.77, 0.98].map((part) => part * body.length)
  const killed = /** @type {{ received: number, journal: string }[]} */ ([])
  /** Keeps the bytes in one place for all. @param {string} journal as it is found */
  const place = (journal) => {
    const { backend } = inMemory()
    /** @type {{ journal: string, received: number, backend: import('nibl').CacheBackend }} */
    const state = { journal, received: 0, backend: /** @type {import('nibl').CacheBackend} */ ({
      ...backend,
      text: async (name) => (name.endsWith('.journal') ? state.journal : null),
      open: async (name) => ({
        read: async (at, buffer) => (buffer.set(bytes.subarray(at, at + buffer.length)), buffer.length),
        async write(at, part) {
          if (name.endsWith('.journal')) return void (state.journal = state.journal.slice(0, at) + Buffer.from(part).toString())
          bytes.set(part, at)
          state.received += part.length
          if (state.received >= points[killed.length]) killed.push({ received: state.received, journal: state.journal })
        },
        flush: async () => {},
        close: () => {},
      }),
    }) }
    return state
  }
  const bytes = new Uint8Array(body.length)
  await (await load(server.url, within(place('')))).close()
  assert.equal(killed.length, points.length)
  for (const { received, journal } of killed) {
    const again = place(journal)
    await (await load(server.url, within(again))).close()
    const twice = received + again.received - body.length
    t.diagnostic(`killed after ${received} bytes: ${((100 * twice) / body.length).toFixed(2)} % came twice`)
    assert.ok(twice >= 0 && twice <= 0.01 * body.length)
    assert.deepEqual(createHash('sha256').update(bytes).digest(), createHash('sha256').update(body).digest())
  }
})

test('a file that has changed is not mixed with the old one', async (t) => {
  const other = new Uint8Array(readFileSync(fixture('tiny-llama-q8_0.gguf')))
  const otherHash = await hashOf(fixture('tiny-llama-q8_0.gguf'))
  const sameSize = tinyBytes.slice()
  sameSize.fill(0, sameSize.length - 5000)
  for (const cutAt of [0.6, undefined]) {
    for (const [body, etags] of /** @type {[Uint8Array, string[]][]} */ ([[other, []], [other, ['"1"', '"2"']], [sameSize, ['"1"', '"2"']], [sameSize, []]])) {
      const cache = inMemory()
      const headers = (/** @type {number} */ at) => (etags.length ? { ETag: etags[at] } : undefined)
      const server = await serverFor(t, { cutAt, headers: headers(0) })
      await load(server.url, within(cache, { retries: 0 })).then((model) => model.close(), () => {})
      server.faults = { headers: headers(1) }
      server.body = body
      const hash = await hashOf(server.url, within(cache))
      if (body === other) assert.equal(hash, otherHash)
      const data = [...cache.files].find(([name]) => name.endsWith('.data'))?.[1]
      /* Where nothing but the bytes tells of it, a cut load can only see it in those that it has. */
      if (cutAt === undefined || etags.length || body === other) assert.deepEqual(Buffer.from(data ?? []), Buffer.from(body))
    }
  }
})

test('a complete file is read while the server is asked whether it is the same', async (t) => {
  const other = new Uint8Array(readFileSync(fixture('tiny-llama-q8_0.gguf')))
  const otherHash = await hashOf(fixture('tiny-llama-q8_0.gguf'))
  for (const early of [false, true]) {
    for (const changed of [false, true]) {
      const cache = inMemory()
      const server = await serverFor(t)
      assert.equal(await hashOf(server.url, within(cache)), tinyHash)
      let asked = 0 /* while it was read */
      const { backend } = cache
      const watched = { ...backend, open: async (/** @type {string} */ name, /** @type {'read' | 'write'} */ mode) => {
        const file = await backend.open(name, mode)
        return name.endsWith('.journal') ? file : { ...file, read: async (/** @type {number} */ at, /** @type {Uint8Array} */ buffer) => {
          for (let i = 0; buffer.length > PROBE && !asked && i < 20; i++) {
            await new Promise((resolve) => setTimeout(resolve, 5))
            asked = server.open()
          }
          return file.read(at, buffer)
        } }
      } }
      if (changed) server.body = other
      server.faults = changed ? { delay: 300 } : { silent: true }
      /** @type {number[]} */
      const told = []
      const options = { early, timeout: changed ? 0 : 300, allowOffline: true, onProgress: (/** @type {any} */ { loaded }) => told.push(loaded) }
      assert.equal(await hashOf(server.url, within({ backend: watched }, options)), changed ? otherHash : tinyHash)
      assert.equal(asked, 1)
      assert.deepEqual(told, told.toSorted((a, b) => a - b))
      const data = [...cache.files].find(([name]) => name.endsWith('.data'))?.[1]
      assert.deepEqual(Buffer.from(data ?? []), Buffer.from(changed ? other : tinyBytes))
      assert.equal(cache.opened, 0)
    }
  }
})

test('what is no model never enters', async (t) => {
  const page = new TextEncoder().encode('<!doctype html><html></html>')
  /** @type {[import('./faulty-server.js').Faults, Uint8Array, string][]} */
  const bad = [
    [{ type: 'text/html' }, page, 'BAD_FILE'],
    [{}, page, 'BAD_FILE'],
    [{ cutAt: 0.5, unknownLength: true, ranges: false }, tinyBytes, 'TRUNCATED'],
    [{}, tinyBytes.slice(0, 9000), 'TRUNCATED'],
    [{ status: 404 }, tinyBytes, 'DOWNLOAD_FAILED'],
  ]
  for (const [faults, body, code] of bad) {
    const cache = inMemory()
    const { url } = await serverFor(t, faults, body)
    await assert.rejects(load(url, within(cache)), niblError(code, /./))
    assert.deepEqual(await (await openCache(cache.backend)).list(), [])
    assert.equal(cache.opened, 0)
  }
})

test('a server without ranges, and one that does not tell the length', async (t) => {
  for (const faults of [{ ranges: false }, { unknownLength: true }, { ranges: false, unknownLength: true, headers: { ETag: '"1"' } }]) {
    for (const early of [false, true]) {
      const cache = inMemory()
      const server = await serverFor(t, faults)
      for (let i = 0; i < 2; i++) assert.equal(await hashOf(server.url, within(cache, { early })), tinyHash, JSON.stringify(faults))
    }
  }
})

test('two at once: one downloads', async (t) => {
  const server = await serverFor(t, { rate: 1e6, headers: { ETag: '"1"' } })
  const cache = await placeFor(t)
  const hashes = await Promise.all([1, 2, 3].map(() => hashOf(server.url, { cache })))
  assert.deepEqual(hashes, [tinyHash, tinyHash, tinyHash])
  assert.ok(server.sent <= tinyBytes.length + 2 * PROBE, `${server.sent}`)
})

test('a cache that cannot be used is done without, and that is told', async (t) => {
  const { url } = await serverFor(t)
  /** @type {[any, string, RegExp][]} */
  const broken = [
    [inMemory({ space: 60000 }), 'QUOTA', /not enough space.*goes on without/],
    [inMemory({ broken: 'open' }), 'CACHE_FAILED', /does not work.*goes on without/],
  ]
  for (const [cache, code, message] of broken) {
    for (const early of [false, true]) {
      /** @type {any[]} */
      const warnings = []
      assert.equal(await hashOf(url, within(cache, { early, onWarning: (warning) => warnings.push(warning) })), tinyHash)
      assert.equal(warnings.length, 1)
      niblError(code, message)(warnings[0])
      assert.deepEqual([...cache.files.keys()], [])
      assert.equal(cache.opened, 0)
    }
  }
  const bad = inMemory({ broken: 'read' })
  for (let i = 0; i < 2; i++) assert.equal(await hashOf(url, within(bad)), tinyHash)
  await assert.rejects(load(url, { cache: inMemory().backend }), niblError('BAD_ARGUMENT', /worker: false/))
})

test('an abort is heard while a model comes from the cache', async (t) => {
  const bytes = new Uint8Array(readFileSync(modelPath))
  const { url } = await serverFor(t, {}, bytes)
  const head = { key: url, name: url, model: url, size: bytes.length, validator: null }
  const journal = [head, [0, bytes.length], { complete: true, size: bytes.length }].map((line) => JSON.stringify(line)).join('\n')
  let read = 0
  const { backend } = inMemory()
  const full = { ...backend, text: async () => journal, open: async (/** @type {string} */ name, /** @type {'read' | 'write'} */ mode) => {
    const file = await backend.open(name, mode)
    return name.endsWith('.journal') ? file : { ...file, read: async (/** @type {number} */ at, /** @type {Uint8Array} */ buffer) => {
      buffer.set(bytes.subarray(at, at + buffer.length))
      read += buffer.length
      return buffer.length
    } }
  } }
  const stop = new AbortController()
  const abort = () => (read > 8 << 20 ? stop.abort() : setTimeout(abort))
  abort()
  await assert.rejects(load(url, { worker: false, cache: full, signal: stop.signal }), { name: 'AbortError' })
  assert.ok(read < bytes.length, `all of ${read} bytes were read`)
})

test('a conversation by name: on disk beside models, in a cache of its own, and whole or not at all', async (t) => {
  const cache = await placeFor(t)
  for (const options of [{ cache }, within(inMemory())]) {
    const model = await load(tinyPath, options)
    const talk = model.conversation([{ role: 'user', content: 'Hello' }])
    for (let i = 0; i < 2; i++) {
      const state = await talk.save('a')
      const [kept, ...others] = await (await openCache(/** @type {any} */ (options.cache))).list()
      assert.deepEqual({ ...kept, used: 0 }, { model: 'a', state: true, files: ['a'], size: state.size, bytes: state.size, complete: true, used: 0 })
      assert.deepEqual(others, [])
    }
    assert.deepEqual((await model.restore('a')).messages, talk.messages)
    await assert.rejects(model.restore('b'), niblError('NOT_FOUND', /"b"/))
    model.close()
  }
  for (const [how, code] of /** @type {const} */ ([[{ space: 600 }, 'QUOTA'], [{ broken: 'open' }, 'CACHE_FAILED']])) {
    const full = inMemory(how)
    const model = await load(tinyPath, within(full))
    await assert.rejects(model.conversation([{ role: 'user', content: 'Hello' }]).save('a'), niblError(code, /"a"/))
    assert.deepEqual([[...full.files.keys()], full.opened], [[], 0])
    model.close()
  }
})

test('a conversation kept anew is the old one or the new one, wherever a crash ends it', async () => {
  const cache = inMemory()
  const model = await load(tinyPath, within(cache))
  const [old, next] = ['Hello', 'Good morning'].map((content) => model.conversation([{ role: 'user', content }]))
  for (const [first, second] of [[old, next], [next, old]]) {
    await first.save('a')
    /** What is there after each change. @type {Map<string, Uint8Array>[]} */
    const moments = [new Map(cache.files)]
    const { files } = cache
    for (const change of /** @type {const} */ (['set', 'delete'])) {
      Object.assign(files, { [change]: (/** @type {any[]} */ ...args) => {
        /** @type {any} */ (Map.prototype[change]).apply(files, args)
        moments.push(new Map(files))
      } })
    }
    await second.save('a')
    for (const change of ['set', 'delete']) Reflect.deleteProperty(files, change)
    /** @type {string[]} */
    const found = []
    for (const moment of moments) {
      files.clear()
      for (const [name, bytes] of moment) files.set(name, bytes)
      found.push((await model.restore('a')).messages[0].content)
      const listed = await (await openCache(cache.backend)).list()
      assert.deepEqual(listed.map(({ model, complete }) => [model, complete]), [['a', true]])
    }
    const [before, after] = [first, second].map(({ messages }) => messages[0].content)
    assert.deepEqual(found.filter((content, i) => content !== found[i - 1]), [before, after])
    assert.equal([...files.keys()].length, 2)
  }
  assert.equal(await (await openCache(cache.backend)).delete('a'), true)
  assert.deepEqual([...cache.files.keys()], [])
  model.close()
})

test('integrity', async (t) => {
  const { url } = await serverFor(t)
  const right = createHash('sha256').update(tinyBytes).digest('hex')
  const base64 = `sha256-${createHash('sha256').update(tinyBytes).digest('base64')}`
  const wrong = right.replace(/./, (digit) => (digit === '0' ? '1' : '0'))
  const cache = await placeFor(t)
  for (const source of [url, tinyPath, tinyBytes]) {
    for (const options of [{}, { early: true }, { cache }]) {
      for (const integrity of source === url ? [right, base64] : [right]) assert.equal(await hashOf(source, { integrity, ...options }), tinyHash)
    }
  }
  await (await openCache(cache)).delete()
  for (const options of [{}, { early: true }, { cache }]) {
    await assert.rejects(hashOf(url, { integrity: wrong, ...options }), niblError('INTEGRITY', new RegExp(`${right}.*${wrong}`)))
  }
  assert.deepEqual(await (await openCache(cache)).list(), [])
  await assert.rejects(load(url, { integrity: true }), niblError('BAD_ARGUMENT', /nobody tells/))
  await assert.rejects(load(url, { integrity: 'md5-x' }), niblError('BAD_ARGUMENT', /"integrity"/))
})

test('integrity of several files', async (t) => {
  const shard = 'model-00002-of-00003.safetensors'
  const all = Object.fromEntries(Object.entries(folder).map(([name, bytes]) => [name, createHash('sha256').update(bytes).digest('hex')]))
  assert.equal(await hashOf(fixture('tiny-hf-f16'), { integrity: all }), folderHash)
  await assert.rejects(hashOf(fixture('tiny-hf-f16'), { integrity: { [shard]: all['config.json'] } }), niblError('INTEGRITY', /00002-of/))
  const { url: hub } = await hubServer(t, { 'a/b': folder })
  assert.equal(await hashOf('hf:a/b', { hub, integrity: true, cache: await placeFor(t) }), folderHash)
  const changed = { [shard]: folder[shard].slice().fill(0, 2000, 2010) }
  const other = await hubServer(t, { 'a/b': folder }, { changed })
  await assert.rejects(hashOf('hf:a/b', { hub: other.url, integrity: true }), niblError('INTEGRITY', /00002-of/))
})

test('SHA-256 of our own is that of others', () => {
  for (const length of [0, 1, 55, 56, 57, 63, 64, 65, 119, 120, 121, 128, 1000, 100000]) {
    const bytes = randomBytes(length)
    const ours = sha256(true)
    for (let at = 0; at < length; at += 37) ours.update(bytes.subarray(at, at + 37))
    assert.equal(ours.digest('hex'), createHash('sha256').update(bytes).digest('hex'), `${length}`)
  }
})

const faultRuns = Number(process.env.NIBL_RUNS ?? 25)
test('faults at random: the right bytes or a typed error, and a cache that can be used', { timeout: 5000 * faultRuns }, async (t) => {
  const seed = Number(process.env.NIBL_SEED ?? Date.now() % 1e6)
  t.diagnostic(`NIBL_SEED=${seed}`)
  let state = seed
  const random = () => (state = (state * 48271 + 11) % 2147483647) / 2147483647
  /** @type {Record<string, number>} */
  const ends = {}
  t.after(() => t.diagnostic(`${runs} of ${faultRuns} runs, ${JSON.stringify(ends)}`))
  let runs = 0
  for (; runs < faultRuns; runs++) {
    const cache = inMemory()
    const server = await serverFor(t, {})
    server.choose = () => {
      const kind = Math.floor(random() * 14)
      const headers = { ETag: random() < 0.1 ? '"2"' : '"1"' }
      const where = random()
      return [
        { cutAt: where }, { stallAt: where }, { status: 500 }, { status: 429, headers: { 'Retry-After': '0' } }, { status: 416 },
        { ranges: false }, { unknownLength: true }, { cutAt: where, unknownLength: true }, { type: 'text/html' }, { status: 403 },
      ].map((fault) => ({ headers, ...fault }))[kind] ?? { headers }
    }
    const options = within(cache, { retries: 2, timeout: 50, early: random() < 0.5 })
    for (let tries = 0; tries < 2; tries++) {
      const end = await hashOf(server.url, options).then((hash) => assert.equal(hash, tinyHash) ?? 'right', (error) => error.code)
      assert.ok(['right', 'DOWNLOAD_FAILED', 'TIMEOUT', 'BAD_FILE', 'TRUNCATED'].includes(end), `${end}`)
      ends[end] = (ends[end] ?? 0) + 1
      assert.equal(cache.opened, 0)
    }
    server.choose = () => ({ headers: { ETag: '"1"' } })
    /* Nothing is wrong now: on a busy machine a byte may still take more than the 50 ms in which silence is noticed above. */
    assert.equal(await hashOf(server.url, { ...options, timeout: 30000 }), tinyHash)
    const data = [...cache.files].find(([name]) => name.endsWith('.data'))?.[1]
    assert.deepEqual(Buffer.from(data ?? []), Buffer.from(tinyBytes))
    await server.close()
  }
  assert.ok(ends.right > 0.4 * faultRuns)
})

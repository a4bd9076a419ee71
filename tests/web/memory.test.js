/** What a load, a failure and a close leave behind: nothing. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import worker_threads from 'node:worker_threads'
import { inspect, load, quantize } from 'nibl'
import { compileBinary, instantiate } from '../../web/binaries.js'
import { chooseBinary } from '../../web/features.js'
import { makeUp } from '../made-up-model.js'
import { faultyServer } from './faulty-server.js'
import { answer, fromRoot, isAbort, loadFor, modelPath, niblError, tinyBytes, tinyPath } from './support.js'

/** Workers that were started and have not ended. @type {Set<worker_threads.Worker>} */
const workers = new Set()
const { Worker } = worker_threads
worker_threads.Worker = class extends Worker {
  /** @param {ConstructorParameters<typeof Worker>} args */
  constructor(...args) {
    super(...args)
    workers.add(this)
    this.on('exit', () => workers.delete(this))
  }
}

/** Memories that were made here and have not been collected. @type {Set<WeakRef<WebAssembly.Memory>>} */
const memories = new Set()
const { Memory } = WebAssembly
/** What an engine gives: bytes that a memory may have, and of those what it can grow to. */
const limits = { maximum: Infinity, growth: Infinity }
WebAssembly.Memory = class extends Memory {
  /** @param {WebAssembly.MemoryDescriptor} descriptor */
  constructor(descriptor) {
    if (65536 * Number(descriptor.maximum) > limits.maximum) throw new RangeError('could not allocate memory')
    super(descriptor)
    memories.add(new WeakRef(this))
  }

  /** @param {number} pages */
  grow(pages) {
    if (this.buffer.byteLength + 65536 * pages > limits.growth) throw new RangeError('could not grow')
    return super.grow(pages)
  }
}

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc')

/** @param {() => boolean} condition @param {string} what */
async function eventually(condition, what) {
  for (let tries = 0; tries < 200; tries++) {
    if (condition()) return
    await new Promise((resolve) => setTimeout(resolve, 10))
    collect()
  }
  assert.fail(what)
}

const noWorkers = () => eventually(() => workers.size === 0, `${workers.size} workers are left`)
const noMemories = () =>
  eventually(() => [...memories].every((memory) => !memory.deref()), 'a WebAssembly.Memory is left')

test('close ends the worker, and with it its memory', async () => {
  const model = await load(tinyPath)
  await answer(model, 'Hello', { maxTokens: 2 })
  assert.equal(workers.size, 1)
  model.close()
  await noWorkers()
})

test('close gives the memory of the calling thread back, also while it computes', async () => {
  await (async () => {
    const model = await load(modelPath, { worker: false })
    await answer(model, 'Hello', { maxTokens: 2 })
    assert.ok([...memories].some((memory) => memory.deref()))
    const running = answer(model, 'word '.repeat(3000))
    setTimeout(() => model.close(), 50)
    await assert.rejects(running, niblError('CLOSED', /closed/))
  })()
  await noMemories()
})

test('a load that fails leaves nothing', async (t) => {
  const { url } = await faultyServer(tinyBytes, { cutAt: 0.8 }).then((server) => {
    t.after(() => server.close())
    return server
  })
  const stalled = await faultyServer(tinyBytes, { stallAt: 0.8 })
  t.after(() => stalled.close())
  for (const worker of [true, false]) {
    await assert.rejects(load(url, { worker }), niblError('DOWNLOAD_FAILED', /lost/))
    await assert.rejects(load(tinyBytes.slice(0, 9000), { worker }), niblError('TRUNCATED', /end/))
    await assert.rejects(load(stalled.url, { worker, timeout: 100 }), niblError('TIMEOUT', /byte/))
    const signal = AbortSignal.timeout(200)
    await assert.rejects(load(stalled.url, { worker, signal }), { name: 'TimeoutError' })
    const controller = new AbortController()
    const loading = load(stalled.url, { worker, signal: controller.signal })
    controller.abort()
    await assert.rejects(loading, isAbort)
    await noWorkers()
    await noMemories()
  }
})

test('a quantization that ends at any point leaves nothing', async (t) => {
  const { read, size } = makeUp({ layers: 2, width: 512, ffn: 1024, heads: 8, kvHeads: 2 })
  const bytes = new Uint8Array(read(0, size))
  const server = await faultyServer(bytes)
  t.after(() => server.close())
  let seed = 7
  const below = (/** @type {number} */ n) => (seed = Number((BigInt(seed) * 48271n) % 0x7fffffffn)) % n /* Park and Miller's numbers */
  for (let i = 0; i < 50; i++) {
    const controller = new AbortController()
    const full = below(2) ? new DOMException('no room', 'QuotaExceededError') : null
    const end = below(4)
    let writes = 0
    /** @type {any} */
    let reason = full
    const sink = new WritableStream({
      write() {
        if (writes++ < end) return
        if (full) throw full
        controller.abort()
      },
      abort: (error) => void (reason = error), /* what the sink has it throws away */
    })
    if (end === 0) setTimeout(() => controller.abort(full), below(20))
    const options = { worker: below(2) === 1, threads: 1 + below(2), sink, signal: controller.signal }
    const quantizing = quantize(below(2) ? bytes : server.url, { type: 'f32', requantize: true, ...options })
    await assert.rejects(quantizing, (error) => error === full || isAbort(error))
    assert.ok(reason === full || isAbort(reason))
    assert.ok(writes <= end + 1, `${writes} ${end}`)
  }
  await noWorkers()
  await noMemories()
})

test('a program that forgets to close ends all the same', async () => {
  const program = `
    import { load } from ${JSON.stringify(fromRoot('web/nibl.js'))}
    for (const worker of [true, false]) {
      const model = await load(${JSON.stringify(tinyPath)}, { worker, threads: 2 })
      for await (const piece of model.generate('Hello', { maxTokens: 3 }));
      console.log(model.stats.hash)
    }`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], { timeout: 30000 })
  assert.match(stdout, /^([0-9a-f]{16})\n\1\n$/)
})

test('memory is the plan: weights, full cache and at most 32 MiB', async (t) => {
  for (const threads of [1, 2]) {
    const model = await loadFor(t, modelPath, { contextLength: 256, threads })
    const { linear, weights, kv } = model.stats.memory
    assert.ok(linear <= weights + kv + (32 << 20), JSON.stringify(model.stats.memory))
    await answer(model, 'word '.repeat(180), { maxTokens: 60 })
    const after = model.stats.memory
    assert.ok(after.linear <= weights + kv + (32 << 20), JSON.stringify(after))
    assert.equal(after.kv, kv)
  }
})

test('where memory is short the context is shorter, which is told, or what to do', async (t) => {
  const MiB = 2 ** 20
  const restore = () => Object.assign(limits, { maximum: Infinity, growth: Infinity })
  t.after(restore)
  const loadWithin = async (/** @type {object} */ less, options = {}) => {
    Object.assign(limits, less)
    try {
      const model = await load(modelPath, { worker: false, ...options })
      const { contextLength, why } = model.info
      const said = await answer(model, 'The capital of France is', { maxTokens: 4 })
      model.close()
      return { contextLength, why, said }
    } finally {
      restore()
    }
  }
  const { said, why } = await loadWithin({})
  assert.doesNotMatch(why, /context/)
  /* Enough for the model, not for what is asked for before it is known. */
  assert.deepEqual(await loadWithin({ maximum: 300 * MiB }), { contextLength: 4096, why, said })
  for (const [maximum, contextLength] of [[180 * MiB, 2048], [155 * MiB, 1024], [145 * MiB, 512]]) {
    const less = await loadWithin({ maximum })
    assert.deepEqual({ ...less, why: '' }, { contextLength, why: '', said }, `${less.why} ${maximum}`)
    assert.match(less.why, new RegExp(`context of ${contextLength} tokens: there is no memory for more`))
  }
  const advice = niblError('OUT_OF_MEMORY', /smaller model or a shorter contextLength/)
  await assert.rejects(loadWithin({ maximum: 180 * MiB }, { contextLength: 4096 }), advice)
  await assert.rejects(loadWithin({ maximum: 80 * MiB }), advice)
  await assert.rejects(loadWithin({ maximum: 8 * MiB }), advice)
  /* A memory that does not grow may be had in one piece. */
  assert.equal((await loadWithin({ growth: 64 * MiB })).said, said)
})

test('a device says how much memory it has', async (t) => {
  t.after(() => Reflect.deleteProperty(globalThis, 'navigator'))
  const usual = chooseBinary({}).threads
  for (const [deviceMemory, contextLength, threads] of [[8, 4096, usual], [2, 2048, usual], [0.5, 512, 1]]) {
    Object.defineProperty(globalThis, 'navigator', { value: { deviceMemory }, configurable: true })
    const model = await load(modelPath, { worker: false })
    assert.equal(model.info.contextLength, contextLength)
    assert.equal(/device has/.test(model.info.why), contextLength < 4096)
    assert.equal((await inspect(modelPath, { worker: false })).plan?.contextLength, contextLength)
    model.close()
    assert.equal(chooseBinary({}).threads, threads)
    assert.equal(chooseBinary({ threads: 2 }).threads, 2)
    const asked = await load(modelPath, { worker: false, contextLength: 4096 })
    assert.equal(asked.info.contextLength, 4096)
    asked.close()
  }
})

test('more memory than there can be is refused in words', async () => {
  const compiled = await compileBinary('simd128')
  const size = { initial: 1 << 20, maximum: 2 ** 32 + 1 }
  await assert.rejects(instantiate(compiled, size), niblError('OUT_OF_MEMORY', /needs 4097 MB.*contextLength/))
})

test('aborts at random moments: no leak, no hang, and the same answers', async () => {
  const aborts = Number(process.env.NIBL_ABORTS ?? 120)
  let state = Number(process.env.NIBL_SEED ?? 1)
  const random = (/** @type {number} */ n) => Math.floor((n * (state = (state * 48271) % 2147483647)) / 2147483647)
  const run = async (/** @type {boolean} */ worker) => {
    const model = await load(tinyPath, { worker, sessions: 3 })
    const text = 'The quick brown fox. '.repeat(12)
    const talk = model.conversation([{ role: 'user', content: 'Hello' }])
    const expected = [await answer(model, text, { maxTokens: 20 }), await model.embed(text), (await talk.save()).size]
    await Promise.all(Array.from({ length: 6 }, (_, i) => answer(model, text + i, { maxTokens: 60 })))
    const calls = [
      (/** @type {AbortSignal} */ signal) => answer(model, text.slice(random(40)), { signal, maxTokens: 60 }),
      (/** @type {AbortSignal} */ signal) => answer(model, text, { signal, maxTokens: 60, temperature: 1, json: true }),
      (/** @type {AbortSignal} */ signal) => model.embed([text, 'x'], { signal }),
      (/** @type {AbortSignal} */ signal) => load(tinyPath, { signal, worker }).then((other) => other.close()),
    ]
    const now = () => model.stats.memory.linear
    let linear = 0
    for (let made = 0; made < aborts / 2; ) {
      const burst = 1 + random(5)
      await Promise.all(Array.from({ length: burst }, async () => {
        const stop = new AbortController()
        const running = calls[random(16) ? random(3) : 3](stop.signal)
        setTimeout(() => stop.abort(), random(random(2) ? 4 : 40))
        await running.catch(isAbort)
      }))
      made += burst
      await answer(model, 'Hello', { maxTokens: 1 })
      if (made > aborts / 4) linear ||= now()
    }
    assert.deepEqual([await answer(model, text, { maxTokens: 20 }), await model.embed(text), (await talk.save()).size], expected)
    assert.ok(now() <= linear, `${linear} bytes became ${now()}`)
    model.close()
  }
  await run(true)
  await run(false)
  await noWorkers()
  await noMemories()
})

test('the process is as large as before after 20 loads and closes', async (t) => {
  const program = `
    import { load } from ${JSON.stringify(fromRoot('web/nibl.js'))}
    import { readFileSync } from 'node:fs'
    const cycle = async (options) => {
      const model = await load(${JSON.stringify(tinyPath)}, options)
      for await (const piece of model.generate('Hello', { maxTokens: 3 }));
      model.close()
    }
    const size = () => Number(/^RssAnon:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status'))[1]) / 1024
    /* Workers end, and V8 gives back, in their own time. */
    const settled = async (enough) => {
      for (let i = 0; i < 10 || (i < 80 && size() > enough); i++) {
        await new Promise((resolve) => setTimeout(resolve, 100))
        gc()
      }
      return size()
    }
    const all = [{ threads: 2 }, { threads: 1 }, { worker: false }]
    for (const options of [...all, ...all]) await cycle(options)
    const before = await settled(Infinity)
    for (let i = 0; i < 20; i++) await cycle(all[i % 3])
    console.log(await settled(before + 4) - before)`
  /* The C library gives back what it has free: else that is what would be measured. */
  const env = { ...process.env, MALLOC_TRIM_THRESHOLD_: '65536', MALLOC_MMAP_THRESHOLD_: '65536' }
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', '--input-type=module', '--eval', program], { env, timeout: 60000 })
  t.diagnostic(`${Number(stdout).toFixed(1)} MiB more`)
  assert.ok(Number(stdout) <= 5, `${stdout} MiB are left`)
})

test('20 loads and closes leave nothing', async () => {
  const run = async (/** @type {number} */ cycle) => {
    const model = await load(tinyPath, { worker: cycle % 4 > 0, threads: 1 + (cycle % 2) })
    const talk = model.conversation()
    for await (const piece of talk.generate('Hello', { maxTokens: 3 })) assert.ok(piece)
    await model.restore(await talk.save())
    await model.embed('Hello')
    model.close()
  }
  for (let cycle = 0; cycle < 20; cycle++) await run(cycle)
  await noWorkers()
  await noMemories()
})

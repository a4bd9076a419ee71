/**
 * Where a cache keeps its files: in a browser a directory of the origin's private file system, or CacheStorage where there
 * is none; under Node a directory on disk.
 */
import { NiblError, abortReason } from './errors.js'
import { isNode, nodeModule } from './platform.js'

/** @typedef {import('./nibl.d.ts').CacheBackend} Backend */

/** @param {true | string | Backend} cache as in nibl.d.ts @returns {Promise<Backend>} */
export async function openBackend(cache) {
  if (typeof cache === 'object') return cache
  return isNode ? directory(cache) : originFiles(cache === true ? 'models' : cache)
}

// ---- Browser -------------------------------------------------------------------------------------------------------

/** @param {unknown} error */
const isAbsent = (error) => error instanceof DOMException && error.name === 'NotFoundError'

/** @param {string} name @returns {Promise<Backend>} */
async function originFiles(name) {
  if (!navigator.locks || !globalThis.caches) throw new Error('this browser keeps no files here (it needs HTTPS)')
  const isPrivate = 'getDirectory' in (navigator.storage ?? {})
  const files = isPrivate ? await privateFiles(name) : await (await import('./cachestorage.js')).storedFiles(name)
  return {
    ...files,
    lock: (id, signal) =>
      new Promise((resolve, reject) => {
        const held = () => new Promise((release) => resolve(() => release(undefined)))
        navigator.locks.request(`nibl ${name} ${id}`, { signal }, held).catch(() => reject(abortReason(signal)))
      }),
  }
}

/** @param {string} name @returns {Promise<Omit<Backend, 'lock'>>} */
async function privateFiles(name) {
  let folder = await navigator.storage.getDirectory()
  for (const part of ['nibl', name]) folder = await folder.getDirectoryHandle(part, { create: true })
  return {
    async names() {
      const names = []
      for await (const key of /** @type {any} */ (folder).keys()) names.push(key)
      return names
    },
    async text(file) {
      try {
        return await (await (await folder.getFileHandle(file)).getFile()).text()
      } catch (error) {
        if (isAbsent(error)) return null
        throw error
      }
    },
    async open(file, mode) {
      const handle = /** @type {any} */ (await folder.getFileHandle(file, { create: true }))
      if (!handle.createSyncAccessHandle) throw new Error('it can only be filled from a worker (worker: true)')
      if (mode === 'read') return readOnly(handle)
      const access = await handle.createSyncAccessHandle()
      return {
        read: async (at, buffer) => access.read(buffer, { at }),
        async write(at, bytes) {
          const written = access.write(bytes, { at })
          if (written < bytes.length) throw new DOMException('short write', 'QuotaExceededError')
        },
        flush: async () => access.flush(),
        close: () => access.close(),
      }
    },
    async remove(file) {
      await folder.removeEntry(file).catch((error) => {
        if (isAbsent(error)) return
        throw new NiblError('CACHE_FAILED', `${name}: a file of the cache cannot be deleted, it is in use: ${error.message}`, { cause: error })
      })
    },
  }
}

/** For many at once, where the browser knows how; else as a File, which is slower.
 * @param {any} handle @returns {Promise<import('./nibl.d.ts').CacheFile>} */
async function readOnly(handle) {
  const refuse = async () => {
    throw new Error('it is open for reading')
  }
  try {
    const access = await handle.createSyncAccessHandle({ mode: 'read-only' })
    return { read: async (at, buffer) => access.read(buffer, { at }), write: refuse, flush: refuse, close: () => access.close() }
  } catch {
    const file = await handle.getFile()
    const read = async (/** @type {number} */ at, /** @type {Uint8Array} */ buffer) => {
      const bytes = new Uint8Array(await file.slice(at, at + buffer.length).arrayBuffer())
      buffer.set(bytes)
      return bytes.length
    }
    return { read, write: refuse, flush: refuse, close: () => {} }
  }
}

// ---- Node ----------------------------------------------------------------------------------------------------------

const HEARTBEAT = 500 /* ms between a lock's signs of life */
const DEAD = 3000 /* ms without one: its owner is gone */

/** @param {true | string} cache a path where it has a slash, else a name @returns {Promise<Backend>} */
async function directory(cache) {
  const { promises, constants } = nodeModule('node:fs')
  const { join } = nodeModule('node:path')
  const env = /** @type {any} */ (globalThis).process.env
  const home = join(env.XDG_CACHE_HOME || join(nodeModule('node:os').homedir(), '.cache'), 'nibl')
  const isPath = typeof cache === 'string' && /[/\\]/.test(cache)
  const folder = isPath ? cache : join(home, cache === true ? 'models' : cache)
  await promises.mkdir(folder, { recursive: true })
  const path = (/** @type {string} */ file) => join(folder, file)
  const nullIfAbsent = (/** @type {any} */ error) => {
    if (error.code === 'ENOENT') return null
    throw error
  }

  /** @param {string} file @returns {Promise<boolean>} */
  async function take(file) {
    try {
      await (await promises.open(file, 'wx')).close()
      return true
    } catch (error) {
      if (/** @type {any} */ (error).code !== 'EEXIST') throw error
      const age = await promises.stat(file).then((/** @type {any} */ { mtimeMs }) => Date.now() - mtimeMs, nullIfAbsent)
      if (age > DEAD) await promises.rm(file, { force: true })
      return false
    }
  }

  return {
    names: () => promises.readdir(folder),
    text: (file) => promises.readFile(path(file), 'utf8').catch(nullIfAbsent),
    async open(file, mode) {
      const flags = mode === 'read' ? constants.O_RDONLY : constants.O_RDWR + constants.O_CREAT
      const handle = await promises.open(path(file), flags)
      return {
        read: async (at, buffer) => (await handle.read(buffer, 0, buffer.length, at)).bytesRead,
        async write(at, bytes) {
          for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten
        },
        flush: () => handle.datasync(),
        close: () => void handle.close().catch(() => {}),
      }
    },
    remove: (file) => promises.rm(path(file), { force: true }),
    async lock(id, signal) {
      const file = path(`${id}.lock`)
      while (!(await take(file))) {
        if (signal?.aborted) throw abortReason(signal)
        await new Promise((resolve) => setTimeout(resolve, HEARTBEAT / 4))
      }
      const beat = () => promises.utimes(file, new Date(), new Date()).catch(() => {})
      const timer = setInterval(beat, HEARTBEAT)
      timer.unref()
      return () => {
        clearInterval(timer)
        nodeModule('node:fs').rmSync(file, { force: true })
      }
    },
  }
}

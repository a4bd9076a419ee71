/** What a person may hand to the page as a model: files and folders picked or dropped, names and addresses, what is kept here. */
import { openCache } from 'nibl'

/** @typedef {import('../web/nibl.d.ts').CachedModel} CachedModel */

/** @param {string} text hf:owner/repository, an address, or owner/repository alone @returns {string} for load() */
export function sourceOf(text) {
  const name = text.trim()
  if (/^[a-z]+:/i.test(name)) return name
  return /^[\w.-]+\/[\w.-]+([:@/]|$)/.test(name) && !name.endsWith('.gguf') ? `hf:${name}` : new URL(name, location.href).href
}

/** How a model is called on the page. @param {string} source */
export function titleOf(source) {
  if (source.startsWith('hf:')) return source.slice(3)
  const parts = decodeURIComponent(new URL(source).pathname).split('/').filter(Boolean)
  return parts.slice(/\.gguf$/.test(parts.at(-1) ?? '') ? -1 : -2).join('/')
}

/** @param {File[]} files @returns {{ source: File | File[], name: string }} */
export function ofFiles(files) {
  if (files.length === 1) return { source: files[0], name: files[0].name }
  const folder = files[0].webkitRelativePath.split('/')[0]
  return { source: files, name: folder || `${files.length} files` }
}

/** The files of a drop, those of a folder too. @param {DataTransfer} transfer @returns {Promise<File[]>} */
export async function droppedFiles(transfer) {
  /* Asked for before the first wait: afterwards the list is empty. */
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.())
  const folder = entries.find((entry) => entry?.isDirectory)
  const files = [...transfer.files]
  return folder ? filesOf(/** @type {FileSystemDirectoryEntry} */ (folder)) : files
}

/** Those that stand in a folder itself. @param {FileSystemDirectoryEntry} folder @returns {Promise<File[]>} */
async function filesOf(folder) {
  const reader = folder.createReader()
  /** @type {FileSystemEntry[]} */
  const entries = []
  for (;;) {
    /** @type {FileSystemEntry[]} */
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject))
    if (!some.length) break
    entries.push(...some)
  }
  const files = entries.filter((entry) => entry.isFile).map((entry) =>
    new Promise((resolve, reject) => /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject)))
  return Promise.all(files)
}

/** What is kept on this machine; nothing where the browser keeps nothing. @returns {Promise<CachedModel[]>} */
export async function keptModels() {
  return openCache().then(async (cache) => (await cache.list()).filter(({ state }) => !state), () => [])
}

/** @param {string} model */
export async function forget(model) {
  await (await openCache()).delete(model)
}

/** Asks that it be kept when space runs short. */
export async function keep() {
  await openCache().then((cache) => cache.persist()).catch(() => false)
}

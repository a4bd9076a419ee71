/** What the files of a loaded model are, for receipts. Fetched where somebody asks. */
import { NiblError } from './errors.js'
import { sha256 } from './sha256.js'

/** `sha256`: null where the file would have to be downloaded again. @typedef {{ name: string, size: number, sha256: string | null }} ModelFile */

/** @param {import('./planning.js').Input} input @returns {Promise<ModelFile[]>} */
export async function identify(input) {
  const files = []
  try {
    for (const { source, size } of input.files) files.push({ name: source.fileName, size, sha256: await hashOf(source, size) })
  } finally {
    await input.end()
  }
  return files
}

/** @param {import('./stream.js').Source} source @param {number} size */
async function hashOf(source, size) {
  if (source.checked) return source.checked
  if (!size || !(await source.again?.())) return null
  const hash = sha256()
  try {
    const stream = await source.open({ start: 0, end: size })
    for (let bytes; (bytes = await stream.read()); ) hash.update(bytes)
    return hash.digest('hex')
  } catch (error) {
    if (error instanceof NiblError) return null
    throw error
  }
}

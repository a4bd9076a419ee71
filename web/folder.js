/** The files of a model that is several: which one a load starts with. The core names the others (nibl_loader_file_name). */
import { NiblError } from './errors.js'

const PART = /-(\d{5})-of-\d{5}\.gguf$/

/** @param {string} address URL or path */
export function fileNameOf(address) {
  const isUrl = /^[a-z]+:\/\//i.test(address)
  const path = isUrl ? decodeURIComponent(new URL(address).pathname) : address
  return path.slice(Math.max(path.lastIndexOf('/'), path.lastIndexOf('\\')) + 1)
}

/** Other files belong to this one. @param {string} fileName */
export function isPart(fileName) {
  return fileName === 'config.json' || PART.test(fileName)
}

/** GGUF models among files, each by the file it starts with. @param {string[]} names */
export function ggufModels(names) {
  return names.filter((name) => name.endsWith('.gguf') && (PART.exec(name)?.[1] ?? '00001') === '00001').sort()
}

/** The file of a folder that a load starts with. Folders of GGUF files often have a config.json too.
 * @param {string[]} names @param {string} where for messages */
export function firstFile(names, where) {
  const models = ggufModels(names)
  const hasConfig = names.includes('config.json')
  if (hasConfig && (models.length === 0 || names.some((name) => name.endsWith('.safetensors')))) return 'config.json'
  if (models.length === 1) return models[0]
  const found = models.length ? `${models.length} models (${models.join(', ')}): name one` : 'neither config.json nor a GGUF file'
  throw new NiblError(models.length ? 'BAD_ARGUMENT' : 'FILE_FAILED', `${where}: in this directory is ${found}.`)
}

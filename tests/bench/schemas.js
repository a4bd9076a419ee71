// JSON Schema: what the schemas of the public JSON-Schema-Test-Suite (as the Python package jsonschema carries it) that nibl
// takes give, validated with ajv: `node tests/bench/schemas.js [schemas] [seeds]`; and what a schema costs.

import { cpSync, existsSync, readFileSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { load } from 'nibl'
import { defaultModel, fetchModel } from '../../demo/fetch.js'
import { fetchSources, folder, isProgram, main, root, setup } from '../../wasm/setup.js'

const suite = {
  name: 'jsonschema',
  version: '4.23.0',
  bytes: 325778,
  sha256: 'd71497fef26351a33265337fa77ffeb82423f3ea21283cd9467bb03999266bc4',
}
const kept = join(root, '.toolchain', `schemas-${suite.sha256.slice(0, 12)}`)
const drafts = ['draft2020-12', 'draft2019-09', 'draft7', 'draft6']
const maxTokens = 64

/** Every schema of the suite once. @returns {Promise<{ name: string, schema: any }[]>} */
async function schemas() {
  await setup(['packagetools'])
  if (!existsSync(kept)) await fetchSources(suite, async (sources) => cpSync(join(sources, 'json/tests'), kept, { recursive: true }))
  /** @type {Map<string, { name: string, schema: any }>} */
  const found = new Map()
  for (const draft of drafts) {
    const files = ['', 'optional', 'optional/format'].flatMap((dir) => readdirSync(join(kept, draft, dir)).map((name) => join(dir, name)))
    for (const file of files.filter((name) => name.endsWith('.json')).sort()) {
      for (const { description, schema } of JSON.parse(readFileSync(join(kept, draft, file), 'utf8'))) {
        const { $schema, ...own } = Object(schema)
        const plain = typeof schema === 'object' ? own : schema
        const key = JSON.stringify(plain)
        if (!found.has(key)) found.set(key, { name: `${draft}/${file}: ${description}`, schema: plain })
      }
    }
  }
  return [...found.values()]
}

/** A list in an order of its own that is always the same. @template T @param {T[]} list @returns {T[]} */
function shuffled(list) {
  let state = 1
  const keyed = list.map((value) => ({ value, key: (state = (state * 48271) % 2147483647) }))
  return keyed.sort((a, b) => a.key - b.key).map(({ value }) => value)
}

/**
 * @param {{ count?: number, seeds?: number }} [size]
 * @returns {Promise<{ taken: number, refused: Record<string, number>, replies: number, failures: string[] }>}
 */
export async function checkSchemas({ count = 200, seeds = 5 } = {}) {
  const all = shuffled(await schemas())
  await fetchModel()
  const need = createRequire(join(folder('packagetools'), 'package.json'))
  const validators = {
    'draft2020-12': need('ajv/dist/2020.js').default,
    'draft2019-09': need('ajv/dist/2019.js').default,
    draft7: need('ajv').default,
    draft6: need('ajv').default,
  }
  const model = await load(defaultModel.file, { sessions: 8 })
  /** @type {Record<string, number>} */
  const refused = {}
  const failures = /** @type {string[]} */ ([])
  let taken = 0
  let replies = 0
  /** @param {any} schema @param {number} seed */
  const reply = async (schema, seed) => {
    const messages = [{ role: 'user', content: 'Give me an example of a JSON value.' }]
    let text = ''
    for await (const piece of model.generate(messages, { schema, seed, temperature: 1, maxTokens })) text += piece.text
    return text
  }
  try {
    for (const { name, schema } of all) {
      if (taken === count) break
      let first
      try {
        first = await reply(schema, 0)
      } catch (error) {
        const { code, message } = /** @type {any} */ (error)
        if (code !== 'BAD_GRAMMAR') throw error
        const reason = /: (.*)$/.exec(message)?.[1].replace(/[0-9]+/g, 'N') ?? message
        const keyword = /#\S*\/([\w$]+): this keyword/.exec(message)?.[1]
        refused[keyword ?? reason] = (refused[keyword ?? reason] ?? 0) + 1
        continue
      }
      taken++
      const Ajv = validators[/** @type {'draft7'} */ (name.split('/')[0])]
      const ajv = new Ajv({ strict: false, validateFormats: true, logger: false, ownProperties: true })
      need('ajv-formats').default(ajv)
      const validate = ajv.compile(JSON.parse(JSON.stringify(schema)))
      const texts = [first, ...(await Promise.all(Array.from({ length: seeds - 1 }, (_, i) => reply(schema, i + 1))))]
      for (const text of texts) {
        replies++
        try {
          if (!validate(JSON.parse(text))) throw new Error(ajv.errorsText(validate.errors))
        } catch (error) {
          failures.push(`${name}: ${JSON.stringify(schema)}: ${text}: ${/** @type {Error} */ (error).message}`)
        }
      }
    }
    return { taken, refused, replies, failures }
  } finally {
    model.close()
  }
}

/** Tokens per second with and without a schema, in turn, of texts of the same length. */
export async function costOfSchema() {
  const model = await load(defaultModel.file)
  const messages = [{ role: 'user', content: 'Write a long story as JSON with a title and paragraphs.' }]
  const schema = {
    type: 'object',
    properties: { title: { type: 'string', maxLength: 60 }, paragraphs: { type: 'array', items: { type: 'string' }, minItems: 6 } },
    required: ['title', 'paragraphs'],
  }
  const rates = { free: /** @type {number[]} */ ([]), schema: /** @type {number[]} */ ([]) }
  for (let round = 0; round < 6; round++) {
    for (const [name, options] of Object.entries({ free: {}, schema: { schema } })) {
      let text = ''
      for await (const piece of model.generate(messages, { ...options, maxTokens: 160, temperature: 0.8, seed: round, speculate: false })) text += piece.text
      if (round > 0) rates[/** @type {'free'} */ (name)].push(model.stats.decode.tokensPerSecond)
    }
  }
  model.close()
  return rates
}

if (isProgram(import.meta.url)) {
  await main(async () => {
    const [count, seeds] = process.argv.slice(2).map(Number)
    if (process.argv[2] === 'cost') {
      console.log(JSON.stringify(await costOfSchema()))
      return
    }
    const { taken, refused, replies, failures } = await checkSchemas({ count, seeds })
    console.log(`${taken} schemas, ${replies} replies, ${failures.length} not valid`)
    for (const failure of failures) console.log(failure)
    console.log('refused:', JSON.stringify(refused))
  })
}

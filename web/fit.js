/** What of a model fits, from its first bytes: each recipe's file is begun, and planned as a load would. */
import { compileBinary } from './binaries.js'
import { NiblError } from './errors.js'
import { chooseBinary } from './features.js'
import losses from './losses.js'
import { Input, Planner, located, marginOf } from './planning.js'

/** @typedef {import('./nibl.d.ts').FitRecipe} Recipe */

const kvTypes = /** @type {const} */ (['i8', 'f16', 'f32'])

const configName = /(^|[\/\\])config\.json([?#].*)?$/

/** A config.json that is named itself, not by its folder. @param {import('./source.js').Descriptor} descriptor */
function isConfig(descriptor) {
  const { url, path, file, name } = /** @type {any} */ (descriptor)
  return configName.test(url ?? path ?? file?.name ?? name ?? '')
}

/**
 * @param {import('./source.js').Descriptor} descriptor
 * @param {import('./planning.js').PlanOptions & import('./planning.js').InputOptions & { memory: number, binary?: string, threads?: number, inProcess: boolean }} options
 * @param {import('./protocol.js').CallContext} context
 * @returns {Promise<import('./nibl.d.ts').Fitting>}
 */
export async function fitSource(descriptor, options, { signal }) {
  const choice = chooseBinary(options)
  const input = await Input.of(descriptor, options, { signal, jumps: true })
  try {
    const compiled = await input.startBeside(compileBinary(choice.binary, { wasmUrl: options.wasmUrl, quantize: true }), signal)
    const how = { ...options, configOnly: isConfig(descriptor) }
    const source = await Planner.of(compiled, input, how)
    const header = await source.read(input)

    /** @param {Planner} planner @param {number} fileBytes @param {Partial<Recipe>} recipe @returns {Recipe} */
    const planned = (planner, fileBytes, { type = null, method = null, loss = null }) => {
      const plans = Object.fromEntries(kvTypes.map((kv) => {
        const plan = planner.plan({ ...options, kv }, choice)
        return [kv, { ...plan, memory: plan.total + marginOf(choice) }]
      }))
      const { contextLength, weights, kv, memory } = plans.i8
      return {
        type, method, fileBytes, plans: /** @type {any} */ (plans), loss,
        fits: memory <= options.memory,
        kvOutgrowsWeightsAt: (weights * contextLength) / kv,
      }
    }

    const { parameters, file_tensor_bytes: tensorBytes } = source.describe()
    const recipes = [planned(source, tensorBytes, {})]
    let note = null
    for (const { type, method, perplexity, kl } of losses) {
      const planner = await Planner.of(compiled, input, how)
      planner.feed(header)
      try {
        const { size, bytes } = planner.output({ type, tensors: [], threads: 1 })
        const file = { firstSize: size, fileName: '' }
        const output = await Planner.of(compiled, file, {})
        output.feed([{ offset: 0, bytes }])
        const loss = /** @type {Recipe['loss']} */ ({ perplexity, kl })
        recipes.push(planned(output, size, { type, method, loss }))
      } catch (error) {
        if (!(error instanceof NiblError)) throw error
        note = error.message
      }
    }
    const lossOf = (/** @type {Recipe} */ { loss }) => loss?.kl[0] ?? 0
    const [best = null] = recipes.filter(({ fits }) => fits).sort((a, b) => lossOf(a) - lossOf(b))
    return { parameters, contextLength: recipes[0].plans.i8.contextLength, memory: options.memory, recipes, choice: best, note }
  } catch (error) {
    throw located(error, input.name)
  } finally {
    await input.end()
  }
}

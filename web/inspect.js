/** What a file is and what it would need here, from its first bytes. Fetched where somebody asks. */
import { compileBinary } from './binaries.js'
import { chooseBinary } from './features.js'
import { Input, located, marginOf, planFile } from './planning.js'

/**
 * @param {import('./source.js').Descriptor} descriptor
 * @param {import('./planning.js').PlanOptions & import('./planning.js').InputOptions & { binary?: string, threads?: number, inProcess: boolean }} options
 * @param {import('./protocol.js').CallContext} context
 * @returns {Promise<import('./nibl.d.ts').Inspection>}
 */
export async function inspectSource(descriptor, options, { signal }) {
  const first = chooseBinary(options)
  const input = await Input.of(descriptor, options, { signal, jumps: true })
  try {
    const compiled = await input.startBeside(compileBinary(first.binary, options), signal)
    const { planner, choice, plan, unsupported } = await planFile(input, compiled, options, first, signal)
    const { file_tensor_bytes: tensorBytes, ...description } = planner.describe()
    const { binary, threads, why } = choice
    return {
      ...description,
      tensorBytes,
      fileBytes: input.size,
      bytesRead: input.loaded,
      plan: plan && { ...plan, memory: plan.total + marginOf(choice), binary, threads, why },
      unsupported: unsupported instanceof Error ? unsupported.message : null,
    }
  } catch (error) {
    throw located(error, input.name)
  } finally {
    await input.end()
  }
}

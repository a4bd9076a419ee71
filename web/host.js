/** The calls of protocol.js, answered by one engine. */
import { Engine } from './engine.js'

/** @typedef {import('./protocol.js').CallContext} CallContext */

/** @returns {Record<string, (args: any[], context: CallContext) => any>} */
export function engineCalls() {
  /** @type {Engine} */
  let engine
  /** @type {import('./quantizing.js').Quantizing | import('./calibrating.js').Calibrating} */
  let quantizing
  /** Pieces are asked for ahead, and made one after the other. */
  let turn = /** @type {Promise<any>} */ (Promise.resolve())
  let ending = false
  return {
    async load([descriptor, options], context) {
      const { engine: loaded, ...result } = await Engine.load(descriptor, options, context)
      engine = loaded
      return result
    },
    async inspect([descriptor, options], context) {
      const { inspectSource } = await import('./inspect.js')
      return inspectSource(descriptor, options, context)
    },
    async fit([descriptor, options], context) {
      const { fitSource } = await import('./fit.js')
      return fitSource(descriptor, options, context)
    },
    async quantize([descriptor, options], context) {
      const { Quantizing } = await import('./quantizing.js')
      quantizing = await Quantizing.start(descriptor, options, context)
      return { size: quantizing.size, report: quantizing.report(), tokens: quantizing.tokens }
    },
    async imatrix([descriptor, options], context) {
      const { Quantizing } = await import('./quantizing.js')
      const collecting = /** @type {import('./calibrating.js').Calibrating} */ (quantizing = await Quantizing.start(descriptor, options, context))
      return { bytes: await collecting.imatrix(), tokens: collecting.tokens }
    },
    quantized: (_, context) => (turn = turn.then(() => (ending ? null : quantizing.next(context)))),
    quantizeReport: () => quantizing.report(),
    async end() {
      ending = true
      await engine?.end()
      await turn.catch(() => {})
      await quantizing?.end()
    },
    files: (_, context) => engine.files(context),
    ready: (_, context) => engine.ready(context),
    generate: ([request], context) => engine.generate(request, context),
    embed: ([text, how], context) => engine.embed(text, how, context),
    save: ([text], context) => engine.save(text, context),
    restore: ([state], context) => engine.restore(state, context),
    keep: async ([cache, name, state], { signal }) => (await import('./cache.js')).keepState(cache, name, state, signal),
    kept: async ([cache, name], { signal }) => (await import('./cache.js')).keptState(cache, name, signal),
    score: ([request], context) => engine.score(request, context),
    tokenize: ([text, options]) => engine.tokenize(text, options),
    detokenize: ([tokens, options]) => engine.detokenize(tokens, options),
  }
}

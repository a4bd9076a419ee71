/** The calls of protocol.js, answered by one engine. */
import { Engine } from './engine.js'

/** @typedef {import('./protocol.js').CallContext} CallContext */

/** @returns {Record<string, (args: any[], context: CallContext) => any>} */
export function engineCalls() {
  /** @type {Engine} */
  let engine
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
    ready: (_, context) => engine.ready(context),
    generate: ([request], context) => engine.generate(request, context),
    tokenize: ([text, options]) => engine.tokenize(text, options),
    detokenize: ([tokens, options]) => engine.detokenize(tokens, options),
  }
}

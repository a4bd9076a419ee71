/**
 * The messages between the caller's thread and the engine's. Nothing of a model is ever in them: the engine fetches or
 * reads by itself, files are passed by reference, and streams have a channel of their own (relay.js).
 *
 *   caller -> engine   { id, call, args }   call: 'load' | 'inspect' | 'fit' | 'ready' | 'generate' | 'embed' | 'save' | 'restore' | 'keep' | 'kept' | 'tokenize' | 'detokenize'
 *                                              | 'quantize', then 'quantized' until it gives null, then 'quantizeReport' | 'imatrix'
 *                                              | 'end', the last one
 *                      { id, abort: true }  the caller has lost interest in call `id`
 *   engine -> caller   { id, event }        any number of them, in order: { progress }, { warning }, { piece }, { stats }
 *                      { id, value }        the call's end: its result
 *                      { id, error }        the call's end: an ErrorRecord
 *
 * Calls may overlap; the engine decides what has to wait. After an abort the caller does not wait for the end.
 */
import { abortReason, fromRecord, toRecord } from './errors.js'

/** @typedef {import('./errors.js').ErrorRecord} ErrorRecord */
/** @typedef {{ id: number, call: string, args: any[] } | { id: number, abort: true }} Request */
/** @typedef {{ id: number, event?: any, value?: any, error?: ErrorRecord }} Answer */
/** @typedef {{ onEvent?: (event: any) => void, signal?: AbortSignal, transfer?: any[] }} CallOptions */

/** The caller's end. */
export class Link {
  /** @type {Map<number, { event: (event: any) => void, resolve: (value: any) => void, reject: (error: any) => void }>} */
  #calls = new Map()
  #next = 1
  /** @type {Error | null} */
  #broken = null

  /**
   * @param {(message: Request, transfer: any[]) => void} send
   * @param {(busy: boolean) => void} [onBusy] told when the first call begins and the last one ends
   */
  constructor(send, onBusy = () => {}) {
    this.send = send
    this.onBusy = onBusy
  }

  /** @param {string} call @param {any[]} args @param {CallOptions} [options] @returns {Promise<any>} */
  call(call, args, { onEvent = () => {}, signal, transfer = [] } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken)
      if (signal?.aborted) return reject(abortReason(signal))
      const id = this.#next++
      /* The caller is told at once; events still come until the engine's end. */
      const abort = () => {
        reject(abortReason(signal))
        this.send({ id, abort: true }, [])
      }
      const settle = (/** @type {(value: any) => void} */ end) => (/** @type {any} */ value) => {
        signal?.removeEventListener('abort', abort)
        this.#calls.delete(id)
        if (this.#calls.size === 0) this.onBusy(false)
        end(value)
      }
      if (this.#calls.size === 0) this.onBusy(true)
      this.#calls.set(id, { event: onEvent, resolve: settle(resolve), reject: settle(reject) })
      signal?.addEventListener('abort', abort, { once: true })
      try {
        this.send({ id, call, args }, transfer)
      } catch (error) {
        this.#calls.get(id)?.reject(error)
      }
    })
  }

  /** @param {Answer} answer */
  receive(answer) {
    const call = this.#calls.get(answer.id)
    if (!call) return
    if ('event' in answer) call.event(answer.event)
    else if (answer.error) call.reject(fromRecord(answer.error))
    else call.resolve(answer.value)
  }

  /** The engine is gone: every call, begun or to come, ends with `error`. @param {Error} error */
  break(error) {
    this.#broken ??= error
    this.send = () => {}
    for (const call of [...this.#calls.values()]) call.reject(error)
  }
}

/**
 * @typedef {object} CallContext
 * @property {(event: any) => void} emit
 * @property {AbortSignal} signal
 */

/** The engine's end: answers requests by `calls`. A result's `bytes` go over to the caller uncopied.
 * @param {Record<string, (args: any[], context: CallContext) => any>} calls
 * @param {(answer: Answer, transfer: ArrayBuffer[]) => void} send
 * @returns {{ receive: (request: Request) => Promise<void>, abortAll: () => void }} */
export function serveCalls(calls, send) {
  /** @type {Map<number, AbortController>} */
  const running = new Map()

  /** @param {Request} request */
  async function receive(request) {
    const { id } = request
    if ('abort' in request) return running.get(id)?.abort()
    const controller = new AbortController()
    running.set(id, controller)
    const emit = (/** @type {any} */ event) => send({ id, event }, [])
    try {
      const value = await calls[request.call](request.args, { emit, signal: controller.signal })
      send({ id, value }, value?.bytes instanceof Uint8Array ? [value.bytes.buffer] : [])
    } catch (error) {
      send({ id, error: toRecord(error) }, [])
    } finally {
      running.delete(id)
    }
  }

  return { receive, abortAll: () => running.forEach((controller) => controller.abort()) }
}

/**
 * What went wrong, in a form that programs can test (`code`) and people can act on (`message`).
 * The codes are listed in nibl.d.ts; those that the C core reports are its own (core/nibl.h).
 */
export class NiblError extends Error {
  /**
   * @param {string} code
   * @param {string} message what is wrong, where, what to do
   * @param {{ status?: number, retryAfter?: number, cause?: unknown }} [detail] `status`: of an HTTP answer;
   *   `retryAfter`: the same may succeed later, not before this many milliseconds
   */
  constructor(code, message, { status, retryAfter, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'NiblError'
    this.code = code
    this.status = status
    this.retryAfter = retryAfter
  }
}

/** A file is not what was read of it: the load begins anew. */
export class FileChanged extends Error {}

/** What an aborted operation throws: the signal's own DOMException, else one named AbortError.
 * @param {AbortSignal} [signal] */
export function abortReason(signal) {
  const reason = signal?.reason
  return reason instanceof DOMException ? reason : new DOMException('The operation was aborted', 'AbortError')
}

/** @param {AbortSignal} [signal] */
export function throwIfAborted(signal) {
  if (signal?.aborted) throw abortReason(signal)
}

/** Waits for `promise`, but no longer than until `signal` aborts.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>} */
export function unlessAborted(promise, signal) {
  if (!signal) return promise
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortReason(signal))
    if (signal.aborted) abort()
    signal.addEventListener('abort', abort, { once: true })
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/**
 * @typedef {object} ErrorRecord an error as it crosses to another thread
 * @property {string} name
 * @property {string} message
 * @property {string} [code]
 * @property {number} [status]
 */

/** @param {unknown} error @returns {ErrorRecord} */
export function toRecord(error) {
  if (error instanceof NiblError) {
    return { name: error.name, message: error.message, code: error.code, status: error.status }
  }
  if (error instanceof Error || error instanceof DOMException) return { name: error.name, message: error.message }
  return { name: 'Error', message: String(error) }
}

/** @param {ErrorRecord} record @returns {Error | DOMException} */
export function fromRecord({ name, message, code, status }) {
  if (name === 'AbortError' || name === 'TimeoutError') return new DOMException(message, name)
  return new NiblError(code ?? 'INTERNAL', code ? message : `${name}: ${message}`, { status })
}

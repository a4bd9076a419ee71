/** Requests to `nibl serve`, good, bad, cut and aborted ones: a seed gives the same. */
import { connect } from 'node:net'

/** A story that no end token ends, streamed. @param {number} i @param {number} tokens */
export const completion = (i, tokens) => ({
  prompt: `Story ${i}. Once upon a time, in a land of ${['hills', 'lakes', 'woods', 'sand'][i % 4]}, there lived`,
  max_tokens: tokens,
  temperature: 0,
  stream: true,
  logit_bias: { 0: -100, 2: -100 },
})

/** @param {string} url of the server @param {number} seed
 * @returns {() => Promise<string>} makes one request; its status, or what ended it */
export function mixedRequests(url, seed) {
  let state = seed
  const random = (/** @type {number} */ n) => Math.floor((n * (state = (state * 48271) % 2147483647)) / 2147483647)
  const post = (/** @type {any} */ body, /** @type {any} */ init = undefined, path = 'completions') =>
    fetch(`${url}/v1/${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body), ...init })
  const kinds = [
    () => post({ ...completion(random(9), 1 + random(6)), stream: false }),
    () => post(completion(random(9), 1 + random(6))),
    () => post({ prompt: 'x'.repeat(random(4000)), max_tokens: 2 }),
    () => post({ prompt: 'a', max_tokens: -1 }),
    () => post({ prompt: ['a'], nonsense: 1 }),
    () => post({}, { body: '{"prompt": "cut' }),
    () => post({}, { body: 'x'.repeat(2 << 20) }),
    () => post({ ...completion(1, 3), model: 'other' }),
    () => post({ input: ['a', 'b'.repeat(1 + random(40))] }, undefined, 'embeddings'),
    () => post({ messages: [{ role: 'user', content: 'hi' }], max_tokens: 3, response_format: { type: 'json_object' } }, undefined, 'chat/completions'),
    () => fetch(`${url}/v1/${['models', 'nothing', 'chat', '..%2f'][random(4)]}`),
    () => post(completion(2, 100), { signal: AbortSignal.timeout(random(30)) }),
    async () => {
      const socket = connect(Number(new URL(url).port), '127.0.0.1')
      socket.on('error', () => {})
      socket.write('POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\n{"prompt":'.slice(0, 10 + random(90)))
      await new Promise((resolve) => setTimeout(resolve, random(20)))
      socket.destroy()
    },
  ]
  return async () => {
    try {
      const response = await kinds[random(kinds.length)]()
      await response?.text()
      return response ? String(response.status) : 'cut'
    } catch (error) {
      return /** @type {Error} */ (error).name
    }
  }
}

/** SHA-256 (FIPS 180-4) of bytes that come in pieces: what WebCrypto does not have. All numbers are words of 32 bits. */
import { isNode, nodeModule } from './platform.js'

/** The first 32 bits of the fractional part. @param {number} x */
const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0
const primes = [2]
for (let n = 3; primes.length < 64; n += 2) if (primes.every((prime) => n % prime)) primes.push(n)
const ROUND = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)))
const START = Int32Array.from(primes.slice(0, 8), (prime) => fraction(Math.sqrt(prime)))

class Portable {
  #state = START.slice()
  #words = new Int32Array(64)
  #block = new Uint8Array(64)
  #view = new DataView(this.#block.buffer)
  #length = 0

  /** @param {Uint8Array} bytes */
  update(bytes) {
    let at = 0
    while (at < bytes.length) {
      const used = this.#length % 64
      const part = bytes.subarray(at, at + 64 - used)
      this.#block.set(part, used)
      this.#length += part.length
      at += part.length
      if (used + part.length === 64) this.#compress()
    }
    return this
  }

  #compress() {
    const w = this.#words
    for (let i = 0; i < 16; i++) w[i] = this.#view.getInt32(4 * i)
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15]
      const y = w[i - 2]
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
      w[i] = w[i - 16] + s0 + w[i - 7] + s1
    }
    let [a, b, c, d, e, f, g, h] = this.#state
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUND[i] + w[i]) | 0
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
      h = g
      g = f
      f = e
      e = (d + t1) | 0
      d = c
      c = b
      b = a
      a = (t1 + t2) | 0
    }
    const s = this.#state
    s[0] += a
    s[1] += b
    s[2] += c
    s[3] += d
    s[4] += e
    s[5] += f
    s[6] += g
    s[7] += h
  }

  /** @param {'hex'} _ @returns {string} */
  digest(_) {
    const bits = 8 * this.#length
    const end = new Uint8Array(((this.#length + 8) % 64 < 8 || this.#length % 64 >= 56 ? 128 : 64) - (this.#length % 64))
    end[0] = 128
    const view = new DataView(end.buffer)
    view.setUint32(end.length - 8, Math.floor(bits / 2 ** 32))
    view.setUint32(end.length - 4, bits % 2 ** 32)
    this.update(end)
    return Array.from(this.#state, (word) => (word >>> 0).toString(16).padStart(8, '0')).join('')
  }
}

/** @param {boolean} [portable] not Node's own
 * @returns {{ update: (bytes: Uint8Array) => any, digest: (encoding: 'hex') => string }} */
export function sha256(portable = !isNode) {
  return portable ? new Portable() : nodeModule('node:crypto').createHash('sha256')
}

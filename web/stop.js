/**
 * Finds stop strings in a text that comes in pieces. A stop string may begin in one piece and end in another, so what
 * could be its beginning is held back; a stop string itself, and what follows it, never comes out.
 */
export class StopMatcher {
  #held = ''

  /** @param {string[]} stops not empty strings */
  constructor(stops) {
    this.stops = stops
  }

  /** Adds a piece; returns the text that may go out, and whether a stop string is complete.
   * @param {string} piece
   * @returns {{ text: string, stopped: boolean }} */
  push(piece) {
    const text = this.#held + piece
    const found = this.stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0)
    if (found.length) {
      this.#held = ''
      return { text: text.slice(0, Math.min(...found)), stopped: true }
    }
    const held = Math.max(0, ...this.stops.map((stop) => overlap(text, stop)))
    this.#held = text.slice(text.length - held)
    return { text: text.slice(0, text.length - held), stopped: false }
  }

  /** The text held back, once nothing follows. */
  end() {
    const text = this.#held
    this.#held = ''
    return text
  }
}

/** Length of the longest end of `text` that is a proper beginning of `stop`.
 * @param {string} text
 * @param {string} stop */
export function overlap(text, stop) {
  let length = Math.min(text.length, stop.length - 1)
  while (length > 0 && !text.endsWith(stop.slice(0, length))) length--
  return length
}

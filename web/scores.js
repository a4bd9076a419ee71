/** A text that one model scores, or two: the rows of logits of the other come in windows, the next one while one is compared.
 * Fetched where somebody asks. */

const WINDOW = 32 /* positions: 6 MB of logits where the vocabulary has 49,152 tokens */

/** @typedef {import('./protocol.js').Link} Link */

/**
 * @param {Link} link @param {Link | undefined} reference @param {number[]} tokens @param {number} first index of the first
 *   token that is scored @param {AbortSignal} [signal]
 * @returns {Promise<import('./nibl.d.ts').TokenScore[]>}
 */
export async function scoreText(link, reference, tokens, first, signal) {
  const last = tokens.length - 1
  const endOf = (/** @type {number} */ from) => Math.min(from + WINDOW, last)
  const rowsFrom = (/** @type {number} */ from) => {
    const rows = reference?.call('score', [{ tokens: tokens.slice(0, endOf(from)), from }], { signal })
    rows?.catch(() => {})
    return rows
  }
  const scores = []
  let coming = rowsFrom(first - 1)
  for (let from = first - 1; from < last; from = endOf(from)) {
    const end = endOf(from)
    const rows = await coming
    if (end < last) coming = rowsFrom(end)
    const request = { tokens: tokens.slice(0, end), from, next: tokens.slice(from + 1, end + 1), reference: rows }
    for (const [logprob, topLogprob, top, ...other] of await link.call('score', [request], { signal })) {
      const compared = other.length ? { reference: { logprob: other[0], topLogprob: other[1], top: other[2] }, kl: other[3] } : {}
      scores.push({ logprob, topLogprob, top, ...compared })
    }
  }
  return scores
}

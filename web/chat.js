/** Conversations as the model's own Jinja template writes them. */
import { NiblError } from './errors.js'

/**
 * Loaded only when a conversation is given. Bundlers and Node find the package by its name; a page without a bundler
 * says in an import map where it lies:
 *   <script type="importmap">{ "imports": { "@huggingface/jinja": "/where/jinja/index.js" } }</script>
 * Import maps do not reach workers, so templates run on the caller's side.
 */
async function importJinja() {
  try {
    return await import('@huggingface/jinja')
  } catch (cause) {
    throw new NiblError(
      'MISSING_DEPENDENCY',
      'Messages need the package @huggingface/jinja: install it, or name its file in the import map of the page.',
      { cause },
    )
  }
}

/** @typedef {{ chatTemplate: string | null, bosToken: string, eosToken: string }} Template */

/**
 * @param {Template} template
 * @param {{ role: string, content: any }[]} messages
 * @param {any[]} [tools] as OpenAI has them, for templates that know them
 * @returns {Promise<string>} the prompt, up to where the assistant's answer begins
 */
export async function renderChat({ chatTemplate, bosToken, eosToken }, messages, tools = []) {
  if (!messages.length || !messages.every((message) => typeof message?.role === 'string' && 'content' in message)) {
    throw new NiblError('BAD_ARGUMENT', 'Messages are objects with "role" and "content", one at least.')
  }
  if (!chatTemplate) {
    throw new NiblError('UNSUPPORTED_MODEL', 'This model has no chat template. Give a string as the prompt.')
  }
  const { Template } = await importJinja()
  try {
    return new Template(chatTemplate).render({
      messages,
      ...(tools.length && { tools }),
      add_generation_prompt: true,
      bos_token: bosToken,
      eos_token: eosToken,
    })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : cause
    throw new NiblError('BAD_ARGUMENT', `The model's chat template refuses these messages: ${reason}`, { cause })
  }
}

/** Tokens left free for an answer whose length is not limited, at most a quarter of the context. */
const ROOM = 64

/**
 * Leaves out the oldest turns, a question with its answers, until the rest and an answer fit the context: a quarter of it
 * at a time, so that what is left stays the same for some turns, and with it what is computed of it. The first `kept` messages and the
 * last question stay. What is left may still be too long.
 * @template {{ role: string }} Turn
 * @param {Turn[]} messages @param {number} kept
 * @param {{ count: (messages: Turn[]) => Promise<number>, contextLength: number, answer?: number }} model `answer`: tokens
 * @returns {Promise<{ messages: Turn[], dropped: number, used: number }>} `used`: tokens
 */
export async function makeRoom(messages, kept, { count, contextLength, answer = Infinity }) {
  const quarter = Math.max(1, Math.floor(contextLength / 4))
  const room = contextLength - (Number.isFinite(answer) ? Math.min(answer, contextLength / 2) : Math.min(ROOM, quarter))
  const all = await count(messages)
  const most = all - Math.ceil((all - room) / quarter) * quarter
  const last = messages.findLastIndex(({ role }) => role === 'user')
  let [left, used, dropped] = [messages, all, 0]
  while (all > room && used > Math.max(most, 1)) {
    let next = kept + dropped + 1
    while (next < messages.length && messages[next].role !== 'user') next++
    if (next > last) break
    dropped = next - kept
    left = [...messages.slice(0, kept), ...messages.slice(next)]
    used = await count(left)
  }
  return { messages: left, dropped, used }
}

/** The messages in front that no overflow drops. @param {{ role: string }[]} messages */
export function systemMessages(messages) {
  const first = messages.findIndex(({ role }) => role !== 'system' && role !== 'developer')
  return first < 0 ? messages.length : first
}

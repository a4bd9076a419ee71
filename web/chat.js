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

/** The little Markdown that models write, as DOM nodes: paragraphs, headings, lists, code, bold, italics. Text only ever
 * becomes text nodes; what is not understood is shown as it is. */

/** @param {string} text @returns {DocumentFragment} */
export function renderMarkdown(text) {
  const out = document.createDocumentFragment()
  let block = /** @type {HTMLElement | null} */ (null)
  /** @param {string} tag */
  const open = (tag) => {
    block = document.createElement(tag)
    out.append(block)
    return block
  }
  const lines = text.split('\n')
  for (let index = 0; index < lines.length; index++) {
    const line = lines[index]
    const heading = /^#{1,6}\s+(.*)$/.exec(line)
    const item = /^\s*(?:[-*+]|(\d+)[.)])\s+(.*)$/.exec(line)
    if (/^\s*```/.test(line)) {
      const end = lines.findIndex((other, at) => at > index && /^\s*```\s*$/.test(other))
      const code = lines.slice(index + 1, end < 0 ? undefined : end).join('\n')
      open('pre').append(element('code', code))
      block = null
      index = end < 0 ? lines.length : end
    } else if (line.trim() === '') {
      if (block && block.tagName === 'P') block = null
    } else if (heading) {
      inline(open('h3'), heading[1])
      block = null
    } else if (item) {
      const tag = item[1] ? 'ol' : 'ul'
      const list = block?.tagName === tag.toUpperCase() ? block : open(tag)
      if (item[1] && !list.childNodes.length) list.setAttribute('start', item[1])
      inline(list.appendChild(document.createElement('li')), item[2])
    } else {
      const paragraph = block?.tagName === 'P' ? block : open('p')
      if (paragraph.childNodes.length) paragraph.append('\n')
      inline(paragraph, line)
    }
  }
  return out
}

/** @param {string} tag @param {string} text */
function element(tag, text) {
  const node = document.createElement(tag)
  node.textContent = text
  return node
}

const marks = /(`[^`]+`)|(\*\*[^*]+\*\*)|(\*[^*\s][^*]*\*)/

/** @param {HTMLElement} parent @param {string} text */
function inline(parent, text) {
  for (let rest = text; rest; ) {
    const match = marks.exec(rest)
    if (!match) return void parent.append(rest)
    const [whole, code, bold] = match
    const width = bold ? 2 : 1
    parent.append(rest.slice(0, match.index))
    parent.append(element(code ? 'code' : bold ? 'strong' : 'em', whole.slice(width, -width)))
    rest = rest.slice(match.index + whole.length)
  }
}

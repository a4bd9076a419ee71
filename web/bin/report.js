/** `npx nibl report FILE.json ... -o OUT.html`: what `nibl quantize --report` and `nibl eval --json` wrote, as a page. */
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { mergeReport, reportHtml } from '../report.js'

const usage = `usage: nibl report FILE.json [FILE.json ...] -o OUT.html
  FILE.json          of \`nibl quantize --report\` and of \`nibl eval --json\`, of one model
  -o, --output FILE  the page, one file that needs nothing else (-: standard output)`

/** One JSON document, or one a line. @param {string} path @returns {any[]} */
function readParts(path) {
  const text = readFileSync(path === '-' ? 0 : path, 'utf8')
  try {
    return [JSON.parse(text)]
  } catch {
    return text.split('\n').filter((line) => line.trim()).map((line, index) => {
      try {
        return JSON.parse(line)
      } catch (error) {
        throw new Error(`${path}, line ${index + 1}: ${/** @type {Error} */ (error).message}`)
      }
    })
  }
}

/** @param {string[]} args @returns {number} exit status */
export function main(args) {
  /** @type {{ values: Record<string, any>, positionals: string[] }} */
  let parsed
  try {
    parsed = parseArgs({ args, options: { output: { type: 'string', short: 'o' }, help: { type: 'boolean', short: 'h' } }, allowPositionals: true })
    if (!parsed.values.help && (!parsed.values.output || !parsed.positionals.length)) throw new Error('name the files, and the page with -o')
  } catch (error) {
    process.stderr.write(`nibl: ${/** @type {Error} */ (error).message}\n${usage}\n`)
    return 2
  }
  const { values, positionals } = parsed
  if (values.help) {
    console.log(usage)
    return 0
  }
  try {
    const html = reportHtml(mergeReport(positionals.flatMap(readParts)))
    if (values.output === '-') process.stdout.write(html)
    else writeFileSync(values.output, html)
    return 0
  } catch (error) {
    process.stderr.write(`nibl: ${/** @type {Error} */ (error).message}\n`)
    return 1
  }
}

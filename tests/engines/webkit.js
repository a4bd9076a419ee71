/**
 * A page in Debian's WebKitGTK, through WebDriver (https://www.w3.org/TR/webdriver2/), on a screen of its own.
 * Playwright's WebKit is a build of its own and not what people run; this one only needs a few commands.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'

const patience = 60000
async function freePort() {
  const server = createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)))
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address())
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A screen; the server chooses its number and tells it. @param {{ after: (fn: () => any) => void }} t */
async function openScreen(t) {
  const child = spawn('Xvfb', ['-displayfd', '3', '-screen', '0', '1280x800x24', '-nolisten', 'tcp'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] })
  t.after(() => child.kill())
  const lines = createInterface({ input: /** @type {import('node:stream').Readable} */ (child.stdio[3]) })
  const [number] = await once(lines, 'line')
  return `:${number}`
}

/** Debian keeps it below the folder of the machine's architecture. */
function miniBrowser() {
  const files = readdirSync('/usr/lib').flatMap((name) => ['4.1', '4.0'].map((api) => `/usr/lib/${name}/webkit2gtk-${api}/MiniBrowser`))
  return files.find((file) => existsSync(file))
}

/** @param {import('node:events').EventEmitter} emitter @param {string} name @returns {Promise<any[]>} */
const once = (emitter, name) => new Promise((resolve) => emitter.once(name, (...values) => resolve(values)))

/** One page, closed behind the test. @type {import('./engines.test.js').Open} */
export async function openPage(t, url) {
  const port = await freePort()
  const binary = miniBrowser()
  assert.ok(binary, "Debian's libwebkit2gtk-4.1-0 has brought no MiniBrowser")
  const driver = spawn('WebKitWebDriver', [`--port=${port}`], {
    stdio: 'ignore',
    env: {
      ...process.env,
      DISPLAY: await openScreen(t),
      WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1',
      WEBKIT_DISABLE_COMPOSITING_MODE: '1',
    },
  })
  t.after(() => driver.kill())

  /** @param {string} method @param {string} command @param {any} [body] */
  async function send(method, command, body) {
    const response = await fetch(`http://127.0.0.1:${port}/session${command}`, { method, body: body && JSON.stringify(body) })
    const { value } = await response.json()
    if (!response.ok) throw new Error(`WebDriver: ${value.error}: ${value.message}`)
    return value
  }

  const options = { 'webkitgtk:browserOptions': { binary, args: ['--automation'] } }
  const created = await untilUp(() => send('POST', '', { capabilities: { alwaysMatch: options } }))
  const session = `/${created.sessionId}`
  t.after(() => send('DELETE', session).catch(() => {}))
  await send('POST', `${session}/timeouts`, { script: 2 * patience })
  await send('POST', `${session}/url`, { url })
  return {
    version: `${created.capabilities.browserName} ${created.capabilities.browserVersion}`,
    async evaluate(/** @type {Function} */ work, /** @type {any} */ argument) {
      const script = `const done = arguments[1];
        Promise.resolve((${work})(arguments[0])).then((value) => done({ value }), (error) => done({ error: String(error) }))`
      const result = await send('POST', `${session}/execute/async`, { script, args: [argument ?? null] })
      if (result.error) throw new Error(`in the page: ${result.error}`)
      return result.value
    },
    async screenshot() {
      return Buffer.from(await send('GET', `${session}/screenshot`), 'base64')
    },
  }
}

/** The driver takes a moment until it listens. @template T @param {() => Promise<T>} work */
async function untilUp(work) {
  const end = Date.now() + patience
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof TypeError) || Date.now() > end) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

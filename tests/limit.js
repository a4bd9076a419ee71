/** Comes before a test file (run.js): ends one that hangs, and says in which test. What a test may take is NIBL_TEST_SECONDS. */
import { afterEach, beforeEach } from 'node:test'
import { Worker, isMainThread } from 'node:worker_threads'

const seconds = Number(process.env.NIBL_TEST_SECONDS ?? 0)

/* A thread of its own: that of the tests may be waiting for a program. */
const script = `
  const { writeSync } = require('node:fs')
  let timer
  require('node:worker_threads').parentPort.on('message', (name) => {
    clearTimeout(timer)
    if (!name) return
    timer = setTimeout(() => {
      writeSync(2, \`HANGS: '\${name}' of ${process.argv[1]} has not ended after ${seconds} s; what follows it is not run\\n\`)
      process.kill(process.pid, 'SIGKILL')
    }, ${1000 * seconds})
  })`

/* Only where the file itself runs, not in the process that runs the files. */
if (isMainThread && seconds && process.env.NODE_TEST_CONTEXT) {
  const watch = new Worker(script, { eval: true, execArgv: [] })
  watch.unref()
  beforeEach((test) => watch.postMessage('name' in test ? test.name : '?'))
  afterEach(() => watch.postMessage(''))
}

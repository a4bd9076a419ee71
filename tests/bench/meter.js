// What the machine did while something ran: processor time of this program's processes, that of everybody else, memory
// and energy. Linux only; elsewhere the figures are missing.

import * as fs from 'node:fs'

/** Kernel ticks per second in /proc, the same on every Linux that Node runs on. */
const ticks = 100
const powercap = '/sys/class/powercap'

/** @param {string} file @returns {string} '' when it cannot be read */
function text(file) {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}

/** @typedef {{ parent: number, own: number, all: number }} Process  seconds: its own, and with its ended children */

/** @returns {Map<number, Process>} */
function processes() {
  const found = new Map()
  if (!fs.existsSync('/proc/self/stat')) return found
  for (const name of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const stat = text(`/proc/${name}/stat`)
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const [user, system, childUser, childSystem] = fields.slice(11, 15).map((value) => Number(value) / ticks)
    const own = user + system
    if (stat) found.set(Number(name), { parent: Number(fields[1]), own, all: own + childUser + childSystem })
  }
  return found
}

/** This process and all below it. @param {Map<number, Process>} all @returns {number[]} */
function tree(all) {
  const members = [process.pid]
  for (const member of members) {
    for (const [pid, { parent }] of all) if (parent === member) members.push(pid)
  }
  return members
}

/** Microjoules of the processor packages, 0 where they cannot be read. */
function energy() {
  if (!fs.existsSync(powercap)) return 0
  const packages = fs.readdirSync(powercap).filter((name) => /^intel-rapl:\d+$/.test(name))
  return packages.reduce((sum, name) => sum + Number(text(`${powercap}/${name}/energy_uj`)), 0)
}

/** @typedef {{ ms: number, ours: number, self: number, busy: number, microjoules: number }} Reading */

/** Seconds of processor time so far: of this program with all below it, of this process alone, of the whole machine with
 * what the hypervisor took away. @returns {Reading} */
export function read() {
  const all = processes()
  const ours = tree(all).reduce((sum, pid) => sum + (all.get(pid)?.all ?? 0), 0)
  const [user, nice, system, , , irq, softirq, steal] = text('/proc/stat').split('\n')[0].split(/ +/).slice(1).map(Number)
  const busy = (user + nice + system + irq + softirq + steal) / ticks
  return { ms: performance.now(), ours, self: all.get(process.pid)?.own ?? 0, busy, microjoules: energy() }
}

/**
 * @typedef {object} Since
 * @property {number} seconds
 * @property {number} cpu         processor seconds of the processes below this one
 * @property {number} others      cores that other programs and the hypervisor took
 * @property {boolean} disturbed  that was more than a tenth of a core; below two ticks nothing can be told
 * @property {number} [joules]
 */

/** @param {Reading} before @returns {Since} */
export function since(before) {
  const now = read()
  const seconds = (now.ms - before.ms) / 1e3
  const ours = now.ours - before.ours
  const foreign = Math.max(0, now.busy - before.busy - ours)
  const joules = (now.microjoules - before.microjoules) / 1e6
  return {
    seconds,
    cpu: Math.max(0, ours - (now.self - before.self)),
    others: foreign / seconds,
    disturbed: foreign > 0.1 * seconds + 2 / ticks,
    ...(joules > 0 && { joules }),
  }
}

/** Bytes that the processes below this one hold, what they share divided among them. */
export function memory() {
  const below = tree(processes()).slice(1)
  const sizes = below.map((pid) => Number(/^Pss:\s+(\d+)/m.exec(text(`/proc/${pid}/smaps_rollup`))?.[1] ?? 0))
  return sizes.reduce((sum, size) => sum + size, 0) * 1024
}

/** The most memory a process had so far, bytes. @param {number} pid */
export const peakMemory = (pid) => Number(/^VmHWM:\s+(\d+)/m.exec(text(`/proc/${pid}/status`))?.[1] ?? 0) * 1024

/**
 * Which of the binaries this engine can run: {simd128, relaxed} x {one thread, threads, 64-bit memory}. The last has
 * threads as well: it runs as one thread where there must not be more.
 * Validating a module only says that the engine knows an instruction. The relaxed dot product is also executed, with
 * operands that share a register with the accumulator, since an engine is known that computes exactly that wrongly;
 * and as a passed test tells nothing about the engine's other compiler tier, known bad versions are named as well.
 */
import { NiblError } from './errors.js'
import { isNode, nodeModule } from './platform.js'

/** @param {string} hex */
const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16))

/* (module (func (result v128) (v128.not (i8x16.popcnt (i8x16.splat (i32.const 0)))))) */
const simdModule = bytes('0061736d010000000105016000017b03020100' + '0a0c010a004100fd0ffd62fd4d0b')

/* (module
     (func (export "test") (param $n i32) (result i32)
       (local $acc v128) (local $x v128) (local $y v128)
       (loop $again
         (local.set $x (v128.const i8x16 -128 127 -1 1 -100 100 -77 77 -3 5 -7 11 -13 17 -19 23))
         (local.set $y (v128.const i8x16 127 127 0 1 100 99 77 76 15 8 7 3 63 31 64 2))
         (local.set $acc (i32x4.relaxed_dot_i8x16_i7x16_add_s (local.get $x) (local.get $y) (local.get $acc)))
         (local.set $acc (i32x4.relaxed_dot_i8x16_i7x16_add_s (local.get $acc) (local.get $y) (local.get $acc)))
         (local.set $x (i32x4.relaxed_dot_i8x16_i7x16_add_s (local.get $x) (local.get $y) (local.get $x)))
         (local.set $acc (i32x4.add (local.get $acc) (local.get $x)))
         (local.set $y (i32x4.relaxed_dot_i8x16_i7x16_add_s (local.get $x) (local.get $y) (local.get $y)))
         (local.set $acc (v128.xor (local.get $acc) (local.get $y)))
         (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
       (i32.add
         (i32.add (i32x4.extract_lane 0 (local.get $acc)) (i32x4.extract_lane 1 (local.get $acc)))
         (i32.add (i32x4.extract_lane 2 (local.get $acc)) (i32x4.extract_lane 3 (local.get $acc)))))) */
const relaxedModule = bytes(
  '0061736d0100000001060160017f017f03020100070801047465737400000a8f01018c0101037b0340' +
    'fd0c807fff019c64b34dfd05f90bf311ed172102fd0c7f7f000164634d4c0f0807033f1f40022103' +
    '200220032001fd93022101200120032001fd93022101200220032002fd9302210220012002fdae012101' +
    '200220032003fd9302210320012003fd512101200041016b22000d000b' +
    '2001fd1b002001fd1b016a2001fd1b022001fd1b036a6a0b',
)
const relaxedResults = [
  [1, 564707409],
  [3, -1990884784],
  [1000, 1061781175],
]

/** Why this engine's version is not trusted with relaxed SIMD, or ''. V8 before 11.4: its baseline compiler overwrites
 * an operand of the relaxed dot product on machines with AVX-VNNI.
 * @param {string} [v8] as in process.versions
 * @param {string} [userAgent] */
export function knownBad(v8 = '', userAgent = '') {
  const chromium = /Chrom(?:e|ium)\/(\d+)/.exec(userAgent)
  const version = v8 ? parseFloat(v8) * 10 : chromium ? Number(chromium[1]) : Infinity
  return version < 114 ? `V8 ${(version / 10).toFixed(1)} is known to compute it wrongly` : ''
}

/** Why relaxed SIMD cannot be used here, or ''. */
function relaxedFault() {
  const fault = knownBad(globalThis.process?.versions?.v8, globalThis.navigator?.userAgent)
  if (!WebAssembly.validate(relaxedModule)) return 'the engine does not have it'
  if (fault) return fault
  const instance = new WebAssembly.Instance(new WebAssembly.Module(relaxedModule))
  const test = /** @type {(n: number) => number} */ (instance.exports.test)
  return relaxedResults.every(([n, result]) => test(n) === result) ? '' : 'its self-test failed here'
}

/* (module (memory i64 1 1 shared)) */
const memory64Module = bytes('0061736d01000000' + '0504' + '01070101')

const isolationAdvice =
  'send the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp ' +
  'with the page, and Cross-Origin-Resource-Policy: cross-origin with what it takes from other origins'

/** GiB that this device says it has, 8 or more as 8; Infinity where it does not tell. */
export const deviceMemory = () => /** @type {any} */ (globalThis.navigator)?.deviceMemory ?? Infinity

/** Half of the logical processors, as their pairs share one core's arithmetic: 2 to 8 where there are two at all. */
function defaultThreads() {
  const processors = isNode ? nodeModule('node:os').availableParallelism() : navigator.hardwareConcurrency || 1
  return Math.min(8, Math.max(Math.min(2, processors), Math.floor(processors / 2)))
}

/**
 * @typedef {object} Choice
 * @property {'simd128' | 'relaxed'} simd
 * @property {number} threads
 * @property {string} binary 'relaxed-threads' and the like: of binaries.js
 * @property {string} why
 * @property {string} advice what the page should change, or ''
 */

/**
 * @param {{ binary?: string, threads?: number, inProcess?: boolean }} wanted
 * @returns {Choice}
 */
export function chooseBinary({ binary, threads, inProcess }) {
  if (typeof WebAssembly !== 'object' || !WebAssembly.validate(simdModule)) {
    throw new NiblError('UNSUPPORTED_ENGINE', 'This browser has no WebAssembly SIMD. Any browser since 2023 has.')
  }
  const fault = binary === 'simd128' ? 'not asked for' : relaxedFault()
  if (binary === 'relaxed' && fault) {
    throw new NiblError('UNSUPPORTED_ENGINE', `The relaxed binary cannot be used: ${fault}. Leave out "binary".`)
  }
  const simd = fault ? 'simd128' : 'relaxed'
  const why = [fault ? `no relaxed SIMD: ${fault}` : 'relaxed SIMD: validated and self-tested']

  let count = threads ?? defaultThreads()
  let advice = ''
  if (count > 1 && inProcess) {
    count = 1
    why.push('one thread: worker is false')
  } else if (count > 1 && !isNode && !globalThis.crossOriginIsolated) {
    count = 1
    why.push('one thread: the page is not cross-origin isolated')
    advice = `nibl: one thread, as the page is not cross-origin isolated; for more, ${isolationAdvice}.`
  } else if (count > 1 && threads === undefined && deviceMemory() <= 1) {
    count = 1
    why.push(`one thread: the device has ${deviceMemory()} GiB of memory`)
  } else if (count > 1 && typeof SharedArrayBuffer === 'undefined') {
    /* WebKitGTK calls such a page isolated; threads would be waited for without end. */
    count = 1
    why.push('one thread: the engine has no shared memory')
  } else {
    why.push(count === 1 ? 'one thread' : `${count} threads`)
  }
  return { simd, threads: count, binary: count > 1 ? `${simd}-threads` : simd, why: why.join('; '), advice }
}

/** The choice for a model that 32-bit memory does not hold. @param {Choice} choice @param {number} bytes needed
 * @returns {Choice} */
export function chooseLarger(choice, bytes) {
  const needed = `the model needs ${Math.ceil(bytes / 2 ** 20)} MB`
  if (!WebAssembly.validate(memory64Module)) {
    throw new NiblError(
      'OUT_OF_MEMORY',
      `${needed[0].toUpperCase()}${needed.slice(1)}; 32-bit WebAssembly memory holds 4096 MB, and this engine has no ` +
        '64-bit memory (Chrome 133, Firefox 134 and Node 24 have). Take a smaller model or a shorter contextLength.',
    )
  }
  return { ...choice, binary: `${choice.simd}-memory64`, why: `${choice.why}; 64-bit memory: ${needed}` }
}

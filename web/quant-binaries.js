/** The binaries with the quantizer, for quantize() and fit(): the others are smaller without it. */

/** @type {import('./binaries.js').Kind} */
export const quantBinaries = {
  suffix: '-quant',
  files: {
    simd128: {
      wasm: () => new URL('./dist/nibl-simd128-quant.wasm', import.meta.url),
      glue: () => import('./dist/nibl-simd128-quant.js'),
    },
    'simd128-threads': {
      wasm: () => new URL('./dist/nibl-simd128-threads-quant.wasm', import.meta.url),
      glue: () => import('./dist/nibl-simd128-threads-quant.js'),
    },
    relaxed: {
      wasm: () => new URL('./dist/nibl-relaxed-quant.wasm', import.meta.url),
      glue: () => import('./dist/nibl-relaxed-quant.js'),
    },
    'relaxed-threads': {
      wasm: () => new URL('./dist/nibl-relaxed-threads-quant.wasm', import.meta.url),
      glue: () => import('./dist/nibl-relaxed-threads-quant.js'),
    },
  },
}

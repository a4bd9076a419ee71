#define ISA wasmsimd
#define W 4
#include "kernels/float.inc"

#define ISA neon
#define W 4
#include "kernels/quant.inc"

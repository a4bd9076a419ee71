#define ISA neon
#define W 4
#include "kernels/float.inc"

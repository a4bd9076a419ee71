#define ISA dotprod
#define W 4
#include <arm_neon.h>

#define DOT(acc, u, s) ((vi)vdotq_s32((int32x4_t)(acc), (int8x16_t)(u), (int8x16_t)(s)))
#include "kernels/attention.inc"

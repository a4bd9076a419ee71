/* Rows of floats to the blocks of a file type, and back: by the type's reference rule, or by a search for the scales that
 * lose least. */
#ifndef NIBL_ENCODE_H
#define NIBL_ENCODE_H

#include "core/dtype.h"
#include "kernels/kernels.h"

/* The type of that name, in any case; NULL where there is none or rows cannot be encoded to it. */
const nibl_dtype *nibl_encode_type(const char *name);

/* NIBL_E_ARGUMENT: there is no such type; names those there are. */
nibl_status nibl_fail_encode_type(const char *name);

/* `from` is F32, F16 or BF16; `count` elements, little-endian and unaligned. False where a value is infinite or NaN. */
bool nibl_decode_floats(const nibl_dtype *from, const uint8_t *row, uint32_t count, float *out);

/* The same of any type; `panel` is room for a panel of packed ones (nibl_panel_bytes). */
bool nibl_decode_row(const nibl_kernels *kernels, const nibl_dtype *from, const uint8_t *row, uint32_t count,
                     uint8_t *panel, float *out);

/* `count` finite values, a multiple of to->block. Without `search`, types that have a reference rule follow it, with the
 * bits of gguf.quants; otherwise the scales are searched that make the sum of weights[i] (decoded - x)^2 small, and never
 * larger than the rule's. `weights` (count, positive; NULL = all alike) is for the search only. False where the type
 * cannot hold values so large. */
bool nibl_encode_values(const nibl_kernels *kernels, const nibl_dtype *to, const float *x,
                        const float *weights, uint32_t count, bool search, uint8_t *out);

/* Both in turn, by the rule: what "quantize on arrival" does. */
bool nibl_encode_row(const nibl_kernels *kernels, const nibl_dtype *to, const nibl_dtype *from,
                     const uint8_t *row, uint32_t count, uint8_t *out);

#endif

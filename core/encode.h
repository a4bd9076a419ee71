/* Rows of 16- or 32-bit floats to the blocks of a file type, as its reference does it. */
#ifndef NIBL_ENCODE_H
#define NIBL_ENCODE_H

#include "core/dtype.h"

/* The type of that name, in any case, if rows can be encoded to it; else NULL. */
const nibl_dtype *nibl_encode_type(const char *name);

/* `from` is F32, F16 or BF16; `count` elements, a multiple of to->block, little-endian and unaligned. False where a
 * value is infinite or NaN; the result is then undefined. */
bool nibl_encode_row(const nibl_dtype *to, const nibl_dtype *from, const uint8_t *row, uint32_t count,
                     uint8_t *out);

#endif

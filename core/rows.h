/* Where a row (or number) of a file goes whose order is another than that of the packed matrix. */
#ifndef NIBL_ROWS_H
#define NIBL_ROWS_H

#include <stdint.h>

/* i and i + halves / 2 of every `halves` rows (a head) become its 2 i and 2 i + 1; halves 0: rows stay. */
static inline uint32_t nibl_row_interleaved(uint32_t halves, uint32_t i) {
    if (halves == 0) return i;
    const uint32_t within = i % halves, half = halves / 2;
    return i - within + (within < half ? 2 * within : 2 * (within - half) + 1);
}

/* Even ones stand before all odd ones. */
static inline uint32_t nibl_row_parted(uint32_t rows, uint32_t i) { return i % 2 * (rows / 2) + i / 2; }

#endif

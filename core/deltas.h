/*
 * Generated tables in the order of code points, as differences of neighbours in 7 bits a byte: a page downloads a third of
 * the bytes. Every 32nd entry is a beginning, from where the others are counted.
 */
#ifndef NIBL_DELTAS_H
#define NIBL_DELTAS_H

#include "core/base.h"

enum { NIBL_DELTA_EVERY = 32 };

/* Entries with a code point and the offset of their bytes. */
typedef const uint32_t (*nibl_delta_starts)[2];

static inline uint32_t nibl_delta_read(const uint8_t **p) {
    uint32_t x = 0;
    for (int shift = 0;; shift += 7) {
        const uint8_t byte = *(*p)++;
        x |= (uint32_t)(byte & 127) << shift;
        if (byte < 128) return x;
    }
}

/* Of a difference with a sign. */
static inline uint32_t nibl_delta_signed(const uint8_t **p) {
    const uint32_t x = nibl_delta_read(p);
    return x & 1 ? 0 - (x / 2 + 1) : x / 2;
}

/* The last of `count` beginnings that is not behind `code`; the first one where all are. */
static inline size_t nibl_delta_start(nibl_delta_starts starts, size_t count, uint32_t code) {
    size_t low = 0, high = count;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        *(starts[middle][0] <= code ? &low : &high) = middle;
    }
    return low;
}

/* Entries from a beginning to the next: its code point, and where their bytes are. */
typedef struct nibl_delta_block {
    uint32_t code;
    const uint8_t *p, *stop;
} nibl_delta_block;

/* The one that `code` belongs to, of a table of so many bytes. */
static inline nibl_delta_block nibl_delta_find(const uint8_t *bytes, size_t length, nibl_delta_starts starts,
                                               size_t count, uint32_t code) {
    const size_t start = nibl_delta_start(starts, count, code);
    return (nibl_delta_block){starts[start][0], bytes + starts[start][1],
                              bytes + (start + 1 < count ? starts[start + 1][1] : length)};
}
#define NIBL_DELTA_FIND(table, code)                                                                         \
    nibl_delta_find(table, sizeof table, table##_starts, sizeof table##_starts / sizeof *table##_starts, code)

/* The value of the run that `code` is in: runs of code point << bits | value, the first one from 0 on. */
static inline uint32_t nibl_delta_run(nibl_delta_block at, uint32_t code, int bits) {
    uint32_t value = 0;
    while (at.p < at.stop) {
        const uint32_t x = nibl_delta_read(&at.p);
        at.code += x >> bits;
        if (at.code > code) break;
        value = x & ((1u << bits) - 1);
    }
    return value;
}

#endif

/* Which byte ranges of a model's files are wanted, and which have arrived: the part of the push loader that knows
 * offsets and rows but no format and no model. */
#ifndef NIBL_SOURCE_H
#define NIBL_SOURCE_H

#include "core/gguf.h"

#define NIBL_SOURCE_MAX_RANGE (8 << 20)

/* A tensor of the file; tensors do not overlap. */
typedef struct nibl_source_item {
    uint64_t offset; /* an address (nibl.h): of a file, and in it */
    uint64_t row_bytes, rows; /* at least 1; offset + row_bytes * rows is at most NIBL_MAX_FILE of the file */
    nibl_slice name; /* for messages; not copied */
} nibl_source_item;

/* Takes the next `count` rows of `item`, at least one; rows of an item come in ascending order, unaligned. */
typedef nibl_status (*nibl_source_taker)(void *context, size_t item, const uint8_t *rows, size_t count);

typedef struct nibl_source nibl_source;

/* `items` in the order of need; copied. */
nibl_status nibl_source_new(const nibl_source_item *items, size_t count, nibl_source_taker take,
                            void *context, nibl_source **out);
void nibl_source_free(nibl_source *source); /* NULL is legal; calls nobody */

/* From now on items are taken one after the other, in the order of need: what comes before its turn is ignored, and wanted
 * again. */
void nibl_source_in_order(nibl_source *source);

/* Items from this one on, by the order of need, are not wanted now: their bytes are ignored, and wanted again. */
void nibl_source_limit(nibl_source *source, size_t item);

/* Items from this one on, by the order of need, are taken and wanted again from their beginning. */
void nibl_source_rewind(nibl_source *source, size_t item);

/* Items from `first` to before `end` count as taken. */
void nibl_source_skip(nibl_source *source, size_t first, size_t end);

bool nibl_source_complete(const nibl_source *source);
void nibl_source_progress(const nibl_source *source, uint64_t *arrived, uint64_t *total); /* bytes */

/* The range to fetch next, at most NIBL_SOURCE_MAX_RANGE bytes, of items taken in order all that stand so behind each other;
 * *length 0 when all has arrived. It begins
 * with what is needed first, or little before it, and goes on with what the file has behind as long as
 * that is needed soon. *length is 0 also where only items behind the limit are missing. */
void nibl_source_want(const nibl_source *source, uint64_t *offset, uint64_t *length);

/* Takes the bytes at `offset`; offset + length must not overflow. What nobody needs is ignored. NIBL_OK:
 * all has arrived; NIBL_NEED_DATA; NIBL_E_ARGUMENT for a gap within an item; the taker's errors. */
nibl_status nibl_source_feed(nibl_source *source, uint64_t offset, const uint8_t *bytes, size_t length);

/* A file ends at the address `end`: NIBL_E_TRUNCATED names its first item with missing bytes beyond. Else as
 * feed. */
nibl_status nibl_source_check_end(const nibl_source *source, uint64_t end);

#endif

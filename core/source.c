/* Each item is one piece of the file, taken in ascending order: whole rows go from the caller's buffer
 * straight to their taker, at most one row per item is staged where a chunk cuts it. Pieces stand in file
 * order to find whose bytes arrive; `order` lists them in the order of need to say what to fetch next. */
#include "core/source.h"

#include <stdlib.h>
#include <string.h>

enum {
    RANGE_MAX = NIBL_SOURCE_MAX_RANGE,
    BEHIND_MAX =
        16
        << 20, /* what stands behind the piece needed first joins its range if needed within so many bytes, */
    AHEAD_MAX = 1 << 20, /* what stands before it, and so delays it, within so many */
    GAP_MAX = 64 << 10 /* padding and unneeded bytes up to this are cheaper to read than to ask around */
};

typedef struct piece {
    uint64_t begin, end; /* in the file */
    uint64_t next; /* first byte not taken */
    uint64_t row_bytes;
    nibl_slice name;
    uint32_t rank; /* index of the item: the order of need */
    uint8_t *partial; /* the row at hand, where a chunk cut it; else NULL */
} piece;

struct nibl_source {
    nibl_source_taker take;
    void *context;
    piece *pieces;
    uint32_t *order; /* by rank: index in pieces */
    size_t count;
    size_t needed; /* lowest rank that has not arrived */
    bool in_order;
    size_t limit; /* ranks from here on are not taken */
    uint64_t arrived, total;
};

static int compare_pieces(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

nibl_status nibl_source_new(const nibl_source_item *items, size_t count, nibl_source_taker take,
                            void *context, nibl_source **out) {
    nibl_source *s = nibl_alloc_zero(sizeof *s);
    if (!s) return nibl_fail_memory(sizeof *s, "the list of tensors");
    s->take = take;
    s->context = context;
    s->limit = count;
    if (count > 0) {
        s->pieces = nibl_alloc_zero(count * sizeof *s->pieces);
        s->order = nibl_alloc(count * sizeof *s->order);
        if (!s->pieces || !s->order) {
            nibl_source_free(s);
            return nibl_fail_memory(count * sizeof *s->pieces, "the list of tensors");
        }
        s->count = count;
        for (size_t i = 0; i < count; i++) {
            const nibl_source_item *item = &items[i];
            uint64_t bytes = item->row_bytes * item->rows;
            s->pieces[i] = (piece){.begin = item->offset,
                                   .end = item->offset + bytes,
                                   .next = item->offset,
                                   .row_bytes = item->row_bytes,
                                   .name = item->name,
                                   .rank = (uint32_t)i};
            s->total += bytes;
        }
        qsort(s->pieces, count, sizeof *s->pieces, compare_pieces);
        for (size_t i = 0; i < count; i++) s->order[s->pieces[i].rank] = (uint32_t)i;
    }
    *out = s;
    return NIBL_OK;
}

void nibl_source_free(nibl_source *s) {
    if (!s) return;
    for (size_t i = 0; i < s->count; i++) nibl_free(s->pieces[i].partial);
    nibl_free(s->pieces);
    nibl_free(s->order);
    nibl_free(s);
}

void nibl_source_in_order(nibl_source *s) { s->in_order = true; }

void nibl_source_limit(nibl_source *s, size_t item) { s->limit = item < s->count ? item : s->count; }

void nibl_source_rewind(nibl_source *s, size_t item) {
    for (size_t rank = item; rank < s->count; rank++) {
        piece *p = &s->pieces[s->order[rank]];
        s->arrived -= p->next - p->begin;
        p->next = p->begin;
        nibl_free(p->partial);
        p->partial = NULL;
    }
    if (s->needed > item) s->needed = item;
}

/* Bytes that are missing of one rank. */
static uint64_t missing_bytes(const nibl_source *s, size_t rank) {
    const piece *p = &s->pieces[s->order[rank]];
    return p->end - p->next;
}

/* Lowest rank from `rank` on that has not arrived. */
static size_t next_missing(const nibl_source *s, size_t rank) {
    while (rank < s->count && missing_bytes(s, rank) == 0) rank++;
    return rank;
}

void nibl_source_skip(nibl_source *s, size_t first, size_t end) {
    for (size_t rank = first; rank < end && rank < s->count; rank++) {
        piece *p = &s->pieces[s->order[rank]];
        s->arrived += p->end - p->next;
        p->next = p->end;
    }
    s->needed = next_missing(s, s->needed);
}

bool nibl_source_complete(const nibl_source *s) { return s->needed == s->count; }

void nibl_source_progress(const nibl_source *s, uint64_t *arrived, uint64_t *total) {
    *arrived = s->arrived;
    *total = s->total;
}

/* ---- What is wanted ---- */

/* End of the ranks from `rank` on of which at most `budget` bytes are missing. */
static size_t ranks_within(const nibl_source *s, size_t rank, uint64_t budget) {
    while (rank < s->limit && missing_bytes(s, rank) <= budget) budget -= missing_bytes(s, rank++);
    return rank;
}

/* True if two neighbours in the file can come in one range that is to be extended by `joined`, one of
 * them. */
static bool joins(const piece *before, const piece *after, const piece *joined, size_t rank_end) {
    return joined->rank < rank_end && joined->next < joined->end && after->next == after->begin &&
           after->begin >= before->end && after->begin - before->end <= GAP_MAX;
}

/* Where to cut the run [low, high], all missing: as far as RANGE_MAX allows, but if possible where nothing
 * needed earlier is left behind and, better still, where the file goes on with what is needed next, so
 * that later ranges need not come back for small rests. */
static uint64_t cut(const nibl_source *s, size_t low, size_t high) {
    const piece *p = s->pieces;
    uint64_t limit = p[low].next + RANGE_MAX, closed = 0, clean = 0;
    size_t passed = 0, next = s->needed; /* missing ranks below `next` */
    for (size_t i = low; i <= high && p[i].end <= limit; i++) {
        for (; next <= p[i].rank; next = next_missing(s, next + 1)) passed++;
        if (passed != i - low + 1) continue;
        closed = p[i].end;
        if (i == high || p[i + 1].rank <= ranks_within(s, next, AHEAD_MAX)) clean = p[i].end;
    }
    return clean ? clean : closed ? closed : p[high].end < limit ? p[high].end : limit;
}

void nibl_source_want(const nibl_source *s, uint64_t *offset, uint64_t *length) {
    *offset = *length = 0;
    if (s->needed >= s->limit) return;
    const piece *p = s->pieces;
    size_t low = s->order[s->needed], high = low;
    if (s->in_order) { /* nothing can be wanted before the end of what stands in order */
        while (high + 1 < s->count && p[high + 1].rank == p[high].rank + 1 &&
               joins(&p[high], &p[high + 1], &p[high + 1], s->limit))
            high++;
        *offset = p[low].next;
        *length = p[high].end - *offset;
        return;
    }
    size_t ahead = ranks_within(s, s->needed, AHEAD_MAX);
    size_t behind = ranks_within(s, s->needed, BEHIND_MAX);
    while (low > 0 && joins(&p[low - 1], &p[low], &p[low - 1], ahead)) low--;
    while (high + 1 < s->count && joins(&p[high], &p[high + 1], &p[high + 1], behind)) high++;
    *offset = p[low].next;
    *length = cut(s, low, high) - *offset;
}

/* ---- What arrives ---- */

/* Takes `length` bytes that stand at p->next. */
static nibl_status take(nibl_source *s, piece *p, const uint8_t *bytes, size_t length) {
    while (length > 0) {
        size_t staged = (size_t)((p->next - p->begin) % p->row_bytes), used;
        if (staged == 0 && length >= p->row_bytes) {
            used = length - length % p->row_bytes;
            NIBL_TRY(s->take(s->context, p->rank, bytes, used / p->row_bytes));
        } else {
            if (!p->partial && !(p->partial = nibl_alloc(p->row_bytes)))
                return nibl_fail_memory(p->row_bytes, "a row of a tensor");
            used = length < p->row_bytes - staged ? length : (size_t)p->row_bytes - staged;
            memcpy(p->partial + staged, bytes, used);
            if (staged + used == p->row_bytes) {
                NIBL_TRY(s->take(s->context, p->rank, p->partial, 1));
                nibl_free(p->partial);
                p->partial = NULL;
            }
        }
        bytes += used;
        length -= used;
        p->next += used;
        s->arrived += used;
    }
    return NIBL_OK;
}

/* Index of the first piece that ends behind `offset`. */
static size_t find_piece(const nibl_source *s, uint64_t offset) {
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->pieces[middle].end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

nibl_status nibl_source_feed(nibl_source *s, uint64_t offset, const uint8_t *bytes, size_t length) {
    uint64_t end = offset + length;
    for (size_t i = find_piece(s, offset); length > 0 && i < s->count && s->pieces[i].begin < end; i++) {
        piece *p = &s->pieces[i];
        if (s->in_order && p->rank > s->needed) break;
        if (p->rank >= s->limit) continue;
        uint64_t from = offset > p->begin ? offset : p->begin, to = end < p->end ? end : p->end;
        if (from > p->next)
            return nibl_fail(
                NIBL_E_ARGUMENT, "tensor '%.*s': bytes at %llu were fed, but it has arrived only up to %llu",
                (int)p->name.length, p->name.bytes, (unsigned long long)from, (unsigned long long)p->next);
        if (to > p->next) NIBL_TRY(take(s, p, bytes + (p->next - offset), (size_t)(to - p->next)));
        s->needed = next_missing(s, s->needed);
    }
    return nibl_source_complete(s) ? NIBL_OK : NIBL_NEED_DATA;
}

nibl_status nibl_source_check_end(const nibl_source *s, uint64_t end) {
    const uint64_t next_file = NIBL_ADDRESS(NIBL_ADDRESS_FILE(end) + 1, 0);
    for (size_t i = find_piece(s, end); i < s->count && s->pieces[i].begin < next_file; i++) {
        const piece *p = &s->pieces[i];
        if (p->next < p->end)
            return nibl_fail(NIBL_E_TRUNCATED,
                             "the file ends after %llu bytes, but tensor '%.*s' ends at %llu: fetch it again",
                             (unsigned long long)NIBL_ADDRESS_OFFSET(end), (int)p->name.length, p->name.bytes,
                             (unsigned long long)NIBL_ADDRESS_OFFSET(p->end));
    }
    return nibl_source_complete(s) ? NIBL_OK : NIBL_NEED_DATA;
}

/* The push loader: which byte ranges are wanted, and where arrived bytes go. Each tensor the model binds is one piece
 * of the file, taken in ascending order: whole rows go from the caller's buffer straight into the packed weights, at
 * most one row per tensor is staged where a chunk cuts it. Pieces stand in file order to find whose bytes arrive;
 * `order` lists them in the order the forward pass needs them to say what to fetch next. */
#include "core/source.h"

#include "core/model.h"
#include "core/plan.h"

#include <stdlib.h>
#include <string.h>

enum {
    HEADER_RANGE = 256 << 10, /* first and smallest range of a header; doubles with what has arrived */
    HEADER_RANGE_MAX = 4 << 20,
    RANGE_MAX = 8 << 20,
    BEHIND_MAX =
        16
        << 20, /* what stands behind the piece needed first joins its range if needed within so many bytes, */
    AHEAD_MAX = 1 << 20, /* what stands before it, and so delays it, within so many */
    GAP_MAX = 64 << 10 /* padding and unneeded tensors up to this are cheaper to read than to ask around */
};

typedef struct piece {
    uint64_t begin, end; /* in the file */
    uint64_t next; /* first byte not taken */
    uint64_t row_bytes;
    uint32_t rank; /* index of its binding: the order of need */
    uint8_t *partial; /* the row at hand, where a chunk cut it; else NULL */
} piece;

struct nibl_loader {
    uint64_t file_size; /* 0 = unknown */
    nibl_gguf *gguf; /* owned until the model owns it, then NULL */
    nibl_model *model; /* the caller's; NULL before nibl_loader_begin */
    piece *pieces;
    uint32_t *order; /* by rank: index in pieces */
    size_t count;
    size_t needed; /* lowest rank that has not arrived */
    uint64_t arrived, total;
    nibl_status error; /* final */
    char message[512];
};

static nibl_status repeat_error(const nibl_loader *loader) {
    return loader->error == NIBL_OK ? NIBL_OK : nibl_fail(loader->error, "%s", loader->message);
}

static nibl_status keep_error(nibl_loader *loader, nibl_status status) {
    if (status < 0) {
        loader->error = status;
        strncpy(loader->message, nibl_last_message(), sizeof loader->message - 1);
    }
    return status;
}

nibl_status nibl_loader_new(uint64_t file_size, nibl_loader **out) {
    nibl_loader *loader = nibl_alloc_zero(sizeof *loader);
    if (!loader) return nibl_fail_memory(sizeof *loader, "a loader");
    loader->file_size = file_size;
    nibl_status status = nibl_gguf_new(&loader->gguf);
    if (status < 0)
        nibl_free(loader);
    else
        *out = loader;
    return status;
}

void nibl_loader_free(nibl_loader *loader) {
    if (!loader) return;
    for (size_t i = 0; i < loader->count; i++) nibl_free(loader->pieces[i].partial);
    nibl_free(loader->pieces);
    nibl_free(loader->order);
    nibl_gguf_free(loader->gguf);
    nibl_free(loader);
}

/* ---- What is wanted ---- */

static void want_header(const nibl_loader *loader, uint64_t *offset, uint64_t *length) {
    uint64_t fed = nibl_gguf_header_bytes(loader->gguf);
    uint64_t wanted = fed < HEADER_RANGE ? HEADER_RANGE : fed > HEADER_RANGE_MAX ? HEADER_RANGE_MAX : fed;
    if (loader->file_size > 0 && wanted > loader->file_size - fed) wanted = loader->file_size - fed;
    *offset = fed;
    *length = wanted;
}

/* Bytes that are missing of one rank. */
static uint64_t missing_bytes(const nibl_loader *loader, size_t rank) {
    const piece *p = &loader->pieces[loader->order[rank]];
    return p->end - p->next;
}

/* Lowest rank from `rank` on that has not arrived. */
static size_t next_missing(const nibl_loader *loader, size_t rank) {
    while (rank < loader->count && missing_bytes(loader, rank) == 0) rank++;
    return rank;
}

/* End of the ranks from `rank` on of which at most `budget` bytes are missing. */
static size_t ranks_within(const nibl_loader *loader, size_t rank, uint64_t budget) {
    while (rank < loader->count && missing_bytes(loader, rank) <= budget)
        budget -= missing_bytes(loader, rank++);
    return rank;
}

/* True if two neighbours in the file can come in one range that is to be extended by `joined`, one of them. */
static bool joins(const piece *before, const piece *after, const piece *joined, size_t rank_end) {
    return joined->rank < rank_end && joined->next < joined->end && after->next == after->begin &&
           after->begin >= before->end && after->begin - before->end <= GAP_MAX;
}

/* Where to cut the run [low, high], all missing: as far as RANGE_MAX allows, but if possible where nothing needed earlier
 * is left behind and, better still, where the file goes on with what is needed next, so that later ranges need not come
 * back for small rests. */
static uint64_t cut(const nibl_loader *loader, size_t low, size_t high) {
    const piece *p = loader->pieces;
    uint64_t limit = p[low].next + RANGE_MAX, closed = 0, clean = 0;
    size_t passed = 0, next = loader->needed; /* missing ranks below `next` */
    for (size_t i = low; i <= high && p[i].end <= limit; i++) {
        for (; next <= p[i].rank; next = next_missing(loader, next + 1)) passed++;
        if (passed != i - low + 1) continue;
        closed = p[i].end;
        if (i == high || p[i + 1].rank <= ranks_within(loader, next, AHEAD_MAX)) clean = p[i].end;
    }
    return clean ? clean : closed ? closed : p[high].end < limit ? p[high].end : limit;
}

/* The run of the file around the piece needed first that holds only pieces needed soon. */
static void want_pieces(const nibl_loader *loader, uint64_t *offset, uint64_t *length) {
    const piece *p = loader->pieces;
    size_t low = loader->order[loader->needed], high = low;
    size_t ahead = ranks_within(loader, loader->needed, AHEAD_MAX);
    size_t behind = ranks_within(loader, loader->needed, BEHIND_MAX);
    while (low > 0 && joins(&p[low - 1], &p[low], &p[low - 1], ahead)) low--;
    while (high + 1 < loader->count && joins(&p[high], &p[high + 1], &p[high + 1], behind)) high++;
    *offset = p[low].next;
    *length = cut(loader, low, high) - *offset;
}

nibl_status nibl_loader_want(const nibl_loader *loader, uint64_t *offset, uint64_t *length) {
    NIBL_TRY(repeat_error(loader));
    *offset = *length = 0;
    if (!loader->model && !nibl_gguf_complete(loader->gguf))
        want_header(loader, offset, length);
    else if (loader->model && loader->needed < loader->count)
        want_pieces(loader, offset, length);
    return NIBL_OK;
}

/* ---- What arrives ---- */

static nibl_status feed_header(nibl_loader *loader, uint64_t offset, const uint8_t *bytes, size_t length) {
    if (nibl_gguf_complete(loader->gguf)) return NIBL_NEED_DATA;
    uint64_t fed = nibl_gguf_header_bytes(loader->gguf);
    if (offset > fed)
        return nibl_fail(NIBL_E_ARGUMENT,
                         "bytes at %llu were fed, but the header has arrived only up to %llu",
                         (unsigned long long)offset, (unsigned long long)fed);
    if (length > fed - offset) {
        size_t known = (size_t)(fed - offset), taken;
        NIBL_TRY(nibl_gguf_feed(loader->gguf, bytes + known, length - known, &taken));
    }
    bool enough =
        nibl_gguf_complete(loader->gguf) || nibl_gguf_header_bytes(loader->gguf) == loader->file_size;
    if (loader->file_size > 0 && enough) NIBL_TRY(nibl_gguf_check_end(loader->gguf, loader->file_size));
    return NIBL_NEED_DATA;
}

static nibl_slice piece_name(const nibl_loader *loader, const piece *p) {
    return nibl_gguf_tensor_at(loader->model->gguf, loader->model->bindings[p->rank].tensor)->name;
}

/* Takes `length` bytes that stand at p->next. */
static nibl_status take(nibl_loader *loader, piece *p, const uint8_t *bytes, size_t length) {
    nibl_binding *binding = &loader->model->bindings[p->rank];
    while (length > 0) {
        size_t staged = (size_t)((p->next - p->begin) % p->row_bytes), used;
        if (staged == 0 && length >= p->row_bytes) {
            used = (size_t)p->row_bytes;
            NIBL_TRY(nibl_model_take_row(loader->model, binding, bytes));
        } else {
            if (!p->partial && !(p->partial = nibl_alloc(p->row_bytes)))
                return nibl_fail_memory(p->row_bytes, "a row of a tensor");
            used = length < p->row_bytes - staged ? length : (size_t)p->row_bytes - staged;
            memcpy(p->partial + staged, bytes, used);
            if (staged + used == p->row_bytes) {
                NIBL_TRY(nibl_model_take_row(loader->model, binding, p->partial));
                nibl_free(p->partial);
                p->partial = NULL;
            }
        }
        bytes += used;
        length -= used;
        p->next += used;
        loader->arrived += used;
    }
    return NIBL_OK;
}

/* Index of the first piece that ends behind `offset`. */
static size_t find_piece(const nibl_loader *loader, uint64_t offset) {
    size_t low = 0, high = loader->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (loader->pieces[middle].end > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static nibl_status feed_pieces(nibl_loader *loader, uint64_t offset, const uint8_t *bytes, size_t length) {
    uint64_t end = offset + length;
    for (size_t i = find_piece(loader, offset);
         length > 0 && i < loader->count && loader->pieces[i].begin < end; i++) {
        piece *p = &loader->pieces[i];
        uint64_t from = offset > p->begin ? offset : p->begin, to = end < p->end ? end : p->end;
        if (from > p->next) {
            nibl_slice name = piece_name(loader, p);
            return nibl_fail(
                NIBL_E_ARGUMENT, "tensor '%.*s': bytes at %llu were fed, but it has arrived only up to %llu",
                (int)name.length, name.bytes, (unsigned long long)from, (unsigned long long)p->next);
        }
        if (to > p->next) NIBL_TRY(take(loader, p, bytes + (p->next - offset), (size_t)(to - p->next)));
    }
    loader->needed = next_missing(loader, loader->needed);
    return loader->needed == loader->count ? NIBL_OK : NIBL_NEED_DATA;
}

nibl_status nibl_loader_feed(nibl_loader *loader, uint64_t offset, const void *bytes, size_t length) {
    NIBL_TRY(repeat_error(loader));
    uint64_t end;
    if (!nibl_add_u64(offset, length, &end) || (loader->file_size > 0 && end > loader->file_size))
        return keep_error(loader, nibl_fail(NIBL_E_ARGUMENT,
                                            "%llu bytes at %llu were fed, but the file ends after %llu",
                                            (unsigned long long)length, (unsigned long long)offset,
                                            (unsigned long long)loader->file_size));
    return keep_error(loader, loader->model ? feed_pieces(loader, offset, bytes, length)
                                            : feed_header(loader, offset, bytes, length));
}

nibl_status nibl_loader_end(nibl_loader *loader, uint64_t file_size) {
    NIBL_TRY(repeat_error(loader));
    loader->file_size = file_size;
    if (!loader->model) {
        if (nibl_gguf_complete(loader->gguf) || nibl_gguf_header_bytes(loader->gguf) >= file_size)
            NIBL_TRY(keep_error(loader, nibl_gguf_check_end(loader->gguf, file_size)));
        return NIBL_NEED_DATA;
    }
    for (size_t i = find_piece(loader, file_size); i < loader->count; i++) {
        const piece *p = &loader->pieces[i];
        if (p->next == p->end) continue;
        nibl_slice name = piece_name(loader, p);
        return keep_error(
            loader,
            nibl_fail(NIBL_E_TRUNCATED,
                      "the file ends after %llu bytes, but tensor '%.*s' ends at %llu: fetch it again",
                      (unsigned long long)file_size, (int)name.length, name.bytes,
                      (unsigned long long)p->end));
    }
    return loader->needed == loader->count ? NIBL_OK : NIBL_NEED_DATA;
}

/* ---- From header to model ---- */

nibl_status nibl_loader_header(const nibl_loader *loader, nibl_gguf **out) {
    NIBL_TRY(repeat_error(loader));
    nibl_gguf *gguf = loader->model ? loader->model->gguf : loader->gguf;
    if (!nibl_gguf_complete(gguf))
        return nibl_fail(NIBL_E_ARGUMENT, "the header has not arrived yet: feed the loader");
    *out = gguf;
    return NIBL_OK;
}

bool nibl_loader_header_ready(const nibl_loader *loader) {
    return loader->error == NIBL_OK && (loader->model || nibl_gguf_complete(loader->gguf));
}

void nibl_loader_progress(const nibl_loader *loader, uint64_t *arrived, uint64_t *total) {
    if (arrived) *arrived = loader->arrived;
    if (total) *total = loader->total;
}

nibl_status nibl_loader_plan(const nibl_loader *loader, nibl_plan *plan) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    return nibl_model_plan(gguf, plan);
}

static int compare_pieces(const void *a, const void *b) {
    const piece *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

static nibl_status list_pieces(nibl_loader *loader, const nibl_model *model) {
    size_t count = model->binding_count;
    if (count == 0) return NIBL_OK;
    loader->pieces = nibl_alloc_zero(count * sizeof *loader->pieces);
    loader->order = nibl_alloc(count * sizeof *loader->order);
    if (!loader->pieces || !loader->order)
        return nibl_fail_memory(count * sizeof *loader->pieces, "the list of tensors");
    loader->count = count;
    for (size_t i = 0; i < count; i++) {
        const nibl_binding *binding = &model->bindings[i];
        uint64_t begin = nibl_gguf_tensor_at(model->gguf, binding->tensor)->offset;
        uint64_t bytes = binding->row_bytes * binding->rows;
        loader->pieces[i] = (piece){.begin = begin,
                                    .end = begin + bytes,
                                    .next = begin,
                                    .row_bytes = binding->row_bytes,
                                    .rank = (uint32_t)i};
        loader->total += bytes;
    }
    qsort(loader->pieces, count, sizeof *loader->pieces, compare_pieces);
    for (size_t i = 0; i < count; i++) loader->order[loader->pieces[i].rank] = (uint32_t)i;
    return NIBL_OK;
}

nibl_status nibl_loader_begin(nibl_loader *loader, nibl_model **out) {
    NIBL_TRY(repeat_error(loader));
    if (loader->model) return nibl_fail(NIBL_E_ARGUMENT, "the model has been begun already");
    if (!nibl_gguf_complete(loader->gguf))
        return nibl_fail(NIBL_E_ARGUMENT, "the header has not arrived yet: feed the loader");
    nibl_model *model;
    NIBL_TRY(nibl_model_new(loader->gguf, &model));
    nibl_status status = keep_error(loader, list_pieces(loader, model));
    if (status < 0)
        nibl_model_free(model); /* and the header with it */
    else
        *out = loader->model = model;
    loader->gguf = NULL;
    return status;
}

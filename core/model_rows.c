/* Rows of the file to their place, as they arrive. */
#include "core/model.h"
#include "core/plat.h"
#include "core/rows.h"
#include "kernels/maths.h"

#include <stdatomic.h>
#include <string.h>

/* Where row (or number) i goes. */
static uint32_t place_of_row(const nibl_binding *b, uint32_t i) {
    return b->alternating ? nibl_row_parted(b->matrix ? b->matrix->rows : b->length, i)
                          : nibl_row_interleaved(b->halves, i);
}

static float number_at(const nibl_binding *b, const uint8_t *row, uint32_t i) {
    if (b->type->kind == NIBL_KIND_F32) return nibl_bits_float(nibl_load_u32(row + 4ull * i));
    const uint16_t bits = nibl_load_u16(row + 2ull * i);
    if (b->type->kind == NIBL_KIND_BF16) return nibl_bf16_to_f32(bits);
    return (bits & 0x7C00) == 0x7C00 ? nibl_bits_float(0x7F800000) : nibl_f16_to_f32(bits);
}

static bool is_finite(float x) { return (nibl_float_bits(x) & 0x7F800000) != 0x7F800000; }

static bool take_vector(const nibl_model *m, const nibl_binding *b, const uint8_t *row) {
    const bool from_zero = m->norms_from_zero && nibl_slot_forms[b->slot].norm;
    bool finite = true;
    for (uint32_t i = 0; i < b->length; i++) {
        const float x = number_at(b, row, i) + (from_zero ? 1.0f : 0.0f);
        finite = finite && is_finite(x);
        (*b->vector)[place_of_row(b, i)] = x;
    }
    return finite;
}

/* The numbers of the file's row are one column of one expert: number `first + r` that of its row r. */
static bool take_column(const nibl_binding *b, uint64_t i, const uint8_t *row) {
    const uint32_t width = b->type->bytes, rows = b->matrix->rows / b->stacked,
                   k = (uint32_t)(i % b->matrix->cols), above = (uint32_t)(i / b->matrix->cols) * rows;
    bool finite = true;
    for (uint32_t r = 0; r < rows; r++) {
        const uint32_t at = place_of_row(b, above + r);
        uint8_t *place =
            nibl_panel(b->matrix, at / NIBL_PANEL) + ((size_t)k * NIBL_PANEL + at % NIBL_PANEL) * width;
        memcpy(place, row + (size_t)(b->first + r) * width, width);
        finite = finite && is_finite(number_at(b, row, b->first + r));
    }
    return finite;
}

/* The same where columns are quantized on arrival: they wait until a block of them is there. */
static nibl_status take_block_column(nibl_model *m, nibl_binding *b, uint64_t i, const uint8_t *row,
                                     bool *finite) {
    const uint32_t width = b->type->bytes, block = b->packed->block, rows = b->matrix->rows / b->stacked,
                   k = (uint32_t)(i % b->matrix->cols), above = (uint32_t)(i / b->matrix->cols) * rows;
    const size_t column = (size_t)rows * width;
    if (!b->waiting && !(b->waiting = nibl_alloc(block * column)))
        return nibl_fail_memory(block * column, "a block of columns");
    memcpy(b->waiting + k % block * column, row + (size_t)b->first * width, column);
    if (k % block != block - 1) return NIBL_OK;
    nibl_matrix before = *b->matrix; /* the columns before the block say where it begins */
    before.cols = k + 1 - block;
    for (uint32_t r = 0; r < rows; r++) {
        uint8_t numbers[NIBL_SUPER * sizeof(float)];
        for (uint32_t j = 0; j < block; j++)
            memcpy(numbers + j * width, b->waiting + j * column + (size_t)r * width, width);
        *finite = m->encode_row(m->kernels, b->packed, b->type, numbers, block, m->staging) && *finite;
        const uint32_t at = place_of_row(b, above + r);
        nibl_matrix part = before;
        part.data = nibl_panel(b->matrix, at / NIBL_PANEL) + nibl_panel_bytes(&before);
        part.rows = NIBL_PANEL;
        part.cols = block;
        m->kernels->pack_row(&part, at % NIBL_PANEL, m->staging, finite);
        b->matrix->has_m128 = b->matrix->has_m128 || part.has_m128;
    }
    nibl_free(b->waiting);
    b->waiting = NULL;
    return NIBL_OK;
}

/* The products that share an input must agree in which of its values meet which column. */
static nibl_status check_orders(const nibl_layer *l, uint32_t experts) {
    const nibl_matrix *const pairs[][2] = {{&l->wq, &l->wk}, {&l->wq, &l->wv}};
    for (uint32_t i = 0; i < 2 + experts; i++) {
        const nibl_matrix *a = i < 2 ? pairs[i][0] : l->gate + (i - 2),
                          *b = i < 2 ? pairs[i][1] : l->up + (i - 2);
        if (a->rows == 0 || b->rows == 0) continue;
        if (a->gather && b->gather && memcmp(a->gather, b->gather, a->cols * sizeof *a->gather) == 0)
            continue;
        if (a->gather || b->gather)
            return nibl_fail(NIBL_E_UNSUPPORTED,
                             "matrices of one layer that share an input have groups of different columns "
                             "(g_idx), which is not supported: quantize with desc_act false");
    }
    return NIBL_OK;
}

/* A tensor has arrived. */
static nibl_status count_down(const nibl_model *m, nibl_binding *b) {
    const uint32_t experts = nibl_arch_dim(&m->hyper, NIBL_DIM_EXPERTS);
    return --*b->missing == 0 && b->layer ? check_orders(b->layer, experts) : NIBL_OK;
}

/* A row of one of the tensors of a matrix. */
static nibl_status take_part(nibl_model *m, nibl_binding *b, const uint8_t *row) {
    nibl_hfq *q = b->quantized;
    const nibl_slice name = nibl_gguf_tensor_at(m->gguf, b->tensor)->name;
    const nibl_status status = b->part->take(q, (uint32_t)b->rows_done, row);
    if (status < 0 && q->problem)
        return nibl_fail(status, "tensor '%.*s', row %llu: %s", (int)name.length, name.bytes,
                         (unsigned long long)b->rows_done, q->problem);
    NIBL_TRY(status);
    if (++b->rows_done < b->rows) return NIBL_OK;
    if (--q->missing == 0) {
        NIBL_TRY(nibl_hfq_finish(q));
        if (b->layer)
            nibl_model_part(&m->hyper, b->layer); /* what is now known of the whole holds for its parts */
    }
    return count_down(m, b);
}

static nibl_binding *next_part(const nibl_model *m, const nibl_binding *b) {
    return b->next ? &m->bindings[b->next] : NULL;
}

static nibl_status take_row(nibl_model *m, nibl_binding *b, const uint8_t *row) {
    if (b->quantized) return take_part(m, b, row);
    bool finite = true;
    if (b->packed != b->type && !b->transposed) {
        finite = m->encode_row(m->kernels, b->packed, b->type, row, b->matrix->cols, m->staging);
        row = m->staging;
    }
    for (nibl_binding *part = b; b->transposed && part; part = next_part(m, part)) {
        if (part->packed != part->type)
            NIBL_TRY(take_block_column(m, part, b->rows_done, row, &finite));
        else
            finite = take_column(part, b->rows_done, row) && finite;
    }
    if (b->matrix && !b->transposed)
        m->kernels->pack_row(b->matrix, place_of_row(b, (uint32_t)b->rows_done), row, &finite);
    else if (!b->matrix)
        finite = take_vector(m, b, row);
    if (!finite) {
        const nibl_slice name = nibl_gguf_tensor_at(m->gguf, b->tensor)->name;
        return nibl_fail(NIBL_E_FILE, "tensor '%.*s', row %llu: a value or scale is infinite or NaN",
                         (int)name.length, name.bytes, (unsigned long long)b->rows_done);
    }
    if (++b->rows_done < b->rows) return NIBL_OK;
    if (b->matrix == &m->embedding && m->tied) m->head.has_m128 = m->embedding.has_m128;
    if (b->slot >= NIBL_SLOT_ROPE_FACTORS && b->slot <= NIBL_SLOT_ROPE_LONG)
        NIBL_TRY(nibl_model_check_factors(m, *b->vector));
    for (nibl_binding *part = next_part(m, b); part; part = next_part(m, part)) --*part->missing;
    return count_down(m, b);
}

/* ---- Many rows at once ---- */

enum { TOGETHER = 32 << 10 }; /* bytes from which on waking the workers pays */

/* Rows whose only work is pack_row: every one writes bytes of its own. */
typedef struct packing {
    const nibl_model *model;
    const nibl_binding *binding;
    const uint8_t *rows;
    size_t count;
    _Atomic bool infinite, has_m128;
} packing;

static void pack_job(void *context, uint32_t worker, uint32_t workers) {
    packing *p = context;
    const nibl_binding *b = p->binding;
    nibl_matrix own = *b->matrix; /* has_m128 */
    bool finite = true;
    nibl_claims claims =
        nibl_pool_divide(p->model->pool, worker, workers, (uint32_t)p->count, 4 * NIBL_PANEL);
    for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);)
        for (uint32_t i = begin; i < end; i++)
            p->model->kernels->pack_row(&own, place_of_row(b, (uint32_t)b->rows_done + i),
                                        p->rows + i * b->row_bytes, &finite);
    if (!finite) atomic_store(&p->infinite, true);
    if (own.has_m128) atomic_store(&p->has_m128, true);
}

/* Packs all rows but the last, which ends the tensor; none where one of them is not finite. Returns how many. */
static size_t pack_together(nibl_model *m, nibl_binding *b, const uint8_t *rows, size_t count) {
    if (!b->matrix || b->transposed || b->quantized || b->packed != b->type ||
        nibl_pool_workers(m->pool) == 1 || count * b->row_bytes < TOGETHER)
        return 0;
    packing p = {.model = m, .binding = b, .rows = rows, .count = count - 1};
    nibl_pool_run(m->pool, pack_job, &p);
    if (p.has_m128) b->matrix->has_m128 = true;
    if (p.infinite) return 0;
    b->rows_done += p.count;
    return p.count;
}

nibl_status nibl_model_take_rows(nibl_model *m, nibl_binding *b, const uint8_t *rows, size_t count) {
    NIBL_TRY(nibl_model_hold_part(m, b));
    for (size_t i = pack_together(m, b, rows, count); i < count; i++)
        NIBL_TRY(take_row(m, b, rows + i * b->row_bytes));
    return NIBL_OK;
}

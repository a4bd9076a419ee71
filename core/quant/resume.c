/*
 * Going on where another process ended: what a quantizer has to know besides the output that there is. Of a stream of rows
 * that is a place in it; layer by layer also the activations before the next layer, and what a head behind it sees.
 */
#include "core/loader.h"
#include "core/quant/layerwise.h"
#include "core/run.h"

#include <string.h>

enum { PIECES = 5 };

typedef struct piece {
    void *bytes;
    uint64_t length;
} piece;

/* Where tensor `index` begins in the output. */
static uint64_t offset_of(const nibl_quantizer *q, size_t index) {
    uint64_t offset = q->size;
    for (size_t i = index; i < q->recipe.count; i++)
        offset -= (q->recipe.tensors[i].bytes + NIBL_QUANT_ALIGNMENT - 1) / NIBL_QUANT_ALIGNMENT *
                  NIBL_QUANT_ALIGNMENT;
    return offset;
}

/* The pieces of a state, from there or to there. */
static void list_pieces(nibl_quantizer *q, piece pieces[PIECES]) {
    nibl_layerwise *l = q->layerwise;
    memset(pieces, 0, PIECES * sizeof *pieces);
    pieces[0] = (piece){&q->place, sizeof q->place};
    pieces[1] = (piece){q->notes, q->recipe.count * sizeof *q->notes};
    if (q->place.layer == 0) return;
    pieces[2] = (piece){l->calib.run->x, 4ull * l->calib.rows * l->model->hyper.width};
    if (!q->place.head_rows) return;
    pieces[3] = (piece){l->head.squares, 4ull * l->head.cols};
    pieces[4] = (piece){l->head.sums, l->head.sums ? 4 * nibl_panel_room(nibl_panel_size(l->head.cols)) : 0};
}

static nibl_status make_notes(nibl_quantizer *q) {
    const uint64_t bytes = (uint64_t)q->recipe.count * sizeof *q->notes;
    if (!q->notes) q->notes = nibl_alloc_zero(bytes);
    if (!q->notes) return nibl_fail_memory(bytes, "the state");
    for (size_t i = 0; i < q->recipe.count; i++) {
        const nibl_quant_tensor *t = &q->recipe.tensors[i];
        q->notes[i].uncalibrated = t->uncalibrated;
        q->notes[i].unscaled = t->unscaled;
        q->notes[i].recovery = t->recovery;
    }
    return NIBL_OK;
}

/* Whether there is a place to go on from: not while the head's input is looked for, nor before the first layer has seen an
 * embedding that only exists in memory; and not where the report tells more of what was done. */
static bool find_place(nibl_quantizer *q) {
    const nibl_layerwise *l = q->layerwise;
    const size_t tensor = l ? l->output : nibl_quant_at(q);
    if (q->measure || (l && (l->folder || l->wants_head))) return false;
    if (l && l->bindings && tensor + 1 >= l->outputs.count)
        return false; /* such a head needs what was before */
    q->place = (nibl_place){.offset = offset_of(q, tensor), .tensor = tensor};
    if (!l || !l->calibrated) return true;
    q->place.layer = l->calib.run->layer;
    q->place.head_rows = l->model->tied || !l->head.squares ? 0 : l->head.rows_seen;
    return q->place.layer > 0;
}

nibl_status nibl_quantizer_save(nibl_quantizer *q, size_t index, const void **bytes, size_t *length) {
    piece pieces[PIECES];
    *bytes = NULL;
    *length = 0;
    if (index == 0 && !find_place(q)) return NIBL_OK;
    if (index == 0) NIBL_TRY(make_notes(q));
    list_pieces(q, pieces);
    for (size_t i = 0; i < PIECES; i++) {
        if (pieces[i].length == 0 || index-- > 0) continue;
        *bytes = pieces[i].bytes;
        *length = (size_t)pieces[i].length;
        return NIBL_OK;
    }
    return NIBL_OK;
}

/* The head's input, as the calibration of the whole model would leave it. */
static nibl_status make_head(nibl_layerwise *l) {
    if (l->wants_head && !l->model->tied) {
        NIBL_TRY(nibl_calib_open_head(&l->calib, &l->head));
        l->head.rows_seen = l->calib.rows;
    }
    l->wants_head = false;
    return NIBL_OK;
}

/* Up to the tensor, bytes of the source are not wanted but for the embedding, which texts begin with. */
static void skip(const nibl_quantizer *q, nibl_loader *loader) {
    const nibl_layerwise *l = q->layerwise;
    const size_t tensor = (size_t)q->place.tensor;
    if (!l) {
        nibl_loader_skip(loader, 0, tensor);
    } else if (l->model->parts) {
        const nibl_model *m = l->model;
        size_t end = m->binding_count;
        if (tensor < l->outputs.count) {
            const uint32_t section = m->bindings[l->outputs.items[tensor].binding].section;
            for (end = 0; m->bindings[end].section < section;) end++;
        }
        nibl_loader_skip(loader, l->by_tensor ? 0 : nibl_model_part_end(m, 0), end);
    }
}

static nibl_status refuse(void) { return nibl_fail(NIBL_E_FILE, "the state is of another output"); }

nibl_status nibl_quantizer_restore(nibl_quantizer *q, nibl_loader *loader, const void *state, size_t length,
                                   uint64_t *offset) {
    nibl_layerwise *l = q->layerwise;
    const uint8_t *bytes = state;
    piece pieces[PIECES];
    uint64_t wanted = 0;
    if (length < sizeof q->place) return refuse();
    memcpy(&q->place, bytes, sizeof q->place);
    const nibl_place place = q->place;
    if (place.tensor > q->recipe.count || place.offset != offset_of(q, (size_t)place.tensor)) return refuse();
    if ((place.layer > 0) != (l && l->calibrated) || (l && place.layer > l->model->hyper.layers))
        return refuse();
    NIBL_TRY(make_notes(q));
    if (place.layer > 0) {
        NIBL_TRY(make_head(l));
        if (place.head_rows != l->head.rows_seen) return refuse();
    }
    list_pieces(q, pieces);
    for (size_t i = 0; i < PIECES; i++) wanted += pieces[i].length;
    if (length != wanted) return refuse();
    for (size_t i = 0; i < PIECES; i++) {
        if (pieces[i].length > 0) memcpy(pieces[i].bytes, bytes, (size_t)pieces[i].length);
        bytes += pieces[i].length;
    }
    for (size_t i = 0; i < q->recipe.count; i++) {
        nibl_quant_tensor *t = &q->recipe.tensors[i];
        t->uncalibrated = q->notes[i].uncalibrated;
        t->unscaled = q->notes[i].unscaled;
        t->recovery = q->notes[i].recovery;
    }
    skip(q, loader);
    q->taken = true; /* the header is there */
    *offset = place.offset;
    if (!l) return nibl_quant_go_to(q, (size_t)place.tensor);
    l->output = (size_t)place.tensor;
    return place.layer > 0 ? nibl_calib_resume(&l->calib, place.layer) : NIBL_OK;
}

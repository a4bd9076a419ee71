/* What comes out of a model that is quantized layer by layer: tensors in the order of the forward pass, to a GGUF file or a
 * folder. */
#include "core/encode.h"
#include "core/encode_grid.h"
#include "core/quant/layerwise.h"
#include "core/rows.h"

#include <string.h>

/* The rows of a tensor, as its type has them. */
static nibl_status write_rows(nibl_quantizer *q, size_t index, const uint8_t *rows) {
    const nibl_layerwise *l = q->layerwise;
    const size_t bytes = (size_t)q->recipe.tensors[index].bytes,
                 gap = (NIBL_QUANT_ALIGNMENT - bytes % NIBL_QUANT_ALIGNMENT) % NIBL_QUANT_ALIGNMENT;
    uint8_t *place;
    if (l->folder) {
        const nibl_slice header = nibl_folder_open(l->folder, index);
        const size_t length = nibl_folder_bytes(l->folder, index);
        NIBL_TRY(nibl_quant_extend(q, header.length + length, &place));
        if (header.length > 0) memcpy(place, header.bytes, header.length);
        nibl_folder_write(l->folder, index, rows, place + header.length);
        return NIBL_OK;
    }
    NIBL_TRY(nibl_quant_extend(q, bytes + gap, &place));
    memcpy(place, rows, bytes);
    memset(place + bytes, 0, gap);
    return NIBL_OK;
}

/* As Hugging Face's files have it: biases in the order of their rows, norms less 1 where their model adds it. */
static void turn_vector(const nibl_model *m, nibl_slot slot, float *x, float *room, uint32_t count) {
    const bool turned =
        (slot == NIBL_SLOT_BQ || slot == NIBL_SLOT_BK) && m->arch->rope == NIBL_ROPE_INTERLEAVED;
    if (nibl_slot_forms[slot].norm && m->arch->norms_from_zero)
        for (uint32_t i = 0; i < count; i++) x[i] -= 1.0f;
    if (!turned) return;
    memcpy(room, x, count * sizeof *x);
    for (uint32_t i = 0; i < count; i++) x[i] = room[nibl_row_interleaved(m->hyper.head_width, i)];
}

nibl_status nibl_layerwise_write_vector(nibl_quantizer *q, size_t index) {
    nibl_layerwise *l = q->layerwise;
    const nibl_output *o = &l->outputs.items[index];
    const nibl_quant_tensor *t = &q->recipe.tensors[index];
    const nibl_layer *layer = l->model->bindings[o->binding].layer;
    const uint32_t count = (uint32_t)(t->rows * t->cols);
    float *x = nibl_alloc(8ull * count);
    uint8_t *bytes = nibl_alloc(t->bytes);
    nibl_status status = x && bytes ? NIBL_OK : nibl_fail_memory(8ull * count, "a vector");
    if (status == NIBL_OK) {
        const bool folded = l->rotation && o->slot == NIBL_SLOT_OUTPUT_NORM;
        float *at = x;
        for (uint32_t i = 0; i < o->count; i++) {
            const nibl_output_part *part = &l->outputs.parts[o->first + i];
            const nibl_matrix *taker = layer ? nibl_layerwise_taker(layer, part->vector) : NULL;
            const float *scale = taker ? nibl_layerwise_scale(l, nibl_calib_site(&l->calib, taker)) : NULL;
            nibl_layerwise_divide(at, folded ? l->ones : *part->vector, scale, part->length);
            at += part->length;
        }
        if (l->folder) turn_vector(l->model, o->slot, x, x + count, count);
        if (!nibl_encode_values(q->kernels, t->to, x, NULL, count, false, bytes))
            status = nibl_quant_refuse(t, 0, false);
    }
    if (status == NIBL_OK) status = write_rows(q, index, bytes);
    nibl_free(x);
    nibl_free(bytes);
    return status;
}

/* For the first layer, which is calibrated with what it will see. */
static nibl_status keep_embedding(nibl_quantizer *q, nibl_work *w) {
    nibl_matrix packed = *w->matrix;
    const uint8_t *original = packed.data;
    w->matrix = &packed;
    const nibl_status status = nibl_layerwise_pack(q, w);
    if (packed.data != original) q->layerwise->embedding = packed;
    return status;
}

/* A matrix outside of layers. */
nibl_status nibl_layerwise_write_matrix(nibl_quantizer *q, size_t index) {
    nibl_layerwise *l = q->layerwise;
    nibl_quant_tensor *t = &q->recipe.tensors[index];
    nibl_work w = {.tensor = t,
                   .matrix = l->outputs.parts[l->outputs.items[index].first].matrix,
                   .bytes = nibl_alloc(t->bytes),
                   .turned = l->rotation != NULL};
    if (l->outputs.items[index].slot == NIBL_SLOT_HEAD) w.norm = l->model->output_norm;
    if (!w.bytes) return nibl_fail_memory(t->bytes, "a matrix");
    nibl_status status = NIBL_OK;
    const bool rounds_head = nibl_grid_of(t->to) && nibl_outputs_is_head(&l->outputs, l->model, index);
    if (l->importance.of) {
        w.squares = l->importance.of[l->outputs.items[index].first];
        t->uncalibrated += rounds_head && !w.squares;
    }
    if (l->head.squares && rounds_head) {
        w.site = &l->head;
        w.squares = l->head.squares;
        if (q->method.gptq) status = nibl_layerwise_factor(q, w.site, NULL);
    }
    if (status == NIBL_OK) status = nibl_layerwise_encode(q, &w);
    nibl_factor_free(&l->factor);
    if (status == NIBL_OK && w.matrix == &l->model->embedding && l->head.squares && q->method.gptq)
        status = keep_embedding(q, &w);
    if (l->model->parts && l->by_tensor) /* before there is room for the output */
        nibl_model_drop_part(l->model, l->model->bindings[l->outputs.items[index].binding].section);
    if (status == NIBL_OK) status = write_rows(q, index, w.bytes);
    if (w.site && l->model->tied) nibl_site_free(&l->head); /* a layer's Hessians take its room */
    nibl_free(w.bytes);
    return status;
}

nibl_status nibl_layerwise_write_work(nibl_quantizer *q, size_t index) {
    const nibl_layerwise *l = q->layerwise;
    uint32_t i = 0;
    while (l->works[i].tensor != &q->recipe.tensors[index]) i++;
    const nibl_status status = write_rows(q, index, l->works[i].bytes);
    nibl_free(l->works[i].block);
    l->works[i].block = NULL;
    return status;
}

nibl_status nibl_layerwise_write_document(nibl_quantizer *q) {
    nibl_layerwise *l = q->layerwise;
    uint8_t *place;
    nibl_slice text;
    l->more = nibl_folder_document(l->folder, &text);
    NIBL_TRY(nibl_quant_extend(q, text.length, &place));
    memcpy(place, text.bytes, text.length);
    return l->more ? NIBL_MORE : NIBL_OK;
}

const char *nibl_quantizer_file(const nibl_quantizer *q) {
    return q->layerwise && q->layerwise->folder ? nibl_folder_file(q->layerwise->folder) : NULL;
}

#include "core/quant/outputs.h"

#include <string.h>

enum { TWO = 2 /* tensors of one, at most */, FACTORS = 3 /* lists of them, at most */ };

/* The slots whose tensors a binding makes. */
static uint32_t slots_of(nibl_slot slot, nibl_slot out[TWO]) {
    out[0] = slot;
    if (slot == NIBL_SLOT_DOWNS) out[0] = NIBL_SLOT_DOWN;
    if (slot != NIBL_SLOT_GATE_UP && slot != NIBL_SLOT_GATE_UP_BIAS) return 1;
    out[0] = slot == NIBL_SLOT_GATE_UP ? NIBL_SLOT_GATE : NIBL_SLOT_GATE_BIAS;
    out[1] = slot == NIBL_SLOT_GATE_UP ? NIBL_SLOT_UP : NIBL_SLOT_UP_BIAS;
    return 2;
}

static nibl_matrix *matrix_of(const nibl_binding *b, nibl_slot slot, uint32_t expert) {
    nibl_layer *l = b->layer;
    if (b->slot == slot) return b->matrix;
    return (slot == NIBL_SLOT_GATE ? l->gate : slot == NIBL_SLOT_UP ? l->up : l->down) + expert;
}

static float **vector_of(const nibl_binding *b, nibl_slot slot) {
    if (b->slot == slot) return b->vector;
    return slot == NIBL_SLOT_GATE_BIAS ? &b->layer->gate_bias : &b->layer->up_bias;
}

/* Adds the parts of a slot that a binding makes. */
static void add_parts(nibl_outputs *o, const nibl_model *m, const nibl_binding *b, nibl_slot slot) {
    const nibl_slot_form *form = &nibl_slot_forms[slot];
    const nibl_hyper *h = &m->hyper;
    nibl_output *item = &o->items[o->count - 1];
    nibl_gguf_tensor *t = &o->tensors[o->count - 1];
    const bool stack = b->slot != slot;
    if (form->vector) {
        const uint32_t length = stack ? b->length / (b->slot == NIBL_SLOT_GATE_UP_BIAS ? 2 : 1) : b->length,
                       rows = nibl_arch_dim(h, form->rows);
        o->parts[o->part_count++] = (nibl_output_part){.vector = vector_of(b, slot), .length = length};
        item->count++;
        t->dims[0] += rows > 1 ? length / rows : length;
        t->dims[1] = rows;
        t->n_dims = rows > 1 ? 2 : 1;
        return;
    }
    const bool each = form->expert && h->experts > 0;
    for (uint32_t e = 0; e < (stack ? h->experts : 1); e++, item->count++)
        o->parts[o->part_count++] = (nibl_output_part){.matrix = matrix_of(b, slot, e)};
    t->dims[0] = stack ? nibl_arch_dim(h, form->cols) : b->matrix->cols;
    t->dims[1] = (each ? 0 : t->dims[1]) + (stack ? nibl_arch_dim(h, form->rows) : b->matrix->rows);
    t->dims[2] = each ? item->count : 1;
    t->n_dims = each ? 3 : 2;
}

static void add_binding(nibl_outputs *o, const nibl_model *m, size_t index) {
    const nibl_binding *b = &m->bindings[index];
    nibl_slot slots[TWO];
    const uint32_t count = slots_of(b->slot, slots);
    for (uint32_t i = 0; i < count; i++) {
        char name[80];
        nibl_arch_write_name(nibl_arch_slot(m->arch, slots[i]).gguf,
                             b->layer ? (uint32_t)(b->layer - m->layers) : 0, 0, name);
        if (o->count == 0 || strcmp(o->items[o->count - 1].name, name) != 0) {
            nibl_output *item = &o->items[o->count];
            *item = (nibl_output){.binding = index, .slot = slots[i], .first = o->part_count};
            memcpy(item->name, name, sizeof name);
            /* vectors are F32 in GGUF */
            o->tensors[o->count++] =
                (nibl_gguf_tensor){.name = {item->name, strlen(item->name)},
                                   .type = b->matrix ? nibl_gguf_tensor_at(m->gguf, b->tensor)->type : 0,
                                   .dims = {0, 0, 1, 1}};
        }
        o->tensors[o->count - 1].bytes += b->row_bytes * b->rows / count;
        add_parts(o, m, b, slots[i]);
    }
}

/* Factors that are no tensors of the source. */
static void add_factors(nibl_outputs *o, nibl_model *m) {
    const struct {
        const char *key;
        nibl_slot slot;
        float **values;
    } lists[FACTORS] = {{NIBL_KEY_ROPE_FACTORS, NIBL_SLOT_ROPE_FACTORS, &m->rope_factors},
                        {NIBL_KEY_ROPE_SHORT, NIBL_SLOT_ROPE_SHORT, &m->rope_short},
                        {NIBL_KEY_ROPE_LONG, NIBL_SLOT_ROPE_LONG, &m->rope_long}};
    const uint32_t pairs = m->hyper.rope_width / 2;
    for (size_t i = 0; i < FACTORS; i++) {
        nibl_gguf_array array;
        if (!nibl_gguf_array_of(m->gguf, lists[i].key, &array)) continue;
        nibl_output *item = &o->items[o->count];
        *item = (nibl_output){.binding = m->binding_count - 1,
                              .slot = lists[i].slot,
                              .first = o->part_count,
                              .count = 1,
                              .at_hand = true};
        nibl_arch_write_name(nibl_slot_forms[lists[i].slot].gguf, 0, 0, item->name);
        o->parts[o->part_count++] = (nibl_output_part){.vector = lists[i].values, .length = pairs};
        o->tensors[o->count++] = (nibl_gguf_tensor){.name = {item->name, strlen(item->name)},
                                                    .n_dims = 1,
                                                    .dims = {pairs, 1, 1, 1},
                                                    .bytes = pairs * sizeof(float)};
    }
}

size_t nibl_outputs_leave_factors(nibl_outputs *o) {
    while (o->count > 0 && o->items[o->count - 1].at_hand) o->count--;
    return o->count;
}

nibl_status nibl_outputs_new(nibl_model *m, nibl_outputs *o) {
    const uint64_t tensors = TWO * (uint64_t)m->binding_count + FACTORS + 1,
                   parts = tensors + 3ull * m->hyper.experts * m->hyper.layers;
    *o = (nibl_outputs){0};
    if (m->quantization.method) return NIBL_OK; /* nibl_recipe_choose refuses it */
    o->tensors = nibl_alloc_zero(tensors * sizeof *o->tensors);
    o->items = nibl_alloc_zero(tensors * sizeof *o->items);
    o->parts = nibl_alloc_zero(parts * sizeof *o->parts);
    if (!o->tensors || !o->items || !o->parts)
        return nibl_fail_memory(parts * sizeof *o->parts, "the list of tensors");
    for (size_t i = 0; i < m->binding_count; i++) add_binding(o, m, i);
    add_factors(o, m);
    return NIBL_OK;
}

void nibl_outputs_free(nibl_outputs *o) {
    nibl_free(o->tensors);
    nibl_free(o->items);
    nibl_free(o->parts);
    *o = (nibl_outputs){0};
}

void nibl_outputs_untie(nibl_outputs *o, nibl_model *m, size_t binding) {
    o->items[o->count++] =
        (nibl_output){.binding = binding, .slot = NIBL_SLOT_HEAD, .first = o->part_count, .count = 1};
    o->parts[o->part_count++] = (nibl_output_part){.matrix = &m->embedding};
}

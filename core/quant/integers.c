#include "core/quant/integers.h"

#include "core/encode_grid.h"

#include <stdio.h>
#include <string.h>

struct nibl_quant_type {
    nibl_integer_type made;
    nibl_quant_type *next;
};

static nibl_status keep(nibl_recipe *r, const nibl_integer_type *made, const nibl_dtype **out) {
    for (nibl_quant_type *t = r->types; t; t = t->next)
        if (t->made.type.id == made->type.id && t->made.grid.group == made->grid.group &&
            strcmp(t->made.name, made->name) == 0) {
            *out = &t->made.type;
            return NIBL_OK;
        }
    nibl_quant_type *t = nibl_alloc(sizeof *t);
    if (!t) return nibl_fail_memory(sizeof *t, "a type");
    *t = (nibl_quant_type){.made = *made, .next = r->types};
    t->made.type.name = t->made.name;
    r->types = t;
    *out = &t->made.type;
    return NIBL_OK;
}

static nibl_status find(nibl_recipe *r, const char *name, const nibl_dtype **out) {
    nibl_integer_type t = {.type = {.id = NIBL_INTEGERS_ID, .block = NIBL_BLOCK}};
    *out = NULL;
    if (!nibl_integers_read(name, &t.form)) return NIBL_OK;
    snprintf(t.name, sizeof t.name, "%s", name);
    if (!r->folder && !nibl_integers_fit_q4_0(&t.form))
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "GGUF has no type for '%.64s': of integers it holds symmetric ones of 4 bits with F16 "
            "scales; write a folder (safetensors)",
            name);
    if (t.form.zero_point && t.form.storage == NIBL_STORE_F32)
        return nibl_fail(NIBL_E_ARGUMENT, "'%.64s': zero points go with F16 or BF16 scales", name);
    return keep(r, &t, out);
}

static nibl_status fit(nibl_recipe *r, const nibl_dtype *named, uint64_t rows, uint64_t cols,
                       const nibl_dtype **out) {
    const nibl_integer_type *wanted = (const nibl_integer_type *)(const void *)named;
    nibl_integer_type made;
    *out = NULL;
    if (!nibl_integers_make(&wanted->form, rows, cols, !r->folder, &made)) return NIBL_OK;
    return keep(r, &made, out);
}

static uint32_t group_of(const nibl_dtype *type) {
    const nibl_integers *form = &((const nibl_integer_type *)(const void *)type)->form;
    return form->granularity == NIBL_PER_GROUP ? form->group : NIBL_BLOCK;
}

static void drop(nibl_recipe *r) {
    while (r->types) {
        nibl_quant_type *t = r->types;
        r->types = t->next;
        nibl_free(t);
    }
}

const nibl_quant_grids nibl_quant_integers = {find, fit, group_of, drop};

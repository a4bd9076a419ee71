#include "core/cli/recipe.h"

#include "core/cli/file.h"
#include "core/cli/json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 64 << 20, MEMBERS = 4 };

static bool is_text(const nibl_cli_document *d, size_t index) {
    return index > 0 && d->nodes[index].kind == '"';
}

/* The next of the recipe's strings; NULL where it has an escape that cannot be. */
static const char *take(nibl_cli_recipe *r, const nibl_cli_document *d, size_t index) {
    nibl_cli_text *text = &r->texts[r->count++];
    return nibl_cli_document_text(d, index, text) ? text->bytes : NULL;
}

static bool read_members(const nibl_cli_document *d, size_t object, nibl_quantize_options *o,
                         nibl_cli_recipe *r) {
    static const char *const names[MEMBERS] = {"type", "embedding", "head", "method"};
    const char **const places[MEMBERS] = {&o->type, &o->embedding, &o->head, &o->method};
    for (size_t key = object + 1; key < d->nodes[object].next; key = d->nodes[key + 1].next) {
        const size_t value = key + 1;
        size_t member = 0;
        while (member < MEMBERS && (strlen(names[member]) != d->nodes[key].length ||
                                    memcmp(names[member], d->nodes[key].bytes, d->nodes[key].length) != 0))
            member++;
        if (member < MEMBERS) {
            if (!is_text(d, value) || !(*places[member] = take(r, d, value))) return false;
            continue;
        }
        if (d->nodes[key].length != 7 || memcmp(d->nodes[key].bytes, "tensors", 7) != 0 ||
            d->nodes[value].kind != '[')
            return false;
        for (size_t pair = value + 1; pair < d->nodes[value].next; pair = d->nodes[pair].next) {
            if (d->nodes[pair].kind != '[' || d->nodes[pair].next != pair + 3 || !is_text(d, pair + 1) ||
                !is_text(d, pair + 2))
                return false;
            nibl_tensor_type *t = &r->tensors[o->tensor_count++];
            t->pattern = take(r, d, pair + 1);
            t->type = take(r, d, pair + 2);
            if (!t->pattern || !t->type) return false;
        }
    }
    return true;
}

int nibl_cli_recipe_read(const char *path, nibl_quantize_options *o, nibl_cli_recipe *out) {
    nibl_cli_text text = {0};
    nibl_cli_document d = {0};
    int code = nibl_cli_read_file(path, MAX_FILE, &text);
    if (code == NIBL_EXIT_OK &&
        (text.length == 0 || !nibl_cli_document_parse(text.bytes, &d) || d.nodes[0].kind != '{'))
        code = nibl_cli_fail("%s: is no recipe, which is one JSON object", path);
    if (code == NIBL_EXIT_OK) {
        const size_t whole = nibl_cli_document_member(&d, 0, "quantization"),
                     inside = nibl_cli_document_member(&d, whole, "recipe");
        out->texts = calloc(d.count, sizeof *out->texts);
        out->tensors = calloc(d.count, sizeof *out->tensors);
        o->tensors = out->tensors;
        o->tensor_count = 0;
        if (!out->texts || !out->tensors)
            code = nibl_cli_fail("out of memory");
        else if (!read_members(&d, inside, o, out))
            code = nibl_cli_fail(
                "%s: a recipe has type, embedding, head, method (texts) and tensors ([[pattern, type], "
                "...]), and nothing else",
                path);
    }
    nibl_cli_document_free(&d);
    nibl_cli_text_free(&text);
    return code;
}

void nibl_cli_recipe_free(nibl_cli_recipe *recipe) {
    for (size_t i = 0; i < recipe->count; i++) nibl_cli_text_free(&recipe->texts[i]);
    free(recipe->texts);
    free(recipe->tensors);
    *recipe = (nibl_cli_recipe){0};
}

#include "core/cli/eval.h"

#include <stdlib.h>
#include <string.h>

void nibl_cli_base_free(nibl_cli_base *base) {
    for (size_t i = 0; i < base->count; i++) {
        nibl_cli_text_free(&base->texts[i].name);
        nibl_cli_tokens_free(&base->texts[i].tokens);
        nibl_evaluation_free(base->texts[i].evaluation);
    }
    free(base->texts);
    *base = (nibl_cli_base){0};
}

int nibl_cli_base_add(nibl_cli_base *base, const nibl_cli_base_text *text, const int32_t *ids,
                      nibl_evaluation *evaluation) {
    if (base->count == base->capacity) {
        const size_t capacity = base->capacity ? 2 * base->capacity : 8;
        void *grown = realloc(base->texts, capacity * sizeof *base->texts);
        if (!grown) nibl_evaluation_free(evaluation);
        if (!grown) return nibl_cli_fail("out of memory");
        base->texts = grown;
        base->capacity = capacity;
    }
    nibl_cli_base_text *t = &base->texts[base->count++];
    *t = (nibl_cli_base_text){.window = text->window, .evaluation = evaluation, .result = text->result};
    return nibl_cli_text_append(&t->name, text->name.bytes, text->name.length) &&
                   nibl_cli_tokens_append(&t->tokens, ids, text->tokens.count)
               ? NIBL_EXIT_OK
               : NIBL_EXIT_FAILED;
}

/* NULL, told, where the base's pair did not score the same tokens. */
static const nibl_cli_base_text *find(const nibl_cli_base *base, const nibl_cli_base_text *text,
                                      const int32_t *ids) {
    size_t i = 0;
    while (i < base->count && strcmp(base->texts[i].name.bytes, text->name.bytes) != 0) i++;
    const nibl_cli_base_text *t = &base->texts[i];
    if (i < base->count && t->window == text->window && t->tokens.count == text->tokens.count &&
        memcmp(t->tokens.ids, ids, t->tokens.count * sizeof *ids) == 0)
        return t;
    fprintf(stderr, "nibl: %s is not compared with the base: %s\n", text->name.bytes,
            i < base->count ? "its tokenizer, chat template or windows give other tokens"
                            : "it was not scored on that");
    return NULL;
}

int nibl_cli_base_compare(nibl_cli_base *base, const nibl_cli_base_text *text, const int32_t *ids,
                          const nibl_evaluation *evaluation, const nibl_cli_base_text **out,
                          nibl_evaluation_comparison *comparison) {
    *out = find(base, text, ids);
    if (!*out) return NIBL_EXIT_OK;
    base->compared++;
    return nibl_evaluation_compare(evaluation, (*out)->evaluation, comparison) < 0
               ? nibl_cli_fail_library(text->name.bytes)
               : NIBL_EXIT_OK;
}

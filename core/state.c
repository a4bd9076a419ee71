/* Sessions that leave and come back: copied from one another, saved as bytes, restored from anybody's. */
#include "core/hash.h"
#include "core/session.h"

#include <string.h>

_Static_assert(sizeof(nibl_state) == 40, "the header has no padding");
static const char MAGIC[8] = "nibl kv\1";

/* ---- What must be the same ---- */

static uint64_t hash_bytes(uint64_t hash, const void *bytes, uint64_t length) /* a multiple of 4 */
{
    enum { ROW = 1 << 18 };
    bool finite;
    const float *words = bytes;
    for (uint64_t left = length / 4, n; left > 0; left -= n, words += n) {
        n = left < ROW ? left : ROW;
        hash = nibl_hash_row(hash, words, (uint32_t)n, &finite);
    }
    return hash;
}

static uint64_t hash_rope(uint64_t hash, const nibl_rope_form *r) {
    const double numbers[] = {r->scaling, r->base, r->factor,    r->original_length,
                              r->low,     r->high, r->magnitude, r->exact_ramp};
    return hash_bytes(hash, numbers, sizeof numbers);
}

/* Of all that keys and values depend on. Packed weights are the same bits on every host. */
static uint64_t fingerprint(nibl_model *m) {
    const nibl_hyper *h = &m->hyper;
    if (m->fingerprint) return m->fingerprint;
    const double numbers[] = {h->context_length,
                              h->width,
                              h->layers,
                              h->ffn_width,
                              h->heads,
                              h->kv_heads,
                              h->head_width,
                              h->rope_width,
                              h->vocabulary,
                              h->experts,
                              h->experts_used,
                              h->window,
                              h->conv_length,
                              h->conv_layers,
                              (double)h->norm_epsilon,
                              (double)h->attention_scale,
                              (double)h->attention_cap,
                              (double)h->embedding_scale,
                              (double)h->residual_scale,
                              h->expert_norm};
    uint64_t hash = hash_rope(hash_rope(hash_bytes(0, numbers, sizeof numbers), &h->rope), &h->local_rope);
    for (const char *c = m->arch->name; *c; c++) hash = hash_bytes(hash, &(uint32_t){(uint8_t)*c}, 4);
    for (uint32_t i = 0; i < h->layers; i++) {
        const nibl_layer_form *form = &m->layers[i].form;
        hash = hash_bytes(hash, (uint32_t[]){form->window, form->rope, form->conv}, 12);
    }
    const uint64_t factors = 4ull * (h->rope_width / 2);
    if (m->rope_short) hash = hash_bytes(hash, m->rope_short, factors);
    if (m->rope_long) hash = hash_bytes(hash, m->rope_long, factors);
    for (size_t i = 0; i < m->binding_count; i++) {
        const nibl_binding *b = &m->bindings[i];
        if (b->quantized && !b->owns) continue;
        if (!b->matrix) {
            hash = hash_bytes(hash, *b->vector, 4ull * b->length);
            continue;
        }
        const nibl_matrix *w = b->matrix;
        hash = hash_bytes(hash, (uint32_t[]){w->kind, w->scale}, 8);
        hash = hash_bytes(hash, &w->factor, 4);
        if (w->gather) hash = hash_bytes(hash, w->gather, 4ull * w->cols);
        hash = hash_bytes(hash, w->data, (uint64_t)nibl_panel_bytes(w) * nibl_panels(w));
    }
    return m->fingerprint = hash ? hash : 1;
}

/* Which of its two tables of RoPE the session's context takes (forward.c). */
static bool is_long(const nibl_session *s) {
    return s->model->rope_long && (double)s->kv.positions > s->model->hyper.rope.original_length;
}

/* ---- Copies ---- */

nibl_status nibl_session_copy(nibl_session *s, const nibl_session *from, size_t tokens) {
    const nibl_session_options *a = &s->options, *b = &from->options;
    if (s == from || s->model != from->model || a->kv_type != b->kv_type ||
        a->activations != b->activations || is_long(s) != is_long(from))
        return nibl_fail(NIBL_E_ARGUMENT, "a session can be copied from another one of the same model, with "
                                          "the same kv_type, activations and RoPE");
    if (tokens > from->count)
        return nibl_fail(NIBL_E_ARGUMENT, "%zu tokens cannot be copied of a session that has %zu", tokens,
                         from->count);
    if (tokens > a->context_length)
        return nibl_fail(NIBL_E_CONTEXT, "%zu tokens do not fit the context of %u", tokens,
                         a->context_length);
    const size_t computed = from->computed < tokens ? from->computed : tokens;
    NIBL_TRY(nibl_session_reserve(s, tokens));
    nibl_session_reset(s, 0, 0);
    NIBL_TRY(nibl_kv_reserve(&s->kv, (uint32_t)computed));
    size_t length;
    const void *piece;
    for (size_t i = 0; (piece = nibl_kv_piece(&from->kv, (uint32_t)computed, i, &length)); i++)
        memcpy(nibl_kv_piece(&s->kv, (uint32_t)computed, i, &length), piece, length);
    if (tokens > 0) memcpy(s->tokens, from->tokens, tokens * sizeof *s->tokens);
    nibl_session_reset(s, tokens, computed);
    return NIBL_OK;
}

/* ---- Bytes ---- */

/* Header, tokens, keys and values; NULL behind the last. */
static void *piece_of(nibl_session *s, size_t i, size_t *length) {
    const uint32_t tokens = s->state.tokens;
    *length = 0;
    if (i == 0) {
        *length = sizeof s->state;
        return &s->state;
    }
    if (tokens == 0) return NULL;
    if (i > 1) return nibl_kv_piece(&s->kv, tokens, i - 2, length);
    *length = tokens * sizeof *s->tokens;
    return s->tokens;
}

uint64_t nibl_session_checksum(nibl_session *s) {
    const size_t before = offsetof(nibl_state, model);
    uint64_t hash = hash_bytes(0, (const char *)&s->state + before, sizeof s->state - before);
    size_t length;
    const void *bytes;
    for (size_t i = 1; (bytes = piece_of(s, i, &length)); i++) hash = hash_bytes(hash, bytes, length);
    return hash;
}

static nibl_state state_of(const nibl_session *s, uint32_t tokens) {
    nibl_state state = {.model = fingerprint(s->model),
                        .kv_type = s->options.kv_type,
                        .activations = s->options.activations,
                        .long_rope = is_long(s),
                        .tokens = tokens};
    memcpy(state.magic, MAGIC, sizeof MAGIC);
    return state;
}

static nibl_status check_complete(const nibl_session *s) {
    if (nibl_model_complete(s->model)) return NIBL_OK;
    return nibl_fail(NIBL_E_ARGUMENT, "a session is saved and restored when all weights have arrived");
}

nibl_status nibl_session_save(nibl_session *s, size_t piece, const void **bytes, size_t *length) {
    NIBL_TRY(check_complete(s));
    if (piece == 0) {
        s->state = state_of(s, (uint32_t)s->computed);
        s->state.checksum = nibl_session_checksum(s);
    }
    *bytes = piece_of(s, piece, length);
    return NIBL_OK;
}

/* The header is there. */
static nibl_status begin_state(nibl_session *s) {
    const nibl_state *given = &s->state;
    nibl_state ours = state_of(s, given->tokens);
    const char *what = NULL;
    if (memcmp(given->magic, ours.magic, sizeof ours.magic) != 0)
        what = "these bytes are no saved session, or one of another version";
    else if (given->model != ours.model)
        what = "the session was saved with another model";
    else if (given->kv_type != ours.kv_type || given->activations != ours.activations)
        what = "the session was saved with another kv_type or other activations";
    else if (given->long_rope != ours.long_rope)
        what = "the session was saved with the RoPE of another context length";
    if (what) return nibl_fail(NIBL_E_STATE, "%s", what);
    if (given->tokens > s->options.context_length)
        return nibl_fail(NIBL_E_CONTEXT, "the saved session has %u tokens, the context %u", given->tokens,
                         s->options.context_length);
    NIBL_TRY(nibl_session_reserve(s, given->tokens));
    return nibl_kv_reserve(&s->kv, given->tokens);
}

/* All bytes are there. */
static nibl_status finish_state(nibl_session *s) {
    bool right = nibl_session_checksum(s) == s->state.checksum && nibl_kv_check(&s->kv, s->state.tokens);
    for (uint32_t i = 0; i < s->state.tokens; i++)
        right = right && s->tokens[i] >= 0 && (uint32_t)s->tokens[i] < s->model->hyper.vocabulary;
    if (!right) return nibl_fail(NIBL_E_STATE, "the saved session is damaged");
    nibl_session_reset(s, s->state.tokens, s->state.tokens);
    return NIBL_OK;
}

nibl_status nibl_session_restore(nibl_session *s, const void *bytes, size_t length, bool begin) {
    const char *from = bytes;
    NIBL_TRY(check_complete(s));
    if (begin) {
        nibl_session_reset(s, 0, 0);
        s->state = (nibl_state){.tokens = 0};
        s->state_piece = s->state_at = 0;
    }
    size_t piece_length;
    char *piece = piece_of(s, s->state_piece, &piece_length);
    while (piece && length > 0) {
        const size_t left = piece_length - s->state_at, n = left < length ? left : length;
        memcpy(piece + s->state_at, from, n);
        from += n;
        length -= n;
        if ((s->state_at += n) < piece_length) continue;
        s->state_at = 0;
        if (s->state_piece++ == 0) {
            const nibl_status status = begin_state(s);
            if (status < 0) {
                s->state.tokens = 0;
                return status;
            }
        }
        piece = piece_of(s, s->state_piece, &piece_length);
    }
    if (piece) return NIBL_NEED_DATA;
    if (length > 0) return nibl_fail(NIBL_E_STATE, "there are bytes behind the saved session");
    return finish_state(s);
}

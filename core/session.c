#include "core/session.h"

#include "core/hash.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_CONTEXT = 4096, DEFAULT_CHUNK = 64 };

/* The sessions whose rows a run works on, with the epochs they had then. */
typedef struct member {
    nibl_session *session;
    uint64_t epoch;
    size_t taken;
    uint32_t guessed;
} member;

struct nibl_batch {
    nibl_run *run;
    member *members;
    size_t capacity, count;
    bool active;
    nibl_row *rows;
    size_t row_capacity;
};

static void batch_free(struct nibl_batch *batch) {
    if (!batch) return;
    nibl_run_free(batch->run);
    nibl_free(batch->members);
    nibl_free(batch->rows);
    nibl_free(batch);
}

static nibl_status batch_of(nibl_model *model, struct nibl_batch **out) {
    if (!model->batch) {
        struct nibl_batch *batch = nibl_alloc_zero(sizeof *batch);
        if (!batch) return nibl_fail_memory(sizeof *batch, "the batch");
        nibl_status status = nibl_run_new(model, &batch->run);
        if (status < 0) {
            nibl_free(batch);
            return status;
        }
        model->batch = batch;
        model->free_batch = batch_free;
    }
    *out = model->batch;
    return NIBL_OK;
}

/* ---- Life ---- */

nibl_status nibl_session_defaults(const nibl_hyper *h, nibl_session_options *o) {
    if (o->context_length == 0)
        o->context_length = h->context_length < DEFAULT_CONTEXT ? h->context_length : DEFAULT_CONTEXT;
    if (o->chunk == 0) o->chunk = DEFAULT_CHUNK;
    if (o->threads == 0) o->threads = 1;
    const struct {
        const char *name;
        uint32_t value, max;
    } limits[] = {{"context_length", o->context_length, h->context_length},
                  {"chunk", o->chunk, NIBL_MAX_CHUNK},
                  {"threads", o->threads, NIBL_MAX_THREADS},
                  {"kv_type", o->kv_type, NIBL_KV_F32},
                  {"activations", o->activations, NIBL_ACT_F32},
                  {"logits", o->logits, NIBL_LOGITS_ALL}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (limits[i].value > limits[i].max)
            return nibl_fail(NIBL_E_ARGUMENT, "session option %s is %u; at most %u is possible",
                             limits[i].name, limits[i].value, limits[i].max);
    return NIBL_OK;
}

nibl_status nibl_session_grow_pool(nibl_model *model, uint32_t threads) {
    if (threads <= nibl_pool_workers(model->pool)) return NIBL_OK;
    nibl_pool *pool;
    NIBL_TRY(nibl_pool_new(threads, &pool));
    nibl_pool_free(model->pool);
    model->pool = pool;
    return NIBL_OK;
}

nibl_status nibl_session_new(nibl_model *model, const nibl_session_options *options, nibl_session **out) {
    nibl_session_options filled = {.size = sizeof filled};
    if (options) {
        if (options->size != sizeof filled)
            return nibl_fail(NIBL_E_ARGUMENT, "nibl_session_options.size is %zu, must be %zu", options->size,
                             sizeof filled);
        filled = *options;
    }
    NIBL_TRY(nibl_session_defaults(&model->hyper, &filled));
    NIBL_TRY(nibl_session_grow_pool(model, filled.threads));
    nibl_session *s = nibl_alloc_zero(sizeof *s);
    if (!s) return nibl_fail_memory(sizeof *s, "the session");
    s->model = model;
    s->options = filled;
    s->speculate = true;
    nibl_lookup_forget(&s->lookup);
    nibl_kv_init(&s->kv, &model->hyper, filled.kv_type, filled.context_length);
    *out = s;
    return NIBL_OK;
}

/* A run that works on this session must start over. */
static void forget_run(nibl_session *s) {
    struct nibl_batch *batch = s->model->batch;
    s->epoch++;
    for (size_t i = 0; batch && i < batch->count; i++)
        if (batch->members[i].session == s) batch->active = false;
}

void nibl_session_free(nibl_session *s) {
    if (!s) return;
    forget_run(s);
    nibl_kv_free(&s->kv);
    nibl_lookup_free(&s->lookup);
    nibl_free(s->tokens);
    nibl_free(s->logits);
    nibl_free(s->sum);
    nibl_free(s->hidden);
    nibl_free(s);
}

/* ---- Tokens ---- */

static nibl_status check_tokens(const nibl_session *s, const int32_t *tokens, size_t count, size_t total) {
    if (total > s->options.context_length)
        return nibl_fail(NIBL_E_CONTEXT, "%zu tokens do not fit the context of %u", total,
                         s->options.context_length);
    for (size_t i = 0; i < count; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->hyper.vocabulary)
            return nibl_fail(NIBL_E_ARGUMENT, "token %zu is %d; the vocabulary has %u", i, (int)tokens[i],
                             s->model->hyper.vocabulary);
    return NIBL_OK;
}

nibl_status nibl_session_reserve(nibl_session *s, size_t count) {
    void *array = s->tokens;
    nibl_status status = nibl_reserve(&array, &s->token_capacity, count, sizeof *s->tokens, "tokens");
    s->tokens = array;
    return status;
}

void nibl_session_reset(nibl_session *s, size_t count, size_t computed) {
    forget_run(s);
    s->count = s->answer = count;
    s->computed = computed;
    s->logit_rows = 0;
    s->hash = 0;
    s->ahead = 0;
    s->proposed = s->accepted = 0;
    s->summed = 0;
    nibl_lookup_forget(&s->lookup);
}

static nibl_status reserve_embedding(nibl_session *s) {
    const uint64_t bytes = 4ull * s->model->hyper.width;
    if (!s->embeds) return NIBL_OK;
    if (!s->sum) s->sum = nibl_alloc(bytes);
    if (!s->hidden) s->hidden = nibl_alloc(bytes);
    return s->sum && s->hidden ? NIBL_OK : nibl_fail_memory(bytes, "an embedding");
}

nibl_status nibl_session_set_tokens(nibl_session *s, const int32_t *tokens, size_t count, size_t *reused) {
    if (count == 0) return nibl_fail(NIBL_E_ARGUMENT, "a sequence needs at least one token");
    NIBL_TRY(check_tokens(s, tokens, count, count));
    NIBL_TRY(nibl_session_reserve(s, count));
    NIBL_TRY(reserve_embedding(s));
    size_t same = 0;
    const size_t most = s->embeds                 ? 0
                        : s->computed < count - 1 ? s->computed
                                                  : count - 1; /* the last one is needed for its logits */
    while (same < most && s->tokens[same] == tokens[same]) same++;
    memmove(s->tokens, tokens, count * sizeof *tokens);
    nibl_session_reset(s, count, same);
    if (reused) *reused = same;
    return NIBL_OK;
}

nibl_status nibl_session_append(nibl_session *s, const int32_t *tokens, size_t count) {
    NIBL_TRY(check_tokens(s, tokens, count, s->count + count));
    NIBL_TRY(nibl_session_reserve(s, s->count + count));
    const bool one = count == 1 && s->computed == s->count;
    if (s->ahead && (!one || tokens[0] != s->guesses[s->guessed - s->ahead])) s->ahead = 0;
    memcpy(s->tokens + s->count, tokens, count * sizeof *tokens);
    s->count += count;
    if (!one) s->answer = s->count;
    return NIBL_OK;
}

void nibl_session_length(const nibl_session *s, size_t *tokens, size_t *computed) {
    if (tokens) *tokens = s->count;
    if (computed) *computed = s->computed;
}

/* ---- Steps ---- */

static bool matches(const struct nibl_batch *batch, nibl_session *const *sessions, size_t count) {
    if (!batch->active || batch->count != count) return false;
    for (size_t i = 0; i < count; i++)
        if (batch->members[i].session != sessions[i] || batch->members[i].epoch != sessions[i]->epoch)
            return false;
    return true;
}

/* Guesses what follows the session's one token that is due; returns how many tokens. They are computed with it where
 * memory for them can be had. */
static uint32_t guess(nibl_session *s, size_t spare) {
    if (!s->speculate || s->embeds || s->options.logits == NIBL_LOGITS_ALL) return 0;
    const size_t left = s->options.context_length - s->count;
    size_t most = left < spare ? left : spare;
    if (most > NIBL_GUESSES) most = NIBL_GUESSES;
    nibl_lookup_learn(&s->lookup, s->tokens, s->count, s->answer);
    s->guessed = nibl_lookup_guess(&s->lookup, s->tokens, (uint32_t)most, s->guesses);
    if (nibl_kv_reserve(&s->kv, (uint32_t)(s->count + s->guessed)) < 0) s->guessed = 0;
    return s->guessed;
}

/* Gathers the next rows of all sessions: one chunk, or, while weights are still arriving, all there is, so that every
 * layer is computed when it comes. *rows may be 0. */
static nibl_status begin_run(struct nibl_batch *batch, nibl_session *const *sessions, size_t count,
                             uint32_t *rows) {
    const nibl_session_options *first = &sessions[0]->options;
    bool whole = !nibl_model_complete(sessions[0]->model);
    size_t pending = 0;
    for (size_t i = 0; i < count; i++) {
        const nibl_session *s = sessions[i];
        if (s->model != sessions[0]->model || s->options.activations != first->activations)
            return nibl_fail(NIBL_E_ARGUMENT,
                             "sessions of one step must share the model and the kind of activations");
        for (size_t j = 0; j < i; j++)
            if (sessions[j] == s)
                return nibl_fail(NIBL_E_ARGUMENT, "session %zu stands twice in one step", i);
        pending += s->count - s->computed;
        whole = whole && s->options.logits == NIBL_LOGITS_LAST;
    }
    size_t room = whole || pending < first->chunk ? pending : first->chunk;
    size_t spare = whole ? 0 : first->chunk - room;
    void *array = batch->members;
    nibl_status status = nibl_reserve(&array, &batch->capacity, count, sizeof *batch->members, "the batch");
    batch->members = array;
    NIBL_TRY(status);
    array = batch->rows;
    status = nibl_reserve(&array, &batch->row_capacity, room + spare, sizeof *batch->rows, "the batch");
    batch->rows = array;
    NIBL_TRY(status);

    *rows = 0;
    batch->count = count;
    for (size_t i = 0; i < count; i++) {
        nibl_session *s = sessions[i];
        const size_t left = s->count - s->computed, taken = left < room ? left : room;
        room -= taken;
        NIBL_TRY(nibl_kv_reserve(&s->kv, (uint32_t)(s->computed + taken)));
        const uint32_t guessed = left == 1 && taken == 1 ? guess(s, spare) : 0;
        spare -= guessed;
        batch->members[i] = (member){s, s->epoch, taken, guessed};
        for (size_t t = s->computed; t < s->computed + taken; t++)
            batch->rows[(*rows)++] = (nibl_row){
                .kv = &s->kv,
                .token = s->tokens[t],
                .position = (uint32_t)t,
                .logits = !s->embeds && (s->options.logits == NIBL_LOGITS_ALL || t + 1 == s->count),
                .hidden = s->embeds};
        for (uint32_t g = 0; g < guessed; g++)
            batch->rows[(*rows)++] = (nibl_row){
                .kv = &s->kv, .token = s->guesses[g], .position = (uint32_t)(s->count + g), .logits = true};
    }
    if (*rows == 0) return NIBL_OK;
    NIBL_TRY(nibl_run_begin(batch->run, batch->rows, *rows, first->chunk, first->activations));
    batch->active = true;
    return NIBL_OK;
}

/* Takes row r of the logits, that of `position`, into the session's result. */
static nibl_status take_row(nibl_session *s, size_t r, size_t position) {
    const uint32_t vocabulary = s->model->hyper.vocabulary;
    bool finite;
    s->hash = nibl_hash_row(s->hash, s->logits + r * vocabulary, vocabulary, &finite);
    if (finite) return NIBL_OK;
    return nibl_fail(
        NIBL_E_NUMERIC,
        "logits of position %zu are not finite: the model file is damaged or its values overflow", position);
}

/* Takes the hidden states of the next rows of a run. */
static void take_hidden(nibl_session *s, const nibl_run *run, uint32_t row, size_t count) {
    const uint32_t width = s->model->hyper.width;
    for (uint32_t i = 0; i < count; i++) {
        nibl_run_hidden(run, row + i, s->hidden);
        if (s->summed++ == 0) memset(s->sum, 0, width * sizeof *s->sum);
        for (uint32_t d = 0; d < width; d++) s->sum[d] += s->hidden[d];
    }
}

/* Hands the finished rows' logits to their sessions. */
static nibl_status finish_run(struct nibl_batch *batch) {
    batch->active = false;
    uint32_t next = 0, row = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const member *m = &batch->members[i];
        nibl_session *s = m->session;
        if (m->taken == 0) continue;
        const uint32_t vocabulary = s->model->hyper.vocabulary;
        size_t wanted = 0;
        if (s->embeds) take_hidden(s, batch->run, row, m->taken);
        for (size_t t = 0; t < m->taken; t++) wanted += batch->rows[row++].logits;
        row += m->guessed;
        s->logit_rows = s->logit_begin = s->ahead = 0;
        void *array = s->logits;
        nibl_status status = nibl_reserve(&array, &s->logit_capacity, (wanted + m->guessed) * vocabulary,
                                          sizeof *s->logits, "logits");
        s->logits = array;
        NIBL_TRY(status);
        const size_t first = s->computed + m->taken - wanted;
        for (size_t r = 0; r < wanted + m->guessed; r++) {
            memcpy(s->logits + r * vocabulary, nibl_run_logits(batch->run, next++),
                   vocabulary * sizeof *s->logits);
            if (r < wanted) NIBL_TRY(take_row(s, r, first + r));
        }
        s->computed += m->taken;
        s->logit_rows = wanted;
        s->logit_first = first;
        s->proposed += m->guessed;
        nibl_lookup_computed(&s->lookup, m->guessed);
        if (s->computed == s->count) s->ahead = m->guessed; /* else tokens were appended meanwhile */
    }
    return NIBL_OK;
}

/* Where the appended token is the one that was guessed, its row is there already. */
static nibl_status take_guess(nibl_session *s) {
    if (s->ahead == 0 || s->computed == s->count) return NIBL_OK;
    s->ahead--;
    s->accepted++;
    nibl_lookup_was_right(&s->lookup);
    s->logit_rows = 0;
    NIBL_TRY(take_row(s, ++s->logit_begin, s->computed));
    s->logit_rows = 1;
    s->logit_first = s->computed++;
    return NIBL_OK;
}

nibl_status nibl_step(nibl_session *const *sessions, size_t count, uint32_t max_units) {
    if (count == 0) return nibl_fail(NIBL_E_ARGUMENT, "a step needs at least one session");
    struct nibl_batch *batch = NULL;
    NIBL_TRY(batch_of(sessions[0]->model, &batch));
    uint32_t units = max_units ? max_units : UINT32_MAX;
    for (size_t i = 0; i < count; i++) NIBL_TRY(take_guess(sessions[i]));
    for (;;) {
        uint32_t rows = 1;
        if (!matches(batch, sessions, count)) NIBL_TRY(begin_run(batch, sessions, count, &rows));
        if (rows == 0) return NIBL_OK;
        nibl_status status = nibl_run_advance(batch->run, &units);
        if (status != NIBL_OK) return status;
        NIBL_TRY(finish_run(batch));
        bool read = units == 0, pending = false;
        for (size_t i = 0; i < count; i++) {
            const nibl_session *s = sessions[i];
            const bool done = s->computed == s->count;
            read = read || done || s->options.logits == NIBL_LOGITS_ALL;
            pending = pending || !done;
        }
        if (!pending) return NIBL_OK;
        if (read) return NIBL_MORE;
    }
}

nibl_status nibl_session_logits(const nibl_session *s, const float **logits, size_t *first, size_t *count) {
    if (s->logit_rows == 0)
        return nibl_fail(NIBL_E_ARGUMENT, "the session has no logits yet: run nibl_step until it is done");
    *logits = s->logits + s->logit_begin * s->model->hyper.vocabulary;
    if (first) *first = s->logit_first;
    if (count) *count = s->logit_rows;
    return NIBL_OK;
}

void nibl_session_embed(nibl_session *s, bool on) {
    nibl_session_reset(s, 0, 0);
    s->embeds = on;
}

nibl_status nibl_session_embedding(const nibl_session *s, uint32_t pooling, bool normalise, float *out) {
    const uint32_t width = s->model->hyper.width;
    if (pooling > NIBL_POOL_LAST) return nibl_fail(NIBL_E_ARGUMENT, "there is no pooling %u", pooling);
    if (s->summed == 0 || s->summed < s->count)
        return nibl_fail(NIBL_E_ARGUMENT, "the session has no embedding yet: nibl_session_embed, "
                                          "nibl_session_set_tokens, then nibl_step until it is done");
    double squares = 0;
    for (uint32_t d = 0; d < width; d++) {
        out[d] = pooling == NIBL_POOL_LAST ? s->hidden[d] : s->sum[d] / (float)s->summed;
        squares += (double)out[d] * (double)out[d];
    }
    if (!(squares < (double)INFINITY))
        return nibl_fail(NIBL_E_NUMERIC,
                         "the embedding is not finite: the model file is damaged or its values overflow");
    const float scale = normalise && squares > 0 ? (float)(1 / sqrt(squares)) : 1;
    for (uint32_t d = 0; d < width; d++) out[d] *= scale;
    return NIBL_OK;
}

uint64_t nibl_session_hash(const nibl_session *s) { return s->hash; }

void nibl_session_speculate(nibl_session *s, bool on) { s->speculate = on; }

void nibl_session_guesses(const nibl_session *s, uint64_t *proposed, uint64_t *accepted) {
    if (proposed) *proposed = s->proposed;
    if (accepted) *accepted = s->accepted;
}

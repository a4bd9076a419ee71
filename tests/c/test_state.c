/* Sessions copied, saved and restored go on with the same bits; hostile states are refused. Embeddings are those of
 * `transformers` (fixtures/embeddings.py). */
#include "core/kvcache.h"
#include "core/session.h"
#include "tests/c/fixture.h"
#include "tests/c/hostile.h"

enum { SAVED = 40, LATER = 20, VOCABULARY = 100 };

static int32_t ids[SAVED + LATER];
static nibl_model *model;

static bool open_model(const char *path) {
    for (int i = 0; i < SAVED + LATER; i++) ids[i] = (i * 37 + 11) % VOCABULARY;
    model = load_file(path);
    return CHECK(model != NULL);
}

static nibl_session *session_of(nibl_model *m, nibl_session_options o) {
    nibl_session *s = NULL;
    o.size = sizeof o;
    CHECK_EQ(nibl_session_new(m, &o, &s), NIBL_OK);
    return s;
}

/* Hash of the logits that follow once `count` ids are the sequence; *reused is told. */
static uint64_t go_on(nibl_session *s, size_t count, size_t reused) {
    size_t same = 0;
    if (!CHECK_EQ(nibl_session_set_tokens(s, ids, count, &same), NIBL_OK) || !CHECK_EQ(same, reused) ||
        !CHECK_EQ(nibl_step(&s, 1, 0), NIBL_OK))
        return 0;
    return nibl_session_hash(s);
}

/* The whole state; the caller frees. */
static uint8_t *save(nibl_session *s, size_t *length) {
    uint8_t *bytes = NULL;
    const void *piece;
    size_t n = 1;
    *length = 0;
    for (size_t i = 0; CHECK_EQ(nibl_session_save(s, i, &piece, &n), NIBL_OK) && n > 0; i++) {
        bytes = realloc(bytes, *length + n);
        memcpy(bytes + *length, piece, n);
        *length += n;
    }
    return bytes;
}

static nibl_status restore(nibl_session *s, const uint8_t *bytes, size_t length, size_t chunk) {
    nibl_status status = NIBL_NEED_DATA;
    for (size_t at = 0; at < length && status == NIBL_NEED_DATA; at += chunk) {
        const size_t n = length - at < chunk ? length - at : chunk;
        uint8_t *exact = malloc(n); /* for sanitizers to see its end */
        memcpy(exact, bytes + at, n);
        status = nibl_session_restore(s, exact, n, at == 0);
        free(exact);
    }
    return status;
}

static const struct {
    const char *path;
    nibl_session_options options;
} kinds[] = {{"tests/fixtures/tiny-llama-q4_1.gguf", {.kv_type = NIBL_KV_I8}},
             {"tests/fixtures/tiny-llama-q4_1.gguf", {.kv_type = NIBL_KV_F16}},
             {"tests/fixtures/tiny-llama-f32.gguf", {.kv_type = NIBL_KV_F32, .activations = NIBL_ACT_F32}},
             {"tests/fixtures/arch/lfm2.gguf", {.kv_type = NIBL_KV_I8}},
             {"tests/fixtures/arch/gemma2.gguf", {.kv_type = NIBL_KV_I8}}};

static void a_session_that_came_back_goes_on_with_the_same_bits(void) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (!open_model(kinds[k].path)) return;
        nibl_session_options o = kinds[k].options;
        nibl_session *original = session_of(model, o), *whole = session_of(model, o);
        go_on(original, SAVED, 0);
        size_t length = 0, again = 0;
        uint8_t *bytes = save(original, &length);
        const uint64_t expected = go_on(original, SAVED + LATER, SAVED);
        CHECK(expected != 0 && expected == go_on(whole, SAVED + LATER, 0));

        nibl_model *other = load_file(kinds[k].path);
        o.context_length = 100;
        o.chunk = 7;
        o.threads = 2;
        nibl_session *back = session_of(other, o);
        go_on(back, 5, 0);
        for (size_t chunk = 1; chunk < length; chunk = chunk * 37 + 5) {
            CHECK_EQ(restore(back, bytes, length, chunk), NIBL_OK);
            size_t tokens, computed;
            nibl_session_length(back, &tokens, &computed);
            CHECK(tokens == SAVED && computed == SAVED);
            uint8_t *same = save(back, &again);
            CHECK(again == length && memcmp(bytes, same, length) == 0);
            free(same);
            CHECK_EQ(go_on(back, SAVED + LATER, SAVED), expected);
            CHECK_EQ(go_on(back, SAVED, SAVED - 1), go_on(whole, SAVED, SAVED - 1));
        }
        /* Appended to, without naming the tokens again. */
        CHECK_EQ(restore(back, bytes, length, length), NIBL_OK);
        CHECK_EQ(nibl_session_append(back, ids + SAVED, LATER), NIBL_OK);
        CHECK_EQ(nibl_step(&back, 1, 0), NIBL_OK);
        CHECK_EQ(nibl_session_hash(back), expected);
        nibl_session_free(back);
        nibl_session_free(original);
        nibl_session_free(whole);
        nibl_model_free(other);
        nibl_model_free(model);
        free(bytes);
    }
}

static void a_copy_is_a_session_of_its_own(void) {
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (!open_model(kinds[k].path)) return;
        nibl_session_options o = kinds[k].options;
        nibl_session *from = session_of(model, o), *fresh = session_of(model, o);
        o.context_length = 100;
        nibl_session *copy = session_of(model, o);
        go_on(from, SAVED, 0);
        go_on(copy, 9, 0);
        CHECK_EQ(nibl_session_copy(copy, from, 30), NIBL_OK);
        CHECK_EQ(go_on(copy, SAVED + LATER, 30), go_on(fresh, SAVED + LATER, 0));
        CHECK_EQ(go_on(from, SAVED + 3, SAVED), go_on(fresh, SAVED + 3, SAVED + 2));
        /* What is not computed yet is copied as that. */
        CHECK_EQ(nibl_session_append(from, ids + SAVED + 3, 5), NIBL_OK);
        CHECK_EQ(nibl_session_copy(copy, from, SAVED + 8), NIBL_OK);
        CHECK_EQ(nibl_step(&copy, 1, 0), NIBL_OK);
        CHECK_EQ(nibl_session_hash(copy), go_on(fresh, SAVED + 8, SAVED + 3));

        CHECK_EQ(nibl_session_copy(copy, from, SAVED + 9), NIBL_E_ARGUMENT);
        CHECK_EQ(nibl_session_copy(copy, copy, 1), NIBL_E_ARGUMENT);
        o.context_length = SAVED;
        nibl_session *narrow = session_of(model, o);
        CHECK_EQ(nibl_session_copy(narrow, from, SAVED + 1), NIBL_E_CONTEXT);
        CHECK_EQ(nibl_session_copy(narrow, from, 0), NIBL_OK);
        nibl_session_free(narrow);
        o = kinds[k].options;
        o.kv_type = (o.kv_type + 1) % 3;
        nibl_session *other = session_of(model, o);
        CHECK_EQ(nibl_session_copy(other, from, 3), NIBL_E_ARGUMENT);
        nibl_session_free(other);
        nibl_session_free(from);
        nibl_session_free(copy);
        nibl_session_free(fresh);
        nibl_model_free(model);
    }
}

static void refused(nibl_session *s, const uint8_t *bytes, size_t length, nibl_status expected,
                    const char *message) {
    CHECK_EQ(restore(s, bytes, length, 1000), expected);
    if (expected < 0) CHECK_HAS(nibl_last_message(), message);
    size_t tokens, computed;
    nibl_session_length(s, &tokens, &computed);
    CHECK(tokens == 0 && computed == 0);
}

/* The checksum of changed bytes: whoever sends them can compute it. */
static void sign(nibl_session *s, uint8_t *bytes, size_t length) {
    nibl_state right;
    CHECK_EQ(restore(s, bytes, length, length), NIBL_E_STATE);
    memcpy(&right, bytes, sizeof right);
    uint64_t checksum = nibl_session_checksum(s);
    memcpy(bytes + offsetof(nibl_state, checksum), &checksum, 8);
}

static void hostile_states_are_refused(void) {
    if (!open_model(kinds[0].path)) return;
    nibl_session *s = session_of(model, kinds[0].options);
    go_on(s, SAVED, 0);
    size_t length = 0;
    uint8_t *bytes = save(s, &length), *bad = malloc(length + 1);

    for (size_t at = 0; at < length; at += at < 256 ? 1 : 997) { /* every bit counts */
        memcpy(bad, bytes, length);
        bad[at] ^= (uint8_t)(1 << at % 8);
        const nibl_status status = restore(s, bad, length, 512);
        CHECK(status == NIBL_E_STATE || status == NIBL_E_CONTEXT || status == NIBL_NEED_DATA);
    }
    refused(s, bytes, length - 1, NIBL_NEED_DATA, "");
    memcpy(bad, bytes, length);
    bad[length] = 0;
    refused(s, bad, length + 1, NIBL_E_STATE, "behind");
    refused(s, (const uint8_t *)"GGUF and more, which is no state at all.", 40, NIBL_E_STATE,
            "no saved session");

    /* Codes that kernels do not take, tokens that there are not, with the right checksum. */
    const size_t block = sizeof(nibl_state) + 4 * SAVED;
    const struct {
        size_t at;
        uint8_t byte;
    } changes[] = {{block + 3, 0x7F},
                   {block + 3, 0xFF},
                   {block + sizeof(nibl_attn_i8) + 5, 0x80},
                   {block + sizeof(nibl_attn_i8) + 64 * nibl_attn_i8_width(model->hyper.head_width), 0x80},
                   {sizeof(nibl_state) + 3, 0xFF},
                   {sizeof(nibl_state) + 2, 0x7F}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        memcpy(bad, bytes, length);
        bad[changes[i].at] = changes[i].byte;
        if (i < 2) bad[block + 2] = 0x80; /* an infinity, a NaN */
        sign(s, bad, length);
        refused(s, bad, length, NIBL_E_STATE, "damaged");
    }

    /* Of other settings, another context, another model. */
    static const char *const words[] = {"kv_type", "activations", "another model", "context"};
    for (int i = 0; i < 4; i++) {
        nibl_session_options o = {.kv_type = i == 0 ? NIBL_KV_F16 : NIBL_KV_I8,
                                  .activations = i == 1 ? NIBL_ACT_F32 : NIBL_ACT_I8,
                                  .context_length = i == 3 ? SAVED - 1 : 0};
        nibl_model *other = i == 2 ? load_file("tests/fixtures/tiny-llama-q4_0.gguf") : NULL;
        nibl_session *there = session_of(other ? other : model, o);
        refused(there, bytes, length, i == 3 ? NIBL_E_CONTEXT : NIBL_E_STATE, words[i]);
        nibl_session_free(there);
        nibl_model_free(other);
    }
    CHECK_EQ(restore(s, bytes, length, length), NIBL_OK);
    for (int round = 0; round < 300; round++) { /* nonsense behind a header that is right */
        memcpy(bad, bytes, length);
        for (int n = 0; n < 20; n++)
            bad[random_below(round % 2 ? (uint32_t)length : 300)] = (uint8_t)random_below(256);
        CHECK(restore(s, bad, random_below((uint32_t)length), 1 + random_below(4000)) != NIBL_OK);
    }
    CHECK_EQ(restore(s, bytes, length, length), NIBL_OK);
    free(bad);
    free(bytes);
    nibl_session_free(s);
    nibl_model_free(model);
}

/* One weight, or one number of the header, is another model. */
static void a_state_belongs_to_one_model(void) {
    if (!open_model(kinds[0].path)) return;
    nibl_session *s = session_of(model, kinds[0].options);
    go_on(s, SAVED, 0);
    size_t length = 0;
    uint8_t *bytes = save(s, &length);
    nibl_model *other = load_file(kinds[0].path);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            other->layers[1].down->data[77] ^= 1;
        else
            other->hyper.rope.base += 1;
        other->fingerprint = 0;
        nibl_session *there = session_of(other, kinds[0].options);
        refused(there, bytes, length, NIBL_E_STATE, "another model");
        if (i == 0) other->layers[1].down->data[77] ^= 1;
        nibl_session_free(there);
    }
    nibl_model_free(other);
    nibl_session_free(s);
    nibl_model_free(model);
    free(bytes);
}

static void want_of_memory_is_told(void) {
    if (!open_model(kinds[0].path)) return;
    nibl_session *s = session_of(model, kinds[0].options);
    go_on(s, SAVED, 0);
    size_t length = 0;
    uint8_t *bytes = save(s, &length);
    for (int i = 0; i < 4; i++) {
        nibl_session *back = session_of(model, kinds[0].options), *copy = session_of(model, kinds[0].options);
        const uint64_t before = memory_now();
        nibl_test_fail_alloc(i);
        const nibl_status status = restore(back, bytes, length, length);
        nibl_test_fail_alloc(i);
        CHECK_EQ(nibl_session_copy(copy, s, SAVED), status);
        nibl_test_fail_alloc(-1);
        CHECK(status == NIBL_E_MEMORY || (i > 1 && status == NIBL_OK));
        CHECK_EQ(restore(back, bytes, length, length), NIBL_OK);
        CHECK_EQ(nibl_session_copy(copy, s, SAVED), NIBL_OK);
        CHECK(memory_now() > before);
        nibl_session_free(back);
        nibl_session_free(copy);
    }
    nibl_session_free(s);
    nibl_model_free(model);
    free(bytes);
}

/* ---- Embeddings ---- */

static void length_one(const float *x, uint32_t n) {
    double squares = 0;
    for (uint32_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
    CHECK(fabs(squares - 1) < 1e-5);
}

static void embeddings_are_those_of_transformers(void) {
    static const char *const names[] = {"tiny-llama-f32", "arch/qwen3", "arch/gpt2"};
    size_t length = 0, at = 0;
    uint8_t *bytes = read_file("tests/fixtures/embeddings.bin", &length);
    if (!CHECK(bytes != NULL)) return;
    for (size_t i = 0; i < 3; i++) {
        char path[96];
        fixture f = {0};
        snprintf(path, sizeof path, "tests/fixtures/%s", names[i]);
        if (!open_fixture(path, &f)) return;
        const uint32_t width = f.model->hyper.width;
        CHECK_EQ(nibl_load_u32(bytes + at), width);
        const float *expected = (const float *)(const void *)(bytes + at + 4);
        at += 4 + 8ul * width;
        nibl_session_options o = {.activations = NIBL_ACT_F32, .kv_type = NIBL_KV_F32};
        float first[256];
        for (uint32_t chunk = 64; chunk >= 1; chunk /= 4) {
            o.chunk = chunk;
            o.threads = chunk % 3 + 1;
            nibl_session *s = session_of(f.model, o), *beside = session_of(f.model, o);
            nibl_session_embed(s, true);
            for (int again = 0; again < 2; again++) { /* nothing is reused: the mean is of all */
                size_t reused = 1;
                CHECK_EQ(nibl_session_set_tokens(s, f.ids, f.tokens, &reused), NIBL_OK);
                CHECK_EQ(reused, 0);
                CHECK_EQ(nibl_session_set_tokens(beside, f.ids, 5, NULL), NIBL_OK);
                nibl_session *both[] = {s, beside};
                nibl_status status;
                while ((status = nibl_step(both, 2, 1)) == NIBL_MORE) {
                }
                CHECK_EQ(status, NIBL_OK);
                for (uint32_t pooling = 0; pooling < 2; pooling++) {
                    float x[256];
                    CHECK_EQ(nibl_session_embedding(s, pooling, false, x), NIBL_OK);
                    double worst = 0;
                    for (uint32_t d = 0; d < width; d++)
                        worst = fmax(worst, fabs((double)x[d] - (double)expected[pooling * width + d]));
                    CHECK(worst < 2e-5);
                    if (chunk == 64 && pooling == 0) memcpy(first, x, width * sizeof *x);
                    if (pooling == 0) CHECK(memcmp(first, x, width * sizeof *x) == 0);
                    CHECK_EQ(nibl_session_embedding(s, pooling, true, x), NIBL_OK);
                    length_one(x, width);
                }
            }
            const float *logits;
            float x[256];
            CHECK_EQ(nibl_session_logits(s, &logits, NULL, NULL), NIBL_E_ARGUMENT);
            CHECK_EQ(nibl_session_embedding(beside, 0, true, x), NIBL_E_ARGUMENT);
            CHECK_EQ(nibl_session_embedding(s, 2, true, x), NIBL_E_ARGUMENT);
            nibl_session_embed(s, false);
            CHECK_EQ(nibl_session_embedding(s, 0, true, x), NIBL_E_ARGUMENT);
            CHECK_EQ(nibl_session_set_tokens(s, f.ids, 5, NULL), NIBL_OK);
            CHECK_EQ(nibl_step(&s, 1, 0), NIBL_OK);
            CHECK_EQ(nibl_session_hash(s), nibl_session_hash(beside));
            nibl_session_free(s);
            nibl_session_free(beside);
        }
        close_fixture(&f);
    }
    CHECK_EQ(at, length);
    free(bytes);
}

int main(void) {
    static const test tests[] = {
        {"a session that came back goes on with the same bits",
         a_session_that_came_back_goes_on_with_the_same_bits},
        {"a copy is a session of its own", a_copy_is_a_session_of_its_own},
        {"hostile states are refused", hostile_states_are_refused},
        {"a state belongs to one model", a_state_belongs_to_one_model},
        {"want of memory is told", want_of_memory_is_told},
        {"embeddings are those of transformers", embeddings_are_those_of_transformers},
    };
    const int failed = test_run(tests, sizeof tests / sizeof *tests);
    return CHECK_EQ(memory_now(), 0) ? failed : 1;
}

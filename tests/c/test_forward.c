/* The exact path against `transformers` on tiny models of every weight type, and one result for every way of running. */
#include "tests/c/fixture.h"

static const char *const types[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};

static bool open_tiny(const char *type, fixture *f) {
    char path[96];
    snprintf(path, sizeof path, "tests/fixtures/tiny-llama-%s", type);
    return open_fixture(path, f);
}

static void exact_path_matches_transformers(void) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        fixture f = {0};
        if (!open_tiny(types[i], &f)) continue;
        const double worst = exact_difference(&f, f.model);
        printf("%s: max abs difference %.2g\n", types[i], worst);
        CHECK(worst < 1e-4);
        close_fixture(&f);
    }
}

/* The fast path cannot be exact; it must be close, and far closer than chance. */
static void int8_path_is_close(void) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        fixture f = {0};
        if (!open_tiny(types[i], &f)) continue;
        float *logits = all_logits(f.model, (nibl_session_options){0}, f.ids, f.tokens);
        double error = 0, size = 0;
        for (size_t j = 0; j < (size_t)f.tokens * f.vocabulary; j++) {
            error += pow((double)logits[j] - (double)f.logits[j], 2);
            size += pow((double)f.logits[j], 2);
        }
        printf("%s: relative error %.2g\n", types[i], sqrt(error / size));
        CHECK(sqrt(error / size) < 0.06);
        free(logits);
        close_fixture(&f);
    }
}

static void chunks_and_threads_do_not_matter(void) {
    const nibl_session_options ways[] = {
        {.chunk = 1}, {.chunk = 5}, {.chunk = 7, .threads = 2}, {.threads = 3}, {.chunk = 1, .threads = 3}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        fixture f = {0};
        if (!open_tiny(types[i], &f)) continue;
        const size_t bytes = (size_t)f.tokens * f.vocabulary * sizeof(float);
        for (uint32_t kv_type = NIBL_KV_I8; kv_type <= NIBL_KV_F32; kv_type++) {
            float *whole = all_logits(f.model, (nibl_session_options){.kv_type = kv_type}, f.ids, f.tokens);
            for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                nibl_session_options way = ways[w];
                way.kv_type = kv_type;
                float *other = all_logits(f.model, way, f.ids, f.tokens);
                if (!CHECK(memcmp(whole, other, bytes) == 0))
                    printf("    %s, KV cache %u, way %zu\n", types[i], (unsigned)kv_type, w);
                free(other);
            }
            free(whole);
        }
        close_fixture(&f);
    }
}

/* Runs until done in steps of `units`; the hash of the last row. */
static uint64_t run(nibl_session **sessions, size_t count, uint32_t units) {
    nibl_status status;
    while ((status = nibl_step(sessions, count, units)) == NIBL_MORE) {
    }
    CHECK_EQ(status, NIBL_OK);
    return nibl_session_hash(sessions[0]);
}

static void units_reuse_and_batches_do_not_matter(void) {
    fixture f = {0};
    if (!open_tiny("q4_1", &f)) return;
    nibl_session *a = NULL, *b = NULL, *c = NULL;
    size_t reused = 99;
    CHECK_EQ(nibl_session_new(f.model, NULL, &a), NIBL_OK);
    CHECK_EQ(nibl_session_new(f.model, NULL, &b), NIBL_OK);
    CHECK_EQ(nibl_session_new(f.model, NULL, &c), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(a, f.ids, f.tokens, &reused), NIBL_OK);
    CHECK_EQ(reused, 0);
    const uint64_t whole = run(&a, 1, 0);
    CHECK(whole != 0);

    CHECK_EQ(nibl_session_set_tokens(b, f.ids, f.tokens, NULL), NIBL_OK);
    CHECK_EQ(run(&b, 1, 1), whole); /* one layer a step */

    CHECK_EQ(nibl_session_set_tokens(c, f.ids, 9, NULL), NIBL_OK);
    run(&c, 1, 0);
    CHECK_EQ(nibl_session_set_tokens(c, f.ids, f.tokens, &reused), NIBL_OK);
    CHECK_EQ(reused, 9);
    CHECK_EQ(run(&c, 1, 0), whole);
    CHECK_EQ(nibl_session_set_tokens(c, f.ids, f.tokens, &reused), NIBL_OK);
    CHECK_EQ(reused, f.tokens - 1); /* the last is computed again for its logits */
    CHECK_EQ(run(&c, 1, 0), whole);

    /* beside other sequences, one of them longer */
    int32_t other[64];
    for (int i = 0; i < 64; i++) other[i] = f.ids[(i * 7 + 3) % (int)f.tokens];
    nibl_session *three[] = {a, b, c};
    CHECK_EQ(nibl_session_set_tokens(a, &f.ids[0], 1, NULL), NIBL_OK);
    run(three, 1, 0);
    CHECK_EQ(nibl_session_set_tokens(a, f.ids, f.tokens, NULL), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(b, other, 64, NULL), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(c, other + 9, 5, NULL), NIBL_OK);
    CHECK_EQ(run(three, 3, 0), whole);

    /* token by token, in a batch with another */
    CHECK_EQ(nibl_session_set_tokens(b, other, 1, NULL), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(c, f.ids, 1, NULL), NIBL_OK);
    nibl_session *two[] = {b, c};
    for (uint32_t i = 1; i <= f.tokens; i++) {
        run(two, 2, 0);
        if (i == f.tokens) break;
        CHECK_EQ(nibl_session_append(b, &other[i], 1), NIBL_OK);
        CHECK_EQ(nibl_session_append(c, &f.ids[i], 1), NIBL_OK);
    }
    const float *last_a, *last_c;
    size_t rows;
    CHECK_EQ(nibl_session_logits(a, &last_a, NULL, &rows), NIBL_OK);
    CHECK_EQ(nibl_session_logits(c, &last_c, NULL, &rows), NIBL_OK);
    CHECK(memcmp(last_a, last_c, f.vocabulary * sizeof(float)) == 0);
    nibl_session_free(a);
    nibl_session_free(b);
    nibl_session_free(c);
    close_fixture(&f);
}

static void a_step_can_be_left_and_taken_up(void) {
    fixture f = {0};
    if (!open_tiny("q4_0", &f)) return;
    nibl_session *a = NULL, *b = NULL;
    CHECK_EQ(nibl_session_new(f.model, NULL, &a), NIBL_OK);
    CHECK_EQ(nibl_session_new(f.model, NULL, &b), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(a, f.ids, f.tokens, NULL), NIBL_OK);
    const uint64_t whole = run(&a, 1, 0);
    /* a run is left in the middle: by new tokens, by another session, by freeing its session */
    CHECK_EQ(nibl_session_set_tokens(b, f.ids + 3, 10, NULL), NIBL_OK);
    CHECK_EQ(nibl_step(&b, 1, 1), NIBL_MORE);
    CHECK_EQ(nibl_session_set_tokens(b, f.ids, f.tokens, NULL), NIBL_OK);
    CHECK_EQ(nibl_step(&b, 1, 1), NIBL_MORE);
    CHECK_EQ(nibl_session_set_tokens(a, f.ids, f.tokens, NULL), NIBL_OK);
    CHECK_EQ(run(&a, 1, 0), whole);
    CHECK_EQ(run(&b, 1, 0), whole);
    CHECK_EQ(nibl_session_set_tokens(b, f.ids, 12, NULL), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(b, f.ids + 1, 12, NULL), NIBL_OK);
    CHECK_EQ(nibl_step(&b, 1, 1), NIBL_MORE);
    nibl_session_free(b);
    CHECK_EQ(nibl_session_set_tokens(a, f.ids, f.tokens, NULL), NIBL_OK);
    CHECK_EQ(run(&a, 1, 0), whole);
    nibl_session_free(a);
    close_fixture(&f);
}

static void wrong_use_is_told(void) {
    fixture f = {0};
    if (!open_tiny("f32", &f)) return;
    nibl_session *s = NULL;
    nibl_session_options o = {.size = sizeof o, .context_length = 16};
    CHECK_EQ(nibl_session_new(f.model, &o, &s), NIBL_OK);
    CHECK_EQ(nibl_session_set_tokens(s, f.ids, 17, NULL), NIBL_E_CONTEXT);
    CHECK_HAS(nibl_last_message(), "context of 16");
    CHECK_EQ(nibl_session_set_tokens(s, f.ids, 0, NULL), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_session_set_tokens(s, (int32_t[]){-1}, 1, NULL), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_session_set_tokens(s, (int32_t[]){(int32_t)f.vocabulary}, 1, NULL), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_session_set_tokens(s, f.ids, 16, NULL), NIBL_OK);
    const float *rows;
    CHECK_EQ(nibl_session_logits(s, &rows, NULL, NULL), NIBL_E_ARGUMENT);
    run(&s, 1, 0);
    CHECK_EQ(nibl_session_append(s, f.ids, 1), NIBL_E_CONTEXT);
    nibl_session_free(s);
    o = (nibl_session_options){.size = sizeof o, .threads = 1000};
    CHECK_EQ(nibl_session_new(f.model, &o, &s), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "threads");
    o = (nibl_session_options){.size = sizeof o, .context_length = 1 << 30};
    CHECK_EQ(nibl_session_new(f.model, &o, &s), NIBL_E_ARGUMENT);
    o = (nibl_session_options){.size = 4};
    CHECK_EQ(nibl_session_new(f.model, &o, &s), NIBL_E_ARGUMENT);
    close_fixture(&f);
}

int main(void) {
    static const test tests[] = {
        {"the exact path gives the logits of transformers", exact_path_matches_transformers},
        {"the int8 path is close to them", int8_path_is_close},
        {"chunks and threads do not change a bit", chunks_and_threads_do_not_matter},
        {"units, prefix reuse and batches do not change a bit", units_reuse_and_batches_do_not_matter},
        {"a run can be left in the middle", a_step_can_be_left_and_taken_up},
        {"wrong use is told", wrong_use_is_told},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

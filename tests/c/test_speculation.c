/* Guessing ahead changes the time and nothing else: every session stands beside one that does not guess. */
#include "core/lookup.h"
#include "tests/c/model_file.h"

static nibl_model *models[2]; /* the same one, for a step belongs to a model */
static uint32_t vocabulary;

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t n) /* xorshift64* (Vigna 2016) */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545F4914F6CDD1Du >> 32) % n);
}

static bool open_model(const char *type) {
    char path[96];
    snprintf(path, sizeof path, "tests/fixtures/tiny-llama-%s.gguf", type);
    nibl_model_info info = {.size = sizeof info};
    for (int i = 0; i < 2; i++) models[i] = load_file(path);
    if (!CHECK(models[0] && models[1]) || !CHECK_EQ(nibl_model_get_info(models[0], &info), NIBL_OK))
        return false;
    vocabulary = info.vocabulary;
    return true;
}

static void close_model(void) {
    for (int i = 0; i < 2; i++) nibl_model_free(models[i]);
}

/* [0] does not guess, [1] does. */
typedef struct pair {
    nibl_session *sessions[2];
    bool left; /* in the middle of a step */
    uint64_t proposed, accepted; /* in all, by [1] */
} pair;

static pair new_pair(nibl_session_options o) {
    pair p = {0};
    o.size = sizeof o;
    for (int i = 0; i < 2; i++) CHECK_EQ(nibl_session_new(models[i], &o, &p.sessions[i]), NIBL_OK);
    nibl_session_speculate(p.sessions[0], false);
    return p;
}

static void free_pair(pair *p) {
    for (int i = 0; i < 2; i++) nibl_session_free(p->sessions[i]);
}

static void count_guesses(pair *p) {
    uint64_t proposed, accepted;
    nibl_session_guesses(p->sessions[0], &proposed, &accepted);
    CHECK_EQ(proposed, 0);
    CHECK_EQ(accepted, 0);
    nibl_session_guesses(p->sessions[1], &proposed, &accepted);
    CHECK(accepted <= proposed);
    p->proposed += proposed;
    p->accepted += accepted;
}

static void set_tokens(pair *p, const int32_t *tokens, size_t count) {
    size_t reused[2];
    count_guesses(p);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(nibl_session_set_tokens(p->sessions[i], tokens, count, &reused[i]), NIBL_OK);
    /* a step that was left half-way may have had a guess to give at once */
    CHECK(p->left ? reused[1] >= reused[0] : reused[1] == reused[0]);
    p->left = false;
}

static nibl_status append(pair *p, const int32_t *tokens, size_t count) {
    nibl_status status[2];
    for (int i = 0; i < 2; i++) status[i] = nibl_session_append(p->sessions[i], tokens, count);
    CHECK_EQ(status[1], status[0]);
    return status[0];
}

static void step(pair *p, uint32_t units) {
    for (int i = 0; i < 2; i++) {
        nibl_status status;
        while ((status = nibl_step(&p->sessions[i], 1, units)) == NIBL_MORE) {
        }
        CHECK_EQ(status, NIBL_OK);
    }
}

static bool same(const pair *p) {
    size_t count[2], computed[2], first[2], rows[2];
    const float *logits[2];
    for (int i = 0; i < 2; i++) {
        nibl_session_length(p->sessions[i], &count[i], &computed[i]);
        if (!CHECK_EQ(nibl_session_logits(p->sessions[i], &logits[i], &first[i], &rows[i]), NIBL_OK))
            return false;
    }
    const unsigned before = test_failures;
    CHECK_EQ(count[1], count[0]);
    CHECK_EQ(computed[1], computed[0]);
    CHECK_EQ(first[1], first[0]);
    CHECK(nibl_session_hash(p->sessions[1]) == nibl_session_hash(p->sessions[0]));
    if (CHECK_EQ(rows[1], rows[0]))
        CHECK(memcmp(logits[0], logits[1], rows[0] * vocabulary * sizeof(float)) == 0);
    return test_failures == before;
}

/* Both answer with samplers of the same options; returns the number of tokens, until the context or `most` ends it. */
static size_t answer(pair *p, nibl_sampler_options o, size_t most, int32_t *out) {
    nibl_sampler *samplers[2];
    size_t made = 0;
    o.size = sizeof o;
    for (int i = 0; i < 2; i++) CHECK_EQ(nibl_sampler_new(models[i], &o, &samplers[i]), NIBL_OK);
    for (bool going = true; going && made < most; made++) {
        int32_t tokens[2];
        float logprobs[2];
        for (int i = 0; i < 2; i++)
            CHECK_EQ(nibl_sample(samplers[i], p->sessions[i], &tokens[i], &logprobs[i]), NIBL_OK);
        going = CHECK_EQ(tokens[1], tokens[0]) && CHECK(logprobs[1] == logprobs[0]);
        out[made] = tokens[0];
        if (append(p, tokens, 1) != NIBL_OK) break;
        step(p, 0);
        going = same(p) && going;
    }
    for (int i = 0; i < 2; i++) nibl_sampler_free(samplers[i]);
    return made;
}

static const int32_t prompt[] = {5, 9, 9, 17, 3, 9, 40, 41, 5, 60, 61, 62, 63, 64, 65, 66};
enum { PROMPT = sizeof prompt / sizeof *prompt, MAX_TOKENS = 600 };

static const nibl_logit_bias one_of_few[] = {{7, 40}, {11, 40}, {13, 40}};
static const nibl_sampler_options ways[] = {
    {0}, /* an untrained model soon goes round in circles */
    {.temperature = 0.7f, .top_k = 2, .seed = 3},
    {.temperature = 0.02f, .top_p = 0.9f, .repeat_penalty = 1.01f, .repeat_window = 7, .seed = 4},
    {.temperature = 0.5f, .min_p = 0.1f, .seed = 5, .logit_bias = one_of_few, .logit_bias_count = 3},
};

static void answers_are_the_same(void) {
    static const char *const types[] = {"f32", "q8_0", "q4_0", "q4_1"};
    const nibl_session_options sessions[] = {
        {.context_length = 128}, {.threads = 2}, {.chunk = 6, .kv_type = NIBL_KV_F32}, {.chunk = 1}};
    uint64_t accepted[4] = {0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        if (!open_model(types[t])) continue;
        for (size_t s = 0; s < sizeof sessions / sizeof *sessions; s++) {
            pair p = new_pair(sessions[s]);
            for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
                int32_t tokens[PROMPT + MAX_TOKENS];
                memcpy(tokens, prompt, sizeof prompt);
                set_tokens(&p, tokens, PROMPT);
                step(&p, 0);
                size_t count = PROMPT + answer(&p, ways[w], 90, tokens + PROMPT);
                CHECK_EQ(count, PROMPT + 90);
                /* the next turn goes on from what this one left */
                for (size_t i = 0; i < PROMPT; i++) tokens[count++] = prompt[i] + 1;
                set_tokens(&p, tokens, count);
                step(&p, 2);
                same(&p);
                const size_t more = answer(&p, ways[w], 20, tokens + count);
                CHECK_EQ(more, s == 0 ? 128 - (PROMPT + 90 + PROMPT)
                                      : 20); /* a full context stops where it stops without guesses */
            }
            count_guesses(&p);
            accepted[s] += p.accepted;
            free_pair(&p);
        }
        close_model();
    }
    for (size_t s = 0; s < 4; s++)
        CHECK((accepted[s] > 0) == (sessions[s].chunk != 1)); /* with chunk 1 there is no room for guesses */
}

/* Given texts instead of sampled ones: all of it repeats, or breaks off wherever it is trusted again. */
static void guesses_may_all_be_right_or_all_be_wrong(void) {
    if (!open_model("q4_1")) return;
    pair p = new_pair((nibl_session_options){.context_length = 11 * PROMPT});
    set_tokens(&p, prompt, PROMPT);
    step(&p, 0);
    for (size_t i = 0; i < 10 * PROMPT; i++) {
        append(&p, &prompt[i % PROMPT], 1);
        step(&p, 0);
        if (!same(&p)) break;
    }
    count_guesses(&p);
    CHECK(p.accepted > 8 * PROMPT);
    CHECK_EQ(p.proposed, p.accepted); /* nothing is guessed beyond the end of the context */
    free_pair(&p);

    p = new_pair((nibl_session_options){0});
    int32_t tokens[MAX_TOKENS];
    for (size_t i = 0; i < PROMPT; i++) tokens[i] = prompt[i];
    set_tokens(&p, tokens, PROMPT);
    step(&p, 0);
    p.proposed = p.accepted = 0;
    uint64_t before = 0;
    for (size_t i = PROMPT; i < MAX_TOKENS; i++) {
        uint64_t proposed;
        nibl_session_guesses(p.sessions[1], &proposed, NULL);
        tokens[i] = proposed > before ? (int32_t)(100 + i % 97) : tokens[i - PROMPT];
        before = proposed;
        append(&p, &tokens[i], 1);
        step(&p, 0);
        if (!same(&p)) break;
    }
    set_tokens(&p, tokens, 1);
    CHECK(p.proposed > 0);
    CHECK_EQ(p.accepted, 0);
    free_pair(&p);
    close_model();
}

/* Texts of copies, edits and noise, and every way to use a session: steps left in the middle, tokens appended while a
 * step runs, several at once, other prefixes, guessing switched off and on, a batch with another session. */
static void any_use_gives_the_same(void) {
    if (!open_model("q4_0")) return;
    pair p = new_pair((nibl_session_options){.context_length = 256, .threads = 2});
    nibl_session *others[2];
    for (int i = 0; i < 2; i++) CHECK_EQ(nibl_session_new(models[i], NULL, &others[i]), NIBL_OK);
    int32_t text[256];
    size_t count = 0, source = 0;
    for (int round = 0; round < 4000 && test_failures == 0; round++) {
        if (round == 0 || count > 230 || random_below(200) == 0) {
            size_t kept = random_below((uint32_t)(count < 100 ? count : 100) + 1);
            for (uint32_t n = 4 + random_below(20); n > 0; n--) text[kept++] = (int32_t)random_below(30);
            count = kept;
            set_tokens(&p, text, count);
            step(&p, random_below(3));
            same(&p);
        }
        if (random_below(25) == 0) source = random_below((uint32_t)count);
        const size_t begin = count, several = random_below(15) == 0 ? 2 + random_below(4) : 1;
        while (count < begin + several) {
            text[count] = random_below(30) == 0 ? (int32_t)random_below(vocabulary) : text[source];
            count++;
            source++;
        }
        append(&p, &text[begin], several);
        switch (p.left ? 99 : random_below(12)) {
        case 0: /* left in the middle; the next tokens come meanwhile */
            for (int i = 0; i < 2; i++) CHECK(nibl_step(&p.sessions[i], 1, 1) >= 0);
            p.left = true;
            break;
        case 1: break; /* not computed before the next are appended */
        case 2: /* in one batch with another session */
            for (int i = 0; i < 2; i++) {
                nibl_session *both[] = {others[i], p.sessions[i]};
                CHECK_EQ(nibl_session_set_tokens(others[i], text, 1 + (size_t)round % count, NULL), NIBL_OK);
                while (nibl_step(both, 2, 1) == NIBL_MORE) {
                }
            }
            same(&p);
            break;
        default:
            if (random_below(20) == 0) nibl_session_speculate(p.sessions[1], random_below(3) > 0);
            step(&p, random_below(4));
            same(&p);
            p.left = false;
        }
    }
    count_guesses(&p);
    printf("%llu guesses, %llu right\n", (unsigned long long)p.proposed, (unsigned long long)p.accepted);
    CHECK(p.accepted > 100 && p.proposed > p.accepted);
    for (int i = 0; i < 2; i++) nibl_session_free(others[i]);
    free_pair(&p);
    close_model();
}

/* ---- The look-up by itself ---- */

/* Guesses are what once followed the last three tokens, read on from there. */
static void guesses_are_what_followed(void) {
    nibl_lookup l = {0};
    nibl_lookup_forget(&l);
    int32_t text[5000], guesses[NIBL_GUESSES];
    uint32_t made = 0;
    size_t count = 0, source = 0;
    while (count < 5000) {
        if (random_below(30) == 0) source = random_below((uint32_t)count + 1);
        text[count] = source < count ? text[source] : (int32_t)random_below(10);
        count++;
        source++;
        nibl_lookup_learn(&l, text, count, 0);
        const uint32_t n = nibl_lookup_guess(&l, text, NIBL_GUESSES, guesses);
        made += n;
        bool found = n == 0;
        for (size_t at = 3; at < count && !found; at++) {
            found = memcmp(&text[at - 3], &text[count - 3], 3 * sizeof *text) == 0;
            for (uint32_t i = 0; i < n && found; i++)
                found = guesses[i] == (at + i < count ? text[at + i] : guesses[at + i - count]);
        }
        if (!CHECK(found)) break;
        nibl_lookup_computed(&l, n);
        for (uint32_t i = 0; i < n; i++) nibl_lookup_was_right(&l);
    }
    CHECK(made > 5000);
    nibl_lookup_free(&l);
}

/* A text that breaks its word at every guess costs no more than lookup.c promises: four rows cost 1.8 more than one. */
static void wrong_guesses_are_bounded(void) {
    nibl_lookup l = {0};
    nibl_lookup_forget(&l);
    int32_t text[20000], guesses[NIBL_GUESSES];
    double lost = 0;
    uint32_t made = 0;
    for (size_t count = 0; count < 20000;) {
        text[count] = made ? (int32_t)(100 + count) : (int32_t)(count % 10);
        count++;
        nibl_lookup_learn(&l, text, count, 0);
        made = nibl_lookup_guess(&l, text, NIBL_GUESSES, guesses);
        nibl_lookup_computed(&l, made);
        if (made) lost += made > 3 ? 3.95 : 1.8;
        if (!CHECK(lost <= 2.5 + 0.01 * (double)count)) break;
    }
    CHECK(lost > 0);
    nibl_lookup_free(&l);
}

/* ---- The default model copies ---- */

static void a_copy_is_the_same(void) {
    nibl_model_info info = {.size = sizeof info};
    for (int i = 0; i < 2; i++)
        if (!(models[i] = load_default_model())) return;
    nibl_model_get_info(models[0], &info);
    vocabulary = info.vocabulary;
    static const char text[] = "<|im_start|>user\nRepeat the following text exactly, word for word.\n\nHoney "
                               "bees live in colonies of up to "
                               "sixty thousand workers. Each worker has a task that changes with her age: "
                               "she first cleans cells, then feeds "
                               "larvae, builds comb, guards the entrance and finally flies out to gather "
                               "nectar and pollen.<|im_end|>\n"
                               "<|im_start|>assistant\n";
    int32_t tokens[MAX_TOKENS];
    size_t count = 0;
    CHECK_EQ(
        nibl_tokenize(models[0], text, sizeof text - 1, NIBL_TOKENIZE_SPECIAL, tokens, MAX_TOKENS, &count),
        NIBL_OK);
    pair p = new_pair((nibl_session_options){0});
    const nibl_sampler_options copy_ways[] = {
        {0}, {.temperature = 0.5f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .seed = 1}};
    for (size_t w = 0; w < 2; w++) {
        set_tokens(&p, tokens, count);
        step(&p, 0);
        CHECK_EQ(answer(&p, copy_ways[w], 50, tokens + count), 50);
    }
    count_guesses(&p);
    CHECK(p.accepted > 20);
    free_pair(&p);
    close_model();
}

int main(void) {
    static const test tests[] = {
        {"answers are the same with and without guesses", answers_are_the_same},
        {"guesses may all be right, or all wrong", guesses_may_all_be_right_or_all_be_wrong},
        {"any use of a session gives the same", any_use_gives_the_same},
        {"guesses are what followed before", guesses_are_what_followed},
        {"what wrong guesses cost is bounded", wrong_guesses_are_bounded},
        {"a copy by the default model is the same", a_copy_is_the_same},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

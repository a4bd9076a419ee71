/* The sampler against a plain one that sorts everything. Logit biases turn the model's logits into chosen ones. */
#include "tests/c/model_file.h"

#include <math.h>

enum { MAX_VOCABULARY = 1024, MANY = 20000, FEW = 2000 }; /* draws */

static nibl_model *model;
static nibl_session *session;
static uint32_t vocabulary;
static const float *logits; /* of the session's last position */
static const int32_t prompt[] = {5, 9, 9, 17, 3, 9, 40, 41, 5};
enum { PROMPT = sizeof prompt / sizeof *prompt };

static bool open_model(void) {
    model = load_file("tests/fixtures/tiny-llama-f32.gguf");
    if (!CHECK(model != NULL)) return false;
    nibl_model_info info = {.size = sizeof info};
    CHECK_EQ(nibl_model_get_info(model, &info), NIBL_OK);
    vocabulary = info.vocabulary;
    if (!CHECK(vocabulary <= MAX_VOCABULARY) || !CHECK_EQ(nibl_session_new(model, NULL, &session), NIBL_OK))
        return false;
    CHECK_EQ(nibl_session_set_tokens(session, prompt, PROMPT, NULL), NIBL_OK);
    CHECK_EQ(nibl_step(&session, 1, 0), NIBL_OK);
    return CHECK_EQ(nibl_session_logits(session, &logits, NULL, NULL), NIBL_OK);
}

static nibl_sampler *new_sampler(nibl_sampler_options o) {
    nibl_sampler *s = NULL;
    o.size = sizeof o;
    if (!CHECK_EQ(nibl_sampler_new(model, &o, &s), NIBL_OK)) printf("    %s\n", nibl_last_message());
    return s;
}

static int32_t sample(nibl_sampler *s) {
    int32_t token = -1;
    CHECK_EQ(nibl_sample(s, session, &token, NULL), NIBL_OK);
    return token;
}

/* ---- The plain sampler ---- */

typedef struct entry {
    float logit;
    int32_t token;
} entry;

static int order(const void *x, const void *y) {
    const entry *a = x, *b = y;
    if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
    return a->token - b->token;
}

/* The probability of every token that these options leave. Top-k first, then top-p among what it left, then min-p, all on
 * the probabilities without temperature. */
static void plain_probabilities(const nibl_sampler_options *o, double *probability) {
    static float adjusted[MAX_VOCABULARY];
    static entry sorted[MAX_VOCABULARY];
    static double p[MAX_VOCABULARY];
    memcpy(adjusted, logits, vocabulary * sizeof *adjusted);
    const uint32_t window = o->repeat_window ? o->repeat_window : 64;
    for (uint32_t token = 0; token < vocabulary && o->repeat_penalty > 0; token++) {
        bool seen = false;
        for (uint32_t i = PROMPT > window ? PROMPT - window : 0; i < PROMPT; i++)
            seen = seen || prompt[i] == (int32_t)token;
        float *l = &adjusted[token];
        if (seen) *l = *l > 0 ? *l / o->repeat_penalty : *l * o->repeat_penalty;
    }
    for (size_t i = 0; i < o->logit_bias_count; i++)
        adjusted[o->logit_bias[i].token] += o->logit_bias[i].bias;
    for (uint32_t i = 0; i < vocabulary; i++) sorted[i] = (entry){adjusted[i], (int32_t)i};
    qsort(sorted, vocabulary, sizeof *sorted, order);

    uint32_t n = o->top_k && o->top_k < vocabulary ? o->top_k : vocabulary;
    while (n > 1 && sorted[n - 1].logit == -INFINITY) n--;
    double total = 0, mass = 0;
    for (uint32_t i = 0; i < n; i++) total += p[i] = exp((double)sorted[i].logit - (double)sorted[0].logit);
    uint32_t kept = 0;
    while (kept < n) {
        if (o->top_p > 0 && o->top_p < 1 && mass >= (double)o->top_p * total) break;
        if (kept > 0 && p[kept] < (double)o->min_p) break;
        mass += p[kept++];
    }
    double sum = 0;
    for (uint32_t i = 0; i < vocabulary; i++) probability[i] = 0;
    for (uint32_t i = 0; i < kept; i++) sum += p[i] = exp(log(p[i]) / (double)o->temperature);
    for (uint32_t i = 0; i < kept; i++) probability[sorted[i].token] = p[i] / sum;
}

/* Draws as the plain sampler says: nothing outside its set, frequencies within chance (chi-square at 5 standard
 * deviations by Wilson and Hilferty 1931; rare tokens together). Returns the size of the set. */
static uint32_t check_draws(nibl_sampler_options o, int draws) {
    static double probability[MAX_VOCABULARY];
    static uint32_t drawn[MAX_VOCABULARY];
    memset(drawn, 0, sizeof drawn);
    plain_probabilities(&o, probability);
    nibl_sampler *s = new_sampler(o);
    for (int i = 0; i < draws && s; i++) {
        const int32_t token = sample(s);
        if (!CHECK(token >= 0 && (uint32_t)token < vocabulary)) break;
        drawn[token]++;
    }
    nibl_sampler_free(s);
    uint32_t set = 0, cells = 0, outside = 0, rare_drawn = 0;
    double chi = 0, rare = 0;
    for (uint32_t i = 0; i < vocabulary; i++) {
        const double expected = probability[i] * draws;
        set += expected > 0;
        if (expected == 0) {
            outside += drawn[i];
        } else if (expected < 10) {
            rare += expected;
            rare_drawn += drawn[i];
        } else {
            chi += pow(drawn[i] - expected, 2) / expected;
            cells++;
        }
    }
    if (rare >= 5) {
        chi += pow(rare_drawn - rare, 2) / rare;
        cells++;
    }
    CHECK_EQ(outside, 0);
    const double freedom = cells > 1 ? cells - 1 : 1;
    const double bound = freedom * pow(1 - 2 / (9 * freedom) + 5 * sqrt(2 / (9 * freedom)), 3);
    if (!CHECK(chi < bound))
        printf("    chi-square %.1f with %.0f degrees of freedom, %u tokens\n", chi, freedom, set);
    return set;
}

/* Biases that give the first `count` tokens these probabilities and forbid all others. */
static size_t bias_to(nibl_logit_bias *bias, const double *probability, uint32_t count) {
    for (uint32_t i = 0; i < vocabulary; i++) {
        const double wanted = i < count ? log(probability[i]) : -INFINITY;
        bias[i] = (nibl_logit_bias){(int32_t)i, (float)(wanted - (double)logits[i])};
    }
    return vocabulary;
}

/* ---- Tests ---- */

static int32_t best_token(void) {
    uint32_t best = 0;
    for (uint32_t i = 1; i < vocabulary; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}

static void greedy_takes_the_best(void) {
    nibl_sampler *s = new_sampler((nibl_sampler_options){.top_k = 3, .top_p = 0.5f, .seed = 9});
    for (int i = 0; i < 20; i++) CHECK_EQ(sample(s), best_token());
    nibl_sampler_free(s);
    /* top-k of one is greedy at any temperature */
    s = new_sampler((nibl_sampler_options){.temperature = 5, .top_k = 1});
    for (int i = 0; i < 20; i++) CHECK_EQ(sample(s), best_token());
    nibl_sampler_free(s);
}

/* Of equals the lowest ids. A sum near 96 rounds to 96 itself. */
static void ties_go_to_the_first(void) {
    static nibl_logit_bias bias[MAX_VOCABULARY];
    for (uint32_t i = 0; i < vocabulary; i++) {
        const bool equal = i == 7 || i == 30 || i == 55 || i == 200;
        bias[i] = (nibl_logit_bias){(int32_t)i, equal ? 96 - logits[i] : -INFINITY};
        if (equal) CHECK(logits[i] + bias[i].bias == 96);
    }
    nibl_sampler_options o = {.logit_bias = bias, .logit_bias_count = vocabulary};
    nibl_sampler *s = new_sampler(o);
    CHECK_EQ(sample(s), 7);
    nibl_sampler_free(s);
    o.temperature = 1;
    for (o.top_k = 1; o.top_k < 5; o.top_k++) CHECK_EQ(check_draws(o, FEW), o.top_k);
    o.top_k = 0;
    o.top_p = 0.6f;
    CHECK_EQ(check_draws(o, FEW), 3);
}

static void a_seed_repeats(void) {
    int32_t first[50];
    uint32_t same = 0, alike = 0;
    nibl_sampler *a = new_sampler((nibl_sampler_options){.temperature = 1, .seed = 42});
    nibl_sampler *b = new_sampler((nibl_sampler_options){.temperature = 1, .seed = 42});
    nibl_sampler *c = new_sampler((nibl_sampler_options){.temperature = 1, .seed = 43});
    for (int i = 0; i < 50; i++) {
        first[i] = sample(a);
        alike += first[i] == sample(c);
    }
    for (int i = 0; i < 50; i++) same += first[i] == sample(b);
    CHECK_EQ(same, 50);
    CHECK(alike < 25);
    nibl_sampler_free(a);
    nibl_sampler_free(b);
    nibl_sampler_free(c);
}

static void draws_follow_the_probabilities(void) {
    CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 1, .seed = 1}, MANY), vocabulary);
    CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 0.5f, .seed = 2}, MANY), vocabulary);
    CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 3, .seed = 3}, MANY), vocabulary);
    static nibl_logit_bias bias[MAX_VOCABULARY];
    const double wanted[] = {0.4, 0.3, 0.15, 0.1, 0.04, 0.01};
    nibl_sampler_options o = {
        .temperature = 1, .seed = 4, .logit_bias = bias, .logit_bias_count = bias_to(bias, wanted, 6)};
    CHECK_EQ(check_draws(o, MANY), 6);
}

static void top_k_keeps_k(void) {
    static const uint32_t counts[] = {1, 2, 5, 40};
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 1.5f, .top_k = counts[i], .seed = i}, FEW),
                 counts[i]);
    CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 1, .top_k = 1u << 30}, FEW), vocabulary);
    /* a steep slope: the k best stand far apart, and most of the vocabulary is hopeless */
    static nibl_logit_bias slope[MAX_VOCABULARY];
    for (uint32_t i = 0; i < vocabulary; i++)
        slope[i] = (nibl_logit_bias){(int32_t)i, -0.9f * (float)i - logits[i]};
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(check_draws((nibl_sampler_options){.temperature = 9,
                                                    .top_k = counts[i],
                                                    .logit_bias = slope,
                                                    .logit_bias_count = vocabulary},
                             FEW),
                 counts[i]);
}

static void top_p_and_min_p_keep_what_they_should(void) {
    static nibl_logit_bias bias[MAX_VOCABULARY];
    const double wanted[] = {0.4, 0.3, 0.15, 0.1, 0.04, 0.01};
    nibl_sampler_options o = {
        .temperature = 1, .logit_bias = bias, .logit_bias_count = bias_to(bias, wanted, 6)};
    static const struct {
        float top_p, min_p;
        uint32_t top_k, set;
    } cases[] = {
        {0.39f, 0, 0, 1}, {0.41f, 0, 0, 2},   {0.84f, 0, 0, 3},     {0.96f, 0, 0, 5},   {0.995f, 0, 0, 6},
        {1, 0, 0, 6},     {1e-9f, 0, 0, 1},   {0, 0.9f, 0, 1},      {0, 0.5f, 0, 2},    {0, 0.2f, 0, 4},
        {0, 0.05f, 0, 5}, {0, 1, 0, 1},       {0.6f, 0, 2, 2}, /* the nucleus of 0.4/0.7, 0.3/0.7 */
        {0.55f, 0, 2, 1}, {0.9f, 0.5f, 0, 2}, {0.41f, 0.05f, 0, 2}, {0.9f, 0.3f, 5, 3}, {0.99f, 0.2f, 3, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        o.top_p = cases[i].top_p;
        o.min_p = cases[i].min_p;
        o.top_k = cases[i].top_k;
        o.seed = i;
        if (!CHECK_EQ(check_draws(o, FEW), cases[i].set)) printf("    case %zu\n", i);
    }
    /* on the model's own probabilities, with a temperature after them */
    for (uint32_t i = 0; i < 6; i++)
        check_draws((nibl_sampler_options){.temperature = 0.3f + 0.4f * (float)i,
                                           .seed = 100 + i,
                                           .top_p = 0.2f + 0.15f * (float)i,
                                           .min_p = i % 2 ? 0.3f : 0.0f,
                                           .top_k = i % 3 ? 20 * i : 0},
                    FEW);
}

/* Greedy prefers `token`, penalised and then lifted to 50 by its bias, to one outside the prompt at 50 + `apart`. */
static bool wins(nibl_sampler_options o, int32_t token, float penalised, float apart) {
    static nibl_logit_bias bias[MAX_VOCABULARY];
    const int32_t other = 100;
    for (uint32_t i = 0; i < vocabulary; i++) bias[i] = (nibl_logit_bias){(int32_t)i, -INFINITY};
    bias[token].bias = 50 - penalised;
    bias[other].bias = 50 + apart - logits[other];
    o.logit_bias = bias;
    o.logit_bias_count = vocabulary;
    nibl_sampler *s = new_sampler(o);
    const int32_t best = sample(s);
    nibl_sampler_free(s);
    return best == token;
}

/* Every token of the window once, however often it stands there; positive and negative logits go down. */
static void repeats_are_penalised(void) {
    uint32_t positive = 0, negative = 0;
    for (uint32_t i = 0; i < PROMPT; i++) *(logits[prompt[i]] > 0 ? &positive : &negative) += 1;
    CHECK(positive > 0 && negative > 0);
    static const uint32_t windows[] = {1, 3, 5, 9, 100, 0};
    for (size_t w = 0; w < sizeof windows / sizeof *windows; w++) {
        nibl_sampler_options o = {.repeat_penalty = 7, .repeat_window = windows[w]};
        const uint32_t begin = windows[w] && windows[w] < PROMPT ? PROMPT - windows[w] : 0;
        for (int32_t token = 0; token < 50; token++) {
            bool seen = false;
            for (uint32_t i = begin; i < PROMPT; i++) seen = seen || prompt[i] == token;
            const float l = logits[token], penalised = !seen ? l : l > 0 ? l / 7 : l * 7;
            CHECK(wins(o, token, penalised, -0.001f));
            CHECK(!wins(o, token, penalised, 0.001f));
        }
        o = (nibl_sampler_options){
            .temperature = 1, .repeat_penalty = 1.7f, .repeat_window = windows[w], .seed = w};
        check_draws(o, FEW);
        o.repeat_penalty = 1; /* off */
        check_draws(o, FEW);
    }
}

static void biases_shift_and_forbid(void) {
    const int32_t best = best_token();
    const nibl_logit_bias forbidden[] = {{best, -INFINITY}};
    nibl_sampler_options o = {.logit_bias = forbidden, .logit_bias_count = 1};
    nibl_sampler *s = new_sampler(o);
    const int32_t second = sample(s);
    CHECK(second != best);
    for (uint32_t i = 0; i < vocabulary; i++) CHECK((int32_t)i == best || logits[i] <= logits[second]);
    nibl_sampler_free(s);
    o.temperature = 1;
    CHECK_EQ(check_draws(o, FEW), vocabulary - 1);

    nibl_logit_bias raised[] = {{11, 1000}, {12, 999}, {11, -2}}; /* several of one token add up */
    s = new_sampler((nibl_sampler_options){.logit_bias = raised, .logit_bias_count = 3});
    memset(raised, 0, sizeof raised); /* they were copied */
    CHECK_EQ(sample(s), 1000.0f + logits[11] - 2 > 999 + logits[12] ? 11 : 12);
    nibl_sampler_free(s);

    static nibl_logit_bias all[MAX_VOCABULARY];
    for (uint32_t i = 0; i < vocabulary; i++) all[i] = (nibl_logit_bias){(int32_t)i, -INFINITY};
    for (int temperature = 0; temperature < 2; temperature++) {
        s = new_sampler((nibl_sampler_options){
            .temperature = (float)temperature, .logit_bias = all, .logit_bias_count = vocabulary});
        int32_t token = -7;
        CHECK_EQ(nibl_sample(s, session, &token, NULL), NIBL_E_ARGUMENT);
        CHECK_HAS(nibl_last_message(), "forbid every token");
        CHECK_EQ(token, -7);
        nibl_sampler_free(s);
    }
}

static void logprob_is_of_the_unmodified_logits(void) {
    double sum = 0;
    const double most = (double)logits[best_token()];
    for (uint32_t i = 0; i < vocabulary; i++) sum += exp((double)logits[i] - most);
    const nibl_logit_bias bias[] = {{best_token(), -INFINITY}, {3, 2}};
    nibl_sampler *s = new_sampler((nibl_sampler_options){
        .temperature = 2, .repeat_penalty = 1.3f, .logit_bias = bias, .logit_bias_count = 2, .seed = 8});
    for (int i = 0; i < 100; i++) {
        int32_t token;
        float logprob;
        CHECK_EQ(nibl_sample(s, session, &token, &logprob), NIBL_OK);
        CHECK(fabs((double)logprob - ((double)logits[token] - most - log(sum))) < 1e-5);
    }
    nibl_sampler_free(s);
}

static void wrong_options_are_told(void) {
    const nibl_logit_bias outside[] = {{-1, 0}, {(int32_t)vocabulary, 0}, {0, NAN}, {0, INFINITY}};
    const struct {
        nibl_sampler_options o;
        const char *told;
    } cases[] = {
        {{.temperature = -0.1f}, "temperature"},
        {{.temperature = NAN}, "temperature"},
        {{.temperature = INFINITY}, "temperature"},
        {{.top_p = -0.1f}, "top_p"},
        {{.top_p = 1.01f}, "top_p"},
        {{.top_p = NAN}, "top_p"},
        {{.min_p = -1}, "min_p"},
        {{.min_p = 2}, "min_p"},
        {{.repeat_penalty = -1}, "repeat_penalty"},
        {{.repeat_penalty = NAN}, "repeat_penalty"},
        {{.logit_bias = &outside[0], .logit_bias_count = 1}, "token -1"},
        {{.logit_bias = &outside[1], .logit_bias_count = 1}, "the vocabulary has"},
        {{.logit_bias = &outside[2], .logit_bias_count = 1}, "not a number"},
        {{.logit_bias = &outside[3], .logit_bias_count = 1}, "token 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nibl_sampler_options o = cases[i].o;
        nibl_sampler *s = NULL;
        o.size = sizeof o;
        if (!CHECK_EQ(nibl_sampler_new(model, &o, &s), NIBL_E_ARGUMENT)) printf("    case %zu\n", i);
        CHECK_HAS(nibl_last_message(), cases[i].told);
        CHECK(s == NULL);
        nibl_sampler_free(s);
    }
    nibl_sampler_options o = {.size = 8};
    nibl_sampler *s = NULL;
    CHECK_EQ(nibl_sampler_new(model, &o, &s), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "size");
}

static void a_sample_needs_logits(void) {
    nibl_session *fresh = NULL;
    nibl_sampler *s = new_sampler((nibl_sampler_options){.temperature = 1});
    int32_t token = -7;
    CHECK_EQ(nibl_session_new(model, NULL, &fresh), NIBL_OK);
    CHECK_EQ(nibl_sample(s, fresh, &token, NULL), NIBL_E_ARGUMENT);
    CHECK_EQ(token, -7);
    nibl_session_free(fresh);
    nibl_sampler_free(s);
    nibl_sampler_free(NULL);
}

int main(void) {
    static const test tests[] = {
        {"greedy takes the best token", greedy_takes_the_best},
        {"ties go to the first", ties_go_to_the_first},
        {"a seed repeats", a_seed_repeats},
        {"draws follow the probabilities", draws_follow_the_probabilities},
        {"top-k keeps k", top_k_keeps_k},
        {"top-p and min-p keep what they should", top_p_and_min_p_keep_what_they_should},
        {"repeats are penalised", repeats_are_penalised},
        {"biases shift and forbid", biases_shift_and_forbid},
        {"logprob is of the unmodified logits", logprob_is_of_the_unmodified_logits},
        {"wrong options are told", wrong_options_are_told},
        {"a sample needs logits", a_sample_needs_logits},
    };
    if (!open_model()) return 1;
    const int failed = test_run(tests, sizeof tests / sizeof *tests);
    nibl_session_free(session);
    nibl_model_free(model);
    return failed;
}

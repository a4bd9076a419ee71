/* Perplexity and divergence against figures worked out by hand from the definitions: KL(p, q) = sum of p log(p / q),
 * standard error = sample deviation / sqrt(n). */
#include "core/base.h"
#include "tests/c/test.h"

#include <math.h>
#include <string.h>

static void near(double got, double expected) {
    if (!CHECK(fabs(got - expected) <= 1e-6)) printf("    %.9f, expected %.9f\n", got, expected);
}

/* Logits of given probabilities, with an offset that must not matter. */
static void logits_of(double a, double b, float offset, float *out) {
    out[0] = (float)log(a) + offset;
    out[1] = (float)log(b) + offset;
}

static nibl_evaluation *evaluation;

static nibl_status add(double p, double q, int32_t next) {
    float reference[2], logits[2];
    logits_of(p, 1 - p, 7, reference);
    logits_of(q, 1 - q, -3, logits);
    return nibl_evaluation_add(evaluation, logits, reference, next);
}

static void figures_follow_from_the_definitions(void) {
    nibl_evaluation_result r = {.size = sizeof r};
    CHECK_EQ(nibl_evaluation_new(2, true, &evaluation), NIBL_OK);
    CHECK_EQ(add(0.5, 0.25, 0), NIBL_OK);
    CHECK_EQ(nibl_evaluation_get(evaluation, &r), NIBL_E_ARGUMENT);
    CHECK_EQ(add(0.75, 0.75, 1), NIBL_OK);
    CHECK_EQ(nibl_evaluation_get(evaluation, &r), NIBL_OK);
    CHECK_EQ(r.positions, 2);
    /* p of what follows: the model 1/4, 1/4; the reference 1/2, 1/4 */
    near(r.perplexity.value, 4);
    near(r.perplexity.error, 0);
    near(r.reference_perplexity.value, sqrt(8));
    near(r.reference_perplexity.error, sqrt(8) * log(2) / 2);
    near(r.perplexity_ratio.value, sqrt(2));
    near(r.perplexity_ratio.error, sqrt(2) * log(2) / 2);
    /* KL of the first: 0.5 log(0.5 / 0.25) + 0.5 log(0.5 / 0.75); of the second 0 */
    const double kl = 0.5 * log(2) + 0.5 * log(2.0 / 3);
    near(r.kl.value, kl / 2);
    near(r.kl.error, kl / 2);
    near(r.kl_median, 0);
    near(r.kl_99, kl);
    near(r.kl_max, kl);
    /* the reference's top token is the first of two alike */
    near(r.same_top.value, 0.5);
    near(r.same_top.error, 0.5);
    near(r.p_change.value, -0.125);
    near(r.p_change.error, 0.125);
    near(r.p_change_rms.value, sqrt(0.03125));
    near(r.p_change_rms.error, 0.03125 / (2 * sqrt(0.03125)));
    nibl_evaluation_free(evaluation);
}

/* Two models, each beside its own reference, on the same three positions. */
static void losses_are_compared_position_by_position(void) {
    const double q[2][3] = {{0.25, 0.5, 0.125}, {0.375, 0.5, 0.25}};
    nibl_evaluation *both[2], *alone;
    nibl_evaluation_comparison c = {.size = sizeof c};
    double kl[2][3], change[2][3], ratio, mean, residual = 0, squares = 0;
    for (int m = 0; m < 2; m++) {
        CHECK_EQ(nibl_evaluation_new(2, true, &evaluation), NIBL_OK);
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(add(0.5, q[m][i], 0), NIBL_OK);
            kl[m][i] = 0.5 * log(0.5 / q[m][i]) + 0.5 * log(0.5 / (1 - q[m][i]));
            change[m][i] = log(0.5 / q[m][i]);
        }
        both[m] = evaluation;
    }
    CHECK_EQ(nibl_evaluation_compare(both[0], both[1], &c), NIBL_OK);
    ratio = (kl[0][0] + kl[0][1] + kl[0][2]) / (kl[1][0] + kl[1][1] + kl[1][2]);
    for (int i = 0; i < 3; i++) residual += pow(kl[0][i] - ratio * kl[1][i], 2);
    near(c.kl_ratio.value, ratio);
    near(c.kl_ratio.error, sqrt(residual / 2 / 3) / ((kl[1][0] + kl[1][1] + kl[1][2]) / 3));
    mean = (change[0][0] - change[1][0] + change[0][2] - change[1][2]) / 3;
    for (int i = 0; i < 3; i++) squares += pow(change[0][i] - change[1][i] - mean, 2);
    near(c.perplexity_ratio.value, exp(mean));
    near(c.perplexity_ratio.error, exp(mean) * sqrt(squares / 2 / 3));
    CHECK_EQ(nibl_evaluation_compare(both[1], both[1], &c), NIBL_OK);
    CHECK(c.kl_ratio.value == 1 && c.kl_ratio.error == 0 && c.perplexity_ratio.value == 1);
    evaluation = both[1];
    CHECK_EQ(add(0.5, 0.5, 0), NIBL_OK);
    CHECK_EQ(nibl_evaluation_compare(both[0], both[1], &c), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "3 and 4 positions");
    CHECK_EQ(nibl_evaluation_new(2, false, &alone), NIBL_OK);
    CHECK_EQ(nibl_evaluation_compare(alone, alone, &c), NIBL_E_ARGUMENT);
    c.size = 4;
    CHECK_EQ(nibl_evaluation_compare(both[1], both[1], &c), NIBL_E_ARGUMENT);
    nibl_evaluation_free(alone);
    nibl_evaluation_free(both[0]);
    nibl_evaluation_free(both[1]);
}

static void quantiles_are_of_the_nearest_rank(void) {
    nibl_evaluation_result r = {.size = sizeof r};
    CHECK_EQ(nibl_evaluation_new(2, true, &evaluation), NIBL_OK);
    double kl[1000];
    for (int i = 0; i < 1000; i++) {
        const double q = 0.5 - 0.0004 * (i * 7 % 1000); /* in no order */
        kl[i * 7 % 1000] = -0.5 * log(4 * q * (1 - q));
        CHECK_EQ(add(0.5, q, 0), NIBL_OK);
    }
    CHECK_EQ(nibl_evaluation_get(evaluation, &r), NIBL_OK);
    near(r.kl_median, kl[499]);
    near(r.kl_99, kl[989]);
    near(r.kl_999, kl[998]);
    near(r.kl_max, kl[999]);
    nibl_evaluation_free(evaluation);
}

static void a_position_alone_has_a_divergence(void) {
    float reference[2], logits[2];
    double kl = -1;
    logits_of(0.5, 0.5, 7, reference);
    logits_of(0.25, 0.75, -3, logits);
    CHECK_EQ(nibl_divergence(logits, reference, 2, &kl), NIBL_OK);
    near(kl, 0.5 * log(2) + 0.5 * log(2.0 / 3));
    CHECK_EQ(nibl_divergence(reference, logits, 2, &kl), NIBL_OK);
    near(kl, 0.25 * log(0.5) + 0.75 * log(1.5));
    CHECK_EQ(nibl_divergence(logits, logits, 2, &kl), NIBL_OK);
    CHECK(kl == 0);
    logits[1] = NAN;
    CHECK_EQ(nibl_divergence(logits, reference, 2, &kl), NIBL_E_NUMERIC);
    CHECK_EQ(nibl_divergence(reference, logits, 2, &kl), NIBL_E_NUMERIC);
    CHECK_EQ(nibl_divergence(reference, reference, 0, &kl), NIBL_E_NUMERIC);
}

static void what_cannot_be_scored_is_refused(void) {
    float row[2] = {0, 1}, bad[2] = {0, NAN}, infinite[2] = {-INFINITY, 0};
    nibl_evaluation_result small = {.size = 8};
    CHECK_EQ(nibl_evaluation_new(0, false, &evaluation), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_evaluation_new(2, false, &evaluation), NIBL_OK);
    CHECK_EQ(nibl_evaluation_add(evaluation, row, row, 0), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_evaluation_add(evaluation, row, NULL, 2), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_evaluation_add(evaluation, row, NULL, -1), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_evaluation_add(evaluation, bad, NULL, 0), NIBL_E_NUMERIC);
    CHECK_EQ(nibl_evaluation_add(evaluation, infinite, NULL, 0), NIBL_E_NUMERIC);
    CHECK_EQ(nibl_evaluation_add(evaluation, row, NULL, 0), NIBL_OK);
    CHECK_EQ(nibl_evaluation_add(evaluation, row, NULL, 1), NIBL_OK);
    CHECK_EQ(nibl_evaluation_get(evaluation, &small), NIBL_E_ARGUMENT);
    nibl_evaluation_free(evaluation);
    nibl_evaluation_free(NULL);
}

/* Distributions over 4,000 tokens with long tails: packed, KL is a few samples' noise away from the whole sum, up or down. */
static void a_packed_reference_gives_kl_without_bias(void) {
    enum { TOKENS = 4000, POSITIONS = 200 };
    static float logits[TOKENS], expected[TOKENS];
    static uint8_t packed[8 + 8 * 320];
    nibl_evaluation *whole, *small;
    nibl_evaluation_result a = {.size = sizeof a}, b = {.size = sizeof b};
    uint32_t state = 1;
    CHECK_EQ(nibl_reference_bytes(TOKENS), sizeof packed);
    CHECK_EQ(nibl_reference_bytes(100), 8 + 8 * 100);
    CHECK_EQ(nibl_evaluation_new(TOKENS, true, &whole), NIBL_OK);
    CHECK_EQ(nibl_evaluation_new(TOKENS, true, &small), NIBL_OK);
    for (int p = 0; p < POSITIONS; p++) {
        for (int i = 0; i < TOKENS; i++) {
            state = state * 1664525u + 1013904223u;
            expected[i] =
                3.0f * (float)(state >> 8) / (1 << 24) - 0.002f * (float)((i * 7 + p * 31) % TOKENS);
            state = state * 1664525u + 1013904223u;
            logits[i] = expected[i] + (float)(state >> 8) / (1 << 24);
        }
        const int32_t next = p * 17 % TOKENS;
        CHECK_EQ(nibl_reference_pack(expected, TOKENS, next, packed), NIBL_OK);
        CHECK_EQ(nibl_evaluation_add(whole, logits, expected, next), NIBL_OK);
        CHECK_EQ(nibl_evaluation_add_packed(small, logits, packed, next), NIBL_OK);
    }
    CHECK_EQ(nibl_evaluation_get(whole, &a), NIBL_OK);
    CHECK_EQ(nibl_evaluation_get(small, &b), NIBL_OK);
    near(b.perplexity.value / a.perplexity.value, 1);
    near(b.reference_perplexity.value / a.reference_perplexity.value, 1);
    near(b.same_top.value, a.same_top.value);
    /* one sample's log ratio has a deviation of .29, the mean of 64 of 200 positions one of .0026 */
    printf("KL %.6f, packed %.6f\n", a.kl.value, b.kl.value);
    CHECK(fabs(a.kl.value - b.kl.value) < 0.008 && a.kl.value > 0.02);

    memset(packed + 8, 0xFF, 4);
    CHECK_EQ(nibl_evaluation_add_packed(small, logits, packed, 0), NIBL_E_FILE);
    memset(packed, 0xFF, 4);
    CHECK_EQ(nibl_evaluation_add_packed(small, logits, packed, 0), NIBL_E_FILE);
    CHECK_EQ(nibl_evaluation_add_packed(small, logits, packed, TOKENS), NIBL_E_ARGUMENT);
    CHECK_EQ(nibl_reference_pack(logits, TOKENS, -1, packed), NIBL_E_ARGUMENT);
    double log_p = 0;
    const float even[4] = {1, 1, 1, 1};
    CHECK_EQ(nibl_log_probability(even, 4, 2, &log_p), NIBL_OK);
    near(log_p, -log(4));
    CHECK_EQ(nibl_log_probability(even, 4, 4, &log_p), NIBL_E_ARGUMENT);
    logits[1] = NAN;
    CHECK_EQ(nibl_reference_pack(logits, TOKENS, 0, packed), NIBL_E_NUMERIC);
    nibl_evaluation_free(whole);
    nibl_evaluation_free(small);
}

int main(void) {
    static const test tests[] = {
        {"a packed reference gives KL without bias", a_packed_reference_gives_kl_without_bias},
        {"figures follow from the definitions", figures_follow_from_the_definitions},
        {"losses are compared position by position", losses_are_compared_position_by_position},
        {"quantiles are of the nearest rank", quantiles_are_of_the_nearest_rank},
        {"a position alone has a divergence", a_position_alone_has_a_divergence},
        {"what cannot be scored is refused", what_cannot_be_scored_is_refused},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

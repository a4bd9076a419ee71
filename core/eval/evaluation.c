/* Perplexity, and the divergence of a model's distributions from a reference's on the same positions. Sums are taken in
 * double and in the order of positions, with the library's own exp and log: every host computes the same figures. */
#include "core/eval/reference.h"
#include "core/maths.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct position {
    double surprise, reference_surprise; /* -log p of the token that follows */
    double kl;
    bool same_top;
} position;

struct nibl_evaluation {
    uint32_t vocabulary;
    bool compared;
    position *positions;
    size_t count, capacity;
};

nibl_status nibl_evaluation_new(uint32_t vocabulary, bool compared, nibl_evaluation **out) {
    if (vocabulary == 0) return nibl_fail(NIBL_E_ARGUMENT, "a vocabulary of 0 tokens cannot be evaluated");
    nibl_evaluation *e = nibl_alloc_zero(sizeof *e);
    if (!e) return nibl_fail_memory(sizeof *e, "the evaluation");
    e->vocabulary = vocabulary;
    e->compared = compared;
    *out = e;
    return NIBL_OK;
}

void nibl_evaluation_free(nibl_evaluation *e) {
    if (e) nibl_free(e->positions);
    nibl_free(e);
}

bool nibl_measure_row(const float *logits, uint32_t count, uint32_t *top, double *log_sum) {
    bool finite = true;
    uint32_t best = 0;
    for (uint32_t i = 0; i < count; i++) {
        finite = finite && isfinite(logits[i]);
        if (logits[i] > logits[best]) best = i;
    }
    const double most = (double)logits[best];
    double sum = 0;
    for (uint32_t i = 0; finite && i < count; i++) sum += nibl_exp((double)logits[i] - most);
    *top = best;
    *log_sum = finite ? most + nibl_log(sum) : 0;
    return finite;
}

nibl_status nibl_log_probability(const float *logits, uint32_t vocabulary, int32_t token, double *out) {
    uint32_t top;
    double log_sum;
    if (token < 0 || (uint32_t)token >= vocabulary)
        return nibl_fail(NIBL_E_ARGUMENT, "token %d is none of the vocabulary of %u", token, vocabulary);
    if (!nibl_measure_row(logits, vocabulary, &top, &log_sum))
        return nibl_fail(NIBL_E_NUMERIC, "there are logits that are not finite");
    *out = (double)logits[token] - log_sum;
    return NIBL_OK;
}

static double divergence(const float *logits, double log_sum, const float *reference,
                         double reference_log_sum, uint32_t vocabulary) {
    double kl = 0;
    for (uint32_t i = 0; i < vocabulary; i++) {
        const double log_p = (double)reference[i] - reference_log_sum;
        kl += nibl_exp(log_p) * (log_p - ((double)logits[i] - log_sum));
    }
    return kl < 0 ? 0 : kl; /* rounding of equal rows */
}

nibl_status nibl_divergence(const float *logits, const float *reference, uint32_t vocabulary, double *out) {
    uint32_t top;
    double log_sum, reference_log_sum;
    if (vocabulary == 0 || !nibl_measure_row(logits, vocabulary, &top, &log_sum) ||
        !nibl_measure_row(reference, vocabulary, &top, &reference_log_sum))
        return nibl_fail(NIBL_E_NUMERIC, "there are logits that are not finite");
    *out = divergence(logits, log_sum, reference, reference_log_sum, vocabulary);
    return NIBL_OK;
}

/* The row itself, and where it goes: the caller fills in what the reference says, then counts the position. */
static nibl_status begin_position(nibl_evaluation *e, const float *logits, bool compared, int32_t next,
                                  uint32_t *top, double *log_sum, position **out) {
    if (next < 0 || (uint32_t)next >= e->vocabulary)
        return nibl_fail(NIBL_E_ARGUMENT, "token %d is none of the vocabulary of %u", next, e->vocabulary);
    if (e->compared != compared)
        return nibl_fail(NIBL_E_ARGUMENT, "position %zu %s a reference, unlike the evaluation", e->count,
                         compared ? "has" : "lacks");
    if (!nibl_measure_row(logits, e->vocabulary, top, log_sum))
        return nibl_fail(NIBL_E_NUMERIC, "position %zu has logits that are not finite", e->count);
    void *positions = e->positions;
    NIBL_TRY(nibl_reserve(&positions, &e->capacity, e->count + 1, sizeof *e->positions, "positions"));
    e->positions = positions;
    *out = &e->positions[e->count];
    **out = (position){.surprise = *log_sum - (double)logits[next]};
    return NIBL_OK;
}

nibl_status nibl_evaluation_add(nibl_evaluation *e, const float *logits, const float *reference,
                                int32_t next) {
    uint32_t top, reference_top = 0;
    double log_sum, reference_log_sum = 0;
    position *p = NULL;
    NIBL_TRY(begin_position(e, logits, reference != NULL, next, &top, &log_sum, &p));
    if (reference && !nibl_measure_row(reference, e->vocabulary, &reference_top, &reference_log_sum))
        return nibl_fail(NIBL_E_NUMERIC, "position %zu has reference logits that are not finite", e->count);
    if (reference) {
        p->reference_surprise = reference_log_sum - (double)reference[next];
        p->same_top = top == reference_top;
        p->kl = divergence(logits, log_sum, reference, reference_log_sum, e->vocabulary);
    }
    e->count++;
    return NIBL_OK;
}

nibl_status nibl_evaluation_add_packed(nibl_evaluation *e, const float *logits, const void *packed,
                                       int32_t next) {
    uint32_t top, reference_top;
    double log_sum;
    position *p = NULL;
    NIBL_TRY(begin_position(e, logits, true, next, &top, &log_sum, &p));
    NIBL_TRY(nibl_reference_compare(packed, logits, log_sum, e->vocabulary, &reference_top,
                                    &p->reference_surprise, &p->kl));
    p->same_top = top == reference_top;
    e->count++;
    return NIBL_OK;
}

/* ---- Statistics ---- */

static double surprise(const position *p) { return p->surprise; }
static double reference_surprise(const position *p) { return p->reference_surprise; }
static double surprise_change(const position *p) { return p->surprise - p->reference_surprise; }
static double kl(const position *p) { return p->kl; }
static double same_top(const position *p) { return p->same_top; }
static double p_change(const position *p) {
    return nibl_exp(-p->surprise) - nibl_exp(-p->reference_surprise);
}
static double p_change_squared(const position *p) { return p_change(p) * p_change(p); }

/* The mean of what a position has, less `scale` times what the same one of another evaluation has. */
static nibl_estimate mean_less(const nibl_evaluation *e, const nibl_evaluation *other, double scale,
                               double (*of)(const position *)) {
    const double n = (double)e->count;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < e->count; i++)
        sum += of(&e->positions[i]) - (other ? scale * of(&other->positions[i]) : 0);
    const double average = sum / n;
    for (size_t i = 0; i < e->count; i++) {
        const double difference =
            of(&e->positions[i]) - (other ? scale * of(&other->positions[i]) : 0) - average;
        squares += difference * difference;
    }
    return (nibl_estimate){average, sqrt(squares / (n - 1) / n)};
}

static nibl_estimate mean(const nibl_evaluation *e, double (*of)(const position *)) {
    return mean_less(e, NULL, 0, of);
}

/* exp of a mean; to first order the relative error is the exponent's error. */
static nibl_estimate exponential(nibl_estimate exponent) {
    const double value = nibl_exp(exponent.value);
    return (nibl_estimate){value, value * exponent.error};
}

static nibl_estimate root(nibl_estimate square) {
    const double value = sqrt(square.value);
    return (nibl_estimate){value, value > 0 ? square.error / (2 * value) : 0};
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The smallest value that at least `permille` of the values do not exceed. */
static double quantile(const double *sorted, size_t count, size_t permille) {
    const size_t rank = (size_t)(((uint64_t)count * permille + 999) / 1000);
    return sorted[rank > 0 ? rank - 1 : 0];
}

static nibl_status compare(const nibl_evaluation *e, nibl_evaluation_result *result) {
    double *sorted = nibl_alloc((uint64_t)e->count * sizeof *sorted);
    if (!sorted) return nibl_fail_memory((uint64_t)e->count * sizeof *sorted, "divergences");
    for (size_t i = 0; i < e->count; i++) sorted[i] = e->positions[i].kl;
    qsort(sorted, e->count, sizeof *sorted, ascending);
    result->kl_median = quantile(sorted, e->count, 500);
    result->kl_99 = quantile(sorted, e->count, 990);
    result->kl_999 = quantile(sorted, e->count, 999);
    result->kl_max = sorted[e->count - 1];
    nibl_free(sorted);
    result->kl = mean(e, kl);
    result->reference_perplexity = exponential(mean(e, reference_surprise));
    result->perplexity_ratio = exponential(mean(e, surprise_change));
    result->same_top = mean(e, same_top);
    result->p_change = mean(e, p_change);
    result->p_change_rms = root(mean(e, p_change_squared));
    return NIBL_OK;
}

nibl_status nibl_evaluation_get(nibl_evaluation *e, nibl_evaluation_result *result) {
    if (e->count < 2)
        return nibl_fail(NIBL_E_ARGUMENT, "%zu positions are too few to evaluate: 2 at least", e->count);
    nibl_evaluation_result out = {.size = sizeof out, .positions = e->count};
    out.perplexity = exponential(mean(e, surprise));
    if (e->compared) NIBL_TRY(compare(e, &out));
    if (result->size < sizeof out)
        return nibl_fail(NIBL_E_ARGUMENT, "the result's size is %zu, not %zu", result->size, sizeof out);
    *result = out;
    return NIBL_OK;
}

nibl_status nibl_evaluation_compare(const nibl_evaluation *e, const nibl_evaluation *other,
                                    nibl_evaluation_comparison *result) {
    nibl_evaluation_comparison out = {.size = sizeof out};
    if (!e->compared || !other->compared || e->count != other->count || e->count < 2)
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "evaluations of %zu and %zu positions cannot be compared: they must be of the same ones, two at "
            "least, and have references",
            e->count, other->count);
    if (result->size < sizeof out)
        return nibl_fail(NIBL_E_ARGUMENT, "the result's size is %zu, not %zu", result->size, sizeof out);
    const double less = mean(other, kl).value;
    out.perplexity_ratio = exponential(mean_less(e, other, 1, surprise_change));
    out.kl_ratio.value = mean(e, kl).value / less;
    /* of a quotient of means to first order: that of the residuals */
    out.kl_ratio.error = mean_less(e, other, out.kl_ratio.value, kl).error / less;
    *result = out;
    return NIBL_OK;
}

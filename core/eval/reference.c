/* Little-endian: f32 log p of the token that follows, f32 probability of all that are not among the first (0 where all
 * are kept), u32 ids, f32 log p of each: the TOP most probable in descending order, then SAMPLES drawn from the rest by
 * systematic sampling in proportion to their probability. With them
 *     KL(p, q) = sum over the first of p (log p - log q) + rest * mean over the samples of (log p - log q),
 * which is unbiased: over 2,000 positions its noise is far below KL's own standard error, in 2.6 KB a position instead of
 * the 200 KB of all logits. */
#include "core/eval/reference.h"

#include "core/maths.h"

#include <math.h>
#include <string.h>

enum { TOP = 256, SAMPLES = 64, KEPT = TOP + SAMPLES, HEAD = 8 };
static const double MOST = 1e-3; /* log p of what is certain, and its rounding */

static uint32_t kept_of(uint32_t vocabulary) { return vocabulary < KEPT ? vocabulary : KEPT; }

size_t nibl_reference_bytes(uint32_t vocabulary) { return HEAD + (size_t)8 * kept_of(vocabulary); }

static void store_u32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++) out[i] = (uint8_t)(value >> (8 * i));
}

static void store_f32(uint8_t *out, double value) {
    const float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    store_u32(out, bits);
}

static double load_f32(const uint8_t *in) {
    const uint32_t bits = nibl_load_u32(in);
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Whether token a is less probable than b; of two alike the later one is. */
static bool is_below(const float *logits, uint32_t a, uint32_t b) {
    return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
}

/* Lets the first of `count` tokens sink to its place: each has the less probable ones above it. */
static void sink(const float *logits, uint32_t *heap, uint32_t count) {
    for (uint32_t at = 0;;) {
        uint32_t least = 2 * at + 1;
        if (least >= count) return;
        if (least + 1 < count && is_below(logits, heap[least + 1], heap[least])) least++;
        if (!is_below(logits, heap[least], heap[at])) return;
        const uint32_t id = heap[at];
        heap[at] = heap[least];
        heap[least] = id;
        at = least;
    }
}

/* The `most` most probable tokens, in descending order. */
static void select_top(const float *logits, uint32_t vocabulary, uint32_t most, uint32_t *ids) {
    uint32_t count = 0;
    for (uint32_t id = 0; id < vocabulary; id++) {
        if (count < most) {
            uint32_t at = count++;
            for (; at > 0 && is_below(logits, id, ids[(at - 1) / 2]); at = (at - 1) / 2)
                ids[at] = ids[(at - 1) / 2];
            ids[at] = id;
        } else if (is_below(logits, ids[0], id)) {
            ids[0] = id;
            sink(logits, ids, count);
        }
    }
    while (count > 1) {
        const uint32_t id = ids[0];
        ids[0] = ids[--count];
        ids[count] = id;
        sink(logits, ids, count);
    }
}

/* A number of [0, 1) that only the distribution decides. */
static double offset_of(double log_sum) {
    uint64_t x;
    memcpy(&x, &log_sum, sizeof x);
    x = (x ^ x >> 31) * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return (double)(x >> 11) * 0x1p-53;
}

/* Draws the samples; the probability of all tokens that are less probable than `last`. */
static double draw(const float *logits, uint32_t vocabulary, uint32_t last, double log_sum, uint32_t *ids) {
    double rest = 0, sum = 0;
    for (uint32_t id = 0; id < vocabulary; id++)
        if (is_below(logits, id, last)) rest += nibl_exp((double)logits[id] - log_sum);
    const double step = rest / (double)SAMPLES, offset = offset_of(log_sum);
    uint32_t count = 0, latest = last;
    for (uint32_t id = 0; id < vocabulary && count < SAMPLES; id++) {
        if (!is_below(logits, id, last)) continue;
        sum += nibl_exp((double)logits[id] - log_sum);
        latest = id;
        while (count < SAMPLES && sum > step * (count + offset)) ids[count++] = id;
    }
    while (count < SAMPLES) ids[count++] = latest; /* by rounding */
    return rest;
}

nibl_status nibl_reference_pack(const float *logits, uint32_t vocabulary, int32_t next, void *packed) {
    uint32_t top, ids[KEPT];
    double log_sum;
    if (next < 0 || (uint32_t)next >= vocabulary)
        return nibl_fail(NIBL_E_ARGUMENT, "token %d is none of the vocabulary of %u", next, vocabulary);
    if (!nibl_measure_row(logits, vocabulary, &top, &log_sum))
        return nibl_fail(NIBL_E_NUMERIC, "a position of the reference has logits that are not finite");
    const uint32_t kept = kept_of(vocabulary), first = vocabulary > KEPT ? TOP : kept;
    select_top(logits, vocabulary, first, ids);
    const double rest = kept > first ? draw(logits, vocabulary, ids[first - 1], log_sum, ids + first) : 0;
    uint8_t *out = packed;
    store_f32(out, (double)logits[next] - log_sum);
    store_f32(out + 4, rest);
    for (uint32_t i = 0; i < kept; i++) {
        store_u32(out + HEAD + (size_t)4 * i, ids[i]);
        store_f32(out + HEAD + (size_t)4 * (kept + i), (double)logits[ids[i]] - log_sum);
    }
    return NIBL_OK;
}

nibl_status nibl_reference_compare(const void *packed, const float *logits, double log_sum,
                                   uint32_t vocabulary, uint32_t *top, double *surprise, double *kl) {
    const uint8_t *in = packed;
    const uint32_t kept = kept_of(vocabulary), first = vocabulary > KEPT ? TOP : kept;
    const double next = load_f32(in), rest = load_f32(in + 4);
    if (!(next <= MOST) || !isfinite(next) || !(rest >= 0 && rest <= 1 + MOST))
        return nibl_fail(NIBL_E_FILE, "the reference's probabilities are none");
    double sum = 0, samples = 0;
    for (uint32_t i = 0; i < kept; i++) {
        const uint32_t id = nibl_load_u32(in + HEAD + (size_t)4 * i);
        const double log_p = load_f32(in + HEAD + (size_t)4 * (kept + i));
        if (id >= vocabulary || !(log_p <= MOST) || !isfinite(log_p))
            return nibl_fail(NIBL_E_FILE,
                             "the reference has token %u of log probability %g; there are %u tokens", id,
                             log_p, vocabulary);
        const double change = log_p - ((double)logits[id] - log_sum);
        if (i < first)
            sum += nibl_exp(log_p) * change;
        else
            samples += change / (double)SAMPLES;
    }
    *top = nibl_load_u32(in + HEAD);
    *surprise = -next;
    *kl = sum + rest * samples;
    return NIBL_OK;
}

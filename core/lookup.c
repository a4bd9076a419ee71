#include "core/lookup.h"

#include <string.h>

/* NGRAM tokens must agree before a place is followed. Trust is an average over the last 8 or so predictions. */
enum { NGRAM = 3, MIN_SLOTS = 256, LONGEST = 32, TRUST_ONE = 256, TRUST_SHIFT = 3 };

/* A longer agreement and a text that keeps its word are worth more guesses. Chosen on texts of the default model:
 * stories, answers and copies, greedy and sampled. Whole tiles of the matrix products with the token that is due. */
static const struct {
    size_t length;
    uint32_t trust;
    uint32_t guesses;
} plans[] = {{5, TRUST_ONE * 80 / 100, 7}, {3, TRUST_ONE * 65 / 100, 3}};

/*
 * What a batch of 1 + n rows costs more than one row, in 1/100 of a row: the dearest that was measured, WebAssembly with
 * relaxed SIMD. Guesses are paid from a credit, so they never lose more than ALLOWANCE and 1 % of the tokens made (3 % of
 * 128); what they gain is kept up to MOST_CREDIT.
 */
static const int32_t extra_cost[NIBL_GUESSES + 1] = {0, 90, 165, 180, 250, 320, 385, 395};
enum { RIGHT = 100, PER_TOKEN = 1, ALLOWANCE = 250, MOST_CREDIT = 800 };

void nibl_lookup_free(nibl_lookup *l) {
    nibl_free(l->ends);
    *l = (nibl_lookup){0};
}

void nibl_lookup_forget(nibl_lookup *l) {
    *l = (nibl_lookup){.ends = l->ends, .slots = l->slots, .trust = TRUST_ONE / 2, .credit = ALLOWANCE};
    if (l->ends) memset(l->ends, 0, l->slots * sizeof *l->ends);
}

static bool reserve(nibl_lookup *l, size_t count) {
    if (l->slots >= 2 * count) return true;
    size_t slots = l->slots ? l->slots : MIN_SLOTS;
    while (slots < 2 * count) slots *= 2;
    nibl_free(l->ends);
    l->slots = 0;
    l->ends = nibl_alloc((uint64_t)slots * sizeof *l->ends);
    if (!l->ends) return false;
    l->slots = slots;
    memset(l->ends, 0, slots * sizeof *l->ends);
    return true;
}

/* Of the NGRAM tokens before `end`. */
static uint32_t *slot_of(const nibl_lookup *l, const int32_t *tokens, size_t end) {
    uint32_t hash = 0;
    for (size_t i = end - NGRAM; i < end; i++) hash = (hash ^ (uint32_t)tokens[i]) * 0x9E3779B1u;
    return &l->ends[(hash ^ hash >> 15) & (l->slots - 1)];
}

static size_t agreement(const int32_t *tokens, size_t a, size_t b) /* a < b */
{
    size_t n = 0;
    while (n < LONGEST && n < a && tokens[a - 1 - n] == tokens[b - 1 - n]) n++;
    return n;
}

/* The text has `count` tokens now. */
static void learn_one(nibl_lookup *l, const int32_t *tokens, size_t count, bool judged) {
    if (l->source) {
        const bool right = tokens[l->source] == tokens[count - 1];
        if (judged) {
            l->trust -= l->trust >> TRUST_SHIFT;
            if (right) l->trust += TRUST_ONE >> TRUST_SHIFT;
        }
        l->source = right ? l->source + 1 : 0;
        l->length += right;
    }
    if (count < NGRAM) return;
    uint32_t *end = slot_of(l, tokens, count);
    if (!l->source && *end) {
        l->length = agreement(tokens, *end, count); /* 0 where only the hashes agree */
        l->source = l->length >= NGRAM ? *end : 0;
    }
    *end = (uint32_t)count;
}

void nibl_lookup_learn(nibl_lookup *l, const int32_t *tokens, size_t count, size_t answer) {
    const size_t known = l->slots;
    if (!reserve(l, count)) return;
    if (l->slots != known) { /* a larger table is filled again; what was learned of the answer stays */
        for (size_t n = NGRAM; n <= l->learned; n++) *slot_of(l, tokens, n) = (uint32_t)n;
    }
    for (size_t n = l->learned + 1; n <= count; n++) learn_one(l, tokens, n, n > answer);
    l->learned = count;
}

uint32_t nibl_lookup_guess(const nibl_lookup *l, const int32_t *tokens, uint32_t most, int32_t *guesses) {
    if (!l->slots || !l->source) return 0;
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof plans / sizeof *plans && count == 0; i++)
        if (plans[i].guesses <= most && l->length >= plans[i].length && l->trust >= plans[i].trust &&
            l->credit >= extra_cost[plans[i].guesses])
            count = plans[i].guesses;
    for (uint32_t i = 0; i < count; i++) {
        const size_t at = l->source + i; /* a text that goes round in a circle is followed round it */
        guesses[i] = at < l->learned ? tokens[at] : guesses[at - l->learned];
    }
    return count;
}

static void earn(nibl_lookup *l, int32_t amount) {
    l->credit += amount;
    if (l->credit > MOST_CREDIT) l->credit = MOST_CREDIT;
}

void nibl_lookup_computed(nibl_lookup *l, uint32_t guesses) { earn(l, PER_TOKEN - extra_cost[guesses]); }

void nibl_lookup_was_right(nibl_lookup *l) { earn(l, RIGHT + PER_TOKEN); }

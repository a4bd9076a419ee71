/* Picks a token: penalties and biases, then temperature, top-k, top-p, min-p over candidates, then one random number. */
#include "core/maths.h"
#include "core/matcher.h"
#include "core/session.h"
#include "kernels/maths.h"

#include <math.h>
#include <string.h>

enum { DEFAULT_WINDOW = 64, BLOCK = 1024 };

typedef struct candidate {
    float logit; /* at the end its weight */
    int32_t token;
} candidate;

struct nibl_sampler {
    nibl_sampler_options options;
    const nibl_grammar *grammar; /* NULL = none */
    nibl_logit_bias *bias; /* copy */
    uint32_t vocabulary;
    uint64_t random; /* state of SplitMix64 */
    float *logits; /* (vocabulary): adjusted copy */
    candidate *heap; /* (vocabulary) */
};

/* ---- Grammars ---- */

struct nibl_grammar {
    const nibl_tokenizer *tokenizer;
    nibl_matcher *matcher;
};

nibl_status nibl_grammar_new(nibl_model *model, uint32_t format, const char *text, size_t length,
                             nibl_grammar **out) {
    if (format > NIBL_GRAMMAR_JSON_SCHEMA)
        return nibl_fail(NIBL_E_ARGUMENT, "grammars have no format %u", format);
    if (!model->token_trie) NIBL_TRY(nibl_token_trie_new(model->tokenizer, &model->token_trie));
    nibl_grammar *g = nibl_alloc_zero(sizeof *g);
    if (!g) return nibl_fail_memory(sizeof *g, "a grammar");
    g->tokenizer = model->tokenizer;
    nibl_rules rules = {0};
    (format == NIBL_GRAMMAR_GBNF ? nibl_grammar_read : nibl_grammar_read_schema)(&rules, text, length);
    const nibl_status status = nibl_matcher_new(&rules, model->token_trie, &g->matcher);
    if (status < 0)
        nibl_grammar_free(g);
    else
        *out = g;
    return status;
}

void nibl_grammar_free(nibl_grammar *g) {
    if (!g) return;
    nibl_matcher_free(g->matcher);
    nibl_free(g);
}

static nibl_status accept(const nibl_grammar *g, int32_t token) {
    char bytes[NIBL_TRIE_MAX_DEPTH];
    if (nibl_tokenizer_is_end(g->tokenizer, token)) return NIBL_OK;
    return nibl_matcher_accept(g->matcher, bytes,
                               nibl_tokenizer_bytes(g->tokenizer, (uint32_t)token, bytes, sizeof bytes));
}

nibl_status nibl_sampler_constrain(nibl_sampler *s, nibl_grammar *grammar, uint32_t tokens) {
    s->grammar = NULL;
    if (grammar) NIBL_TRY(nibl_matcher_start(grammar->matcher, tokens ? tokens : UINT32_MAX));
    s->grammar = grammar;
    return NIBL_OK;
}

bool nibl_sampler_done(const nibl_sampler *s) { return s->grammar && nibl_matcher_done(s->grammar->matcher); }

/* ---- Life ---- */

static bool in_range(float x, float low, float high) { return x >= low && x <= high; } /* false for NaN */

static nibl_status check(const nibl_sampler_options *o, uint32_t vocabulary) {
    if (o->size != sizeof *o)
        return nibl_fail(NIBL_E_ARGUMENT, "nibl_sampler_options.size is %zu, must be %zu", o->size,
                         sizeof *o);
    const struct {
        const char *name;
        float value, low, high;
    } limits[] = {{"temperature", o->temperature, 0, 100},
                  {"top_p", o->top_p, 0, 1},
                  {"min_p", o->min_p, 0, 1},
                  {"repeat_penalty", o->repeat_penalty, 0, 100}};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (!in_range(limits[i].value, limits[i].low, limits[i].high))
            return nibl_fail(NIBL_E_ARGUMENT, "%s is %g; %g to %g is possible", limits[i].name,
                             (double)limits[i].value, (double)limits[i].low, (double)limits[i].high);
    for (size_t i = 0; i < o->logit_bias_count; i++) {
        const nibl_logit_bias *b = &o->logit_bias[i];
        if (b->token < 0 || (uint32_t)b->token >= vocabulary)
            return nibl_fail(NIBL_E_ARGUMENT, "logit bias names token %d; the vocabulary has %u",
                             (int)b->token, vocabulary);
        if (!(b->bias <= 1e6f))
            return nibl_fail(NIBL_E_ARGUMENT, "logit bias of token %d is not a number", (int)b->token);
    }
    return NIBL_OK;
}

nibl_status nibl_sampler_new(const nibl_model *model, const nibl_sampler_options *options,
                             nibl_sampler **out) {
    const uint32_t vocabulary = model->hyper.vocabulary;
    const nibl_sampler_options greedy = {.size = sizeof greedy};
    if (!options) options = &greedy;
    NIBL_TRY(check(options, vocabulary));
    nibl_sampler *s = nibl_alloc_zero(sizeof *s);
    if (!s) return nibl_fail_memory(sizeof *s, "the sampler");
    s->options = *options;
    s->vocabulary = vocabulary;
    s->random = options->seed;
    if (s->options.repeat_window == 0) s->options.repeat_window = DEFAULT_WINDOW;
    const uint64_t bias_bytes = options->logit_bias_count * sizeof *s->bias;
    s->logits = nibl_alloc(vocabulary * sizeof *s->logits);
    s->heap = nibl_alloc(vocabulary * sizeof *s->heap);
    s->bias = nibl_alloc(bias_bytes + 1);
    if (!s->logits || !s->heap || !s->bias) {
        nibl_sampler_free(s);
        return nibl_fail_memory(vocabulary * 12ull + bias_bytes, "the sampler");
    }
    if (bias_bytes) memcpy(s->bias, options->logit_bias, (size_t)bias_bytes);
    s->options.logit_bias = s->bias;
    *out = s;
    return NIBL_OK;
}

void nibl_sampler_free(nibl_sampler *s) {
    if (!s) return;
    nibl_free(s->logits);
    nibl_free(s->heap);
    nibl_free(s->bias);
    nibl_free(s);
}

/* SplitMix64 (Steele, Lea, Flood 2014), upper 53 bits as a number in [0, 1). */
static double next_random(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

static bool penalises(const nibl_sampler *s) {
    return s->options.repeat_penalty != 0.0f && s->options.repeat_penalty != 1.0f;
}

/* Penalises each of the last tokens once (CTRL, arXiv:1909.05858) and adds the biases. */
static void adjust(const nibl_sampler *s, const nibl_session *session, float *logits) {
    const float penalty = s->options.repeat_penalty;
    if (penalises(s)) {
        const size_t window = s->options.repeat_window;
        const size_t begin = session->count > window ? session->count - window : 0;
        for (size_t i = begin; i < session->count; i++) {
            const int32_t token = session->tokens[i];
            size_t j = begin;
            while (session->tokens[j] != token) j++;
            if (j == i) logits[token] = logits[token] > 0 ? logits[token] / penalty : logits[token] * penalty;
        }
    }
    for (size_t i = 0; i < s->options.logit_bias_count; i++) logits[s->bias[i].token] += s->bias[i].bias;
}

/* Probability beside that of the best. */
static float weight_of(double logit, double best) { return nibl_expf((float)(logit - best)); }

/* The first of the best tokens, its logit, and the weight of all. */
typedef struct peak {
    uint32_t token;
    float logit;
    double weight;
} peak;

static peak peak_of(const nibl_kernels *kernels, const float *logits, uint32_t n) {
    peak p = {.logit = -INFINITY};
    for (uint32_t i = 0; i < n; i += BLOCK) {
        float ml[2]; /* maximum and weight */
        kernels->softmax(ml, logits + i, n - i < BLOCK ? n - i : BLOCK);
        if (ml[0] > p.logit) {
            p.weight = p.weight * (double)weight_of((double)p.logit, (double)ml[0]) + (double)ml[1];
            p.logit = ml[0];
            p.token = i;
        } else if (ml[0] > -INFINITY) {
            p.weight += (double)ml[1] * (double)weight_of((double)ml[0], (double)p.logit);
        }
    }
    while (logits[p.token] < p.logit) p.token++;
    return p;
}

/* a stands before b: higher logit, then lower id, so that the order never depends on the method of sorting */
static bool before(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static void sift_down(candidate *heap, size_t n, size_t i) {
    for (;;) {
        size_t top = i, left = 2 * i + 1;
        if (left < n && before(heap[left], heap[top])) top = left;
        if (left + 1 < n && before(heap[left + 1], heap[top])) top = left + 1;
        if (top == i) return;
        candidate swap = heap[i];
        heap[i] = heap[top];
        heap[top] = swap;
        i = top;
    }
}

/* Removes and returns the best of n candidates; the heap then has n - 1. */
static candidate pop(candidate *heap, size_t n) {
    candidate top = heap[0];
    heap[0] = heap[n - 1];
    sift_down(heap, n - 1, 0);
    return top;
}

/* Puts the candidates with a logit of at least `least` into the heap, by token; how many there are. */
static size_t gather(nibl_sampler *s, const float *logits, double least) {
    size_t n = 0;
    for (uint32_t i = 0; i < s->vocabulary; i++)
        if ((double)logits[i] >= least && logits[i] > -INFINITY)
            s->heap[n++] = (candidate){logits[i], (int32_t)i};
    return n;
}

/* The best candidates, best first: as many as have the weight `enough` together, and at most `most`. Looks only at those
 * within some distance of the best, then farther where that was too short. */
static candidate *best_few(nibl_sampler *s, const float *logits, double best, size_t most, double enough,
                           size_t *count) {
    candidate *heap = s->heap;
    for (double reach = 8;; reach = reach < 128 ? 4 * reach : INFINITY) {
        const size_t n = gather(s, logits, best - reach);
        for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i);
        size_t kept = 0;
        /* the j-th best moves to heap[n - 1 - j], the slot its removal frees */
        for (double weight = 0; kept < n && kept < most && weight < enough; kept++) {
            const candidate c = heap[n - 1 - kept] = pop(heap, n - kept);
            weight += (double)weight_of((double)c.logit, best);
            if (weight >= enough) most = kept + 1;
        }
        if (kept < most && reach < INFINITY) continue;
        candidate *few = heap + (n - kept);
        for (size_t i = 0, j = kept; i + 1 < j; i++) {
            const candidate c = few[--j];
            few[j] = few[i];
            few[i] = c;
        }
        *count = kept;
        return few;
    }
}

/* The filters stand in the order that llama.cpp's users know: top-k, top-p, min-p on the model's own probabilities,
 * then temperature. No more of the vocabulary is put in order than top-k and top-p need. */
static int32_t draw(nibl_sampler *s, const float *logits, peak top) {
    const nibl_sampler_options *o = &s->options;
    const double best = (double)top.logit;
    const double least =
        o->min_p > 0 ? best + nibl_log((double)o->min_p) : -INFINITY; /* p >= min_p * p of the best */
    const bool nucleus = o->top_p > 0 && o->top_p < 1;
    candidate *kept = s->heap;
    size_t count;
    if (!o->top_k && !nucleus) {
        count = gather(s, logits, least);
    } else {
        const double enough = o->top_k ? INFINITY : (double)o->top_p * top.weight;
        kept = best_few(s, logits, best, o->top_k ? o->top_k : s->vocabulary, enough, &count);
        if (o->top_k && nucleus) { /* a share of what top-k left */
            double total = 0, mass = 0;
            for (size_t i = 0; i < count; i++) total += (double)weight_of((double)kept[i].logit, best);
            const size_t most = count;
            for (count = 0; count < most && mass < (double)o->top_p * total; count++)
                mass += (double)weight_of((double)kept[count].logit, best);
        }
        while (count > 1 && (double)kept[count - 1].logit < least) count--;
    }

    double total = 0;
    for (size_t i = 0; i < count; i++) {
        kept[i].logit = weight_of(((double)kept[i].logit - best) / (double)o->temperature, 0);
        total += (double)kept[i].logit;
    }
    double left = next_random(&s->random) * total;
    size_t i = 0;
    while (i + 1 < count && (left -= (double)kept[i].logit) >= 0) i++;
    return kept[i].token;
}

nibl_status nibl_sample(nibl_sampler *s, const nibl_session *session, int32_t *token, float *logprob) {
    const float *logits;
    size_t rows;
    NIBL_TRY(nibl_session_logits(session, &logits, NULL, &rows));
    if (session->model->hyper.vocabulary != s->vocabulary)
        return nibl_fail(NIBL_E_ARGUMENT, "the sampler was made for another model");
    logits += (rows - 1) * s->vocabulary;
    const nibl_kernels *kernels = session->model->kernels;
    const nibl_grammar *g = s->grammar;
    const peak plain = peak_of(kernels, logits, s->vocabulary);
    peak top = plain;
    const float *adjusted = logits;
    if (penalises(s) || s->options.logit_bias_count > 0 || g) {
        memcpy(s->logits, logits, s->vocabulary * sizeof *logits);
        adjust(s, session, s->logits);
        if (g)
            NIBL_TRY(nibl_matcher_apply(g->matcher, s->logits, s->vocabulary,
                                        nibl_tokenizer_ends(g->tokenizer), NIBL_END_TOKENS));
        top = peak_of(kernels, adjusted = s->logits, s->vocabulary);
    }
    if (!(top.logit > -INFINITY))
        return nibl_fail(NIBL_E_ARGUMENT, "the logit biases forbid every token%s",
                         g ? " of the grammar" : "");
    *token = s->options.temperature > 0 ? draw(s, adjusted, top) : (int32_t)top.token;
    if (logprob) *logprob = (float)((double)logits[*token] - (double)plain.logit - nibl_log(plain.weight));
    return g ? accept(g, *token) : NIBL_OK;
}

/* A session: one sequence of tokens, its KV cache and its logits. */
#ifndef NIBL_SESSION_H
#define NIBL_SESSION_H

#include "core/forward.h"
#include "core/lookup.h"

struct nibl_session {
    nibl_model *model;
    nibl_session_options options; /* with defaults filled in */
    nibl_kv kv;
    int32_t *tokens;
    size_t token_capacity, count, computed;
    uint64_t epoch; /* changes when tokens change under a run */
    float *logits;  /* (logit_rows + ahead, vocabulary) from row logit_begin on */
    size_t logit_capacity, logit_begin, logit_rows, logit_first;
    uint64_t hash;
    /* Tokens guessed and computed behind the sequence: rows of logits and places in the cache that count only once the
     * caller appends the same tokens. */
    bool speculate;
    nibl_lookup lookup;
    int32_t guesses[NIBL_GUESSES];
    size_t answer; /* tokens before this one were not appended one by one */
    uint32_t guessed, ahead; /* of the last step; the last `ahead` of them are still to come */
    uint64_t proposed, accepted;
};

/* Defaults and checks of options, shared with the planner. */
nibl_status nibl_session_defaults(const nibl_hyper *hyper, nibl_session_options *options);

/* Gives the model at least so many threads. */
nibl_status nibl_session_grow_pool(nibl_model *model, uint32_t threads);

#endif

/* A session: one sequence of tokens, its KV cache and its logits. */
#ifndef NIBL_SESSION_H
#define NIBL_SESSION_H

#include "core/forward.h"

struct nibl_session {
    nibl_model *model;
    nibl_session_options options; /* with defaults filled in */
    nibl_kv kv;
    int32_t *tokens;
    size_t token_capacity, count, computed;
    uint64_t epoch; /* changes when tokens change under a run */
    float *logits;  /* (logit_rows, vocabulary) */
    size_t logit_capacity, logit_rows, logit_first;
    uint64_t hash;
};

/* Defaults and checks of options, shared with the planner. */
nibl_status nibl_session_defaults(const nibl_hyper *hyper, nibl_session_options *options);

#endif

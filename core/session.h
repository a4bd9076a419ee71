/* A session: one sequence of tokens, its KV cache and its logits. */
#ifndef NIBL_SESSION_H
#define NIBL_SESSION_H

#include "core/forward.h"
#include "core/lookup.h"

/* A saved state: this, the tokens as int32, and the pieces of nibl_kv_piece. Little-endian. */
typedef struct nibl_state {
    char magic[8];
    uint64_t checksum; /* of all that follows */
    uint64_t model; /* its fingerprint */
    uint32_t kv_type, activations;
    uint32_t long_rope; /* RoPE was that of long contexts */
    uint32_t tokens;
} nibl_state;

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
    /* Hidden states (width) where they are wanted: their sum in the order of positions, and that of the last one. */
    bool embeds;
    float *sum, *hidden;
    size_t summed;
    nibl_state state; /* being saved or restored; */
    size_t state_piece, state_at; /* where the next byte of it goes */
};

/* Tokens and what is computed change: a run that works on this session must start over. */
void nibl_session_reset(nibl_session *session, size_t count, size_t computed);

/* Of the state that was saved or restored last. */
uint64_t nibl_session_checksum(nibl_session *session);

nibl_status nibl_session_reserve(nibl_session *session, size_t tokens);

/* Defaults and checks of options, shared with the planner. */
nibl_status nibl_session_defaults(const nibl_hyper *hyper, nibl_session_options *options);

/* Gives the model at least so many threads. */
nibl_status nibl_session_grow_pool(nibl_model *model, uint32_t threads);

#endif

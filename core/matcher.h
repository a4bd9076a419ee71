/*
 * Which tokens may come next, so that a text is, or can still become, one of a grammar. The grammar is a pushdown automaton
 * over bytes; the sets of (place, stack) that a text can lead to are states of a deterministic one, made when they are first
 * met, with their transitions and the mask of the tokens they allow. Stacks share what they have in common. Every state can
 * be completed with bytes that the vocabulary has; and where tokens run short, only those are allowed that leave enough of
 * them.
 */
#ifndef NIBL_MATCHER_H
#define NIBL_MATCHER_H

#include "core/grammar.h"
#include "core/token_trie.h"

typedef struct nibl_matcher nibl_matcher;

/* Takes the rules over, also on failure. NIBL_E_GRAMMAR where no text of the grammar can be written with the vocabulary, or
 * where it is left-recursive. The trie must outlive it. */
nibl_status nibl_matcher_new(nibl_rules *rules, const nibl_token_trie *trie, nibl_matcher **out);
void nibl_matcher_free(nibl_matcher *matcher);

/* Back to the beginning of the text, of which at most `tokens` may be written. NIBL_E_GRAMMAR where they are too few. */
nibl_status nibl_matcher_start(nibl_matcher *matcher, uint32_t tokens);

/* Makes the logits of tokens that may not come next -INFINITY; `ends` of them, the end tokens, may where the text is
 * complete. */
nibl_status nibl_matcher_apply(nibl_matcher *matcher, float *logits, uint32_t vocabulary, const int32_t *ends,
                               size_t end_count);

/* The text goes on with these bytes, of one token. */
nibl_status nibl_matcher_accept(nibl_matcher *matcher, const char *bytes, size_t length);

/* Whether the text is complete, and nothing may follow. */
bool nibl_matcher_done(const nibl_matcher *matcher);
/* Whether the text is complete. */
bool nibl_matcher_complete(const nibl_matcher *matcher);

#endif

/* Prompt lookup (Saxena 2023, "Prompt Lookup Decoding"): where a text repeats itself, what followed the last time is
 * guessed to follow again. Nothing here knows a model; a wrong guess costs time and changes no result. */
#ifndef NIBL_LOOKUP_H
#define NIBL_LOOKUP_H

#include "core/base.h"

/* With the token that is computed anyway they make a batch of eight, a full tile of the matrix products. */
enum { NIBL_GUESSES = 7 };

typedef struct nibl_lookup {
    uint32_t
        *ends; /* by hash of the last tokens: how many tokens the text had when they last came; 0 = never */
    size_t slots;
    size_t learned; /* tokens */
    size_t source; /* the next token is likely tokens[source]; 0 = nobody knows */
    size_t length; /* tokens before `source` that agree with the end of the text */
    uint32_t trust; /* how often that was right lately, of 256 */
    int32_t credit; /* what guessing may still lose, in 1/100 of the time of one token */
} nibl_lookup;

void nibl_lookup_free(nibl_lookup *lookup);

/* Brings the look-up to `count` tokens, of which those up to `learned` are as they were; those from `answer` on are the
 * model's own and tell how well the text can be guessed. Without memory there are no guesses. */
void nibl_lookup_learn(nibl_lookup *lookup, const int32_t *tokens, size_t count, size_t answer);

/* Forgets the text. */
void nibl_lookup_forget(nibl_lookup *lookup);

/* How many tokens are worth guessing behind those learned, at most `most`; writes them. */
uint32_t nibl_lookup_guess(const nibl_lookup *lookup, const int32_t *tokens, uint32_t most, int32_t *guesses);

/* One token was computed together with so many guesses; and one guess was right. */
void nibl_lookup_computed(nibl_lookup *lookup, uint32_t guesses);
void nibl_lookup_was_right(nibl_lookup *lookup);

#endif

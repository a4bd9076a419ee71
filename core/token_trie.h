/* The bytes of all tokens of a vocabulary, in order: nodes of a tree stand as a walk through it meets them, so that a
 * grammar looks at every beginning that tokens share only once. */
#ifndef NIBL_TOKEN_TRIE_H
#define NIBL_TOKEN_TRIE_H

#include "core/tokenizer.h"

enum { NIBL_TRIE_MAX_DEPTH = 255 }; /* longer tokens are left out */

typedef struct nibl_token_trie {
    uint32_t count; /* nodes; none is the root */
    uint32_t tokens; /* of the vocabulary */
    uint8_t *byte, *depth; /* (count); depth from 1 */
    uint32_t *skip; /* (count): the first node behind those below */
    uint32_t *
        first; /* (count + 1): the tokens that end at node i are sorted[first[i]] to sorted[first[i + 1] - 1] */
    uint32_t *sorted;
    bool single[256]; /* the byte is a token */
} nibl_token_trie;

/* Of ordinary tokens, user-defined ones included; control tokens have no place in a text. */
nibl_status nibl_token_trie_new(const nibl_tokenizer *tokenizer, nibl_token_trie **out);
void nibl_token_trie_free(nibl_token_trie *trie);

#endif

/* BPE inside one word: adjacent tokens merge, the pair of the lowest rank first and the leftmost of equals, until no pair
 * is left that merges (Sennrich et al. 2016). Either on bytes, as in GPT-2, or on characters, as in SentencePiece. Pairs
 * stand in a table, or a pair merges if its text is a token and ranks by that one's score. O(n log n) for any word. */
#ifndef NIBL_BPE_H
#define NIBL_BPE_H

#include "core/pieces.h"

#define NIBL_BPE_MAX_WORD (1u << 30) /* bytes */

typedef struct nibl_merge {
    uint32_t left, right, merged; /* tokens */
} nibl_merge;

typedef struct nibl_bpe {
    const nibl_pieces *pieces; /* of characters; NULL: of bytes */
    bool scores; /* a pair merges by its piece's score, else by `merges` */
    uint32_t byte_token[256]; /* NIBL_NO_TOKEN: the vocabulary lacks this byte, and text loses it */
    uint32_t
        unknown; /* stands for a character that neither the pieces nor the bytes have; may be NIBL_NO_TOKEN */
    nibl_merge *merges; /* by rank */
    nibl_index pairs; /* (left, right) -> rank */
} nibl_bpe;

/* Where tokens go; those beyond the capacity are only counted. */
typedef struct nibl_token_list {
    int32_t *tokens;
    size_t capacity, count;
} nibl_token_list;

static inline void nibl_token_list_add(nibl_token_list *list, uint32_t token) {
    if (list->count < list->capacity) list->tokens[list->count] = (int32_t)token;
    list->count++;
}

/* Enters merges[rank], whose fields are set, into `pairs`. NIBL_E_FILE where the pair has a rank already. */
nibl_status nibl_bpe_add_merge(nibl_bpe *bpe, uint32_t rank);

/* `word` is well-formed where there are pieces. */
nibl_status nibl_bpe_encode(const nibl_bpe *bpe, const char *word, size_t length, nibl_token_list *out);

#endif

/* Byte-level BPE inside one word: adjacent tokens merge, the pair of the lowest rank first and the leftmost
 * of equals, until no pair is in the table (Sennrich et al. 2016; on bytes as in GPT-2). O(n log n) for any
 * word. */
#ifndef NIBL_BPE_H
#define NIBL_BPE_H

#include "core/index_table.h"

#define NIBL_BPE_NONE 0xFFFFFFFFu
#define NIBL_BPE_MAX_WORD (1u << 30) /* bytes */

typedef struct nibl_merge {
    uint32_t left, right, merged; /* tokens */
} nibl_merge;

typedef struct nibl_bpe {
    uint32_t byte_token
        [256]; /* NIBL_BPE_NONE: the vocabulary lacks this byte and text loses it, as in Hugging Face's */
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

nibl_status nibl_bpe_encode(const nibl_bpe *bpe, const char *word, size_t length, nibl_token_list *out);

#endif

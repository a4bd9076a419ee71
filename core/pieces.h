/* Tokens by their text. */
#ifndef NIBL_PIECES_H
#define NIBL_PIECES_H

#include "core/gguf.h"
#include "core/index_table.h"

#define NIBL_NO_TOKEN 0xFFFFFFFFu

typedef struct nibl_pieces {
    nibl_gguf_array texts, types,
        scores; /* they stay where they are; `scores` counts 0 where there are none */
    nibl_index index;
    size_t longest; /* bytes */
} nibl_pieces;

/* tokenizer.ggml.token_type; unknown tokens are treated as control tokens */
enum {
    NIBL_TYPE_UNDEFINED,
    NIBL_TYPE_NORMAL,
    NIBL_TYPE_UNKNOWN,
    NIBL_TYPE_CONTROL,
    NIBL_TYPE_USER,
    NIBL_TYPE_UNUSED,
    NIBL_TYPE_BYTE
};

/* Fills the index over `texts`; NIBL_E_FILE where two are the same. */
nibl_status nibl_pieces_index(nibl_pieces *pieces);
void nibl_pieces_free(nibl_pieces *pieces);

uint32_t nibl_pieces_type(const nibl_pieces *pieces, uint32_t token);
/* Smaller for a higher score. */
uint32_t nibl_pieces_rank(const nibl_pieces *pieces, uint32_t token);

/* The token whose text is `a` and then `b`; NIBL_NO_TOKEN where there is none. Takes time in the length of the longest
 * token at most. */
uint32_t nibl_pieces_find(const nibl_pieces *pieces, nibl_slice a, nibl_slice b);
/* As above, of the tokens that words are made of. */
uint32_t nibl_pieces_find_word(const nibl_pieces *pieces, const char *bytes, size_t length);

#endif

/* Tokens that are recognised in a text as a whole before it is cut into words: control tokens (<|im_start|>)
 * and tokens the model's author added. Of several that match, the leftmost wins, then the longest, as in
 * Hugging Face's. */
#ifndef NIBL_SPECIAL_H
#define NIBL_SPECIAL_H

#include "core/gguf.h"
#include "core/index_table.h"

#define NIBL_SPECIAL_MAX_BYTES 256u

typedef struct nibl_special_token {
    nibl_slice text;
    uint32_t token;
    bool control; /* recognised on demand only */
    bool lstrip, rstrip; /* takes the white space before it, or behind it */
} nibl_special_token;

typedef struct nibl_special {
    nibl_special_token *tokens;
    uint32_t count;
    nibl_index texts;
    uint16_t longest[256]; /* bytes of the longest one that begins with this byte; 0 = none */
    bool lengths[NIBL_SPECIAL_MAX_BYTES + 1]; /* which lengths occur */
} nibl_special;

/* Allocates room for `capacity` tokens; no memory for none. */
nibl_status nibl_special_new(nibl_special *special, uint32_t capacity);
void nibl_special_free(nibl_special *special);

/* In ascending order of tokens. The text must outlive the table. Texts are distinct; an empty one never matches. */
nibl_status nibl_special_add(nibl_special *special, nibl_special_token token);

/* What is known of that token; NULL where it is not in the table. Tokens were added in ascending order. */
nibl_special_token *nibl_special_of(const nibl_special *special, uint32_t token);

/* The first token in text[from..length), or NULL; *at is where it begins and *end where it ends, with the white space it
 * takes. Linear in the text. */
const nibl_special_token *nibl_special_find(const nibl_special *special, const char *text, size_t length,
                                            size_t from, bool control, size_t *at, size_t *end);

#endif

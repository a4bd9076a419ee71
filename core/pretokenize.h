/* Pre-tokenizers: cut text into the words inside which BPE merges. A pre-tokenizer is one to six patterns: the first
 * cuts the text into its matches and what lies between them, the next cuts each of these pieces, and so on. */
#ifndef NIBL_PRETOKENIZE_H
#define NIBL_PRETOKENIZE_H

#include "core/pattern.h"

enum { NIBL_PRE_PATTERNS = 6 };

typedef struct nibl_pre_row {
    const char *names; /* of tokenizer.ggml.pre, with a space behind each */
    const char *patterns[NIBL_PRE_PATTERNS];
    bool whole_words; /* a word that is a token is not merged ("ignore_merges") */
    bool add_bos; /* where the file does not say */
    bool nfc; /* likewise: texts are brought into normalization form C; GGUF has no key for it */
} nibl_pre_row;

/* NULL where this build does not know the name. */
const nibl_pre_row *nibl_pre_find(const char *name, size_t length);
/* Writes one of the names of every pre-tokenizer, parted by ", ". */
void nibl_pre_names(nibl_writer *out);

typedef struct nibl_pretokenizer {
    nibl_pattern *patterns; /* owned */
    size_t count;
} nibl_pretokenizer;

nibl_status nibl_pretokenizer_new(nibl_pretokenizer *pre, const char *const *patterns, size_t count);
void nibl_pretokenizer_free(nibl_pretokenizer *pre);

/* Goes over the words of a text, well-formed UTF-8, which stays where it is. Words follow without gaps. */
typedef struct nibl_words {
    const nibl_pretokenizer *pre;
    const char *text;
    size_t depth;
    struct {
        nibl_pattern_search search;
        size_t base, at, match, match_end; /* `base` from the text's start, the others from there */
    } levels[NIBL_PRE_PATTERNS];
} nibl_words;

void nibl_words_start(nibl_words *words, const nibl_pretokenizer *pre, const char *text, size_t length);
/* The next word; false at the end. */
bool nibl_words_next(nibl_words *words, size_t *begin, size_t *length);

#endif

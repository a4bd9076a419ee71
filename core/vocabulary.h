/* What a tokenizer is made of, whatever file it comes from. */
#ifndef NIBL_VOCABULARY_H
#define NIBL_VOCABULARY_H

#include "core/pieces.h"
#include "core/pretokenize.h"

enum { NIBL_END_TOKENS = 8 };

typedef enum nibl_tokenizer_model {
    NIBL_TOKENIZER_BYTES, /* BPE on bytes: texts in GPT-2's alphabet, merges by rank, a pre-tokenizer */
    NIBL_TOKENIZER_PIECES /* SentencePiece's BPE: texts with U+2581 for a space, scores, byte tokens <0x00> to <0xFF> */
} nibl_tokenizer_model;

/* Where a space goes before a text; decoding takes it away again. */
typedef enum nibl_space_prefix {
    NIBL_PREFIX_NONE,
    NIBL_PREFIX_EACH, /* before a text, and before what follows a special token */
    NIBL_PREFIX_EACH_BARE, /* there where no space stands already */
    NIBL_PREFIX_FIRST_BARE /* before a text that does not begin with one */
} nibl_space_prefix;

/* What tokenizer.json says and GGUF has no key for. */
#define NIBL_KEY_SPACE_PREFIX "nibl.tokenizer.space_prefix" /* a nibl_space_prefix */
#define NIBL_KEY_LSTRIP "nibl.tokenizer.lstrip" /* ids of special tokens that take the blanks before them */
#define NIBL_KEY_RSTRIP "nibl.tokenizer.rstrip" /* or behind them */
#define NIBL_KEY_NFC "nibl.tokenizer.nfc"
#define NIBL_KEY_WHOLE_WORDS "nibl.tokenizer.ignore_merges"
#define NIBL_MODEL_PIECES_MERGES                                                                             \
    "nibl.pieces" /* tokenizer.ggml.model: pieces, but merges instead of scores */

typedef struct nibl_vocabulary {
    nibl_tokenizer_model model;
    nibl_gguf_array texts, types, scores, merges; /* in GGUF's encoding; a merge is "left right" */
    nibl_gguf_array lstrip, rstrip; /* I32 */
    bool by_merges; /* else pieces merge by their scores */
    bool phi3; /* special tokens take the blanks behind them, but for a few */
    uint32_t tokens, merge_count, specials;
    const char *const *patterns; /* of the pre-tokenizer */
    size_t pattern_count;
    bool whole_words; /* a word that is a token is not merged */
    nibl_space_prefix space_prefix;
    bool nfc; /* texts are brought into normalization form C */
    bool collapse_spaces; /* none at the ends of a text, one where there are several */
    bool add_bos;
    int32_t bos, unknown, ends[NIBL_END_TOKENS]; /* -1 = none; ends[0] is eos */
} nibl_vocabulary;

/* Whether a special token takes the blanks behind it though `rstrip` does not list it. */
bool nibl_vocabulary_rstrip(const nibl_vocabulary *v, uint32_t token);

/* Of a GGUF header, which must outlive it. NIBL_E_UNSUPPORTED names the tokenizer or pre-tokenizer that is not known,
 * and lists those that are. */
nibl_status nibl_vocabulary_read(const nibl_gguf *gguf, nibl_vocabulary *out);

static inline bool nibl_type_special(uint32_t type) {
    return type >= NIBL_TYPE_UNKNOWN && type <= NIBL_TYPE_USER;
}

#endif

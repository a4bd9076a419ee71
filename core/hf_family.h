/* What kind of tokenizer a tokenizer.json has: byte-level BPE of a known family, or SentencePiece's BPE. Anything else is an
 * error, for a tokenizer that is nearly right makes a model stupid in silence. */
#ifndef NIBL_HF_FAMILY_H
#define NIBL_HF_FAMILY_H

#include "core/hf.h"
#include "core/vocabulary.h"

#define NIBL_HF_TOKENIZER_NAME "tokenizer.json"

typedef struct nibl_hf_family {
    bool pieces; /* SentencePiece's BPE with byte fallback; the next three are of the other kind */
    const char *pre; /* tokenizer.ggml.pre */
    bool ignore_merges, nfc;
    nibl_space_prefix prefix;
    bool fuse_unknown; /* unknown characters in a row are one token */
} nibl_hf_family;

nibl_status nibl_hf_find_family(const nibl_json *json, nibl_hf_family *out);

/* The pre-tokenizer of that name (tokenizer.ggml.pre) as tokenizer.json has it. NIBL_E_UNSUPPORTED where it is not known. */
nibl_status nibl_hf_write_family(nibl_slice pre, nibl_writer *w);

/* A member that is a bool; `absent` where it is none. */
bool nibl_hf_flag(const nibl_json *json, uint32_t object, const char *key, bool absent);

#endif

/* Pre-tokenizers: cut text into the words inside which BPE merges. Written out by hand for these patterns:
 *   gpt-2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   smollm  every number character alone, then gpt-2 on the stretches between them */
#ifndef NIBL_PRETOKENIZE_H
#define NIBL_PRETOKENIZE_H

#include "core/base.h"

typedef struct nibl_pretokenizer {
    const char *name; /* tokenizer.ggml.pre */
    bool split_digits;
} nibl_pretokenizer;

/* NULL where this build does not know the name. */
const nibl_pretokenizer *nibl_pretokenizer_find(const char *name, size_t length);

/* Length in bytes of the first word of `text`: well-formed UTF-8, length >= 1. Words follow without gaps. */
size_t nibl_pretokenize(const nibl_pretokenizer *pre, const char *text, size_t length);

#endif

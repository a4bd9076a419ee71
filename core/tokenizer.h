/* Text <-> tokens: byte-level BPE and SentencePiece BPE, chat templates known to C. */
#ifndef NIBL_TOKENIZER_H
#define NIBL_TOKENIZER_H

#include "core/vocabulary.h"

typedef struct nibl_tokenizer nibl_tokenizer;

/* Builds the tables; what the vocabulary points to must outlive them. */
nibl_status nibl_tokenizer_build(const nibl_vocabulary *vocabulary, nibl_tokenizer **out);
/* nibl_vocabulary_read and nibl_tokenizer_build. */
nibl_status nibl_tokenizer_new(const nibl_gguf *gguf, nibl_tokenizer **out);
void nibl_tokenizer_free(nibl_tokenizer *tokenizer);
/* Upper estimate of the bytes nibl_tokenizer_new allocates, from the header alone. */
uint64_t nibl_tokenizer_plan(const nibl_gguf *gguf);

size_t nibl_tokenizer_size(const nibl_tokenizer *tokenizer); /* tokens in the vocabulary */
int32_t nibl_tokenizer_bos(const nibl_tokenizer *tokenizer); /* -1 = none */
int32_t nibl_tokenizer_eos(const nibl_tokenizer *tokenizer);
bool nibl_tokenizer_add_bos(const nibl_tokenizer *tokenizer);
bool nibl_tokenizer_is_end(const nibl_tokenizer *tokenizer, int32_t token);

nibl_space_prefix nibl_tokenizer_space_prefix(const nibl_tokenizer *tokenizer);

typedef enum nibl_token_kind {
    NIBL_TOKEN_WORD, /* written in GPT-2's alphabet (alphabet.h) */
    NIBL_TOKEN_PIECE, /* written with U+2581 for a space */
    NIBL_TOKEN_BYTE, /* one byte, written <0x00> to <0xFF> */
    NIBL_TOKEN_USER, /* added by the model's author: always recognised in a text, always written */
    NIBL_TOKEN_CONTROL /* recognised and written only where asked for */
} nibl_token_kind;

/* A token as the file has it; token < size. */
nibl_token_kind nibl_tokenizer_kind(const nibl_tokenizer *tokenizer, uint32_t token);
nibl_slice nibl_tokenizer_text(const nibl_tokenizer *tokenizer, uint32_t token);
/* Its bytes within a text; returns how many they are, of which at most `capacity` are written. 0 for control tokens. */
size_t nibl_tokenizer_bytes(const nibl_tokenizer *tokenizer, uint32_t token, char *out, size_t capacity);
/* The NIBL_END_TOKENS end tokens; -1 = none. */
const int32_t *nibl_tokenizer_ends(const nibl_tokenizer *tokenizer);

/* Contracts as in nibl.h: nibl_tokenize, nibl_detokenize, nibl_decoder_*. Encoding neither changes the
 * tokenizer nor depends on its earlier use. */
nibl_status nibl_tokenizer_encode(const nibl_tokenizer *tokenizer, const char *text, size_t length,
                                  uint32_t flags, int32_t *tokens, size_t capacity, size_t *count);
nibl_status nibl_tokenizer_decode(const nibl_tokenizer *tokenizer, const int32_t *tokens, size_t count,
                                  bool special, char *text, size_t capacity, size_t *length);
nibl_status nibl_tokenizer_decoder(const nibl_tokenizer *tokenizer, bool special, nibl_decoder **out);

/* template.c: writes a conversation; the template is recognised from the Jinja text in
 * tokenizer.chat_template. */
nibl_status nibl_template_write(const nibl_gguf *gguf, const nibl_message *messages, size_t count,
                                bool generation_prompt, const nibl_moment *now, nibl_writer *out);

#endif

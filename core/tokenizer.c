#include "core/tokenizer.h"

#include "core/alphabet.h"
#include "core/bpe.h"
#include "core/pretokenize.h"
#include "core/special.h"

#include <string.h>

#define MAX_TOKENS (1u << NIBL_INDEX_BITS)
#define MAX_TEXT (NIBL_BPE_MAX_WORD / 3) /* bytes; repaired they may be three times as many */

/* tokenizer.ggml.token_type; unknown tokens are treated as control tokens */
enum { TYPE_UNDEFINED, TYPE_NORMAL, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

struct nibl_tokenizer {
    nibl_gguf_array texts, types; /* of the tokens; they stay in the header */
    const nibl_pretokenizer *pre;
    nibl_bpe bpe;
    nibl_special special;
    int32_t bos, eos, ends[3]; /* -1 = none */
    bool add_bos;
};

/* The arrays of the header, and how much of everything there is. */
typedef struct vocabulary {
    nibl_gguf_array texts, types, merges;
    uint32_t tokens, merge_count, specials;
    nibl_index index; /* text -> token, while the tables are built */
} vocabulary;

/* ---- Metadata ---- */

static bool has_key(const nibl_gguf *gguf, const char *key) {
    size_t length = strlen(key);
    for (size_t i = 0; i < nibl_gguf_metadata_count(gguf); i++) {
        nibl_slice name = nibl_gguf_metadata_key(gguf, i);
        if (name.length == length && memcmp(name.bytes, key, length) == 0) return true;
    }
    return false;
}

static nibl_status fail_key(const nibl_gguf *gguf, const char *key, const char *wanted) {
    return nibl_fail(NIBL_E_FILE, "%s is %s", key, has_key(gguf, key) ? wanted : "missing");
}

/* A token id; -1 where the key is absent. */
static nibl_status read_token_id(const nibl_gguf *gguf, const char *key, uint32_t tokens, int32_t *out) {
    uint64_t id;
    *out = -1;
    if (nibl_gguf_u64(gguf, key, &id)) {
        if (id >= tokens)
            return nibl_fail(NIBL_E_FILE, "%s is %llu, but the vocabulary ends at %u", key,
                             (unsigned long long)id, tokens - 1);
        *out = (int32_t)id;
        return NIBL_OK;
    }
    return has_key(gguf, key) ? nibl_fail(NIBL_E_FILE, "%s is not a token id", key) : NIBL_OK;
}

static nibl_status read_specials(const nibl_gguf *gguf, nibl_tokenizer *t, uint32_t tokens) {
    static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                           "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < 3; i++) NIBL_TRY(read_token_id(gguf, end_keys[i], tokens, &t->ends[i]));
    t->eos = t->ends[0];
    NIBL_TRY(read_token_id(gguf, "tokenizer.ggml.bos_token_id", tokens, &t->bos));
    static const char add_bos[] = "tokenizer.ggml.add_bos_token";
    if (!nibl_gguf_bool(gguf, add_bos, &t->add_bos) && has_key(gguf, add_bos))
        return nibl_fail(NIBL_E_FILE, "%s is not a bool", add_bos);
    if (t->add_bos && t->bos < 0)
        return nibl_fail(NIBL_E_FILE, "%s is true, but no bos_token_id is named", add_bos);
    return NIBL_OK;
}

static nibl_status find_pretokenizer(const nibl_gguf *gguf, const nibl_pretokenizer **out) {
    nibl_slice name;
    if (!nibl_gguf_string(gguf, "tokenizer.ggml.model", &name))
        return fail_key(gguf, "tokenizer.ggml.model", "not a string");
    int shown = name.length < 64 ? (int)name.length : 64;
    if (name.length != 4 || memcmp(name.bytes, "gpt2", 4) != 0)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "tokenizer.ggml.model '%.*s' is not supported, only 'gpt2' (byte-level BPE)", shown,
                         name.bytes);
    if (!nibl_gguf_string(gguf, "tokenizer.ggml.pre", &name))
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "tokenizer.ggml.pre, which names the pre-tokenizer, is %s: convert the model "
                         "again with a current converter",
                         has_key(gguf, "tokenizer.ggml.pre") ? "not a string" : "missing");
    *out = nibl_pretokenizer_find(name.bytes, name.length);
    shown = name.length < 64 ? (int)name.length : 64;
    if (!*out)
        return nibl_fail(NIBL_E_UNSUPPORTED, "tokenizer.ggml.pre '%.*s' is not a supported pre-tokenizer",
                         shown, name.bytes);
    return NIBL_OK;
}

static uint32_t type_of(const nibl_gguf_array *types, uint32_t token) {
    return nibl_load_u32(types->data + 4 * (size_t)token);
}

static bool is_special(uint32_t type) { return type >= TYPE_UNKNOWN && type <= TYPE_USER; }

static nibl_status read_arrays(const nibl_gguf *gguf, vocabulary *v) {
    static const char tokens[] = "tokenizer.ggml.tokens", types[] = "tokenizer.ggml.token_type",
                      merges[] = "tokenizer.ggml.merges";
    if (!nibl_gguf_array_of(gguf, tokens, &v->texts) || v->texts.type != NIBL_GGUF_STRING)
        return fail_key(gguf, tokens, "not an array of strings");
    if (!nibl_gguf_array_of(gguf, merges, &v->merges) || v->merges.type != NIBL_GGUF_STRING)
        return fail_key(gguf, merges, "not an array of strings");
    if (!nibl_gguf_array_of(gguf, types, &v->types) ||
        (v->types.type != NIBL_GGUF_I32 && v->types.type != NIBL_GGUF_U32))
        return fail_key(gguf, types, "not an array of 32-bit integers");
    if (v->texts.count == 0 || v->texts.count > MAX_TOKENS)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements, legal are 1 to %u", tokens,
                         (unsigned long long)v->texts.count, MAX_TOKENS);
    const nibl_gguf_tensor *embedding = nibl_gguf_find_tensor(gguf, "token_embd.weight");
    if (embedding && v->texts.count > embedding->dims[1])
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements, but token_embd.weight only %llu rows", tokens,
                         (unsigned long long)v->texts.count, (unsigned long long)embedding->dims[1]);
    if (v->merges.count > MAX_TOKENS)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements (limit %u)", merges,
                         (unsigned long long)v->merges.count, MAX_TOKENS);
    if (v->types.count != v->texts.count)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements, %s %llu", types,
                         (unsigned long long)v->types.count, tokens, (unsigned long long)v->texts.count);
    v->tokens = (uint32_t)v->texts.count;
    v->merge_count = (uint32_t)v->merges.count;
    for (uint32_t i = 0; i < v->tokens; i++) {
        uint32_t type = type_of(&v->types, i);
        if (type > TYPE_BYTE)
            return nibl_fail(NIBL_E_FILE, "%s: token %u has the unknown type %u", types, i, type);
        v->specials += is_special(type);
    }
    return NIBL_OK;
}

/* ---- Tables ---- */

static const nibl_slice empty = {"", 0};

/* A text in two parts, so that a merge can be looked up without joining it. */
static uint32_t find_text(const vocabulary *v, nibl_slice a, nibl_slice b, uint64_t hash) {
    nibl_probe probe = nibl_index_start(&v->index, hash);
    for (uint32_t token; nibl_index_next(&v->index, &probe, &token);) {
        nibl_slice text = nibl_gguf_array_string(&v->texts, token);
        if (text.length == a.length + b.length && memcmp(text.bytes, a.bytes, a.length) == 0 &&
            memcmp(text.bytes + a.length, b.bytes, b.length) == 0)
            return token;
    }
    return NIBL_BPE_NONE;
}

static uint64_t hash_slice(uint64_t hash, nibl_slice s) { return nibl_hash_bytes(hash, s.bytes, s.length); }

static nibl_status index_texts(vocabulary *v) {
    NIBL_TRY(nibl_index_new(&v->index, v->tokens, "the vocabulary"));
    for (uint32_t i = 0; i < v->tokens; i++) {
        nibl_slice text = nibl_gguf_array_string(&v->texts, i);
        nibl_probe probe = nibl_index_start(&v->index, hash_slice(NIBL_HASH_SEED, text));
        for (uint32_t other; nibl_index_next(&v->index, &probe, &other);) {
            nibl_slice known = nibl_gguf_array_string(&v->texts, other);
            if (known.length == text.length && memcmp(known.bytes, text.bytes, text.length) == 0)
                return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: tokens %u and %u are the same", other,
                                 i);
        }
        if (!nibl_index_put(&v->index, &probe, i))
            return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: token %u collides with too many others", i);
    }
    return NIBL_OK;
}

static void find_bytes(nibl_bpe *bpe, const vocabulary *v) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t code = nibl_alphabet_code((uint8_t)byte);
        char text[2] = {(char)(code < 128 ? code : 0xC0 | code >> 6), (char)(0x80 | (code & 0x3F))};
        nibl_slice slice = {text, code < 128 ? 1 : 2};
        bpe->byte_token[byte] = find_text(v, slice, empty, hash_slice(NIBL_HASH_SEED, slice));
    }
}

/* Reads "left right" of the given rank. */
static nibl_status parse_merge(const vocabulary *v, uint32_t rank, nibl_merge *out) {
    nibl_slice text = nibl_gguf_array_string(&v->merges, rank);
    const char *space = memchr(text.bytes, ' ', text.length);
    nibl_slice left = {text.bytes, space ? (size_t)(space - text.bytes) : 0};
    nibl_slice right = {text.bytes + left.length + 1, space ? text.length - left.length - 1 : 0};
    if (left.length == 0 || right.length == 0 || memchr(right.bytes, ' ', right.length))
        return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.merges: %u is not two tokens with a space between them",
                         rank);
    uint64_t hash = hash_slice(NIBL_HASH_SEED, left);
    out->left = find_text(v, left, empty, hash);
    out->right = find_text(v, right, empty, hash_slice(NIBL_HASH_SEED, right));
    out->merged = find_text(v, left, right, hash_slice(hash, right));
    if (out->left != NIBL_BPE_NONE && out->right != NIBL_BPE_NONE && out->merged != NIBL_BPE_NONE)
        return NIBL_OK;
    return nibl_fail(NIBL_E_FILE,
                     "tokenizer.ggml.merges: %u, '%.*s', needs a token that the vocabulary lacks", rank,
                     text.length < 64 ? (int)text.length : 64, text.bytes);
}

static nibl_status build_merges(nibl_bpe *bpe, const vocabulary *v) {
    NIBL_TRY(nibl_index_new(&bpe->pairs, v->merge_count, "merges"));
    if (v->merge_count == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)v->merge_count * sizeof *bpe->merges;
    bpe->merges = nibl_alloc(bytes);
    if (!bpe->merges) return nibl_fail_memory(bytes, "merges");
    for (uint32_t rank = 0; rank < v->merge_count; rank++) {
        NIBL_TRY(parse_merge(v, rank, &bpe->merges[rank]));
        NIBL_TRY(nibl_bpe_add_merge(bpe, rank));
    }
    return NIBL_OK;
}

static nibl_status build_specials(nibl_special *special, const vocabulary *v) {
    NIBL_TRY(nibl_special_new(special, v->specials));
    for (uint32_t i = 0; i < v->tokens; i++) {
        uint32_t type = type_of(&v->types, i);
        if (!is_special(type)) continue;
        NIBL_TRY(nibl_special_add(special, nibl_gguf_array_string(&v->texts, i), i, type != TYPE_USER));
    }
    return NIBL_OK;
}

static nibl_status build(const nibl_gguf *gguf, nibl_tokenizer *t, vocabulary *v) {
    NIBL_TRY(find_pretokenizer(gguf, &t->pre));
    NIBL_TRY(read_arrays(gguf, v));
    NIBL_TRY(read_specials(gguf, t, v->tokens));
    NIBL_TRY(index_texts(v));
    find_bytes(&t->bpe, v);
    NIBL_TRY(build_merges(&t->bpe, v));
    NIBL_TRY(build_specials(&t->special, v));
    t->texts = v->texts;
    t->types = v->types;
    return NIBL_OK;
}

nibl_status nibl_tokenizer_new(const nibl_gguf *gguf, nibl_tokenizer **out) {
    nibl_tokenizer *t = nibl_alloc_zero(sizeof *t);
    if (!t) return nibl_fail_memory(sizeof *t, "a tokenizer");
    vocabulary v = {0};
    nibl_status status = build(gguf, t, &v);
    nibl_index_free(&v.index);
    if (status == NIBL_OK)
        *out = t;
    else
        nibl_tokenizer_free(t);
    return status;
}

void nibl_tokenizer_free(nibl_tokenizer *tokenizer) {
    if (!tokenizer) return;
    nibl_free(tokenizer->bpe.merges);
    nibl_index_free(&tokenizer->bpe.pairs);
    nibl_special_free(&tokenizer->special);
    nibl_free(tokenizer);
}

uint64_t nibl_tokenizer_plan(const nibl_gguf *gguf) {
    vocabulary v = {0};
    if (read_arrays(gguf, &v) != NIBL_OK) return 0;
    uint64_t slots =
        (uint64_t)nibl_index_slots(v.tokens) + nibl_index_slots(v.merge_count) + nibl_index_slots(v.specials);
    return sizeof(nibl_tokenizer) + slots * sizeof(uint32_t) + (uint64_t)v.merge_count * sizeof(nibl_merge) +
           (uint64_t)v.specials * sizeof(nibl_special_token);
}

/* ---- What it knows ---- */

size_t nibl_tokenizer_size(const nibl_tokenizer *tokenizer) { return (size_t)tokenizer->texts.count; }
int32_t nibl_tokenizer_bos(const nibl_tokenizer *tokenizer) { return tokenizer->bos; }
int32_t nibl_tokenizer_eos(const nibl_tokenizer *tokenizer) { return tokenizer->eos; }
bool nibl_tokenizer_add_bos(const nibl_tokenizer *tokenizer) { return tokenizer->add_bos; }

nibl_slice nibl_tokenizer_text(const nibl_tokenizer *tokenizer, uint32_t token) {
    return nibl_gguf_array_string(&tokenizer->texts, token);
}

nibl_token_kind nibl_tokenizer_kind(const nibl_tokenizer *tokenizer, uint32_t token) {
    uint32_t type = type_of(&tokenizer->types, token);
    return !is_special(type) ? NIBL_TOKEN_WORD : type == TYPE_USER ? NIBL_TOKEN_USER : NIBL_TOKEN_CONTROL;
}

bool nibl_tokenizer_is_end(const nibl_tokenizer *tokenizer, int32_t token) {
    const int32_t *ends = tokenizer->ends;
    return token >= 0 && (token == ends[0] || token == ends[1] || token == ends[2]);
}

/* ---- Text to tokens ---- */

static nibl_status encode_words(const nibl_tokenizer *t, const char *text, size_t length,
                                nibl_token_list *out) {
    for (size_t at = 0; at < length;) {
        size_t word = nibl_pretokenize(t->pre, text + at, length - at);
        NIBL_TRY(nibl_bpe_encode(&t->bpe, text + at, word, out));
        at += word;
    }
    return NIBL_OK;
}

/* `text` is well-formed. */
static nibl_status encode_text(const nibl_tokenizer *t, const char *text, size_t length, bool control,
                               nibl_token_list *out) {
    for (size_t at = 0; at < length;) {
        size_t end = length;
        const nibl_special_token *special = nibl_special_find(&t->special, text, length, at, control, &end);
        NIBL_TRY(encode_words(t, text + at, end - at, out));
        if (special) nibl_token_list_add(out, special->token);
        at = end + (special ? special->text.length : 0);
    }
    return NIBL_OK;
}

nibl_status nibl_tokenizer_encode(const nibl_tokenizer *tokenizer, const char *text, size_t length,
                                  uint32_t flags, int32_t *tokens, size_t capacity, size_t *count) {
    if (flags & ~(uint32_t)(NIBL_TOKENIZE_SPECIAL | NIBL_TOKENIZE_BOS))
        return nibl_fail(NIBL_E_ARGUMENT, "tokenize: unknown flags 0x%x", (unsigned)flags);
    if (length > MAX_TEXT)
        return nibl_fail(NIBL_E_ARGUMENT, "tokenize: a text of %zu bytes (limit %u), cut it", length,
                         MAX_TEXT);
    nibl_token_list list = {tokens, capacity, 0};
    if ((flags & NIBL_TOKENIZE_BOS) && tokenizer->bos >= 0)
        nibl_token_list_add(&list, (uint32_t)tokenizer->bos);
    char *repaired = NULL;
    if (!nibl_utf8_valid(text, length)) {
        size_t bytes = nibl_utf8_repair(text, length, NULL);
        repaired = nibl_alloc(bytes);
        if (!repaired) return nibl_fail_memory(bytes, "a text's repaired copy");
        nibl_utf8_repair(text, length, repaired);
        text = repaired;
        length = bytes;
    }
    nibl_status status = encode_text(tokenizer, text, length, flags & NIBL_TOKENIZE_SPECIAL, &list);
    nibl_free(repaired);
    NIBL_TRY(status);
    *count = list.count;
    if (list.count <= capacity) return NIBL_OK;
    return nibl_fail(NIBL_E_BUFFER, "the text has %zu tokens, the buffer holds %zu", list.count, capacity);
}

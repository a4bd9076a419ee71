#include "core/vocabulary.h"

#include <string.h>

#define MAX_TOKENS (1u << NIBL_INDEX_BITS)

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

static bool is(nibl_slice text, const char *name) {
    return text.length == strlen(name) && memcmp(text.bytes, name, text.length) == 0;
}

static int shown(nibl_slice text) { return text.length < 64 ? (int)text.length : 64; }

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

/* Leaves *out as it is where the key is absent. */
static nibl_status read_flag(const nibl_gguf *gguf, const char *key, bool *out) {
    if (nibl_gguf_bool(gguf, key, out) || !has_key(gguf, key)) return NIBL_OK;
    return nibl_fail(NIBL_E_FILE, "%s is not a bool", key);
}

/* Files often name one token that ends a text, where a conversation's turns end with another: those are told by their
 * names. */
static void find_ends(nibl_vocabulary *v, size_t known) {
    static const char *const names[] = {"<|im_end|>", "<|eot_id|>",    "<|eom_id|>", "<end_of_turn>",
                                        "<|end|>",    "<|endoftext|>", "<|return|>", "<|end_of_text|>"};
    for (uint32_t i = 0; i < v->tokens && known < NIBL_END_TOKENS; i++) {
        uint32_t type = nibl_load_u32(v->types.data + 4 * (size_t)i);
        if (!nibl_type_special(type)) continue;
        nibl_slice text = nibl_gguf_array_string(&v->texts, i);
        for (size_t k = 0; k < sizeof names / sizeof *names && known < NIBL_END_TOKENS; k++)
            if (is(text, names[k])) v->ends[known++] = (int32_t)i;
    }
}

static nibl_status read_specials(const nibl_gguf *gguf, nibl_vocabulary *v) {
    static const char *const end_keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                           "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < NIBL_END_TOKENS; i++) v->ends[i] = -1;
    for (size_t i = 0; i < 3; i++) NIBL_TRY(read_token_id(gguf, end_keys[i], v->tokens, &v->ends[i]));
    find_ends(v, 3);
    NIBL_TRY(read_token_id(gguf, "tokenizer.ggml.bos_token_id", v->tokens, &v->bos));
    NIBL_TRY(read_token_id(gguf, "tokenizer.ggml.unknown_token_id", v->tokens, &v->unknown));
    static const char add_bos[] = "tokenizer.ggml.add_bos_token";
    v->add_bos = v->add_bos && v->bos >= 0;
    NIBL_TRY(read_flag(gguf, add_bos, &v->add_bos));
    if (v->add_bos && v->bos < 0)
        return nibl_fail(NIBL_E_FILE, "%s is true, but no bos_token_id is named", add_bos);
    return NIBL_OK;
}

static nibl_status find_pretokenizer(const nibl_gguf *gguf, nibl_vocabulary *v) {
    static const char key[] = "tokenizer.ggml.pre";
    nibl_slice name;
    if (!nibl_gguf_string(gguf, key, &name))
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "%s, which names the pre-tokenizer, is %s: convert the model again with a current "
                         "converter",
                         key, has_key(gguf, key) ? "not a string" : "missing");
    const nibl_pre_row *row = nibl_pre_find(name.bytes, name.length);
    if (!row) {
        char known[400];
        nibl_writer w = {.text = known, .capacity = sizeof known};
        nibl_pre_names(&w);
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "%s '%.*s' is not a supported pre-tokenizer; known are, by some of their names: %.*s", key,
            shown(name), name.bytes, w.length < sizeof known ? (int)w.length : (int)sizeof known, known);
    }
    v->patterns = row->patterns;
    while (v->pattern_count < NIBL_PRE_PATTERNS && row->patterns[v->pattern_count]) v->pattern_count++;
    v->whole_words = row->whole_words;
    v->add_bos = row->add_bos;
    v->nfc = row->nfc;
    return NIBL_OK;
}

static nibl_status read_model(const nibl_gguf *gguf, nibl_vocabulary *v) {
    nibl_slice name;
    if (!nibl_gguf_string(gguf, "tokenizer.ggml.model", &name))
        return fail_key(gguf, "tokenizer.ggml.model", "not a string");
    if (is(name, "gpt2")) {
        v->model = NIBL_TOKENIZER_BYTES;
        v->by_merges = true;
        NIBL_TRY(find_pretokenizer(gguf, v));
        NIBL_TRY(read_flag(gguf, NIBL_KEY_NFC, &v->nfc));
        return read_flag(gguf, NIBL_KEY_WHOLE_WORDS, &v->whole_words);
    }
    v->by_merges = is(name, NIBL_MODEL_PIECES_MERGES);
    if (!is(name, "llama") && !v->by_merges)
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "tokenizer.ggml.model '%.*s' is not supported; known are 'gpt2' (byte-level BPE) and "
            "'llama' (SentencePiece BPE)",
            shown(name), name.bytes);
    static const char charsmap[] = "tokenizer.ggml.precompiled_charsmap";
    if (has_key(gguf, charsmap))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: texts that must be normalized are not supported", charsmap);
    v->model = NIBL_TOKENIZER_PIECES;
    bool prefix = true;
    uint64_t kind;
    NIBL_TRY(read_flag(gguf, "tokenizer.ggml.add_space_prefix", &prefix));
    v->space_prefix = prefix ? NIBL_PREFIX_EACH : NIBL_PREFIX_NONE;
    if (nibl_gguf_u64(gguf, NIBL_KEY_SPACE_PREFIX, &kind) && kind <= NIBL_PREFIX_FIRST_BARE)
        v->space_prefix = (nibl_space_prefix)kind;
    v->add_bos = true;
    v->phi3 = nibl_gguf_string(gguf, "general.architecture", &name) && is(name, "phi3") && !v->by_merges;
    return read_flag(gguf, "tokenizer.ggml.remove_extra_whitespaces", &v->collapse_spaces);
}

static nibl_status read_scores(const nibl_gguf *gguf, nibl_vocabulary *v) {
    static const char scores[] = "tokenizer.ggml.scores";
    if (!nibl_gguf_array_of(gguf, scores, &v->scores) || v->scores.type != NIBL_GGUF_F32)
        return fail_key(gguf, scores, "not an array of 32-bit floats");
    if (v->scores.count != v->texts.count)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements, tokenizer.ggml.tokens %llu", scores,
                         (unsigned long long)v->scores.count, (unsigned long long)v->texts.count);
    for (uint32_t i = 0; i < v->tokens; i++)
        if ((nibl_load_u32(v->scores.data + 4 * (size_t)i) & 0x7F800000u) == 0x7F800000u)
            return nibl_fail(NIBL_E_FILE, "%s: token %u has no finite score", scores, i);
    return NIBL_OK;
}

static nibl_status read_merges(const nibl_gguf *gguf, nibl_vocabulary *v) {
    static const char merges[] = "tokenizer.ggml.merges";
    if (!nibl_gguf_array_of(gguf, merges, &v->merges) || v->merges.type != NIBL_GGUF_STRING)
        return fail_key(gguf, merges, "not an array of strings");
    if (v->merges.count > MAX_TOKENS)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements (limit %u)", merges,
                         (unsigned long long)v->merges.count, MAX_TOKENS);
    v->merge_count = (uint32_t)v->merges.count;
    return NIBL_OK;
}

static nibl_status read_arrays(const nibl_gguf *gguf, nibl_vocabulary *v) {
    static const char tokens[] = "tokenizer.ggml.tokens", types[] = "tokenizer.ggml.token_type";
    if (!nibl_gguf_array_of(gguf, tokens, &v->texts) || v->texts.type != NIBL_GGUF_STRING)
        return fail_key(gguf, tokens, "not an array of strings");
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
    if (v->types.count != v->texts.count)
        return nibl_fail(NIBL_E_FILE, "%s has %llu elements, %s %llu", types,
                         (unsigned long long)v->types.count, tokens, (unsigned long long)v->texts.count);
    v->tokens = (uint32_t)v->texts.count;
    for (uint32_t i = 0; i < v->tokens; i++) {
        uint32_t type = nibl_load_u32(v->types.data + 4 * (size_t)i);
        if (type > NIBL_TYPE_BYTE)
            return nibl_fail(NIBL_E_FILE, "%s: token %u has the unknown type %u", types, i, type);
        v->specials += nibl_type_special(type);
    }
    return v->by_merges ? read_merges(gguf, v) : read_scores(gguf, v);
}

/* GGUF files of Phi 3 do not say what its tokenizer.json does. */
bool nibl_vocabulary_rstrip(const nibl_vocabulary *v, uint32_t token) {
    const nibl_slice text = nibl_gguf_array_string(&v->texts, token);
    return v->phi3 && !is(text, "<unk>") && !is(text, "<s>") && !is(text, "<|endoftext|>");
}

static nibl_status read_strips(const nibl_gguf *gguf, const char *key, nibl_gguf_array *out) {
    if (!nibl_gguf_array_of(gguf, key, out)) return NIBL_OK;
    return out->type == NIBL_GGUF_I32 ? NIBL_OK
                                      : nibl_fail(NIBL_E_FILE, "%s is not an array of token ids", key);
}

nibl_status nibl_vocabulary_read(const nibl_gguf *gguf, nibl_vocabulary *out) {
    *out = (nibl_vocabulary){0};
    NIBL_TRY(read_model(gguf, out));
    NIBL_TRY(read_arrays(gguf, out));
    NIBL_TRY(read_strips(gguf, NIBL_KEY_LSTRIP, &out->lstrip));
    NIBL_TRY(read_strips(gguf, NIBL_KEY_RSTRIP, &out->rstrip));
    return read_specials(gguf, out);
}

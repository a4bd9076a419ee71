/* tokenizer.json and tokenizer_config.json in GGUF's terms: byte-level BPE of the families below; anything else is an
 * error, for a tokenizer that is nearly right makes a model stupid in silence. */
#include "core/hf.h"

#include <stdio.h>
#include <string.h>

enum {
    TYPE_NORMAL = 1, /* of tokenizer.ggml.token_type */
    TYPE_CONTROL = 3,
    TYPE_USER = 4,
    TYPE_UNUSED = 5,
    MAX_IDS = 1 << 22,
    MAX_HOLES = 1 << 16, /* ids without a token */
    SIGNATURE = 1024,
    MAX_ENDS = 3
};

#define SHOW(s) (int)((s).length < 64 ? (s).length : 64), (s).bytes

static const char file[] = "tokenizer.json";

static nibl_slice text_of(const nibl_json *json, uint32_t node) {
    if (!nibl_json_is(json, node, NIBL_JSON_STRING)) return (nibl_slice){"", 0};
    return (nibl_slice){json->text + json->nodes[node].at, json->nodes[node].length};
}

static bool is_absent(const nibl_json *json, uint32_t node) {
    return node == 0 || nibl_json_is(json, node, NIBL_JSON_NULL);
}

static bool flag(const nibl_json *json, uint32_t object, const char *key, bool absent) {
    nibl_json_bool(json, nibl_json_get(json, object, key), &absent);
    return absent;
}

/* ---- The family ---- */

/* Pre-tokenizers by their signature: their steps in order, each behind a newline; patterns as tokenizer.json has them. */
typedef struct family {
    const char *pre; /* tokenizer.ggml.pre */
    bool ignore_merges;
    const char *signature;
} family;

#define BYTES "\nbytes"
#define WORDS_CL100K(digits)                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                               \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define WORDS_O200K(contraction, digits)                                                                     \
    UPPER "*" LOWER "+" contraction "|" UPPER "+" LOWER "*" contraction "|\\p{N}" digits                     \
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const family families[] = {
    {"gpt-2", false, "\nbytes-and-words"},
    {"smollm", false, "\ndigits\nbytes-and-words"},
    {"llama-bpe", true, "\nsplit " WORDS_CL100K("{1,3}") BYTES},
    {"dbrx", false, "\nsplit " WORDS_CL100K("{1,3}") BYTES},
    {"qwen2", false, "\nsplit " WORDS_CL100K("") BYTES},
    {"gpt-4o", false, "\nsplit " WORDS_O200K(CONTRACTION, "{1,3}") BYTES},
    {"tekken", true, "\nsplit " WORDS_O200K("", "") BYTES},
};

static nibl_status sign_step(const nibl_json *json, uint32_t step, nibl_writer *w) {
    const uint32_t pattern = nibl_json_get(json, step, "pattern");
    if (nibl_json_equals(json, nibl_json_get(json, step, "type"), "ByteLevel") &&
        !flag(json, step, "add_prefix_space", true)) {
        nibl_print(w, "%s", flag(json, step, "use_regex", true) ? "\nbytes-and-words" : BYTES);
    } else if (nibl_json_equals(json, nibl_json_get(json, step, "type"), "Digits") &&
               flag(json, step, "individual_digits", false)) {
        nibl_print(w, "\ndigits");
    } else if (nibl_json_equals(json, nibl_json_get(json, step, "type"), "Split") &&
               !flag(json, step, "invert", false) &&
               nibl_json_equals(json, nibl_json_get(json, step, "behavior"), "Isolated") &&
               nibl_json_get(json, pattern, "Regex")) {
        nibl_print(w, "\nsplit ");
        nibl_json_write_string(json, nibl_json_get(json, pattern, "Regex"), w);
    } else {
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "%s: a pre-tokenizer of type '%.*s' with these settings is not supported", file,
                         SHOW(text_of(json, nibl_json_get(json, step, "type"))));
    }
    return NIBL_OK;
}

static nibl_status find_family(const nibl_json *json, const family **out) {
    char signature[SIGNATURE];
    nibl_writer w = {.text = signature, .capacity = sizeof signature};
    const uint32_t pre = nibl_json_get(json, NIBL_JSON_ROOT, "pre_tokenizer"),
                   model = nibl_json_get(json, NIBL_JSON_ROOT, "model");
    if (nibl_json_equals(json, nibl_json_get(json, pre, "type"), "Sequence")) {
        const uint32_t steps = nibl_json_get(json, pre, "pretokenizers");
        for (uint32_t i = 0; nibl_json_each(json, steps, &i);) NIBL_TRY(sign_step(json, i, &w));
    } else if (is_absent(json, pre)) {
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: no pre-tokenizer; byte-level BPE is supported", file);
    } else {
        NIBL_TRY(sign_step(json, pre, &w));
    }
    const bool ignore_merges = flag(json, model, "ignore_merges", false);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const family *f = &families[i];
        if (f->ignore_merges != ignore_merges || strlen(f->signature) != w.length ||
            w.length > sizeof signature || memcmp(f->signature, signature, w.length) != 0)
            continue;
        *out = f;
        return NIBL_OK;
    }
    return nibl_fail(NIBL_E_UNSUPPORTED, "%s: its pre-tokenizer is none of those this build knows", file);
}

/* What changes the ids of a text and GGUF does not say. */
static nibl_status check_model(const nibl_json *json) {
    const uint32_t model = nibl_json_get(json, NIBL_JSON_ROOT, "model"),
                   normalizer = nibl_json_get(json, NIBL_JSON_ROOT, "normalizer");
    const uint32_t type = nibl_json_get(json, model, "type");
    const bool bpe = type == 0 || nibl_json_equals(json, type, "BPE"); /* old files do not say */
    if (!bpe || flag(json, model, "byte_fallback", false))
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "%s: a model of type '%.*s'%s is not supported, only byte-level BPE", file,
                         SHOW(text_of(json, type)), bpe ? " with byte fallback" : "");
    if (!is_absent(json, normalizer) &&
        !nibl_json_equals(json, nibl_json_get(json, normalizer, "type"), "NFC"))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a normalizer of type '%.*s' is not supported", file,
                         SHOW(text_of(json, nibl_json_get(json, normalizer, "type"))));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const uint32_t affix = nibl_json_get(json, model, affixes[i]);
        if (!is_absent(json, affix) && !nibl_json_equals(json, affix, ""))
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a %s is not supported", file, affixes[i]);
    }
    return NIBL_OK;
}

/* ---- Tokens ---- */

typedef struct token {
    uint32_t node; /* of its text; 0 = a hole */
    int32_t type;
} token;

typedef struct tokens {
    token *list;
    uint32_t count;
} tokens;

static nibl_status put_token(const nibl_json *json, tokens *t, uint32_t text, uint32_t id_node,
                             int32_t type) {
    uint64_t id;
    const nibl_slice shown = text_of(json, text);
    if (!nibl_json_is(json, text, NIBL_JSON_STRING) || !nibl_json_u64(json, id_node, &id) || id >= t->count)
        return nibl_fail(NIBL_E_FILE, "%s: token '%.*s' has no text, or an id that is not possible", file,
                         SHOW(shown));
    token *place = &t->list[id];
    if (place->node && (type == TYPE_NORMAL || place->type != TYPE_NORMAL))
        return nibl_fail(NIBL_E_FILE, "%s: tokens '%.*s' and '%.*s' have the same id %u", file,
                         SHOW(text_of(json, place->node)), SHOW(shown), (unsigned)id);
    *place = (token){text, type};
    return NIBL_OK;
}

static nibl_status put_added(const nibl_json *json, tokens *t, uint32_t added) {
    static const char *const habits[] = {"lstrip", "rstrip", "single_word"};
    const uint32_t text = nibl_json_get(json, added, "content");
    for (size_t i = 0; i < 3; i++)
        if (flag(json, added, habits[i], false))
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: added token '%.*s' with %s is not supported", file,
                             SHOW(text_of(json, text)), habits[i]);
    return put_token(json, t, text, nibl_json_get(json, added, "id"),
                     flag(json, added, "special", false) ? TYPE_CONTROL : TYPE_USER);
}

/* One more than the highest id. */
static nibl_status count_ids(const nibl_json *json, uint32_t vocabulary, uint32_t added, uint32_t *count) {
    uint64_t highest = 0, listed = 0, id;
    for (uint32_t i = 0; nibl_json_each(json, vocabulary, &i); listed++)
        if (nibl_json_u64(json, i + 1, &id) && id > highest) highest = id;
    for (uint32_t i = 0; nibl_json_each(json, added, &i); listed++)
        if (nibl_json_u64(json, nibl_json_get(json, i, "id"), &id) && id > highest) highest = id;
    if (listed == 0) return nibl_fail(NIBL_E_FILE, "%s: there is no vocabulary", file);
    if (highest >= MAX_IDS || highest > listed + MAX_HOLES)
        return nibl_fail(NIBL_E_FILE, "%s: %llu tokens, but an id of %llu", file, (unsigned long long)listed,
                         (unsigned long long)highest);
    *count = (uint32_t)highest + 1;
    return NIBL_OK;
}

static nibl_status read_tokens(const nibl_json *json, tokens *t) {
    const uint32_t vocabulary = nibl_json_get(json, nibl_json_get(json, NIBL_JSON_ROOT, "model"), "vocab");
    const uint32_t added = nibl_json_get(json, NIBL_JSON_ROOT, "added_tokens");
    NIBL_TRY(count_ids(json, vocabulary, added, &t->count));
    t->list = nibl_alloc_zero((uint64_t)t->count * sizeof *t->list);
    if (!t->list) return nibl_fail_memory((uint64_t)t->count * sizeof *t->list, "the vocabulary");
    for (uint32_t i = 0; nibl_json_each(json, vocabulary, &i);)
        NIBL_TRY(put_token(json, t, i, i + 1, TYPE_NORMAL));
    for (uint32_t i = 0; nibl_json_each(json, added, &i);) NIBL_TRY(put_added(json, t, i));
    return NIBL_OK;
}

static void write_tokens(const nibl_json *json, const tokens *t, nibl_gguf_builder *b) {
    nibl_gguf_build_array(b, "tokenizer.ggml.tokens", NIBL_GGUF_STRING);
    for (uint32_t i = 0; i < t->count; i++) {
        char hole[32];
        const int length = snprintf(hole, sizeof hole, "[PAD%u]", (unsigned)i);
        if (t->list[i].node)
            nibl_gguf_add_json(b, json, t->list[i].node, 0);
        else
            nibl_gguf_add_string(b, (nibl_slice){hole, (size_t)length});
    }
    nibl_gguf_build_array(b, "tokenizer.ggml.token_type", NIBL_GGUF_I32);
    for (uint32_t i = 0; i < t->count; i++)
        nibl_gguf_add_i32(b, t->list[i].node ? t->list[i].type : TYPE_UNUSED);
}

/* Merges are "left right" or ["left", "right"]. */
static nibl_status write_merges(const nibl_json *json, nibl_gguf_builder *b) {
    const uint32_t merges = nibl_json_get(json, nibl_json_get(json, NIBL_JSON_ROOT, "model"), "merges");
    nibl_gguf_build_array(b, "tokenizer.ggml.merges", NIBL_GGUF_STRING);
    for (uint32_t i = 0; nibl_json_each(json, merges, &i);) {
        uint32_t left = i, right = 0;
        if (nibl_json_is(json, i, NIBL_JSON_ARRAY)) {
            left = i + 1, right = i + 2;
            if (json->nodes[i].next != i + 3 || !nibl_json_is(json, right, NIBL_JSON_STRING)) left = 0;
        }
        if (!nibl_json_is(json, left, NIBL_JSON_STRING))
            return nibl_fail(NIBL_E_FILE, "%s: a merge that is not two tokens", file);
        nibl_gguf_add_json(b, json, left, right);
    }
    return NIBL_OK;
}

/* ---- Special tokens ---- */

/* "bos_token": "<s>", or {"content": "<s>"}; 0 where there is none. */
static uint32_t named_token(const nibl_json *config, const char *key) {
    const uint32_t node = nibl_json_get(config, NIBL_JSON_ROOT, key);
    return nibl_json_is(config, node, NIBL_JSON_OBJECT) ? nibl_json_get(config, node, "content") : node;
}

/* The id of an added token by its text, which stands in another document; -1 where there is none. */
static int64_t added_id(const nibl_json *json, nibl_slice text) {
    const uint32_t added = nibl_json_get(json, NIBL_JSON_ROOT, "added_tokens");
    for (uint32_t i = 0; nibl_json_each(json, added, &i);) {
        uint64_t id;
        const nibl_slice other = text_of(json, nibl_json_get(json, i, "content"));
        if (text.length > 0 && other.length == text.length &&
            memcmp(other.bytes, text.bytes, text.length) == 0 &&
            nibl_json_u64(json, nibl_json_get(json, i, "id"), &id) && id < MAX_IDS)
            return (int64_t)id;
    }
    return -1;
}

static nibl_status add_end(int64_t *ends, size_t *count, uint64_t id) {
    for (size_t i = 0; i < *count; i++)
        if (ends[i] == (int64_t)id) return NIBL_OK;
    if (*count == MAX_ENDS)
        return nibl_fail(NIBL_E_UNSUPPORTED, "more than %d tokens end a text (eos_token_id)", MAX_ENDS);
    ends[(*count)++] = (int64_t)id;
    return NIBL_OK;
}

/* eos_token_id: an id or several. */
static nibl_status add_ends(const nibl_json *json, int64_t *ends, size_t *count) {
    const uint32_t node = nibl_json_get(json, NIBL_JSON_ROOT, "eos_token_id");
    uint64_t id;
    if (nibl_json_u64(json, node, &id)) return id < MAX_IDS ? add_end(ends, count, id) : NIBL_OK;
    if (!nibl_json_is(json, node, NIBL_JSON_ARRAY)) return NIBL_OK;
    for (uint32_t i = 0; nibl_json_each(json, node, &i);)
        if (nibl_json_u64(json, i, &id) && id < MAX_IDS) NIBL_TRY(add_end(ends, count, id));
    return NIBL_OK;
}

static nibl_status write_ends(const nibl_hf_parsed *hf, nibl_gguf_builder *b) {
    static const char *const keys[MAX_ENDS] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                               "tokenizer.ggml.eom_token_id"};
    const nibl_json *config = &hf->json[NIBL_HF_TOKENIZER_CONFIG];
    int64_t ends[MAX_ENDS];
    size_t count = 0;
    const int64_t eos =
        added_id(&hf->json[NIBL_HF_TOKENIZER], text_of(config, named_token(config, "eos_token")));
    if (eos >= 0) NIBL_TRY(add_end(ends, &count, (uint64_t)eos));
    NIBL_TRY(add_ends(&hf->json[NIBL_HF_GENERATION], ends, &count));
    NIBL_TRY(add_ends(&hf->json[NIBL_HF_CONFIG], ends, &count));
    for (size_t i = 0; i < count; i++) nibl_gguf_build_u32(b, keys[i], (uint32_t)ends[i]);
    return NIBL_OK;
}

/* Whether the template of the post-processor puts `bos` in front; anything behind the text is an error. */
static nibl_status read_template(const nibl_json *json, uint32_t processor, nibl_slice bos, bool *front) {
    if (nibl_json_equals(json, nibl_json_get(json, processor, "type"), "Sequence")) {
        const uint32_t steps = nibl_json_get(json, processor, "processors");
        for (uint32_t i = 0; nibl_json_each(json, steps, &i);)
            if (!nibl_json_equals(json, nibl_json_get(json, i, "type"), "Sequence"))
                NIBL_TRY(read_template(json, i, bos, front));
        return NIBL_OK;
    }
    if (!nibl_json_equals(json, nibl_json_get(json, processor, "type"), "TemplateProcessing")) return NIBL_OK;
    const uint32_t pieces = nibl_json_get(json, processor, "single");
    bool first = true;
    for (uint32_t i = 0; nibl_json_each(json, pieces, &i); first = false) {
        const uint32_t special = nibl_json_get(json, i, "SpecialToken");
        if (special == 0) continue;
        const nibl_slice name = text_of(json, nibl_json_get(json, special, "id"));
        *front = first && name.length == bos.length && memcmp(name.bytes, bos.bytes, bos.length) == 0;
        if (!*front)
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: its post-processor puts '%.*s' around a text", file,
                             SHOW(name));
    }
    return NIBL_OK;
}

static nibl_status write_beginning(const nibl_hf_parsed *hf, nibl_gguf_builder *b) {
    const nibl_json *json = &hf->json[NIBL_HF_TOKENIZER], *config = &hf->json[NIBL_HF_TOKENIZER_CONFIG];
    const nibl_slice text = text_of(config, named_token(config, "bos_token"));
    int64_t bos = added_id(json, text);
    uint64_t id;
    if (bos < 0 &&
        nibl_json_u64(&hf->json[NIBL_HF_CONFIG],
                      nibl_json_get(&hf->json[NIBL_HF_CONFIG], NIBL_JSON_ROOT, "bos_token_id"), &id) &&
        id < MAX_IDS)
        bos = (int64_t)id;
    bool front = false;
    const uint32_t processor = nibl_json_get(json, NIBL_JSON_ROOT, "post_processor");
    NIBL_TRY(read_template(json, processor, text, &front));
    nibl_json_bool(config, nibl_json_get(config, NIBL_JSON_ROOT, "add_bos_token"), &front);
    if (bos >= 0) nibl_gguf_build_u32(b, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    nibl_gguf_build_bool(b, "tokenizer.ggml.add_bos_token", front);
    return NIBL_OK;
}

/* chat_template: a text, or a list of {"name", "template"}, of which "default" counts. */
static void write_template(const nibl_hf_parsed *hf, nibl_gguf_builder *b) {
    static const char key[] = "tokenizer.chat_template";
    const nibl_json *config = &hf->json[NIBL_HF_TOKENIZER_CONFIG];
    uint32_t node = nibl_json_get(config, NIBL_JSON_ROOT, "chat_template");
    if (hf->chat_template.length > 0) {
        nibl_gguf_build_string(b, key, hf->chat_template);
        return;
    }
    if (nibl_json_is(config, node, NIBL_JSON_ARRAY)) {
        const uint32_t list = node;
        node = 0;
        for (uint32_t i = 0; nibl_json_each(config, list, &i);)
            if (nibl_json_equals(config, nibl_json_get(config, i, "name"), "default"))
                node = nibl_json_get(config, i, "template");
    }
    if (nibl_json_is(config, node, NIBL_JSON_STRING)) nibl_gguf_build_json(b, key, config, node);
}

nibl_status nibl_hf_build_tokenizer(const nibl_hf_parsed *hf, nibl_gguf_builder *b) {
    const nibl_json *json = &hf->json[NIBL_HF_TOKENIZER];
    const family *f;
    NIBL_TRY(check_model(json));
    NIBL_TRY(find_family(json, &f));
    nibl_gguf_build_string(b, "tokenizer.ggml.model", (nibl_slice){"gpt2", 4});
    nibl_gguf_build_string(b, "tokenizer.ggml.pre", (nibl_slice){f->pre, strlen(f->pre)});
    tokens t = {0};
    nibl_status status = read_tokens(json, &t);
    if (status == NIBL_OK) write_tokens(json, &t, b);
    nibl_free(t.list);
    NIBL_TRY(status);
    NIBL_TRY(write_merges(json, b));
    NIBL_TRY(write_ends(hf, b));
    NIBL_TRY(write_beginning(hf, b));
    write_template(hf, b);
    return NIBL_OK;
}

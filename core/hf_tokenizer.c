/* tokenizer.json and tokenizer_config.json in GGUF's terms; hf_family.c tells what kind of tokenizer it is. */
#include "core/hf_config.h"
#include "core/hf_family.h"

#include "core/alphabet.h"

#include <stdio.h>
#include <string.h>

enum {
    TYPE_NORMAL = 1, /* of tokenizer.ggml.token_type */
    TYPE_CONTROL = 3,
    TYPE_USER = 4,
    TYPE_UNUSED = 5,
    TYPE_BYTE = 6,
    MAX_IDS = 1 << 22,
    MAX_HOLES = 1 << 16, /* ids without a token */
    MAX_ENDS = 3
};

#define flag nibl_hf_flag

static const char file[] = NIBL_HF_TOKENIZER_NAME;

/* ---- Tokens ---- */

typedef struct token {
    uint32_t node; /* of its text; 0 = a hole */
    int32_t type;
} token;

typedef struct tokens {
    token *list;
    uint32_t count, bytes; /* bytes: how many are named <0x00> to <0xFF> */
    const nibl_hf_family *family;
} tokens;

static nibl_status put_token(const nibl_json *json, tokens *t, uint32_t text, uint32_t id_node,
                             int32_t type) {
    uint64_t id;
    const nibl_slice shown = nibl_json_text(json, text);
    if (!nibl_json_is(json, text, NIBL_JSON_STRING) || !nibl_json_u64(json, id_node, &id) || id >= t->count)
        return nibl_fail(NIBL_E_FILE, "%s: token '%.*s' has no text, or an id that is not possible", file,
                         NIBL_SHOW(shown));
    token *place = &t->list[id];
    const bool added = type == TYPE_CONTROL || type == TYPE_USER;
    if (place->node && (!added || place->type == TYPE_CONTROL || place->type == TYPE_USER))
        return nibl_fail(NIBL_E_FILE, "%s: tokens '%.*s' and '%.*s' have the same id %u", file,
                         NIBL_SHOW(nibl_json_text(json, place->node)), NIBL_SHOW(shown), (unsigned)id);
    *place = (token){text, type};
    return NIBL_OK;
}

static nibl_status put_added(const nibl_json *json, tokens *t, uint32_t added) {
    const uint32_t text = nibl_json_get(json, added, "content");
    const bool normalized = t->family->pieces && flag(json, added, "normalized", false);
    if (normalized || flag(json, added, "single_word", false))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: added token '%.*s' with %s is not supported", file,
                         NIBL_SHOW(nibl_json_text(json, text)), normalized ? "normalized" : "single_word");
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
    for (uint32_t i = 0; nibl_json_each(json, vocabulary, &i);) {
        uint8_t byte;
        const bool is_byte = t->family->pieces && nibl_token_byte(nibl_json_text(json, i), &byte);
        NIBL_TRY(put_token(json, t, i, i + 1, is_byte ? TYPE_BYTE : TYPE_NORMAL));
        t->bytes += is_byte;
    }
    if (t->family->pieces && t->bytes < 256 && !t->family->fuse_unknown)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "%s: byte fallback with tokens for %u bytes of 256, and without fuse_unk", file,
                         (unsigned)t->bytes);
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

/* The added tokens that take the blanks around them. */
static void write_strips(const nibl_json *json, const char *habit, const char *key, nibl_gguf_builder *b) {
    const uint32_t added = nibl_json_get(json, NIBL_JSON_ROOT, "added_tokens");
    uint64_t id;
    nibl_gguf_build_array(b, key, NIBL_GGUF_I32);
    for (uint32_t i = 0; nibl_json_each(json, added, &i);)
        if (flag(json, i, habit, false) && nibl_json_u64(json, nibl_json_get(json, i, "id"), &id) &&
            id < MAX_IDS)
            nibl_gguf_add_i32(b, (int32_t)id);
}

static void write_unknown(const nibl_json *json, const tokens *t, nibl_gguf_builder *b) {
    const uint32_t model = nibl_json_get(json, NIBL_JSON_ROOT, "model");
    const nibl_slice text = nibl_json_text(json, nibl_json_get(json, model, "unk_token"));
    for (uint32_t i = 0; i < t->count; i++) {
        const nibl_slice other = nibl_json_text(json, t->list[i].node);
        if (text.length == 0 || other.length != text.length ||
            memcmp(other.bytes, text.bytes, text.length) != 0)
            continue;
        nibl_gguf_build_u32(b, "tokenizer.ggml.unknown_token_id", i);
        return;
    }
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
        const nibl_slice other = nibl_json_text(json, nibl_json_get(json, i, "content"));
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
    const uint32_t node = nibl_hf_setting(json, "eos_token_id");
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
        added_id(&hf->json[NIBL_HF_TOKENIZER], nibl_json_text(config, named_token(config, "eos_token")));
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
        const nibl_slice name = nibl_json_text(json, nibl_json_get(json, special, "id"));
        *front = first && name.length == bos.length && memcmp(name.bytes, bos.bytes, bos.length) == 0;
        if (!*front)
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: its post-processor puts '%.*s' around a text", file,
                             NIBL_SHOW(name));
    }
    return NIBL_OK;
}

static nibl_status write_beginning(const nibl_hf_parsed *hf, nibl_gguf_builder *b) {
    const nibl_json *json = &hf->json[NIBL_HF_TOKENIZER], *config = &hf->json[NIBL_HF_TOKENIZER_CONFIG];
    const nibl_slice text = nibl_json_text(config, named_token(config, "bos_token"));
    int64_t bos = added_id(json, text);
    uint64_t id;
    if (bos < 0 &&
        nibl_json_u64(&hf->json[NIBL_HF_CONFIG], nibl_hf_setting(&hf->json[NIBL_HF_CONFIG], "bos_token_id"),
                      &id) &&
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
    nibl_hf_family family;
    NIBL_TRY(nibl_hf_find_family(json, &family));
    const char *model = family.pieces ? NIBL_MODEL_PIECES_MERGES : "gpt2";
    nibl_gguf_build_string(b, "tokenizer.ggml.model", (nibl_slice){model, strlen(model)});
    if (family.pieces) {
        nibl_gguf_build_u32(b, NIBL_KEY_SPACE_PREFIX, family.prefix);
    } else {
        nibl_gguf_build_string(b, "tokenizer.ggml.pre", (nibl_slice){family.pre, strlen(family.pre)});
        nibl_gguf_build_bool(b, NIBL_KEY_WHOLE_WORDS, family.ignore_merges);
        nibl_gguf_build_bool(b, NIBL_KEY_NFC, family.nfc);
    }
    tokens t = {.family = &family};
    nibl_status status = read_tokens(json, &t);
    if (status == NIBL_OK) write_tokens(json, &t, b);
    if (status == NIBL_OK && family.pieces) write_unknown(json, &t, b);
    nibl_free(t.list);
    NIBL_TRY(status);
    write_strips(json, "lstrip", NIBL_KEY_LSTRIP, b);
    write_strips(json, "rstrip", NIBL_KEY_RSTRIP, b);
    NIBL_TRY(write_merges(json, b));
    NIBL_TRY(write_ends(hf, b));
    NIBL_TRY(write_beginning(hf, b));
    write_template(hf, b);
    return NIBL_OK;
}

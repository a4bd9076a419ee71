#include "core/hf_family.h"

#include <string.h>

enum { SIGNATURE = 2048 };

static const char file[] = NIBL_HF_TOKENIZER_NAME;

bool nibl_hf_flag(const nibl_json *json, uint32_t object, const char *key, bool absent) {
    nibl_json_bool(json, nibl_json_get(json, object, key), &absent);
    return absent;
}

static bool is_absent(const nibl_json *json, uint32_t node) {
    return node == 0 || nibl_json_is(json, node, NIBL_JSON_NULL);
}

static bool is_type(const nibl_json *json, uint32_t node, const char *type) {
    return nibl_json_equals(json, nibl_json_get(json, node, "type"), type);
}

static nibl_status fail_step(const nibl_json *json, uint32_t step, const char *what) {
    return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a %s of type '%.*s' with these settings is not supported", file,
                     what, NIBL_SHOW(nibl_json_text(json, nibl_json_get(json, step, "type"))));
}

/* The steps of a Sequence, or the one step that the node is: for (uint32_t i = 0; next_step(...);). */
static bool next_step(const nibl_json *json, uint32_t node, const char *key, uint32_t *step) {
    if (is_type(json, node, "Sequence")) return nibl_json_each(json, nibl_json_get(json, node, key), step);
    const bool first = *step == 0 && !is_absent(json, node);
    *step = first ? node : 0;
    return first;
}

/* ---- Byte-level BPE ---- */

/* Pre-tokenizers by their signature: their steps in order, each behind a newline; patterns as tokenizer.json has them. */
typedef struct family {
    const char *pre; /* tokenizer.ggml.pre */
    const char *signature;
    bool total; /* its one pattern matches all of any text: what is between matches may be kept or removed */
} family;

#define BYTES "\nbytes"
#define WORDS_CL100K(letters, digits)                                                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?" letters "|\\p{N}" digits
#define REST_CL100K "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
#define WORDS_O200K(contraction, digits)                                                                     \
    UPPER "*" LOWER "+" contraction "|" UPPER "+" LOWER "*" contraction "|\\p{N}" digits                     \
          "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"

static const family families[] = {
    {"gpt-2", "\nbytes-and-words", false},
    {"smollm", "\ndigits\nbytes-and-words", false},
    {"falcon", "\npunctuation\nbytes-and-words\nnumbers\nsplit [0-9][0-9][0-9]", false},
    {"llama-bpe", "\nsplit " WORDS_CL100K("\\p{L}+", "{1,3}") "| ?[^\\s\\p{L}\\p{N}]+" REST_CL100K BYTES,
     true},
    {"qwen2", "\nsplit " WORDS_CL100K("\\p{L}+", "") "| ?[^\\s\\p{L}\\p{N}]+" REST_CL100K BYTES, true},
    {"qwen35",
     "\nsplit " WORDS_CL100K("[\\p{L}\\p{M}]+", "") "| ?[^\\s\\p{L}\\p{M}\\p{N}]+" REST_CL100K BYTES, true},
    {"gpt-4o", "\nsplit " WORDS_O200K(CONTRACTION, "{1,3}") BYTES, true},
    {"tekken", "\nsplit " WORDS_O200K("", "") BYTES, true},
    {"deepseek-v3",
     "\nsplit \\p{N}{1,3}\nsplit [\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+\nsplit "
     "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
     "?[\\p{P}\\p{S}]+" REST_CL100K BYTES,
     false},
    {"deepseek-coder", "\nsplit [\\r\\n]\nsplit \\s?\\p{L}+\nsplit \\s?\\p{P}+\nsplit " CJK "\ndigits" BYTES,
     false},
};

static nibl_status sign_step(const nibl_json *json, uint32_t step, bool *inverted, nibl_writer *w) {
    const uint32_t pattern = nibl_json_get(json, nibl_json_get(json, step, "pattern"), "Regex"),
                   behavior = nibl_json_get(json, step, "behavior");
    const bool invert = nibl_hf_flag(json, step, "invert", false);
    if (is_type(json, step, "ByteLevel") && !nibl_hf_flag(json, step, "add_prefix_space", true)) {
        nibl_print(w, "%s", nibl_hf_flag(json, step, "use_regex", true) ? "\nbytes-and-words" : BYTES);
    } else if (is_type(json, step, "Digits")) {
        nibl_print(w, "%s", nibl_hf_flag(json, step, "individual_digits", false) ? "\ndigits" : "\nnumbers");
    } else if (is_type(json, step, "Punctuation") && nibl_json_equals(json, behavior, "Contiguous")) {
        nibl_print(w, "\npunctuation");
    } else if (is_type(json, step, "Split") && pattern &&
               nibl_json_equals(json, behavior, invert ? "Removed" : "Isolated")) {
        nibl_print(w, "\nsplit ");
        nibl_json_write_string(json, pattern, w);
        *inverted = *inverted || invert;
    } else {
        return fail_step(json, step, "pre-tokenizer");
    }
    return NIBL_OK;
}

static nibl_status find_bytes(const nibl_json *json, nibl_hf_family *out) {
    char signature[SIGNATURE];
    nibl_writer w = {.text = signature, .capacity = sizeof signature};
    bool inverted = false;
    const uint32_t pre = nibl_json_get(json, NIBL_JSON_ROOT, "pre_tokenizer"),
                   normalizer = nibl_json_get(json, NIBL_JSON_ROOT, "normalizer"),
                   decoder = nibl_json_get(json, NIBL_JSON_ROOT, "decoder");
    for (uint32_t i = 0; next_step(json, normalizer, "normalizers", &i);)
        if (!(out->nfc = is_type(json, i, "NFC"))) return fail_step(json, i, "normalizer");
    for (uint32_t i = 0; next_step(json, pre, "pretokenizers", &i);)
        NIBL_TRY(sign_step(json, i, &inverted, &w));
    if (w.length == 0)
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: no pre-tokenizer and no byte fallback", file);
    for (uint32_t i = 0; next_step(json, decoder, "decoders", &i);)
        if (!is_type(json, i, "ByteLevel")) return fail_step(json, i, "decoder");
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const family *f = &families[i];
        if (strlen(f->signature) != w.length || w.length > sizeof signature || (inverted && !f->total) ||
            memcmp(f->signature, signature, w.length) != 0)
            continue;
        out->pre = f->pre;
        return NIBL_OK;
    }
    return nibl_fail(NIBL_E_UNSUPPORTED, "%s: its pre-tokenizer is none of those this build knows", file);
}

/* One line of a signature as the step it stands for. */
static void write_step(const char *line, size_t length, nibl_writer *w) {
    static const struct {
        const char *line, *step;
    } steps[] = {
        {"bytes", "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false"},
        {"bytes-and-words",
         "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true"},
        {"digits", "\"Digits\",\"individual_digits\":true"},
        {"numbers", "\"Digits\",\"individual_digits\":false"},
        {"punctuation", "\"Punctuation\",\"behavior\":\"Contiguous\""},
    };
    nibl_print(w, "{\"type\":");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (nibl_slice_is((nibl_slice){line, length}, steps[i].line)) nibl_print(w, "%s", steps[i].step);
    if (strncmp(line, "split ", 6) == 0) {
        nibl_print(w, "\"Split\",\"pattern\":{\"Regex\":");
        nibl_write_json(w, line + 6, length - 6);
        nibl_print(w, "},\"behavior\":\"Isolated\",\"invert\":false");
    }
    nibl_print(w, "}");
}

nibl_status nibl_hf_write_family(nibl_slice pre, nibl_writer *w) {
    size_t i = 0;
    while (i < sizeof families / sizeof *families && !nibl_slice_is(pre, families[i].pre)) i++;
    if (i == sizeof families / sizeof *families)
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "%s cannot be written for pre-tokenizer '%.*s': take the model's Hugging Face folder", file,
            NIBL_SHOW(pre));
    nibl_print(w, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (const char *line = families[i].signature; *line;) {
        const size_t length = strcspn(++line, "\n");
        write_step(line, length, w);
        line += length;
        if (*line) nibl_print(w, ",");
    }
    nibl_print(w, "]}");
    return NIBL_OK;
}

/* ---- SentencePiece's BPE ---- */

#define MARK "\u2581"

static bool replaces(const nibl_json *json, uint32_t step, const char *from, const char *to) {
    const uint32_t pattern = nibl_json_get(json, nibl_json_get(json, step, "pattern"), "String");
    return is_type(json, step, "Replace") && nibl_json_equals(json, pattern, from) &&
           nibl_json_equals(json, nibl_json_get(json, step, "content"), to);
}

/* How spaces are marked, by a normalizer or by a pre-tokenizer. */
static nibl_status find_marks(const nibl_json *json, nibl_hf_family *out) {
    const uint32_t normalizer = nibl_json_get(json, NIBL_JSON_ROOT, "normalizer"),
                   pre = nibl_json_get(json, NIBL_JSON_ROOT, "pre_tokenizer");
    bool marked = false;
    for (uint32_t i = 0; next_step(json, normalizer, "normalizers", &i);) {
        if (replaces(json, i, " ", MARK))
            marked = true;
        else if (is_type(json, i, "Prepend") &&
                 nibl_json_equals(json, nibl_json_get(json, i, "prepend"), MARK) &&
                 out->prefix == NIBL_PREFIX_NONE)
            out->prefix = NIBL_PREFIX_EACH;
        else
            return fail_step(json, i, "normalizer");
    }
    for (uint32_t i = 0; next_step(json, pre, "pretokenizers", &i);) {
        const uint32_t scheme = nibl_json_get(json, i, "prepend_scheme"),
                       pattern = nibl_json_get(json, nibl_json_get(json, i, "pattern"), "String");
        const bool never = nibl_json_equals(json, scheme, "never") ||
                           !nibl_hf_flag(json, i, "add_prefix_space", true),
                   first = nibl_json_equals(json, scheme, "first");
        if (is_type(json, i, "Split") && marked && nibl_json_equals(json, pattern, " ") &&
            nibl_json_equals(json, nibl_json_get(json, i, "behavior"), "MergedWithPrevious"))
            continue; /* no space is left to split at */
        if (!is_type(json, i, "Metaspace") || nibl_hf_flag(json, i, "split", true) ||
            !nibl_json_equals(json, nibl_json_get(json, i, "replacement"), MARK) ||
            out->prefix != NIBL_PREFIX_NONE)
            return fail_step(json, i, "pre-tokenizer");
        marked = true;
        if (!never) out->prefix = first ? NIBL_PREFIX_FIRST_BARE : NIBL_PREFIX_EACH_BARE;
    }
    return marked ? NIBL_OK
                  : nibl_fail(NIBL_E_UNSUPPORTED, "%s: byte fallback without marks for spaces", file);
}

/* Spaces for marks, bytes for byte tokens, and the space before the text taken away. */
static nibl_status check_decoder(const nibl_json *json, bool prefix) {
    const uint32_t decoder = nibl_json_get(json, NIBL_JSON_ROOT, "decoder");
    bool strips = is_absent(json, decoder) && prefix;
    for (uint32_t i = 0; next_step(json, decoder, "decoders", &i);) {
        uint64_t start = 0, stop = 1;
        nibl_json_u64(json, nibl_json_get(json, i, "start"), &start);
        nibl_json_u64(json, nibl_json_get(json, i, "stop"), &stop);
        if (is_type(json, i, "Strip") && nibl_json_equals(json, nibl_json_get(json, i, "content"), " ") &&
            start == 1 && stop == 0)
            strips = true;
        else if (is_type(json, i, "Metaspace"))
            strips = prefix;
        else if (!replaces(json, i, MARK, " ") && !is_type(json, i, "ByteFallback") &&
                 !is_type(json, i, "Fuse"))
            return fail_step(json, i, "decoder");
    }
    if (strips == prefix) return NIBL_OK;
    return nibl_fail(NIBL_E_UNSUPPORTED, "%s: its decoder %s the space that %s before a text", file,
                     strips ? "takes away" : "leaves", strips ? "is not put" : "is put");
}

/* ---- The model ---- */

/* What changes the ids of a text and is no part of a family. */
static nibl_status check_model(const nibl_json *json, uint32_t model) {
    const uint32_t type = nibl_json_get(json, model, "type"), dropout = nibl_json_get(json, model, "dropout");
    double rate = 0;
    if (type && !nibl_json_equals(json, type, "BPE")) /* old files do not say */
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a model of type '%.*s' is not supported, only BPE", file,
                         NIBL_SHOW(nibl_json_text(json, type)));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        const uint32_t affix = nibl_json_get(json, model, affixes[i]);
        if (!is_absent(json, affix) && !nibl_json_equals(json, affix, ""))
            return nibl_fail(NIBL_E_UNSUPPORTED, "%s: a %s is not supported", file, affixes[i]);
    }
    if (!is_absent(json, dropout) && (!nibl_json_f64(json, dropout, &rate) || rate > 0 || rate < 0))
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: merges that are dropped by chance are not supported", file);
    return NIBL_OK;
}

nibl_status nibl_hf_find_family(const nibl_json *json, nibl_hf_family *out) {
    const uint32_t model = nibl_json_get(json, NIBL_JSON_ROOT, "model");
    *out = (nibl_hf_family){.pieces = nibl_hf_flag(json, model, "byte_fallback", false),
                            .ignore_merges = nibl_hf_flag(json, model, "ignore_merges", false),
                            .fuse_unknown = nibl_hf_flag(json, model, "fuse_unk", false)};
    NIBL_TRY(check_model(json, model));
    if (!out->pieces) return find_bytes(json, out);
    if (out->ignore_merges)
        return nibl_fail(NIBL_E_UNSUPPORTED, "%s: byte fallback with ignore_merges is not supported", file);
    NIBL_TRY(find_marks(json, out));
    return check_decoder(json, out->prefix != NIBL_PREFIX_NONE);
}

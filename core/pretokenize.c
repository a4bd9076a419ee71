#include "core/pretokenize.h"

#include "core/gguf.h"

#include <string.h>

#define SUFFIX "'s|'t|'re|'ve|'m|'ll|'d"
#define GPT2 SUFFIX "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SPACES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K(letters, numbers)                                                                             \
    "(?i:" SUFFIX ")|[^\\r\\n\\p{L}\\p{N}]?[" letters "]+|" numbers "| ?[^\\s" letters                       \
    "\\p{N}]+[\\r\\n]*" SPACES
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(suffix, numbers)                                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix \
    "|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" SPACES
/* The cased letters of Unicode 11 or so, as DeepSeek's pattern lists them. */
#define CASED                                                                                                \
    "A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF"             \
    "\u0370-\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5"        \
    "\u03F7-\u0481\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA"            \
    "\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45"            \
    "\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE"              \
    "\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102"      \
    "\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128\u212A-\u212D\u212F-\u2134\u2139"               \
    "\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4\u2CEB-\u2CEE\u2CF2\u2CF3"        \
    "\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF\uFB00-\uFB06"            \
    "\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3"                      \
    "\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF"                   \
    "\U0001E900-\U0001E943"
#define CJK "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"
/* The digit splitter of Hugging Face's knows numbers that are newer than its regex engine's Unicode. */
#define DIGIT "[\\p{N}\U00011DE0-\U00011DE9\U00016FF4-\U00016FF6]"

static const nibl_pre_row table[] = {
    {.names = "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     .patterns = {CL100K("\\p{L}", "\\p{N}{1,3}")},
     .whole_words = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe glm4 chatglm-bpe ", .patterns = {CL100K("\\p{L}", "\\p{N}{1,3}")}},
    {.names = "qwen2 deepseek-r1-qwen ", .patterns = {CL100K("\\p{L}", "\\p{N}")}, .nfc = true},
    {.names = "megrez stablelm2 hunyuan kormo grok-2 solar-open ", .patterns = {CL100K("\\p{L}", "\\p{N}")}},
    {.names = "qwen35 ", .patterns = {CL100K("\\p{L}\\p{M}", "\\p{N}")}, .nfc = true},
    {.names = "gpt-4o llama4 kanana2 ", .patterns = {O200K("(?i:" SUFFIX ")?", "\\p{N}{1,3}")}},
    {.names = "tekken ", .patterns = {O200K("", "\\p{N}")}, .whole_words = true, .add_bos = true},
    {.names = "gpt-2 phi-2 mpt jais granite-docling exaone4 gigachat mellum a.x-4.0 trillion ",
     .patterns = {GPT2}},
    {.names = "olmo ", .patterns = {GPT2}, .nfc = true},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b ", .patterns = {DIGIT, GPT2}},
    {.names = "falcon ", .patterns = {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm ",
     .patterns = {"\\p{N}{1,3}", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
                  "[!\"#$%&'()*+,\\-./"
                  ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
                  "?[\\p{P}\\p{S}]+[\\r\\n]*" SPACES}},
    {.names = "deepseek-coder ", .patterns = {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, DIGIT}},
    {.names = "deepseek-llm ",
     .patterns = {"[\\r\\n]", "\\s?[" CASED "]+",
                  "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", "\\s+$", CJK, DIGIT}},
};

/* The name at `names`, which is moved behind it; its length is 0 at the end. */
static nibl_slice next_name(const char **names) {
    nibl_slice name = {*names, strcspn(*names, " ")};
    *names += name.length + (name.length > 0);
    return name;
}

const nibl_pre_row *nibl_pre_find(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *names = table[i].names;
        for (nibl_slice known; (known = next_name(&names)).length > 0;)
            if (known.length == length && memcmp(known.bytes, name, length) == 0) return &table[i];
    }
    return NULL;
}

void nibl_pre_names(nibl_writer *out) {
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *names = table[i].names;
        const nibl_slice first = next_name(&names);
        nibl_print(out, "%s%.*s", out->length ? ", " : "", (int)first.length, first.bytes);
    }
}

nibl_status nibl_pretokenizer_new(nibl_pretokenizer *pre, const char *const *patterns, size_t count) {
    pre->patterns = nibl_alloc(count * sizeof *pre->patterns);
    if (!pre->patterns) return nibl_fail_memory(count * sizeof *pre->patterns, "a pre-tokenizer");
    pre->count = count;
    for (size_t i = 0; i < count; i++)
        NIBL_TRY(nibl_pattern_compile(&pre->patterns[i], patterns[i], strlen(patterns[i])));
    return NIBL_OK;
}

void nibl_pretokenizer_free(nibl_pretokenizer *pre) { nibl_free(pre->patterns); }

static void enter(nibl_words *w, size_t depth, size_t base, size_t length) {
    w->depth = depth;
    w->levels[depth].search =
        (nibl_pattern_search){.pattern = &w->pre->patterns[depth], .text = w->text + base, .length = length};
    w->levels[depth].base = base;
    w->levels[depth].at = w->levels[depth].match = w->levels[depth].match_end = 0;
}

void nibl_words_start(nibl_words *words, const nibl_pretokenizer *pre, const char *text, size_t length) {
    words->pre = pre;
    words->text = text;
    enter(words, 0, 0, length);
}

/* The next piece of the deepest level: a match, or what stands before it. */
static bool next_piece(nibl_words *w, size_t *begin, size_t *length) {
    nibl_pattern_search *search = &w->levels[w->depth].search;
    size_t at = w->levels[w->depth].at, *match = &w->levels[w->depth].match,
           *match_end = &w->levels[w->depth].match_end;
    if (at == search->length) return false;
    if (at == *match_end && !nibl_pattern_find(search, at, match, match_end))
        *match = *match_end = search->length;
    size_t end = at < *match ? *match : *match_end;
    w->levels[w->depth].at = end;
    *begin = w->levels[w->depth].base + at;
    *length = end - at;
    return true;
}

bool nibl_words_next(nibl_words *words, size_t *begin, size_t *length) {
    for (;;) {
        if (!next_piece(words, begin, length)) {
            if (words->depth == 0) return false;
            words->depth--;
        } else if (words->depth + 1 == words->pre->count) {
            return true;
        } else {
            enter(words, words->depth + 1, *begin, *length);
        }
    }
}

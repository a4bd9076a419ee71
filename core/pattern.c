#include "core/pattern.h"

#include "core/unicode.h"

#include <string.h>

enum { SET, GROUP, NOT_BEFORE, END }; /* kinds of a node */
enum { NONE = 0xFF };
#define FOR_EVER 0xFFFFFFFFu
#define NO_MATCH SIZE_MAX

/* ---- Reading ---- */

typedef struct reader {
    nibl_pattern *pattern;
    const char *at, *begin, *end;
    const char *wrong; /* why reading ended, NULL = all is well */
    bool fold; /* case */
    unsigned depth;
} reader;

static bool fail(reader *r, const char *why) {
    if (!r->wrong) r->wrong = why;
    return false;
}

static bool take(reader *r, const char *text) {
    size_t length = strlen(text);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, text, length) != 0) return false;
    r->at += length;
    return true;
}

static bool add_range(reader *r, nibl_char_set *set, uint32_t low, uint32_t high) {
    if (low > high) return fail(r, "a range that ends before it begins");
    for (uint32_t c = low; c <= high && c < 128; c++) set->ascii[c / 32] |= 1u << c % 32;
    if (high < 128) return true;
    if (r->pattern->range_count == NIBL_PATTERN_RANGES) return fail(r, "too many ranges");
    r->pattern->ranges[r->pattern->range_count].low = low;
    r->pattern->ranges[r->pattern->range_count++].high = high;
    set->range_count++;
    return true;
}

static bool add_char(reader *r, nibl_char_set *set, uint32_t code) {
    if (!add_range(r, set, code, code)) return false;
    uint32_t letter = code | 32;
    if (!r->fold || letter < 'a' || letter > 'z') return true;
    /* Of the letters that fold into ASCII, besides its own: long s and the Kelvin sign. */
    uint32_t far = letter == 's' ? 0x17F : letter == 'k' ? 0x212A : letter;
    return add_range(r, set, letter, letter) && add_range(r, set, letter - 32, letter - 32) &&
           add_range(r, set, far, far);
}

static void add_categories(nibl_char_set *set, unsigned categories) {
    set->categories |= (uint16_t)categories;
    for (uint32_t c = 0; c < 128; c++)
        if (categories >> nibl_unicode_category(c) & 1) set->ascii[c / 32] |= 1u << c % 32;
}

static bool add_property(reader *r, nibl_char_set *set) {
    static const struct {
        const char *name;
        unsigned categories;
    } table[] = {
        {"{Lu}", 1u << NIBL_CATEGORY_LU},
        {"{Ll}", 1u << NIBL_CATEGORY_LL},
        {"{Lt}", 1u << NIBL_CATEGORY_LT},
        {"{Lm}", 1u << NIBL_CATEGORY_LM},
        {"{Lo}", 1u << NIBL_CATEGORY_LO},
        {"{M}", 1u << NIBL_CATEGORY_M},
        {"{N}", 1u << NIBL_CATEGORY_N},
        {"{P}", 1u << NIBL_CATEGORY_P},
        {"{S}", 1u << NIBL_CATEGORY_S},
        {"{L}", 1u << NIBL_CATEGORY_LU | 1u << NIBL_CATEGORY_LL | 1u << NIBL_CATEGORY_LT |
                    1u << NIBL_CATEGORY_LM | 1u << NIBL_CATEGORY_LO},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!take(r, table[i].name)) continue;
        add_categories(set, table[i].categories);
        return true;
    }
    return fail(r, "a property");
}

/* A character; 0 with `wrong` set where none is. */
static uint32_t read_char(reader *r) {
    uint32_t code = 0;
    bool escaped = take(r, "\\");
    if (r->at == r->end ||
        (r->at += nibl_utf8_step(r->at, (size_t)(r->end - r->at), &code), code >= NIBL_UTF8_PARTIAL)) {
        fail(r, "a character");
        return 0;
    }
    if (!escaped) return code;
    if (code == 'r' || code == 'n' || code == 't') return code == 'r' ? '\r' : code == 'n' ? '\n' : '\t';
    if ((code | 32) - 'a' < 26 || code - '0' < 10) fail(r, "an escape");
    return code;
}

/* One character, \s, \S or \p{...}. */
static bool read_single(reader *r, nibl_char_set *set) {
    if (take(r, "\\p")) return add_property(r, set);
    bool negated = take(r, "\\S");
    if (negated || take(r, "\\s")) {
        add_categories(set, 1u << NIBL_CATEGORY_SPACE);
        set->negated = negated;
        return true;
    }
    uint32_t code = read_char(r);
    return !r->wrong && add_char(r, set, code);
}

static bool read_brackets(reader *r, nibl_char_set *set) {
    bool negated = take(r, "^");
    while (!take(r, "]")) {
        if (r->at == r->end) return fail(r, "a class without an end");
        if (r->end - r->at > 1 && *r->at == '\\' && memchr("psS", r->at[1], 3)) {
            if (!read_single(r, set)) return false;
            if (set->negated) return fail(r, "\\S in a class");
            continue;
        }
        uint32_t low = read_char(r);
        if (r->wrong) return false;
        if (r->end - r->at > 1 && *r->at == '-' && r->at[1] != ']') {
            r->at++;
            uint32_t high = read_char(r);
            if (r->fold) return fail(r, "a range without case");
            if (r->wrong || !add_range(r, set, low, high)) return false;
        } else if (!add_char(r, set, low)) {
            return false;
        }
    }
    set->negated = negated;
    return true;
}

static bool read_set(reader *r, nibl_char_set *set) {
    *set = (nibl_char_set){.range_first = r->pattern->range_count};
    if (take(r, "[") ? !read_brackets(r, set) : !read_single(r, set)) return false;
    for (size_t i = 0; set->negated && i < 4; i++) set->ascii[i] = ~set->ascii[i];
    return true;
}

static bool read_number(reader *r, uint32_t *out) {
    const char *from = r->at;
    for (*out = 0; r->at < r->end && (uint8_t)(*r->at - '0') < 10 && *out < 1000; r->at++)
        *out = *out * 10 + (uint32_t)(*r->at - '0');
    return r->at > from || fail(r, "a number");
}

static bool read_repeat(reader *r, nibl_pattern_node *node) {
    node->min = node->max = 1;
    if (take(r, "?")) {
        node->min = 0;
    } else if (take(r, "*") || take(r, "+")) {
        node->min = r->at[-1] == '+';
        node->max = FOR_EVER;
    } else if (take(r, "{")) {
        if (!read_number(r, &node->min)) return false;
        node->max = node->min;
        if (take(r, ",") && !read_number(r, &node->max)) return false;
        if (!take(r, "}") || node->max < node->min || node->max == 0) return fail(r, "a repetition");
    }
    if (r->at < r->end && memchr("?*+{", *r->at, 4)) return fail(r, "a lazy or possessive repetition");
    return true;
}

static bool read_branches(reader *r, uint8_t *first);

static bool read_node(reader *r, nibl_pattern_node *node) {
    *node = (nibl_pattern_node){.kind = SET, .branch = NONE, .next = NONE, .min = 1, .max = 1};
    if (take(r, "$")) {
        node->kind = END;
        return true;
    }
    if (take(r, "(?!")) {
        node->kind = NOT_BEFORE;
        return read_set(r, &node->set) && (take(r, ")") || fail(r, "a lookahead of more than one character"));
    }
    bool fold = r->fold, grouped = take(r, "(?i:");
    r->fold |= grouped;
    if (grouped || take(r, "(?:")) {
        node->kind = GROUP;
        if (r->depth++ > 0) return fail(r, "a group in a group");
        if (!read_branches(r, &node->branch) || !take(r, ")")) return fail(r, "a group without an end");
        r->depth--;
        r->fold = fold;
        if (!read_repeat(r, node)) return false;
        return node->max == 1 || fail(r, "a repeated group");
    }
    if (r->at < r->end && memchr("(?*+.{^", *r->at, 7)) return fail(r, "a construct");
    return read_set(r, &node->set) && read_repeat(r, node);
}

static bool read_branch(reader *r, uint8_t *first) {
    nibl_pattern *p = r->pattern;
    *first = NONE;
    for (uint8_t last = NONE; r->at < r->end && *r->at != '|' && *r->at != ')';) {
        if (p->node_count == NIBL_PATTERN_NODES) return fail(r, "too long a pattern");
        if (last != NONE && p->nodes[last].kind == GROUP) return fail(r, "something behind a group");
        uint8_t index = (uint8_t)p->node_count++;
        nibl_pattern_node node;
        if (!read_node(r, &node)) return false;
        p->nodes[index] = node;
        *(last == NONE ? first : &p->nodes[last].next) = index;
        last = index;
    }
    return *first != NONE || fail(r, "an empty alternative");
}

static bool read_branches(reader *r, uint8_t *first) {
    nibl_pattern *p = r->pattern;
    for (uint8_t *link = first;;) {
        if (p->branch_count == NIBL_PATTERN_BRANCHES) return fail(r, "too many alternatives");
        uint8_t index = (uint8_t)p->branch_count++;
        p->branches[index].next = NONE;
        *link = index;
        link = &p->branches[index].next;
        if (!read_branch(r, &p->branches[index].node)) return false;
        if (!take(r, "|")) return true;
    }
}

nibl_status nibl_pattern_compile(nibl_pattern *pattern, const char *source, size_t length) {
    *pattern = (nibl_pattern){.top = NONE};
    reader r = {.pattern = pattern, .at = source, .begin = source, .end = source + length};
    if (read_branches(&r, &pattern->top) && r.at < r.end) fail(&r, "a ')' without its '('");
    size_t tops = 0;
    for (uint8_t b = r.wrong ? NONE : pattern->top; b != NONE; b = pattern->branches[b].next) tops++;
    if (tops > NIBL_PATTERN_TOP) fail(&r, "too many alternatives");
    if (!r.wrong) return NIBL_OK;
    return nibl_fail(NIBL_E_UNSUPPORTED,
                     "the pre-tokenizer's pattern has at byte %zu what is not understood here: %s",
                     (size_t)(r.at - r.begin), r.wrong);
}

/* ---- Matching ---- */

static bool set_has(const nibl_pattern *p, const nibl_char_set *set, uint32_t code) {
    if (code < 128) return set->ascii[code / 32] >> code % 32 & 1;
    for (unsigned i = set->range_first; i < set->range_first + (unsigned)set->range_count; i++)
        if (code >= p->ranges[i].low && code <= p->ranges[i].high) return !set->negated;
    bool in = set->categories && set->categories >> nibl_unicode_category(code) & 1;
    return in != set->negated;
}

/* Width of the character at `at` if it is in the set, else 0. */
static size_t one(const nibl_pattern_search *s, const nibl_char_set *set, size_t at) {
    uint32_t code;
    if (at == s->length) return 0;
    size_t width = nibl_utf8_step(s->text + at, s->length - at, &code);
    return set_has(s->pattern, set, code) ? width : 0;
}

/* End of the match of a node and all behind it, or NO_MATCH. `*reach`: how far the first loop went. */
static size_t match(const nibl_pattern_search *s, uint8_t index, size_t at, size_t *reach);

static size_t match_group(const nibl_pattern_search *s, const nibl_pattern_node *node, size_t at) {
    for (uint8_t b = node->branch; b != NONE; b = s->pattern->branches[b].next) {
        size_t end = match(s, s->pattern->branches[b].node, at, NULL);
        if (end != NO_MATCH) return end;
    }
    return node->min == 0 ? at : NO_MATCH;
}

static size_t match_loop(const nibl_pattern_search *s, const nibl_pattern_node *node, size_t at,
                         size_t *reach) {
    size_t least = at, end = at;
    uint32_t count = 0;
    for (size_t width; count < node->max && (width = one(s, &node->set, end)) > 0; count++) {
        end += width;
        if (count + 1 == node->min) least = end;
    }
    if (reach) *reach = end;
    if (count < node->min) return NO_MATCH;
    for (;; end--) {
        if (end < s->length && ((uint8_t)s->text[end] & 0xC0) == 0x80) continue; /* inside a character */
        size_t found = match(s, node->next, end, NULL);
        if (found != NO_MATCH || end == least) return found;
    }
}

static size_t match(const nibl_pattern_search *s, uint8_t index, size_t at, size_t *reach) {
    if (index == NONE) return at;
    const nibl_pattern_node *node = &s->pattern->nodes[index];
    if (node->kind == SET) return match_loop(s, node, at, reach);
    if (node->kind == GROUP) return match_group(s, node, at);
    bool ok = node->kind == END ? at == s->length : one(s, &node->set, at) == 0;
    return ok ? match(s, node->next, at, NULL) : NO_MATCH;
}

/* A loop that failed from here fails from within what it went over too: its ends were all tried. */
static size_t match_top(nibl_pattern_search *s, size_t at) {
    const nibl_pattern *p = s->pattern;
    size_t which = 0;
    for (uint8_t b = p->top; b != NONE; b = p->branches[b].next, which++) {
        const nibl_pattern_node *first = &p->nodes[p->branches[b].node];
        if (at < s->dead[which]) continue;
        size_t reach = at, end = match(s, p->branches[b].node, at, &reach);
        if (end != NO_MATCH && end > at) return end;
        if (first->kind == SET && first->max == FOR_EVER && first->min <= 1) s->dead[which] = reach;
    }
    return NO_MATCH;
}

bool nibl_pattern_find(nibl_pattern_search *search, size_t from, size_t *begin, size_t *end) {
    uint32_t code;
    while (from < search->length) {
        size_t found = match_top(search, from);
        if (found != NO_MATCH) {
            *begin = from;
            *end = found;
            return true;
        }
        from += nibl_utf8_step(search->text + from, search->length - from, &code);
    }
    return false;
}

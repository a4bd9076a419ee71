#include "core/grammar.h"

#include <stdio.h>
#include <string.h>

void nibl_rules_free(nibl_rules *r) {
    nibl_free(r->nodes);
    nibl_free(r->branches);
    nibl_free(r->rules);
    nibl_free(r->sets);
    nibl_free(r->text);
    *r = (nibl_rules){0};
}

void nibl_rules_fail(nibl_rules *r, const char *format, ...) {
    if (r->status < 0) return;
    char text[480];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    r->status = nibl_fail(NIBL_E_GRAMMAR, "%s", text);
}

/* Room for `added` more; index 0 is never used where `skip` is 1. */
static bool grow(nibl_rules *r, void **array, size_t *capacity, size_t *count, size_t added, size_t width,
                 size_t most, size_t skip) {
    if (r->status < 0) return false;
    if (*count < skip) *count = skip;
    if (*count + added > most) {
        nibl_rules_fail(r, "the grammar is too large");
        return false;
    }
    r->status = nibl_reserve(array, capacity, *count + added, width, "a grammar");
    return r->status >= 0;
}

/* ---- Rules ---- */

uint32_t nibl_rule_new(nibl_rules *r) {
    void *array = r->rules;
    const bool ok =
        grow(r, &array, &r->rule_capacity, &r->rule_count, 1, sizeof *r->rules, NIBL_GRAMMAR_MAX_RULES, 1);
    r->rules = array;
    if (!ok) return 0;
    r->rules[r->rule_count] = (nibl_grammar_rule){0};
    return (uint32_t)r->rule_count++;
}

void nibl_rule_add(nibl_rules *r, uint32_t rule, nibl_sequence alternative) {
    void *array = r->branches;
    const bool ok = grow(r, &array, &r->branch_capacity, &r->branch_count, 1, sizeof *r->branches,
                         NIBL_GRAMMAR_MAX_NODES, 1);
    r->branches = array;
    if (!ok) return;
    const uint32_t branch = (uint32_t)r->branch_count++;
    r->branches[branch] = (nibl_grammar_branch){.first = alternative.first};
    nibl_grammar_rule *owner = &r->rules[rule];
    if (owner->last)
        r->branches[owner->last].next = branch;
    else
        owner->first = branch;
    owner->last = branch;
}

uint32_t nibl_rule_of(nibl_rules *r, nibl_sequence sequence) {
    const uint32_t rule = nibl_rule_new(r);
    nibl_rule_add(r, rule, sequence);
    return rule;
}

static void put(nibl_rules *r, nibl_sequence *s, nibl_grammar_node node) {
    void *array = r->nodes;
    const bool ok =
        grow(r, &array, &r->node_capacity, &r->node_count, 1, sizeof *r->nodes, NIBL_GRAMMAR_MAX_NODES, 1);
    r->nodes = array;
    if (!ok) return;
    const uint32_t index = (uint32_t)r->node_count++;
    r->nodes[index] = node;
    if (s->last)
        r->nodes[s->last].next = index;
    else
        s->first = index;
    s->last = index;
}

void nibl_put_text(nibl_rules *r, nibl_sequence *s, const char *bytes, size_t length) {
    if (length == 0) return;
    void *array = r->text;
    const bool ok = grow(r, &array, &r->text_capacity, &r->text_length, length, 1, NIBL_GRAMMAR_MAX_TEXT, 0);
    r->text = array;
    if (!ok) return;
    memcpy(r->text + r->text_length, bytes, length);
    const bool goes_on = s->last && r->nodes[s->last].kind == NIBL_GRAMMAR_TEXT &&
                         r->nodes[s->last].what + r->nodes[s->last].max == r->text_length;
    if (goes_on)
        r->nodes[s->last].max += (uint32_t)length;
    else
        put(r, s,
            (nibl_grammar_node){
                .kind = NIBL_GRAMMAR_TEXT, .what = (uint32_t)r->text_length, .max = (uint32_t)length});
    r->text_length += length;
}

static void put_set(nibl_rules *r, nibl_sequence *s, const nibl_byte_set *set) {
    size_t same = 0;
    while (same < r->set_count && memcmp(&r->sets[same], set, sizeof *set) != 0) same++;
    if (same == r->set_count) {
        void *array = r->sets;
        const bool ok =
            grow(r, &array, &r->set_capacity, &r->set_count, 1, sizeof *set, NIBL_GRAMMAR_MAX_SETS, 0);
        r->sets = array;
        if (!ok) return;
        r->sets[r->set_count++] = *set;
    }
    put(r, s, (nibl_grammar_node){.kind = NIBL_GRAMMAR_SET, .what = (uint32_t)same});
}

static void add_bytes(nibl_byte_set *set, uint32_t low, uint32_t high) {
    for (uint32_t byte = low; byte <= high; byte++) set->bits[byte / 32] |= 1u << byte % 32;
}

void nibl_put_byte(nibl_rules *r, nibl_sequence *s, uint8_t low, uint8_t high) {
    nibl_byte_set set = {0};
    add_bytes(&set, low, high);
    put_set(r, s, &set);
}

void nibl_put_rule(nibl_rules *r, nibl_sequence *s, uint32_t rule) {
    put(r, s, (nibl_grammar_node){.kind = NIBL_GRAMMAR_CALL, .what = rule});
}

void nibl_put_repeat(nibl_rules *r, nibl_sequence *s, uint32_t rule, uint32_t min, uint32_t max) {
    if (max == 0) return;
    if (min > NIBL_GRAMMAR_MAX_REPEAT)
        nibl_rules_fail(r, "a repetition of at least %u times (limit %u)", min, NIBL_GRAMMAR_MAX_REPEAT);
    if (max > NIBL_GRAMMAR_MAX_REPEAT) max = NIBL_GRAMMAR_MANY;
    if (min == 1 && max == 1)
        nibl_put_rule(r, s, rule);
    else
        put(r, s, (nibl_grammar_node){.kind = NIBL_GRAMMAR_REPEAT, .what = rule, .min = min, .max = max});
}

/* ---- Characters ---- */

void nibl_chars_add(nibl_chars *c, uint32_t low, uint32_t high) {
    if (low > high) return;
    if (c->count == NIBL_CHARS_MAX_RANGES) {
        c->full = true;
        return;
    }
    uint32_t at = c->count++;
    for (; at > 0 && c->ranges[at - 1].low > low; at--) c->ranges[at] = c->ranges[at - 1];
    c->ranges[at].low = low;
    c->ranges[at].high = high;
}

enum { LAST_CODE = 0x10FFFF, SURROGATES = 0xD800, BEHIND_SURROGATES = 0xE000 };

void nibl_chars_negate(nibl_chars *c) {
    nibl_chars_add(c, SURROGATES, BEHIND_SURROGATES - 1);
    nibl_chars others = {.full = c->full};
    uint32_t next = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->ranges[i].low > next) nibl_chars_add(&others, next, c->ranges[i].low - 1);
        if (c->ranges[i].high >= next) next = c->ranges[i].high + 1;
    }
    if (next <= LAST_CODE) nibl_chars_add(&others, next, LAST_CODE);
    *c = others;
}

bool nibl_chars_have(const nibl_chars *c, uint32_t code) {
    for (uint32_t i = 0; i < c->count; i++)
        if (code >= c->ranges[i].low && code <= c->ranges[i].high) return true;
    return false;
}

/* Byte `i` of n, from the last, of a code's UTF-8. */
static uint8_t utf8_byte(uint32_t code, uint32_t n, uint32_t i) {
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    return (uint8_t)(i + 1 < n ? 0x80 | (code >> 6 * i & 0x3F) : leads[n] | code >> 6 * i);
}

/* Alternatives of n bytes: a range is cut until each of its bytes goes through all between that of its first and that of
 * its last code, whatever the others are. */
static void add_utf8(nibl_rules *r, uint32_t rule, uint32_t low, uint32_t high, uint32_t n) {
    for (uint32_t i = 1; i < n; i++) {
        const uint32_t rest = (1u << 6 * i) - 1;
        if (low >> 6 * i == high >> 6 * i) continue;
        const uint32_t cut = low & rest ? low | rest : (high & rest) != rest ? (high & ~rest) - 1 : high;
        if (cut == high) continue;
        add_utf8(r, rule, low, cut, n);
        add_utf8(r, rule, cut + 1, high, n);
        return;
    }
    nibl_sequence s = {0};
    for (uint32_t i = n; i-- > 0;) nibl_put_byte(r, &s, utf8_byte(low, n, i), utf8_byte(high, n, i));
    nibl_rule_add(r, rule, s);
}

static void add_range(nibl_rules *r, uint32_t rule, uint32_t low, uint32_t high) {
    static const uint32_t ends[] = {0x7F, 0x7FF, 0xFFFF, LAST_CODE};
    for (uint32_t n = 2; n <= 4; n++) {
        const uint32_t from = low > ends[n - 2] ? low : ends[n - 2] + 1;
        const uint32_t to = high < ends[n - 1] ? high : ends[n - 1];
        if (from <= to) add_utf8(r, rule, from, to, n);
    }
}

/* What JSON writes with a backslash. */
static void add_escapes(nibl_rules *r, uint32_t rule, const nibl_chars *c) {
    static const char codes[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
    for (size_t i = 0; codes[i]; i++) {
        if (!nibl_chars_have(c, (uint8_t)codes[i])) continue;
        nibl_sequence s = {0};
        nibl_put_text(r, &s, (const char[]){'\\', names[i]}, 2);
        nibl_rule_add(r, rule, s);
    }
}

void nibl_put_chars(nibl_rules *r, nibl_sequence *s, nibl_chars *c, bool quoted) {
    if (c->full) nibl_rules_fail(r, "a set of more than %d ranges of characters", NIBL_CHARS_MAX_RANGES);
    nibl_byte_set ascii = {0};
    bool wide = false, escaped = false, any = false;
    for (uint32_t code = 0; code < 0x80; code++) {
        if (!nibl_chars_have(c, code)) continue;
        const bool escape = quoted && (code < 0x20 || code == '"' || code == '\\');
        escaped = escaped || escape;
        if (escape) continue;
        any = true;
        add_bytes(&ascii, code, code);
    }
    for (uint32_t i = 0; i < c->count; i++) wide = wide || c->ranges[i].high >= 0x80;
    if (any && !wide && !escaped) {
        put_set(r, s, &ascii);
        return;
    }
    const uint32_t rule = nibl_rule_new(r);
    if (any) {
        nibl_sequence one = {0};
        put_set(r, &one, &ascii);
        nibl_rule_add(r, rule, one);
    }
    if (escaped) add_escapes(r, rule, c);
    for (uint32_t i = 0; i < c->count; i++) {
        const uint32_t low = c->ranges[i].low, high = c->ranges[i].high;
        if (low < SURROGATES) add_range(r, rule, low, high < SURROGATES ? high : SURROGATES - 1);
        if (high >= BEHIND_SURROGATES)
            add_range(r, rule, low > BEHIND_SURROGATES ? low : BEHIND_SURROGATES, high);
    }
    nibl_put_rule(r, s, rule);
}

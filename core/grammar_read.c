/* GBNF and regular expressions: two ways to write nearly the same, which share sets of characters and repetitions. */
#include "core/grammar.h"
#include "core/unicode.h"

#include <string.h>

enum { MAX_NAMES = 4096 };

typedef struct reader {
    nibl_rules *rules;
    const char *text, *where;
    size_t at, length;
    uint32_t depth;
    /* GBNF: rules by name */
    nibl_slice *names;
    uint32_t *named;
    size_t count, name_capacity, rule_capacity;
    /* patterns: any characters */
    uint32_t any;
} reader;

static int peek(const reader *r) { return r->at < r->length ? (uint8_t)r->text[r->at] : -1; }

static bool stopped(const reader *r) { return r->rules->status < 0; }

static void fail(reader *r, const char *what) {
    nibl_rules_fail(r->rules, "%s, byte %zu: %s", r->where, r->at, what);
}

static bool take(reader *r, char c) {
    if (peek(r) != c) return false;
    r->at++;
    return true;
}

static uint32_t read_code(reader *r) {
    uint32_t code = 0;
    if (r->at >= r->length) {
        fail(r, "it ends where a character is missing");
        return 0;
    }
    r->at += nibl_utf8_step(r->text + r->at, r->length - r->at, &code);
    if (code >= NIBL_UTF8_PARTIAL) fail(r, "bytes that are not UTF-8");
    return code;
}

static uint32_t read_hex(reader *r, int digits) {
    uint32_t code = 0;
    for (int i = 0; i < digits; i++) {
        const int c = peek(r);
        const int value = c >= '0' && c <= '9'                 ? c - '0'
                          : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                               : -1;
        if (value < 0) {
            fail(r, "a hexadecimal digit is missing");
            return 0;
        }
        code = code * 16 + (uint32_t)value;
        r->at++;
    }
    if (code > 0x10FFFF) fail(r, "a code beyond U+10FFFF");
    return code;
}

/* Behind a backslash; false where it is no single character. */
static bool read_escape(reader *r, uint32_t *code) {
    static const char names[] = "nrtfv0", codes[] = "\n\r\t\f\v\0";
    const int c = peek(r);
    const char *known = c > 0 ? strchr(names, c) : NULL;
    if (known) {
        *code = (uint8_t)codes[known - names];
        r->at++;
        return true;
    }
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits) {
        r->at++;
        *code = read_hex(r, digits);
        return true;
    }
    if ((c | 32) >= 'a' && (c | 32) <= 'z') return false;
    if (c >= '1' && c <= '9') return false;
    *code = read_code(r);
    return true;
}

static void add_class(nibl_chars *chars, int letter) {
    nibl_chars set = {0};
    if ((letter | 32) == 'd' || (letter | 32) == 'w') nibl_chars_add(&set, '0', '9');
    if ((letter | 32) == 'w') {
        nibl_chars_add(&set, 'A', 'Z');
        nibl_chars_add(&set, '_', '_');
        nibl_chars_add(&set, 'a', 'z');
    }
    if ((letter | 32) == 's') {
        nibl_chars_add(&set, '\t', '\r');
        nibl_chars_add(&set, ' ', ' ');
    }
    /* \S excludes all of ECMA's spaces, of which \s gives the common ones. */
    if (letter == 'S') {
        static const uint16_t more[] = {0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF};
        for (size_t i = 0; i < sizeof more / sizeof *more; i++) nibl_chars_add(&set, more[i], more[i]);
        nibl_chars_add(&set, 0x2000, 0x200A);
    }
    if (letter < 'a') nibl_chars_negate(&set);
    for (uint32_t i = 0; i < set.count; i++) nibl_chars_add(chars, set.ranges[i].low, set.ranges[i].high);
    chars->full = chars->full || set.full;
}

/* One character of a set, or a class of them (true). */
static bool read_member(reader *r, nibl_chars *chars, uint32_t *code) {
    if (!take(r, '\\')) {
        *code = read_code(r);
        return false;
    }
    const int c = peek(r);
    if (c > 0 && strchr("dDwWsS", c)) {
        add_class(chars, c);
        r->at++;
        return true;
    }
    if (c == 'b') { /* within brackets: backspace */
        *code = '\b';
        r->at++;
        return false;
    }
    if (!read_escape(r, code)) fail(r, "an escape that is not supported");
    return false;
}

/* Behind its '['. */
static void read_set(reader *r, nibl_sequence *out, bool quoted) {
    nibl_chars chars = {0};
    const bool negated = take(r, '^');
    while (!take(r, ']')) {
        uint32_t low = 0, high;
        if (stopped(r)) return;
        if (r->at >= r->length) {
            fail(r, "']' is missing");
            return;
        }
        if (read_member(r, &chars, &low)) continue;
        high = low;
        if (peek(r) == '-' && r->at + 1 < r->length && r->text[r->at + 1] != ']') {
            r->at++;
            if (read_member(r, &chars, &high)) {
                fail(r, "a range that ends in a class");
                return;
            }
        }
        if (high < low) fail(r, "a range that ends before it begins");
        nibl_chars_add(&chars, low, high);
    }
    if (negated) nibl_chars_negate(&chars);
    if (chars.count == 0) fail(r, "an empty set");
    nibl_put_chars(r->rules, out, &chars, quoted);
}

static bool read_number(reader *r, uint32_t *out) {
    uint64_t value = 0;
    const size_t start = r->at;
    while (peek(r) >= '0' && peek(r) <= '9') {
        value = value * 10 + (uint64_t)(peek(r) - '0');
        if (value > NIBL_GRAMMAR_MAX_REPEAT) value = NIBL_GRAMMAR_MAX_REPEAT + 1ull;
        r->at++;
    }
    *out = (uint32_t)value;
    return r->at > start;
}

/* What stands behind an element; `one` is put as often as that says. */
static void read_repeat(reader *r, nibl_sequence *out, nibl_sequence one) {
    uint32_t min = 1, max = 1;
    const size_t before = r->at;
    if (take(r, '*') || take(r, '+') || take(r, '?')) {
        const char sign = r->text[r->at - 1];
        min = sign == '+';
        max = sign == '?' ? 1 : NIBL_GRAMMAR_MANY;
    } else if (take(r, '{')) {
        bool known = read_number(r, &min);
        if (!known) min = 0;
        max = min;
        if (take(r, ',')) {
            if (!read_number(r, &max)) max = NIBL_GRAMMAR_MANY;
            known = true;
        }
        if (!known || !take(r, '}') || max < min) {
            r->at = before;
            fail(r, "a repetition must be {n}, {n,} or {n,m}");
            return;
        }
    }
    if (r->at == before) { /* once: as it is */
        if (one.first == 0) return;
        if (out->last)
            r->rules->nodes[out->last].next = one.first;
        else
            out->first = one.first;
        out->last = one.last;
        return;
    }
    nibl_put_repeat(r->rules, out, nibl_rule_of(r->rules, one), min, max);
}

static bool deeper(reader *r) {
    if (++r->depth <= NIBL_GRAMMAR_MAX_DEPTH) return true;
    fail(r, "brackets nest deeper than 64 levels");
    return false;
}

/* ---- GBNF ---- */

static bool is_name(int c) {
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_';
}

static void skip_space(reader *r) {
    for (;;) {
        const int c = peek(r);
        if (c == '#') {
            while (peek(r) >= 0 && peek(r) != '\n') r->at++;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            r->at++;
        } else {
            return;
        }
    }
}

static nibl_slice read_name(reader *r) {
    nibl_slice name = {r->text + r->at, 0};
    while (is_name(peek(r))) {
        r->at++;
        name.length++;
    }
    return name;
}

/* Whether a name and "::=" come next: there another rule begins. */
static bool at_rule(reader *r) {
    const size_t before = r->at;
    const bool named = read_name(r).length > 0;
    skip_space(r);
    const bool begins = named && r->length - r->at >= 3 && memcmp(r->text + r->at, "::=", 3) == 0;
    r->at = before;
    return begins;
}

static uint32_t rule_named(reader *r, nibl_slice name) {
    for (size_t i = 0; i < r->count; i++)
        if (r->names[i].length == name.length && memcmp(r->names[i].bytes, name.bytes, name.length) == 0)
            return r->named[i];
    if (r->count == MAX_NAMES) fail(r, "more than 4096 rules");
    void *names = r->names, *named = r->named;
    if (!stopped(r))
        r->rules->status =
            nibl_reserve(&names, &r->name_capacity, r->count + 1, sizeof *r->names, "a grammar");
    if (!stopped(r))
        r->rules->status =
            nibl_reserve(&named, &r->rule_capacity, r->count + 1, sizeof *r->named, "a grammar");
    r->names = names;
    r->named = named;
    const uint32_t rule = nibl_slice_is(name, "root") ? NIBL_GRAMMAR_ROOT : nibl_rule_new(r->rules);
    if (stopped(r)) return 0;
    r->names[r->count] = name;
    r->named[r->count++] = rule;
    return rule;
}

static void read_literal(reader *r, nibl_sequence *out) {
    while (!take(r, '"') && !stopped(r)) {
        uint32_t code;
        char bytes[4];
        const size_t before = r->at;
        if (take(r, '\\')) {
            if (!read_escape(r, &code)) {
                fail(r, "an escape that GBNF does not have");
                return;
            }
            nibl_chars one = {0};
            if (code < 0x80) {
                bytes[0] = (char)code;
                nibl_put_text(r->rules, out, bytes, 1);
            } else {
                nibl_chars_add(&one, code, code);
                nibl_put_chars(r->rules, out, &one, false);
            }
            continue;
        }
        read_code(r);
        nibl_put_text(r->rules, out, r->text + before, r->at - before);
    }
}

static void read_rule(reader *r, uint32_t rule);

static bool read_element(reader *r, nibl_sequence *out) {
    nibl_sequence one = {0};
    if (take(r, '"')) {
        read_literal(r, &one);
    } else if (take(r, '[')) {
        read_set(r, &one, false);
    } else if (take(r, '.')) {
        nibl_chars all = {0};
        nibl_chars_negate(&all);
        nibl_put_chars(r->rules, &one, &all, false);
    } else if (take(r, '(')) {
        const uint32_t group = nibl_rule_new(r->rules);
        if (deeper(r)) read_rule(r, group);
        r->depth--;
        if (!take(r, ')')) fail(r, "')' is missing");
        nibl_put_rule(r->rules, &one, group);
    } else if (is_name(peek(r)) && !at_rule(r)) {
        nibl_put_rule(r->rules, &one, rule_named(r, read_name(r)));
    } else {
        return false;
    }
    skip_space(r);
    if (!stopped(r)) read_repeat(r, out, one);
    skip_space(r);
    return true;
}

/* Alternatives up to what cannot go on. */
static void read_rule(reader *r, uint32_t rule) {
    do {
        nibl_sequence s = {0};
        skip_space(r);
        while (!stopped(r) && read_element(r, &s)) {
        }
        if (!stopped(r)) nibl_rule_add(r->rules, rule, s);
    } while (!stopped(r) && take(r, '|'));
}

void nibl_grammar_read(nibl_rules *rules, const char *text, size_t length) {
    reader r = {.rules = rules, .text = text, .length = length, .where = "grammar"};
    if (length > NIBL_GRAMMAR_MAX_SOURCE) fail(&r, "longer than 1 MiB");
    nibl_rule_new(rules); /* the root */
    skip_space(&r);
    while (!stopped(&r) && r.at < r.length) {
        if (!at_rule(&r)) {
            fail(&r, "a rule, name ::= ..., is missing");
            break;
        }
        const uint32_t rule = rule_named(&r, read_name(&r));
        if (stopped(&r)) break;
        if (rules->rules[rule].first) fail(&r, "a rule that is there already");
        skip_space(&r);
        r.at += 3;
        read_rule(&r, rule);
        skip_space(&r);
    }
    for (size_t i = 0; i < r.count && !stopped(&r); i++)
        if (!rules->rules[r.named[i]].first)
            nibl_rules_fail(rules, "grammar: there is no rule '%.*s'", NIBL_SHOW(r.names[i]));
    if (!stopped(&r) && !rules->rules[NIBL_GRAMMAR_ROOT].first)
        nibl_rules_fail(rules, "grammar: there is no rule 'root'");
    nibl_free(r.names);
    nibl_free(r.named);
}

/* ---- Regular expressions ---- */

static void read_branches(reader *r, uint32_t rule);

static void put_code(reader *r, nibl_sequence *out, uint32_t code) {
    nibl_chars one = {0};
    nibl_chars_add(&one, code, code);
    if (code < 0x20 && (code == 0 || !strchr("\b\f\n\r\t", (int)code))) fail(r, "a control character");
    nibl_put_chars(r->rules, out, &one, true);
}

static bool read_atom(reader *r, nibl_sequence *out) {
    nibl_sequence one = {0};
    const int c = peek(r);
    if (c < 0 || c == '|' || c == ')') return false;
    if (c == '$' || c == '^') return false;
    uint32_t code = 0;
    if (take(r, '(')) {
        if (take(r, '?') && !take(r, ':')) {
            fail(r, "groups (...) and (?:...) alone are supported");
            return false;
        }
        const uint32_t group = nibl_rule_new(r->rules);
        if (deeper(r)) read_branches(r, group);
        r->depth--;
        if (!take(r, ')')) fail(r, "')' is missing, or an anchor stands within a group");
        nibl_put_rule(r->rules, &one, group);
    } else if (take(r, '[')) {
        read_set(r, &one, true);
    } else if (take(r, '.')) {
        nibl_chars all = {0};
        nibl_chars_add(&all, '\n', '\n');
        nibl_chars_add(&all, '\r', '\r');
        nibl_chars_add(&all, 0x2028, 0x2029);
        nibl_chars_negate(&all);
        nibl_put_chars(r->rules, &one, &all, true);
    } else if (c == '\\') {
        r->at++;
        const int letter = peek(r);
        if (letter > 0 && strchr("dDwWsS", letter)) {
            nibl_chars set = {0};
            add_class(&set, letter);
            r->at++;
            nibl_put_chars(r->rules, &one, &set, true);
        } else if (letter != 'U' && read_escape(r, &code)) {
            put_code(r, &one, code);
        } else {
            fail(r, "an escape that is not supported");
        }
    } else if (strchr("*+?{", c)) {
        fail(r, "a repetition of nothing");
    } else {
        put_code(r, &one, read_code(r));
    }
    if (stopped(r)) return false;
    const size_t before = r->at;
    read_repeat(r, out, one);
    if (r->at > before) take(r, '?'); /* lazy: the same texts */
    return true;
}

static void read_branches(reader *r, uint32_t rule) {
    do {
        nibl_sequence s = {0};
        while (!stopped(r) && read_atom(r, &s)) {
        }
        if (!stopped(r)) nibl_rule_add(r->rules, rule, s);
    } while (!stopped(r) && take(r, '|'));
}

static void put_any(reader *r, nibl_sequence *out) {
    if (!r->any) {
        nibl_chars all = {0};
        nibl_sequence one = {0};
        nibl_chars_negate(&all);
        nibl_put_chars(r->rules, &one, &all, true);
        r->any = nibl_rule_of(r->rules, one);
    }
    nibl_put_repeat(r->rules, out, r->any, 0, NIBL_GRAMMAR_MANY);
}

void nibl_grammar_read_pattern(nibl_rules *rules, nibl_sequence *out, nibl_slice pattern, const char *where) {
    reader r = {.rules = rules, .text = pattern.bytes, .length = pattern.length, .where = where};
    const uint32_t rule = nibl_rule_new(rules);
    do {
        nibl_sequence s = {0};
        if (!take(&r, '^')) put_any(&r, &s);
        while (!stopped(&r) && read_atom(&r, &s)) {
        }
        if (!stopped(&r) && !take(&r, '$')) put_any(&r, &s);
        if (!stopped(&r)) nibl_rule_add(rules, rule, s);
    } while (!stopped(&r) && take(&r, '|'));
    if (!stopped(&r) && r.at < r.length) fail(&r, "what stands here is not supported");
    nibl_put_rule(rules, out, rule);
}

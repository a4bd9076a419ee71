#include "core/schema_parts.h"

#include <math.h>
#include <string.h>

/* ---- Types ---- */

static bool type_named(const nibl_json *json, uint32_t node, uint32_t *out) {
    static const struct {
        const char *name;
        uint32_t type;
    } types[] = {{"null", NIBL_IS_NULL},       {"boolean", NIBL_IS_BOOLEAN},
                 {"integer", NIBL_IS_INTEGER}, {"number", NIBL_IS_INTEGER | NIBL_IS_FRACTION},
                 {"string", NIBL_IS_STRING},   {"array", NIBL_IS_ARRAY},
                 {"object", NIBL_IS_OBJECT}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (!nibl_json_equals(json, node, types[i].name)) continue;
        *out |= types[i].type;
        return true;
    }
    return false;
}

bool nibl_schema_types(const nibl_json *json, uint32_t type, uint32_t *out) {
    if (!type) return true;
    uint32_t found = 0;
    if (nibl_json_is(json, type, NIBL_JSON_ARRAY)) {
        for (uint32_t i = 0; nibl_json_each(json, type, &i);)
            if (!type_named(json, i, &found)) return false;
    } else if (!type_named(json, type, &found)) {
        return false;
    }
    *out = found;
    return found != 0;
}

uint32_t nibl_schema_type_of(const nibl_json *json, uint32_t value) {
    double number;
    switch (json->nodes[value].kind) {
    case NIBL_JSON_NULL: return NIBL_IS_NULL;
    case NIBL_JSON_FALSE:
    case NIBL_JSON_TRUE: return NIBL_IS_BOOLEAN;
    case NIBL_JSON_STRING: return NIBL_IS_STRING;
    case NIBL_JSON_ARRAY: return NIBL_IS_ARRAY;
    case NIBL_JSON_OBJECT: return NIBL_IS_OBJECT;
    default:
        return nibl_json_f64(json, value, &number) && number == floor(number) ? NIBL_IS_INTEGER
                                                                              : NIBL_IS_FRACTION;
    }
}

/* ---- Strings and references ---- */

/* The bytes of a string, one by one; -1 at the end. */
typedef struct letters {
    char text[1024];
    size_t length;
} letters;

static bool read_string(const nibl_json *json, uint32_t node, letters *out) {
    nibl_writer writer = {.text = out->text, .capacity = sizeof out->text};
    nibl_json_write_string(json, node, &writer);
    out->length = writer.length;
    return writer.length < sizeof out->text;
}

bool nibl_schema_same_string(const nibl_json *json, uint32_t a, uint32_t b) {
    const nibl_slice x = nibl_json_text(json, a), y = nibl_json_text(json, b);
    if (x.length == y.length && memcmp(x.bytes, y.bytes, x.length) == 0) return true;
    if (!json->nodes[a].escaped && !json->nodes[b].escaped) return false;
    letters p, q; /* longer ones with escapes count as different */
    return read_string(json, a, &p) && read_string(json, b, &q) && p.length == q.length &&
           memcmp(p.text, q.text, p.length) == 0;
}

uint32_t nibl_schema_length(const nibl_json *json, uint32_t string) {
    const nibl_slice s = nibl_json_text(json, string);
    uint32_t count = 0;
    for (size_t i = 0; i < s.length; i++) {
        if (((uint8_t)s.bytes[i] & 0xC0) == 0x80) continue; /* within a character */
        count++;
        if (s.bytes[i] != '\\') continue;
        i++;
        if (s.bytes[i] != 'u') continue;
        i += 4;
        const bool high = (s.bytes[i - 3] | 32) == 'd' && strchr("89abAB", s.bytes[i - 2]);
        if (high) i += 6; /* the second half of a pair */
    }
    return count;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* A part of a JSON pointer within a URI fragment (RFC 6901), undone in place. */
static size_t decode_part(char *text, size_t length) {
    size_t written = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '%' && i + 2 < length && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            c = (char)(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        } else if (c == '~' && i + 1 < length && (text[i + 1] == '0' || text[i + 1] == '1')) {
            c = text[++i] == '0' ? '~' : '/';
        }
        text[written++] = c;
    }
    return written;
}

static uint32_t child_named(const nibl_json *json, uint32_t node, const char *name, size_t length) {
    if (nibl_json_is(json, node, NIBL_JSON_ARRAY)) {
        uint32_t index = 0, at = 0;
        for (size_t i = 0; i < length; i++) {
            if (name[i] < '0' || name[i] > '9' || length > 6) return 0;
            index = index * 10 + (uint32_t)(name[i] - '0');
        }
        for (uint32_t i = 0; length && nibl_json_each(json, node, &i); at++)
            if (at == index) return i;
        return 0;
    }
    if (!nibl_json_is(json, node, NIBL_JSON_OBJECT)) return 0;
    letters key;
    for (uint32_t i = 0; nibl_json_each(json, node, &i);)
        if (read_string(json, i, &key) && key.length == length && memcmp(key.text, name, length) == 0)
            return i + 1;
    return 0;
}

uint32_t nibl_schema_resolve(const nibl_json *json, uint32_t reference) {
    letters path;
    if (!read_string(json, reference, &path) || path.length == 0 || path.text[0] != '#') return 0;
    uint32_t node = NIBL_JSON_ROOT;
    for (size_t at = 1; at < path.length && node;) {
        if (path.text[at] != '/') return 0;
        char *part = path.text + at + 1;
        const char *end = memchr(part, '/', path.length - at - 1);
        const size_t length = end ? (size_t)(end - part) : path.length - at - 1;
        at += 1 + length;
        node = child_named(json, node, part, decode_part(part, length));
    }
    return node;
}

/* ---- Alternatives that exclude each other ---- */

static uint32_t behind_references(const nibl_json *json, uint32_t schema) {
    for (int i = 0; i < 8; i++) {
        const uint32_t reference = nibl_json_get(json, schema, "$ref");
        if (!nibl_json_is(json, reference, NIBL_JSON_STRING)) return schema;
        schema = nibl_schema_resolve(json, reference);
    }
    return 0;
}

nibl_verdict nibl_schema_same(const nibl_json *json, uint32_t a, uint32_t b) {
    double x, y;
    if (!(nibl_schema_type_of(json, a) & nibl_schema_type_of(json, b))) return NIBL_NO;
    if (nibl_json_f64(json, a, &x) && nibl_json_f64(json, b, &y)) return x == y ? NIBL_YES : NIBL_NO;
    if (nibl_json_is(json, a, NIBL_JSON_STRING))
        return nibl_schema_same_string(json, a, b) ? NIBL_YES : NIBL_NO;
    const nibl_json_node *p = &json->nodes[a], *q = &json->nodes[b];
    if (p->kind < NIBL_JSON_NUMBER) return p->kind == q->kind ? NIBL_YES : NIBL_NO;
    return p->length == q->length && memcmp(json->text + p->at, json->text + q->at, p->length) == 0
               ? NIBL_YES
               : NIBL_UNKNOWN;
}

/* The values a schema lists: calls are for i = 0, 1, ...; 0 at the end. */
static uint32_t value_of(const nibl_json *json, uint32_t schema, uint32_t i) {
    const uint32_t only = nibl_json_get(json, schema, "const");
    if (only) return i == 0 ? only : 0;
    uint32_t at = 0;
    for (uint32_t v = 0; nibl_json_each(json, nibl_json_get(json, schema, "enum"), &v); at++)
        if (at == i) return v;
    return 0;
}

static bool different_constants(const nibl_json *json, uint32_t a, uint32_t b) {
    enum { MANY = 64 };
    if (!value_of(json, a, 0) || !value_of(json, b, 0)) return false;
    for (uint32_t i = 0, x; (x = value_of(json, a, i)) != 0; i++)
        for (uint32_t j = 0, y; (y = value_of(json, b, j)) != 0; j++)
            if (i == MANY || j == MANY || nibl_schema_same(json, x, y) != NIBL_NO) return false;
    return true;
}

static uint32_t types_of(const nibl_json *json, uint32_t schema) {
    uint32_t types = NIBL_IS_ANY;
    nibl_schema_types(json, nibl_json_get(json, schema, "type"), &types);
    uint32_t listed = 0;
    for (uint32_t i = 0, v; (v = value_of(json, schema, i)) != 0 && i < 64; i++)
        listed |= nibl_schema_type_of(json, v);
    if (listed && !value_of(json, schema, 64)) types &= listed;
    return types;
}

/* Whether b can hold none of what a requires. */
static bool excludes(const nibl_json *json, uint32_t a, uint32_t b) {
    const uint32_t theirs = nibl_json_get(json, b, "properties");
    const bool closed = nibl_json_is(json, nibl_json_get(json, b, "additionalProperties"), NIBL_JSON_FALSE);
    uint32_t looked = 0;
    for (uint32_t i = 0; nibl_json_each(json, nibl_json_get(json, a, "required"), &i) && looked < 64;
         looked++) {
        letters name;
        if (!nibl_json_is(json, i, NIBL_JSON_STRING) || !read_string(json, i, &name)) continue;
        const uint32_t own = child_named(json, nibl_json_get(json, a, "properties"), name.text, name.length);
        const uint32_t other = child_named(json, theirs, name.text, name.length);
        if (!other && closed) return true;
        if (own && other &&
            (different_constants(json, own, other) || !(types_of(json, own) & types_of(json, other))))
            return true;
    }
    return false;
}

bool nibl_schema_disjoint(const nibl_json *json, uint32_t a, uint32_t b) {
    a = behind_references(json, a);
    b = behind_references(json, b);
    if (!nibl_json_is(json, a, NIBL_JSON_OBJECT) || !nibl_json_is(json, b, NIBL_JSON_OBJECT)) return false;
    const uint32_t types = types_of(json, a) & types_of(json, b);
    if (types == 0 || different_constants(json, a, b)) return true;
    return types == NIBL_IS_OBJECT && (excludes(json, a, b) || excludes(json, b, a));
}

/* ---- Keys that are no other's ---- */

static bool comes_before(nibl_slice a, nibl_slice b) {
    const int order = memcmp(a.bytes, b.bytes, a.length < b.length ? a.length : b.length);
    return order ? order < 0 : a.length < b.length;
}

/* The end of a key, of which the first `depth` bytes are those of the names listed, which are in order. `any`: the rule of a
 * character. Long names are avoided by their beginning. */
static uint32_t key_end(nibl_rules *r, const nibl_slice *names, uint32_t count, uint32_t depth,
                        uint32_t any) {
    enum { DEEP = 32, FIRST = ' ', LAST = '~' };
    const uint32_t rule = nibl_rule_new(r);
    bool taken[256] = {false}, ends = false;
    taken['"'] = taken['\\'] = true;
    for (uint32_t i = 0; i < count; i++) {
        ends = ends || names[i].length == depth;
        if (names[i].length > depth) taken[(uint8_t)names[i].bytes[depth]] = true;
    }
    nibl_sequence s = {0};
    if (!ends && depth > 0) {
        nibl_put_text(r, &s, "\"", 1);
        nibl_rule_add(r, rule, s);
        s = (nibl_sequence){0};
    }
    nibl_chars others = {0};
    for (uint32_t code = FIRST; code <= LAST; code++)
        if (!taken[code]) nibl_chars_add(&others, code, code);
    nibl_put_chars(r, &s, &others, false);
    nibl_put_repeat(r, &s, any, 0, NIBL_GRAMMAR_MANY);
    nibl_put_text(r, &s, "\"", 1);
    nibl_rule_add(r, rule, s);
    for (uint32_t i = 0, end; i < count && depth < DEEP && r->status >= 0; i = end) {
        end = i + 1;
        if (names[i].length <= depth) continue;
        const uint8_t byte = (uint8_t)names[i].bytes[depth];
        while (end < count && (uint8_t)names[end].bytes[depth] == byte) end++;
        if (byte < FIRST || byte > LAST || byte == '"' || byte == '\\') continue;
        s = (nibl_sequence){0};
        nibl_put_byte(r, &s, byte, byte);
        nibl_put_rule(r, &s, key_end(r, names + i, end - i, depth + 1, any));
        nibl_rule_add(r, rule, s);
    }
    return rule;
}

uint32_t nibl_schema_other_key(nibl_rules *r, nibl_slice *names, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        const nibl_slice name = names[i];
        uint32_t at = i;
        for (; at > 0 && comes_before(name, names[at - 1]); at--) names[at] = names[at - 1];
        names[at] = name;
    }
    nibl_chars chars = {0};
    nibl_chars_add(&chars, ' ', '!');
    nibl_chars_add(&chars, '#', '[');
    nibl_chars_add(&chars, ']', '~');
    nibl_sequence one = {0}, s = {0};
    nibl_put_chars(r, &one, &chars, false);
    nibl_put_text(r, &s, "\"", 1);
    nibl_put_rule(r, &s, key_end(r, names, count, 0, nibl_rule_of(r, one)));
    return nibl_rule_of(r, s);
}

/* ---- Numbers ---- */

typedef int64_t integer;

/* Alternatives of n digits, from one number to another: a range is cut until each digit goes through all between that of
 * its first and that of its last number, whatever the others are. */
static void add_digits(nibl_rules *r, uint32_t rule, integer low, integer high, integer unit) {
    for (integer m = 10; m <= unit; m *= 10) {
        if (low / m == high / m) continue;
        const integer cut = low % m ? low - low % m + m - 1 : high % m != m - 1 ? high - high % m - 1 : high;
        if (cut == high) continue;
        add_digits(r, rule, low, cut, unit);
        add_digits(r, rule, cut + 1, high, unit);
        return;
    }
    nibl_sequence s = {0};
    for (integer m = unit; m > 0; m /= 10)
        nibl_put_byte(r, &s, (uint8_t)('0' + low / m % 10), (uint8_t)('0' + high / m % 10));
    nibl_rule_add(r, rule, s);
}

/* Integers low <= n <= high, not negative. */
static uint32_t digits_of(nibl_rules *r, integer low, integer high) {
    const uint32_t rule = nibl_rule_new(r);
    for (integer unit = 1; unit <= high || unit == 1; unit *= 10) {
        const integer first = unit == 1 ? 0 : unit, last = unit * 10 - 1;
        if (last < low || first > high) continue;
        add_digits(r, rule, low > first ? low : first, high < last ? high : last, unit);
    }
    return rule;
}

/* ".", up to 6 digits, not all of them 0. */
static uint32_t fraction_of(nibl_rules *r) {
    nibl_sequence digit = {0}, s = {0};
    nibl_put_byte(r, &digit, '0', '9');
    nibl_put_text(r, &s, ".", 1);
    nibl_put_repeat(r, &s, nibl_rule_of(r, digit), 0, 5);
    nibl_put_byte(r, &s, '1', '9');
    return nibl_rule_of(r, s);
}

static void add_number(nibl_rules *r, uint32_t rule, bool negative, integer low, integer high,
                       uint32_t fraction) {
    nibl_sequence s = {0};
    if (negative) nibl_put_text(r, &s, "-", 1);
    nibl_put_rule(r, &s, digits_of(r, low, high));
    if (fraction) nibl_put_rule(r, &s, fraction);
    nibl_rule_add(r, rule, s);
}

static integer larger(integer a, integer b) { return a > b ? a : b; }
static integer smaller(integer a, integer b) { return a < b ? a : b; }

bool nibl_schema_put_number(nibl_rules *r, nibl_sequence *s, const nibl_number_range *range, bool whole) {
    const double most = NIBL_NUMBER_LARGEST;
    const nibl_number_range all = {{-most, false}, {most, false}};
    if (!range) range = &all;
    double low = ceil(range->low.value), high = floor(range->high.value);
    if (!(low <= most) || !(high >= -most) || !(low <= high + 1)) return false;
    /* The integers that fractions may lie between; and those that are allowed themselves. */
    const integer from = (integer)(low > -most ? low : -most), to = (integer)(high < most ? high : most);
    const integer first = from + (range->low.exclusive && low == range->low.value);
    const integer last = to - (range->high.exclusive && high == range->high.value);
    const uint32_t rule = nibl_rule_new(r);
    bool any = false;
    if (last >= larger(first, 0)) {
        add_number(r, rule, false, larger(first, 0), last, 0);
        any = true;
    }
    if (first < 0 && last >= first) {
        const integer nearest = smaller(last, -1);
        if (nearest >= first) add_number(r, rule, true, -nearest, -first, 0);
        any = true;
    }
    const integer widest = range == &all ? (integer)most : 999999999;
    if (!whole) {
        const uint32_t fraction = fraction_of(r);
        const integer up = smaller(to - 1, widest), down = smaller(-from - 1, widest);
        if (up >= larger(from, 0)) {
            add_number(r, rule, false, larger(from, 0), up, fraction);
            any = true;
        }
        if (down >= larger(-to, 0)) {
            add_number(r, rule, true, larger(-to, 0), down, fraction);
            any = true;
        }
    }
    nibl_put_rule(r, s, rule);
    return any;
}

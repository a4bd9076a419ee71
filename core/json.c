#include "core/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct reader {
    nibl_json *json;
    const char *name; /* for messages */
    const char *text;
    uint32_t at, length;
} reader;

static nibl_status bad(const reader *r, const char *what) {
    return nibl_fail(NIBL_E_FILE, "%s: byte %u: %s", r->name, (unsigned)r->at, what);
}

static int peek(const reader *r) { return r->at < r->length ? (uint8_t)r->text[r->at] : -1; }

static void skip_space(reader *r) {
    while (r->at < r->length && (r->text[r->at] == ' ' || (r->text[r->at] >= '\t' && r->text[r->at] <= '\r' &&
                                                           r->text[r->at] != '\v' && r->text[r->at] != '\f')))
        r->at++;
}

static nibl_status add_node(reader *r, nibl_json_kind kind, uint32_t *index) {
    nibl_json *json = r->json;
    void *grown = json->nodes;
    NIBL_TRY(nibl_reserve(&grown, &json->capacity, (size_t)json->count + 1, sizeof *json->nodes, "JSON"));
    json->nodes = grown;
    *index = json->count++;
    json->nodes[*index] = (nibl_json_node){.at = r->at, .next = *index + 1, .kind = (uint8_t)kind};
    return NIBL_OK;
}

/* ---- Strings ---- */

static int hex(char c) {
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The four hexadecimal digits at `text`; -1 where they are none. */
static int32_t hex4(const char *text, uint32_t length) {
    int32_t code = 0;
    if (length < 4) return -1;
    for (int i = 0; i < 4; i++) {
        if (hex(text[i]) < 0) return -1;
        code = code * 16 + hex(text[i]);
    }
    return code;
}

/* Length of the well-formed UTF-8 sequence at `s` (Unicode 15, table 3-7); 0 where there is none. */
static uint32_t utf8_length(const uint8_t *s, uint32_t length) {
    const uint8_t lead = s[0];
    const uint32_t wanted = lead < 0x80 ? 1 : lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (wanted == 1) return 1;
    if (lead < 0xC2 || lead > 0xF4 || wanted > length) return 0;
    const uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (s[1] < low || s[1] > high) return 0;
    for (uint32_t i = 2; i < wanted; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return wanted;
}

static nibl_status read_escape(reader *r) {
    r->at++;
    const int c = peek(r);
    if (c == 'u') {
        if (hex4(r->text + r->at + 1, r->length - r->at - 1) < 0) return bad(r, "\\u without four digits");
        r->at += 5;
        return NIBL_OK;
    }
    if (c <= 0 || !strchr("\"\\/bfnrt", c)) return bad(r, "an escape that JSON does not have");
    r->at++;
    return NIBL_OK;
}

static nibl_status read_string(reader *r) {
    uint32_t index;
    r->at++;
    NIBL_TRY(add_node(r, NIBL_JSON_STRING, &index));
    const uint32_t start = r->at;
    bool escaped = false;
    while (peek(r) != '"') {
        const int c = peek(r);
        if (c < 0) return bad(r, "the text ends within a string");
        if (c < 0x20) return bad(r, "a control character within a string");
        if (c == '\\') {
            escaped = true;
            NIBL_TRY(read_escape(r));
            continue;
        }
        const uint32_t width = utf8_length((const uint8_t *)r->text + r->at, r->length - r->at);
        if (width == 0) return bad(r, "bytes that are not UTF-8");
        r->at += width;
    }
    r->json->nodes[index].length = r->at - start;
    r->json->nodes[index].escaped = escaped;
    r->at++;
    return NIBL_OK;
}

/* One UTF-16 unit or pair of them at `s`, behind its "\u"; advances. */
static uint32_t read_code(const char **s, const char *end) {
    uint32_t code = (uint32_t)hex4(*s, 4);
    *s += 4;
    if (code < 0xD800 || code > 0xDFFF) return code;
    const bool pair = code < 0xDC00 && end - *s >= 6 && (*s)[0] == '\\' && (*s)[1] == 'u';
    const int32_t low = pair ? hex4(*s + 2, 4) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return 0xFFFD;
    *s += 6;
    return 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
}

static void write_code(nibl_writer *out, uint32_t code) {
    char bytes[4];
    size_t length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = length - 1; i > 0; i--, code >>= 6) bytes[i] = (char)(0x80 | (code & 0x3F));
    bytes[0] = (char)(leads[length] | code);
    nibl_write(out, bytes, length);
}

void nibl_json_write_string(const nibl_json *json, uint32_t node, nibl_writer *out) {
    if (!nibl_json_is(json, node, NIBL_JSON_STRING)) return;
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *s = json->text + json->nodes[node].at, *end = s + json->nodes[node].length;
    while (s < end) {
        const char *backslash = memchr(s, '\\', (size_t)(end - s));
        const char *stop = backslash ? backslash : end;
        if (stop > s) nibl_write(out, s, (size_t)(stop - s));
        s = stop;
        if (s == end) return;
        if (s[1] == 'u') {
            s += 2;
            write_code(out, read_code(&s, end));
            continue;
        }
        nibl_write(out, &values[strchr(names, s[1]) - names], 1);
        s += 2;
    }
}

/* ---- Other values ---- */

static uint32_t read_digits(reader *r) {
    const uint32_t start = r->at;
    while (peek(r) >= '0' && peek(r) <= '9') r->at++;
    return r->at - start;
}

static nibl_status read_number(reader *r) {
    uint32_t index;
    NIBL_TRY(add_node(r, NIBL_JSON_NUMBER, &index));
    const uint32_t start = r->at;
    if (peek(r) == '-') r->at++;
    const bool zero = peek(r) == '0';
    const uint32_t digits = read_digits(r);
    if (digits == 0 || (zero && digits > 1)) return bad(r, "a value that JSON does not have");
    if (peek(r) == '.') {
        r->at++;
        if (read_digits(r) == 0) return bad(r, "a number without digits behind its point");
    }
    if (peek(r) == 'e' || peek(r) == 'E') {
        r->at++;
        if (peek(r) == '+' || peek(r) == '-') r->at++;
        if (read_digits(r) == 0) return bad(r, "a number without digits in its exponent");
    }
    r->json->nodes[index].length = r->at - start;
    return NIBL_OK;
}

static nibl_status read_value(reader *r, uint32_t depth);

static nibl_status read_members(reader *r, bool object, uint32_t depth) {
    const int close = object ? '}' : ']';
    r->at++;
    skip_space(r);
    for (bool first = true; peek(r) != close; first = false) {
        if (!first) {
            if (peek(r) != ',') return bad(r, object ? "',' or '}' is missing" : "',' or ']' is missing");
            r->at++;
            skip_space(r);
        }
        if (object) {
            if (peek(r) != '"') return bad(r, "a key in quotes is missing");
            NIBL_TRY(read_string(r));
            skip_space(r);
            if (peek(r) != ':') return bad(r, "':' is missing");
            r->at++;
        }
        NIBL_TRY(read_value(r, depth));
        skip_space(r);
    }
    r->at++;
    return NIBL_OK;
}

static nibl_status read_word(reader *r) {
    static const char *const words[] = {"null", "false", "true"}; /* in the order of their kinds */
    for (uint32_t kind = NIBL_JSON_NULL; kind <= NIBL_JSON_TRUE; kind++) {
        const uint32_t length = (uint32_t)strlen(words[kind]);
        if (r->length - r->at < length || memcmp(r->text + r->at, words[kind], length) != 0) continue;
        uint32_t index;
        NIBL_TRY(add_node(r, (nibl_json_kind)kind, &index));
        r->json->nodes[index].length = length;
        r->at += length;
        return NIBL_OK;
    }
    return read_number(r);
}

static nibl_status read_value(reader *r, uint32_t depth) {
    skip_space(r);
    const int c = peek(r);
    if (c < 0) return bad(r, "the text ends where a value is missing");
    if (c == '"') return read_string(r);
    if (c != '{' && c != '[') return read_word(r);
    if (depth == NIBL_JSON_MAX_DEPTH) return bad(r, "nested deeper than 64 levels");
    uint32_t index;
    NIBL_TRY(add_node(r, c == '{' ? NIBL_JSON_OBJECT : NIBL_JSON_ARRAY, &index));
    NIBL_TRY(read_members(r, c == '{', depth + 1));
    nibl_json_node *node = &r->json->nodes[index];
    node->length = r->at - node->at;
    node->next = r->json->count;
    return NIBL_OK;
}

nibl_status nibl_json_parse(const char *name, const char *text, size_t length, nibl_json *out) {
    if (length > NIBL_JSON_MAX_BYTES)
        return nibl_fail(NIBL_E_FILE, "%s: %zu bytes of JSON (limit %u)", name, length, NIBL_JSON_MAX_BYTES);
    nibl_json json = {.text = text};
    reader r = {.json = &json, .name = name, .text = text, .length = (uint32_t)length};
    uint32_t none;
    nibl_status status = add_node(&r, NIBL_JSON_NULL, &none);
    if (status == NIBL_OK) status = read_value(&r, 0);
    skip_space(&r);
    if (status == NIBL_OK && r.at < r.length) status = bad(&r, "something follows the end of the document");
    if (status < 0)
        nibl_json_free(&json);
    else
        *out = json;
    return status;
}

void nibl_json_free(nibl_json *json) {
    nibl_free(json->nodes);
    *json = (nibl_json){0};
}

/* ---- Reading ---- */

bool nibl_json_is(const nibl_json *json, uint32_t node, nibl_json_kind kind) {
    return node > 0 && node < json->count && json->nodes[node].kind == kind;
}

bool nibl_json_equals(const nibl_json *json, uint32_t node, const char *string) {
    if (!nibl_json_is(json, node, NIBL_JSON_STRING)) return false;
    const nibl_json_node *n = &json->nodes[node];
    return n->length == strlen(string) && memcmp(json->text + n->at, string, n->length) == 0;
}

bool nibl_json_each(const nibl_json *json, uint32_t container, uint32_t *child) {
    const bool object = nibl_json_is(json, container, NIBL_JSON_OBJECT);
    if (!object && !nibl_json_is(json, container, NIBL_JSON_ARRAY)) return false;
    const uint32_t next = *child == 0 ? container + 1 : json->nodes[object ? *child + 1 : *child].next;
    *child = next < json->nodes[container].next ? next : 0;
    return *child > 0;
}

uint32_t nibl_json_get(const nibl_json *json, uint32_t object, const char *key) {
    if (!nibl_json_is(json, object, NIBL_JSON_OBJECT)) return 0;
    for (uint32_t i = 0; nibl_json_each(json, object, &i);)
        if (nibl_json_equals(json, i, key)) return i + 1;
    return 0;
}

bool nibl_json_u64(const nibl_json *json, uint32_t node, uint64_t *out) {
    if (!nibl_json_is(json, node, NIBL_JSON_NUMBER)) return false;
    uint64_t value = 0;
    const char *digits = json->text + json->nodes[node].at;
    for (uint32_t i = 0; i < json->nodes[node].length; i++) {
        if (digits[i] < '0' || digits[i] > '9' || !nibl_mul_u64(value, 10, &value) ||
            !nibl_add_u64(value, (uint64_t)(digits[i] - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

/* By hand, for strtod depends on the locale: the digits as an integer, times a power of ten; to a few units in the last
 * place of a double. */
bool nibl_json_f64(const nibl_json *json, uint32_t node, double *out) {
    if (!nibl_json_is(json, node, NIBL_JSON_NUMBER)) return false;
    const char *s = json->text + json->nodes[node].at, *end = s + json->nodes[node].length;
    const bool negative = *s == '-';
    double value = 0;
    int exponent = 0, given = 0;
    bool fraction = false;
    for (s += negative; s < end && (*s | 32) != 'e'; s++) {
        if (*s == '.') {
            fraction = true;
            continue;
        }
        if (value < 9e15)
            value = value * 10 + (*s - '0');
        else
            exponent++;
        exponent -= fraction;
    }
    if (s < end) {
        const bool minus = *++s == '-';
        for (s += minus || *s == '+'; s < end && given < 10000; s++) given = given * 10 + (*s - '0');
        exponent += minus ? -given : given;
    }
    double power = 1;
    for (int i = exponent < 0 ? -exponent : exponent; i > 0 && power < 1e300; i--) power *= 10;
    value = exponent < 0 ? value / power : value * power;
    if (!isfinite(value)) return false;
    *out = negative ? -value : value;
    return true;
}

nibl_slice nibl_json_text(const nibl_json *json, uint32_t node) {
    if (!nibl_json_is(json, node, NIBL_JSON_STRING)) return (nibl_slice){"", 0};
    return (nibl_slice){json->text + json->nodes[node].at, json->nodes[node].length};
}

bool nibl_json_bool(const nibl_json *json, uint32_t node, bool *out) {
    const bool yes = nibl_json_is(json, node, NIBL_JSON_TRUE);
    if (!yes && !nibl_json_is(json, node, NIBL_JSON_FALSE)) return false;
    *out = yes;
    return true;
}

#include "core/cli/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 30 };

/* ---- Writing ---- */

/* Length of the well-formed UTF-8 sequence that begins at `bytes`, 0 where there is none (Unicode 15, table 3-7). */
static size_t utf8_sequence(const unsigned char *bytes, size_t length) {
    unsigned char lead = bytes[0];
    if (lead < 0x80) return 1;
    size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
    if (lead < 0xC2 || lead > 0xF4 || wanted > length) return 0;
    unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (bytes[1] < low || bytes[1] > high) return 0;
    for (size_t i = 2; i < wanted; i++)
        if ((bytes[i] & 0xC0) != 0x80) return 0;
    return wanted;
}

static void put_quoted(FILE *out, const char *text, size_t length) {
    const unsigned char *bytes = (const unsigned char *)text;
    fputc('"', out);
    for (size_t i = 0; i < length;) {
        size_t sequence = utf8_sequence(bytes + i, length - i);
        if (sequence == 0) {
            fputs("\\ufffd", out);
            i++;
            continue;
        }
        if (bytes[i] == '"' || bytes[i] == '\\') fputc('\\', out);
        if (bytes[i] < 0x20 || bytes[i] == 0x7F)
            fprintf(out, "\\u%04x", (unsigned)bytes[i]);
        else
            fwrite(bytes + i, 1, sequence, out);
        i += sequence;
    }
    fputc('"', out);
}

static void begin_value(nibl_cli_json *json, const char *key) {
    uint32_t bit = (uint32_t)1 << json->depth;
    if (json->filled & bit) fputs(", ", json->out);
    json->filled |= bit;
    if (!key) return;
    put_quoted(json->out, key, strlen(key));
    fputs(": ", json->out);
}

void nibl_cli_json_open(nibl_cli_json *json, const char *key, char bracket) {
    begin_value(json, key);
    fputc(bracket, json->out);
    json->depth++;
    json->filled &= ~((uint32_t)1 << json->depth);
}

void nibl_cli_json_close(nibl_cli_json *json, char bracket) {
    fputc(bracket, json->out);
    if (--json->depth > 0) return;
    fputc('\n', json->out);
    json->filled = 0;
}

void nibl_cli_json_bytes(nibl_cli_json *json, const char *key, const char *bytes, size_t length) {
    begin_value(json, key);
    put_quoted(json->out, bytes, length);
}

void nibl_cli_json_string(nibl_cli_json *json, const char *key, const char *text) {
    nibl_cli_json_bytes(json, key, text, strlen(text));
}

void nibl_cli_json_integer(nibl_cli_json *json, const char *key, uint64_t value) {
    begin_value(json, key);
    fprintf(json->out, "%" PRIu64, value);
}

void nibl_cli_json_real(nibl_cli_json *json, const char *key, double value) {
    begin_value(json, key);
    if (isfinite(value))
        fprintf(json->out, "%.9g", value);
    else
        fputs("null", json->out);
}

void nibl_cli_json_boolean(nibl_cli_json *json, const char *key, bool value) {
    begin_value(json, key);
    fputs(value ? "true" : "false", json->out);
}

void nibl_cli_json_hash(nibl_cli_json *json, const char *key, uint64_t value) {
    begin_value(json, key);
    fprintf(json->out, "\"%016" PRIx64 "\"", value);
}

void nibl_cli_json_raw(nibl_cli_json *json, const char *key, const char *document) {
    begin_value(json, key);
    fputs(document, json->out);
}

/* ---- Reading ---- */

typedef struct reader {
    const char *at;
    nibl_cli_document *document;
} reader;

static void skip_space(reader *r) { r->at += strspn(r->at, " \t\r\n"); }

static nibl_cli_node *add_node(reader *r, char kind) {
    nibl_cli_document *d = r->document;
    if (d->count == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 256;
        if (capacity > SIZE_MAX / sizeof *d->nodes) return NULL;
        nibl_cli_node *nodes = realloc(d->nodes, capacity * sizeof *nodes);
        if (!nodes) return NULL;
        d->nodes = nodes;
        d->capacity = capacity;
    }
    nibl_cli_node *node = &d->nodes[d->count++];
    *node = (nibl_cli_node){.bytes = r->at, .kind = kind, .next = d->count};
    return node;
}

static bool read_string(reader *r) {
    r->at++;
    nibl_cli_node *node = add_node(r, '"');
    if (!node) return false;
    while (*r->at != '"') {
        if (*r->at == '\\') r->at++;
        if (*r->at == '\0') return false;
        r->at++;
    }
    node->length = (size_t)(r->at - node->bytes);
    r->at++;
    return true;
}

static bool read_value(reader *r, unsigned depth);

static bool read_container(reader *r, unsigned depth) {
    char open = *r->at, close = open == '{' ? '}' : ']';
    size_t index = r->document->count;
    const char *start = r->at;
    if (depth == MAX_DEPTH || !add_node(r, open)) return false;
    r->at++;
    skip_space(r);
    for (bool first = true; *r->at != close; first = false) {
        if (!first && *r->at++ != ',') return false;
        skip_space(r);
        if (open == '{') {
            if (*r->at != '"' || !read_string(r)) return false;
            skip_space(r);
            if (*r->at++ != ':') return false;
        }
        if (!read_value(r, depth + 1)) return false;
        skip_space(r);
    }
    r->at++;
    nibl_cli_node *node = &r->document->nodes[index];
    node->length = (size_t)(r->at - start);
    node->next = r->document->count;
    return true;
}

static bool read_value(reader *r, unsigned depth) {
    skip_space(r);
    if (*r->at == '{' || *r->at == '[') return read_container(r, depth);
    if (*r->at == '"') return read_string(r);
    nibl_cli_node *node = add_node(r, '0');
    if (!node) return false;
    node->length = strcspn(r->at, ",]} \t\r\n");
    r->at += node->length;
    return node->length > 0;
}

bool nibl_cli_document_parse(const char *text, nibl_cli_document *out) {
    reader r = {.at = text, .document = out};
    if (!read_value(&r, 0)) return false;
    skip_space(&r);
    return *r.at == '\0';
}

void nibl_cli_document_free(nibl_cli_document *document) {
    free(document->nodes);
    *document = (nibl_cli_document){0};
}

size_t nibl_cli_document_member(const nibl_cli_document *document, size_t object, const char *key) {
    const nibl_cli_node *nodes = document->nodes;
    if (nodes[object].kind != '{') return 0;
    size_t length = strlen(key);
    for (size_t i = object + 1; i < nodes[object].next; i = nodes[i + 1].next)
        if (nodes[i].length == length && memcmp(nodes[i].bytes, key, length) == 0) return i + 1;
    return 0;
}

/* Four hexadecimal digits at `at`; UINT32_MAX where they are none. */
static uint32_t hex_digits(const char *at, const char *end) {
    uint32_t value = 0;
    if (end - at < 4) return UINT32_MAX;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, at[i] | 0x20);
        if (!digit || at[i] == '\0') return UINT32_MAX;
        value = value << 4 | (uint32_t)(digit - digits);
    }
    return value;
}

static size_t put_utf8(uint32_t code, char *out) {
    if (code < 0x80) return out[0] = (char)code, 1;
    const size_t length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = length; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00u >> length & 0xF0u) | code);
    return length;
}

/* The character of an escape behind its backslash; 0 where it is none. */
static uint32_t read_escape(const char **at, const char *end) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = *at < end && **at ? strchr(names, **at) : NULL;
    if (name) return ++*at, (uint32_t)values[name - names];
    if (*at == end || **at != 'u') return 0;
    uint32_t code = hex_digits(*at + 1, end);
    *at += 5;
    if (code == UINT32_MAX || (code >= 0xDC00 && code < 0xE000)) return 0;
    if (code < 0xD800 || code > 0xDFFF) return code;
    if (end - *at < 6 || (*at)[0] != '\\' || (*at)[1] != 'u') return 0;
    const uint32_t low = hex_digits(*at + 2, end);
    *at += 6;
    return low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : 0;
}

bool nibl_cli_document_text(const nibl_cli_document *document, size_t index, nibl_cli_text *out) {
    const nibl_cli_node *node = &document->nodes[index];
    if (index == 0 || node->kind != '"' || !nibl_cli_text_reserve(out, out->length + node->length))
        return false;
    const char *at = node->bytes, *end = at + node->length;
    while (at < end) {
        uint32_t code = (unsigned char)*at++;
        if (code != '\\') {
            out->bytes[out->length++] = (char)code;
            continue;
        }
        if ((code = read_escape(&at, end)) == 0) return false;
        out->length += put_utf8(code, out->bytes + out->length);
    }
    out->bytes[out->length] = '\0';
    return true;
}

uint64_t nibl_cli_document_integer(const nibl_cli_document *document, size_t index) {
    const nibl_cli_node *node = &document->nodes[index];
    return index != 0 && node->kind == '0' ? strtoull(node->bytes, NULL, 10) : 0;
}

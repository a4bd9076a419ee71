/* JSON (RFC 8259) in one complete buffer: parsed into a flat list of nodes, strict, bounded in depth, pure. */
#ifndef NIBL_JSON_H
#define NIBL_JSON_H

#include "core/base.h"

#define NIBL_JSON_MAX_BYTES (256u << 20)
#define NIBL_JSON_MAX_DEPTH 64

typedef enum nibl_json_kind {
    NIBL_JSON_NULL,
    NIBL_JSON_FALSE,
    NIBL_JSON_TRUE,
    NIBL_JSON_NUMBER,
    NIBL_JSON_STRING,
    NIBL_JSON_ARRAY,
    NIBL_JSON_OBJECT
} nibl_json_kind;

/* A value, in order of appearance; what it contains follows it, up to `next`. The children of an object are its keys and
 * values in turn. */
typedef struct nibl_json_node {
    uint32_t at, length; /* of its text; of a string: between the quotes, escapes as written */
    uint32_t next; /* index of the first node behind it and its contents */
    uint8_t kind;
    bool escaped; /* the string has a backslash */
} nibl_json_node;

typedef struct nibl_json {
    const char *text; /* the caller's; must outlive the document */
    nibl_json_node *nodes; /* [0] stands for none, [NIBL_JSON_ROOT] is the whole document */
    uint32_t count;
    size_t capacity;
} nibl_json;

/* NIBL_E_FILE tells where and what; `name` (of the file) begins every message. Free after success only. Strings are
 * checked: escapes, UTF-8, no raw control characters. Keys that stand twice are not looked for: the first one counts. */
nibl_status nibl_json_parse(const char *name, const char *text, size_t length, nibl_json *out);
void nibl_json_free(nibl_json *json);

/* ---- Reading. A node is its index; 0 means "none", and every function takes it so. A document that is all zero has no
 * nodes: everything in it is none. ---- */

#define NIBL_JSON_ROOT 1

/* The value of `key` in an object; 0 where there is none, or `object` is no object. */
uint32_t nibl_json_get(const nibl_json *json, uint32_t object, const char *key);

/* Steps through the children of a container: for (uint32_t i = 0; nibl_json_each(json, container, &i);). Of an object
 * they are keys; the value of key i is i + 1. False, and *child 0, at the end. */
bool nibl_json_each(const nibl_json *json, uint32_t container, uint32_t *child);

bool nibl_json_is(const nibl_json *json, uint32_t node, nibl_json_kind kind); /* false for 0 */
bool nibl_json_equals(const nibl_json *json, uint32_t node,
                      const char *string); /* a string without escapes */

/* False, and *out untouched, where the node is of another kind or its value does not fit. */
bool nibl_json_u64(const nibl_json *json, uint32_t node, uint64_t *out); /* digits only */
bool nibl_json_f64(const nibl_json *json, uint32_t node, double *out);
bool nibl_json_bool(const nibl_json *json, uint32_t node, bool *out);

/* A string without its quotes, escapes as written; empty where the node is another. */
nibl_slice nibl_json_text(const nibl_json *json, uint32_t node);

/* The decoded string, counted like nibl_write. */
void nibl_json_write_string(const nibl_json *json, uint32_t node, nibl_writer *out);

#endif

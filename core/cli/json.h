/* JSON as the command writes it, and a flat view of a document. */
#ifndef NIBL_CLI_JSON_H
#define NIBL_CLI_JSON_H

#include "core/cli/cli.h"

#include <stdio.h>

/* ---- Writing: one value after the other; `key` is NULL inside an array and at the top ---- */

typedef struct nibl_cli_json {
    FILE *out;
    uint32_t filled; /* bit d: a comma is due at depth d */
    uint32_t depth;
} nibl_cli_json;

void nibl_cli_json_open(nibl_cli_json *json, const char *key, char bracket); /* '{' or '[' */
void nibl_cli_json_close(nibl_cli_json *json, char bracket); /* at the top a line feed follows */
void nibl_cli_json_bytes(nibl_cli_json *json, const char *key, const char *bytes, size_t length);
void nibl_cli_json_string(nibl_cli_json *json, const char *key, const char *text);
void nibl_cli_json_integer(nibl_cli_json *json, const char *key, uint64_t value);
void nibl_cli_json_real(nibl_cli_json *json, const char *key,
                        double value); /* 9 digits; null if not finite */
void nibl_cli_json_boolean(nibl_cli_json *json, const char *key, bool value);
void nibl_cli_json_hash(nibl_cli_json *json, const char *key, uint64_t value); /* "0123456789abcdef" */
void nibl_cli_json_raw(nibl_cli_json *json, const char *key, const char *document);

/* ---- Reading ---- */

/* A value of a document, in order of appearance; the nodes below it follow it, up to `next`. The children of an object
 * are its keys and values in turn. */
typedef struct nibl_cli_node {
    const char *bytes; /* strings: between the quotes, escapes as written */
    size_t length;
    size_t next; /* index of the first node behind this one's subtree */
    char kind; /* '{', '[', '"', or '0' for numbers and literals */
} nibl_cli_node;

typedef struct nibl_cli_document {
    nibl_cli_node *nodes;
    size_t count, capacity;
} nibl_cli_document;

/* False when it is no JSON or memory is short. The text must outlive the document. Free in both cases. */
bool nibl_cli_document_parse(const char *text, nibl_cli_document *out);
void nibl_cli_document_free(nibl_cli_document *document);
/* Index of the value of `key` in the object at `object`; 0 when there is none. */
size_t nibl_cli_document_member(const nibl_cli_document *document, size_t object, const char *key);
/* Appends a string, its escapes resolved; false where it is none, or has an escape or a NUL that cannot be. */
bool nibl_cli_document_text(const nibl_cli_document *document, size_t index, nibl_cli_text *out);
uint64_t nibl_cli_document_integer(const nibl_cli_document *document, size_t index); /* 0 if it is none */

#endif

/* JSON Schema to rules of a grammar: schema.c takes schemas apart and puts them together, schema_values.c writes the rules of
 * their values. What a value must be valid for is a set of parts: schemas of the document, without what they refer to. */
#ifndef NIBL_SCHEMA_H
#define NIBL_SCHEMA_H

#include "core/schema_parts.h"

#include <math.h>
#include <string.h>

enum {
    NIBL_SCHEMA_MAX_MEMBERS = 1024, /* properties, items, alternatives */
    NIBL_SCHEMA_MAX_PARTS = 64,
    NIBL_SCHEMA_MAX_NODES = 1 << 16
};

/* Flags of a part, below its node. */
enum {
    NIBL_PART_ANY_CHOSEN = 1, /* an alternative of its anyOf is a part beside it */
    NIBL_PART_ONE_CHOSEN = 2, /* of its oneOf */
    NIBL_PART_KEY = 4, /* only strings */
    NIBL_PART_OWNER = 8, /* all other parts are its own: it knows what they evaluate */
    NIBL_PART_SHIFT = 4
};

/* In order, none twice. No parts: any value. */
typedef struct nibl_schema_set {
    uint32_t parts[NIBL_SCHEMA_MAX_PARTS];
    uint32_t count;
    bool never; /* one part was false */
} nibl_schema_set;

typedef struct nibl_schema_rule nibl_schema_rule;

typedef struct nibl_schema_compiler {
    nibl_rules *rules;
    nibl_json json;
    nibl_schema_rule *sets; /* of which there are rules; those behind `compiled` are still empty */
    uint32_t *parts; /* of all sets */
    uint32_t *heads; /* (json.count): the first set of a hash */
    size_t set_count, set_capacity, part_count, part_capacity, compiled;
    uint32_t space, character, value; /* rules; 0 = not needed yet */
} nibl_schema_compiler;

/* What a keyword is about: nothing (notes), how schemas combine, or values of a type. */
enum {
    NIBL_ABOUT_COMBINING = 1,
    NIBL_ABOUT_VALUES = 2,
    NIBL_ABOUT_TYPE = 4,
    NIBL_ABOUT_OBJECTS = 8,
    NIBL_ABOUT_ARRAYS = 16,
    NIBL_ABOUT_STRINGS = 32,
    NIBL_ABOUT_NUMBERS = 64
};

typedef nibl_schema_compiler compiler;
typedef nibl_schema_set set;

/* Sets the error, with the path of the node, which may be a key. */
void nibl_schema_fail(compiler *c, uint32_t node, const char *what);

/* Of all keywords of a schema; fails where one is not supported. */
uint32_t nibl_schema_about(compiler *c, uint32_t schema);

/* A schema and all that it refers to join the set. NIBL_PART_OWNER: it is the first, and will stay the only one. */
void nibl_schema_join(compiler *c, set *s, uint32_t schema, uint32_t flags);

/* A value that is valid for all of the set, which has parts or is `never`. */
void nibl_schema_put(compiler *c, nibl_sequence *s, const set *what);

/* ---- schema_values.c ---- */

/* The alternatives of a set whose combinations are all chosen. */
void nibl_schema_add_values(compiler *c, uint32_t rule, const set *of);

/* A value of any set. */
void nibl_schema_put_value(compiler *c, nibl_sequence *s, const set *what);

/* A value of the document as it is written there. */
void nibl_schema_put_literal(compiler *c, nibl_sequence *s, uint32_t node);
void nibl_schema_put_pattern(compiler *c, nibl_sequence *s, uint32_t node);
void nibl_schema_put_separator(compiler *c, nibl_sequence *s, const char *sign);

/* Rules: from min to max of what `one` is, with commas; of members (key 0: any string); nothing, or that. */
uint32_t nibl_schema_list(compiler *c, nibl_sequence one, uint32_t min, uint32_t max);
uint32_t nibl_schema_pairs(compiler *c, uint32_t key, const set *value, uint32_t min, uint32_t max);
uint32_t nibl_schema_optional(compiler *c, nibl_sequence s);

/* Whether a value of the document is valid for all of a set. */
nibl_verdict nibl_schema_holds(compiler *c, const set *s, uint32_t value);

/* ---- schema_members.c: false where no value is valid ---- */

bool nibl_schema_put_array(compiler *c, nibl_sequence *s, const set *of);
bool nibl_schema_put_object(compiler *c, nibl_sequence *s, const set *of);

/* ---- Asking the document ---- */

static inline bool stopped(const compiler *c) { return c->rules->status < 0; }

static inline void fail(compiler *c, uint32_t node, const char *what) { nibl_schema_fail(c, node, what); }

static inline uint32_t get(const compiler *c, uint32_t node, const char *key) {
    return nibl_json_get(&c->json, node, key);
}

static inline bool is(const compiler *c, uint32_t node, nibl_json_kind kind) {
    return nibl_json_is(&c->json, node, kind);
}

/* A keyword that must be of a kind; 0 where it is not there. */
static inline uint32_t get_kind(compiler *c, uint32_t node, const char *key, nibl_json_kind kind) {
    const uint32_t value = get(c, node, key);
    if (value && !is(c, value, kind)) fail(c, value, "the value is of the wrong type");
    return value;
}

static inline uint32_t get_count(compiler *c, uint32_t node, const char *key, uint32_t fallback) {
    const uint32_t value = get(c, node, key);
    double number;
    if (!value) return fallback;
    if (!nibl_json_f64(&c->json, value, &number) || !(number >= 0) || number != floor(number))
        fail(c, value, "it must be a whole number, not negative");
    else if (number > (double)NIBL_GRAMMAR_MAX_REPEAT)
        return fallback == NIBL_GRAMMAR_MANY ? fallback : NIBL_GRAMMAR_MAX_REPEAT + 1;
    else
        return (uint32_t)number;
    return fallback;
}

static inline uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }
static inline uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The i-th schema of a set. */
static inline uint32_t schema_of(const set *s, uint32_t i) { return s->parts[i] >> NIBL_PART_SHIFT; }

/* The most of a minimum, the least of a maximum, over all schemas. */
static inline void read_limits(compiler *c, const set *s, const char *least, const char *most, uint32_t *min,
                               uint32_t *max) {
    *min = 0;
    *max = NIBL_GRAMMAR_MANY;
    for (uint32_t i = 0; i < s->count; i++) {
        *min = larger(*min, get_count(c, schema_of(s, i), least, 0));
        *max = smaller(*max, get_count(c, schema_of(s, i), most, NIBL_GRAMMAR_MANY));
    }
}

static inline void put(compiler *c, nibl_sequence *s, const char *text) {
    nibl_put_text(c->rules, s, text, strlen(text));
}

/* No value is valid: an error where one schema says so alone; elsewhere an alternative that is not there. */
static inline bool nothing(compiler *c, const set *s, uint32_t node, const char *what) {
    if (s->count == 1) fail(c, node, what);
    return false;
}

#endif

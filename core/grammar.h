/* A context-free grammar of bytes: rules of alternatives, alternatives of sequences. Made by the readers below (GBNF, JSON
 * Schema), read by matcher.c. Hostile input: what a grammar may hold is bounded, and the first error sticks. */
#ifndef NIBL_GRAMMAR_H
#define NIBL_GRAMMAR_H

#include "core/base.h"

enum {
    NIBL_GRAMMAR_MAX_SOURCE = 1 << 20, /* bytes */
    NIBL_GRAMMAR_MAX_NODES = 1 << 15,
    NIBL_GRAMMAR_MAX_RULES = 1 << 15,
    NIBL_GRAMMAR_MAX_SETS = 1 << 12,
    NIBL_GRAMMAR_MAX_TEXT = 1 << 20, /* bytes of literals */
    NIBL_GRAMMAR_MAX_REPEAT = 1 << 20,
    NIBL_GRAMMAR_MAX_DEPTH = 64, /* of brackets in a source */
    NIBL_CHARS_MAX_RANGES = 256
};
#define NIBL_GRAMMAR_MANY 0xFFFFFFFFu /* no upper bound */

typedef enum nibl_grammar_kind {
    NIBL_GRAMMAR_TEXT, /* these bytes */
    NIBL_GRAMMAR_SET, /* one byte of a set */
    NIBL_GRAMMAR_CALL, /* a rule */
    NIBL_GRAMMAR_REPEAT /* a rule, min to max times */
} nibl_grammar_kind;

typedef struct nibl_grammar_node {
    uint32_t next; /* in its sequence; 0 = none */
    uint32_t what; /* set, rule, or where the text begins */
    uint32_t min, max; /* of a repetition; of a text its length (max) */
    uint8_t kind;
} nibl_grammar_node;

/* A sequence under construction; zero is the empty one. */
typedef struct nibl_sequence {
    uint32_t first, last; /* nodes */
} nibl_sequence;

/* An alternative: `first` node of its sequence (0 = empty), and the next alternative (0 = none). */
typedef struct nibl_grammar_branch {
    uint32_t first, next;
} nibl_grammar_branch;

typedef struct nibl_grammar_rule {
    uint32_t first, last; /* alternatives */
} nibl_grammar_rule;

typedef struct nibl_byte_set {
    uint32_t bits[8];
} nibl_byte_set;

/* Zero-initialise. Index 0 of nodes, branches and rules is none; rule 1 is the root. */
typedef struct nibl_rules {
    nibl_grammar_node *nodes;
    nibl_grammar_branch *branches;
    nibl_grammar_rule *rules;
    nibl_byte_set *sets;
    char *text;
    size_t node_count, branch_count, rule_count, set_count, text_length;
    size_t node_capacity, branch_capacity, rule_capacity, set_capacity, text_capacity;
    nibl_status status; /* the first error; nothing is added after it */
} nibl_rules;

enum { NIBL_GRAMMAR_ROOT = 1 };

void nibl_rules_free(nibl_rules *rules);
/* Sets the error, NIBL_E_GRAMMAR, unless there is one. */
void nibl_rules_fail(nibl_rules *rules, const char *format, ...) NIBL_PRINTF(2, 3);

uint32_t nibl_rule_new(nibl_rules *rules);
void nibl_rule_add(nibl_rules *rules, uint32_t rule, nibl_sequence alternative);
/* A rule of this one alternative. */
uint32_t nibl_rule_of(nibl_rules *rules, nibl_sequence sequence);

/* What these put stands at the end of the sequence. */
void nibl_put_text(nibl_rules *rules, nibl_sequence *sequence, const char *bytes, size_t length);
void nibl_put_byte(nibl_rules *rules, nibl_sequence *sequence, uint8_t low, uint8_t high);
void nibl_put_rule(nibl_rules *rules, nibl_sequence *sequence, uint32_t rule);
void nibl_put_repeat(nibl_rules *rules, nibl_sequence *sequence, uint32_t rule, uint32_t min, uint32_t max);

/* ---- Sets of characters ---- */

typedef struct nibl_chars {
    struct {
        uint32_t low, high;
    } ranges[NIBL_CHARS_MAX_RANGES];
    uint32_t count;
    bool full; /* there were more */
} nibl_chars;

void nibl_chars_add(nibl_chars *chars, uint32_t low, uint32_t high);
void nibl_chars_negate(nibl_chars *chars); /* to all others but surrogates */
bool nibl_chars_have(const nibl_chars *chars, uint32_t code);

/* One character of the set as UTF-8; with `quoted` as it stands within a JSON string. */
void nibl_put_chars(nibl_rules *rules, nibl_sequence *sequence, nibl_chars *chars, bool quoted);

/* ---- What a finished grammar is like; `single`: the bytes that can be written (grammar_measure.c) ---- */

#define NIBL_GRAMMAR_NEVER (1u << 30) /* bytes: there is no end */

static inline uint32_t nibl_add_capped(uint32_t a, uint32_t b) {
    return a + b < NIBL_GRAMMAR_NEVER ? a + b : NIBL_GRAMMAR_NEVER; /* both are at most NEVER */
}

static inline uint32_t nibl_times_capped(uint32_t a, uint32_t b) {
    const uint64_t product = (uint64_t)a * b;
    return product < NIBL_GRAMMAR_NEVER ? (uint32_t)product : NIBL_GRAMMAR_NEVER;
}

/* The least bytes from every node to the end of its sequence (node_count), and of every rule (rule_count).
 * Repetitions of what may be empty lose their minimum. NIBL_E_GRAMMAR where no text has an end. */
nibl_status nibl_grammar_measure(nibl_rules *rules, const bool single[256], uint32_t *least,
                                 uint32_t *rule_least);

/* Classes of bytes that no node tells apart; the class of each byte, and the first byte of each class. */
uint32_t nibl_grammar_classes(const nibl_rules *rules, const bool single[256], uint8_t class_of[256],
                              uint8_t byte_of[256]);

/* ---- Readers: the first rule of `rules` becomes what they read ---- */

/* GBNF as llama.cpp has it: name ::= "text" [a-z] . name ( | ) * + ? {m,n}, # comments; the rule `root` is all. */
void nibl_grammar_read(nibl_rules *rules, const char *text, size_t length);

/* A regular expression of ECMA-262 as far as it is regular and asks for no categories, within a JSON string: unanchored
 * unless ^ and $ say so. `where` begins the message of an error. */
void nibl_grammar_read_pattern(nibl_rules *rules, nibl_sequence *sequence, nibl_slice pattern,
                               const char *where);

/* JSON Schema: schema.c tells what of it. */
void nibl_grammar_read_schema(nibl_rules *rules, const char *text, size_t length);

#endif

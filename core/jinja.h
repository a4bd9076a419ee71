/* The part of Jinja that chat templates reach with a conversation of plain texts: output, set, if, for, namespaces,
 * members, slices, and the filters, tests and methods of jinja_value.c. A template may hold more (tools, images) where
 * the conversation does not lead to it: all of it is parsed, only what is reached is evaluated, and what is reached and
 * not known is an error. Blanks as with trim_blocks and lstrip_blocks. */
#ifndef NIBL_JINJA_H
#define NIBL_JINJA_H

#include "core/gguf.h"

enum {
    NIBL_JINJA_MAX_TEMPLATE = 1 << 20, /* bytes */
    NIBL_JINJA_MAX_DEPTH = 48, /* of blocks and brackets */
    NIBL_JINJA_MAX_ARGUMENTS = 8,
    NIBL_JINJA_MAX_STEPS = 20000000, /* tokens evaluated, and 64 bytes of text handled */
    NIBL_JINJA_MAX_VARIABLES = 256,
    NIBL_JINJA_MAX_MEMORY = 256 << 20 /* bytes of texts and lists made on the way */
};

typedef enum nibl_jinja_mark {
    NIBL_JINJA_END,
    NIBL_JINJA_TEXT,
    NIBL_JINJA_OPEN, /* {% */
    NIBL_JINJA_CLOSE, /* %} */
    NIBL_JINJA_OPEN_OUTPUT, /* {{ */
    NIBL_JINJA_CLOSE_OUTPUT, /* }} */
    NIBL_JINJA_NAME,
    NIBL_JINJA_STRING,
    NIBL_JINJA_NUMBER,
    NIBL_JINJA_SIGN /* an operator or a bracket */
} nibl_jinja_mark;

typedef struct nibl_jinja_token {
    nibl_jinja_mark mark;
    uint32_t at; /* byte of the template */
    nibl_slice text; /* of a string: decoded */
    int64_t number;
} nibl_jinja_token;

typedef enum nibl_jinja_kind {
    NIBL_JINJA_UNDEFINED,
    NIBL_JINJA_NONE,
    NIBL_JINJA_BOOL,
    NIBL_JINJA_INT,
    NIBL_JINJA_TEXT_VALUE,
    NIBL_JINJA_LIST,
    NIBL_JINJA_MESSAGE, /* a mapping of role and content */
    NIBL_JINJA_SPACE, /* a namespace */
    NIBL_JINJA_LOOP,
    NIBL_JINJA_MACRO,
    NIBL_JINJA_CLOCK /* the function strftime_now */
} nibl_jinja_kind;

typedef struct nibl_jinja_value nibl_jinja_value;
typedef struct nibl_jinja_loop nibl_jinja_loop;

struct nibl_jinja_value {
    nibl_jinja_kind kind;
    union {
        int64_t number; /* of an int, a bool or a namespace (its id) */
        nibl_slice text;
        struct {
            const nibl_jinja_value *items;
            size_t count;
        } list;
        const nibl_message *message;
        const nibl_jinja_loop *loop;
        const nibl_moment *now;
    } as;
};

struct nibl_jinja_loop {
    const nibl_jinja_value *items;
    size_t count, index;
};

typedef struct nibl_jinja_variable {
    nibl_slice name;
    int64_t space; /* the namespace it belongs to; 0 = none */
    nibl_jinja_value value;
} nibl_jinja_variable;

typedef struct nibl_jinja_variables {
    nibl_jinja_variable *list;
    size_t count, capacity;
} nibl_jinja_variables;

/* Zero-initialise; the first error sticks, and nothing is evaluated after it. */
typedef struct nibl_jinja {
    nibl_arena arena;
    nibl_jinja_token *tokens;
    size_t count, capacity, at;
    nibl_jinja_variables variables, attributes; /* the latter of namespaces */
    int64_t spaces;
    uint64_t steps;
    uint32_t depth;
    nibl_writer *out;
    nibl_status status;
} nibl_jinja;

typedef struct nibl_jinja_arguments {
    nibl_jinja_value values[NIBL_JINJA_MAX_ARGUMENTS];
    nibl_slice names[NIBL_JINJA_MAX_ARGUMENTS]; /* empty: by position */
    size_t count;
} nibl_jinja_arguments;

/* jinja_tokens.c: fills tokens; the last one is an END. */
void nibl_jinja_tokenize(nibl_jinja *j, const char *text, size_t length);

/* jinja.c: writes the template; before it variables are set. The caller frees in any case. */
nibl_status nibl_jinja_render(nibl_jinja *j, nibl_writer *out);
void nibl_jinja_free(nibl_jinja *j);
void nibl_jinja_set(nibl_jinja *j, nibl_jinja_variables *where, int64_t space, nibl_slice name,
                    nibl_jinja_value value);
/* NIBL_E_UNSUPPORTED: "tokenizer.chat_template, byte N: WHAT 'NAME' ...". Returns nothing useful. */
nibl_jinja_value nibl_jinja_fail(nibl_jinja *j, const char *what, nibl_slice name);

/* jinja_value.c */
nibl_slice nibl_jinja_word(const char *text);
bool nibl_jinja_is(nibl_slice text, const char *word);
nibl_jinja_value nibl_jinja_bool(bool value);
nibl_jinja_value nibl_jinja_int(int64_t value);
nibl_jinja_value nibl_jinja_text(nibl_slice text);
bool nibl_jinja_truth(const nibl_jinja_value *v);
void *nibl_jinja_alloc(nibl_jinja *j, uint64_t bytes); /* NULL: the error is set */
bool nibl_jinja_charge(nibl_jinja *j,
                       uint64_t bytes); /* counts them as steps; false where there were too many */
nibl_jinja_value nibl_jinja_binary(nibl_jinja *j, nibl_slice sign, nibl_jinja_value a, nibl_jinja_value b);
nibl_jinja_value nibl_jinja_member(nibl_jinja *j, nibl_jinja_value object, nibl_jinja_value key);
/* items[from:to:step]; missing ones are UNDEFINED. */
nibl_jinja_value nibl_jinja_part(nibl_jinja *j, nibl_jinja_value list, const nibl_jinja_value bounds[3]);
nibl_jinja_value nibl_jinja_test(nibl_jinja *j, nibl_slice name, nibl_jinja_value v);
nibl_jinja_value nibl_jinja_filter(nibl_jinja *j, nibl_slice name, nibl_jinja_value v,
                                   const nibl_jinja_arguments *arguments);
nibl_jinja_value nibl_jinja_method(nibl_jinja *j, nibl_slice name, nibl_jinja_value v,
                                   const nibl_jinja_arguments *arguments);
nibl_jinja_value nibl_jinja_call(nibl_jinja *j, nibl_slice name, const nibl_jinja_arguments *arguments);
nibl_jinja_value nibl_jinja_date(nibl_jinja *j, const nibl_moment *now,
                                 const nibl_jinja_arguments *arguments);
void nibl_jinja_print(nibl_jinja *j, nibl_jinja_value v);

#endif

/* What schema.c is made of: questions to a schema, and ranges of numbers. */
#ifndef NIBL_SCHEMA_PARTS_H
#define NIBL_SCHEMA_PARTS_H

#include "core/grammar.h"
#include "core/json.h"

/* Sets of types; "number" is integers and fractions. */
enum {
    NIBL_IS_NULL = 1,
    NIBL_IS_BOOLEAN = 2,
    NIBL_IS_INTEGER = 4,
    NIBL_IS_FRACTION = 8,
    NIBL_IS_STRING = 16,
    NIBL_IS_ARRAY = 32,
    NIBL_IS_OBJECT = 64,
    NIBL_IS_ANY = 127
};

/* Of the value of "type", a name or a list of them; `*out` stays where it is none (0). False for a name that is none. */
bool nibl_schema_types(const nibl_json *json, uint32_t type, uint32_t *out);

uint32_t nibl_schema_type_of(const nibl_json *json, uint32_t value);

typedef enum nibl_verdict { NIBL_NO, NIBL_YES, NIBL_UNKNOWN } nibl_verdict;

/* Whether two values are equal; unknown for lists and objects that are written differently. */
nibl_verdict nibl_schema_same(const nibl_json *json, uint32_t a, uint32_t b);

/* Characters of a string. */
uint32_t nibl_schema_length(const nibl_json *json, uint32_t string);

bool nibl_schema_same_string(const nibl_json *json, uint32_t a, uint32_t b);

/* The node that a $ref means; 0 where it is none of this document. */
uint32_t nibl_schema_resolve(const nibl_json *json, uint32_t reference);

/* Whether no value can be valid for both: by their types, constants, or a property that tells them apart. False where that
 * cannot be seen. */
bool nibl_schema_disjoint(const nibl_json *json, uint32_t a, uint32_t b);

/* The rule of a string, quotes included, of printable ASCII, not empty, and none of the names; these are put in order. */
uint32_t nibl_schema_other_key(nibl_rules *rules, nibl_slice *names, uint32_t count);

/* Numbers have at most 15 digits before the point, where fractions are bounded 9, and 6 behind it: exact in a double. */
#define NIBL_NUMBER_LARGEST 999999999999999.0

typedef struct nibl_number_bound {
    double value;
    bool exclusive;
} nibl_number_bound;

typedef struct nibl_number_range {
    nibl_number_bound low, high;
} nibl_number_range;

/* A JSON number of the range (NULL: any), with `whole` an integer. False where none of it can be written so. */
bool nibl_schema_put_number(nibl_rules *rules, nibl_sequence *sequence, const nibl_number_range *range,
                            bool whole);

#endif

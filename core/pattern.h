/* The regular expressions of pre-tokenizers, as far as these go:
 *   a|b  (?i:a|b)  (?:a|b)  x? x* x+ x{n} x{n,m}  [...] [^...]  \s \S \p{L} (also Lu Ll Lt Lm Lo M N P S)
 *   (?!x) for one character x, $ for the end of the text, \r \n \t, \ before any other character
 * Greedy, leftmost, the first of the alternatives, as in Perl. A group ends its alternative. Matching takes time linear
 * in the text: no pattern can be written whose loops nest. */
#ifndef NIBL_PATTERN_H
#define NIBL_PATTERN_H

#include "core/base.h"

enum {
    NIBL_PATTERN_NODES = 96,
    NIBL_PATTERN_RANGES = 192,
    NIBL_PATTERN_BRANCHES = 48,
    NIBL_PATTERN_TOP = 16 /* alternatives of the whole pattern */
};

typedef struct nibl_char_set {
    uint32_t ascii[4];   /* its ASCII characters, all that follows included */
    uint16_t categories; /* bits by nibl_category */
    uint16_t range_first, range_count;
    bool negated;
} nibl_char_set;

typedef struct nibl_pattern_node {
    nibl_char_set set;
    uint8_t kind; /* pattern.c */
    uint8_t branch; /* first of a group */
    uint8_t next; /* in its alternative */
    uint32_t min, max;
} nibl_pattern_node;

typedef struct nibl_pattern {
    nibl_pattern_node nodes[NIBL_PATTERN_NODES];
    struct {
        uint8_t node, next;
    } branches[NIBL_PATTERN_BRANCHES];
    struct {
        uint32_t low, high;
    } ranges[NIBL_PATTERN_RANGES];
    uint16_t node_count, branch_count, range_count;
    uint8_t top; /* the first alternative */
} nibl_pattern;

/* A search through one text. Zero-initialise `dead`: alternative i, which begins with a loop, matches nowhere before
 * dead[i]. */
typedef struct nibl_pattern_search {
    const nibl_pattern *pattern;
    const char *text; /* well-formed UTF-8 */
    size_t length;
    size_t dead[NIBL_PATTERN_TOP];
} nibl_pattern_search;

/* NIBL_E_UNSUPPORTED names the place that is not understood. */
nibl_status nibl_pattern_compile(nibl_pattern *pattern, const char *source, size_t length);

/* The first match at or behind `from`, never an empty one; false where there is none. */
bool nibl_pattern_find(nibl_pattern_search *search, size_t from, size_t *begin, size_t *end);

#endif

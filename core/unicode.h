/* UTF-8 and the character categories that patterns ask for. */
#ifndef NIBL_UNICODE_H
#define NIBL_UNICODE_H

#include "core/base.h"

/* General categories, of which patterns ask for L, M, N, P and S as wholes. */
typedef enum nibl_category {
    NIBL_CATEGORY_OTHER, /* controls, private, not assigned */
    NIBL_CATEGORY_LU,
    NIBL_CATEGORY_LL,
    NIBL_CATEGORY_LT,
    NIBL_CATEGORY_LM,
    NIBL_CATEGORY_LO,
    NIBL_CATEGORY_M,
    NIBL_CATEGORY_N,
    NIBL_CATEGORY_P,
    NIBL_CATEGORY_S,
    NIBL_CATEGORY_SPACE /* property White_Space: Z and a few controls */
} nibl_category;

nibl_category nibl_unicode_category(uint32_t code);

#define NIBL_UTF8_INVALID 0xFFFFFFFFu /* a maximal ill-formed subpart (Unicode 3.9, table 3-8): one U+FFFD */
#define NIBL_UTF8_PARTIAL 0xFFFFFFFEu /* the bytes end inside a sequence that is well-formed so far */

/* Reads one code point, or a value above, from length >= 1 bytes; returns the bytes it takes (>= 1). */
size_t nibl_utf8_step(const char *bytes, size_t length, uint32_t *code);

bool nibl_utf8_valid(const char *text, size_t length);

/* Copies with every ill-formed subpart replaced by U+FFFD, a sequence cut at the end included: what Python's
 * bytes.decode('utf-8', 'replace') gives. Returns the length written, at most 3 * length; `out` NULL: counts.
 * */
size_t nibl_utf8_repair(const char *text, size_t length, char *out);

#endif

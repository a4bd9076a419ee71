/* UTF-8 and the character classes that pre-tokenizers ask for. */
#ifndef NIBL_UNICODE_H
#define NIBL_UNICODE_H

#include "core/base.h"

typedef enum nibl_class {
    NIBL_CLASS_OTHER,
    NIBL_CLASS_LETTER, /* general category L* */
    NIBL_CLASS_NUMBER, /* general category N* */
    NIBL_CLASS_SPACE,  /* property White_Space */
    NIBL_CLASS_NUMERIC /* N* for the digit splitter only: newer than the regex engine's Unicode */
} nibl_class;

nibl_class nibl_unicode_class(uint32_t code);

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

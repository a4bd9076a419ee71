/* GPT-2's alphabet, in which byte-level vocabularies are written: the printable bytes 33..126, 161..172 and
 * 174..255 stand for themselves as code points, the 68 others are U+0100 ... U+0143 in ascending order. */
#ifndef NIBL_ALPHABET_H
#define NIBL_ALPHABET_H

#include "core/unicode.h"

static inline bool nibl_alphabet_printable(uint32_t byte) {
    return (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte != 173);
}

static inline uint32_t nibl_alphabet_code(uint8_t byte) {
    if (nibl_alphabet_printable(byte)) return byte;
    return byte <= 32 ? 256u + byte : byte <= 160 ? 256u + 33 + (byte - 127u) : 323;
}

/* The byte of a code point; false where it is not in the alphabet. */
static inline bool nibl_alphabet_byte(uint32_t code, uint8_t *byte) {
    if (code > 323 || (code < 256 && !nibl_alphabet_printable(code))) return false;
    *byte = (uint8_t)(code < 256 ? code : code < 289 ? code - 256 : code < 323 ? code - 289 + 127 : 173);
    return true;
}

#endif

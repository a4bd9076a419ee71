/* How single bytes are written in vocabularies.
 * GPT-2's alphabet, in which byte-level vocabularies are written: the printable bytes 33..126, 161..172 and
 * 174..255 stand for themselves as code points, the 68 others are U+0100 ... U+0143 in ascending order. */
#ifndef NIBL_ALPHABET_H
#define NIBL_ALPHABET_H

#include "core/gguf.h"
#include "core/unicode.h"

static inline bool nibl_alphabet_printable(uint32_t byte) {
    return (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte != 173);
}

static inline uint32_t nibl_alphabet_code(uint8_t byte) {
    if (nibl_alphabet_printable(byte)) return byte;
    return byte <= 32 ? 256u + byte : byte <= 160 ? 256u + 33 + (byte - 127u) : 323;
}

/* Writes a byte's letter as UTF-8; returns its length, 1 or 2. */
static inline size_t nibl_alphabet_write(uint8_t byte, char *out) {
    uint32_t code = nibl_alphabet_code(byte);
    if (code < 128) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

/* The byte of a code point; false where it is not in the alphabet. */
static inline bool nibl_alphabet_byte(uint32_t code, uint8_t *byte) {
    if (code > 323 || (code < 256 && !nibl_alphabet_printable(code))) return false;
    *byte = (uint8_t)(code < 256 ? code : code < 289 ? code - 256 : code < 323 ? code - 289 + 127 : 173);
    return true;
}

/* The byte that a token named <0x00> to <0xFF> stands for; false where the name is another. */
static inline bool nibl_token_byte(nibl_slice name, uint8_t *byte) {
    uint32_t value = 0;
    if (name.length != 6 || name.bytes[0] != '<' || name.bytes[1] != '0' || name.bytes[2] != 'x' ||
        name.bytes[5] != '>')
        return false;
    for (size_t i = 3; i < 5; i++) {
        uint32_t c = (uint8_t)name.bytes[i];
        if (c - '0' >= 10 && (c | 32) - 'a' >= 6) return false;
        value = value * 16 + (c - '0' < 10 ? c - '0' : (c | 32) - 'a' + 10);
    }
    *byte = (uint8_t)value;
    return true;
}

#endif

#include "core/unicode.h"

#include "core/deltas.h"
#include "core/unicode_tables.h"

#include <string.h>

nibl_category nibl_unicode_category(uint32_t code) {
    return (nibl_category)(code < sizeof nibl_ascii_categories
                               ? nibl_ascii_categories[code]
                               : nibl_delta_run(NIBL_DELTA_FIND(nibl_unicode_runs, code), code, 4));
}

size_t nibl_utf8_step(const char *bytes, size_t length, uint32_t *code) {
    const uint8_t *p = (const uint8_t *)bytes;
    uint32_t lead = p[0];
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    size_t width = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    *code = NIBL_UTF8_INVALID;
    if (lead < 0xC2 || lead > 0xF4) return 1;
    /* The second byte's range also excludes overlong forms, surrogates and what lies beyond U+10FFFF. */
    uint32_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint32_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = lead & (0x7Fu >> width);
    for (size_t i = 1; i < width; i++) {
        if (i == length) {
            *code = NIBL_UTF8_PARTIAL;
            return i;
        }
        if (p[i] < low || p[i] > high) return i;
        low = 0x80;
        high = 0xBF;
        value = value << 6 | (p[i] & 0x3Fu);
    }
    *code = value;
    return width;
}

/* Bytes of plain ASCII at the beginning, counted in words of eight. */
static size_t ascii_prefix(const char *text, size_t length) {
    size_t i = 0;
    for (uint64_t word; i + sizeof word <= length; i += sizeof word) {
        memcpy(&word, text + i, sizeof word);
        if (word & 0x8080808080808080u) break;
    }
    return i;
}

bool nibl_utf8_valid(const char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        i += ascii_prefix(text + i, length - i);
        uint32_t code = 0;
        if (i < length) i += nibl_utf8_step(text + i, length - i, &code);
        if (code >= NIBL_UTF8_PARTIAL) return false;
    }
    return true;
}

size_t nibl_utf8_repair(const char *text, size_t length, char *out) {
    size_t written = 0;
    for (size_t i = 0; i < length;) {
        uint32_t code;
        size_t taken = nibl_utf8_step(text + i, length - i, &code);
        bool bad = code >= NIBL_UTF8_PARTIAL;
        size_t put = bad ? 3 : taken;
        if (out) memcpy(out + written, bad ? "\xEF\xBF\xBD" : text + i, put);
        written += put;
        i += taken;
    }
    return written;
}

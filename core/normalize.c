#include "core/normalize.h"

#include "core/deltas.h"
#include "core/normalize_tables.h"
#include "core/unicode.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum {
    FIRST_MARK = 0x300, /* before it nothing changes */
    HANGUL = 0xAC00,
    HANGUL_END = 0xD7A4,
    LEAD = 0x1100,
    VOWEL = 0x1161,
    TAIL = 0x11A7, /* one before the first */
    LEADS = 19,
    VOWELS = 21,
    TAILS = 28
};

/* A code point with its combining class above it. */
#define CODE(c) ((c) & 0x1FFFFF)
#define CLASS(c) ((c) >> 24)

static uint32_t with_class(uint32_t code) {
    return code | nibl_delta_run(NIBL_DELTA_FIND(nibl_mark_runs, code), code, 8) << 24;
}

/* A code point and its decomposition; code 0: there is none. */
typedef struct row {
    uint32_t code, first, second;
} row;

static row read_row(row last, const uint8_t **p) {
    last.code += nibl_delta_read(p);
    last.first += nibl_delta_signed(p);
    last.second += nibl_delta_signed(p);
    return last;
}

static row row_at(size_t index) {
    const uint32_t *start = nibl_decompositions_starts[index / NIBL_DELTA_EVERY];
    const uint8_t *p = nibl_decompositions + start[1];
    row r = {.code = start[0]};
    for (size_t i = 0; i <= index % NIBL_DELTA_EVERY; i++) r = read_row(r, &p);
    return r;
}

static row row_of(uint32_t code) {
    nibl_delta_block at = NIBL_DELTA_FIND(nibl_decompositions, code);
    row r = {.code = at.code};
    while (at.p < at.stop && (r = read_row(r, &at.p)).code < code) continue;
    return r.code == code ? r : (row){0};
}

/* What two code points compose to; 0 = nothing. */
static uint32_t compose(uint32_t a, uint32_t b) {
    if (a >= LEAD && a < LEAD + LEADS && b >= VOWEL && b < VOWEL + VOWELS)
        return HANGUL + ((a - LEAD) * VOWELS + (b - VOWEL)) * TAILS;
    if (a >= HANGUL && a < HANGUL_END && (a - HANGUL) % TAILS == 0 && b > TAIL && b < TAIL + TAILS)
        return a + b - TAIL;
    const uint64_t wanted = (uint64_t)a << 32 | b;
    size_t low = 0, high = COUNT(nibl_compositions);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const row r = row_at(nibl_compositions[middle]);
        const uint64_t pair = (uint64_t)r.first << 32 | r.second;
        if (pair == wanted) return r.code;
        if (pair < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Whether a text with this code point may be in another form. */
static bool suspicious(uint32_t code) {
    if (code < FIRST_MARK) return false;
    if ((code >= VOWEL && code < VOWEL + VOWELS) || (code > TAIL && code < TAIL + TAILS)) return true;
    if (CLASS(with_class(code))) return true;
    for (size_t i = 0; i < COUNT(nibl_second_parts); i++)
        if (nibl_second_parts[i] == code) return true;
    const row r = row_of(code);
    return r.code && (r.second == 0 || compose(r.first, r.second) != code);
}

static bool is_composed(const char *text, size_t length) {
    for (size_t i = 0; i < length;) {
        uint32_t code = 0;
        if ((uint8_t)text[i] < 0xCC) { /* U+0300 is CC 80 */
            i++;
            continue;
        }
        i += nibl_utf8_step(text + i, length - i, &code);
        if (suspicious(code)) return false;
    }
    return true;
}

/* Appends the full decomposition at codes[count] where `codes` is not NULL; returns the new count. */
static size_t decompose(uint32_t code, uint32_t *codes, size_t count) {
    if (code >= HANGUL && code < HANGUL_END) {
        const uint32_t i = code - HANGUL, tail = i % TAILS;
        if (codes) {
            codes[count] = LEAD + i / (VOWELS * TAILS);
            codes[count + 1] = VOWEL + i % (VOWELS * TAILS) / TAILS;
            if (tail) codes[count + 2] = TAIL + tail;
        }
        return count + 2 + (tail > 0);
    }
    const row r = code < 0xC0 ? (row){0} : row_of(code);
    if (r.code) {
        count = decompose(r.first, codes, count);
        return r.second ? decompose(r.second, codes, count) : count;
    }
    if (codes) codes[count] = with_class(code);
    return count + 1;
}

static size_t decompose_text(const char *text, size_t length, uint32_t *codes) {
    size_t count = 0;
    for (size_t i = 0; i < length;) {
        uint32_t code;
        i += nibl_utf8_step(text + i, length - i, &code);
        count = decompose(code, codes, count);
    }
    return count;
}

/* Marks in a row in the order of their classes, those of one class as they stand; `room` is as long. */
static void order_marks(uint32_t *codes, size_t count, uint32_t *room) {
    for (size_t i = 0; i < count; i++) {
        if (!CLASS(codes[i])) continue;
        size_t end = i, places[256] = {0};
        while (end < count && CLASS(codes[end])) places[CLASS(codes[end++])]++;
        if (end - i < 2) continue;
        for (size_t class = 1, at = 0; class < 256; class ++) {
            const size_t here = places[class];
            places[class] = at;
            at += here;
        }
        for (size_t k = i; k < end; k++) room[places[CLASS(codes[k])]++] = codes[k];
        memcpy(codes + i, room, (end - i) * sizeof *codes);
        i = end;
    }
}

/* Returns the new count. */
static size_t compose_all(uint32_t *codes, size_t count) {
    size_t out = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const uint32_t class = CLASS(codes[i]);
        const bool blocked = starter == SIZE_MAX || (out > starter + 1 && CLASS(codes[out - 1]) >= class);
        const uint32_t composed = blocked ? 0 : compose(CODE(codes[starter]), CODE(codes[i]));
        if (composed) {
            codes[starter] = composed;
            continue;
        }
        if (class == 0) starter = out;
        codes[out++] = codes[i];
    }
    return out;
}

static size_t write_code(uint32_t code, char *out) {
    const size_t width = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = width; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(leads[width] | code);
    return width;
}

nibl_status nibl_nfc(const char *text, size_t length, char **out, size_t *out_length) {
    *out = NULL;
    if (is_composed(text, length)) return NIBL_OK;
    size_t count = decompose_text(text, length, NULL);
    const uint64_t bytes = (uint64_t)count * 2 * sizeof(uint32_t);
    uint32_t *codes = nibl_alloc(bytes);
    if (!codes) return nibl_fail_memory(bytes, "a text's characters");
    decompose_text(text, length, codes);
    order_marks(codes, count, codes + count);
    count = compose_all(codes, count);
    *out = nibl_alloc(4 * (uint64_t)count);
    if (*out) {
        *out_length = 0;
        for (size_t i = 0; i < count; i++) *out_length += write_code(CODE(codes[i]), *out + *out_length);
    }
    nibl_free(codes);
    return *out ? NIBL_OK : nibl_fail_memory(4 * (uint64_t)count, "a text's normal form");
}

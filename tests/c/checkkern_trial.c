#include "tests/c/checkkern.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { AREA = 1 << 20, GUARD = 64, GUARD_BYTE = 0xA5 };

static _Alignas(64) uint8_t areas[2][AREA];
static char problem[256];

static const char *tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *tell(const char *format, ...) {
    va_list list;
    va_start(list, format);
    vsnprintf(problem, sizeof problem, format, list);
    va_end(list);
    return problem;
}

static void *allocate(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes) != 0) {
        printf("cannot allocate %zu bytes\n", bytes);
        exit(1);
    }
    return p;
}

void trial_begin(trial *t, const shape *s, uint64_t seed) {
    *t = (trial){.random = seed, .shape = *s, .used = GUARD, .area = areas[0]};
    memset(areas[0], GUARD_BYTE, GUARD);
}

void trial_end(trial *t) {
    for (size_t i = 0; i < t->input_count; i++) {
        free(t->bases[i]);
        free(t->copies[i]);
    }
}

void *trial_input(trial *t, size_t bytes, size_t shift) {
    const size_t i = t->input_count++;
    t->bases[i] = allocate(shift + bytes);
    t->input_bytes[i] = shift + bytes;
    memset(t->bases[i], 0, shift);
    return t->inputs[i] = t->bases[i] + shift;
}

void *trial_output(trial *t, size_t bytes, size_t shift) {
    const size_t at = (t->used + 63) / 64 * 64 + shift;
    if (at + bytes + GUARD > AREA) {
        printf("the output area is too small for %zu bytes\n", bytes);
        exit(1);
    }
    memset(areas[0] + t->used, GUARD_BYTE, at + bytes + GUARD - t->used);
    t->used = at + bytes + GUARD;
    t->outputs[t->output_count++] = at;
    return areas[0] + at;
}

void trial_writes(trial *t, size_t offset, size_t bytes, content what) {
    if (t->range_count == MAX_RANGES) {
        printf("more than %d ranges\n", MAX_RANGES);
        exit(1);
    }
    t->ranges[t->range_count++] = (range){t->outputs[t->output_count - 1] + offset, bytes, what};
}

static const char *check_guards(const trial *t, const uint8_t *area, const char *who) {
    size_t at = 0;
    for (size_t r = 0; r <= t->range_count; r++) {
        const size_t end = r < t->range_count ? t->ranges[r].offset : t->used;
        for (; at < end; at++)
            if (area[at] != GUARD_BYTE) {
                if (r > 0 && at - t->ranges[r - 1].offset < t->ranges[r - 1].bytes + GUARD)
                    return tell("%s wrote behind output %zu, %zu bytes off", who, r - 1,
                                at - t->ranges[r - 1].offset - t->ranges[r - 1].bytes);
                return tell("%s wrote before output %zu, %zu bytes off", who, r, end - at);
            }
        if (r < t->range_count) at = t->ranges[r].offset + t->ranges[r].bytes;
    }
    return NULL;
}

static const char *compare(const range *r, size_t number) {
    const uint8_t *expected = areas[0] + r->offset, *got = areas[1] + r->offset;
    if (r->content == CONTENT_SCRATCH || memcmp(expected, got, r->bytes) == 0) return NULL;
    if (r->content == CONTENT_BITS) {
        size_t i = 0;
        while (expected[i] == got[i]) i++;
        return tell("first difference in output %zu, byte %zu: 0x%02x, must be 0x%02x", number, i, got[i],
                    expected[i]);
    }
    for (size_t i = 0; i < r->bytes / 4; i++) {
        float a, b;
        memcpy(&a, expected + 4 * i, 4);
        memcpy(&b, got + 4 * i, 4);
        /* a NaN's sign and payload depend on the CPU; a model that makes one is refused anyway */
        if (nibl_float_bits(a) != nibl_float_bits(b) && !(isnan(a) && isnan(b)))
            return tell("first difference in output %zu, float %zu: %.9g (0x%08x), must be %.9g (0x%08x)",
                        number, i, (double)b, (unsigned)nibl_float_bits(b), (double)a,
                        (unsigned)nibl_float_bits(a));
    }
    return NULL;
}

static const char *call(trial *t, const operation *op, void (*function)(void), int area, const char *who) {
    t->area = areas[area];
    op->call(t, function);
    for (size_t i = 0; i < t->input_count; i++)
        if (memcmp(t->bases[i], t->copies[i], t->input_bytes[i]) != 0)
            return tell("%s wrote to input %zu", who, i);
    return check_guards(t, areas[area], who);
}

const char *trial_run(trial *t, const operation *op, void (*reference)(void), void (*variant)(void)) {
    for (size_t i = 0; i < t->input_count; i++) {
        t->copies[i] = allocate(t->input_bytes[i]);
        memcpy(t->copies[i], t->bases[i], t->input_bytes[i]);
    }
    memcpy(areas[1], areas[0], t->used);
    const char *wrong = call(t, op, reference, 0, "the reference");
    if (!wrong) wrong = call(t, op, variant, 1, "it");
    for (size_t r = 0; r < t->range_count && !wrong; r++) wrong = compare(&t->ranges[r], r);
    return wrong;
}

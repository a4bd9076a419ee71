#include "core/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Errors ---- */

static _Thread_local char message[512];

const char *nibl_last_message(void) { return message; }

const char *nibl_status_name(nibl_status status) {
    switch (status) {
#define X(name, value, js, meaning)                                                                          \
    case name: return js;
        NIBL_STATUS_TABLE(X)
#undef X
    }
    return "UNKNOWN";
}

nibl_status nibl_fail(nibl_status status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return status;
}

nibl_status nibl_fail_memory(uint64_t bytes, const char *what) {
    return nibl_fail(NIBL_E_MEMORY, "cannot allocate %llu bytes for %s", (unsigned long long)bytes, what);
}

/* ---- Checked arithmetic ---- */

bool nibl_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (a > UINT64_MAX - b) return false;
    *out = a + b;
    return true;
}

bool nibl_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    if (b != 0 && a > UINT64_MAX / b) return false;
    *out = a * b;
    return true;
}

bool nibl_u64_to_size(uint64_t a, size_t *out) {
    if (a > SIZE_MAX) return false;
    *out = (size_t)a;
    return true;
}

/* ---- Memory ---- */

/* Stands right before the bytes the caller sees, which are aligned to ALIGNMENT. */
typedef struct block_header {
    void *base; /* what malloc gave */
    size_t bytes;
} block_header;

enum { ALIGNMENT = 64 };

static _Atomic uint64_t memory_current, memory_peak;

#ifdef NIBL_TESTING
static _Atomic int64_t fail_countdown = -1;
void nibl_test_fail_alloc(int64_t n) { atomic_store(&fail_countdown, n); }
#endif

static void count_memory(uint64_t added, uint64_t removed) {
    uint64_t now = atomic_fetch_add(&memory_current, added - removed) + added - removed;
    uint64_t peak = atomic_load(&memory_peak);
    while (now > peak && !atomic_compare_exchange_weak(&memory_peak, &peak, now)) {
    }
}

void nibl_memory(uint64_t *current, uint64_t *peak) {
    if (current) *current = atomic_load(&memory_current);
    if (peak) *peak = atomic_load(&memory_peak);
}

static block_header *header_of(void *block) { return (block_header *)block - 1; }

void *nibl_alloc(uint64_t bytes) {
    if (bytes == 0 || bytes > PTRDIFF_MAX - 2 * ALIGNMENT) return NULL;
#ifdef NIBL_TESTING
    if (atomic_load(&fail_countdown) >= 0 && atomic_fetch_sub(&fail_countdown, 1) == 0) return NULL;
#endif
    size_t size = (size_t)bytes;
    void *base = malloc(size + sizeof(block_header) + ALIGNMENT - 1);
    if (!base) return NULL;
    uintptr_t start = ((uintptr_t)base + sizeof(block_header) + ALIGNMENT - 1) & ~(uintptr_t)(ALIGNMENT - 1);
    void *block = (uint8_t *)base + (start - (uintptr_t)base);
    *header_of(block) = (block_header){.base = base, .bytes = size};
    count_memory(size, 0);
    return block;
}

void *nibl_alloc_zero(uint64_t bytes) {
    void *block = nibl_alloc(bytes);
    if (block) memset(block, 0, (size_t)bytes);
    return block;
}

void *nibl_realloc(void *block, uint64_t bytes) {
    void *grown = nibl_alloc(bytes);
    if (!grown || !block) return grown;
    size_t old = header_of(block)->bytes;
    memcpy(grown, block, old < bytes ? old : (size_t)bytes);
    nibl_free(block);
    return grown;
}

void nibl_free(void *block) {
    if (!block) return;
    count_memory(0, header_of(block)->bytes);
    free(header_of(block)->base);
}

nibl_status nibl_reserve(void **array, size_t *capacity, size_t count, size_t width, const char *what) {
    if (count <= *capacity) return NIBL_OK;
    uint64_t wanted = (uint64_t)*capacity + *capacity / 2;
    if (wanted < count) wanted = count;
    uint64_t bytes;
    if (!nibl_mul_u64(wanted, width, &bytes)) return nibl_fail_memory(UINT64_MAX, what);
    void *grown = nibl_realloc(*array, bytes);
    if (!grown) return nibl_fail_memory(bytes, what);
    *array = grown;
    *capacity = (size_t)wanted;
    return NIBL_OK;
}

/* ---- Arena ---- */

struct nibl_arena_block {
    nibl_arena_block *previous;
    size_t used, size; /* of the bytes behind this header */
};

enum { ARENA_BLOCK = 16384, ARENA_ALIGN = 16, ARENA_HEADER = (sizeof(nibl_arena_block) + 15) / 16 * 16 };

void *nibl_arena_alloc(nibl_arena *arena, uint64_t bytes) {
    if (bytes > PTRDIFF_MAX / 2) return NULL;
    size_t size = ((size_t)bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    nibl_arena_block *block = arena->last;
    if (!block || block->size - block->used < size) {
        size_t block_size = size > ARENA_BLOCK ? size : ARENA_BLOCK;
        block = nibl_alloc((uint64_t)block_size + ARENA_HEADER);
        if (!block) return NULL;
        *block = (nibl_arena_block){.previous = arena->last, .size = block_size};
        arena->last = block;
        arena->bytes += block_size + ARENA_HEADER;
    }
    void *p = (uint8_t *)block + ARENA_HEADER + block->used;
    block->used += size;
    return p;
}

char *nibl_arena_string(nibl_arena *arena, const char *bytes, size_t length) {
    char *copy = nibl_arena_alloc(arena, (uint64_t)length + 1);
    if (!copy) return NULL;
    memcpy(copy, bytes, length);
    copy[length] = 0;
    return copy;
}

void nibl_arena_free(nibl_arena *arena) {
    for (nibl_arena_block *block = arena->last; block;) {
        nibl_arena_block *previous = block->previous;
        nibl_free(block);
        block = previous;
    }
    *arena = (nibl_arena){0};
}

/* ---- Bytes ---- */

uint16_t nibl_load_u16(const void *p) {
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

uint32_t nibl_load_u32(const void *p) {
    const uint8_t *b = p;
    return nibl_load_u16(b) | (uint32_t)nibl_load_u16(b + 2) << 16;
}

uint64_t nibl_load_u64(const void *p) {
    const uint8_t *b = p;
    return nibl_load_u32(b) | (uint64_t)nibl_load_u32(b + 4) << 32;
}

/* ---- Text ---- */

void nibl_write(nibl_writer *w, const char *bytes, size_t length) {
    if (w->length < w->capacity) {
        size_t room = w->capacity - w->length;
        memcpy(w->text + w->length, bytes, length < room ? length : room);
    }
    w->length = length <= SIZE_MAX - w->length ? w->length + length : SIZE_MAX;
}

void nibl_print(nibl_writer *w, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n > 0) nibl_write(w, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

/* Length of the valid UTF-8 sequence at `s` (RFC 3629), 0 if there is none. */
static size_t utf8_length(const uint8_t *s, size_t left) {
    uint8_t c = s[0];
    if (c < 0x80) return 1;
    size_t n = c >= 0xC2 && c <= 0xDF ? 2 : (c & 0xF0) == 0xE0 ? 3 : c >= 0xF0 && c <= 0xF4 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) ||
        (c == 0xF4 && s[1] > 0x8F))
        return 0;
    return n;
}

void nibl_write_json(nibl_writer *w, const char *bytes, size_t length) {
    const uint8_t *s = (const uint8_t *)bytes;
    nibl_write(w, "\"", 1);
    for (size_t i = 0; i < length;) {
        size_t n = utf8_length(s + i, length - i);
        if (n == 0) {
            nibl_write(w, "\xEF\xBF\xBD", 3);
            n = 1;
        } else if (n == 1 && (s[i] == '"' || s[i] == '\\')) {
            nibl_print(w, "\\%c", s[i]);
        } else if (n == 1 && (s[i] < 0x20 || s[i] == 0x7F)) {
            nibl_print(w, "\\u%04x", s[i]);
        } else {
            nibl_write(w, bytes + i, n);
        }
        i += n;
    }
    nibl_write(w, "\"", 1);
}

bool nibl_slice_is(nibl_slice s, const char *text) {
    return strlen(text) == s.length && memcmp(s.bytes, text, s.length) == 0;
}

nibl_status nibl_write_end(nibl_writer *w, size_t *needed) {
    if (needed) *needed = w->length;
    if (w->capacity > 0) w->text[w->length < w->capacity ? w->length : w->capacity - 1] = 0;
    if (w->length < w->capacity) return NIBL_OK;
    return nibl_fail(NIBL_E_BUFFER, "the text has %zu bytes, the buffer holds %zu", w->length, w->capacity);
}

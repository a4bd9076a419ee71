/* What every part of the core stands on: status with message, checked size arithmetic, counted allocation, arena. */
#ifndef NIBL_BASE_H
#define NIBL_BASE_H

#include "core/nibl.h"

#include <stdarg.h>

#if defined(__GNUC__)
#define NIBL_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define NIBL_PRINTF(fmt, args)
#endif

/* ---- Errors: `return nibl_fail(NIBL_E_FILE, "tensor %.*s: ...", ...)` ---- */

/* Sets the thread's message (cut at 511 bytes) and returns `status`. */
nibl_status nibl_fail(nibl_status status, const char *format, ...) NIBL_PRINTF(2, 3);

/* Fails with NIBL_E_MEMORY: "cannot allocate N bytes for WHAT". */
nibl_status nibl_fail_memory(uint64_t bytes, const char *what);

#define NIBL_TRY(call)                                                                                       \
    do {                                                                                                     \
        nibl_status try_status_ = (call);                                                                    \
        if (try_status_ < 0) return try_status_;                                                             \
    } while (0)

/* ---- Checked arithmetic: false on overflow, *out untouched ---- */
bool nibl_add_u64(uint64_t a, uint64_t b, uint64_t *out);
bool nibl_mul_u64(uint64_t a, uint64_t b, uint64_t *out);
bool nibl_u64_to_size(uint64_t a, size_t *out); /* false where size_t is too small */

/* ---- Memory: counted (nibl_memory), 64-byte aligned ---- */

/* NULL when it cannot be had, or when bytes is 0 or exceeds what this target can address. Contents are undefined. */
void *nibl_alloc(uint64_t bytes);
void *nibl_alloc_zero(uint64_t bytes);
/* As realloc; on NULL the old block stays valid. */
void *nibl_realloc(void *block, uint64_t bytes);
void nibl_free(void *block);

/* Grows `*array` (elements of `width` bytes, `*capacity` of them) so that it holds `count`. */
nibl_status nibl_reserve(void **array, size_t *capacity, size_t count, size_t width, const char *what);

/* A bump allocator: many small objects, freed all at once. Zero-initialise before use. */
typedef struct nibl_arena_block nibl_arena_block;
typedef struct nibl_arena {
    nibl_arena_block *last;
    uint64_t bytes; /* taken so far, block headers included */
} nibl_arena;

void *nibl_arena_alloc(nibl_arena *arena, uint64_t bytes); /* 16-byte aligned; NULL when out of memory */
/* Copies `length` bytes and puts a NUL behind them. */
char *nibl_arena_string(nibl_arena *arena, const char *bytes, size_t length);
void nibl_arena_free(nibl_arena *arena);

#ifdef NIBL_TESTING
/* Makes the n-th allocation from now (0 = the next) fail once; -1 stops that. */
void nibl_test_fail_alloc(int64_t n);
#endif

/* ---- Little-endian reads from unaligned bytes ---- */
uint16_t nibl_load_u16(const void *p);
uint32_t nibl_load_u32(const void *p);
uint64_t nibl_load_u64(const void *p);

/* ---- Bytes of somebody else: not NUL-terminated, not necessarily valid UTF-8 ---- */
typedef struct nibl_slice {
    const char *bytes;
    size_t length;
} nibl_slice;

bool nibl_slice_is(nibl_slice s, const char *text);

/* A slice as the two arguments of "%.*s" in a message: its first 64 bytes. */
#define NIBL_SHOW(s) (int)((s).length < 64 ? (s).length : 64), (s).bytes

/* ---- Text building: counts what does not fit, like snprintf, so that callers can size a buffer ---- */
typedef struct nibl_writer {
    char *text;
    size_t capacity; /* NUL included */
    size_t length; /* wanted so far, without NUL */
} nibl_writer;

void nibl_write(nibl_writer *w, const char *bytes, size_t length);
void nibl_print(nibl_writer *w, const char *format, ...) NIBL_PRINTF(2, 3); /* at most 511 bytes a call */
void nibl_write_json(nibl_writer *w, const char *bytes,
                     size_t length); /* quoted and escaped; bad UTF-8 replaced */
/* NIBL_OK or NIBL_E_BUFFER; *needed = length. */
nibl_status nibl_write_end(nibl_writer *w, size_t *needed);

#endif

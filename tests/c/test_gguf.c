/* The header parser and the type table: right files in any chunking, hostile files, failing memory. */
#include "core/dtype.h"
#include "core/gguf.h"
#include "tests/c/gguf_builder.h"
#include "tests/c/hostile.h"
#include "tests/c/test.h"

/* Feeds in pieces of `chunk` bytes (0: random ones) until the parser is content or refuses. */
static nibl_status feed(nibl_gguf *g, const builder *b, size_t chunk, size_t *header) {
    *header = 0;
    nibl_status status = NIBL_NEED_DATA;
    while (status == NIBL_NEED_DATA && *header < b->length) {
        size_t n = chunk ? chunk : 1 + random_below(100), taken = SIZE_MAX;
        if (n > b->length - *header) n = b->length - *header;
        status = nibl_gguf_feed(g, b->bytes + *header, n, &taken);
        if (status < 0) break;
        CHECK(status == NIBL_OK ? taken <= n : taken == n);
        *header += taken;
        CHECK_EQ(nibl_gguf_header_bytes(g), *header);
    }
    return status;
}

/* One key of every type and shape, three tensors; returns the header's length. */
static size_t build_sample(builder *b) {
    put_start(b, 3, 19);
    put_key_string(b, "general.architecture", "llama");
    put_key(b, "u8", B_U8), put_int(b, 200, 1);
    put_key(b, "i8", B_I8), put_int(b, (uint8_t)-5, 1);
    put_key(b, "u16", B_U16), put_int(b, 60000, 2);
    put_key(b, "i16", B_I16), put_int(b, (uint16_t)-300, 2);
    put_key(b, "u32", B_U32), put_int(b, 4000000000u, 4);
    put_key(b, "i32", B_I32), put_int(b, (uint32_t)-70000, 4);
    put_key(b, "f32", B_F32), put_f32(b, 0.1f);
    put_key(b, "yes", B_BOOL), put_int(b, 1, 1);
    put_key(b, "no", B_BOOL), put_int(b, 0, 1);
    put_key(b, "u64", B_U64), put_int(b, UINT64_MAX, 8);
    put_key(b, "i64", B_I64), put_int(b, (uint64_t)INT64_MIN, 8);
    put_key(b, "f64", B_F64), put_f64(b, -2.5e300);
    put_key(b, "infinite", B_F32), put_int(b, 0x7F800000, 4);
    put_key_string(b, "text", "a\"b\\\n\xC3\xA9\xFF");
    put_key_array(b, "words", B_STRING, 3);
    put_string(b, "one"), put_string(b, ""), put_string(b, "three");
    put_key_array(b, "numbers", B_I32, 100);
    for (uint32_t i = 0; i < 100; i++) put_int(b, i * i - 50, 4);
    put_key_array(b, "nothing", B_F64, 0);
    put_key_array(b, "flags", B_BOOL, 2);
    put_int(b, 1, 1), put_int(b, 0, 1);
    put_tensor(b, "z", 3, 2, 64, 3, 0);      /* Q4_1: 2 blocks of 20 bytes, 3 rows */
    put_tensor(b, "a", 0, 1, 5, 1, 128);     /* F32 */
    put_tensor(b, "odd", 12345, 2, 7, 9, 0); /* nobody's type, may lie anywhere */
    return b->length;
}

static void check_sample(const nibl_gguf *g, size_t header) {
    uint64_t u = 7;
    double d = 7;
    bool yes = false;
    nibl_slice s = {0};
    nibl_gguf_array a;
    CHECK_EQ(nibl_gguf_metadata_count(g), 19);
    CHECK(nibl_gguf_u64(g, "u8", &u) && u == 200);
    CHECK(nibl_gguf_u64(g, "u16", &u) && u == 60000);
    CHECK(nibl_gguf_u64(g, "u32", &u) && u == 4000000000u);
    CHECK(nibl_gguf_u64(g, "u64", &u) && u == UINT64_MAX);
    u = 7;
    CHECK(!nibl_gguf_u64(g, "i8", &u) && !nibl_gguf_u64(g, "i64", &u) && !nibl_gguf_u64(g, "f32", &u));
    CHECK(!nibl_gguf_u64(g, "yes", &u) && !nibl_gguf_u64(g, "words", &u) && !nibl_gguf_u64(g, "u", &u));
    CHECK(u == 7);
    CHECK(nibl_gguf_f64(g, "f32", &d) && d == (double)0.1f);
    CHECK(nibl_gguf_f64(g, "f64", &d) && d == -2.5e300);
    CHECK(nibl_gguf_f64(g, "i8", &d) && d == -5);
    CHECK(nibl_gguf_f64(g, "i16", &d) && d == -300);
    CHECK(nibl_gguf_f64(g, "i32", &d) && d == -70000);
    CHECK(nibl_gguf_f64(g, "i64", &d) && d == -9223372036854775808.0);
    CHECK(nibl_gguf_f64(g, "u64", &d) && d == 18446744073709551616.0);
    CHECK(!nibl_gguf_f64(g, "text", &d) && !nibl_gguf_f64(g, "yes", &d));
    CHECK(nibl_gguf_bool(g, "yes", &yes) && yes);
    CHECK(nibl_gguf_bool(g, "no", &yes) && !yes);
    CHECK(!nibl_gguf_bool(g, "u8", &yes));
    CHECK(nibl_gguf_string(g, "text", &s) && s.length == 8 &&
          memcmp(s.bytes, "a\"b\\\n\xC3\xA9\xFF", 8) == 0);
    CHECK(!nibl_gguf_string(g, "u8", &s) && !nibl_gguf_string(g, "words", &s) &&
          !nibl_gguf_string(g, "", &s));
    if (CHECK(nibl_gguf_array_of(g, "words", &a)) && CHECK(a.type == NIBL_GGUF_STRING && a.count == 3)) {
        s = nibl_gguf_array_string(&a, 0);
        CHECK(s.length == 3 && memcmp(s.bytes, "one", 3) == 0);
        CHECK_EQ(nibl_gguf_array_string(&a, 1).length, 0);
        s = nibl_gguf_array_string(&a, 2);
        CHECK(s.length == 5 && memcmp(s.bytes, "three", 5) == 0);
    }
    if (CHECK(nibl_gguf_array_of(g, "numbers", &a)) &&
        CHECK(a.type == NIBL_GGUF_I32 && a.count == 100 && !a.strings))
        for (uint32_t i = 0; i < 100; i++) CHECK_EQ(nibl_load_u32(a.data + 4 * i), i * i - 50);
    CHECK(nibl_gguf_array_of(g, "nothing", &a) && a.count == 0);
    CHECK(!nibl_gguf_array_of(g, "text", &a));

    uint64_t data = (header + 31) / 32 * 32;
    CHECK_EQ(nibl_gguf_tensor_count(g), 3);
    const nibl_gguf_tensor *t = nibl_gguf_find_tensor(g, "z");
    if (CHECK(t)) {
        CHECK(t == nibl_gguf_tensor_at(g, 0) && t->name.length == 1 && t->name.bytes[0] == 'z');
        CHECK(t->type == 3 && t->n_dims == 2 && t->dims[0] == 64 && t->dims[1] == 3 && t->dims[2] == 1 &&
              t->dims[3] == 1);
        CHECK(t->offset == data && t->bytes == 120);
    }
    t = nibl_gguf_find_tensor(g, "a");
    CHECK(t && t->offset == data + 128 && t->bytes == 20 && t->dims[1] == 1);
    t = nibl_gguf_find_tensor(g, "odd");
    CHECK(t && t->type == 12345 && t->bytes == 0);
    CHECK(!nibl_gguf_find_tensor(g, "od") && !nibl_gguf_find_tensor(g, "odds") && !nibl_gguf_tensor_at(g, 3));
}

static void test_chunking(void) {
    static const size_t chunks[] = {1, 2, 3, 7, 64, 0, 1 << 20};
    builder b = {0};
    size_t header = build_sample(&b), taken;
    for (int i = 0; i < 5000; i++) put_int(&b, 0xAA, 1); /* tensor data */
    uint64_t before = memory_now();
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        nibl_gguf *g;
        if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
        CHECK_EQ(feed(g, &b, chunks[i], &taken), NIBL_OK);
        CHECK_EQ(taken, header);
        CHECK(nibl_gguf_complete(g));
        check_sample(g, header);
        CHECK(nibl_gguf_feed(g, b.bytes, 10, &taken) == NIBL_OK && taken == 0);
        CHECK_EQ(nibl_gguf_check_end(g, b.length), NIBL_OK);
        CHECK(memory_now() - before < header + 2000); /* shrunk to fit, nothing kept of what follows */
        nibl_gguf_free(g);
        CHECK_EQ(memory_now(), before);
    }
    free(b.bytes);
}

static void test_truncation(void) {
    builder b = {0};
    size_t header = build_sample(&b), taken;
    for (size_t length = 0; length < header; length++) {
        nibl_gguf *g;
        uint64_t u;
        nibl_slice s;
        if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
        CHECK_EQ(nibl_gguf_feed(g, b.bytes, length, &taken), NIBL_NEED_DATA);
        CHECK(!nibl_gguf_complete(g) && nibl_gguf_tensor_count(g) == 0 && nibl_gguf_metadata_count(g) == 0);
        CHECK(!nibl_gguf_find_tensor(g, "z") && !nibl_gguf_u64(g, "u8", &u) &&
              !nibl_gguf_string(g, "text", &s));
        CHECK_EQ(nibl_gguf_check_end(g, length), NIBL_E_TRUNCATED);
        CHECK_HAS(nibl_last_message(), "within its header");
        nibl_gguf_free(g);
    }
    nibl_gguf *g;
    if (CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) {
        uint64_t data = (header + 31) / 32 * 32;
        CHECK_EQ(nibl_gguf_feed(g, b.bytes, b.length, &taken), NIBL_OK);
        CHECK_EQ(nibl_gguf_check_end(g, data + 147), NIBL_E_TRUNCATED);
        CHECK_HAS(nibl_last_message(), "tensor 'a' ends at byte");
        CHECK_EQ(nibl_gguf_check_end(g, data + 148), NIBL_OK);
        nibl_gguf_free(g);
    }
    free(b.bytes);
}

/* Expects `b` to be refused with `status` and a message that has `part`, whole and byte by byte; frees it. */
static void refuse(builder *b, nibl_status status, const char *part) {
    uint64_t before = memory_now();
    for (size_t chunk = 1; chunk <= 1 << 20; chunk += (1 << 20) - 1) {
        nibl_gguf *g;
        size_t taken;
        if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
        CHECK_EQ(feed(g, b, chunk, &taken), status);
        CHECK_HAS(nibl_last_message(), part);
        CHECK(!nibl_gguf_complete(g));
        CHECK_EQ(nibl_gguf_feed(g, "x", 1, &taken), NIBL_E_ARGUMENT);
        nibl_gguf_free(g);
        CHECK_EQ(memory_now(), before);
    }
    free(b->bytes);
    *b = (builder){0};
}

static void test_not_gguf(void) {
    static const struct {
        const char *text, *message;
    } pages[] = {
        {"<!DOCTYPE html><html>404</html>", "begins with '<': an HTML or XML page, not a model"},
        {"<html><body>", "begins with '<'"},
        {"\n  <HTML>", "begins with '<'"},
        {"\xEF\xBB\xBF<?xml version=\"1.0\"?><Error/>", "begins with '<'"},
        {"{\"error\":\"Repository not found\"}", "begins with '{': a JSON text, not a model"},
        {"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"},
        {"PK\x03\x04zip", "first bytes are 50 4b 03 04 (\"PK..\")"},
        {"ggml", "first bytes are 67 67 6d 6c (\"ggml\")"},
        {"GGUf", "expected 47 47 55 46"},
        {"Not found", "(\"Not \")"},
    };
    builder b = {0};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        put(&b, pages[i].text, strlen(pages[i].text));
        refuse(&b, NIBL_E_FILE, pages[i].message);
    }
    static const uint8_t zeros[64] = {0};
    put(&b, zeros, sizeof zeros);
    refuse(&b, NIBL_E_FILE, "first bytes are 00 00 00 00 (\"....\")");
    static const char *const shorts[] = {"{}", "404", "<"};
    for (size_t i = 0; i < 3; i++) {
        nibl_gguf *g;
        size_t taken;
        if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
        CHECK_EQ(nibl_gguf_feed(g, shorts[i], strlen(shorts[i]), &taken), NIBL_NEED_DATA);
        CHECK_EQ(nibl_gguf_check_end(g, strlen(shorts[i])), NIBL_E_FILE);
        nibl_gguf_free(g);
    }
}

static void test_hostile_start(void) {
    builder b = {0};
    static const struct {
        uint32_t version;
        const char *message;
    } versions[] = {{0, "version 0"},           {1, "GGUF version 1: this build reads version 3"},
                    {2, "GGUF version 2"},      {4, "GGUF version 4"},
                    {0x03000000, "big-endian"}, {UINT32_MAX, "version 4294967295"}};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        put(&b, "GGUF", 4), put_int(&b, versions[i].version, 4);
        put_int(&b, 0, 8), put_int(&b, 0, 8);
        refuse(&b, NIBL_E_FILE, versions[i].message);
    }
    put_start(&b, UINT64_MAX, 0);
    refuse(&b, NIBL_E_FILE, "18446744073709551615 tensors claimed (limit 65536)");
    put_start(&b, 65537, 0);
    refuse(&b, NIBL_E_FILE, "65537 tensors");
    put_start(&b, 0, UINT64_MAX - 1);
    refuse(&b, NIBL_E_FILE, "18446744073709551614 metadata keys claimed");
}

static void test_hostile_metadata(void) {
    builder b = {0};
    put_start(&b, 0, 2);
    put_key_u32(&b, "a", 1), put_int(&b, INT64_MAX, 8), put_int(&b, 0, 8);
    refuse(&b, NIBL_E_FILE,
           "metadata key 2 of 2, at byte 41: key of 9223372036854775807 bytes (limit 65535)");
    put_start(&b, 0, 1);
    put_key(&b, "text", B_STRING), put_int(&b, INT64_MAX, 8);
    refuse(&b, NIBL_E_FILE,
           "metadata key 1 'text', at byte 40: string of 9223372036854775807 bytes (limit 268435456)");
    put_start(&b, 0, 1);
    put_key_array(&b, "words", B_STRING, 3), put_string(&b, "one"), put_int(&b, UINT64_MAX, 8);
    refuse(&b, NIBL_E_FILE, "metadata key 1 'words', at byte 64: string of 18446744073709551615 bytes");
    /* 2^61 to 2^63 elements of 8 to 2 bytes are 0 bytes modulo 2^64. */
    static const uint64_t counts[] = {(1u << 28) + 1, 1ull << 61, 1ull << 62, 1ull << 63, UINT64_MAX};
    for (uint32_t type = 0; type <= B_F64; type++)
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            put_start(&b, 0, 1);
            put_key_array(&b, "many", type, counts[i]);
            refuse(&b, NIBL_E_FILE,
                   type == B_ARRAY ? "'many', at byte 40: an array of arrays" : "an array of ");
        }
    put_start(&b, 0, 1);
    put_key_array(&b, "x", 13, 1);
    refuse(&b, NIBL_E_FILE, "an array of value type 13, which GGUF does not define");
    put_start(&b, 0, 1);
    put_key(&b, "x", UINT32_MAX);
    refuse(&b, NIBL_E_FILE, "'x' has value type 4294967295");
    put_start(&b, 0, 1);
    put_key(&b, "x", B_BOOL), put_int(&b, 2, 1);
    refuse(&b, NIBL_E_FILE, "'x', at byte 37: a bool of value 2");
    put_start(&b, 0, 1);
    put_key_u32(&b, "", 0);
    refuse(&b, NIBL_E_FILE, "metadata key 1 of 1, at byte 24: the key is empty");
    put_start(&b, 0, 1);
    put_key_u32(&b, "a\x1B[2J", 0);
    refuse(&b, NIBL_E_FILE, "byte 1 of the key is the control character 0x1b");
    put_start(&b, 0, 3);
    put_key_u32(&b, "twice", 0), put_key_u32(&b, "once", 0), put_key_u32(&b, "twice", 0);
    refuse(&b, NIBL_E_FILE, "metadata key 'twice' stands twice");
}

static void test_hostile_tensors(void) {
    builder b = {0};
    put_start(&b, 2, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, 0), put_int(&b, 257, 8);
    refuse(&b, NIBL_E_FILE, "tensor 2 of 2, at byte 57: name of 257 bytes (limit 256)");
    put_start(&b, 1, 0);
    put_int(&b, UINT64_MAX, 8);
    refuse(&b, NIBL_E_FILE, "name of 18446744073709551615 bytes");
    put_start(&b, 1, 0);
    put_tensor(&b, "", 0, 1, 8, 1, 0);
    refuse(&b, NIBL_E_FILE, "the name is empty");
    put_start(&b, 1, 0);
    put_tensor(&b, "a\nb", 0, 1, 8, 1, 0);
    refuse(&b, NIBL_E_FILE, "control character 0x0a");
    put_start(&b, 1, 0);
    put_tensor(&b, "blk.3.attn_q.weight", 0, 5, 8, 1, 0);
    refuse(&b, NIBL_E_FILE, "'blk.3.attn_q.weight': 5 dimensions (limit 4)");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, UINT32_MAX, 8, 1, 0);
    refuse(&b, NIBL_E_FILE, "4294967295 dimensions");
    put_start(&b, 1, 0);
    put_tensor(&b, "blk.3.attn_q.weight", 0, 2, 8, 0, 0);
    refuse(&b, NIBL_E_FILE, "'blk.3.attn_q.weight': dimension 1 is 0");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, 2, UINT64_MAX, 2, 0);
    refuse(&b, NIBL_E_FILE, "dimension 0 is 18446744073709551615");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 777, 2, 1ull << 32, 1ull << 31, 0); /* whatever its type */
    refuse(&b, NIBL_E_FILE, "'a': dimension 1 is 2147483648, which makes more elements");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, 2, 1ull << 31, 1ull << 31, 0);
    refuse(&b, NIBL_E_FILE, "more bytes than 63 bits count");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 2, 2, 33, 2, 0);
    refuse(&b, NIBL_E_FILE, "'a': rows of 33 elements are not whole blocks of 32 (Q4_0)");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, 16);
    refuse(&b, NIBL_E_FILE, "tensor 'a': offset 16 is not a multiple of the alignment 32");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, UINT64_MAX - 31);
    refuse(&b, NIBL_E_FILE, "end beyond 2^63");
    put_start(&b, 1, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, INT64_MAX - 31);
    refuse(&b, NIBL_E_FILE, "end beyond 2^63");
    put_start(&b, 2, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, 0), put_tensor(&b, "a", 0, 1, 8, 1, 32);
    refuse(&b, NIBL_E_FILE, "tensor 'a' stands twice");
    put_start(&b, 2, 0);
    put_tensor(&b, "a", 0, 1, 9, 1, 32), put_tensor(&b, "b", 0, 1, 8, 1, 64);
    refuse(&b, NIBL_E_FILE, "tensors 'a' and 'b' overlap");
    put_start(&b, 3, 0);
    put_tensor(&b, "a", 0, 1, 8, 1, 32), put_tensor(&b, "b", 0, 1, 8, 1, 0),
        put_tensor(&b, "c", 0, 1, 8, 1, 32);
    refuse(&b, NIBL_E_FILE, "tensors 'a' and 'c' overlap");
}

static void test_alignment(void) {
    static const uint32_t bad[] = {0, 3, 48, UINT32_MAX, 1u << 21, 1u << 31};
    builder b = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_start(&b, 0, 1);
        put_key_u32(&b, "general.alignment", bad[i]);
        refuse(&b, NIBL_E_FILE, "it must be a power of two up to 1048576");
    }
    put_start(&b, 0, 1);
    put_key_string(&b, "general.alignment", "32");
    refuse(&b, NIBL_E_FILE, "general.alignment is not an unsigned integer");
    put_start(&b, 1, 1);
    put_key_u32(&b, "general.alignment", 256), put_tensor(&b, "a", 0, 1, 8, 1, 128);
    refuse(&b, NIBL_E_FILE, "offset 128 is not a multiple of the alignment 256");
    put_start(&b, 1, 1);
    put_key_u32(&b, "general.alignment", 256), put_tensor(&b, "a", 0, 1, 8, 1, 256);
    nibl_gguf *g;
    size_t taken;
    if (CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) {
        CHECK_EQ(nibl_gguf_feed(g, b.bytes, b.length, &taken), NIBL_OK);
        CHECK_EQ(nibl_gguf_tensor_at(g, 0)->offset, 512);
        nibl_gguf_free(g);
    }
    free(b.bytes);
}

static void test_memory_follows_bytes(void) {
    builder files[4] = {0};
    put_start(&files[0], 65536, 65536);
    put_start(&files[1], 65536, 0);
    put_start(&files[2], 0, 1), put_key_array(&files[2], "words", B_STRING, 1u << 25);
    put_start(&files[3], 0, 1), put_key_array(&files[3], "numbers", B_U8, 1u << 28);
    for (size_t i = 0; i < 4; i++) {
        nibl_gguf *g;
        size_t taken;
        uint64_t before = memory_now();
        if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
        CHECK_EQ(nibl_gguf_feed(g, files[i].bytes, files[i].length, &taken), NIBL_NEED_DATA);
        CHECK(memory_now() - before < 2048);
        nibl_gguf_free(g);
        free(files[i].bytes);
    }
}

/* A vocabulary as large as real ones, byte by byte. */
static void test_long_array(void) {
    enum { COUNT = 50000 };
    builder b = {0};
    char word[16];
    put_start(&b, 0, 2);
    put_key_array(&b, "first", B_STRING, COUNT);
    for (int i = 0; i < COUNT; i++) snprintf(word, sizeof word, "w%d", i), put_string(&b, word);
    put_key_array(&b, "second", B_STRING, COUNT);
    for (int i = 0; i < COUNT; i++) snprintf(word, sizeof word, "%d x", i), put_string(&b, word);
    nibl_gguf *g;
    size_t taken;
    if (CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) {
        nibl_gguf_array first, second;
        CHECK_EQ(feed(g, &b, 1, &taken), NIBL_OK);
        CHECK_EQ(taken, b.length);
        if (CHECK(nibl_gguf_array_of(g, "first", &first) && nibl_gguf_array_of(g, "second", &second)))
            for (int i = 0; i < COUNT; i++) {
                nibl_slice s = nibl_gguf_array_string(&first, (uint64_t)i);
                snprintf(word, sizeof word, "w%d", i);
                CHECK(s.length == strlen(word) && memcmp(s.bytes, word, s.length) == 0);
                s = nibl_gguf_array_string(&second, (uint64_t)i);
                snprintf(word, sizeof word, "%d x", i);
                CHECK(s.length == strlen(word) && memcmp(s.bytes, word, s.length) == 0);
            }
        nibl_gguf_free(g);
    }
    free(b.bytes);
}

static void test_json(void) {
    static const char *const expected[] = {
        "\"llama\"",
        "200",
        "-5",
        "60000",
        "-300",
        "4000000000",
        "-70000",
        "0.100000001",
        "true",
        "false",
        "18446744073709551615",
        "-9223372036854775808",
        "-2.5000000000000001e+300",
        "null",
        "\"a\\\"b\\\\\\u000a\xC3\xA9\xEF\xBF\xBD\"",
        "[\"one\",\"\",\"three\"]",
        "{\"type\":\"I32\",\"length\":100,\"first\":[-50,-49,-46,-41,-34,-25,-14,-1]}",
        "[]",
        "[true,false]",
    };
    builder b = {0};
    build_sample(&b);
    nibl_gguf *g;
    size_t taken;
    if (CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) {
        CHECK_EQ(nibl_gguf_feed(g, b.bytes, b.length, &taken), NIBL_OK);
        for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
            char text[256];
            nibl_writer w = {.text = text, .capacity = sizeof text};
            nibl_gguf_metadata_json(g, i, &w);
            if (CHECK_EQ(nibl_write_end(&w, NULL), NIBL_OK) && !CHECK(strcmp(text, expected[i]) == 0))
                printf("    %s, expected %s\n", text, expected[i]);
        }
        nibl_gguf_free(g);
    }
    free(b.bytes);
}

/* Every byte of a header replaced in turn: refused or read, never a crash (the sanitizers watch), never a
 * leak. */
static void test_spoiled_bytes(void) {
    static const uint8_t values[] = {0, 1, 0x7F, 0x80, 0xFF};
    builder b = {0};
    size_t header = build_sample(&b), taken;
    uint64_t before = memory_now();
    for (size_t i = 0; i < header; i++)
        for (size_t v = 0; v < sizeof values; v++) {
            uint8_t old = b.bytes[i];
            b.bytes[i] = values[v];
            nibl_gguf *g;
            if (!CHECK_EQ(nibl_gguf_new(&g), NIBL_OK)) return;
            nibl_status status = nibl_gguf_feed(g, b.bytes, header, &taken);
            CHECK(status == NIBL_OK || status == NIBL_NEED_DATA || status == NIBL_E_FILE);
            if (status == NIBL_NEED_DATA) CHECK_EQ(nibl_gguf_check_end(g, header), NIBL_E_TRUNCATED);
            for (size_t k = 0; k < nibl_gguf_metadata_count(g); k++) {
                nibl_writer w = {0};
                nibl_gguf_metadata_json(g, k, &w);
            }
            nibl_gguf_free(g);
            CHECK_EQ(memory_now(), before);
            b.bytes[i] = old;
        }
    free(b.bytes);
}

static void test_no_memory(void) {
    builder b = {0};
    build_sample(&b);
    uint64_t before = memory_now();
    unsigned refused = 0;
    for (int64_t n = 0;; n++) {
        nibl_gguf *g = NULL;
        size_t taken;
        nibl_test_fail_alloc(n);
        nibl_status status = nibl_gguf_new(&g);
        if (status == NIBL_OK) status = feed(g, &b, 5, &taken);
        void *probe = nibl_alloc(1); /* the one that fails, once nothing above does */
        nibl_test_fail_alloc(-1);
        CHECK(status == NIBL_OK || status == NIBL_E_MEMORY);
        if (status == NIBL_E_MEMORY) CHECK_HAS(nibl_last_message(), "cannot allocate");
        refused += status == NIBL_E_MEMORY;
        nibl_gguf_free(g);
        nibl_free(probe);
        CHECK_EQ(memory_now(), before);
        if (!probe) {
            CHECK_EQ(status, NIBL_OK);
            break;
        }
    }
    CHECK(refused > 10);
    free(b.bytes);
}

/* Sizes of the `gguf` package, 0.19.0 (constants.GGML_QUANT_SIZES). */
static void test_types(void) {
    static const struct {
        uint32_t id, block, bytes;
        const char *name;
    } known[] = {
        {0, 1, 4, "F32"},       {1, 1, 2, "F16"},         {2, 32, 18, "Q4_0"},    {3, 32, 20, "Q4_1"},
        {6, 32, 22, "Q5_0"},    {7, 32, 24, "Q5_1"},      {8, 32, 34, "Q8_0"},    {10, 256, 84, "Q2_K"},
        {11, 256, 110, "Q3_K"}, {12, 256, 144, "Q4_K"},   {13, 256, 176, "Q5_K"}, {14, 256, 210, "Q6_K"},
        {20, 32, 18, "IQ4_NL"}, {23, 256, 136, "IQ4_XS"}, {30, 1, 2, "BF16"},     {34, 256, 54, "TQ1_0"},
        {35, 256, 66, "TQ2_0"}, {39, 32, 17, "MXFP4"},    {40, 64, 36, "NVFP4"}};
    CHECK_EQ(nibl_dtype_count(), sizeof known / sizeof *known);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const nibl_dtype *t = nibl_dtype_by_id(known[i].id);
        uint64_t bytes = 0;
        if (!CHECK(t && t == nibl_dtype_at(i))) continue;
        CHECK(t->id == known[i].id && t->block == known[i].block && t->bytes == known[i].bytes);
        CHECK(strcmp(t->name, known[i].name) == 0 && strcmp(nibl_dtype_name(t->id), t->name) == 0);
        CHECK(nibl_dtype_row_bytes(t, 768, &bytes) && bytes == 768 / t->block * t->bytes);
        CHECK(t->block == 1 || !nibl_dtype_row_bytes(t, 33, &bytes));
        CHECK(t->block > 1 || t->bytes == 1 || !nibl_dtype_row_bytes(t, UINT64_MAX, &bytes));
        CHECK_EQ(bytes, 768 / t->block * t->bytes);
    }
    static const struct {
        uint32_t id;
        const char *name;
    } names[] = {{9, "Q8_1"}, {15, "Q8_K"}, {17, "IQ2_XS"}, {21, "IQ3_S"},
                 {24, "I8"},  {28, "F64"},  {29, "IQ1_M"},  {41, "Q1_0"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK(!nibl_dtype_by_id(names[i].id));
        CHECK(nibl_dtype_name(names[i].id) && strcmp(nibl_dtype_name(names[i].id), names[i].name) == 0);
    }
    CHECK(!nibl_dtype_name(42) && !nibl_dtype_name(UINT32_MAX) && !nibl_dtype_by_id(UINT32_MAX) &&
          !nibl_dtype_at(nibl_dtype_count()));
}

int main(void) {
    static const test tests[] = {
        {"any chunking gives the same header", test_chunking},
        {"a header cut anywhere", test_truncation},
        {"files that are no GGUF", test_not_gguf},
        {"hostile versions and counts", test_hostile_start},
        {"hostile metadata", test_hostile_metadata},
        {"hostile tensors", test_hostile_tensors},
        {"alignment", test_alignment},
        {"memory follows received bytes, not claims", test_memory_follows_bytes},
        {"50,000 strings, byte by byte", test_long_array},
        {"metadata as JSON", test_json},
        {"every byte spoiled", test_spoiled_bytes},
        {"every allocation fails once", test_no_memory},
        {"types", test_types},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

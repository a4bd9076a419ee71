/* The tokenizer fixtures: reads the corpus and the ids that Hugging Face's tokenizer gives for it, and
 * compares. tests/fixtures/tokenizer/make.py describes the files. */
#ifndef NIBL_CORPUS_H
#define NIBL_CORPUS_H

#include "core/tokenizer.h"
#include "core/unicode.h"
#include "tests/c/gguf_builder.h"
#include "tests/c/hostile.h"
#include "tests/c/test.h"

#define FIXTURE(name) "tests/fixtures/tokenizer/" name

void nibl_test_fail_alloc(int64_t n);

/* The header that the bytes begin with; exits where they begin with none. */
static inline nibl_gguf *header_of(const builder *b) {
    nibl_gguf *gguf;
    size_t taken;
    if (nibl_gguf_new(&gguf) == NIBL_OK && nibl_gguf_feed(gguf, b->bytes, b->length, &taken) == NIBL_OK)
        return gguf;
    printf("not a complete header: %s\n", nibl_last_message());
    exit(1);
}

/* The bytes that nibl_tokenizer_new allocates at most, itself given back or not. */
static inline uint64_t peak_of_new(const nibl_gguf *gguf, nibl_tokenizer **out) {
    uint64_t current, peak;
    nibl_memory(&current, &peak);
    void *filler =
        peak > current ? nibl_alloc(peak - current) : NULL; /* now every byte more raises the peak */
    CHECK_EQ(nibl_tokenizer_new(gguf, out), NIBL_OK);
    nibl_memory(NULL, &current);
    nibl_free(filler);
    return current - peak;
}

typedef struct record {
    char kind; /* the line's first character; in corpus.txt '+' where special tokens are recognised */
    char *text; /* what follows, unescaped in place */
    size_t length;
} record;

/* Takes the next line off `*at`. */
static inline bool record_next(char **at, const char *end, record *out) {
    char *line = *at, *stop = line < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
    if (!stop) return false;
    *at = stop + 1;
    *out = (record){line[0], line + 1, 0};
    for (char *p = line + 1; p < stop; p++) {
        char byte = *p;
        if (byte == '\\' && p[1] == 'x') {
            const char hex[] = {p[2], p[3], 0};
            byte = (char)strtol(hex, NULL, 16);
            p += 3;
        } else if (byte == '\\') {
            p++;
        }
        out->text[out->length++] = byte;
    }
    return true;
}

enum { ROOM = 4096, SAME = 0xFFFF };

/* Takes the next record's ids off `*at`; SAME instead of a count where a file refers to another. */
static inline size_t ids_next(const uint8_t **at, int32_t *ids) {
    size_t count = nibl_load_u16(*at);
    *at += 2;
    if (count == SAME) return SAME;
    if (!CHECK(count <= ROOM)) exit(1);
    for (size_t i = 0; i < count; i++, *at += 2) ids[i] = nibl_load_u16(*at);
    return count;
}

static inline void show_ids(const char *what, const int32_t *ids, size_t count) {
    printf("    %s:", what);
    for (size_t i = 0; i < count && i < 40; i++) printf(" %d", ids[i]);
    printf("\n");
}

/* The tokens' text is the record's, but for the bytes that the vocabulary lacks. */
static inline void check_text(const nibl_tokenizer *t, const int32_t *ids, size_t count, const record *r,
                              const char *lost) {
    char text[ROOM], wanted[3 * ROOM];
    size_t length, kept = 0, repaired = nibl_utf8_repair(r->text, r->length, wanted);
    for (size_t i = 0; i < repaired; i++)
        if (wanted[i] == 0 || !strchr(lost, wanted[i])) wanted[kept++] = wanted[i];
    if (!CHECK_EQ(nibl_tokenizer_decode(t, ids, count, true, text, ROOM, &length), NIBL_OK)) return;
    if (!CHECK(length == kept && memcmp(text, wanted, length) == 0))
        printf("    '%.*s' came back as '%.*s'\n", (int)r->length, r->text, (int)length, text);
}

typedef struct corpus_check {
    const char *ids; /* the file of what is expected */
    const char *same; /* the file it refers to; NULL = none */
    size_t every; /* of so many records it has one; 0 = 1 */
    bool plain; /* special tokens are recognised in no record */
    bool no_text; /* the text does not come back from the ids */
    const char *lost; /* bytes that the vocabulary lacks; NULL = none */
} corpus_check;

/* What the corpus asks of a tokenizer: the ids, and from them the text again. */
static inline void check_corpus(const nibl_tokenizer *t, corpus_check c) {
    int32_t ids[ROOM], wanted[ROOM], other[ROOM];
    builder corpus = read_whole(FIXTURE("corpus.txt")), expected = read_whole(c.ids),
            same = read_whole(c.same ? c.same : c.ids);
    if (!c.every) c.every = 1;
    char *at = (char *)corpus.bytes, *end = at + corpus.length;
    const uint8_t *e = expected.bytes, *s = same.bytes;
    size_t count, lines = 0;
    for (record r; record_next(&at, end, &r); lines++) {
        if (lines % c.every) continue;
        size_t wanted_count = ids_next(&e, wanted), other_count = ids_next(&s, other);
        if (wanted_count == SAME) memcpy(wanted, other, (wanted_count = other_count) * sizeof *wanted);
        uint32_t flags = r.kind == '+' && !c.plain ? NIBL_TOKENIZE_SPECIAL : 0;
        if (!CHECK_EQ(nibl_tokenizer_encode(t, r.text, r.length, flags, ids, ROOM, &count), NIBL_OK)) break;
        if (!CHECK(count == wanted_count && memcmp(ids, wanted, count * sizeof *ids) == 0)) {
            printf("    line %zu: '%.*s'\n", lines + 1, (int)r.length, r.text);
            show_ids("tokens", ids, count);
            show_ids("wanted", wanted, wanted_count);
        }
        if (!c.no_text) check_text(t, ids, count, &r, c.lost ? c.lost : "");
    }
    CHECK(lines == 1500 && e == expected.bytes + expected.length);
    free(corpus.bytes);
    free(expected.bytes);
    free(same.bytes);
}

#endif

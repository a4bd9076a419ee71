#include "core/token_trie.h"

#include <stdlib.h>
#include <string.h>

typedef struct entry {
    const char *bytes;
    uint32_t token, length;
} entry;

static int order(const void *x, const void *y) {
    const entry *a = x, *b = y;
    const int by_bytes = memcmp(a->bytes, b->bytes, a->length < b->length ? a->length : b->length);
    if (by_bytes) return by_bytes;
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return a->token < b->token ? -1 : 1;
}

/* The bytes of all tokens, one behind the other in `bytes` (NULL: counted only); those that count, in `entries`. */
static nibl_status gather(const nibl_tokenizer *t, char *bytes, size_t *length, entry *entries,
                          uint32_t *count) {
    size_t used = 0;
    *count = 0;
    for (uint32_t token = 0; token < nibl_tokenizer_size(t); token++) {
        char room[NIBL_TRIE_MAX_DEPTH];
        const size_t n = nibl_tokenizer_bytes(t, token, room, sizeof room);
        if (n == 0 || n > sizeof room) continue;
        if (bytes) {
            memcpy(bytes + used, room, n);
            entries[*count] = (entry){bytes + used, token, (uint32_t)n};
        }
        used += n;
        ++*count;
    }
    *length = used;
    return NIBL_OK;
}

static uint32_t common(const entry *a, const entry *b) {
    uint32_t n = 0;
    while (n < a->length && n < b->length && a->bytes[n] == b->bytes[n]) n++;
    return n;
}

/* Nodes of the sorted entries; only counted while the arrays are not there. */
static uint32_t lay_out(nibl_token_trie *trie, const entry *entries, uint32_t count) {
    uint32_t nodes = 0;
    uint32_t open[NIBL_TRIE_MAX_DEPTH + 1]; /* the node of each depth whose end is not known yet */
    uint32_t depth = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t same = i ? common(&entries[i - 1], &entries[i]) : 0;
        for (; trie->skip && depth > same; depth--) trie->skip[open[depth]] = nodes;
        for (uint32_t d = same; d < entries[i].length; d++, nodes++) {
            if (!trie->skip) continue;
            trie->byte[nodes] = (uint8_t)entries[i].bytes[d];
            trie->depth[nodes] = (uint8_t)(d + 1);
            trie->first[nodes] = i;
            open[d + 1] = nodes;
        }
        depth = entries[i].length;
        if (!trie->skip) continue;
        trie->sorted[i] = entries[i].token;
        if (entries[i].length == 1) trie->single[(uint8_t)entries[i].bytes[0]] = true;
    }
    if (!trie->skip) return nodes;
    for (; depth > 0; depth--) trie->skip[open[depth]] = nodes;
    trie->first[nodes] = count;
    return nodes;
}

static nibl_status build(nibl_token_trie *trie, entry *entries, uint32_t count) {
    qsort(entries, count, sizeof *entries, order);
    const uint32_t nodes = lay_out(trie, entries, count);
    trie->byte = nibl_alloc(nodes + 1ull);
    trie->depth = nibl_alloc(nodes + 1ull);
    trie->first = nibl_alloc((nodes + 1ull) * sizeof *trie->first);
    trie->sorted = nibl_alloc((count + 1ull) * sizeof *trie->sorted);
    uint32_t *skip = nibl_alloc((nodes + 1ull) * sizeof *skip);
    trie->skip = skip;
    if (!trie->byte || !trie->depth || !trie->first || !trie->sorted || !skip)
        return nibl_fail_memory(nodes * 10ull, "the vocabulary of a grammar");
    trie->count = lay_out(trie, entries, count);
    return NIBL_OK;
}

nibl_status nibl_token_trie_new(const nibl_tokenizer *t, nibl_token_trie **out) {
    size_t length;
    uint32_t count;
    NIBL_TRY(gather(t, NULL, &length, NULL, &count));
    nibl_token_trie *trie = nibl_alloc_zero(sizeof *trie);
    char *bytes = nibl_alloc(length + 1ull);
    entry *entries = nibl_alloc((count + 1ull) * sizeof *entries);
    nibl_status status = NIBL_OK;
    if (!trie || !bytes || !entries) {
        status = nibl_fail_memory(length + count * sizeof *entries, "the vocabulary of a grammar");
    } else {
        trie->tokens = (uint32_t)nibl_tokenizer_size(t);
        gather(t, bytes, &length, entries, &count);
        status = build(trie, entries, count);
    }
    nibl_free(bytes);
    nibl_free(entries);
    if (status < 0)
        nibl_token_trie_free(trie);
    else
        *out = trie;
    return status;
}

void nibl_token_trie_free(nibl_token_trie *trie) {
    if (!trie) return;
    nibl_free(trie->byte);
    nibl_free(trie->depth);
    nibl_free(trie->skip);
    nibl_free(trie->first);
    nibl_free(trie->sorted);
    nibl_free(trie);
}

#include "core/bpe.h"

/* A token of the word in its list; a token merged into its left neighbour drops out. */
typedef struct symbol {
    uint32_t token;
    uint32_t rank; /* of the pair that begins here; NIBL_BPE_NONE where it does not merge */
    uint32_t previous, next;
} symbol;

/* A binary heap of pairs, lowest first: rank << 32 | position. Those that changed since stay and are passed
 * over. */
typedef struct heap {
    uint64_t *items;
    size_t count;
} heap;

enum { STACK_WORD = 256 }; /* words up to this long need no allocation */

static uint64_t pair_hash(uint32_t left, uint32_t right) {
    return ((uint64_t)left << 32 | right) * 0xD6E8FEB86659FD93u;
}

static bool same_pair(const nibl_merge *merge, uint32_t left, uint32_t right) {
    return merge->left == left && merge->right == right;
}

nibl_status nibl_bpe_add_merge(nibl_bpe *bpe, uint32_t rank) {
    const nibl_merge *merge = &bpe->merges[rank];
    nibl_probe probe = nibl_index_start(&bpe->pairs, pair_hash(merge->left, merge->right));
    for (uint32_t other; nibl_index_next(&bpe->pairs, &probe, &other);) {
        if (same_pair(&bpe->merges[other], merge->left, merge->right))
            return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.merges: %u and %u are the same merge", other, rank);
    }
    if (nibl_index_put(&bpe->pairs, &probe, rank)) return NIBL_OK;
    return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.merges: merge %u collides with too many others", rank);
}

static uint32_t rank_of(const nibl_bpe *bpe, uint32_t left, uint32_t right) {
    nibl_probe probe = nibl_index_start(&bpe->pairs, pair_hash(left, right));
    for (uint32_t rank; nibl_index_next(&bpe->pairs, &probe, &rank);) {
        if (same_pair(&bpe->merges[rank], left, right)) return rank;
    }
    return NIBL_BPE_NONE;
}

static void heap_push(heap *h, uint64_t item) {
    size_t at = h->count++;
    for (size_t parent; at > 0 && h->items[parent = (at - 1) / 2] > item; at = parent)
        h->items[at] = h->items[parent];
    h->items[at] = item;
}

static uint64_t heap_pop(heap *h) {
    uint64_t top = h->items[0], moved = h->items[--h->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < h->count; at = child) {
        if (child + 1 < h->count && h->items[child + 1] < h->items[child]) child++;
        if (h->items[child] >= moved) break;
        h->items[at] = h->items[child];
    }
    h->items[at] = moved;
    return top;
}

/* Sets the rank of the pair that begins at `at` and queues it. */
static void update_pair(const nibl_bpe *bpe, symbol *symbols, heap *h, uint32_t at) {
    symbol *s = &symbols[at];
    s->rank = s->next == NIBL_BPE_NONE ? NIBL_BPE_NONE : rank_of(bpe, s->token, symbols[s->next].token);
    if (s->rank != NIBL_BPE_NONE) heap_push(h, (uint64_t)s->rank << 32 | at);
}

/* A merge takes one pair off the heap and puts at most two on, so 2 * count items are room enough. */
static void merge_all(const nibl_bpe *bpe, symbol *symbols, uint32_t count, heap *h) {
    for (uint32_t i = 0; i < count; i++) update_pair(bpe, symbols, h, i);
    while (h->count > 0) {
        uint64_t top = heap_pop(h);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32);
        symbol *left = &symbols[at];
        if (left->rank != rank) continue;
        symbol *right = &symbols[left->next];
        left->token = bpe->merges[rank].merged;
        left->next = right->next;
        right->rank = NIBL_BPE_NONE;
        if (left->next != NIBL_BPE_NONE) symbols[left->next].previous = at;
        update_pair(bpe, symbols, h, at);
        if (left->previous != NIBL_BPE_NONE) update_pair(bpe, symbols, h, left->previous);
    }
}

static uint32_t split_bytes(const nibl_bpe *bpe, const char *word, size_t length, symbol *symbols) {
    uint32_t count = 0;
    for (size_t i = 0; i < length; i++) {
        uint32_t token = bpe->byte_token[(uint8_t)word[i]];
        if (token == NIBL_BPE_NONE) continue;
        symbols[count] = (symbol){token, NIBL_BPE_NONE, count - 1, count + 1};
        count++;
    }
    if (count > 0)
        symbols[count - 1].next = NIBL_BPE_NONE; /* the first one's `previous` wrapped round to it */
    return count;
}

nibl_status nibl_bpe_encode(const nibl_bpe *bpe, const char *word, size_t length, nibl_token_list *out) {
    symbol stack_symbols[STACK_WORD];
    uint64_t stack_heap[2 * STACK_WORD];
    symbol *symbols = stack_symbols;
    heap h = {.items = stack_heap};
    if (length > STACK_WORD) {
        uint64_t bytes = (uint64_t)length * (2 * sizeof(uint64_t) + sizeof(symbol));
        h.items = nibl_alloc(bytes);
        if (!h.items) return nibl_fail_memory(bytes, "a long word's tokens");
        symbols = (symbol *)(h.items + 2 * length);
    }
    uint32_t count = split_bytes(bpe, word, length, symbols);
    merge_all(bpe, symbols, count, &h);
    for (uint32_t i = count ? 0 : NIBL_BPE_NONE; i != NIBL_BPE_NONE; i = symbols[i].next)
        nibl_token_list_add(out, symbols[i].token);
    if (h.items != stack_heap) nibl_free(h.items);
    return NIBL_OK;
}

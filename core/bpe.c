#include "core/bpe.h"

#include "core/unicode.h"

#define NONE 0xFFFFFFFFu

/* A token of the word, at the index of its first byte; a token merged into its left neighbour drops out. */
typedef struct symbol {
    uint32_t token; /* NIBL_NO_TOKEN: a character that is none */
    uint32_t rank, merged; /* of the pair that begins here; NONE where it does not merge */
    uint32_t previous, next; /* NONE at the ends */
} symbol;

typedef struct word {
    const nibl_bpe *bpe;
    const char *text;
    uint32_t length;
    symbol *symbols;
} word;

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
    return NONE;
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

static uint32_t end_of(const word *w, uint32_t at) {
    return w->symbols[at].next == NONE ? w->length : w->symbols[at].next;
}

static void find_pair(const word *w, uint32_t at) {
    symbol *left = &w->symbols[at];
    left->rank = NONE;
    if (left->next == NONE) return;
    if (w->bpe->scores) {
        left->merged = nibl_pieces_find_word(w->bpe->pieces, w->text + at, end_of(w, left->next) - at);
        if (left->merged != NIBL_NO_TOKEN) left->rank = nibl_pieces_rank(w->bpe->pieces, left->merged);
    } else {
        left->rank = rank_of(w->bpe, left->token, w->symbols[left->next].token);
        if (left->rank != NONE) left->merged = w->bpe->merges[left->rank].merged;
    }
}

/* Sets the rank of the pair that begins at `at` and queues it. */
static void update_pair(const word *w, heap *h, uint32_t at) {
    find_pair(w, at);
    if (w->symbols[at].rank != NONE) heap_push(h, (uint64_t)w->symbols[at].rank << 32 | at);
}

/* A merge takes one pair off the heap and puts at most two on, so 2 * length items are room enough. */
static void merge_all(const word *w, uint32_t first, heap *h) {
    for (uint32_t i = first; i != NONE; i = w->symbols[i].next) update_pair(w, h, i);
    while (h->count > 0) {
        uint64_t top = heap_pop(h);
        uint32_t at = (uint32_t)top, rank = (uint32_t)(top >> 32);
        symbol *left = &w->symbols[at];
        if (left->rank != rank) continue;
        symbol *right = &w->symbols[left->next];
        left->token = left->merged;
        left->next = right->next;
        right->rank = NONE;
        if (left->next != NONE) w->symbols[left->next].previous = at;
        update_pair(w, h, at);
        if (left->previous != NONE) update_pair(w, h, left->previous);
    }
}

/* Bytes, or characters; returns the first one's index. */
static uint32_t split(const word *w) {
    const nibl_slice empty = {"", 0};
    uint32_t first = NONE, last = NONE, width = 1, code;
    for (uint32_t i = 0; i < w->length; i += width) {
        uint32_t token = w->bpe->byte_token[(uint8_t)w->text[i]];
        if (w->bpe->pieces) {
            width = (uint32_t)nibl_utf8_step(w->text + i, w->length - i, &code);
            token = w->bpe->scores
                        ? nibl_pieces_find_word(w->bpe->pieces, w->text + i, width)
                        : nibl_pieces_find(w->bpe->pieces, (nibl_slice){w->text + i, width}, empty);
        } else if (token == NIBL_NO_TOKEN) {
            continue;
        }
        w->symbols[i] = (symbol){.token = token, .rank = NONE, .previous = last, .next = NONE};
        *(last == NONE ? &first : &w->symbols[last].next) = i;
        last = i;
    }
    return first;
}

/* A symbol. A character that is no token is its bytes' tokens, or else unknown: one token for all such in a row. */
static void put_symbol(const word *w, uint32_t at, bool *unknown, nibl_token_list *out) {
    bool bytes = w->symbols[at].token == NIBL_NO_TOKEN;
    for (uint32_t i = at; i < end_of(w, at); i++)
        bytes = bytes && w->bpe->byte_token[(uint8_t)w->text[i]] != NIBL_NO_TOKEN;
    const bool again = *unknown;
    *unknown = w->symbols[at].token == NIBL_NO_TOKEN && !bytes;
    if (bytes)
        for (uint32_t i = at; i < end_of(w, at); i++)
            nibl_token_list_add(out, w->bpe->byte_token[(uint8_t)w->text[i]]);
    else if (!*unknown)
        nibl_token_list_add(out, w->symbols[at].token);
    else if (!again && w->bpe->unknown != NIBL_NO_TOKEN)
        nibl_token_list_add(out, w->bpe->unknown);
}

nibl_status nibl_bpe_encode(const nibl_bpe *bpe, const char *text, size_t length, nibl_token_list *out) {
    symbol stack_symbols[STACK_WORD];
    uint64_t stack_heap[2 * STACK_WORD];
    word w = {bpe, text, (uint32_t)length, stack_symbols};
    heap h = {.items = stack_heap};
    if (length > STACK_WORD) {
        uint64_t bytes = (uint64_t)length * (2 * sizeof(uint64_t) + sizeof(symbol));
        h.items = nibl_alloc(bytes);
        if (!h.items) return nibl_fail_memory(bytes, "a long word's tokens");
        w.symbols = (symbol *)(h.items + 2 * length);
    }
    uint32_t first = split(&w);
    merge_all(&w, first, &h);
    bool unknown = false;
    for (uint32_t i = first; i != NONE; i = w.symbols[i].next) put_symbol(&w, i, &unknown, out);
    if (h.items != stack_heap) nibl_free(h.items);
    return NIBL_OK;
}

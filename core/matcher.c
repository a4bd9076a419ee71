#include "core/matcher.h"

#include <math.h>
#include <string.h>

enum {
    DEAD = 0, /* the state that nothing leads out of */
    MAX_CLOSURE = 1 << 16, /* places looked at for one byte */
    MAX_FRAMES = 1 << 20,
    MAX_STATES = 1 << 17,
    FORGET_BYTES = 4 << 20, /* more than this is forgotten between tokens */
    LONG_COMPLETION = 4096 /* bytes; longer ones are not cut into tokens, but counted */
};
static const uint32_t unknown = UINT32_MAX, never = NIBL_GRAMMAR_NEVER;

/* Where a rule returns to, or a repetition that has been gone through `count` times; and what it stands in. */
typedef struct frame {
    uint32_t node, count, parent;
    uint32_t rest; /* bytes that must come behind it, at least */
} frame;

/* A place in the grammar where a byte is due. */
typedef struct item {
    uint32_t node, offset, frame; /* offset: in a text */
} item;

typedef struct state {
    uint32_t first, count; /* items */
    uint32_t least; /* bytes to the end of the text */
    uint32_t need; /* tokens to it, at most; `unknown` */
    uint32_t worst; /* of the states that its mask leads to, the largest `least` */
    uint32_t *mask; /* a bit a token, or NULL */
    bool complete;
} state;

typedef struct table { /* open addressing, of indices + 1 */
    uint32_t *slots;
    uint32_t size, used;
} table;

struct nibl_matcher {
    nibl_rules rules;
    const nibl_token_trie *trie;
    uint32_t *least; /* (nodes): bytes from the node to the end of its sequence */
    uint32_t *rule_least; /* (rules) */
    uint8_t class_of[256], byte_of[256]; /* bytes that no node tells apart */
    uint32_t classes;
    frame *frames; /* [0] is the bottom */
    item *items; /* of all states */
    state *states;
    uint32_t *next; /* (states, classes) */
    size_t frame_count, frame_capacity, item_count, item_capacity, state_count, state_capacity, next_capacity;
    table frame_index, state_index;
    size_t mask_bytes;
    /* the closure at work */
    item *work; /* offset unused */
    size_t work_count, work_capacity;
    item *seen;
    size_t seen_count, seen_capacity;
    table seen_index;
    item *found;
    size_t found_count, found_capacity;
    bool found_end;
    /* the text */
    uint32_t start, at;
    uint32_t left; /* tokens */
    uint32_t *scratch; /* a mask */
};

/* ---- Tables ---- */

static uint32_t mix(uint32_t hash, uint32_t value) {
    hash = (hash ^ value) * 0x9E3779B1u;
    return hash ^ hash >> 15;
}

static nibl_status table_clear(table *t, uint32_t size) {
    if (t->size != size) {
        nibl_free(t->slots);
        t->size = 0;
        t->slots = nibl_alloc((uint64_t)size * sizeof *t->slots);
        if (!t->slots) return nibl_fail_memory((uint64_t)size * sizeof *t->slots, "a grammar");
        t->size = size;
    }
    memset(t->slots, 0, size * sizeof *t->slots);
    t->used = 0;
    return NIBL_OK;
}

#define RESERVE(array, capacity, count)                                                                      \
    do {                                                                                                     \
        void *grown_ = (array);                                                                              \
        nibl_status status_ = nibl_reserve(&grown_, &(capacity), (count), sizeof *(array), "a grammar");     \
        (array) = grown_;                                                                                    \
        NIBL_TRY(status_);                                                                                   \
    } while (0)

/* Doubles a table that is half full; `hash` of every index. */
static nibl_status table_grow(nibl_matcher *m, table *t, uint32_t (*hash)(const nibl_matcher *, uint32_t)) {
    if (2 * (t->used + 1) < t->size) return NIBL_OK;
    const uint32_t count = t->used;
    const uint32_t size = t->size ? 2 * t->size : 256;
    uint32_t *old = t->slots;
    const uint32_t old_size = t->size;
    table bigger = {0};
    NIBL_TRY(table_clear(&bigger, size));
    for (uint32_t i = 0; i < old_size; i++) {
        if (!old[i]) continue;
        uint32_t slot = hash(m, old[i] - 1) & (size - 1);
        while (bigger.slots[slot]) slot = (slot + 1) & (size - 1);
        bigger.slots[slot] = old[i];
    }
    nibl_free(old);
    *t = bigger;
    t->used = count;
    return NIBL_OK;
}

/* ---- Frames ---- */

static uint32_t frame_key(const frame *f) { return mix(mix(mix(1, f->node), f->count), f->parent); }
static uint32_t frame_hash(const nibl_matcher *m, uint32_t i) { return frame_key(&m->frames[i]); }

static nibl_status frame_of(nibl_matcher *m, uint32_t node, uint32_t count, uint32_t parent, uint32_t *out) {
    NIBL_TRY(table_grow(m, &m->frame_index, frame_hash));
    frame f = {.node = node, .count = count, .parent = parent};
    uint32_t slot = frame_key(&f) & (m->frame_index.size - 1);
    for (; m->frame_index.slots[slot]; slot = (slot + 1) & (m->frame_index.size - 1)) {
        const frame *g = &m->frames[m->frame_index.slots[slot] - 1];
        if (g->node == node && g->count == count && g->parent == parent) {
            *out = m->frame_index.slots[slot] - 1;
            return NIBL_OK;
        }
    }
    if (m->frame_count == MAX_FRAMES) return nibl_fail(NIBL_E_GRAMMAR, "the grammar nests too deeply");
    RESERVE(m->frames, m->frame_capacity, m->frame_count + 1);
    const nibl_grammar_node *n = &m->rules.nodes[node];
    f.rest = nibl_add_capped(m->frames[parent].rest, n->next ? m->least[n->next] : 0);
    if (n->kind == NIBL_GRAMMAR_REPEAT && n->min > count + 1)
        f.rest = nibl_add_capped(f.rest, nibl_times_capped(n->min - count - 1, m->rule_least[n->what]));
    *out = (uint32_t)m->frame_count;
    m->frames[m->frame_count++] = f;
    m->frame_index.slots[slot] = *out + 1;
    m->frame_index.used++;
    return NIBL_OK;
}

/* ---- Closure: from places in the grammar to those where a byte is due ---- */

static nibl_status push(nibl_matcher *m, uint32_t node, uint32_t f) {
    RESERVE(m->work, m->work_capacity, m->work_count + 1);
    m->work[m->work_count++] = (item){.node = node, .frame = f};
    return NIBL_OK;
}

static uint32_t seen_hash(const nibl_matcher *m, uint32_t i) {
    return mix(mix(2, m->seen[i].node), m->seen[i].frame);
}

static nibl_status see(nibl_matcher *m, item it, bool *is_new) {
    NIBL_TRY(table_grow(m, &m->seen_index, seen_hash));
    const uint32_t mask = m->seen_index.size - 1;
    uint32_t slot = mix(mix(2, it.node), it.frame) & mask;
    for (; m->seen_index.slots[slot]; slot = (slot + 1) & mask) {
        const item *s = &m->seen[m->seen_index.slots[slot] - 1];
        if (s->node == it.node && s->frame == it.frame) {
            *is_new = false;
            return NIBL_OK;
        }
    }
    if (m->seen_count == MAX_CLOSURE)
        return nibl_fail(NIBL_E_GRAMMAR,
                         "the grammar is left-recursive, or there are too many ways to read a text");
    RESERVE(m->seen, m->seen_capacity, m->seen_count + 1);
    m->seen[m->seen_count++] = it;
    m->seen_index.slots[slot] = (uint32_t)m->seen_count;
    m->seen_index.used++;
    *is_new = true;
    return NIBL_OK;
}

static nibl_status push_rule(nibl_matcher *m, uint32_t rule, uint32_t f) {
    for (uint32_t b = m->rules.rules[rule].first; b; b = m->rules.branches[b].next)
        NIBL_TRY(push(m, m->rules.branches[b].first, f));
    return NIBL_OK;
}

/* A repetition that has been gone through `count` times. */
static nibl_status push_repeat(nibl_matcher *m, uint32_t node, uint32_t count, uint32_t parent) {
    const nibl_grammar_node n = m->rules.nodes[node];
    if (count < n.max) {
        uint32_t f;
        NIBL_TRY(frame_of(m, node, n.max == NIBL_GRAMMAR_MANY && count > n.min ? n.min : count, parent, &f));
        NIBL_TRY(push_rule(m, n.what, f));
    }
    return count >= n.min ? push(m, n.next, parent) : NIBL_OK;
}

/* The text can end the frame's rule here. */
static nibl_status pop(nibl_matcher *m, uint32_t index) {
    if (index == 0) {
        m->found_end = true;
        return NIBL_OK;
    }
    const frame f = m->frames[index];
    const nibl_grammar_node *n = &m->rules.nodes[f.node];
    if (n->kind == NIBL_GRAMMAR_CALL) return push(m, n->next, f.parent);
    return push_repeat(m, f.node, f.count + 1, f.parent);
}

static uint32_t item_least(const nibl_matcher *m, const item *it) {
    const uint32_t own = m->least[it->node];
    return own >= never ? never : nibl_add_capped(own - it->offset, m->frames[it->frame].rest);
}

/* What cannot be completed is left out: no text runs into a dead end. */
static nibl_status find(nibl_matcher *m, item it) {
    if (item_least(m, &it) >= never) return NIBL_OK;
    RESERVE(m->found, m->found_capacity, m->found_count + 1);
    m->found[m->found_count++] = it;
    return NIBL_OK;
}

static nibl_status close_over(nibl_matcher *m) {
    while (m->work_count > 0) {
        const item it = m->work[--m->work_count];
        bool is_new;
        NIBL_TRY(see(m, it, &is_new));
        if (!is_new) continue;
        if (it.node == 0) {
            NIBL_TRY(pop(m, it.frame));
            continue;
        }
        const nibl_grammar_node n = m->rules.nodes[it.node];
        if (n.kind == NIBL_GRAMMAR_CALL) {
            uint32_t f = it.frame;
            if (n.next) NIBL_TRY(frame_of(m, it.node, 0, it.frame, &f));
            NIBL_TRY(push_rule(m, n.what, f));
        } else if (n.kind == NIBL_GRAMMAR_REPEAT) {
            NIBL_TRY(push_repeat(m, it.node, 0, it.frame));
        } else {
            NIBL_TRY(find(m, it));
        }
    }
    return NIBL_OK;
}

static nibl_status begin_closure(nibl_matcher *m) {
    m->work_count = m->seen_count = m->found_count = 0;
    m->found_end = false;
    return table_clear(&m->seen_index, 256);
}

/* ---- States ---- */

static int compare(const item *a, const item *b) {
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    return a->frame < b->frame ? -1 : a->frame > b->frame;
}

static void sift(item *list, size_t n, size_t i) {
    for (;;) {
        size_t top = i;
        for (size_t child = 2 * i + 1; child < n && child <= 2 * i + 2; child++)
            if (compare(&list[child], &list[top]) > 0) top = child;
        if (top == i) return;
        const item swap = list[i];
        list[i] = list[top];
        list[top] = swap;
        i = top;
    }
}

/* Sorted, none twice: what a text can have led to has one form. */
static size_t in_order(item *list, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift(list, n, i);
    for (size_t left = n; left > 1; left--) {
        const item top = list[0];
        list[0] = list[left - 1];
        list[left - 1] = top;
        sift(list, left - 1, 0);
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || compare(&list[i], &list[kept - 1]) != 0) list[kept++] = list[i];
    return kept;
}

static uint32_t items_hash(const item *list, size_t n, bool end) {
    uint32_t hash = end;
    for (size_t i = 0; i < n; i++) hash = mix(mix(mix(hash, list[i].node), list[i].offset), list[i].frame);
    return hash;
}

static uint32_t state_hash(const nibl_matcher *m, uint32_t i) {
    return items_hash(m->items + m->states[i].first, m->states[i].count, m->states[i].complete);
}

/* The state of what the closure found. */
static nibl_status state_of(nibl_matcher *m, uint32_t *out) {
    m->found_count = in_order(m->found, m->found_count);
    if (m->found_count == 0 && !m->found_end) {
        *out = DEAD;
        return NIBL_OK;
    }
    NIBL_TRY(table_grow(m, &m->state_index, state_hash));
    const uint32_t mask = m->state_index.size - 1;
    uint32_t slot = items_hash(m->found, m->found_count, m->found_end) & mask;
    for (; m->state_index.slots[slot]; slot = (slot + 1) & mask) {
        const state *s = &m->states[m->state_index.slots[slot] - 1];
        if (s->count == m->found_count && s->complete == m->found_end &&
            memcmp(m->items + s->first, m->found, m->found_count * sizeof *m->found) == 0) {
            *out = m->state_index.slots[slot] - 1;
            return NIBL_OK;
        }
    }
    if (m->state_count == MAX_STATES)
        return nibl_fail(NIBL_E_GRAMMAR, "the grammar has too many states: simplify it");
    RESERVE(m->states, m->state_capacity, m->state_count + 1);
    RESERVE(m->next, m->next_capacity, (m->state_count + 1) * m->classes);
    RESERVE(m->items, m->item_capacity, m->item_count + m->found_count);
    state s = {.first = (uint32_t)m->item_count,
               .count = (uint32_t)m->found_count,
               .least = m->found_end ? 0 : never,
               .need = unknown,
               .complete = m->found_end};
    for (size_t i = 0; i < m->found_count; i++) {
        const uint32_t least = item_least(m, &m->found[i]);
        if (least < s.least) s.least = least;
        m->items[m->item_count++] = m->found[i];
    }
    *out = (uint32_t)m->state_count++;
    m->states[*out] = s;
    for (uint32_t c = 0; c < m->classes; c++) m->next[*out * m->classes + c] = unknown;
    m->state_index.slots[slot] = *out + 1;
    m->state_index.used++;
    return NIBL_OK;
}

static bool takes(const nibl_matcher *m, const item *it, uint8_t byte) {
    const nibl_grammar_node *n = &m->rules.nodes[it->node];
    if (n->kind == NIBL_GRAMMAR_TEXT) return (uint8_t)m->rules.text[n->what + it->offset] == byte;
    return m->rules.sets[n->what].bits[byte / 32] >> byte % 32 & 1;
}

static nibl_status make_step(nibl_matcher *m, uint32_t from, uint32_t class, uint32_t *out) {
    const uint8_t byte = m->byte_of[class];
    NIBL_TRY(begin_closure(m));
    for (uint32_t i = 0; i < m->states[from].count; i++) {
        const item it = m->items[m->states[from].first + i];
        if (!takes(m, &it, byte)) continue;
        const nibl_grammar_node *n = &m->rules.nodes[it.node];
        if (n->kind == NIBL_GRAMMAR_TEXT && it.offset + 1 < n->max)
            NIBL_TRY(find(m, (item){it.node, it.offset + 1, it.frame}));
        else
            NIBL_TRY(push(m, n->next, it.frame));
    }
    NIBL_TRY(close_over(m));
    NIBL_TRY(state_of(m, out));
    m->next[from * m->classes + class] = *out;
    return NIBL_OK;
}

static inline nibl_status step(nibl_matcher *m, uint32_t from, uint8_t byte, uint32_t *out) {
    const uint32_t class = m->class_of[byte];
    *out = m->next[from * m->classes + class];
    return *out == unknown ? make_step(m, from, class, out) : NIBL_OK;
}

/* ---- How much must still come ---- */

/* Tokens that complete the text from a state: those of a shortest completion, cut as well as can be. The states on its way
 * learn theirs. */
static nibl_status find_need(nibl_matcher *m, uint32_t from) {
    const uint32_t length = m->states[from].least;
    if (length > LONG_COMPLETION) {
        m->states[from].need = length;
        return NIBL_OK;
    }
    uint8_t text[LONG_COMPLETION];
    uint32_t way[LONG_COMPLETION + 1], need[LONG_COMPLETION + 1];
    way[0] = from;
    for (uint32_t i = 0; i < length; i++) {
        uint32_t to = DEAD, c = 0;
        for (; c < m->classes; c++) {
            if (!m->trie->single[m->byte_of[c]]) continue;
            NIBL_TRY(step(m, way[i], m->byte_of[c], &to));
            if (to != DEAD && m->states[to].least + 1 == m->states[way[i]].least) break;
        }
        if (c == m->classes) return nibl_fail(NIBL_E_GRAMMAR, "the grammar cannot be completed");
        text[i] = m->byte_of[c];
        way[i + 1] = to;
    }
    const nibl_token_trie *t = m->trie;
    need[length] = 0;
    for (uint32_t i = length; i-- > 0;) {
        need[i] = need[i + 1] + 1;
        uint32_t node = 0, end = t->count;
        for (uint32_t j = i; j < length; j++) {
            while (node < end && t->byte[node] != text[j]) node = t->skip[node];
            if (node >= end) break;
            if (t->first[node + 1] > t->first[node] && need[j + 1] + 1 < need[i]) need[i] = need[j + 1] + 1;
            end = t->skip[node];
            node++;
        }
    }
    for (uint32_t i = 0; i <= length; i++) m->states[way[i]].need = need[i];
    return NIBL_OK;
}

/* Whether the text can be completed from there with so many tokens. */
static nibl_status enough(nibl_matcher *m, uint32_t at, uint32_t tokens, bool *out) {
    if (m->states[at].least > tokens && m->states[at].need == unknown) NIBL_TRY(find_need(m, at));
    *out = m->states[at].least <= tokens || m->states[at].need <= tokens;
    return NIBL_OK;
}

/* ---- Life ---- */

static nibl_status first_state(nibl_matcher *m) {
    RESERVE(m->frames, m->frame_capacity, 1);
    m->frames[0] = (frame){0};
    m->frame_count = 1;
    RESERVE(m->states, m->state_capacity, 1);
    RESERVE(m->next, m->next_capacity, m->classes);
    m->states[DEAD] = (state){.least = never, .need = never};
    m->state_count = 1;
    for (uint32_t c = 0; c < m->classes; c++) m->next[c] = DEAD;
    NIBL_TRY(begin_closure(m));
    NIBL_TRY(push_rule(m, NIBL_GRAMMAR_ROOT, 0));
    NIBL_TRY(close_over(m));
    NIBL_TRY(state_of(m, &m->start));
    m->at = m->start;
    return NIBL_OK;
}

static nibl_status build(nibl_matcher *m) {
    NIBL_TRY(m->rules.status);
    m->least = nibl_alloc((m->rules.node_count + 1ull) * sizeof *m->least);
    m->rule_least = nibl_alloc((m->rules.rule_count + 1ull) * sizeof *m->rule_least);
    if (!m->least || !m->rule_least) return nibl_fail_memory(4ull * m->rules.node_count, "a grammar");
    NIBL_TRY(nibl_grammar_measure(&m->rules, m->trie->single, m->least, m->rule_least));
    m->classes = nibl_grammar_classes(&m->rules, m->trie->single, m->class_of, m->byte_of);
    m->scratch = nibl_alloc((m->trie->tokens / 32 + 1ull) * sizeof *m->scratch);
    if (!m->scratch) return nibl_fail_memory(m->trie->tokens / 8, "a grammar");
    return first_state(m);
}

nibl_status nibl_matcher_new(nibl_rules *rules, const nibl_token_trie *trie, nibl_matcher **out) {
    nibl_matcher *m = nibl_alloc_zero(sizeof *m);
    if (!m) {
        nibl_rules_free(rules);
        return nibl_fail_memory(sizeof *m, "a grammar");
    }
    m->rules = *rules;
    *rules = (nibl_rules){0};
    m->trie = trie;
    const nibl_status status = build(m);
    if (status < 0)
        nibl_matcher_free(m);
    else
        *out = m;
    return status;
}

static void forget_masks(nibl_matcher *m) {
    for (size_t i = 0; i < m->state_count; i++) {
        nibl_free(m->states[i].mask);
        m->states[i].mask = NULL;
    }
    m->mask_bytes = 0;
}

void nibl_matcher_free(nibl_matcher *m) {
    if (!m) return;
    forget_masks(m);
    nibl_rules_free(&m->rules);
    void *const parts[] = {m->least,
                           m->rule_least,
                           m->frames,
                           m->items,
                           m->states,
                           m->next,
                           m->frame_index.slots,
                           m->state_index.slots,
                           m->work,
                           m->seen,
                           m->seen_index.slots,
                           m->found,
                           m->scratch};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) nibl_free(parts[i]);
    nibl_free(m);
}

/* Keeps the state the text is in, and its stacks, alone. */
static nibl_status forget(nibl_matcher *m) {
    const state kept = m->states[m->at];
    item *items = nibl_alloc((kept.count + 1ull) * sizeof *items);
    uint32_t *moved = nibl_alloc_zero(m->frame_count * sizeof *moved);
    nibl_status status = NIBL_OK;
    if (!items || !moved) status = nibl_fail_memory(m->frame_count * sizeof *moved, "a grammar");
    if (status == NIBL_OK) {
        memcpy(items, m->items + kept.first, kept.count * sizeof *items);
        for (uint32_t i = 0; i < kept.count; i++) moved[items[i].frame] = 1;
        for (size_t i = m->frame_count; i-- > 1;) /* what a frame stands in was made before it */
            if (moved[i]) moved[m->frames[i].parent] = 1;
        forget_masks(m);
        const size_t frames = m->frame_count;
        m->frame_count = 1;
        m->item_count = 0;
        status = table_clear(&m->frame_index, 256);
        if (status == NIBL_OK) status = table_clear(&m->state_index, 256);
        for (size_t i = 1; i < frames && status == NIBL_OK; i++) {
            const frame f = m->frames[i];
            if (moved[i]) status = frame_of(m, f.node, f.count, f.parent ? moved[f.parent] : 0, &moved[i]);
        }
        if (status == NIBL_OK) status = begin_closure(m);
        for (uint32_t i = 0; i < kept.count && status == NIBL_OK; i++) {
            items[i].frame = items[i].frame ? moved[items[i].frame] : 0;
            status = find(m, items[i]);
        }
        m->state_count = 1;
        m->found_end = kept.complete;
        if (status == NIBL_OK) status = state_of(m, &m->at);
        m->start = unknown; /* made again when it is asked for */
    }
    nibl_free(items);
    nibl_free(moved);
    return status;
}

nibl_status nibl_matcher_start(nibl_matcher *m, uint32_t tokens) {
    if (m->start == unknown) {
        forget_masks(m);
        m->frame_count = m->item_count = 0;
        NIBL_TRY(table_clear(&m->frame_index, 256));
        NIBL_TRY(table_clear(&m->state_index, 256));
        NIBL_TRY(first_state(m));
    }
    m->at = m->start;
    m->left = tokens;
    bool is_enough;
    NIBL_TRY(enough(m, m->at, tokens, &is_enough));
    if (is_enough) return NIBL_OK;
    return nibl_fail(NIBL_E_GRAMMAR, "the shortest text of the grammar takes %u tokens, %u are allowed",
                     m->states[m->at].need, tokens);
}

/* ---- Masks ---- */

/* The tokens that lead somewhere from where `left` more can complete the text. *worst: the most bytes that are missing
 * behind any of them. */
static nibl_status fill_mask(nibl_matcher *m, uint32_t left, uint32_t *mask, uint32_t *worst) {
    const nibl_token_trie *t = m->trie;
    uint32_t way[NIBL_TRIE_MAX_DEPTH + 1];
    memset(mask, 0, (t->tokens / 32 + 1) * sizeof *mask);
    *worst = 0;
    way[0] = m->at;
    for (uint32_t i = 0; i < t->count;) {
        uint32_t to;
        NIBL_TRY(step(m, way[t->depth[i] - 1], t->byte[i], &to));
        if (to == DEAD) {
            i = t->skip[i];
            continue;
        }
        way[t->depth[i]] = to;
        const uint32_t first = t->first[i], last = t->first[i + 1];
        i++;
        if (first == last) continue;
        bool ok = true;
        if (m->states[to].least > left) NIBL_TRY(enough(m, to, left, &ok));
        if (!ok) continue;
        if (m->states[to].least > *worst) *worst = m->states[to].least;
        for (uint32_t k = first; k < last; k++) mask[t->sorted[k] / 32] |= 1u << t->sorted[k] % 32;
    }
    return NIBL_OK;
}

static nibl_status mask_of(nibl_matcher *m, const uint32_t **out) {
    const uint32_t left = m->left ? m->left - 1 : 0;
    const size_t bytes = (m->trie->tokens / 32 + 1) * sizeof(uint32_t);
    if (m->mask_bytes + m->state_count * (sizeof(state) + m->classes * sizeof(uint32_t)) +
            m->frame_count * sizeof(frame) + m->item_count * sizeof(item) >
        FORGET_BYTES)
        NIBL_TRY(forget(m));
    *out = m->states[m->at].mask;
    if (*out && m->states[m->at].worst <= left) return NIBL_OK;
    uint32_t worst;
    if (!*out) { /* all that are possible, for the next time */
        NIBL_TRY(fill_mask(m, never, m->scratch, &worst));
        uint32_t *kept = nibl_alloc(bytes);
        if (!kept) return nibl_fail_memory(bytes, "a grammar");
        memcpy(kept, m->scratch, bytes);
        m->states[m->at].mask = kept;
        m->states[m->at].worst = worst;
        m->mask_bytes += bytes;
        *out = kept;
        if (worst <= left) return NIBL_OK;
    }
    NIBL_TRY(fill_mask(m, left, m->scratch, &worst));
    *out = m->scratch;
    return NIBL_OK;
}

nibl_status nibl_matcher_apply(nibl_matcher *m, float *logits, uint32_t vocabulary, const int32_t *ends,
                               size_t end_count) {
    float kept[NIBL_END_TOKENS];
    for (size_t i = 0; i < end_count; i++) kept[i] = ends[i] < 0 ? 0 : logits[ends[i]];
    const uint32_t *mask;
    NIBL_TRY(mask_of(m, &mask));
    for (uint32_t i = 0; i < vocabulary; i++)
        if (i >= m->trie->tokens || !(mask[i / 32] >> i % 32 & 1)) logits[i] = -INFINITY;
    for (size_t i = 0; i < end_count && m->states[m->at].complete; i++)
        if (ends[i] >= 0) logits[ends[i]] = kept[i];
    return NIBL_OK;
}

nibl_status nibl_matcher_accept(nibl_matcher *m, const char *bytes, size_t length) {
    for (size_t i = 0; i < length && m->at != DEAD; i++) NIBL_TRY(step(m, m->at, (uint8_t)bytes[i], &m->at));
    if (m->left) m->left--;
    if (m->at == DEAD) return nibl_fail(NIBL_E_GRAMMAR, "the grammar does not allow this token");
    return NIBL_OK;
}

bool nibl_matcher_complete(const nibl_matcher *m) { return m->states[m->at].complete; }

bool nibl_matcher_done(const nibl_matcher *m) {
    return m->states[m->at].complete && (m->states[m->at].count == 0 || m->left == 0);
}

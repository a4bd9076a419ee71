#include "core/grammar.h"

#include <string.h>

static bool has(const uint32_t bits[8], uint32_t byte) { return bits[byte / 32] >> byte % 32 & 1; }

/* ---- Lengths ---- */

/* Of the node alone. */
static uint32_t least_of(const nibl_rules *r, const nibl_grammar_node *n, const bool single[256],
                         const uint32_t *rule_least) {
    switch (n->kind) {
    case NIBL_GRAMMAR_TEXT:
        for (uint32_t i = 0; i < n->max; i++)
            if (!single[(uint8_t)r->text[n->what + i]]) return NIBL_GRAMMAR_NEVER;
        return n->max;
    case NIBL_GRAMMAR_SET:
        for (uint32_t byte = 0; byte < 256; byte++)
            if (single[byte] && has(r->sets[n->what].bits, byte)) return 1;
        return NIBL_GRAMMAR_NEVER;
    case NIBL_GRAMMAR_CALL: return rule_least[n->what];
    default: return n->min ? nibl_times_capped(rule_least[n->what], n->min) : 0;
    }
}

static bool lower(uint32_t *value, uint32_t to) {
    const bool less = to < *value;
    if (less) *value = to;
    return less;
}

/* A repetition of something that may be empty is gone through in one byte any number of times: few, or without a bound. */
static nibl_status check_repeats(nibl_rules *r, const uint32_t *rule_least) {
    enum { FEW = 16 };
    for (size_t i = 1; i < r->node_count; i++) {
        nibl_grammar_node *n = &r->nodes[i];
        if (n->kind != NIBL_GRAMMAR_REPEAT || rule_least[n->what] > 0) continue;
        n->min = 0;
        if (n->max != NIBL_GRAMMAR_MANY && n->max > FEW)
            return nibl_fail(NIBL_E_GRAMMAR, "a repetition of up to %u times of what may be empty (limit %d)",
                             n->max, FEW);
    }
    return NIBL_OK;
}

nibl_status nibl_grammar_measure(nibl_rules *r, const bool single[256], uint32_t *least,
                                 uint32_t *rule_least) {
    enum { MOST_ROUNDS = 200 };
    for (size_t i = 0; i < r->node_count; i++) least[i] = i ? NIBL_GRAMMAR_NEVER : 0;
    for (size_t i = 0; i < r->rule_count; i++) rule_least[i] = NIBL_GRAMMAR_NEVER;
    /* Until nothing changes, in either direction in turn. */
    bool changed = true;
    for (uint32_t round = 0; changed; round++) {
        if (round == MOST_ROUNDS) return nibl_fail(NIBL_E_GRAMMAR, "the grammar's rules nest too deeply");
        changed = false;
        for (size_t k = 1; k < r->node_count; k++) {
            const size_t i = round % 2 ? k : r->node_count - k;
            const uint32_t own = least_of(r, &r->nodes[i], single, rule_least);
            changed = lower(&least[i], nibl_add_capped(own, least[r->nodes[i].next])) || changed;
        }
        for (size_t k = 1; k < r->rule_count; k++) {
            const size_t i = round % 2 ? k : r->rule_count - k;
            for (uint32_t b = r->rules[i].first; b; b = r->branches[b].next)
                changed = lower(&rule_least[i], least[r->branches[b].first]) || changed;
        }
    }
    if (rule_least[NIBL_GRAMMAR_ROOT] >= NIBL_GRAMMAR_NEVER)
        return nibl_fail(NIBL_E_GRAMMAR,
                         "the grammar has no text that ends, or none that this model can write");
    return check_repeats(r, rule_least);
}

/* ---- Classes of bytes ---- */

/* The bytes of a set and those outside of it get classes of their own. */
static uint32_t split(uint8_t class_of[256], uint32_t classes, const uint32_t bits[8]) {
    bool outside[256] = {false};
    uint16_t inside[256] = {0}; /* by class: that of its bytes within the set */
    for (uint32_t byte = 0; byte < 256; byte++)
        if (!has(bits, byte)) outside[class_of[byte]] = true;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const uint8_t class = class_of[byte];
        if (!has(bits, byte) || !outside[class]) continue;
        if (!inside[class]) inside[class] = (uint16_t)classes++;
        class_of[byte] = (uint8_t)inside[class];
    }
    return classes;
}

uint32_t nibl_grammar_classes(const nibl_rules *r, const bool single[256], uint8_t class_of[256],
                              uint8_t byte_of[256]) {
    uint32_t classes = 1, bits[8] = {0};
    bool used[256] = {false};
    memset(class_of, 0, 256);
    for (uint32_t byte = 0; byte < 256; byte++)
        if (single[byte]) bits[byte / 32] |= 1u << byte % 32;
    classes = split(class_of, classes, bits);
    for (size_t i = 0; i < r->set_count; i++) classes = split(class_of, classes, r->sets[i].bits);
    for (size_t i = 0; i < r->text_length; i++) used[(uint8_t)r->text[i]] = true;
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t one[8] = {0};
        one[byte / 32] = 1u << byte % 32;
        if (used[byte]) classes = split(class_of, classes, one);
    }
    for (uint32_t byte = 256; byte-- > 0;) byte_of[class_of[byte]] = (uint8_t)byte;
    return classes;
}

/* An open-addressing table of indices 0 .. 2^22 - 1 into the caller's array; the keys stay there. A slot
 * holds the index and, above it, a tag of bits of the key's hash, so that a look-up seldom touches a key that
 * is not its own. No probe is longer than a fixed bound, so chosen collisions make a table refuse keys, never
 * slow. */
#ifndef NIBL_INDEX_TABLE_H
#define NIBL_INDEX_TABLE_H

#include "core/base.h"

#define NIBL_INDEX_BITS 22
#define NIBL_INDEX_PROBES 256u
#define NIBL_INDEX_EMPTY 0xFFFFFFFFu

typedef struct nibl_index {
    uint32_t *slots;
    uint32_t mask;
} nibl_index;

typedef struct nibl_probe {
    uint32_t slot, tag, left;
} nibl_probe;

/* Slots for `count` <= 2^22 keys: a power of two, at most half of them used. */
static inline uint32_t nibl_index_slots(uint32_t count) {
    uint32_t slots = 16;
    while (slots / 2 < count) slots *= 2;
    return slots;
}

static inline nibl_status nibl_index_new(nibl_index *index, uint32_t count, const char *what) {
    uint32_t slots = nibl_index_slots(count);
    index->slots = nibl_alloc((uint64_t)slots * sizeof(uint32_t));
    if (!index->slots) return nibl_fail_memory((uint64_t)slots * sizeof(uint32_t), what);
    for (uint32_t i = 0; i < slots; i++) index->slots[i] = NIBL_INDEX_EMPTY;
    index->mask = slots - 1;
    return NIBL_OK;
}

static inline void nibl_index_free(nibl_index *index) {
    nibl_free(index->slots);
    *index = (nibl_index){0};
}

static inline nibl_probe nibl_index_start(const nibl_index *index, uint64_t hash) {
    hash = (hash ^ hash >> 32) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
    /* The tag is even, so that no slot in use is all ones. */
    return (nibl_probe){(uint32_t)hash & index->mask, (uint32_t)(hash >> 54) & 0x3FEu, NIBL_INDEX_PROBES};
}

/* The next candidate for the probe's key; false: there are no more. */
static inline bool nibl_index_next(const nibl_index *index, nibl_probe *probe, uint32_t *candidate) {
    while (probe->left > 0) {
        uint32_t value = index->slots[probe->slot];
        if (value == NIBL_INDEX_EMPTY) return false;
        probe->slot = (probe->slot + 1) & index->mask;
        probe->left--;
        if (value >> NIBL_INDEX_BITS == probe->tag) {
            *candidate = value & ((1u << NIBL_INDEX_BITS) - 1);
            return true;
        }
    }
    return false;
}

/* Puts the key in whose probe has just run out of candidates; false where the bound was met. */
static inline bool nibl_index_put(nibl_index *index, const nibl_probe *probe, uint32_t value) {
    if (index->slots[probe->slot] != NIBL_INDEX_EMPTY || probe->left == 0) return false;
    index->slots[probe->slot] = probe->tag << NIBL_INDEX_BITS | value;
    return true;
}

/* FNV-1a, so that the hash of a text continues that of its beginning. */
#define NIBL_HASH_SEED 0xCBF29CE484222325u
static inline uint64_t nibl_hash_bytes(uint64_t hash, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001B3u;
    return hash;
}

#endif

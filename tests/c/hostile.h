/* For tests of hostile input: the memory in use, and chance that is the same every time. */
#ifndef NIBL_HOSTILE_H
#define NIBL_HOSTILE_H

#include "core/nibl.h"

static inline uint64_t memory_now(void) {
    uint64_t now;
    nibl_memory(&now, NULL);
    return now;
}

static uint64_t random_state = 1;

static inline uint32_t random_below(uint32_t limit) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % limit;
}

#endif

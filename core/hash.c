#include "core/hash.h"

#include <string.h>

uint64_t nibl_hash_row(uint64_t hash, const float *row, uint32_t n, bool *finite) {
    enum { LANES = 8 };
    const uint64_t prime = 0x100000001B3u;
    uint64_t lane[LANES];
    uint32_t worst = 0;
    for (uint64_t i = 0; i < LANES; i++) lane[i] = 0xCBF29CE484222325u + hash + i;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        const uint32_t magnitude = bits & 0x7FFFFFFF;
        worst = magnitude > worst ? magnitude : worst;
        lane[i % LANES] = (lane[i % LANES] ^ bits) * prime;
    }
    *finite = worst < 0x7F800000;
    for (int i = 1; i < LANES; i++) lane[0] = (lane[0] ^ lane[i]) * prime;
    return lane[0] ^ lane[0] >> 32;
}

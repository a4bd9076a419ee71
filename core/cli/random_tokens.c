#include "core/cli/random_tokens.h"

bool nibl_cli_random_tokens(nibl_cli_tokens *out, size_t count, uint32_t vocabulary, uint64_t seed) {
    if (!nibl_cli_tokens_reserve(out, out->count + count)) return false;
    uint64_t state = seed;
    for (size_t i = 0; i < count; i++) {
        state += 0x9E3779B97F4A7C15u;
        uint64_t z = state;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        out->ids[out->count++] = (int32_t)((z >> 32) % vocabulary);
    }
    return true;
}

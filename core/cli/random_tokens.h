/* Deterministic token sequences, the same on every machine. Token i of sequence `seed` is the upper half of the i-th
 * output of SplitMix64 (Steele, Lea and Flood 2014) started at `seed`, modulo the vocabulary:
 *     state += 0x9E3779B97F4A7C15;  z = state
 *     z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;  z = (z ^ z >> 27) * 0x94D049BB133111EB;  z ^= z >> 31
 *     token = (z >> 32) mod vocabulary */
#ifndef NIBL_CLI_RANDOM_TOKENS_H
#define NIBL_CLI_RANDOM_TOKENS_H

#include "core/cli/cli.h"

/* Appends `count` tokens; false, with a message, when memory is short. */
bool nibl_cli_random_tokens(nibl_cli_tokens *out, size_t count, uint32_t vocabulary, uint64_t seed);

#endif

/* The hash of logits: in a file of its own, since WebAssembly compiles it for speed. */
#ifndef NIBL_HASH_H
#define NIBL_HASH_H

#include "core/base.h"

/* `hash` continued by a row of n logits: FNV-1a over 32-bit words, in eight lanes so that it costs little, folded at the
 * end. *finite: whether all of them are. */
uint64_t nibl_hash_row(uint64_t hash, const float *row, uint32_t n, bool *finite);

#endif

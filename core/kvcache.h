/* Keys and values of one sequence, in pages of 64 positions that are allocated as the sequence grows. In a page every
 * (layer, KV head) holds K transposed, (head_width, 64), then V, (64, head_width): both are read along their lanes. */
#ifndef NIBL_KVCACHE_H
#define NIBL_KVCACHE_H

#include "core/base.h"
#include "kernels/kernels.h"

typedef struct nibl_kv {
    uint32_t layers, heads, width;
    uint32_t type; /* enum nibl_kv_type */
    uint64_t page_bytes;
    uint8_t **pages;
    size_t page_count, page_capacity;
} nibl_kv;

void nibl_kv_init(nibl_kv *kv, uint32_t layers, uint32_t heads, uint32_t width, uint32_t type);
void nibl_kv_free(nibl_kv *kv);

/* Allocates pages for positions [0, positions). */
nibl_status nibl_kv_reserve(nibl_kv *kv, uint32_t positions);

/* Stores key and value (width) of one head at one position, rounded to the cache's type. */
void nibl_kv_store(nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t position, const float *k,
                   const float *v);

/* K and V of a block as floats: pointers into the cache, or into `room` (2 * 64 * width floats) after widening. */
void nibl_kv_block(const nibl_kv *kv, const nibl_kernels *kernels, uint32_t layer, uint32_t head,
                   uint32_t block, float *room, const float **k, const float **v);

#endif

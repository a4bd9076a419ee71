/* Keys and values of one sequence, in blocks of 64 positions: K transposed, (head_width, 64), then V, (64, head_width),
 * both read along their lanes, or with NIBL_KV_I8 a nibl_attn_i8. Pages of up to 8 blocks of every (layer, KV head) are
 * allocated as the sequence grows; those of one head stand together, for they are read one after the other. Layers with a
 * convolution keep what it has seen at every position, so that a sequence can go back to any. */
#ifndef NIBL_KVCACHE_H
#define NIBL_KVCACHE_H

#include "core/arch.h"

typedef struct nibl_kv {
    uint32_t layers, heads, width; /* layers that attend */
    uint32_t conv_layers, conv_width;
    uint32_t type; /* enum nibl_kv_type */
    uint32_t positions; /* at most */
    uint32_t page_blocks; /* of a head in a page */
    uint64_t page_bytes;
    uint8_t **pages;
    size_t page_count, page_capacity;
} nibl_kv;

/* For sequences of at most `positions`. */
void nibl_kv_init(nibl_kv *kv, const nibl_hyper *hyper, uint32_t type, uint32_t positions);
void nibl_kv_free(nibl_kv *kv);

uint64_t nibl_kv_bytes(const nibl_kv *kv, uint32_t positions); /* of the pages that hold so many */

/* Allocates pages for positions [0, positions). */
nibl_status nibl_kv_reserve(nibl_kv *kv, uint32_t positions);

/* Stores key and value (width) of one head at one position, rounded to the cache's type. */
void nibl_kv_store(nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t position, const float *k,
                   const float *v);

/* A block as its kernel reads it: nibl_attn_i8, or floats (K (width, 64), then V (64, width)). It lies in the cache, or,
 * widened from f16, in `room` (2 * 64 * width floats). What is read after it, the next block up to `last` or that of the
 * next head, is fetched while this one is worked on. */
typedef struct nibl_kv_block {
    const void *data, *next;
} nibl_kv_block;
nibl_kv_block nibl_kv_open(const nibl_kv *kv, const nibl_kernels *kernels, uint32_t layer, uint32_t head,
                           uint32_t block, uint32_t last, float *room);

/* The i-th of the pieces that hold the first `positions` in whole blocks; they do not depend on the most that there may be.
 * NULL behind the last. */
void *nibl_kv_piece(const nibl_kv *kv, uint32_t positions, size_t i, size_t *length);

/* Whether blocks of int8 hold what the kernels take (nibl_attn_i8); true for other types. */
bool nibl_kv_check(const nibl_kv *kv, uint32_t positions);

/* What a layer with a convolution keeps of a position, (conv_width). */
float *nibl_kv_conv(const nibl_kv *kv, uint32_t layer, uint32_t position);

/* A query of one head (width) as nibl_kv_attend reads it besides the floats, NIBL_KV_QUERY_BLOCKS(width) blocks: once for
 * all blocks of the cache. Only NIBL_KV_I8 writes them. */
#define NIBL_KV_QUERY_BLOCKS(width) (((width) + NIBL_BLOCK - 1) / NIBL_BLOCK)
void nibl_kv_query(const nibl_kv *kv, const nibl_kernels *kernels, nibl_act *codes, const float *q);

/* Attention of the queries of `heads` heads with what they see of a block. Head h reads q + h * width
 * and writes {m, l, o (width)}, as attn_block, to out + h * stride. */
void nibl_kv_attend(const nibl_kv *kv, const nibl_kernels *kernels, float *out, size_t stride, const float *q,
                    const nibl_act *codes, nibl_kv_block block, const nibl_view *view, uint32_t heads);

#endif

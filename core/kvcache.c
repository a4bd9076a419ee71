#include "core/kvcache.h"

#include "core/plat.h"
#include "kernels/maths.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { PAGE_BLOCKS = 8 };

/* Keys and values of one head in one block. */
static size_t block_bytes(const nibl_kv *kv) {
    if (kv->type == NIBL_KV_I8) return nibl_attn_i8_bytes(kv->width);
    return (size_t)2 * NIBL_ATTN_BLOCK * kv->width * (kv->type == NIBL_KV_F32 ? 4 : 2);
}

static size_t conv_bytes(const nibl_kv *kv) /* of a layer in one block */
{
    return (size_t)NIBL_ATTN_BLOCK * kv->conv_width * sizeof(float);
}

void nibl_kv_init(nibl_kv *kv, const nibl_hyper *h, uint32_t type, uint32_t positions) {
    const uint32_t blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    *kv = (nibl_kv){.layers = h->layers - h->conv_layers,
                    .heads = h->kv_heads,
                    .width = h->head_width,
                    .conv_layers = h->conv_layers,
                    .conv_width = h->width,
                    .type = type,
                    .positions = positions};
    kv->page_blocks = blocks < PAGE_BLOCKS ? blocks : PAGE_BLOCKS;
    kv->page_bytes =
        ((uint64_t)kv->layers * kv->heads * block_bytes(kv) + (uint64_t)kv->conv_layers * conv_bytes(kv)) *
        kv->page_blocks;
}

static size_t pages_of(const nibl_kv *kv, uint32_t positions) {
    const size_t page = (size_t)kv->page_blocks * NIBL_ATTN_BLOCK;
    return (positions + page - 1) / page;
}

uint64_t nibl_kv_bytes(const nibl_kv *kv, uint32_t positions) {
    return pages_of(kv, positions) * kv->page_bytes;
}

void nibl_kv_free(nibl_kv *kv) {
    for (size_t i = 0; i < kv->page_count; i++) nibl_free(kv->pages[i]);
    nibl_free(kv->pages);
    kv->pages = NULL;
    kv->page_count = kv->page_capacity = 0;
}

nibl_status nibl_kv_reserve(nibl_kv *kv, uint32_t positions) {
    const size_t pages = pages_of(kv, positions);
    void *array = kv->pages;
    nibl_status status = nibl_reserve(&array, &kv->page_capacity, pages, sizeof *kv->pages, "the KV cache");
    kv->pages = array;
    NIBL_TRY(status);
    for (; kv->page_count < pages; kv->page_count++) {
        uint8_t *page = nibl_alloc(kv->page_bytes);
        if (!page) return nibl_fail_memory(kv->page_bytes, "the KV cache");
        nibl_plat_will_stream(page, kv->page_bytes);
        memset(page, 0, (size_t)kv->page_bytes);
        kv->pages[kv->page_count] = page;
    }
    return NIBL_OK;
}

static uint8_t *at(const nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t block) {
    const size_t run = (size_t)layer * kv->heads + head, within = block % kv->page_blocks;
    return kv->pages[block / kv->page_blocks] + (run * kv->page_blocks + within) * block_bytes(kv);
}

float *nibl_kv_conv(const nibl_kv *kv, uint32_t layer, uint32_t position) {
    const uint32_t block = position / NIBL_ATTN_BLOCK;
    const size_t attention = (size_t)kv->layers * kv->heads * kv->page_blocks * block_bytes(kv);
    uint8_t *place = kv->pages[block / kv->page_blocks] + attention +
                     ((size_t)layer * kv->page_blocks + block % kv->page_blocks) * conv_bytes(kv);
    return (float *)(void *)place + (size_t)(position % NIBL_ATTN_BLOCK) * kv->conv_width;
}

void *nibl_kv_piece(const nibl_kv *kv, uint32_t positions, size_t i, size_t *length) {
    const size_t runs = (size_t)kv->layers * kv->heads, all = runs + kv->conv_layers, page = i / all;
    const uint32_t blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    if (page >= pages_of(kv, positions)) return NULL;
    const uint32_t first = (uint32_t)page * kv->page_blocks, left = blocks - first;
    const uint32_t here = left < kv->page_blocks ? left : kv->page_blocks;
    const size_t run = i % all;
    if (run < runs) {
        *length = here * block_bytes(kv);
        return at(kv, (uint32_t)(run / kv->heads), (uint32_t)(run % kv->heads), first);
    }
    *length = here * conv_bytes(kv);
    return nibl_kv_conv(kv, (uint32_t)(run - runs), first * NIBL_ATTN_BLOCK);
}

static bool check_i8(const nibl_attn_i8 *block, uint32_t width) {
    const size_t keys = (size_t)NIBL_ATTN_BLOCK * nibl_attn_i8_width(width);
    bool right = true;
    for (size_t i = 0; i < keys; i++) right &= block->codes[i] >= 0 && block->codes[keys + i] != INT8_MIN;
    for (size_t j = 0; j < NIBL_ATTN_BLOCK; j++)
        right &= isfinite(block->d[j]) && isfinite(block->m[j]) && isfinite(block->dv[j]);
    return right;
}

bool nibl_kv_check(const nibl_kv *kv, uint32_t positions) {
    const uint32_t blocks = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    bool right = true;
    for (uint32_t layer = 0; kv->type == NIBL_KV_I8 && layer < kv->layers; layer++)
        for (uint32_t run = 0; run < kv->heads * blocks; run++)
            right &= check_i8((const nibl_attn_i8 *)(const void *)at(kv, layer, run / blocks, run % blocks),
                              kv->width);
    return right;
}

/* What is not finite, or as good as that, becomes 0. */
static void range_of(float *x, uint32_t n, float *low, float *high) {
    enum { LANES = 16 }; /* for the compiler to vectorize */
    for (uint32_t d = 0; d < n; d++) x[d] = x[d] > -0x1p100f && x[d] < 0x1p100f ? x[d] : 0.0f;
    float least[LANES], most[LANES];
    for (uint32_t i = 0; i < LANES; i++) least[i] = most[i] = x[i % n];
    for (uint32_t d = 0; d + LANES <= n; d += LANES)
        for (uint32_t i = 0; i < LANES; i++) {
            least[i] = x[d + i] < least[i] ? x[d + i] : least[i];
            most[i] = x[d + i] > most[i] ? x[d + i] : most[i];
        }
    for (uint32_t d = n / LANES * LANES; d < n; d++) {
        least[0] = x[d] < least[0] ? x[d] : least[0];
        most[0] = x[d] > most[0] ? x[d] : most[0];
    }
    *low = least[0];
    *high = most[0];
    for (uint32_t i = 1; i < LANES; i++) {
        *low = least[i] < *low ? least[i] : *low;
        *high = most[i] > *high ? most[i] : *high;
    }
}

/* codes = (x - zero) / d, rounded; returns d, which makes 127 of `most`. */
static float quantize(int32_t *codes, const float *x, uint32_t n, float zero, float most) {
    float d = most / 127.0f;
    if (d < FLT_MIN) d = 0.0f;
    const float inverse = d > 0.0f ? 1.0f / d : 0.0f;
    for (uint32_t i = 0; i < n; i++)
        codes[i] = (int32_t)(nibl_float_bits((x[i] - zero) * inverse + NIBL_ROUNDER) - NIBL_ROUNDER_BITS);
    return d;
}

/* The largest power of two that divides the width. */
static uint32_t spread_size(uint32_t width) { return width & (0u - width); }

/* The Walsh-Hadamard transform times sqrt(size), in runs of `size` dimensions. It spreads
 * what is large in a few dimensions over all, so that fewer codes are wasted (QuaRot, arXiv:2404.00456); the dot product
 * of a key and a query, both transformed, is `size` times theirs. */
static void spread(float *x, uint32_t width) {
    const uint32_t size = spread_size(width);
    for (uint32_t step = size / 2; step > 0; step /= 2)
        for (float *run = x; run < x + width; run += 2 * step)
            for (uint32_t i = 0; i < step; i++) {
                const float a = run[i], b = run[step + i];
                run[i] = a + b;
                run[step + i] = a - b;
            }
}

static void store_i8(nibl_attn_i8 *block, uint32_t j, const float *k, const float *v, uint32_t width) {
    float x[NIBL_MAX_HEAD_WIDTH], low, high;
    int32_t codes[NIBL_MAX_HEAD_WIDTH];
    memcpy(x, k, width * sizeof *x);
    spread(x, width);
    range_of(x, width, &low, &high);
    block->m[j] = low;
    block->d[j] = quantize(codes, x, width, low, high - low);
    for (uint32_t d = 0; d < width; d++) block->codes[nibl_attn_i8_key(width, j, d)] = (int8_t)codes[d];

    memcpy(x, v, width * sizeof *x);
    range_of(x, width, &low, &high);
    block->dv[j] = quantize(codes, x, width, 0.0f, high > -low ? high : -low);
    for (uint32_t d = 0; d < width; d++) block->codes[nibl_attn_i8_value(width, j, d)] = (int8_t)codes[d];
}

void nibl_kv_store(nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t position, const float *k,
                   const float *v) {
    const uint32_t j = position % NIBL_ATTN_BLOCK, width = kv->width;
    uint8_t *block = at(kv, layer, head, position / NIBL_ATTN_BLOCK);
    if (kv->type == NIBL_KV_I8) {
        store_i8((nibl_attn_i8 *)(void *)block, j, k, v, width);
    } else if (kv->type == NIBL_KV_F32) {
        float *key = (float *)(void *)block + j;
        float *value = (float *)(void *)block + ((size_t)NIBL_ATTN_BLOCK + j) * width;
        for (uint32_t d = 0; d < width; d++) {
            key[(size_t)d * NIBL_ATTN_BLOCK] = k[d];
            value[d] = v[d];
        }
    } else {
        uint16_t *key = (uint16_t *)(void *)block + j;
        uint16_t *value = (uint16_t *)(void *)block + ((size_t)NIBL_ATTN_BLOCK + j) * width;
        for (uint32_t d = 0; d < width; d++) {
            key[(size_t)d * NIBL_ATTN_BLOCK] = nibl_f32_to_f16(k[d]);
            value[d] = nibl_f32_to_f16(v[d]);
        }
    }
}

nibl_kv_block nibl_kv_open(const nibl_kv *kv, const nibl_kernels *kernels, uint32_t layer, uint32_t head,
                           uint32_t block, uint32_t last, float *room) {
    const uint8_t *bytes = at(kv, layer, head, block), *next = bytes;
    if (block < last)
        next = at(kv, layer, head, block + 1);
    else if (head + 1 < kv->heads)
        next = at(kv, layer, head + 1, 0);
    if (kv->type == NIBL_KV_I8) return (nibl_kv_block){bytes, next};
    for (size_t i = 0; i < block_bytes(kv); i += 64) __builtin_prefetch(next + i, 0, 2);
    if (kv->type == NIBL_KV_F32) return (nibl_kv_block){bytes, next};
    kernels->widen_f16(room, (const uint16_t *)(const void *)bytes, 2 * NIBL_ATTN_BLOCK * kv->width);
    return (nibl_kv_block){room, next};
}

void nibl_kv_query(const nibl_kv *kv, const nibl_kernels *kernels, nibl_act *codes, const float *q) {
    if (kv->type != NIBL_KV_I8) return;
    const uint32_t n = NIBL_KV_QUERY_BLOCKS(kv->width) * NIBL_BLOCK;
    float x[NIBL_MAX_HEAD_WIDTH];
    memcpy(x, q, kv->width * sizeof *x);
    memset(x + kv->width, 0, (n - kv->width) * sizeof *x);
    spread(x, kv->width);
    kernels->quantize(codes, x, n);
}

void nibl_kv_attend(const nibl_kv *kv, const nibl_kernels *kernels, float *out, size_t stride, const float *q,
                    const nibl_act *codes, nibl_kv_block block, const nibl_view *view, uint32_t heads) {
    const uint32_t width = kv->width;
    if (kv->type == NIBL_KV_I8) {
        nibl_view spread_view = *view;
        spread_view.scale /= (float)spread_size(width);
        kernels->attn_block_i8(out + 2, out, stride, codes, block.data, block.next, &spread_view, width,
                               heads);
        return;
    }
    const float *k = block.data, *v = k + (size_t)NIBL_ATTN_BLOCK * width;
    for (uint32_t h = 0; h < heads; h++, out += stride, q += width)
        kernels->attn_block(out + 2, out, q, k, v, view, width);
}

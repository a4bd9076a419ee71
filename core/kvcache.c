#include "core/kvcache.h"

#include "kernels/maths.h"

static size_t element_bytes(const nibl_kv *kv) { return kv->type == NIBL_KV_F32 ? 4 : 2; }

void nibl_kv_init(nibl_kv *kv, uint32_t layers, uint32_t heads, uint32_t width, uint32_t type) {
    *kv = (nibl_kv){.layers = layers, .heads = heads, .width = width, .type = type};
    kv->page_bytes = (uint64_t)layers * heads * 2 * NIBL_ATTN_BLOCK * width * element_bytes(kv);
}

void nibl_kv_free(nibl_kv *kv) {
    for (size_t i = 0; i < kv->page_count; i++) nibl_free(kv->pages[i]);
    nibl_free(kv->pages);
    kv->pages = NULL;
    kv->page_count = kv->page_capacity = 0;
}

nibl_status nibl_kv_reserve(nibl_kv *kv, uint32_t positions) {
    const size_t pages = (positions + NIBL_ATTN_BLOCK - 1) / NIBL_ATTN_BLOCK;
    void *array = kv->pages;
    nibl_status status = nibl_reserve(&array, &kv->page_capacity, pages, sizeof *kv->pages, "the KV cache");
    kv->pages = array;
    NIBL_TRY(status);
    for (; kv->page_count < pages; kv->page_count++) {
        uint8_t *page = nibl_alloc_zero(kv->page_bytes);
        if (!page) return nibl_fail_memory(kv->page_bytes, "the KV cache");
        kv->pages[kv->page_count] = page;
    }
    return NIBL_OK;
}

static uint8_t *at(const nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t block) {
    size_t pair = (size_t)2 * NIBL_ATTN_BLOCK * kv->width * element_bytes(kv);
    return kv->pages[block] + ((size_t)layer * kv->heads + head) * pair;
}

void nibl_kv_store(nibl_kv *kv, uint32_t layer, uint32_t head, uint32_t position, const float *k,
                   const float *v) {
    const uint32_t j = position % NIBL_ATTN_BLOCK, width = kv->width;
    uint8_t *block = at(kv, layer, head, position / NIBL_ATTN_BLOCK);
    if (kv->type == NIBL_KV_F32) {
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

void nibl_kv_block(const nibl_kv *kv, const nibl_kernels *kernels, uint32_t layer, uint32_t head,
                   uint32_t block, float *room, const float **k, const float **v) {
    const uint32_t half = NIBL_ATTN_BLOCK * kv->width;
    const uint8_t *bytes = at(kv, layer, head, block);
    *k = (const float *)(const void *)bytes;
    if (kv->type == NIBL_KV_F16) {
        kernels->widen_f16(room, (const uint16_t *)(const void *)bytes, 2 * half);
        *k = room;
    }
    *v = *k + half;
}

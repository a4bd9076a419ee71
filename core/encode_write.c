/* Blocks into the bytes of files: the inverse of what kernels/scalar/file_blocks.h reads. */
#include "core/encode_parts.h"

#include <string.h>

static void store_u16(uint8_t *p, uint16_t x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

/* Bits [shift, shift + width) of `count` codes, to bit `up` of a byte each. */
static void put_bits(uint8_t *p, const uint8_t *codes, int count, int shift, int width, int up) {
    for (int i = 0; i < count; i++) p[i] = (uint8_t)(p[i] | (codes[i] >> shift & ((1 << width) - 1)) << up);
}

/* Low nibbles of the first half, high ones of the second. */
static void put_split(uint8_t *p, const uint8_t *codes, int bytes) {
    for (int i = 0; i < bytes; i++) p[i] = (uint8_t)((codes[i] & 15) | (codes[i + bytes] & 15) << 4);
}

static void put_pairs(uint8_t *p, const uint8_t *codes) {
    for (int i = 0; i < 8; i++) put_bits(p + i / 4 * 32, codes + 32 * i, 32, 0, 2, i % 4 * 2);
}

static void put_nibbles(uint8_t *p, const uint8_t *codes) {
    for (int i = 0; i < 8; i++) put_bits(p + i / 2 * 32, codes + 32 * i, 32, 0, 4, i % 2 * 4);
}

static void write_block32(const nibl_dtype *type, const nibl_block *b, uint8_t *p) {
    if (type->scale == NIBL_SCALE_E8M0) {
        *p++ = b->scales[0];
    } else {
        store_u16(p, b->d);
        p += 2;
        if (type->scale == NIBL_SCALE_F16_MIN) {
            store_u16(p, b->m);
            p += 2;
        }
    }
    if (type->kind == NIBL_KIND_INT8) {
        memcpy(p, b->codes, NIBL_BLOCK);
        return;
    }
    if (type->kind == NIBL_KIND_BITS5) {
        memset(p, 0, 4);
        for (int i = 0; i < NIBL_BLOCK; i++) p[i / 8] = (uint8_t)(p[i / 8] | b->codes[i] >> 4 << i % 8);
        p += 4;
    }
    put_split(p, b->codes, 16);
}

static void write_q2_k(const nibl_block *b, uint8_t *p) {
    for (int i = 0; i < 16; i++) p[i] = (uint8_t)(b->scales[i] | b->mins[i] << 4);
    put_pairs(p + 16, b->codes);
    store_u16(p + 80, b->d);
    store_u16(p + 82, b->m);
}

static void write_q3_k(const nibl_block *b, uint8_t *p) {
    for (int i = 0; i < 8; i++) put_bits(p, b->codes + 32 * i, 32, 2, 1, i);
    put_pairs(p + 32, b->codes);
    for (int i = 0; i < 16; i++) {
        const int scale = (uint8_t)(b->scales[i] + 32);
        p[96 + i % 8] = (uint8_t)(p[96 + i % 8] | (scale & 15) << i / 8 * 4);
        p[104 + i % 4] = (uint8_t)(p[104 + i % 4] | scale >> 4 << i / 4 * 2);
    }
    store_u16(p + 108, b->d);
}

static void write_k_scales(const nibl_block *b, uint8_t *p) {
    store_u16(p, b->d);
    store_u16(p + 2, b->m);
    p += 4;
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(b->scales[i] | b->scales[4 + i] >> 4 << 6);
        p[4 + i] = (uint8_t)(b->mins[i] | b->mins[4 + i] >> 4 << 6);
        p[8 + i] = (uint8_t)((b->scales[4 + i] & 15) | (b->mins[4 + i] & 15) << 4);
    }
}

static void write_q4_k(const nibl_block *b, uint8_t *p) {
    write_k_scales(b, p);
    put_nibbles(p + 16, b->codes);
}

static void write_q5_k(const nibl_block *b, uint8_t *p) {
    write_k_scales(b, p);
    for (int i = 0; i < 8; i++) put_bits(p + 16, b->codes + 32 * i, 32, 4, 1, i);
    put_nibbles(p + 48, b->codes);
}

static void write_q6_k(const nibl_block *b, uint8_t *p) {
    for (int i = 0; i < 8; i++) {
        put_bits(p + i / 4 * 64 + i % 2 * 32, b->codes + 32 * i, 32, 0, 4, i % 4 / 2 * 4);
        put_bits(p + 128 + i / 4 * 32, b->codes + 32 * i, 32, 4, 2, i % 4 * 2);
    }
    memcpy(p + 192, b->scales, 16);
    store_u16(p + 208, b->d);
}

static void write_iq4_xs(const nibl_block *b, uint8_t *p) {
    store_u16(p, b->d);
    for (int i = 0; i < 8; i++) {
        const int scale = (uint8_t)(b->scales[i] + 32);
        p[2 + i / 4] = (uint8_t)(p[2 + i / 4] | scale >> 4 << i % 4 * 2);
        p[4 + i / 2] = (uint8_t)(p[4 + i / 2] | (scale & 15) << i % 2 * 4);
        put_split(p + 8 + 16 * i, b->codes + 32 * i, 16);
    }
}

/* `count` ternary digits, each `stride` codes after the one before, as a fraction of 256, rounded up. */
static uint8_t ternary(const uint8_t *codes, int count, int stride) {
    static const uint8_t power[] = {81, 27, 9, 3, 1};
    int number = 0;
    for (int i = 0; i < count; i++) number += codes[i * stride] * power[i];
    return (uint8_t)((number * 256 + 242) / 243);
}

static void write_tq1_0(const nibl_block *b, uint8_t *p) {
    for (int i = 0; i < 32; i++) p[i] = ternary(b->codes + i, 5, 32);
    for (int i = 0; i < 16; i++) p[32 + i] = ternary(b->codes + 160 + i, 5, 16);
    for (int i = 0; i < 4; i++) p[48 + i] = ternary(b->codes + 240 + i, 4, 4);
    store_u16(p + 52, b->d);
}

static void write_tq2_0(const nibl_block *b, uint8_t *p) {
    put_pairs(p, b->codes);
    store_u16(p + 64, b->d);
}

static void write_nvfp4(const nibl_block *b, uint8_t *p) {
    memcpy(p, b->scales, 4);
    for (int i = 0; i < 4; i++) put_split(p + 4 + 8 * i, b->codes + 16 * i, 8);
}

void nibl_write_block(const nibl_dtype *type, const nibl_block *b, uint8_t *p) {
    if (type->layout == NIBL_LAYOUT_BLOCK32) {
        write_block32(type, b, p);
        return;
    }
    static void (*const writers[])(const nibl_block *b, uint8_t *p) = {
        [NIBL_LAYOUT_NVFP4] = write_nvfp4,   [NIBL_LAYOUT_Q2_K] = write_q2_k,
        [NIBL_LAYOUT_Q3_K] = write_q3_k,     [NIBL_LAYOUT_Q4_K] = write_q4_k,
        [NIBL_LAYOUT_Q5_K] = write_q5_k,     [NIBL_LAYOUT_Q6_K] = write_q6_k,
        [NIBL_LAYOUT_IQ4_XS] = write_iq4_xs, [NIBL_LAYOUT_TQ1_0] = write_tq1_0,
        [NIBL_LAYOUT_TQ2_0] = write_tq2_0,
    };
    memset(p, 0, type->bytes);
    writers[type->layout](b, p);
}

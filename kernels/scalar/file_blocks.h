/*
 * Blocks of 256 as files hold them, taken apart: scale fields of a row in the order of blocks.h (the head, then per 32
 * columns) and one byte for every code. The layouts are those that `gguf.quants` decodes.
 */
#ifndef NIBL_FILE_BLOCKS_H
#define NIBL_FILE_BLOCKS_H

#include "kernels/blocks.h"

#include <string.h>

typedef struct nibl_file_block {
    uint8_t head[4];
    uint8_t fields[8][4];
    uint8_t codes[NIBL_SUPER];
} nibl_file_block;

/* 32 bytes at a time, one code of every byte: `bits` from `shift` on. */
static inline void take_bits(uint8_t *codes, const uint8_t *bytes, int count, int shift, int mask) {
    for (int i = 0; i < count; i++) codes[i] = (uint8_t)(bytes[i] >> shift & mask);
}

static inline void add_bits(uint8_t *codes, const uint8_t *bytes, int count, int shift, int mask, int up) {
    for (int i = 0; i < count; i++) codes[i] = (uint8_t)(codes[i] | (bytes[i] >> shift & mask) << up);
}

/* Two bits of 64 bytes: 128 codes out of each 32 bytes. */
static inline void take_pairs(uint8_t *codes, const uint8_t *qs) {
    for (int i = 0; i < 8; i++) take_bits(codes + 32 * i, qs + i / 4 * 32, 32, i % 4 * 2, 3);
}

/* Nibbles of 32 bytes: the low ones of all, then the high ones. */
static inline void take_nibbles(uint8_t *codes, const uint8_t *qs) {
    for (int i = 0; i < 8; i++) take_bits(codes + 32 * i, qs + i / 2 * 32, 32, i % 2 * 4, 15);
}

/* scales 16 (low nibble scale, high minimum), qs 64, d, dmin */
static inline void read_q2_k(nibl_file_block *x, const uint8_t *p) {
    for (int i = 0; i < 16; i++) x->fields[i / 2][i % 2] = p[i];
    take_pairs(x->codes, p + 16);
    memcpy(x->head, p + 80, 4);
}

/* hmask 32, qs 64, scales 12, d: a scale has its low nibbles in the first 8 bytes, two bits in the last four */
static inline void read_q3_k(nibl_file_block *x, const uint8_t *p) {
    const uint8_t *scales = p + 96;
    for (int i = 0; i < 16; i++) {
        const int low = scales[i % 8] >> i / 8 * 4 & 15, high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        x->fields[i / 2][i % 2] = (uint8_t)(low | high << 4);
    }
    take_pairs(x->codes, p + 32);
    for (int i = 0; i < 8; i++) add_bits(x->codes + 32 * i, p, 32, i, 1, 2);
    memcpy(x->head, p + 108, 2);
}

/* d, dmin, then 12 bytes of eight scales and eight minimums of 6 bits */
static inline void read_k_scales(nibl_file_block *x, const uint8_t *p) {
    memcpy(x->head, p, 4);
    p += 4;
    for (int i = 0; i < 4; i++) {
        x->fields[i][0] = p[i] & 63;
        x->fields[i][1] = p[4 + i] & 63;
        x->fields[4 + i][0] = (uint8_t)((p[8 + i] & 15) | p[i] >> 6 << 4);
        x->fields[4 + i][1] = (uint8_t)(p[8 + i] >> 4 | p[4 + i] >> 6 << 4);
    }
}

static inline void read_q4_k(nibl_file_block *x, const uint8_t *p) {
    read_k_scales(x, p);
    take_nibbles(x->codes, p + 16);
}

/* qh 32 stands before the nibbles: bit i belongs to block i */
static inline void read_q5_k(nibl_file_block *x, const uint8_t *p) {
    read_k_scales(x, p);
    take_nibbles(x->codes, p + 48);
    for (int i = 0; i < 8; i++) add_bits(x->codes + 32 * i, p + 16, 32, i, 1, 4);
}

/* ql 128, qh 64, scales 16, d: 64 low bytes and 32 high ones make 128 codes */
static inline void read_q6_k(nibl_file_block *x, const uint8_t *p) {
    for (int i = 0; i < 8; i++) {
        take_bits(x->codes + 32 * i, p + i / 4 * 64 + i % 2 * 32, 32, i % 4 / 2 * 4, 15);
        add_bits(x->codes + 32 * i, p + 128 + i / 4 * 32, 32, i % 4 * 2, 3, 4);
    }
    for (int i = 0; i < 16; i++) x->fields[i / 2][i % 2] = p[192 + i];
    memcpy(x->head, p + 208, 2);
}

static inline void take_split(uint8_t *codes, const uint8_t *qs, int bytes) {
    take_bits(codes, qs, bytes, 0, 15);
    take_bits(codes + bytes, qs, bytes, 4, 15);
}

/* d, u16 of eight times two high bits, four bytes of low nibbles of the scales, split nibbles */
static inline void read_iq4_xs(nibl_file_block *x, const uint8_t *p) {
    for (int i = 0; i < 8; i++) {
        const int high = p[2 + i / 4] >> i % 4 * 2 & 3, low = p[4 + i / 2] >> i % 2 * 4 & 15;
        x->fields[i][0] = (uint8_t)(low | high << 4);
        take_split(x->codes + 32 * i, p + 8 + 16 * i, 16);
    }
    memcpy(x->head, p, 2);
}

/* Digit `n` (0 the first) of five ternary ones in a byte, a fraction of 256. */
static inline uint8_t ternary(uint8_t byte, int n) {
    static const uint8_t power[] = {1, 3, 9, 27, 81};
    return (uint8_t)((uint8_t)(byte * power[n]) * 3 >> 8);
}

/* 32, then 16 bytes of five digits, then 4 of four, d */
static inline void read_tq1_0(nibl_file_block *x, const uint8_t *p) {
    for (int i = 0; i < 160; i++) x->codes[i] = ternary(p[i % 32], i / 32);
    for (int i = 0; i < 80; i++) x->codes[160 + i] = ternary(p[32 + i % 16], i / 16);
    for (int i = 0; i < 16; i++) x->codes[240 + i] = ternary(p[48 + i % 4], i / 4);
    memcpy(x->head, p + 52, 2);
}

static inline void read_tq2_0(nibl_file_block *x, const uint8_t *p) {
    take_pairs(x->codes, p);
    memcpy(x->head, p + 64, 2);
}

/* Blocks of 64: four scales of 16 elements each, whose nibbles are split. The code 0x7F of a scale counts as 0. */
static inline void read_nvfp4(nibl_file_block *x, const uint8_t *p) {
    for (int i = 0; i < 16; i++) {
        const uint8_t *block = p + i / 4 * 36, scale = block[i % 4];
        x->fields[i / 2][i % 2] = scale == 0x7F ? 0 : scale;
        take_split(x->codes + 16 * i, block + 4 + i % 4 * 8, 8);
    }
}

#endif

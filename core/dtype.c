#include "core/dtype.h"

/* The types this build can pack: elements and bytes of a block, then how it is kept. */
static const nibl_dtype types[] = {
    {0, "F32", 1, 4, NIBL_KIND_F32, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {1, "F16", 1, 2, NIBL_KIND_F16, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {2, "Q4_0", 32, 18, NIBL_KIND_NIBBLE, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {3, "Q4_1", 32, 20, NIBL_KIND_NIBBLE, NIBL_SCALE_F16_MIN, NIBL_LAYOUT_BLOCK32},
    {6, "Q5_0", 32, 22, NIBL_KIND_BITS5, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {7, "Q5_1", 32, 24, NIBL_KIND_BITS5, NIBL_SCALE_F16_MIN, NIBL_LAYOUT_BLOCK32},
    {8, "Q8_0", 32, 34, NIBL_KIND_INT8, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {10, "Q2_K", 256, 84, NIBL_KIND_BITS2, NIBL_SCALE_SUPER_U4_MIN_16, NIBL_LAYOUT_Q2_K},
    {11, "Q3_K", 256, 110, NIBL_KIND_BITS3, NIBL_SCALE_SUPER_I6_16, NIBL_LAYOUT_Q3_K},
    {12, "Q4_K", 256, 144, NIBL_KIND_NIBBLE, NIBL_SCALE_SUPER_U6_MIN, NIBL_LAYOUT_Q4_K},
    {13, "Q5_K", 256, 176, NIBL_KIND_BITS5, NIBL_SCALE_SUPER_U6_MIN, NIBL_LAYOUT_Q5_K},
    {14, "Q6_K", 256, 210, NIBL_KIND_BITS6, NIBL_SCALE_SUPER_I8_16, NIBL_LAYOUT_Q6_K},
    {20, "IQ4_NL", 32, 18, NIBL_KIND_IQ4, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {23, "IQ4_XS", 256, 136, NIBL_KIND_IQ4, NIBL_SCALE_SUPER_I6, NIBL_LAYOUT_IQ4_XS},
    {30, "BF16", 1, 2, NIBL_KIND_BF16, NIBL_SCALE_F16, NIBL_LAYOUT_BLOCK32},
    {34, "TQ1_0", 256, 54, NIBL_KIND_BITS2, NIBL_SCALE_SUPER, NIBL_LAYOUT_TQ1_0},
    {35, "TQ2_0", 256, 66, NIBL_KIND_BITS2, NIBL_SCALE_SUPER, NIBL_LAYOUT_TQ2_0},
    {39, "MXFP4", 32, 17, NIBL_KIND_E2M1, NIBL_SCALE_E8M0, NIBL_LAYOUT_BLOCK32},
    {40, "NVFP4", 64, 36, NIBL_KIND_E2M1, NIBL_SCALE_UE4M3_16, NIBL_LAYOUT_NVFP4},
};

/* Every id that GGUF defines or once defined (4, 5, 31 to 33 and 36 to 38 are retired), by id. */
static const char *const names[] = {
    "F32",   "F16",        "Q4_0",       "Q4_1",       "Q4_2",     "Q4_3",     "Q5_0",
    "Q5_1",  "Q8_0",       "Q8_1",       "Q2_K",       "Q3_K",     "Q4_K",     "Q5_K",
    "Q6_K",  "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "IQ4_NL",
    "IQ3_S", "IQ2_S",      "IQ4_XS",     "I8",         "I16",      "I32",      "I64",
    "F64",   "IQ1_M",      "BF16",       "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
    "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4",    "NVFP4",    "Q1_0",
};

size_t nibl_dtype_count(void) { return sizeof types / sizeof types[0]; }

const nibl_dtype *nibl_dtype_at(size_t index) { return index < nibl_dtype_count() ? &types[index] : NULL; }

const nibl_dtype *nibl_dtype_by_id(uint32_t id) {
    for (size_t i = 0; i < nibl_dtype_count(); i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

const char *nibl_dtype_name(uint32_t id) { return id < sizeof names / sizeof names[0] ? names[id] : NULL; }

bool nibl_dtype_row_bytes(const nibl_dtype *type, uint64_t elements, uint64_t *bytes) {
    return elements % type->block == 0 && nibl_mul_u64(elements / type->block, type->bytes, bytes);
}

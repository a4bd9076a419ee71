#include "core/dtype.h"

/* The types this build can pack. */
static const nibl_dtype types[] = {
    {.id = 0, .name = "F32", .block = 1, .bytes = 4, .kind = NIBL_KIND_F32},
    {.id = 1, .name = "F16", .block = 1, .bytes = 2, .kind = NIBL_KIND_F16},
    {.id = 2, .name = "Q4_0", .block = 32, .bytes = 18, .kind = NIBL_KIND_NIBBLE},
    {.id = 3, .name = "Q4_1", .block = 32, .bytes = 20, .kind = NIBL_KIND_NIBBLE, .has_min = true},
    {.id = 8, .name = "Q8_0", .block = 32, .bytes = 34, .kind = NIBL_KIND_INT8},
    {.id = 30, .name = "BF16", .block = 1, .bytes = 2, .kind = NIBL_KIND_BF16},
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

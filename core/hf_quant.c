/* The table of layouts, and how each kind of part gets to its place. */
#include "core/hf_quant.h"

#include "core/rows.h"
#include "kernels/maths.h"
#include "kernels/place.h"

static nibl_status wrong(nibl_hfq *q, nibl_status status, const char *problem) {
    q->problem = problem;
    return nibl_fail(status, "%s", problem);
}

/* Where row i of the file stands. */
static uint32_t row_at(const nibl_hfq *q, uint32_t i) {
    return q->alternating ? nibl_row_parted(q->w->rows, i) : nibl_row_interleaved(q->halves, i);
}

static uint32_t smaller(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* ---- Codes: by rows of the matrix ---- */

static nibl_status take_pairs(nibl_hfq *q, uint32_t i, const uint8_t *row) {
    const uint32_t at = row_at(q, i);
    for (uint32_t b = 0; b < q->w->cols / NIBL_BLOCK; b++, row += 16) nibl_put_pairs(q->w, at, b, row);
    return NIBL_OK;
}

static void put_bytes_row(nibl_hfq *q, uint32_t i, const uint8_t *row, uint8_t flip) {
    const uint32_t at = row_at(q, i);
    for (uint32_t b = 0; b < q->w->cols / NIBL_BLOCK; b++, row += NIBL_BLOCK)
        if (nibl_put_bytes(q->w, at, b, row, flip)) q->w->has_m128 = true;
}

static nibl_status take_bytes(nibl_hfq *q, uint32_t i, const uint8_t *row) {
    put_bytes_row(q, i, row, 0);
    return NIBL_OK;
}

/* Words along the row, least significant code first: as bytes they are pairs, or bytes with an offset of 128. Codes of
 * other widths, stored from 0 on, become nibbles or bytes around the same middle. */
static nibl_status take_words(nibl_hfq *q, uint32_t i, const uint8_t *row) {
    if (q->bits == 4) return take_pairs(q, i, row);
    if (q->bits == 8) {
        put_bytes_row(q, i, row, 0x80);
        return NIBL_OK;
    }
    const uint32_t count = 32 / q->bits, mask = (1u << q->bits) - 1, at = row_at(q, i);
    const bool zeros = nibl_scale_form_of((nibl_scale)q->w->scale).zero;
    const uint32_t middle = 1u << (q->bits - 1), less = q->bits > 4 ? middle : zeros ? 0 : middle - 8;
    for (uint32_t k = 0; k < q->w->cols; k++) {
        const nibl_place p = nibl_place_of(q->w, k);
        nibl_put_code(&p, at,
                      (nibl_load_u32(row + k / count * (size_t)4) >> k % count * q->bits & mask) - less);
    }
    return NIBL_OK;
}

/* ---- Codes: by columns ---- */

/* Codes are stored from 0 on; those of INT8 are kept with their sign. */
static void put_code(nibl_hfq *q, const nibl_place *p, uint32_t row, uint32_t code) {
    if (q->bits == 8) {
        if (code == 0) q->w->has_m128 = true;
        code ^= 0x80;
    }
    nibl_put_code(p, row_at(q, row), code);
}

/* GPTQ: a word of file row i holds the next 8 (or 4) columns of one row of the matrix. */
static nibl_status take_columns(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    const uint32_t count = 32 / q->bits, mask = (1u << q->bits) - 1;
    for (uint32_t n = 0; n < count; n++) {
        const nibl_place p = nibl_place_of(q->w, i * count + n);
        for (uint32_t row = 0; row < q->w->rows; row++)
            put_code(q, &p, row, nibl_load_u32(words + 4 * (size_t)row) >> q->bits * n & mask);
    }
    return NIBL_OK;
}

/* AWQ: nibble n of a word belongs to this one of its eight. */
static const uint8_t awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

/* File row i is a column of the matrix. */
static nibl_status take_column(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    const nibl_place p = nibl_place_of(q->w, i);
    for (uint32_t first = 0; first < q->w->rows; first += 8, words += 4) {
        const uint32_t word = nibl_load_u32(words);
        for (uint32_t n = 0; n < 8; n++)
            if (first + awq_order[n] < q->w->rows) put_code(q, &p, first + awq_order[n], word >> 4 * n & 15);
    }
    return NIBL_OK;
}

/* bitnet: bits 2n of byte k of file row i are those of row i + n * (file rows), column k. */
static nibl_status take_quarters(nibl_hfq *q, uint32_t i, const uint8_t *bytes) {
    const uint32_t step = (q->w->rows + 3) / 4;
    for (uint32_t k = 0; k < q->w->cols; k++) {
        const nibl_place p = nibl_place_of(q->w, k);
        for (uint32_t n = 0, row = i; n < 4 && row < q->w->rows; n++, row += step)
            nibl_put_code(&p, row_at(q, row), bytes[k] >> 2 * n & 3u);
    }
    return NIBL_OK;
}

/* ---- Scales ---- */

/* GGUF ids of the types of scales. */
enum { F32 = 0, F16 = 1, I8 = 24 };

static uint32_t scale_width(const nibl_hfq *q) {
    return q->scale_type == F32 ? 4 : q->scale_type == I8 ? 1 : 2;
}

static float scale_of(const nibl_hfq *q, const uint8_t *bytes) {
    return q->scale_type == F32   ? nibl_bits_float(nibl_load_u32(bytes))
           : q->scale_type == F16 ? nibl_f16_to_f32(nibl_load_u16(bytes))
                                  : nibl_bf16_to_f32(nibl_load_u16(bytes));
}

static bool is_finite(float x) { return (nibl_float_bits(x) & 0x7F800000) != 0x7F800000; }

static bool is_scale_finite(const nibl_hfq *q, const uint8_t *bytes) {
    return q->scale_type == F16 ? (nibl_load_u16(bytes) & 0x7C00) != 0x7C00 : is_finite(scale_of(q, bytes));
}

/* The scale of one row and group to its blocks. */
static nibl_status put_scale(nibl_hfq *q, uint32_t row, uint32_t g, const uint8_t *bytes) {
    uint8_t inverse[4];
    if (q->w->scale == NIBL_SCALE_UE4M3_16) {
        if (*bytes >= 0x7F) return wrong(q, NIBL_E_FILE, "a scale is negative or NaN");
        nibl_put_field(q->w, row, g / 2, (int)(g % 2), bytes);
        return NIBL_OK;
    }
    if (q->w->scale == NIBL_SCALE_E8M0) {
        if (*bytes > 252) return wrong(q, NIBL_E_FILE, "a scale is infinite or NaN");
    } else {
        const float value = scale_of(q, bytes), d = q->config.divides ? 1.0f / value : value;
        if (!is_scale_finite(q, bytes) || !is_finite(d))
            return wrong(q, NIBL_E_FILE,
                         q->config.divides ? "a scale is 0, infinite or NaN" : "a scale is infinite or NaN");
        if (q->config.divides) {
            memcpy(inverse, &d, 4);
            bytes = inverse;
        }
    }
    const uint32_t end = smaller((g + 1) * q->group, q->w->cols) / NIBL_BLOCK;
    for (uint32_t b = g * q->group / NIBL_BLOCK; b < end; b++) nibl_put_field(q->w, row, b, 0, bytes);
    return NIBL_OK;
}

static nibl_status take_scales_of_row(nibl_hfq *q, uint32_t i, const uint8_t *scales) {
    for (uint32_t g = 0; g < q->groups; g++)
        NIBL_TRY(put_scale(q, row_at(q, i), g, scales + g * (size_t)scale_width(q)));
    return NIBL_OK;
}

static nibl_status take_scales_of_group(nibl_hfq *q, uint32_t i, const uint8_t *scales) {
    for (uint32_t row = 0; row < q->w->rows; row++)
        NIBL_TRY(put_scale(q, row_at(q, row), i, scales + row * (size_t)scale_width(q)));
    return NIBL_OK;
}

static nibl_status take_scale_of_all(nibl_hfq *q, uint32_t i, const uint8_t *scale) {
    (void)i;
    for (uint32_t row = 0; row < q->w->rows; row++)
        for (uint32_t g = 0; g < q->groups; g++) NIBL_TRY(put_scale(q, row, g, scale));
    return NIBL_OK;
}

/* The scales of NVFP4 are divided by it. */
static nibl_status take_divisor(nibl_hfq *q, uint32_t i, const uint8_t *bytes) {
    (void)i;
    const float value = nibl_bits_float(nibl_load_u32(bytes));
    q->w->factor = 1.0f / value;
    return value > 0 && is_finite(value) && is_finite(q->w->factor)
               ? NIBL_OK
               : wrong(q, NIBL_E_FILE, "the scale of all scales is not a positive number");
}

/* ---- Zero points ---- */

/* `zero` counts as the codes do in the file, from 0 on. */
static nibl_status put_zero(nibl_hfq *q, uint32_t row, uint32_t g, uint32_t zero) {
    if (q->config.symmetric) {
        if (zero == 1u << (q->bits - 1)) return NIBL_OK;
        return wrong(q, NIBL_E_FILE,
                     "a zero point is not the middle of the range, but config.json says that "
                     "the weights are symmetric (sym): set it to false");
    }
    const uint8_t byte = (uint8_t)(zero - (q->bits > 4 ? 1u << (q->bits - 1) : 0));
    const uint32_t end = smaller((g + 1) * q->group, q->w->cols) / NIBL_BLOCK;
    for (uint32_t b = g * q->group / NIBL_BLOCK; b < end; b++)
        nibl_put_field(q->w, row_at(q, row), b, 1, &byte);
    return NIBL_OK;
}

/* Words along the rows of the matrix. `more`: what is added to each word, as GPTQModel does. */
static nibl_status put_zeros(nibl_hfq *q, uint32_t g, const uint8_t *words, uint32_t more) {
    const uint32_t count = 32 / q->bits, mask = (1u << q->bits) - 1;
    for (uint32_t row = 0; row < q->w->rows; row++) {
        const uint32_t word = nibl_load_u32(words + (size_t)(row / count) * 4) + more;
        NIBL_TRY(put_zero(q, row, g, word >> row % count * q->bits & mask));
    }
    return NIBL_OK;
}

static nibl_status take_zeros(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    return put_zeros(q, i, words, 0);
}

static nibl_status take_zeros_less_one(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    return put_zeros(q, i, words, q->bits == 4 ? 0x11111111 : 0x01010101);
}

static nibl_status take_zeros_awq(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    for (uint32_t first = 0; first < q->w->rows; first += 8, words += 4) {
        const uint32_t word = nibl_load_u32(words);
        for (uint32_t n = 0; n < 8; n++)
            if (first + awq_order[n] < q->w->rows)
                NIBL_TRY(put_zero(q, first + awq_order[n], i, word >> 4 * n & 15));
    }
    return NIBL_OK;
}

/* Word g of file row i holds the zero points of group g of the next 8 (or 4) rows. */
static nibl_status take_zeros_of_rows(nibl_hfq *q, uint32_t i, const uint8_t *words) {
    const uint32_t count = 32 / q->bits, mask = (1u << q->bits) - 1;
    for (uint32_t g = 0; g < q->groups; g++)
        for (uint32_t n = 0; n < count && i * count + n < q->w->rows; n++)
            NIBL_TRY(
                put_zero(q, i * count + n, g, nibl_load_u32(words + 4 * (size_t)g) >> q->bits * n & mask));
    return NIBL_OK;
}

static nibl_status take_zeros_of_row(nibl_hfq *q, uint32_t i, const uint8_t *zeros) {
    for (uint32_t g = 0; g < q->groups; g++) NIBL_TRY(put_zero(q, i, g, zeros[g] ^ 0x80u));
    return NIBL_OK;
}

/* ---- What else there is ---- */

/* The group of each column. Where they do not follow each other, packed columns are sorted by group (nibl_hfq_finish). */
static nibl_status take_order(nibl_hfq *q, uint32_t i, const uint8_t *indices) {
    (void)i;
    const uint32_t cols = q->w->cols;
    bool sorted = true;
    for (uint32_t k = 0; k < cols; k++) {
        const uint32_t g = nibl_load_u32(indices + 4 * (size_t)k);
        if (g >= q->groups) return wrong(q, NIBL_E_FILE, "a column belongs to a group that does not exist");
        sorted = sorted && g == k / q->group;
    }
    if (sorted) return NIBL_OK;
    const uint64_t bytes = ((uint64_t)cols + q->groups) * sizeof(uint32_t);
    q->order = nibl_alloc(bytes);
    if (!q->order) return nibl_fail_memory(bytes, "the order of columns");
    uint32_t *next = q->order + cols;
    for (uint32_t g = 0; g < q->groups; g++) next[g] = g * q->group;
    for (uint32_t k = 0; k < cols; k++) {
        const uint32_t g = nibl_load_u32(indices + 4 * (size_t)k);
        if (next[g] == smaller((g + 1) * q->group, cols))
            return wrong(q, NIBL_E_UNSUPPORTED,
                         "groups of different sizes are not supported: quantize with desc_act false");
        q->order[next[g]++] = k;
    }
    return NIBL_OK;
}

static nibl_status take_shape(nibl_hfq *q, uint32_t i, const uint8_t *numbers) {
    (void)i;
    if (nibl_load_u64(numbers) == q->w->rows && nibl_load_u64(numbers + 8) == q->w->cols) return NIBL_OK;
    return wrong(q, NIBL_E_FILE, "the shape is not the one that config.json asks for");
}

nibl_status nibl_hfq_finish(nibl_hfq *q) {
    if (!q->order) return NIBL_OK;
    nibl_matrix old = *q->w;
    const size_t bytes = nibl_panel_bytes(&old);
    if (!(old.data = nibl_alloc(bytes))) return nibl_fail_memory(bytes, "a panel of a matrix");
    old.rows = NIBL_PANEL;
    for (uint32_t panel = 0; panel < nibl_panels(q->w); panel++) {
        nibl_matrix to = old;
        to.data = nibl_panel(q->w, panel);
        memcpy(old.data, to.data, bytes);
        for (uint32_t j = 0; j < old.cols; j++) {
            const nibl_place a = nibl_place_of(&old, q->order[j]), b = nibl_place_of(&to, j);
            for (uint32_t r = 0; r < NIBL_PANEL; r++)
                nibl_put_code(&b, r, (uint32_t)*nibl_place_row(&a, r) >> a.shift & a.mask);
        }
    }
    nibl_free(old.data);
    q->w->gather = q->order;
    return NIBL_OK;
}

/* ---- The table ---- */

enum {
    ONE = NIBL_HFQ_ONE,
    TWO = NIBL_HFQ_TWO,
    SIXTEEN = NIBL_HFQ_SIXTEEN,
    ROWS = NIBL_HFQ_ROWS,
    COLS = NIBL_HFQ_COLS,
    GROUPS = NIBL_HFQ_GROUPS,
    ROW_WORDS = NIBL_HFQ_ROW_WORDS,
    COL_WORDS = NIBL_HFQ_COL_WORDS,
    ROW_QUARTERS = NIBL_HFQ_ROW_QUARTERS,
    COL_PAIRS = NIBL_HFQ_COL_PAIRS,
    COL_BLOCKS = NIBL_HFQ_COL_BLOCKS
};

#define FLOATS " F16 BF16 F32 "
#define CODES .codes = true, .take
#define SCALES .scales = true, .take
#define ZEROS .zeros = true, .take
#define MAYBE .optional = true, .take

#define GPTQ(zeros)                                                                                          \
    {                                                                                                        \
        {".qweight", " I32 ", {ROWS, COL_WORDS}, CODES = take_columns},                                      \
        {".scales", FLOATS, {ROWS, GROUPS}, SCALES = take_scales_of_group},                                  \
        {".qzeros", " I32 ", {ROW_WORDS, GROUPS}, ZEROS = zeros},                                            \
        {".g_idx", " I32 ", {COLS}, MAYBE = take_order},                                                     \
    }

const nibl_hfq_part nibl_hfq_one_scale = {"", FLOATS, {ONE}, SCALES = take_scale_of_all};

const nibl_hfq_method nibl_hfq_methods[] = {
    {"awq", .bits = 4, .kind = NIBL_KIND_NIBBLE,
     .parts = {{".qweight", " I32 ", {ROW_WORDS, COLS}, CODES = take_column},
               {".scales", FLOATS, {ROWS, GROUPS}, SCALES = take_scales_of_group},
               {".qzeros", " I32 ", {ROW_WORDS, GROUPS}, ZEROS = take_zeros_awq}}},
    {"gptq", .kind = NIBL_KIND_NIBBLE, .parts = GPTQ(take_zeros_less_one)},
    {"gptq_v2", .kind = NIBL_KIND_NIBBLE, .parts = GPTQ(take_zeros)},
    {"pack-quantized", .kind = NIBL_KIND_NIBBLE,
     .parts =
         {{".weight_packed", " I32 ", {COL_WORDS, ROWS}, CODES = take_words},
          {".weight_scale", FLOATS, {GROUPS, ROWS}, SCALES = take_scales_of_row},
          {".weight_zero_point", " I32 ", {GROUPS, ROW_WORDS}, .optional = true, ZEROS = take_zeros_of_rows},
          {".weight_g_idx", " I32 ", {COLS}, MAYBE = take_order},
          {".weight_shape", " I64 ", {TWO}, MAYBE = take_shape}}},
    {"int-quantized", .bits = 8, .kind = NIBL_KIND_INT8,
     .parts = {{".weight", " I8 ", {COLS, ROWS}, CODES = take_bytes},
               {".weight_scale", FLOATS, {GROUPS, ROWS}, SCALES = take_scales_of_row},
               {".weight_zero_point", " I8 ", {GROUPS, ROWS}, .optional = true, ZEROS = take_zeros_of_row},
               {".weight_g_idx", " I32 ", {COLS}, MAYBE = take_order}}},
    {"mxfp4-pack-quantized", .bits = 4, .kind = NIBL_KIND_E2M1, .fixed = true, .scale = NIBL_SCALE_E8M0,
     .group = 32,
     .parts = {{".weight_packed", " U8 ", {COL_PAIRS, ROWS}, CODES = take_pairs},
               {".weight_scale", " U8 ", {GROUPS, ROWS}, SCALES = take_scales_of_row}}},
    {"nvfp4-pack-quantized", .bits = 4, .kind = NIBL_KIND_E2M1, .fixed = true, .scale = NIBL_SCALE_UE4M3_16,
     .group = 16,
     .parts = {{".weight_packed", " U8 ", {COL_PAIRS, ROWS}, CODES = take_pairs},
               {".weight_scale", " F8_E4M3 ", {GROUPS, ROWS}, SCALES = take_scales_of_row},
               {".weight_global_scale", " F32 ", {ONE}, .take = take_divisor}}},
    {"bitnet", .bits = 2, .kind = NIBL_KIND_BITS2,
     .parts = {{".weight", " U8 ", {COLS, ROW_QUARTERS}, CODES = take_quarters},
               {".weight_scale", FLOATS, {ONE}, SCALES = take_scale_of_all}}},
    {"mxfp4", /* gpt-oss: rows of all experts one after the other */
     .bits = 4, .kind = NIBL_KIND_E2M1, .fixed = true, .scale = NIBL_SCALE_E8M0, .group = 32,
     .parts = {{"_blocks", " U8 ", {SIXTEEN, COL_BLOCKS, ROWS}, .merged = true, CODES = take_pairs},
               {"_scales", " U8 ", {GROUPS, ROWS}, SCALES = take_scales_of_row}}},
};

const size_t nibl_hfq_method_count = sizeof nibl_hfq_methods / sizeof *nibl_hfq_methods;

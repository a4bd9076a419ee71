/* What each operation of kernels.def is called with. Function X of the table is checked by operation check_X here. */
#include "tests/c/checkkern.h"

#include <stddef.h>

/* Calls are cast to the type that the table gives the operation. */
#define AS(op, function) ((nibl_op_##op *)(function))

static size_t shift4(trial *t) { return random_below(&t->random, 16) * 4; }

static float *floats_in(trial *t, size_t n) {
    float *x = trial_input(t, n * sizeof *x, shift4(t));
    random_numbers(x, n, &t->random, t->shape.profile);
    return x;
}

static float *floats_out(trial *t, size_t n) {
    float *y = trial_output(t, n * sizeof *y, shift4(t));
    trial_writes(t, 0, n * sizeof *y, CONTENT_FLOATS);
    return y;
}

/* Some of the inputs of a quantizer or an activation function are not finite. */
static void spoil(trial *t, float *x, size_t n) {
    static const float values[] = {INFINITY, -INFINITY, NAN, -0.0f, FLT_MAX, 0x1p-149f};
    if (t->shape.profile == PROFILE_PLAIN || n == 0) return;
    for (uint32_t i = random_below(&t->random, 4); i > 0; i--)
        x[random_below(&t->random, (uint32_t)n)] = values[random_below(&t->random, 6)];
}

/* ---- Vectors ---- */

/* Every short length, then long ones. */
static void pick_vector(shape *s, uint64_t *random, uint32_t round) {
    s->n = round % 2 ? random_between(random, 1, 70) : random_between(random, 1, 2100);
    s->flag = round % 4 == 0;
}

static void pick_blocks(shape *s, uint64_t *random, uint32_t round) {
    s->n = NIBL_BLOCK * random_between(random, 1, round % 8 ? 8 : 64);
}

static void make_quantize(trial *t) {
    const uint32_t n = t->shape.n;
    float *x = floats_in(t, n);
    if (t->shape.profile != PROFILE_PLAIN)
        for (uint32_t b = 0; b < n;
             b += NIBL_BLOCK) { /* blocks of one size, ties among them, some of zeros */
            const float unit = random_below(&t->random, 8) ? random_number(&t->random, PROFILE_WILD) : 0.0f;
            const float step = random_below(&t->random, 2) ? 0.5f : 0.001f;
            for (uint32_t i = b; i < b + NIBL_BLOCK && random_below(&t->random, 40); i++)
                x[i] = unit * step * (float)((int)random_below(&t->random, 255) - 127);
            if (step == 0.5f) x[b] = unit * 127.0f;
        }
    spoil(t, x, n);
    const size_t bytes = n / NIBL_BLOCK * sizeof(nibl_act);
    trial_output(t, bytes, shift4(t));
    trial_writes(t, 0, bytes, CONTENT_BITS);
}

static void call_quantize(const trial *t, void (*function)(void)) {
    AS(quantize, function)(output(t, 0), t->inputs[0], t->shape.n);
}

static void work_quantize(const shape *s, double *bytes, double *macs) {
    *bytes = 5.5 * s->n;
    *macs = 0;
}

static void make_rmsnorm(trial *t) {
    const uint32_t n = t->shape.n;
    t->scale = random_below(&t->random, 2) ? 1e-5f : 0.0f;
    floats_in(t, n); /* weight */
    if (t->shape.flag) {
        random_numbers(floats_out(t, n), n, &t->random, t->shape.profile);
    } else {
        float *x = floats_in(t, n);
        if (random_below(&t->random, 4) == 0) spoil(t, x, n);
        floats_out(t, n);
    }
}

static void call_rmsnorm(const trial *t, void (*function)(void)) {
    float *y = output(t, 0);
    AS(rmsnorm, function)(y, t->shape.flag ? y : t->inputs[1], t->inputs[0], t->shape.n, t->scale);
}

static void pick_activation(shape *s, uint64_t *random, uint32_t round) {
    pick_vector(s, random, round);
    s->function = (nibl_activation)(round / 2 % 4);
    s->flag = round % 16 > 11;
}

static void make_activate(trial *t) {
    const uint32_t n = t->shape.n;
    float *gate = floats_in(t, n);
    for (uint32_t i = 0; i < n && t->shape.profile != PROFILE_PLAIN; i += 3)
        gate[i] = random_float(&t->random, -100.0f, 100.0f); /* around the ends of exp */
    spoil(t, gate, n);
    floats_in(t, n);
    floats_out(t, n);
}

static void call_activate(const trial *t, void (*function)(void)) {
    AS(activate, function)(output(t, 0), t->inputs[0], t->shape.flag ? NULL : t->inputs[1], t->shape.n,
                           t->shape.function);
}

static void make_soft_cap(trial *t) {
    float *x = floats_out(t, t->shape.n);
    random_numbers(x, t->shape.n, &t->random, t->shape.profile);
    spoil(t, x, t->shape.n);
}

static void call_soft_cap(const trial *t, void (*function)(void)) {
    AS(soft_cap, function)(output(t, 0), t->shape.n, 30.0f);
}

/* Some of the logits are forbidden, or all of them. */
static void make_softmax(trial *t) {
    float *x = floats_in(t, t->shape.n);
    const uint32_t forbidden = random_below(&t->random, 4) ? 8 : 1;
    for (uint32_t i = 0; i < t->shape.n; i++)
        if (t->shape.flag && random_below(&t->random, forbidden) == 0) x[i] = -INFINITY;
    floats_out(t, 2);
}

static void call_softmax(const trial *t, void (*function)(void)) {
    AS(softmax, function)(output(t, 0), t->inputs[0], t->shape.n);
}

static void work_cap(const shape *s, double *bytes, double *macs) {
    *bytes = 8.0 * s->n;
    *macs = 0;
}

static void make_layernorm(trial *t) {
    const uint32_t n = t->shape.n;
    t->scale = 1e-5f;
    for (int i = 0; i < 3; i++) floats_in(t, n); /* x, weight, bias */
    floats_out(t, n);
}

static void call_layernorm(const trial *t, void (*function)(void)) {
    AS(layernorm, function)(output(t, 0), t->inputs[0], t->inputs[1], t->inputs[2], t->shape.n, t->scale);
}

static void work_three(const shape *s, double *bytes, double *macs) {
    *bytes = 12.0 * s->n;
    *macs = 0;
}

static void make_widen_f16(trial *t) {
    const uint32_t n = t->shape.n;
    uint16_t *x = trial_input(t, n * sizeof *x, random_below(&t->random, 16) * 2);
    for (uint32_t i = 0; i < n; i++) x[i] = random_half(&t->random, PROFILE_WILD);
    floats_out(t, n);
}

static void call_widen_f16(const trial *t, void (*function)(void)) {
    AS(widen_f16, function)(output(t, 0), t->inputs[0], t->shape.n);
}

static void work_widen(const shape *s, double *bytes, double *macs) {
    *bytes = 6.0 * s->n;
    *macs = 0;
}

static void pick_rope(shape *s, uint64_t *random, uint32_t round) {
    s->n = random_between(random, 1, 128);
    s->flag = round % 2;
}

static void make_rope(trial *t) {
    const uint32_t n = 2 * t->shape.n;
    float *cos_sin = trial_input(t, n * sizeof *cos_sin, shift4(t));
    for (uint32_t i = 0; i < n; i++) cos_sin[i] = random_float(&t->random, -1.0f, 1.0f);
    random_numbers(floats_out(t, n), n, &t->random, t->shape.profile);
}

static void call_rope(const trial *t, void (*function)(void)) {
    AS(rope, function)(output(t, 0), t->inputs[0], t->shape.n, t->shape.flag);
}

static void work_rope(const shape *s, double *bytes, double *macs) {
    *bytes = 24.0 * s->n;
    *macs = 4.0 * s->n;
}

/* ---- Attention ---- */

static void pick_attention(shape *s, uint64_t *random, uint32_t round) {
    static const uint32_t widths[] = {64, 128, 80, 96, 32, 256, 16, 512};
    s->n = round % 4 == 0 ? NIBL_ATTN_BLOCK : random_between(random, 1, NIBL_ATTN_BLOCK);
    s->width = round % 3 ? widths[round % 8] : random_between(random, 1, 200);
    s->tokens = random_between(random, 1, 9); /* heads */
    s->first = round % 5 == 0 ? random_below(random, s->n) : 0;
    s->cap = round % 7 == 0 ? 20.0f : 0.0f;
}

static nibl_view view_of(const trial *t) {
    return (nibl_view){t->shape.first, t->shape.n, t->scale, t->shape.cap};
}

/* Positions behind the n-th hold anything. */
static void make_attn_block(trial *t) {
    const uint32_t n = t->shape.n, width = t->shape.width;
    const float junk[] = {NAN, INFINITY, 3e38f, 0.0f};
    floats_in(t, width);
    float *k = floats_in(t, (size_t)width * NIBL_ATTN_BLOCK),
          *v = floats_in(t, (size_t)width * NIBL_ATTN_BLOCK);
    for (uint32_t d = 0; d < width; d++)
        for (uint32_t j = n; j < NIBL_ATTN_BLOCK; j++) {
            k[d * NIBL_ATTN_BLOCK + j] = junk[random_below(&t->random, 4)];
            v[j * width + d] = junk[random_below(&t->random, 4)];
        }
    t->scale = 1.0f / sqrtf((float)width);
    floats_out(t, width);
    floats_out(t, 2);
}

static void call_attn_block(const trial *t, void (*function)(void)) {
    const nibl_view view = view_of(t);
    AS(attn_block, function)(output(t, 0), output(t, 1), t->inputs[0], t->inputs[1], t->inputs[2], &view,
                             t->shape.width);
}

static void work_attention(const shape *s, double *bytes, double *macs) {
    *bytes = 8.0 * s->n * s->width;
    *macs = 2.0 * s->n * s->width;
}

/* Codes, scales and padding behind the n-th position hold anything; what precedes them is what the cache writes. */
static void make_attn_block_i8(trial *t) {
    static const float junk[] = {NAN, INFINITY, -INFINITY, 3e38f, -0.0f},
                       ends[] = {0.0f, FLT_MIN, 0x1p-149f, 1e15f};
    const uint32_t n = t->shape.n, width = t->shape.width, padded = nibl_attn_i8_width(width);
    const size_t blocks = (width + NIBL_BLOCK - 1) / NIBL_BLOCK, half = (size_t)NIBL_ATTN_BLOCK * padded;
    const bool ended = t->shape.profile != PROFILE_PLAIN && random_below(&t->random, 2);
    nibl_act *q = trial_input(t, t->shape.tokens * blocks * sizeof *q, shift4(t));
    random_acts(q, t->shape.tokens * blocks, &t->random, t->shape.profile);
    for (uint32_t h = 0; h < t->shape.tokens; h++)
        for (uint32_t d = width; d < blocks * NIBL_BLOCK; d++)
            q[h * blocks + d / NIBL_BLOCK].q[d % NIBL_BLOCK] = 0;
    nibl_attn_i8 *kv = trial_input(t, nibl_attn_i8_bytes(width), shift4(t));
    for (size_t i = 0; i < half; i++) kv->codes[i] = (int8_t)random_below(&t->random, 128);
    random_codes(kv->codes + half, half, &t->random, t->shape.profile);
    for (uint32_t j = 0; j < NIBL_ATTN_BLOCK; j++) {
        kv->d[j] = ended ? ends[random_below(&t->random, 4)] : random_float(&t->random, 0.0f, 0.05f);
        kv->m[j] = random_number(&t->random, t->shape.profile);
        kv->dv[j] = ended ? ends[random_below(&t->random, 4)] : random_float(&t->random, 0.0f, 0.05f);
        if (j < n) continue;
        kv->d[j] = junk[random_below(&t->random, 5)];
        kv->m[j] = junk[random_below(&t->random, 5)];
        kv->dv[j] = junk[random_below(&t->random, 5)];
        for (uint32_t d = 0; d < padded; d++) {
            kv->codes[nibl_attn_i8_key(width, j, d)] = (int8_t)random_below(&t->random, 256);
            kv->codes[nibl_attn_i8_value(width, j, d)] = (int8_t)random_below(&t->random, 256);
        }
    }
    for (uint32_t d = width; d < padded; d++)
        for (uint32_t j = 0; j < NIBL_ATTN_BLOCK; j++) {
            kv->codes[nibl_attn_i8_key(width, j, d)] = (int8_t)random_below(&t->random, 128);
            kv->codes[nibl_attn_i8_value(width, j, d)] = (int8_t)random_below(&t->random, 256);
        }
    t->scale = 1.0f / sqrtf((float)width);
    floats_out(t, (size_t)t->shape.tokens * (2 + width));
}

static void call_attn_block_i8(const trial *t, void (*function)(void)) {
    float *out = output(t, 0);
    const nibl_view view = view_of(t);
    AS(attn_block_i8, function)(out + 2, out, 2 + t->shape.width, t->inputs[0], t->inputs[1], t->inputs[1],
                                &view, t->shape.width, t->shape.tokens);
}

static void work_attention_i8(const shape *s, double *bytes, double *macs) {
    *bytes = (double)nibl_attn_i8_bytes(s->width);
    *macs = 2.0 * s->n * s->width * s->tokens;
}

static void make_attn_merge(trial *t) {
    const uint32_t width = t->shape.width;
    const bool empty = random_below(&t->random, 3) == 0;
    floats_in(t, width); /* o2 */
    float *ml2 = floats_in(t, 2), *o = floats_out(t, width), *ml;
    ml2[1] = random_float(&t->random, 1.0f, 64.0f);
    if (!empty) random_numbers(o, width, &t->random, t->shape.profile);
    for (uint32_t d = 0; d < width && empty; d++) o[d] = 0.0f;
    ml = floats_out(t, 2);
    ml[0] = empty ? -INFINITY : random_number(&t->random, t->shape.profile);
    ml[1] = empty ? 0.0f : random_float(&t->random, 1.0f, 64.0f);
}

static void call_attn_merge(const trial *t, void (*function)(void)) {
    AS(attn_merge, function)(output(t, 0), output(t, 1), t->inputs[0], t->inputs[1], t->shape.width);
}

static void work_merge(const shape *s, double *bytes, double *macs) {
    *bytes = 12.0 * s->width;
    *macs = 2.0 * s->width;
}

/* ---- Matrices ---- */

/* Rows are no multiple of 8, panels a part of all; tokens run through 1 to 9 and 64. */
static void pick_matrix(shape *s, uint64_t *random, uint32_t round) {
    s->tokens = (round / 2) % 10 == 9 ? 64 : (round / 2) % 10 + 1;
    s->rows = random_between(random, 1, 40);
    s->cols = NIBL_BLOCK * random_between(random, 1, s->tokens == 64 || round % 8 ? 12 : 64);
    const uint32_t panels = (s->rows + 7) / 8;
    s->begin = random_below(random, panels);
    s->end = random_between(random, s->begin, panels);
    if (round % 3 == 0) s->begin = 0, s->end = panels;
}

static void pick_nibble(shape *s, uint64_t *random, uint32_t round) {
    pick_matrix(s, random, round);
    s->kind = NIBL_KIND_NIBBLE;
    s->scale = round % 2 ? NIBL_SCALE_F16_MIN : NIBL_SCALE_F16;
}

static void pick_int8(shape *s, uint64_t *random, uint32_t round) {
    pick_matrix(s, random, round);
    s->kind = NIBL_KIND_INT8;
}

/* Every kind with every scale mode in turn; those with a head have 256 columns at least. */
static void pick_codes(shape *s, uint64_t *random, uint32_t round) {
    enum { KINDS = NIBL_KIND_COUNT - NIBL_KIND_NIBBLE };
    pick_matrix(s, random, round / 3);
    s->kind = (nibl_kind)(NIBL_KIND_NIBBLE + round % KINDS);
    s->scale = (nibl_scale)(round / KINDS % NIBL_SCALE_COUNT);
    const bool is_signed = s->kind == NIBL_KIND_INT8 || s->kind == NIBL_KIND_IQ4 || s->kind == NIBL_KIND_E2M1;
    const nibl_scale_form form = nibl_scale_form_of(s->scale);
    if (is_signed && (form.min || form.zero))
        s->scale = form.head ? NIBL_SCALE_SUPER_I6 : NIBL_SCALE_UE4M3_16;
    const bool has_head = nibl_head_bytes(s->scale) > 0;
    if (has_head) s->cols = NIBL_SUPER * random_between(random, 1, 3);
    if (round % 17 == 0)
        s->cols = NIBL_SUPER * 17 + (has_head ? 0 : NIBL_BLOCK); /* more than some take at once */
    if (s->tokens == 64) s->tokens = 10;
}

static void pick_any(shape *s, uint64_t *random, uint32_t round) {
    if (round % 3) {
        pick_codes(s, random, round);
    } else {
        pick_matrix(s, random, round / 5);
        s->kind = (nibl_kind)(round / 3 % 3);
        s->cols = random_between(random, 1, random_below(random, 4) ? 200 : 2048);
    }
    if (s->tokens == 64) s->tokens = 10;
    s->n = random_below(random, s->rows);
}

static void make_weights(trial *t) {
    const shape *s = &t->shape;
    t->w =
        (nibl_matrix){.rows = s->rows,
                      .cols = s->cols,
                      .kind = (uint8_t)s->kind,
                      .scale = (uint8_t)s->scale,
                      .factor = random_below(&t->random, 2) ? 1.0f : random_number(&t->random, s->profile)};
    t->w.data =
        trial_input(t, nibl_panels(&t->w) * nibl_panel_bytes(&t->w), random_below(&t->random, 4) * 16);
    random_weights(&t->w, &t->random, s->profile);
    if (s->kind != NIBL_KIND_INT8 || nibl_is_plain(&t->w) || random_below(&t->random, 2)) return;
    t->w.has_m128 = true;
    for (int i = 0; i < 20; i++) {
        const uint32_t b = random_below(&t->random, s->cols / NIBL_BLOCK);
        nibl_panel(&t->w, random_below(
                              &t->random,
                              nibl_panels(&t->w)))[nibl_block_offset(&t->w, b) + nibl_scale_bytes(s->scale) +
                                                   random_below(&t->random, 256)] = 0x80;
    }
}

/* y: the panels asked for, of every token. */
static void make_products(trial *t) {
    const shape *s = &t->shape;
    t->stride = (size_t)nibl_panels(&t->w) * NIBL_PANEL + random_below(&t->random, 12);
    trial_output(t, s->tokens * t->stride * 4, shift4(t));
    for (uint32_t i = 0; i < s->tokens; i++)
        trial_writes(t, (i * t->stride + (size_t)s->begin * NIBL_PANEL) * 4,
                     (size_t)(s->end - s->begin) * NIBL_PANEL * 4, CONTENT_FLOATS);
}

static void make_gemm(trial *t) {
    make_weights(t);
    const size_t blocks = (size_t)t->shape.tokens * (t->shape.cols / NIBL_BLOCK);
    random_acts(trial_input(t, blocks * sizeof(nibl_act), shift4(t)), blocks, &t->random, t->shape.profile);
    make_products(t);
    trial_output(t, NIBL_GEMM_SCRATCH(t->shape.cols), 0);
    trial_writes(t, 0, NIBL_GEMM_SCRATCH(t->shape.cols), CONTENT_SCRATCH);
}

static void make_gemv(trial *t) {
    t->shape.tokens = 1;
    make_gemm(t);
}

#define CALL_GEMV(op)                                                                                        \
    static void call_##op(const trial *t, void (*function)(void)) {                                          \
        AS(op, function)(output(t, 0), &t->w, t->shape.begin, t->shape.end, t->inputs[1]);                   \
    }
#define CALL_GEMM(op)                                                                                        \
    static void call_##op(const trial *t, void (*function)(void)) {                                          \
        AS(op, function)(output(t, 0), t->stride, &t->w, t->shape.begin, t->shape.end, t->inputs[1],         \
                         t->shape.tokens, output(t, 1));                                                     \
    }
CALL_GEMV(gemv_nibble)
CALL_GEMV(gemv_int8)
CALL_GEMM(gemm_nibble)
CALL_GEMM(gemm_int8)

static void make_matmul_codes(trial *t) {
    make_weights(t);
    const size_t blocks = (size_t)t->shape.tokens * (t->shape.cols / NIBL_BLOCK);
    random_acts(trial_input(t, blocks * sizeof(nibl_act), shift4(t)), blocks, &t->random, t->shape.profile);
    make_products(t);
}

static void call_matmul_codes(const trial *t, void (*function)(void)) {
    AS(matmul_codes, function)(output(t, 0), t->stride, &t->w, t->shape.begin, t->shape.end, t->inputs[1],
                               t->shape.tokens);
}

static void make_matmul_float(trial *t) {
    make_weights(t);
    t->x_stride = t->shape.cols + random_below(&t->random, 12);
    floats_in(t, t->shape.tokens * t->x_stride);
    make_products(t);
}

static void call_matmul_float(const trial *t, void (*function)(void)) {
    AS(matmul_float, function)(output(t, 0), t->stride, &t->w, t->shape.begin, t->shape.end, t->inputs[1],
                               t->x_stride, t->shape.tokens);
}

static void work_matrix(const shape *s, double *bytes, double *macs) {
    const nibl_matrix w = {
        .rows = s->rows, .cols = s->cols, .kind = (uint8_t)s->kind, .scale = (uint8_t)s->scale};
    *bytes = (double)nibl_panels(&w) * (double)nibl_panel_bytes(&w);
    *macs = (double)s->rows * s->cols * s->tokens;
}

/* ---- Rows in and out ---- */

/* A row in the plain layout, or a float row. */
static size_t row_bytes(const nibl_matrix *w) {
    if (nibl_kind_is_float((nibl_kind)w->kind)) return nibl_panel_bytes(w) / NIBL_PANEL;
    const nibl_scale_form form = nibl_scale_form_of((nibl_scale)w->scale);
    return (size_t)w->cols / NIBL_BLOCK * ((size_t)NIBL_BLOCK + form.field[0] + form.field[1] + form.six) +
           w->cols / NIBL_SUPER * 2u * form.head;
}

static void make_pack_row(trial *t) {
    const shape *s = &t->shape;
    t->w = (nibl_matrix){.rows = s->rows,
                         .cols = s->cols,
                         .kind = (uint8_t)s->kind,
                         .scale = (uint8_t)s->scale,
                         .layout = NIBL_LAYOUT_PLAIN,
                         .factor = 1};
    uint8_t *row = trial_input(t, row_bytes(&t->w), random_below(&t->random, 64));
    for (size_t i = 0; i < row_bytes(&t->w); i++) row[i] = (uint8_t)random_below(&t->random, 256);
    const size_t panel = nibl_panel_bytes(&t->w);
    uint8_t *data = trial_output(t, nibl_panels(&t->w) * panel, 0);
    trial_writes(t, s->n / NIBL_PANEL * panel, panel, CONTENT_BITS);
    for (size_t i = 0; i < panel; i++)
        data[s->n / NIBL_PANEL * panel + i] = (uint8_t)random_below(&t->random, 256);
    trial_output(t, 2, 0);
    trial_writes(t, 0, 2, CONTENT_BITS);
}

static void call_pack_row(const trial *t, void (*function)(void)) {
    nibl_matrix w = t->w;
    w.data = output(t, 0);
    bool finite = true;
    AS(pack_row, function)(&w, t->shape.n, t->inputs[0], &finite);
    const bool flags[2] = {finite, w.has_m128};
    memcpy(output(t, 1), flags, 2);
}

static void make_unpack_row(trial *t) {
    make_weights(t);
    floats_out(t, t->shape.cols);
}

static void call_unpack_row(const trial *t, void (*function)(void)) {
    AS(unpack_row, function)(output(t, 0), &t->w, t->shape.n);
}

static void work_row(const shape *s, double *bytes, double *macs) {
    const nibl_matrix w = {
        .rows = s->rows, .cols = s->cols, .kind = (uint8_t)s->kind, .scale = (uint8_t)s->scale};
    *bytes = (double)row_bytes(&w);
    *macs = 0;
}

/* ---- Quantizer ---- */

static void pick_group(shape *s, uint64_t *random, uint32_t round) {
    s->n = 16 * (round % 4 == 0 ? random_between(random, 1, 16) : 2);
    s->tokens = random_between(random, 1, 40); /* tries */
    s->flag = round % 3 == 0; /* levels of a table */
}

static nibl_levels levels_of(const trial *t) {
    nibl_levels g = {.low = -8, .high = 7};
    for (uint32_t i = 0; t->shape.flag && i < 15; i++) g.table[g.count++] = (float)(i * i) - 50;
    return g;
}

static void make_fit(trial *t, size_t outputs) {
    const uint32_t n = t->shape.n, count = t->shape.tokens;
    float *x = floats_in(t, n), *w = floats_in(t, n);
    nibl_try *tries = trial_input(t, count * sizeof *tries, shift4(t));
    for (uint32_t i = 0; i < n; i++) w[i] = fabsf(w[i]);
    for (uint32_t i = 0; i < count; i++) {
        const float d = random_float(&t->random, -0.3f, 0.3f), e = random_float(&t->random, -1.0f, 1.0f);
        tries[i] = (nibl_try){d < 0 || d > 0 ? 1 / d : 0, i % 2 ? e : 0, d, e};
    }
    for (uint32_t i = 0; i < n; i += 3) /* ties, when a try makes them */
        x[i] = tries[0].d * ((float)random_below(&t->random, 16) - 7.5f);
    floats_out(t, outputs);
}

static void make_fit_sums(trial *t) { make_fit(t, 3 + 3 * (size_t)t->shape.tokens); }
static void make_fit_errors(trial *t) { make_fit(t, t->shape.tokens); }

static void call_fit_sums(const trial *t, void (*function)(void)) {
    const nibl_levels g = levels_of(t);
    AS(fit_sums, function)(output(t, 0), t->inputs[0], t->inputs[1], t->shape.n, &g, t->inputs[2],
                           t->shape.tokens);
}

static void call_fit_errors(const trial *t, void (*function)(void)) {
    const nibl_levels g = levels_of(t);
    AS(fit_errors, function)(output(t, 0), t->inputs[0], t->inputs[1], t->shape.n, &g, t->inputs[2],
                             t->shape.tokens);
}

static void work_fit(const shape *s, double *bytes, double *macs) {
    *bytes = 8.0 * s->n;
    *macs = 3.0 * s->n * s->tokens;
}

static void pick_tile(shape *s, uint64_t *random, uint32_t round) {
    (void)round;
    s->n = random_between(random, 1, 200);
}

static void make_tile_f32(trial *t) {
    for (int i = 0; i < 2; i++) floats_in(t, (size_t)t->shape.n * NIBL_TILE);
    random_numbers(floats_out(t, NIBL_TILE * NIBL_TILE), NIBL_TILE * NIBL_TILE, &t->random, t->shape.profile);
}

static void call_tile_f32(const trial *t, void (*function)(void)) {
    AS(tile_f32, function)(output(t, 0), t->inputs[0], t->inputs[1], t->shape.n);
}

static void make_tile_f64(trial *t) {
    const size_t n = (size_t)t->shape.n * NIBL_TILE;
    for (int i = 0; i < 2; i++) {
        double *x = trial_input(t, n * sizeof *x, random_below(&t->random, 8) * 8);
        for (size_t j = 0; j < n; j++) x[j] = (double)random_float(&t->random, -3.0f, 3.0f) / 7;
    }
    double *c = trial_output(t, NIBL_TILE * NIBL_TILE * sizeof *c, random_below(&t->random, 8) * 8);
    for (int j = 0; j < NIBL_TILE * NIBL_TILE; j++) c[j] = (double)random_float(&t->random, -3.0f, 3.0f) / 7;
    trial_writes(t, 0, NIBL_TILE * NIBL_TILE * sizeof *c, CONTENT_BITS);
}

static void call_tile_f64(const trial *t, void (*function)(void)) {
    AS(tile_f64, function)(output(t, 0), t->inputs[0], t->inputs[1], t->shape.n);
}

static void work_tile(const shape *s, double *bytes, double *macs) {
    *bytes = 8.0 * s->n * (double)NIBL_TILE;
    *macs = (double)(NIBL_TILE * NIBL_TILE) * s->n;
}

/* ---- The table; shapes of --bench are those of SmolLM2-135M ---- */

#define NIBBLE(r, c, t)                                                                                      \
    {.rows = r, .cols = c, .tokens = t, .kind = NIBL_KIND_NIBBLE, .scale = NIBL_SCALE_F16_MIN, .end = (r) / 8}
#define SYMMETRIC(r, c, t) {.rows = r, .cols = c, .tokens = t, .kind = NIBL_KIND_NIBBLE, .end = (r) / 8}
#define INT8(r, c, t) {.rows = r, .cols = c, .tokens = t, .kind = NIBL_KIND_INT8, .end = (r) / 8}

#define CODES(k, s, t)                                                                                       \
    {.rows = 1536, .cols = 768, .tokens = t, .kind = NIBL_KIND_##k, .scale = NIBL_SCALE_##s, .end = 1536 / 8}

static const operation check_quantize = {
    pick_blocks, make_quantize, call_quantize, work_quantize, {{.n = 576}, {.n = 1536}}};
static const operation check_gemv_nibble = {
    pick_nibble,
    make_gemv,
    call_gemv_nibble,
    work_matrix,
    {NIBBLE(1536, 576, 1), NIBBLE(576, 1536, 1), SYMMETRIC(1536, 576, 1)}};
static const operation check_gemv_int8 = {
    pick_int8, make_gemv, call_gemv_int8, work_matrix, {INT8(1536, 576, 1), INT8(49152, 576, 1)}};
static const operation check_gemm_nibble = {pick_nibble,
                                            make_gemm,
                                            call_gemm_nibble,
                                            work_matrix,
                                            {NIBBLE(1536, 576, 64), NIBBLE(576, 1536, 64),
                                             SYMMETRIC(1536, 576, 64), NIBBLE(1536, 576, 16),
                                             NIBBLE(1536, 576, 5)}};
static const operation check_gemm_int8 = {pick_int8,
                                          make_gemm,
                                          call_gemm_int8,
                                          work_matrix,
                                          {INT8(1536, 576, 64), INT8(576, 1536, 64), INT8(1536, 576, 16)}};
static const operation check_matmul_codes = {
    pick_codes,
    make_matmul_codes,
    call_matmul_codes,
    work_matrix,
    {CODES(BITS5, F16, 1), CODES(BITS5, F16_MIN, 1), CODES(BITS2, SUPER_U4_MIN_16, 1),
     CODES(BITS3, SUPER_I6_16, 1), CODES(NIBBLE, SUPER_U6_MIN, 1), CODES(BITS5, SUPER_U6_MIN, 1),
     CODES(BITS6, SUPER_I8_16, 1), CODES(IQ4, F16, 1), CODES(IQ4, SUPER_I6, 1), CODES(BITS2, SUPER, 1),
     CODES(E2M1, E8M0, 1), CODES(E2M1, UE4M3_16, 1), CODES(NIBBLE, F16_ZERO, 1), CODES(NIBBLE, BF16_ZERO, 1),
     CODES(INT8, BF16, 1), CODES(NIBBLE, SUPER_U6_MIN, 64), CODES(BITS6, SUPER_I8_16, 64)}};
static const operation check_matmul_float = {pick_any,
                                             make_matmul_float,
                                             call_matmul_float,
                                             work_matrix,
                                             {NIBBLE(1536, 576, 1), NIBBLE(1536, 576, 64)}};
static const operation check_rmsnorm = {pick_vector, make_rmsnorm, call_rmsnorm, work_three, {{.n = 576}}};
static const operation check_rope = {
    pick_rope, make_rope, call_rope, work_rope, {{.n = 32, .flag = true}, {.n = 32}}};
static const operation check_layernorm = {
    pick_vector, make_layernorm, call_layernorm, work_three, {{.n = 768}}};
static const operation check_activate = {pick_activation,
                                         make_activate,
                                         call_activate,
                                         work_three,
                                         {{.n = 1536}, {.n = 1536, .function = NIBL_ACTIVATE_GELU}}};
static const operation check_soft_cap = {pick_vector, make_soft_cap, call_soft_cap, work_cap, {{.n = 1536}}};
static const operation check_softmax = {pick_vector, make_softmax, call_softmax, work_cap, {{.n = 1024}}};
static const operation check_widen_f16 = {
    pick_vector, make_widen_f16, call_widen_f16, work_widen, {{.n = 2 * 64 * 64}}};
static const operation check_attn_block = {
    pick_attention, make_attn_block, call_attn_block, work_attention, {{.n = 64, .width = 64}}};
static const operation check_attn_block_i8 = {pick_attention,
                                              make_attn_block_i8,
                                              call_attn_block_i8,
                                              work_attention_i8,
                                              {{.n = 64, .width = 64, .tokens = 1},
                                               {.n = 64, .width = 64, .tokens = 3},
                                               {.n = 64, .width = 128, .tokens = 4}}};
static const operation check_attn_merge = {
    pick_attention, make_attn_merge, call_attn_merge, work_merge, {{.n = 64, .width = 64}}};
static const operation check_pack_row = {
    pick_any, make_pack_row, call_pack_row, work_row, {NIBBLE(8, 576, 1), INT8(8, 576, 1)}};
static const operation check_unpack_row = {
    pick_any, make_unpack_row, call_unpack_row, work_row, {NIBBLE(8, 576, 1), INT8(8, 576, 1)}};

static const operation check_fit_sums = {
    pick_group, make_fit_sums, call_fit_sums, work_fit, {{.n = 32, .tokens = 34}}};
static const operation check_fit_errors = {
    pick_group, make_fit_errors, call_fit_errors, work_fit, {{.n = 32, .tokens = 34}}};
static const operation check_tile_f32 = {
    pick_tile, make_tile_f32, call_tile_f32, work_tile, {{.n = 64}, {.n = 1536}}};
static const operation check_tile_f64 = {
    pick_tile, make_tile_f64, call_tile_f64, work_tile, {{.n = 64}, {.n = 1536}}};

#define NIBL_OP(name, args, check) &check_##name,
const operation *const operations[] = {
#include "kernels/kernels.def"
};
#define NIBL_OP(name, args, check) #name,
const char *const operation_names[] = {
#include "kernels/kernels.def"
};
const size_t operation_count = sizeof operations / sizeof operations[0];

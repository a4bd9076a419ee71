/*
 * Mixed precision: which tensor gets which type, so that a file of a given size loses least. What a tensor is worth is
 * measured: it alone is rounded to its smallest type, by columns where the method will do so (GPTQ), and the divergence of the
 * distributions (KL) of some positions of the text is taken, with exact activations: one tensor loses a tenth of what other
 * roundings of activations would each time. Layers come one after the other, then what is outside of them; the matrices of one
 * tensor (all experts, query with key and value) go together, each with what is known of its own input. For other types
 * that is scaled by their error over a sample of rows: of outputs, or of weights, squares weighted by the activity of inputs,
 * where they are not rounded by columns. Losses are taken to add up; the types are those with the least sum that fit.
 */
#include "core/encode_grid.h"
#include "core/encode_parts.h"
#include "core/maths.h"
#include "core/quant/calib.h"
#include "core/quant/gptq.h"
#include "core/quant/outputs.h"
#include "core/quant/recipe.h"
#include "core/run.h"
#include "core/session.h"
#include "kernels/maths.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = NIBL_MAX_CHUNK, TOKENS = 512, MOST_UNITS = 1 << 15 /* of bytes that are spent */ };
enum { SAMPLE = 64 /* rows of a matrix */, MAX_TYPES = 16 };
static const double NOTHING = 1e-9; /* nats: a loss that cannot be told from none, but by its error */

typedef struct item {
    const nibl_quant_tensor *tensor;
    const nibl_output *output;
    const nibl_layer *layer; /* NULL: outside of them */
    double errors[MAX_TYPES],
        loss; /* errors of types that it can have, else infinite; KL with the smallest */
    uint64_t bytes[MAX_TYPES];
    uint32_t smallest, chosen;
} item;

struct nibl_allotment {
    nibl_model *model;
    nibl_outputs outputs;
    nibl_recipe recipe; /* of those */
    const nibl_dtype *types[MAX_TYPES];
    uint32_t type_count, layer; /* the next one to be computed */
    item *items;
    size_t count, at; /* the next one to be measured */
    nibl_tensor_type *tensors; /* given ones, then one per item */
    char *texts; /* of the given ones */
    size_t given;
    nibl_calib calib;
    bool by_columns;
    nibl_site head; /* what the head is multiplied with, once the layers are computed */
    nibl_factor *factors; /* in place of the sums of the layer's sites, and of the head's: the last of */
    uint32_t factor_count;
    /* the positions that are scored, of the first tokens */
    nibl_run *run;
    nibl_kv *caches;
    nibl_row *rows;
    uint32_t cache_count, row_count, scored;
    float *streams; /* (layers, rows, width): before each */
    float *reference; /* (scored, vocabulary): log p */
    double *losses; /* (scored) */
    /* the tensor at hand: the matrix of it, */
    item *item;
    const nibl_matrix *from;
    const nibl_factor *factor; /* NULL = it is rounded as it stands */
    float *weights; /* (cols): activity of its input; NULL = all alike */
    nibl_matrix packed; /* what it becomes, */
    nibl_matrix *plain; /* and all of them as they were */
    uint32_t replaced;
    float *activity; /* (widest): room for `weights` */
    uint8_t *row_bytes; /* (workers, a row) */
    float *rows_at_work; /* (workers, NIBL_TILE, widest), then NIBL_GPTQ_ROOM(widest) for each */
    nibl_block *blocks; /* (workers, NIBL_TILE, widest / NIBL_BLOCK) */
    uint64_t widest;
    bool refused;
};

/* ---- Losses ---- */

static void loss_job(void *context, uint32_t worker, uint32_t workers) {
    const nibl_allotment *a = context;
    const uint32_t n = a->model->hyper.vocabulary;
    for (uint32_t i = worker; i < a->scored; i += workers) {
        const float *logits = nibl_run_logits(a->run, i);
        float *reference = a->reference + (size_t)i * n, most = logits[0];
        double sum = 0, kl = 0;
        for (uint32_t j = 1; j < n; j++) most = logits[j] > most ? logits[j] : most;
        for (uint32_t j = 0; j < n; j++) sum += (double)nibl_expf(logits[j] - most);
        const double log_sum = nibl_log(sum) + (double)most;
        if (!a->item) { /* this is the reference */
            for (uint32_t j = 0; j < n; j++) reference[j] = (float)((double)logits[j] - log_sum);
            a->losses[i] = isfinite(log_sum) ? 0 : HUGE_VAL;
            continue;
        }
        for (uint32_t j = 0; j < n; j++)
            kl += (double)nibl_expf(reference[j]) * ((double)(reference[j] - logits[j]) + log_sum);
        a->losses[i] = kl;
    }
}

/* The mean loss from layer `first` on, with the weights as they are. */
static nibl_status measure(nibl_allotment *a, uint32_t first, bool embeds, double *out) {
    uint32_t units = UINT32_MAX;
    const size_t stream = (size_t)a->row_count * a->model->hyper.width;
    a->run->layer = first;
    a->run->row = 0;
    a->run->embedded = !embeds;
    if (!embeds) memcpy(a->run->x, a->streams + first * stream, stream * sizeof *a->streams);
    NIBL_TRY(nibl_run_advance(a->run, &units));
    nibl_pool_run(a->model->pool, loss_job, a);
    *out = 0;
    for (uint32_t i = 0; i < a->scored; i++) *out += a->losses[i] / a->scored;
    return isfinite(*out) ? NIBL_OK
                          : nibl_fail(NIBL_E_NUMERIC, "calibration computes values that are not finite");
}

/* Computes the reference, and what stands before every layer. */
static nibl_status begin_reference(nibl_allotment *a) {
    const nibl_hyper *h = &a->model->hyper;
    const uint64_t stream = (uint64_t)a->row_count * h->width;
    const uint32_t chunks = (a->row_count + CHUNK - 1) / CHUNK;
    double none;
    a->streams = nibl_alloc(4 * stream * h->layers);
    a->reference = nibl_alloc(4ull * a->scored * h->vocabulary);
    a->losses = nibl_alloc((uint64_t)a->scored * sizeof *a->losses);
    if (!a->streams || !a->reference || !a->losses)
        return nibl_fail_memory(4 * stream * h->layers + 4ull * a->scored * h->vocabulary, "the reference");
    NIBL_TRY(nibl_run_new(a->model, &a->run));
    NIBL_TRY(nibl_run_begin(a->run, a->rows, a->row_count, CHUNK, NIBL_ACT_F32));
    for (uint32_t layer = 0; layer < h->layers; layer++) {
        uint32_t units = 0, at;
        NIBL_TRY(nibl_run_advance(a->run, &units));
        memcpy(a->streams + layer * stream, nibl_run_stream(a->run, false, &at),
               (size_t)stream * sizeof(float));
        units = chunks;
        if (layer + 1 < h->layers) NIBL_TRY(nibl_run_advance(a->run, &units));
    }
    return measure(a, h->layers - 1, false, &none);
}

/* ---- Rounding one tensor ---- */

static float *room_of(const nibl_allotment *a, uint32_t worker) {
    return a->rows_at_work + worker * (NIBL_TILE * a->widest + NIBL_GPTQ_ROOM(a->widest));
}

/* At most 16 rows, `step` apart from `first` on, rounded to a type; false where a value is too large. */
static bool round_rows(nibl_allotment *a, uint32_t worker, const nibl_dtype *to, uint32_t first,
                       uint32_t step, uint32_t count, nibl_gptq_rows *rows) {
    const nibl_matrix *from = a->from;
    *rows = (nibl_gptq_rows){.grid = nibl_grid_of(to),
                             .block = to->block,
                             .rows = count,
                             .x = room_of(a, worker),
                             .stride = (size_t)a->widest,
                             .blocks = a->blocks + worker * NIBL_TILE * (a->widest / NIBL_BLOCK),
                             .block_stride = (size_t)a->widest / NIBL_BLOCK,
                             .room = room_of(a, worker) + NIBL_TILE * a->widest};
    for (uint32_t r = 0; r < count; r++) {
        float *x = room_of(a, worker) + r * a->widest;
        a->model->kernels->unpack_row(x, from, first + r * step);
        if (!nibl_choose_row(a->model->kernels, to, x, a->weights, from->cols, true, NULL,
                             &rows->blocks[r * rows->block_stride]))
            return false;
    }
    if (a->factor) nibl_gptq_round(a->factor, a->model->kernels, rows);
    return true;
}

/* Rows [first, end) of the matrix: a panel, whose rows share bytes. */
static bool pack_panel(nibl_allotment *a, uint32_t worker, uint32_t first, uint32_t end) {
    const nibl_dtype *to = a->types[a->item->smallest];
    const uint32_t blocks = a->from->cols / to->block;
    uint8_t *bytes = a->row_bytes + worker * 4 * a->widest;
    nibl_gptq_rows rows;
    if (!round_rows(a, worker, to, first, 1, end - first, &rows)) return false;
    for (uint32_t r = 0; r < rows.rows; r++) {
        nibl_matrix part = a->packed;
        bool finite = true;
        for (uint32_t i = 0; i < blocks; i++)
            nibl_write_block(to, &rows.blocks[r * rows.block_stride + i], bytes + (size_t)i * to->bytes);
        a->model->kernels->pack_row(&part, first + r, bytes, &finite);
        if (part.has_m128) a->packed.has_m128 = true;
    }
    return true;
}

static void pack_job(void *context, uint32_t worker, uint32_t workers) {
    nibl_allotment *a = context;
    const uint32_t rows = a->from->rows;
    for (uint32_t first = worker * NIBL_PANEL; first < rows; first += workers * NIBL_PANEL)
        if (!pack_panel(a, worker, first, rows - first < NIBL_PANEL ? rows : first + NIBL_PANEL))
            a->refused = true;
}

static nibl_status pack(nibl_allotment *a) {
    const nibl_dtype *to = a->types[a->item->smallest];
    a->packed = nibl_matrix_of(to, a->from->rows, a->from->cols);
    const uint64_t bytes = (uint64_t)nibl_panel_bytes(&a->packed) * nibl_panels(&a->packed);
    a->packed.data = nibl_alloc_zero(bytes);
    if (!a->packed.data) return nibl_fail_memory(bytes, "a matrix");
    a->refused = false;
    nibl_pool_run(a->model->pool, pack_job, a);
    return a->refused ? nibl_fail(NIBL_E_NUMERIC, "tensor '%s': a value is too large for type %s",
                                  a->item->output->name, to->name)
                      : NIBL_OK;
}

/* What rounding does to a row: of its outputs where it is rounded by columns, else of its weights, by their activity. */
static double error_of(const nibl_allotment *a, const nibl_gptq_rows *rows) {
    float alike[NIBL_SUPER];
    double error = 0;
    if (a->factor) return nibl_gptq_error(a->factor, a->model->kernels, rows);
    for (int i = 0; i < NIBL_SUPER; i++) alike[i] = 1;
    for (uint32_t r = 0; r < rows->rows; r++)
        for (uint32_t at = 0; at < a->from->cols; at += rows->block)
            error += nibl_block_error(rows->grid, rows->x + r * rows->stride + at,
                                      a->weights ? a->weights + at : alike, rows->block,
                                      &rows->blocks[r * rows->block_stride + at / rows->block]);
    return error;
}

/* Adds errors of a sample of rows with every type that the tensor can have: worker by worker a type. */
static void errors_job(void *context, uint32_t worker, uint32_t workers) {
    nibl_allotment *a = context;
    item *t = a->item;
    const uint32_t rows = a->from->rows, taken = rows < SAMPLE ? rows : SAMPLE, step = rows / taken;
    for (uint32_t k = worker; k < a->type_count; k += workers)
        for (uint32_t i = 0; i < taken && t->bytes[k] > 0; i += NIBL_TILE) {
            nibl_gptq_rows part;
            const uint32_t count = taken - i < NIBL_TILE ? taken - i : NIBL_TILE;
            t->errors[k] += round_rows(a, worker, a->types[k], i * step, step, count, &part)
                                ? error_of(a, &part)
                                : HUGE_VAL;
        }
}

static void weigh(nibl_allotment *a, const nibl_site *site) {
    double mean = 0;
    a->weights = site ? a->activity : NULL;
    if (!site) return;
    for (uint32_t j = 0; j < site->cols; j++) mean += (double)site->squares[j] / site->cols;
    for (uint32_t j = 0; j < site->cols; j++) a->weights[j] = site->squares[j] + 1e-6f * (float)mean;
}

/* What is known of the input of the item's matrix at hand, the embedding's where it is the head. */
static nibl_site *site_of(nibl_allotment *a) {
    const nibl_model *m = a->model;
    const nibl_layer *layer = a->item->layer;
    if (layer) return (nibl_site *)nibl_calib_site(&a->calib, nibl_calib_first(m, layer, a->from));
    return a->from == (m->tied ? &m->embedding : &m->head) ? &a->head : NULL;
}

static nibl_status find_factor(nibl_allotment *a, nibl_site *site) {
    const nibl_model *m = a->model;
    a->factor = NULL;
    if (!site || !a->by_columns) return NIBL_OK;
    nibl_factor *f = &a->factors[site == &a->head ? a->factor_count - 1 : (size_t)(site - a->calib.sites)];
    a->factor = f;
    return f->order ? NIBL_OK
                    : nibl_factor_make(m->pool, m->kernels, site->sums, NULL, site->cols, NIBL_DAMP, f);
}

static void free_factors(nibl_allotment *a) {
    for (uint32_t i = 0; a->factors && i < a->factor_count; i++) nibl_factor_free(&a->factors[i]);
}

/* Rounds a matrix of the item, and puts it in its place. */
static nibl_status replace(nibl_allotment *a, nibl_matrix *matrix) {
    a->from = matrix;
    nibl_site *site = site_of(a);
    weigh(a, site);
    NIBL_TRY(find_factor(a, site));
    nibl_pool_run(a->model->pool, errors_job, a);
    const nibl_status status = pack(a);
    a->plain[a->replaced++] = *matrix;
    *matrix = a->packed;
    return status;
}

static nibl_status measure_item(nibl_allotment *a, item *t) {
    nibl_model *m = a->model;
    const nibl_output_part *parts = &a->outputs.parts[t->output->first];
    const nibl_matrix head = m->head;
    const bool embeds = parts->matrix == &m->embedding;
    const uint32_t first = t->layer ? (uint32_t)(t->layer - m->layers) : embeds ? 0 : m->hyper.layers - 1;
    nibl_status status = NIBL_OK;
    a->item = t;
    for (uint32_t i = 0; i < t->output->count && status == NIBL_OK; i++) status = replace(a, parts[i].matrix);
    if (embeds && m->tied) m->head = m->embedding;
    if (status == NIBL_OK) status = measure(a, first, embeds, &t->loss);
    for (; a->replaced > 0; a->replaced--) {
        nibl_matrix *matrix = parts[a->replaced - 1].matrix;
        nibl_free(matrix->data);
        *matrix = a->plain[a->replaced - 1];
    }
    m->head = head;
    if (t->loss < NOTHING) t->loss = NOTHING;
    return status;
}

/* ---- Steps ---- */

/* The layer that an item is of; those outside come behind all layers. */
static uint32_t layer_of(const nibl_allotment *a, const item *t) {
    return t->layer ? (uint32_t)(t->layer - a->model->layers) : a->model->hyper.layers;
}

nibl_status nibl_allotment_step(nibl_allotment *a, double *done) {
    const uint32_t layers = a->model->hyper.layers;
    if (!a->reference) {
        NIBL_TRY(begin_reference(a));
    } else if (a->at < a->count && a->layer < layers && a->layer <= layer_of(a, &a->items[a->at])) {
        free_factors(a);
        NIBL_TRY(nibl_calib_layer(&a->calib));
        a->layer++;
    } else if (a->at < a->count) {
        if (!a->items[a->at].layer && !a->head.squares) NIBL_TRY(nibl_calib_head(&a->calib, &a->head));
        NIBL_TRY(measure_item(a, &a->items[a->at]));
        a->at++;
    }
    *done = (double)(a->layer + a->at) / (double)(layers + a->count);
    return a->at == a->count ? NIBL_OK : NIBL_MORE;
}

/* ---- The choice ---- */

static double loss_of(const item *t, uint32_t type) {
    const double most = t->errors[t->smallest];
    return most > 0 ? t->loss * t->errors[type] / most : 0;
}

static uint64_t aligned(uint64_t bytes) {
    return (bytes + NIBL_QUANT_ALIGNMENT - 1) / NIBL_QUANT_ALIGNMENT * NIBL_QUANT_ALIGNMENT;
}

/* Bytes that the type takes more than the smallest. */
static uint64_t more_of(const item *t, uint32_t type) {
    return aligned(t->bytes[type]) - aligned(t->bytes[t->smallest]);
}

/* What bytes are counted in: what all of those differences are multiples of, or more where those were too many. */
static uint64_t unit_of(const nibl_allotment *a, uint64_t left) {
    uint64_t unit = 0;
    for (size_t i = 0; i < a->count; i++)
        for (uint32_t k = 0; k < a->type_count; k++)
            for (uint64_t x = a->items[i].bytes[k] > 0 ? more_of(&a->items[i], k) : 0; x > 0;) {
                const uint64_t rest = unit % x; /* Euclid's */
                unit = x;
                x = rest;
            }
    return unit > left / MOST_UNITS ? unit : left / MOST_UNITS + 1;
}

/* Spends bytes beyond the smallest types: sums[u] is the least loss of the items so far within u units, chosen[i][u] the type
 * of item i there. */
static nibl_status spend(nibl_allotment *a, uint64_t left) {
    uint64_t most = 0;
    for (size_t i = 0; i < a->count; i++) {
        uint64_t largest = 0;
        for (uint32_t k = 0; k < a->type_count; k++)
            if (a->items[i].bytes[k] > 0 && more_of(&a->items[i], k) > largest)
                largest = more_of(&a->items[i], k);
        most += largest;
    }
    if (left > most) left = most;
    const uint64_t unit = unit_of(a, left), units = left / unit, row = units + 1;
    double *sums = nibl_alloc_zero(row * sizeof *sums);
    uint8_t *chosen = nibl_alloc(row * a->count);
    const bool room = sums && chosen;
    for (size_t i = 0; i < a->count && room; i++)
        for (uint64_t u = row; u-- > 0;) { /* downwards: what is read is of the items before */
            double least = HUGE_VAL;
            chosen[i * row + u] = (uint8_t)a->items[i].smallest;
            for (uint32_t k = 0; k < a->type_count; k++) {
                if (a->items[i].bytes[k] == 0) continue;
                const uint64_t cost = (more_of(&a->items[i], k) + unit - 1) / unit;
                if (cost > u || !(sums[u - cost] + loss_of(&a->items[i], k) < least)) continue;
                least = sums[u - cost] + loss_of(&a->items[i], k);
                chosen[i * row + u] = (uint8_t)k;
            }
            sums[u] = least;
        }
    uint64_t u = units;
    for (size_t i = a->count; i-- > 0 && room;) {
        a->items[i].chosen = chosen[i * row + u];
        u -= (more_of(&a->items[i], a->items[i].chosen) + unit - 1) / unit;
    }
    nibl_free(sums);
    nibl_free(chosen);
    return room ? NIBL_OK : nibl_fail_memory(row * (a->count + sizeof *sums), "the choice of types");
}

nibl_status nibl_allotment_choose(nibl_allotment *a, uint64_t bytes, const nibl_tensor_type **tensors,
                                  size_t *count) {
    uint64_t least = 0;
    if (!a->reference || a->at < a->count)
        return nibl_fail(NIBL_E_ARGUMENT, "there are tensors that were not measured yet");
    for (size_t i = 0; i < a->recipe.count; i++) {
        const nibl_quant_tensor *t = &a->recipe.tensors[i];
        size_t j = 0;
        while (j < a->count && a->items[j].tensor != t) j++;
        least += aligned(j < a->count ? a->items[j].bytes[a->items[j].smallest] : t->bytes);
    }
    if (least > bytes)
        return nibl_fail(
            NIBL_E_ARGUMENT,
            "%llu bytes are too few for the tensors: with the smallest of the types they take %llu",
            (unsigned long long)bytes, (unsigned long long)least);
    NIBL_TRY(spend(a, bytes - least));
    for (size_t i = 0; i < a->count; i++)
        a->tensors[a->given + i] =
            (nibl_tensor_type){a->items[i].output->name, a->types[a->items[i].chosen]->name};
    *tensors = a->tensors;
    *count = a->given + a->count;
    return NIBL_OK;
}

/* ---- Beginning and end ---- */

static nibl_status read_types(nibl_allotment *a, const char *list) {
    static const char all[] = "q2_k,q3_k,iq4_xs,q4_0,iq4_nl,q4_1,q4_k,q5_0,q5_1,q5_k,q6_k,q8_0";
    if (!list) list = all;
    for (bool more = true; more;) {
        const size_t length = strcspn(list, ",");
        char name[16] = "";
        memcpy(name, list, length < sizeof name - 1 ? length : sizeof name - 1);
        const nibl_dtype *type = nibl_encode_type(name);
        if (!type) return nibl_fail_encode_type(name);
        if (nibl_kind_is_float(type->kind) || a->type_count == MAX_TYPES)
            return nibl_fail(NIBL_E_ARGUMENT, "types to choose from are at most %d, none of them of floats",
                             MAX_TYPES);
        a->types[a->type_count++] = type;
        more = list[length] == ',';
        list += length + 1;
    }
    return NIBL_OK;
}

/* By layers, those outside behind them; otherwise as the forward pass has them. */
static int compare_items(const void *a, const void *b) {
    const item *x = a, *y = b;
    if (x->layer == y->layer) return (x->tensor > y->tensor) - (x->tensor < y->tensor);
    return !x->layer ? 1 : !y->layer ? -1 : x->layer < y->layer ? -1 : 1;
}

/* Matrices that are quantized, and that the options do not name. */
static nibl_status find_items(nibl_allotment *a, const nibl_quantize_options *o) {
    const nibl_model *m = a->model;
    uint32_t most = 1; /* matrices of a tensor */
    a->items = nibl_alloc_zero((uint64_t)a->recipe.count * sizeof *a->items);
    if (!a->items)
        return nibl_fail_memory((uint64_t)a->recipe.count * sizeof *a->items, "the list of tensors");
    for (size_t i = 0; i < a->recipe.count; i++) {
        const nibl_quant_tensor *t = &a->recipe.tensors[i];
        const nibl_output *output = &a->outputs.items[i];
        item *x = &a->items[a->count];
        if (nibl_kind_is_float(t->to->kind) || !a->outputs.parts[output->first].matrix ||
            nibl_recipe_names(o, t->source->name))
            continue;
        *x = (item){.tensor = t,
                    .output = output,
                    .layer = m->bindings[output->binding].layer,
                    .smallest = UINT32_MAX};
        for (uint32_t k = 0; k < a->type_count; k++) {
            uint64_t row;
            x->errors[k] = HUGE_VAL;
            if (t->cols % a->types[k]->block != 0 || !nibl_dtype_row_bytes(a->types[k], t->cols, &row))
                continue;
            x->bytes[k] = row * t->rows;
            x->errors[k] = 0;
            if (x->smallest == UINT32_MAX || x->bytes[k] < x->bytes[x->smallest]) x->smallest = k;
        }
        if (x->smallest == UINT32_MAX) continue;
        if (t->cols > a->widest) a->widest = t->cols;
        if (output->count > most) most = output->count;
        a->count++;
    }
    qsort(a->items, a->count, sizeof *a->items, compare_items);
    a->plain = nibl_alloc(most * sizeof *a->plain);
    if (!a->plain) return nibl_fail_memory(most * sizeof *a->plain, "the list of tensors");
    return a->count > 0 ? NIBL_OK
                        : nibl_fail(NIBL_E_ARGUMENT, "there is no tensor whose type could be chosen");
}

/* The exceptions that are given come before those that are chosen. */
static nibl_status copy_given(nibl_allotment *a, const nibl_quantize_options *o) {
    uint64_t length = 1;
    for (size_t i = 0; i < o->tensor_count; i++)
        length += strlen(o->tensors[i].pattern) + strlen(o->tensors[i].type) + 2;
    a->texts = nibl_alloc(length);
    a->tensors = nibl_alloc((uint64_t)(o->tensor_count + a->count) * sizeof *a->tensors);
    if (!a->texts || !a->tensors) return nibl_fail_memory(length, "the list of tensors");
    char *at = a->texts;
    for (size_t i = 0; i < o->tensor_count; i++) {
        const char *parts[2] = {o->tensors[i].pattern, o->tensors[i].type};
        for (int j = 0; j < 2; j++) {
            const size_t n = strlen(parts[j]) + 1;
            memcpy(at, parts[j], n);
            parts[j] = at;
            at += n;
        }
        a->tensors[a->given++] = (nibl_tensor_type){parts[0], parts[1]};
    }
    return NIBL_OK;
}

static nibl_status add_rows(nibl_allotment *a, const int32_t *tokens, size_t taken, uint32_t window) {
    a->cache_count = (uint32_t)((taken + window - 1) / window);
    a->caches = nibl_alloc_zero((uint64_t)a->cache_count * sizeof *a->caches);
    a->rows = nibl_alloc((uint64_t)taken * sizeof *a->rows);
    if (!a->caches || !a->rows) return nibl_fail_memory((uint64_t)taken * sizeof *a->rows, "calibration");
    for (uint32_t i = 0; i < a->cache_count; i++) {
        const size_t first = (size_t)i * window, length = taken - first < window ? taken - first : window;
        nibl_kv_init(&a->caches[i], &a->model->hyper, NIBL_KV_F32, (uint32_t)length);
        NIBL_TRY(nibl_kv_reserve(&a->caches[i], (uint32_t)length));
        for (size_t t = 0; t < length; t++) {
            if (tokens[first + t] < 0 || (uint32_t)tokens[first + t] >= a->model->hyper.vocabulary)
                return nibl_fail(NIBL_E_ARGUMENT, "calibration token %d; the vocabulary has %u",
                                 (int)tokens[first + t], a->model->hyper.vocabulary);
            const bool scored = t >= length / 2;
            a->rows[a->row_count++] = (nibl_row){
                .kv = &a->caches[i], .token = tokens[first + t], .position = (uint32_t)t, .logits = scored};
            a->scored += scored;
        }
    }
    return NIBL_OK;
}

static nibl_status begin(nibl_allotment *a, const nibl_quantize_options *o, const char *types,
                         const int32_t *tokens, size_t count, uint32_t window) {
    const nibl_model *m = a->model;
    NIBL_TRY(read_types(a, types));
    NIBL_TRY(nibl_outputs_new(a->model, &a->outputs));
    NIBL_TRY(nibl_recipe_choose(m->gguf, a->outputs.tensors, a->outputs.count, o, NULL, &a->recipe));
    NIBL_TRY(find_items(a, o));
    NIBL_TRY(copy_given(a, o));
    NIBL_TRY(nibl_session_grow_pool(a->model, o->threads));
    const uint64_t workers = nibl_pool_workers(m->pool);
    const uint64_t room = 4 * workers * (NIBL_TILE * a->widest + NIBL_GPTQ_ROOM(a->widest)),
                   blocks = workers * NIBL_TILE * (a->widest / NIBL_BLOCK) * sizeof *a->blocks;
    a->rows_at_work = nibl_alloc(room);
    a->row_bytes = nibl_alloc(4 * workers * a->widest);
    a->blocks = nibl_alloc_zero(blocks);
    a->activity = nibl_alloc(4 * a->widest);
    a->factor_count = nibl_calib_sites(m) + 1;
    a->factors = nibl_alloc_zero(a->factor_count * sizeof *a->factors);
    if (!a->rows_at_work || !a->row_bytes || !a->blocks || !a->activity || !a->factors)
        return nibl_fail_memory(room + blocks, "the workers");
    nibl_method method;
    NIBL_TRY(nibl_method_read(o->method, true, &method));
    a->by_columns = method.gptq;
    /* what is scored is none of what rounding by columns fits itself to, where there is enough of both */
    const size_t scored = count < TOKENS ? count : TOKENS, seen = count < 2 * TOKENS ? count : count - scored;
    NIBL_TRY(nibl_calib_begin(&a->calib, a->model, tokens, seen, window, a->by_columns));
    return add_rows(a, tokens + count - scored, scored, window);
}

nibl_status nibl_allotment_new(nibl_model *model, const nibl_quantize_options *options, const char *types,
                               const int32_t *tokens, size_t count, uint32_t window, nibl_allotment **out) {
    if (options->size != sizeof *options)
        return nibl_fail(NIBL_E_ARGUMENT, "nibl_quantize_options.size is %zu, must be %zu", options->size,
                         sizeof *options);
    if (!nibl_model_complete(model))
        return nibl_fail(NIBL_E_ARGUMENT, "the model's weights have not all arrived");
    nibl_allotment *a = nibl_alloc_zero(sizeof *a);
    if (!a) return nibl_fail_memory(sizeof *a, "the allotment");
    a->model = model;
    const nibl_status status = begin(a, options, types, tokens, count, window);
    if (status < 0)
        nibl_allotment_free(a);
    else
        *out = a;
    return status;
}

void nibl_allotment_free(nibl_allotment *a) {
    if (!a) return;
    nibl_calib_free(&a->calib);
    nibl_site_free(&a->head);
    free_factors(a);
    nibl_run_free(a->run);
    for (uint32_t i = 0; a->caches && i < a->cache_count; i++) nibl_kv_free(&a->caches[i]);
    void *blocks[] = {a->caches, a->rows,     a->streams, a->reference,    a->losses,
                      a->items,  a->tensors,  a->texts,   a->rows_at_work, a->row_bytes,
                      a->blocks, a->activity, a->factors, a->plain};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) nibl_free(blocks[i]);
    nibl_recipe_free(&a->recipe);
    nibl_outputs_free(&a->outputs);
    nibl_free(a);
}

#include "core/quant/loss.h"

#include "core/encode.h"

typedef struct measuring {
    nibl_pool *pool;
    const nibl_kernels *kernels;
    const nibl_dtype *to;
    uint32_t rows, cols;
    nibl_loss_row *row;
    void *context;
    nibl_loss *losses; /* (rows) */
    float *room; /* (workers, 2, cols): before and after */
    uint8_t *panels; /* one per worker */
    uint64_t panel_bytes;
} measuring;

static void measure_row(const measuring *m, uint32_t worker, uint32_t row) {
    float *x = m->room + (size_t)2 * m->cols * worker, *y = x + m->cols;
    const uint8_t *encoded = m->row(m->context, worker, row, x);
    nibl_decode_row(m->kernels, m->to, encoded, m->cols, m->panels + worker * m->panel_bytes, y);
    nibl_loss loss = {0};
    for (uint32_t i = 0; i < m->cols; i++) {
        const double change = (double)y[i] - (double)x[i];
        loss.error += change * change;
        loss.weights += (double)x[i] * (double)x[i];
    }
    m->losses[row] = loss;
}

static void measure_job(void *context, uint32_t worker, uint32_t workers) {
    const measuring *m = context;
    nibl_claims claims = nibl_pool_divide(m->pool, worker, workers, m->rows, 16);
    for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);)
        for (uint32_t row = begin; row < end; row++) measure_row(m, worker, row);
}

nibl_status nibl_loss_measure(nibl_pool *pool, const nibl_kernels *kernels, const nibl_dtype *to,
                              uint32_t rows, uint32_t cols, nibl_loss_row *row, void *context,
                              nibl_loss *loss) {
    const uint64_t workers = nibl_pool_workers(pool), floats = workers * 2 * cols * sizeof(float);
    measuring m = {pool, kernels, to, rows, cols, row, context, NULL, NULL, NULL, 0};
    const nibl_matrix panel = nibl_matrix_of(to, NIBL_PANEL, cols);
    m.panel_bytes = nibl_kind_is_float(to->kind) ? 64 : nibl_panel_bytes(&panel);
    m.losses = nibl_alloc((uint64_t)rows * sizeof *m.losses);
    m.room = nibl_alloc(floats);
    m.panels = nibl_alloc_zero(workers * m.panel_bytes);
    nibl_status status = NIBL_OK;
    if (m.losses && m.room && m.panels) {
        nibl_pool_run(pool, measure_job, &m);
        for (uint32_t i = 0; i < rows; i++) {
            loss->error += m.losses[i].error;
            loss->weights += m.losses[i].weights;
        }
    } else {
        status = nibl_fail_memory(floats + (uint64_t)rows * sizeof *m.losses, "the loss of a tensor");
    }
    nibl_free(m.losses);
    nibl_free(m.room);
    nibl_free(m.panels);
    return status;
}

/* A file of hostile bytes through the whole loader: header, plan, inspect, model, weights. The input's
 * first byte says how it is fed, the rest is the file. Loading it in one piece must end the same way, with
 * the same weights, and no memory may be left over. Run with -malloc_limit_mb=64: no claim of a file may
 * lead to a large allocation. */
#include "core/model.h"
#include "tests/fuzz/fuzz.h"

static uint32_t random_state;

static uint32_t random_below(uint32_t limit) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % limit;
}

typedef struct load {
    nibl_loader *loader;
    nibl_model *model;
    nibl_status status;
} load;

static void begin(load *l) {
    nibl_plan plan = {.size = sizeof plan};
    size_t needed = 0, length = 0;
    EXPECT(nibl_loader_inspect(l->loader, NULL, 0, &needed) == NIBL_E_BUFFER);
    char *json = malloc(needed + 1);
    EXPECT(json && nibl_loader_inspect(l->loader, json, needed + 1, &length) == NIBL_OK);
    EXPECT(length == needed && strlen(json) == needed);
    free(json);
    nibl_status planned = nibl_loader_plan(l->loader, &plan);
    if (planned == NIBL_OK && plan.weights > WEIGHTS_MAX) {
        l->status = NIBL_E_MEMORY;
        return;
    }
    l->status = nibl_loader_begin(l->loader, &l->model);
    EXPECT(planned == NIBL_OK || l->status < 0);
}

/* From start to end. `chunk`: most bytes a piece. */
static void stream(load *l, const uint8_t *file, size_t size, uint32_t chunk) {
    for (size_t at = 0, n; at < size && l->status >= 0; at += n) {
        n = chunk < size - at ? 1 + random_below(chunk) : size - at;
        l->status = nibl_loader_feed(l->loader, at, file + at, n);
        if (l->status < 0 || l->model || !nibl_loader_header_ready(l->loader)) continue;
        begin(l);
        if (l->status >= 0) l->status = nibl_loader_feed(l->loader, at, file + at, n);
    }
    if (l->status >= 0) l->status = nibl_loader_end(l->loader, size);
}

/* What the loader asks for, in pieces; now and then only a part of a range, or bytes that have been there. */
static void answer(load *l, const uint8_t *file, size_t size, uint32_t chunk) {
    while (l->status >= 0) {
        uint64_t offset, length;
        if (nibl_loader_header_ready(l->loader) && !l->model) {
            begin(l);
            if (l->status < 0) return;
        }
        EXPECT(nibl_loader_want(l->loader, &offset, &length) == NIBL_OK);
        if (length == 0) return;
        EXPECT(length <= 8 << 20);
        if (offset >= size) {
            l->status = nibl_loader_end(l->loader, size);
            return;
        }
        if (length > size - offset) length = size - offset;
        if (random_below(4) == 0) length = 1 + random_below((uint32_t)length);
        for (size_t n; length > 0 && l->status >= 0; offset += n, length -= n) {
            n = chunk < length ? 1 + random_below(chunk) : (size_t)length;
            l->status = nibl_loader_feed(l->loader, offset, file + offset, n);
            if (l->status >= 0 && random_below(3) == 0)
                l->status = nibl_loader_feed(l->loader, offset, file + offset, n);
        }
    }
}

static void check_same(const load *a, const load *b) {
    for (size_t i = 0; i < a->model->binding_count; i++) {
        const nibl_binding *x = &a->model->bindings[i], *y = &b->model->bindings[i];
        EXPECT(x->rows_done == x->rows && y->rows_done == y->rows);
        if (x->matrix)
            EXPECT(memcmp(x->matrix->data, y->matrix->data,
                          nibl_panel_bytes(x->matrix) * nibl_panels(x->matrix)) == 0);
        else
            EXPECT(memcmp(*x->vector, *y->vector, a->model->hyper.width * sizeof(float)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    static const uint32_t chunks[] = {1, 2, 3, 7, 64, 300, 4096, 1 << 20};
    const uint8_t how = data[0], *file = data + 1;
    uint64_t before, after;
    nibl_memory(&before, NULL);
    size--;
    random_state = (uint32_t)size;

    load pieces = {0}, whole = {0};
    EXPECT(nibl_loader_new(how & 1 ? size : 0, &pieces.loader) == NIBL_OK);
    EXPECT(nibl_loader_new(size, &whole.loader) == NIBL_OK);
    (how & 2 ? stream : answer)(&pieces, file, size, chunks[how >> 2 & 7]);
    stream(&whole, file, size, UINT32_MAX);
    EXPECT((pieces.status == NIBL_OK) == (whole.status == NIBL_OK));
    if (whole.status == NIBL_OK) check_same(&pieces, &whole);

    if (how & 32)
        nibl_model_free(pieces.model), nibl_loader_free(pieces.loader);
    else
        nibl_loader_free(pieces.loader), nibl_model_free(pieces.model);
    nibl_loader_free(whole.loader);
    nibl_model_free(whole.model);
    nibl_memory(&after, NULL);
    EXPECT(after == before);
    return 0;
}

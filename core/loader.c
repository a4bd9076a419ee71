/* The push loader: first the header (gguf.c), then the tensors the model binds (source.c), each byte
 * straight to its place. */
#include "core/loader.h"

#include "core/model.h"
#include "core/plan.h"
#include "core/source.h"

#include <string.h>

enum {
    HEADER_RANGE = 256 << 10, /* first and smallest range of a header; doubles with what has arrived */
    HEADER_RANGE_MAX = 4 << 20
};

struct nibl_loader {
    uint64_t file_size; /* 0 = unknown */
    nibl_gguf *gguf; /* owned until the model owns it, then NULL */
    nibl_model *model; /* the caller's; NULL before nibl_loader_begin */
    nibl_source *source; /* NULL before nibl_loader_begin */
    nibl_status error; /* final */
    char message[512];
};

static nibl_status repeat_error(const nibl_loader *loader) {
    return loader->error == NIBL_OK ? NIBL_OK : nibl_fail(loader->error, "%s", loader->message);
}

static nibl_status keep_error(nibl_loader *loader, nibl_status status) {
    if (status < 0) {
        loader->error = status;
        strncpy(loader->message, nibl_last_message(), sizeof loader->message - 1);
    }
    return status;
}

nibl_status nibl_loader_new(uint64_t file_size, nibl_loader **out) {
    nibl_loader *loader = nibl_alloc_zero(sizeof *loader);
    if (!loader) return nibl_fail_memory(sizeof *loader, "a loader");
    loader->file_size = file_size;
    nibl_status status = nibl_gguf_new(&loader->gguf);
    if (status < 0)
        nibl_free(loader);
    else
        *out = loader;
    return status;
}

void nibl_loader_free(nibl_loader *loader) {
    if (!loader) return;
    nibl_source_free(loader->source);
    nibl_gguf_free(loader->gguf);
    nibl_free(loader);
}

/* ---- What is wanted ---- */

static void want_header(const nibl_loader *loader, uint64_t *offset, uint64_t *length) {
    uint64_t fed = nibl_gguf_header_bytes(loader->gguf);
    uint64_t wanted = fed < HEADER_RANGE ? HEADER_RANGE : fed > HEADER_RANGE_MAX ? HEADER_RANGE_MAX : fed;
    if (loader->file_size > 0 && wanted > loader->file_size - fed) wanted = loader->file_size - fed;
    *offset = fed;
    *length = wanted;
}

nibl_status nibl_loader_want(const nibl_loader *loader, uint64_t *offset, uint64_t *length) {
    NIBL_TRY(repeat_error(loader));
    *offset = *length = 0;
    if (loader->source)
        nibl_source_want(loader->source, offset, length);
    else if (!nibl_gguf_complete(loader->gguf))
        want_header(loader, offset, length);
    return NIBL_OK;
}

void nibl_loader_progress(const nibl_loader *loader, uint64_t *arrived, uint64_t *total) {
    uint64_t bytes[2] = {0, 0};
    if (loader->source) nibl_source_progress(loader->source, &bytes[0], &bytes[1]);
    if (arrived) *arrived = bytes[0];
    if (total) *total = bytes[1];
}

/* ---- What arrives ---- */

static nibl_status feed_header(nibl_loader *loader, uint64_t offset, const uint8_t *bytes, size_t length) {
    if (nibl_gguf_complete(loader->gguf)) return NIBL_NEED_DATA;
    uint64_t fed = nibl_gguf_header_bytes(loader->gguf);
    if (offset > fed)
        return nibl_fail(NIBL_E_ARGUMENT,
                         "bytes at %llu were fed, but the header has arrived only up to %llu",
                         (unsigned long long)offset, (unsigned long long)fed);
    if (length > fed - offset) {
        size_t known = (size_t)(fed - offset), taken;
        NIBL_TRY(nibl_gguf_feed(loader->gguf, bytes + known, length - known, &taken));
    }
    bool enough =
        nibl_gguf_complete(loader->gguf) || nibl_gguf_header_bytes(loader->gguf) == loader->file_size;
    if (loader->file_size > 0 && enough) NIBL_TRY(nibl_gguf_check_end(loader->gguf, loader->file_size));
    return NIBL_NEED_DATA;
}

nibl_status nibl_loader_feed(nibl_loader *loader, uint64_t offset, const void *bytes, size_t length) {
    NIBL_TRY(repeat_error(loader));
    uint64_t end;
    if (!nibl_add_u64(offset, length, &end) || (loader->file_size > 0 && end > loader->file_size))
        return keep_error(loader, nibl_fail(NIBL_E_ARGUMENT,
                                            "%llu bytes at %llu were fed, but the file ends after %llu",
                                            (unsigned long long)length, (unsigned long long)offset,
                                            (unsigned long long)loader->file_size));
    return keep_error(loader, loader->model ? nibl_source_feed(loader->source, offset, bytes, length)
                                            : feed_header(loader, offset, bytes, length));
}

nibl_status nibl_loader_end(nibl_loader *loader, uint64_t file_size) {
    NIBL_TRY(repeat_error(loader));
    loader->file_size = file_size;
    if (loader->source) return keep_error(loader, nibl_source_check_end(loader->source, file_size));
    if (nibl_gguf_complete(loader->gguf) || nibl_gguf_header_bytes(loader->gguf) >= file_size)
        NIBL_TRY(keep_error(loader, nibl_gguf_check_end(loader->gguf, file_size)));
    return NIBL_NEED_DATA;
}

/* ---- From header to model ---- */

nibl_status nibl_loader_header(const nibl_loader *loader, nibl_gguf **out) {
    NIBL_TRY(repeat_error(loader));
    nibl_gguf *gguf = loader->model ? loader->model->gguf : loader->gguf;
    if (!nibl_gguf_complete(gguf))
        return nibl_fail(NIBL_E_ARGUMENT, "the header has not arrived yet: feed the loader");
    *out = gguf;
    return NIBL_OK;
}

bool nibl_loader_header_ready(const nibl_loader *loader) {
    return loader->error == NIBL_OK && (loader->model || nibl_gguf_complete(loader->gguf));
}

nibl_status nibl_loader_plan(const nibl_loader *loader, nibl_plan *plan) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    return nibl_model_plan(gguf, plan);
}

static nibl_status take_row(void *context, size_t item, const uint8_t *row) {
    nibl_model *model = context;
    return nibl_model_take_row(model, &model->bindings[item], row);
}

static nibl_status open_source(const nibl_gguf *gguf, nibl_model *model, nibl_source **out) {
    const uint64_t bytes = model->binding_count * sizeof(nibl_source_item);
    nibl_source_item *items = nibl_alloc(bytes);
    if (!items) return nibl_fail_memory(bytes, "the list of tensors");
    for (size_t i = 0; i < model->binding_count; i++) {
        const nibl_binding *b = &model->bindings[i];
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, b->tensor);
        items[i] = (nibl_source_item){t->offset, b->row_bytes, b->rows, t->name};
    }
    nibl_status status = nibl_source_new(items, model->binding_count, take_row, model, out);
    nibl_free(items);
    return status;
}

nibl_status nibl_loader_begin(nibl_loader *loader, nibl_model **out) {
    NIBL_TRY(repeat_error(loader));
    if (loader->model) return nibl_fail(NIBL_E_ARGUMENT, "the model has been begun already");
    if (!nibl_gguf_complete(loader->gguf))
        return nibl_fail(NIBL_E_ARGUMENT, "the header has not arrived yet: feed the loader");
    nibl_model *model = NULL;
    NIBL_TRY(nibl_model_new(loader->gguf, &model));
    nibl_status status = keep_error(loader, open_source(loader->gguf, model, &loader->source));
    loader->gguf = NULL;
    if (status < 0)
        nibl_model_free(model); /* and the header with it */
    else
        *out = loader->model = model;
    return status;
}

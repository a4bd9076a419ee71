/* The push loader: first the header (header.c), then the tensors the model binds (source.c), each byte
 * straight to its place. */
#include "core/loader.h"

#include "core/encode.h"
#include "core/header.h"
#include "core/model.h"
#include "core/plan.h"
#include "core/source.h"

#include <string.h>

struct nibl_loader {
    nibl_header *header; /* its nibl_gguf goes to the model */
    nibl_model *model; /* the caller's; NULL before nibl_loader_begin */
    const nibl_dtype *quantize; /* NULL = nothing is */
    nibl_row_encoder encode_row;
    bool config_only; /* the tensors stand nowhere */
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
    nibl_status status = nibl_header_new(file_size, &loader->header);
    if (status < 0)
        nibl_free(loader);
    else
        *out = loader;
    return status;
}

void nibl_loader_free(nibl_loader *loader) {
    if (!loader) return;
    nibl_source_free(loader->source);
    nibl_header_free(loader->header);
    nibl_free(loader);
}

nibl_status nibl_loader_set_name(nibl_loader *loader, const char *name) {
    NIBL_TRY(repeat_error(loader));
    return nibl_header_set_name(loader->header, name);
}

nibl_status nibl_loader_set_config_only(nibl_loader *loader) {
    NIBL_TRY(repeat_error(loader));
    loader->config_only = true;
    nibl_header_set_config_only(loader->header);
    return NIBL_OK;
}

static nibl_status check_not_begun(const nibl_loader *loader) {
    return loader->source ? nibl_fail(NIBL_E_ARGUMENT, "the model has been begun already") : NIBL_OK;
}

nibl_status nibl_loader_set_quantize(nibl_loader *loader, const char *type) {
    NIBL_TRY(repeat_error(loader));
    const nibl_dtype *quantize = nibl_encode_type(type);
    if (!quantize) return nibl_fail_encode_type(type);
    NIBL_TRY(check_not_begun(loader));
    loader->quantize = quantize;
    loader->encode_row = nibl_encode_row;
    return NIBL_OK;
}

const char *nibl_loader_file_name(const nibl_loader *loader, uint32_t file) {
    return nibl_header_file_name(loader->header, file);
}

/* ---- What is wanted ---- */

/* Of a model whose weights come and go only the open part. */
static void limit_source(const nibl_loader *loader) {
    nibl_model *m = loader->model;
    if (!m || !m->parts) return;
    nibl_source_limit(loader->source, nibl_model_open_end(m));
    if (m->again) nibl_source_rewind(loader->source, nibl_model_part_end(m, 0));
    m->again = false;
}

nibl_status nibl_loader_want(const nibl_loader *loader, uint64_t *address, uint64_t *length) {
    NIBL_TRY(repeat_error(loader));
    limit_source(loader);
    if (loader->source)
        nibl_source_want(loader->source, address, length);
    else
        nibl_header_want(loader->header, address, length);
    return NIBL_OK;
}

void nibl_loader_progress(const nibl_loader *loader, uint64_t *arrived, uint64_t *total) {
    uint64_t bytes[2] = {0, 0};
    if (loader->source) nibl_source_progress(loader->source, &bytes[0], &bytes[1]);
    if (arrived) *arrived = bytes[0];
    if (total) *total = bytes[1];
}

/* ---- What arrives ---- */

nibl_status nibl_loader_feed(nibl_loader *loader, uint64_t address, const void *bytes, size_t length) {
    NIBL_TRY(repeat_error(loader));
    const uint32_t file = NIBL_ADDRESS_FILE(address);
    const bool known = file < nibl_header_file_count(loader->header);
    const uint64_t offset = NIBL_ADDRESS_OFFSET(address), size = nibl_header_file_size(loader->header, file);
    const uint64_t end = !known ? 0 : size > 0 ? size : NIBL_MAX_FILE;
    if (length > end || offset > end - length)
        return keep_error(
            loader, nibl_fail(NIBL_E_ARGUMENT, "%llu bytes at %llu were fed, but the file ends after %llu",
                              (unsigned long long)length, (unsigned long long)(known ? offset : address),
                              (unsigned long long)end));
    limit_source(loader);
    return keep_error(loader, loader->source ? nibl_source_feed(loader->source, address, bytes, length)
                                             : nibl_header_feed(loader->header, address, bytes, length));
}

static nibl_status check_end(const nibl_loader *loader, uint64_t address) {
    return nibl_header_name_file(loader->header, address, nibl_source_check_end(loader->source, address));
}

nibl_status nibl_loader_end(nibl_loader *loader, uint64_t address) {
    NIBL_TRY(repeat_error(loader));
    if (NIBL_ADDRESS_FILE(address) >= nibl_header_file_count(loader->header))
        return nibl_fail(NIBL_E_ARGUMENT, "there is no file %u", NIBL_ADDRESS_FILE(address));
    const nibl_status status = keep_error(loader, nibl_header_end(loader->header, address));
    if (status < 0 || !loader->source) return status;
    return keep_error(loader, check_end(loader, address));
}

/* ---- From header to model ---- */

nibl_status nibl_loader_header(const nibl_loader *loader, nibl_gguf **out) {
    NIBL_TRY(repeat_error(loader));
    nibl_gguf *gguf = loader->model ? loader->model->gguf : nibl_header_gguf(loader->header);
    if (!gguf) return nibl_fail(NIBL_E_ARGUMENT, "the header has not arrived yet: feed the loader");
    *out = gguf;
    return NIBL_OK;
}

bool nibl_loader_header_ready(const nibl_loader *loader) {
    return loader->error == NIBL_OK && (loader->model || nibl_header_gguf(loader->header));
}

nibl_status nibl_loader_plan(const nibl_loader *loader, nibl_plan *plan) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    return nibl_model_plan(gguf, loader->quantize, plan);
}

static nibl_status take_rows(void *context, size_t item, const uint8_t *rows, size_t count) {
    nibl_model *model = context;
    return nibl_model_take_rows(model, &model->bindings[item], rows, count);
}

static nibl_status check_ends(const nibl_source_item *items, size_t count, uint32_t files) {
    for (size_t i = 0; files == 1 && i < count; i++) {
        const uint64_t end = items[i].offset + items[i].row_bytes * items[i].rows;
        if (end > NIBL_MAX_FILE)
            return nibl_fail(NIBL_E_UNSUPPORTED, "tensor '%.*s' ends at byte %llu; at most %llu are possible",
                             (int)items[i].name.length, items[i].name.bytes, (unsigned long long)end,
                             (unsigned long long)NIBL_MAX_FILE);
    }
    return NIBL_OK;
}

static nibl_status open_source(const nibl_gguf *gguf, nibl_model *model, uint32_t files, nibl_source **out) {
    const uint64_t bytes = model->binding_count * sizeof(nibl_source_item);
    nibl_source_item *items = nibl_alloc(bytes);
    if (!items) return nibl_fail_memory(bytes, "the list of tensors");
    for (size_t i = 0; i < model->binding_count; i++) {
        const nibl_binding *b = &model->bindings[i];
        const nibl_gguf_tensor *t = nibl_gguf_tensor_at(gguf, b->tensor);
        items[i] = (nibl_source_item){t->offset + b->offset, b->row_bytes, b->rows, t->name};
    }
    nibl_status status = check_ends(items, model->binding_count, files);
    if (status == NIBL_OK) status = nibl_source_new(items, model->binding_count, take_rows, model, out);
    nibl_free(items);
    return status;
}

/* Sizes that were told before the tensors were known. */
static nibl_status check_sizes(const nibl_loader *loader) {
    for (uint32_t file = 0; file < nibl_header_file_count(loader->header) && !loader->config_only; file++) {
        const uint64_t size = nibl_header_file_size(loader->header, file);
        if (size > 0) NIBL_TRY(check_end(loader, NIBL_ADDRESS(file, size)));
    }
    return NIBL_OK;
}

static nibl_status begin(nibl_loader *loader, bool parts, nibl_model **out) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    NIBL_TRY(check_not_begun(loader));
    if (loader->config_only)
        return nibl_fail(NIBL_E_ARGUMENT, "config.json alone is a model to plan for, not one to load");
    nibl_model *model = NULL;
    NIBL_TRY(nibl_model_new(gguf, loader->quantize, parts, &model));
    model->encode_row = loader->encode_row;
    nibl_header_take(loader->header);
    nibl_status status = open_source(gguf, model, nibl_header_file_count(loader->header), &loader->source);
    if (status == NIBL_OK) status = check_sizes(loader);
    if (keep_error(loader, status) < 0)
        nibl_model_free(model); /* and the header with it */
    else
        *out = loader->model = model;
    return status;
}

nibl_status nibl_loader_begin(nibl_loader *loader, nibl_model **out) { return begin(loader, false, out); }

nibl_status nibl_loader_begin_parts(nibl_loader *loader, nibl_model **out) {
    return begin(loader, true, out);
}

void nibl_loader_skip(nibl_loader *loader, size_t first, size_t end) {
    nibl_source_skip(loader->source, first, end);
}

nibl_status nibl_loader_begin_rows(nibl_loader *loader, const nibl_source_item *items, size_t count,
                                   nibl_source_taker take, void *context) {
    nibl_gguf *gguf = NULL;
    NIBL_TRY(nibl_loader_header(loader, &gguf));
    NIBL_TRY(check_not_begun(loader));
    NIBL_TRY(check_ends(items, count, nibl_header_file_count(loader->header)));
    NIBL_TRY(nibl_source_new(items, count, take, context, &loader->source));
    nibl_source_in_order(loader->source);
    return keep_error(loader, check_sizes(loader));
}

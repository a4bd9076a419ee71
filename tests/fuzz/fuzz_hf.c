/* A Hugging Face folder of hostile files through the whole loader. The input's first byte says how it is fed; then come
 * parts: which file (a byte), its length (3 bytes, little-endian), its bytes. Fed in one piece, the folder must end the
 * same way, and no memory may be left over. */
#include "core/hf.h"
#include "core/model.h"
#include "tests/fuzz/fuzz.h"

enum { FILES = NIBL_HF_DOCUMENTS + 2 /* two files of weights */ };

typedef struct part {
    const uint8_t *bytes;
    size_t length;
} part;

static void read_parts(const uint8_t *data, size_t size, part *parts) {
    while (size >= 4) {
        const uint32_t which = data[0] % FILES;
        size_t length = (size_t)data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16;
        data += 4;
        size -= 4;
        if (length > size) length = size;
        parts[which] = (part){data, length};
        data += length;
        size -= length;
    }
}

/* The first file of weights is model.safetensors or a.safetensors, the second b.safetensors. */
static part find_part(const part *parts, const char *name) {
    for (size_t i = 0; i < NIBL_HF_DOCUMENTS; i++)
        if (strcmp(nibl_hf_files[i].name, name) == 0) return parts[i];
    if (strcmp(name, NIBL_HF_WEIGHTS) == 0 || name[0] == 'a') return parts[NIBL_HF_DOCUMENTS];
    return name[0] == 'b' ? parts[NIBL_HF_DOCUMENTS + 1] : (part){NULL, 0};
}

static nibl_status begin(nibl_loader *loader, nibl_model **model) {
    nibl_plan plan = {.size = sizeof plan};
    size_t needed = 0;
    EXPECT(nibl_loader_inspect(loader, NULL, 0, &needed) == NIBL_E_BUFFER);
    const nibl_status planned = nibl_loader_plan(loader, &plan);
    if (planned == NIBL_OK && plan.weights > WEIGHTS_MAX) return NIBL_E_MEMORY;
    const nibl_status status = nibl_loader_begin(loader, model);
    EXPECT(planned == NIBL_OK || status < 0);
    return status;
}

/* `chunk`: bytes a piece; `quiet`: sizes are told only where a file ends. */
static nibl_status load(const part *parts, size_t chunk, bool quiet, const char *quantize,
                        nibl_model **model) {
    nibl_loader *loader = NULL;
    EXPECT(nibl_loader_new(0, &loader) == NIBL_OK);
    EXPECT(nibl_loader_set_name(loader, nibl_hf_files[NIBL_HF_CONFIG].name) == NIBL_OK);
    if (quantize) EXPECT(nibl_loader_set_quantize(loader, quantize) == NIBL_OK);
    nibl_status status = NIBL_NEED_DATA;
    uint32_t told = UINT32_MAX;
    while (status >= 0) {
        uint64_t address, length;
        if (!*model && nibl_loader_header_ready(loader) && (status = begin(loader, model)) < 0) break;
        EXPECT(nibl_loader_want(loader, &address, &length) == NIBL_OK);
        if (length == 0) break;
        const uint32_t file = NIBL_ADDRESS_FILE(address);
        const part p = find_part(parts, nibl_loader_file_name(loader, file));
        const uint64_t offset = NIBL_ADDRESS_OFFSET(address);
        if ((!quiet && file != told) || offset >= p.length) {
            const bool again = quiet || file == told;
            status = nibl_loader_end(loader, NIBL_ADDRESS(file, p.length));
            if (again && status >= 0) {
                uint64_t next, more;
                EXPECT(nibl_loader_want(loader, &next, &more) == NIBL_OK);
                EXPECT(next != address || more == 0 ||
                       nibl_loader_header_ready(loader)); /* no standing still */
            }
            told = file;
            continue;
        }
        if (length > p.length - offset) length = p.length - offset;
        if (length > chunk) length = chunk;
        status = nibl_loader_feed(loader, address, p.bytes + offset, (size_t)length);
    }
    nibl_loader_free(loader);
    return status < 0 ? status : NIBL_OK;
}

static void check_same(const nibl_model *a, const nibl_model *b) {
    for (size_t i = 0; i < a->binding_count; i++) {
        const nibl_binding *x = &a->bindings[i], *y = &b->bindings[i];
        EXPECT(x->rows_done == x->rows && y->rows_done == y->rows);
        if (x->matrix)
            EXPECT(memcmp(x->matrix->data, y->matrix->data,
                          nibl_panel_bytes(x->matrix) * nibl_panels(x->matrix)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    static const size_t chunks[] = {1, 3, 64, 4096};
    const uint8_t how = data[0];
    part parts[FILES] = {0};
    uint64_t before, after;
    nibl_memory(&before, NULL);
    read_parts(data + 1, size - 1, parts);

    nibl_model *pieces = NULL, *whole = NULL;
    const char *quantize = how & 8 ? "q4_0" : NULL;
    const nibl_status first = load(parts, chunks[how & 3], how & 4, quantize, &pieces);
    const nibl_status second = load(parts, SIZE_MAX, false, quantize, &whole);
    EXPECT((first == NIBL_OK) == (second == NIBL_OK));
    if (first == NIBL_OK) check_same(pieces, whole);
    nibl_model_free(pieces);
    nibl_model_free(whole);
    nibl_memory(&after, NULL);
    EXPECT(after == before);
    return 0;
}

/* A split GGUF file: the first part has the metadata, every part its own list of tensors. */
#include "core/gguf_parts.h"

#include <string.h>

static uint64_t number(const nibl_gguf *gguf, const char *key) {
    uint64_t value = 0;
    nibl_gguf_u64(gguf, key, &value);
    return value;
}

uint32_t nibl_gguf_split_count(const nibl_gguf *gguf) {
    const uint64_t count = number(gguf, "split.count");
    return count > 1 && count <= UINT16_MAX ? (uint32_t)count : 1;
}

static nibl_status check_ends(const nibl_gguf *part) {
    for (size_t i = 0; i < part->tensors_length; i++) {
        const nibl_gguf_tensor *t = &part->tensors[i];
        if (t->offset + t->bytes > NIBL_MAX_FILE)
            return nibl_fail(NIBL_E_FILE,
                             "tensor '%.*s' ends at byte %llu of its file; at most %llu are possible",
                             (int)t->name.length, t->name.bytes, (unsigned long long)(t->offset + t->bytes),
                             (unsigned long long)NIBL_MAX_FILE);
    }
    return NIBL_OK;
}

static nibl_status check_parts(nibl_gguf *const *parts, size_t count, uint64_t *tensors) {
    *tensors = 0;
    for (size_t i = 0; i < count; i++) {
        const uint64_t index = number(parts[i], "split.no"), of = number(parts[i], "split.count");
        if (index != i || of != count)
            return nibl_fail(NIBL_E_FILE,
                             "file %zu of %zu says it is part %llu of %llu: it was renamed, or belongs to "
                             "another model",
                             i + 1, count, (unsigned long long)index + 1, (unsigned long long)of);
        NIBL_TRY(check_ends(parts[i]));
        *tensors += parts[i]->tensors_length;
    }
    uint64_t claimed = *tensors;
    nibl_gguf_u64(parts[0], "split.tensors.count", &claimed);
    if (claimed == *tensors && claimed <= NIBL_GGUF_MAX_TENSORS) return NIBL_OK;
    return nibl_fail(NIBL_E_FILE, "the %zu parts have %llu tensors, but the first says %llu (limit %u)",
                     count, (unsigned long long)*tensors, (unsigned long long)claimed, NIBL_GGUF_MAX_TENSORS);
}

nibl_status nibl_gguf_join(nibl_gguf *const *parts, size_t count) {
    nibl_gguf *first = parts[0];
    uint64_t tensors;
    NIBL_TRY(check_parts(parts, count, &tensors));
    void *grown = first->tensors;
    NIBL_TRY(nibl_reserve(&grown, &first->tensors_capacity, (size_t)tensors, sizeof *first->tensors,
                          "the list of tensors"));
    first->tensors = grown;
    for (size_t i = 1; i < count; i++) {
        for (size_t j = 0; j < parts[i]->tensors_length; j++) {
            nibl_gguf_tensor t = parts[i]->tensors[j];
            t.offset = NIBL_ADDRESS(i, t.offset);
            first->tensors[first->tensors_length++] = t;
        }
    }
    NIBL_TRY(nibl_gguf_index_tensors(first));
    for (size_t i = 1; i < count; i++) parts[i - 1]->part = parts[i];
    return NIBL_OK;
}

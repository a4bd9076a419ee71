#include "core/header.h"

#include "core/hf.h"
#include "core/safetensors.h"

#include <stdio.h>
#include <string.h>

enum {
    FIRST_RANGE = 256 << 10, /* first and smallest range of a file; doubles with what has arrived */
    RANGE_MAX = 4 << 20
};

typedef struct file {
    char *name;
    uint64_t size; /* 0 = unknown */
    bool sized; /* the size is known, even if 0 */
    nibl_gguf *gguf; /* a GGUF file: owned until all are joined */
    uint8_t *bytes; /* a file of a folder: all of it, or the header of weights; until all are there */
    size_t length, capacity;
} file;

struct nibl_header {
    file *files;
    size_t count, capacity;
    size_t at; /* the file whose header is read */
    bool folder; /* Hugging Face: documents in the order of nibl_hf_files, then weights */
    /* Not NULL: of a folder there is its first document alone, from which this makes the header. (A pointer, so that
     * builds that never ask do not have it.) */
    nibl_status (*assume)(const nibl_hf_text *config, nibl_gguf **out);
    nibl_gguf *gguf; /* complete */
    bool complete;
};

/* ---- Files ---- */

static nibl_status add_file(nibl_header *h, const char *name, size_t length) {
    if (h->count == NIBL_HEADER_MAX_FILES)
        return nibl_fail(NIBL_E_FILE, "the model has more than %u files", NIBL_HEADER_MAX_FILES);
    void *grown = h->files;
    NIBL_TRY(nibl_reserve(&grown, &h->capacity, h->count + 1, sizeof *h->files, "the list of files"));
    h->files = grown;
    char *copy = nibl_alloc((uint64_t)length + 1);
    if (!copy) return nibl_fail_memory(length, "a file's name");
    memcpy(copy, name, length);
    copy[length] = 0;
    h->files[h->count++] = (file){.name = copy};
    return NIBL_OK;
}

nibl_status nibl_header_new(uint64_t file_size, nibl_header **out) {
    nibl_header *h = nibl_alloc_zero(sizeof *h);
    if (!h) return nibl_fail_memory(sizeof *h, "a header");
    nibl_status status = add_file(h, "", 0);
    if (status == NIBL_OK) status = nibl_gguf_new(&h->files[0].gguf);
    if (status < 0) {
        nibl_header_free(h);
        return status;
    }
    h->files[0].size = file_size;
    h->files[0].sized = file_size > 0;
    *out = h;
    return NIBL_OK;
}

void nibl_header_free(nibl_header *h) {
    if (!h) return;
    for (size_t i = 0; i < h->count; i++) {
        nibl_free(h->files[i].name);
        nibl_gguf_free(h->files[i].gguf);
        nibl_free(h->files[i].bytes);
    }
    nibl_free(h->files);
    nibl_gguf_free(h->gguf);
    nibl_free(h);
}

nibl_status nibl_header_set_name(nibl_header *h, const char *name) {
    const size_t length = strlen(name);
    if (length > NIBL_HEADER_MAX_NAME)
        return nibl_fail(NIBL_E_ARGUMENT, "a file name of %zu bytes (limit %u)", length,
                         NIBL_HEADER_MAX_NAME);
    char *copy = nibl_alloc((uint64_t)length + 1);
    if (!copy) return nibl_fail_memory(length, "a file's name");
    memcpy(copy, name, length + 1);
    nibl_free(h->files[0].name);
    h->files[0].name = copy;
    h->folder = strcmp(name, nibl_hf_files[NIBL_HF_CONFIG].name) == 0;
    return NIBL_OK;
}

void nibl_header_set_config_only(nibl_header *h) { h->assume = nibl_hf_assume; }

const char *nibl_header_file_name(const nibl_header *h, uint32_t index) {
    return index < h->count ? h->files[index].name : NULL;
}

uint64_t nibl_header_file_size(const nibl_header *h, uint32_t index) {
    return index < h->count ? h->files[index].size : 0;
}

uint32_t nibl_header_file_count(const nibl_header *h) { return (uint32_t)h->count; }

nibl_gguf *nibl_header_gguf(const nibl_header *h) { return h->gguf; }

nibl_gguf *nibl_header_take(nibl_header *h) {
    nibl_gguf *gguf = h->gguf;
    h->gguf = NULL;
    return gguf;
}

/* ---- Split files ---- */

static bool is_number(const char *text) {
    for (int i = 0; i < 5; i++)
        if (text[i] < '0' || text[i] > '9') return false;
    return true;
}

/* Adds the other parts of "NAME-00001-of-00003.gguf". */
static nibl_status add_parts(nibl_header *h, uint32_t count) {
    static const char form[] = "-00001-of-00003.gguf";
    const size_t tail = sizeof form - 1;
    char name[NIBL_HEADER_MAX_NAME + 1];
    snprintf(name, sizeof name, "%s", h->files[0].name);
    const size_t length = strlen(name);
    char *end = name + (length > tail ? length - tail : 0);
    if (length <= tail || !is_number(end + 1) || memcmp(end + 6, "-of-", 4) != 0 || !is_number(end + 10) ||
        strcmp(end + 15, ".gguf") != 0)
        return nibl_fail(
            NIBL_E_FILE,
            "the file is one of %u parts, but its name, '%s', does not end in %s: give it its own name "
            "back",
            count, name, form);
    char expected[16];
    snprintf(expected, sizeof expected, "-00001-of-%05u", count % 100000);
    if (memcmp(end, expected, 15) != 0)
        return nibl_fail(NIBL_E_FILE, "'%s' is not the first of %u parts: open '%.*s%s.gguf'", name, count,
                         (int)(end - name), name, expected);
    for (uint32_t i = 1; i < count; i++) {
        snprintf(expected, sizeof expected, "-%05u", (i + 1) % 100000);
        memcpy(end, expected, 6);
        NIBL_TRY(add_file(h, name, length));
        NIBL_TRY(nibl_gguf_new(&h->files[i].gguf));
    }
    return NIBL_OK;
}

static nibl_status join_parts(nibl_header *h) {
    const uint64_t bytes = h->count * sizeof(nibl_gguf *);
    nibl_gguf **parts = nibl_alloc(bytes);
    if (!parts) return nibl_fail_memory(bytes, "the list of parts");
    for (size_t i = 0; i < h->count; i++) parts[i] = h->files[i].gguf;
    nibl_status status = h->count > 1 ? nibl_gguf_join(parts, h->count) : NIBL_OK;
    nibl_free(parts);
    if (status < 0) return status;
    h->gguf = h->files[0].gguf;
    for (size_t i = 0; i < h->count; i++) h->files[i].gguf = NULL;
    return NIBL_OK;
}

/* The header of the file at hand is complete. */
static nibl_status next_part(nibl_header *h) {
    if (h->at == 0 && nibl_gguf_split_count(h->files[0].gguf) > 1)
        NIBL_TRY(add_parts(h, nibl_gguf_split_count(h->files[0].gguf)));
    if (++h->at < h->count) return NIBL_OK;
    NIBL_TRY(join_parts(h));
    h->complete = true;
    return NIBL_OK;
}

/* ---- Folders ---- */

enum { LENGTH_BYTES = 8 /* in front of the header of weights */ };

static bool is_weights(const nibl_header *h) { return h->at >= NIBL_HF_DOCUMENTS; }

static uint64_t limit_of(const nibl_header *h) {
    return is_weights(h) ? NIBL_SAFETENSORS_MAX_HEADER : nibl_hf_files[h->at].limit;
}

/* Bytes of the file at hand that belong to the header, as far as known: at least LENGTH_BYTES of weights. */
static uint64_t needed_of(const nibl_header *h) {
    const file *f = &h->files[h->at];
    if (!is_weights(h)) return f->sized ? f->size : UINT64_MAX;
    const uint64_t header = f->length >= LENGTH_BYTES ? nibl_load_u64(f->bytes) : 0;
    return header > NIBL_MAX_FILE ? UINT64_MAX : LENGTH_BYTES + header;
}

static nibl_status add_weights(void *context, const char *name) {
    return add_file(context, name, strlen(name));
}

static nibl_hf_text text_of(const file *f, size_t skipped) {
    return (nibl_hf_text){f->name, f->length > 0 ? (const char *)f->bytes + skipped : NULL,
                          f->length > 0 ? f->length - skipped : 0};
}

static nibl_status build_folder(nibl_header *h) {
    const uint64_t bytes = h->count * sizeof(nibl_hf_text);
    nibl_hf_text *texts = nibl_alloc(bytes);
    if (!texts) return nibl_fail_memory(bytes, "the list of files");
    for (size_t i = 0; i < h->count; i++)
        texts[i] = text_of(&h->files[i], i < NIBL_HF_DOCUMENTS ? 0 : LENGTH_BYTES);
    nibl_status status = h->assume ? h->assume(texts, &h->gguf)
                                   : nibl_hf_build(texts, texts + NIBL_HF_DOCUMENTS,
                                                   h->count - NIBL_HF_DOCUMENTS, NIBL_HF_DOCUMENTS, &h->gguf);
    nibl_free(texts);
    for (size_t i = 0; i < h->count; i++) {
        nibl_free(h->files[i].bytes);
        h->files[i].bytes = NULL;
    }
    h->complete = status == NIBL_OK;
    return status;
}

/* The file at hand is there, or is known not to exist. */
static nibl_status next_file(nibl_header *h) {
    if (h->at == NIBL_HF_INDEX) {
        const nibl_hf_text index = text_of(&h->files[h->at], 0);
        NIBL_TRY(index.length > 0 ? nibl_hf_read_index(&index, add_weights, h)
                                  : add_weights(h, NIBL_HF_WEIGHTS));
    } else if (h->at < NIBL_HF_INDEX && !h->assume) {
        NIBL_TRY(add_weights(h, nibl_hf_files[h->at + 1].name));
    }
    return ++h->at < h->count ? NIBL_OK : build_folder(h);
}

/* What has arrived, or how long the file is, has changed. */
static nibl_status check_file(nibl_header *h) {
    const file *f = &h->files[h->at];
    if (f->sized && f->size == 0) {
        if (!is_weights(h) && !nibl_hf_files[h->at].required) return next_file(h);
        return nibl_fail(NIBL_E_TRUNCATED, "'%s' is missing or empty, but the model needs it", f->name);
    }
    const uint64_t needed = needed_of(h);
    if ((f->sized || is_weights(h)) && needed > limit_of(h) + LENGTH_BYTES)
        return nibl_fail(NIBL_E_FILE, "'%s': %llu bytes%s (limit %llu)", f->name, (unsigned long long)needed,
                         is_weights(h) ? " of header; not a safetensors file?" : "",
                         (unsigned long long)limit_of(h));
    if (f->sized && needed > f->size)
        return nibl_fail(NIBL_E_TRUNCATED,
                         "'%s': the file ends after %llu bytes, within its header: fetch it again", f->name,
                         (unsigned long long)f->size);
    if (f->length < needed || (is_weights(h) && f->length < LENGTH_BYTES)) return NIBL_OK;
    return next_file(h);
}

static nibl_status feed_folder(nibl_header *h, uint64_t offset, const uint8_t *bytes, size_t length) {
    const size_t at = h->at;
    file *f = &h->files[at];
    if (offset > f->length)
        return nibl_fail(NIBL_E_ARGUMENT, "bytes at %llu were fed, but the file has arrived only up to %llu",
                         (unsigned long long)offset, (unsigned long long)f->length);
    while (h->at == at && !h->complete && offset + length > f->length) {
        const uint8_t *fresh = bytes + (f->length - offset);
        uint64_t room = needed_of(h);
        if (room > limit_of(h) + LENGTH_BYTES + 1) room = limit_of(h) + LENGTH_BYTES + 1;
        uint64_t taken = offset + length - f->length;
        if (taken > room - f->length) taken = room - f->length;
        void *grown = f->bytes;
        NIBL_TRY(nibl_reserve(&grown, &f->capacity, f->length + (size_t)taken, 1, f->name));
        f->bytes = grown;
        memcpy(f->bytes + f->length, fresh, (size_t)taken);
        f->length += (size_t)taken;
        if (f->length > limit_of(h) + LENGTH_BYTES)
            return nibl_fail(NIBL_E_FILE, "'%s' is longer than %llu bytes", f->name,
                             (unsigned long long)limit_of(h));
        NIBL_TRY(check_file(h));
        f = &h->files[at]; /* the list may have moved */
    }
    return NIBL_OK;
}

/* ---- What arrives ---- */

nibl_status nibl_header_name_file(const nibl_header *h, uint64_t address, nibl_status status) {
    if (status >= 0 || h->count == 1 || (h->at == h->count && !h->complete) ||
        NIBL_ADDRESS_FILE(address) >= h->count)
        return status;
    const char *name = h->files[NIBL_ADDRESS_FILE(address)].name;
    char text[512];
    snprintf(text, sizeof text, "%s", nibl_last_message());
    return strstr(text, name) ? status : nibl_fail(status, "%s: %s", name, text);
}

void nibl_header_want(const nibl_header *h, uint64_t *address, uint64_t *length) {
    *address = *length = 0;
    if (h->complete) return;
    const file *f = &h->files[h->at];
    const uint64_t fed = h->folder ? f->length : nibl_gguf_header_bytes(f->gguf);
    uint64_t wanted = fed < FIRST_RANGE ? FIRST_RANGE : fed > RANGE_MAX ? RANGE_MAX : fed;
    const bool known = f->sized && !(is_weights(h) && h->folder && fed >= LENGTH_BYTES);
    const uint64_t end = known ? f->size : h->folder && fed >= LENGTH_BYTES ? needed_of(h) : UINT64_MAX;
    if (wanted > end - fed) wanted = end - fed;
    *address = NIBL_ADDRESS(h->at, fed);
    *length = wanted;
}

static nibl_status feed(nibl_header *h, uint64_t offset, const uint8_t *bytes, size_t length) {
    const file *f = &h->files[h->at];
    uint64_t fed = nibl_gguf_header_bytes(f->gguf);
    if (offset > fed)
        return nibl_fail(NIBL_E_ARGUMENT,
                         "bytes at %llu were fed, but the header has arrived only up to %llu",
                         (unsigned long long)offset, (unsigned long long)fed);
    if (length > fed - offset) {
        size_t known = (size_t)(fed - offset), taken;
        NIBL_TRY(nibl_gguf_feed(f->gguf, bytes + known, length - known, &taken));
    }
    const bool complete = nibl_gguf_complete(f->gguf);
    if (f->sized && (complete || nibl_gguf_header_bytes(f->gguf) == f->size))
        NIBL_TRY(nibl_gguf_check_end(f->gguf, f->size));
    return complete ? next_part(h) : NIBL_OK;
}

nibl_status nibl_header_feed(nibl_header *h, uint64_t address, const uint8_t *bytes, size_t length) {
    if (h->complete || NIBL_ADDRESS_FILE(address) != h->at) return NIBL_NEED_DATA;
    const uint64_t offset = NIBL_ADDRESS_OFFSET(address);
    nibl_status status = h->folder ? feed_folder(h, offset, bytes, length) : feed(h, offset, bytes, length);
    return status < 0 ? nibl_header_name_file(h, address, status) : NIBL_NEED_DATA;
}

nibl_status nibl_header_end(nibl_header *h, uint64_t address) {
    const uint64_t size = NIBL_ADDRESS_OFFSET(address);
    file *f = &h->files[NIBL_ADDRESS_FILE(address)];
    f->size = size;
    f->sized = true;
    if (h->gguf && h->count == 1) NIBL_TRY(nibl_gguf_check_end(h->gguf, size));
    if (h->complete || NIBL_ADDRESS_FILE(address) != h->at) return NIBL_NEED_DATA;
    if (h->folder) {
        const nibl_status status = check_file(h);
        return status < 0 ? nibl_header_name_file(h, address, status) : NIBL_NEED_DATA;
    }
    if (nibl_gguf_header_bytes(f->gguf) < size) return NIBL_NEED_DATA;
    if (size == 0 && h->at > 0)
        return nibl_fail(NIBL_E_TRUNCATED,
                         "'%s', part %zu of %zu, is missing or empty: all parts must stand together", f->name,
                         h->at + 1, h->count);
    const nibl_status status = nibl_gguf_check_end(f->gguf, size);
    return status < 0 ? nibl_header_name_file(h, address, status) : NIBL_NEED_DATA;
}

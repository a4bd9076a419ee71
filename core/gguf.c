/* The header is kept in one growing buffer; `at` is where the parser stands. A step parses one record when
 * all of it has arrived, or asks for more without moving, so one-byte feeds cost O(1) each: nothing is
 * ever parsed twice except the fixed-size head of one record. Records refer to the buffer by offset while
 * it may still move. */
#include "core/gguf_parts.h"

#include "core/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_COUNT = NIBL_GGUF_F64 + 1, READ_PIECE = 4096, SHOWN = 64 /* bytes of a name in a message */ };

typedef struct extent {
    uint64_t begin, end;
    uint32_t index;
} extent;

/* ---- Errors ---- */

static nibl_slice slice_at(const nibl_gguf *g, uint32_t offset, size_t length) {
    return (nibl_slice){(const char *)g->bytes + offset, length};
}

static void write_place(const nibl_gguf *g, nibl_writer *w) {
    size_t record = g->metadata_length;
    switch (g->step) {
    case STEP_KEY: nibl_print(w, "metadata key %zu of %u", record + 1, (unsigned)g->metadata_count); break;
    case STEP_VALUE:
    case STEP_STRINGS: {
        nibl_slice key = slice_at(g, g->metadata[record].key, g->metadata[record].key_length);
        nibl_print(w, "metadata key %zu '%.*s'", record + 1, NIBL_SHOW(key));
        break;
    }
    case STEP_TENSOR:
        nibl_print(w, "tensor %zu of %u", g->tensors_length + 1, (unsigned)g->tensor_count);
        break;
    default: nibl_print(w, "file header");
    }
    nibl_print(w, ", at byte %zu", g->at);
}

/* Fails with "<where the parser stands>: <text>". */
static NIBL_PRINTF(2, 3) nibl_status bad(const nibl_gguf *g, const char *format, ...) {
    char place[160], text[320];
    nibl_writer w = {.text = place, .capacity = sizeof place};
    write_place(g, &w);
    place[w.length < sizeof place ? w.length : sizeof place - 1] = 0;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return nibl_fail(NIBL_E_FILE, "%s: %s", place, text);
}

/* ---- Bytes ---- */

static bool have(const nibl_gguf *g, uint64_t count) { return g->length - g->at >= count; }

static const uint8_t *peek(const nibl_gguf *g, size_t offset) { return g->bytes + g->at + offset; }

/* The string whose u64 length stands `offset` bytes ahead: NIBL_OK when it is all there. */
static nibl_status peek_string(const nibl_gguf *g, size_t offset, uint32_t limit, const char *what,
                               size_t *length) {
    if (!have(g, offset + 8)) return NIBL_NEED_DATA;
    uint64_t claimed = nibl_load_u64(peek(g, offset));
    if (claimed > limit)
        return bad(g, "%s of %llu bytes (limit %u)", what, (unsigned long long)claimed, (unsigned)limit);
    if (!have(g, offset + 8 + claimed)) return NIBL_NEED_DATA;
    *length = (size_t)claimed;
    return NIBL_OK;
}

static nibl_status check_name(const nibl_gguf *g, const char *what, const uint8_t *name, size_t length) {
    if (length == 0) return bad(g, "the %s is empty", what);
    for (size_t i = 0; i < length; i++)
        if (name[i] < 0x20 || name[i] == 0x7F)
            return bad(g, "byte %zu of the %s is the control character 0x%02x", i, what, name[i]);
    return NIBL_OK;
}

/* Grows one of the arrays of `g`; `capacity` as in nibl_reserve. NULL when out of memory. */
static void *reserve(void *array, size_t *capacity, size_t count, size_t width, const char *what) {
    return nibl_reserve(&array, capacity, count, width, what) < 0 ? NULL : array;
}

/* Gives back what geometric growth left over; where that fails the old block serves as well. */
static void *shrink(void *array, size_t *capacity, size_t count, size_t width) {
    if (count == *capacity || count == 0) return array;
    void *exact = nibl_realloc(array, (uint64_t)count * width);
    if (exact) *capacity = count;
    return exact ? exact : array;
}

/* ---- Steps: NIBL_OK, NIBL_NEED_DATA, or an error ---- */

static nibl_status refuse_magic(const uint8_t *p, size_t length) {
    static const char bom[] = "\xEF\xBB\xBF \t\r\n";
    size_t first = 0;
    while (first < length && p[first] && strchr(bom, p[first])) first++;
    if (first < length && strchr("<{[", p[first]) && p[first])
        return nibl_fail(
            NIBL_E_FILE,
            "the file begins with '%c': %s, not a model; probably the server's error page, check the address",
            p[first], p[first] == '<' ? "an HTML or XML page" : "a JSON text");
    if (length == 4 && memcmp(p, "vers", 4) == 0)
        return nibl_fail(NIBL_E_FILE,
                         "the file begins with \"vers\": probably a Git LFS pointer, not the model itself");
    char hex[16] = "", text[5] = "";
    for (size_t i = 0; i < length; i++) {
        snprintf(hex + 3 * i, sizeof hex - 3 * i, "%02x ", p[i]);
        text[i] = p[i] >= 0x20 && p[i] < 0x7F ? (char)p[i] : '.';
    }
    return nibl_fail(NIBL_E_FILE,
                     "not a GGUF file: its first bytes are %s(\"%s\"), expected 47 47 55 46 (\"GGUF\")", hex,
                     text);
}

static nibl_status check_version(uint32_t version) {
    if (version == 3) return NIBL_OK;
    if (version != 0 && (version & 0xFFFF) == 0)
        return nibl_fail(NIBL_E_FILE,
                         "a big-endian GGUF file (version field 0x%08x): convert it to little-endian",
                         (unsigned)version);
    return nibl_fail(NIBL_E_FILE, "GGUF version %u: this build reads version 3, convert the model anew",
                     (unsigned)version);
}

static nibl_status parse_start(nibl_gguf *g) {
    if (!have(g, 4)) return NIBL_NEED_DATA;
    if (memcmp(g->bytes, "GGUF", 4) != 0) return refuse_magic(g->bytes, 4);
    if (!have(g, 8)) return NIBL_NEED_DATA;
    NIBL_TRY(check_version(nibl_load_u32(g->bytes + 4)));
    if (!have(g, 24)) return NIBL_NEED_DATA;
    uint64_t tensors = nibl_load_u64(g->bytes + 8), keys = nibl_load_u64(g->bytes + 16);
    if (tensors > NIBL_GGUF_MAX_TENSORS)
        return bad(g, "%llu tensors claimed (limit %u)", (unsigned long long)tensors, NIBL_GGUF_MAX_TENSORS);
    if (keys > NIBL_GGUF_MAX_METADATA)
        return bad(g, "%llu metadata keys claimed (limit %u)", (unsigned long long)keys,
                   NIBL_GGUF_MAX_METADATA);
    g->tensor_count = (uint32_t)tensors;
    g->metadata_count = (uint32_t)keys;
    g->at = 24;
    g->step = STEP_KEY;
    return NIBL_OK;
}

static nibl_status parse_key(nibl_gguf *g) {
    size_t length = 0;
    nibl_status status = peek_string(g, 0, NIBL_GGUF_MAX_KEY, "key", &length);
    if (status != NIBL_OK) return status;
    if (!have(g, 8 + length + 4)) return NIBL_NEED_DATA;
    NIBL_TRY(check_name(g, "key", peek(g, 8), length));
    uint32_t type = nibl_load_u32(peek(g, 8 + length));
    if (type >= TYPE_COUNT)
        return bad(g, "'%.*s' has value type %u, which GGUF does not define",
                   (int)(length < SHOWN ? length : SHOWN), (const char *)peek(g, 8), (unsigned)type);
    void *grown = reserve(g->metadata, &g->metadata_capacity, g->metadata_length + 1, sizeof *g->metadata,
                          "the metadata");
    if (!grown) return NIBL_E_MEMORY;
    g->metadata = grown;
    g->metadata[g->metadata_length] = (metadata){
        .key = (uint32_t)(g->at + 8), .key_length = (uint32_t)length, .type = (nibl_gguf_type)type};
    g->at += 8 + length + 4;
    g->step = STEP_VALUE;
    return NIBL_OK;
}

static nibl_status parse_array(nibl_gguf *g, metadata *m) {
    if (!have(g, 12)) return NIBL_NEED_DATA;
    uint32_t element = nibl_load_u32(peek(g, 0));
    uint64_t count = nibl_load_u64(peek(g, 4)), bytes;
    if (element == NIBL_GGUF_ARRAY) return bad(g, "an array of arrays, which no model file has");
    if (element >= TYPE_COUNT)
        return bad(g, "an array of value type %u, which GGUF does not define", (unsigned)element);
    uint64_t width =
        element == NIBL_GGUF_STRING ? 8 : nibl_gguf_type_widths[element]; /* of a string: at least */
    if (!nibl_mul_u64(count, width, &bytes) || bytes > NIBL_GGUF_MAX_HEADER)
        return bad(g, "an array of %llu elements of type %s (limit %u bytes)", (unsigned long long)count,
                   nibl_gguf_type_names[element], NIBL_GGUF_MAX_HEADER);
    if (element != NIBL_GGUF_STRING && !have(g, 12 + bytes)) return NIBL_NEED_DATA;
    m->element = (nibl_gguf_type)element;
    m->count = count;
    m->value = (uint32_t)(g->at + 12);
    g->at += 12;
    if (element == NIBL_GGUF_STRING) {
        m->first_string = (uint32_t)g->strings_length;
        g->strings_left = count;
        g->step = STEP_STRINGS;
    } else {
        g->at += (size_t)bytes;
        g->metadata_length++;
        g->step = STEP_KEY;
    }
    return NIBL_OK;
}

static nibl_status parse_value(nibl_gguf *g) {
    metadata *m = &g->metadata[g->metadata_length];
    if (m->type == NIBL_GGUF_ARRAY) return parse_array(g, m);
    size_t bytes = nibl_gguf_type_widths[m->type];
    if (m->type == NIBL_GGUF_STRING) {
        nibl_status status = peek_string(g, 0, NIBL_GGUF_MAX_HEADER, "string", &bytes);
        if (status != NIBL_OK) return status;
        bytes += 8;
    }
    if (!have(g, bytes)) return NIBL_NEED_DATA;
    if (m->type == NIBL_GGUF_BOOL && *peek(g, 0) > 1)
        return bad(g, "a bool of value %u", (unsigned)*peek(g, 0));
    m->value = (uint32_t)g->at;
    g->at += bytes;
    g->metadata_length++;
    g->step = STEP_KEY;
    return NIBL_OK;
}

static nibl_status parse_strings(nibl_gguf *g) {
    const metadata *m = &g->metadata[g->metadata_length];
    for (; g->strings_left > 0; g->strings_left--) {
        size_t length = 0;
        nibl_status status = peek_string(g, 0, NIBL_GGUF_MAX_HEADER, "string", &length);
        if (status != NIBL_OK) return status;
        void *grown = reserve(g->strings, &g->strings_capacity, g->strings_length + 1, sizeof *g->strings,
                              "the table of strings");
        if (!grown) return NIBL_E_MEMORY;
        g->strings = grown;
        g->strings[g->strings_length++] = (uint32_t)(g->at - m->value);
        g->at += 8 + length;
    }
    g->metadata_length++;
    g->step = STEP_KEY;
    return NIBL_OK;
}

/* Fills dims and bytes from the dimensions at `p`. */
static nibl_status measure_tensor(const nibl_gguf *g, nibl_gguf_tensor *t, const uint8_t *p) {
    uint64_t elements = 1;
    for (uint32_t i = 0; i < NIBL_GGUF_MAX_DIMS; i++) {
        t->dims[i] = i < t->n_dims ? nibl_load_u64(p + 8 * i) : 1;
        if (t->dims[i] == 0) return bad(g, "'%.*s': dimension %u is 0", NIBL_SHOW(t->name), (unsigned)i);
        if (!nibl_mul_u64(elements, t->dims[i], &elements) || elements > INT64_MAX)
            return bad(g, "'%.*s': dimension %u is %llu, which makes more elements than 63 bits count",
                       NIBL_SHOW(t->name), (unsigned)i, (unsigned long long)t->dims[i]);
    }
    const nibl_dtype *type = nibl_dtype_by_id(t->type);
    if (!type) return NIBL_OK;
    if (t->dims[0] % type->block != 0)
        return bad(g, "'%.*s': rows of %llu elements are not whole blocks of %u (%s)", NIBL_SHOW(t->name),
                   (unsigned long long)t->dims[0], (unsigned)type->block, type->name);
    uint64_t row_bytes, rows = elements / t->dims[0];
    if (!nibl_dtype_row_bytes(type, t->dims[0], &row_bytes) || !nibl_mul_u64(row_bytes, rows, &t->bytes) ||
        t->bytes > INT64_MAX)
        return bad(g, "'%.*s': %llu rows of %llu elements (%s) are more bytes than 63 bits count",
                   NIBL_SHOW(t->name), (unsigned long long)rows, (unsigned long long)t->dims[0], type->name);
    return NIBL_OK;
}

static nibl_status parse_tensor(nibl_gguf *g) {
    size_t length = 0;
    nibl_status status = peek_string(g, 0, NIBL_GGUF_MAX_NAME, "name", &length);
    if (status != NIBL_OK) return status;
    if (!have(g, 8 + length + 4)) return NIBL_NEED_DATA;
    NIBL_TRY(check_name(g, "name", peek(g, 8), length));
    nibl_gguf_tensor t = {.name = slice_at(g, (uint32_t)(g->at + 8), length)};
    t.n_dims = nibl_load_u32(peek(g, 8 + length));
    if (t.n_dims > NIBL_GGUF_MAX_DIMS)
        return bad(g, "'%.*s': %u dimensions (limit %d)", NIBL_SHOW(t.name), (unsigned)t.n_dims,
                   NIBL_GGUF_MAX_DIMS);
    size_t tail = 8 + length + 4 + 8 * (size_t)t.n_dims;
    if (!have(g, tail + 12)) return NIBL_NEED_DATA;
    t.type = nibl_load_u32(peek(g, tail));
    t.offset = nibl_load_u64(peek(g, tail + 4));
    NIBL_TRY(measure_tensor(g, &t, peek(g, 8 + length + 4)));
    void *grown = reserve(g->tensors, &g->tensors_capacity, g->tensors_length + 1, sizeof *g->tensors,
                          "the list of tensors");
    if (!grown) return NIBL_E_MEMORY;
    g->tensors = grown;
    g->tensors[g->tensors_length++] = t;
    g->at += tail + 12;
    return NIBL_OK;
}

/* ---- The whole header is there ---- */

static int compare_extents(const void *a, const void *b) {
    const extent *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static nibl_status sort_names(named *names, size_t count, const char *what) {
    if (count == 0) return NIBL_OK;
    qsort(names, count, sizeof *names, nibl_gguf_compare_names);
    for (size_t i = 1; i < count; i++)
        if (nibl_gguf_compare_names(&names[i - 1], &names[i]) == 0)
            return nibl_fail(NIBL_E_FILE, "%s '%.*s' stands twice in the file", what,
                             NIBL_SHOW(names[i].name));
    return NIBL_OK;
}

/* The buffer no longer moves. */
static void resolve_names(nibl_gguf *g) {
    size_t at = g->tensors_at;
    for (size_t i = 0; i < g->tensors_length; i++) {
        nibl_gguf_tensor *t = &g->tensors[i];
        t->name.bytes = (const char *)g->bytes + at + 8;
        at += 8 + t->name.length + 4 + 8 * (size_t)t->n_dims + 12;
    }
}

static nibl_status index_keys(nibl_gguf *g) {
    if (g->metadata_length == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)g->metadata_length * sizeof *g->keys;
    if (!(g->keys = nibl_alloc(bytes))) return nibl_fail_memory(bytes, "the index of keys");
    for (size_t i = 0; i < g->metadata_length; i++)
        g->keys[i] = (named){nibl_gguf_metadata_key(g, i), (uint32_t)i};
    return sort_names(g->keys, g->metadata_length, "metadata key");
}

nibl_status nibl_gguf_index_tensors(nibl_gguf *g) {
    if (g->tensors_length == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)g->tensors_length * sizeof *g->names;
    named *names = nibl_realloc(g->names, bytes);
    if (!names) return nibl_fail_memory(bytes, "the index of tensors");
    g->names = names;
    for (size_t i = 0; i < g->tensors_length; i++) g->names[i] = (named){g->tensors[i].name, (uint32_t)i};
    return sort_names(g->names, g->tensors_length, "tensor");
}

static nibl_status read_alignment(const nibl_gguf *g, uint64_t *alignment) {
    *alignment = 32;
    if (!nibl_gguf_find_metadata(g, "general.alignment")) return NIBL_OK;
    if (!nibl_gguf_u64(g, "general.alignment", alignment))
        return nibl_fail(NIBL_E_FILE, "general.alignment is not an unsigned integer");
    if (*alignment == 0 || (*alignment & (*alignment - 1)) != 0 || *alignment > NIBL_GGUF_MAX_ALIGNMENT)
        return nibl_fail(NIBL_E_FILE, "general.alignment is %llu: it must be a power of two up to %u",
                         (unsigned long long)*alignment, NIBL_GGUF_MAX_ALIGNMENT);
    return NIBL_OK;
}

/* Offsets become those of the file. */
static nibl_status place_tensors(nibl_gguf *g) {
    uint64_t alignment;
    NIBL_TRY(read_alignment(g, &alignment));
    uint64_t data = ((uint64_t)g->at + alignment - 1) & ~(alignment - 1);
    for (size_t i = 0; i < g->tensors_length; i++) {
        nibl_gguf_tensor *t = &g->tensors[i];
        if (t->offset % alignment != 0)
            return nibl_fail(
                NIBL_E_FILE, "tensor '%.*s': offset %llu is not a multiple of the alignment %llu",
                NIBL_SHOW(t->name), (unsigned long long)t->offset, (unsigned long long)alignment);
        uint64_t end;
        if (!nibl_add_u64(t->offset, data, &t->offset) || !nibl_add_u64(t->offset, t->bytes, &end) ||
            end > INT64_MAX)
            return nibl_fail(NIBL_E_FILE, "tensor '%.*s': %llu bytes at file offset %llu end beyond 2^63",
                             NIBL_SHOW(t->name), (unsigned long long)t->bytes, (unsigned long long)t->offset);
    }
    return NIBL_OK;
}

static nibl_status check_overlap(const nibl_gguf *g) {
    if (g->tensors_length == 0) return NIBL_OK;
    uint64_t bytes = (uint64_t)g->tensors_length * sizeof(extent);
    extent *extents = nibl_alloc(bytes);
    if (!extents) return nibl_fail_memory(bytes, "the tensors' order");
    size_t count = 0;
    for (size_t i = 0; i < g->tensors_length; i++) {
        const nibl_gguf_tensor *t = &g->tensors[i];
        if (t->bytes > 0) extents[count++] = (extent){t->offset, t->offset + t->bytes, (uint32_t)i};
    }
    qsort(extents, count, sizeof *extents, compare_extents);
    nibl_status status = NIBL_OK;
    for (size_t i = 1; i < count && status == NIBL_OK; i++) {
        if (extents[i].begin >= extents[i - 1].end) continue;
        nibl_slice a = g->tensors[extents[i - 1].index].name, b = g->tensors[extents[i].index].name;
        status = nibl_fail(NIBL_E_FILE, "tensors '%.*s' and '%.*s' overlap at file offset %llu", NIBL_SHOW(a),
                           NIBL_SHOW(b), (unsigned long long)extents[i].begin);
    }
    nibl_free(extents);
    return status;
}

static nibl_status complete(nibl_gguf *g) {
    g->length = g->at;
    g->bytes = shrink(g->bytes, &g->capacity, g->length, 1);
    g->metadata = shrink(g->metadata, &g->metadata_capacity, g->metadata_length, sizeof *g->metadata);
    g->tensors = shrink(g->tensors, &g->tensors_capacity, g->tensors_length, sizeof *g->tensors);
    g->strings = shrink(g->strings, &g->strings_capacity, g->strings_length, sizeof *g->strings);
    g->step = STEP_COMPLETE;
    resolve_names(g);
    NIBL_TRY(index_keys(g));
    NIBL_TRY(nibl_gguf_index_tensors(g));
    NIBL_TRY(place_tensors(g));
    return check_overlap(g);
}

/* ---- Feeding ---- */

static nibl_status parse(nibl_gguf *g) {
    nibl_status status = NIBL_OK;
    while (status == NIBL_OK && g->step != STEP_COMPLETE) {
        if (g->step == STEP_KEY && g->metadata_length == g->metadata_count) {
            g->step = STEP_TENSOR;
            g->tensors_at = g->at;
        }
        switch (g->step) {
        case STEP_START: status = parse_start(g); break;
        case STEP_KEY: status = parse_key(g); break;
        case STEP_VALUE: status = parse_value(g); break;
        case STEP_STRINGS: status = parse_strings(g); break;
        default: status = g->tensors_length == g->tensor_count ? complete(g) : parse_tensor(g);
        }
    }
    return status;
}

/* Appends as much as doubles the buffer, so that little is copied of what stands behind the header. */
static nibl_status append(nibl_gguf *g, const uint8_t *bytes, size_t length, size_t *taken) {
    size_t piece = g->length > READ_PIECE ? g->length : READ_PIECE;
    if (piece > NIBL_GGUF_MAX_HEADER - g->length) piece = NIBL_GGUF_MAX_HEADER - g->length;
    if (piece > length) piece = length;
    if (piece == 0) return bad(g, "the header is longer than %u bytes", NIBL_GGUF_MAX_HEADER);
    void *grown = reserve(g->bytes, &g->capacity, g->length + piece, 1, "the file's header");
    if (!grown) return NIBL_E_MEMORY;
    g->bytes = grown;
    memcpy(g->bytes + g->length, bytes, piece);
    g->length += piece;
    *taken = piece;
    return NIBL_OK;
}

nibl_status nibl_gguf_feed(nibl_gguf *gguf, const void *bytes, size_t length, size_t *taken) {
    if (gguf->step == STEP_FAILED) return nibl_fail(NIBL_E_ARGUMENT, "this header was refused before");
    size_t before = gguf->length, used = 0, piece = 0;
    nibl_status status = gguf->step == STEP_COMPLETE ? NIBL_OK : NIBL_NEED_DATA;
    while (status == NIBL_NEED_DATA && used < length) {
        status = append(gguf, (const uint8_t *)bytes + used, length - used, &piece);
        if (status < 0) break;
        used += piece;
        status = parse(gguf);
    }
    if (status < 0)
        gguf->step = STEP_FAILED;
    else
        *taken = gguf->length - before;
    return status;
}

nibl_status nibl_gguf_check_end(const nibl_gguf *gguf, uint64_t file_size) {
    if (gguf->step < STEP_COMPLETE) {
        if (gguf->length < 4 &&
            memcmp(gguf->bytes ? gguf->bytes : (const uint8_t *)"", "GGUF", gguf->length) != 0)
            return refuse_magic(gguf->bytes, gguf->length);
        char place[160];
        nibl_writer w = {.text = place, .capacity = sizeof place};
        write_place(gguf, &w);
        place[w.length < sizeof place ? w.length : sizeof place - 1] = 0;
        return nibl_fail(NIBL_E_TRUNCATED,
                         "the file ends after %llu bytes, within its header (%s): fetch it again",
                         (unsigned long long)file_size, place);
    }
    for (size_t i = 0; i < nibl_gguf_tensor_count(gguf); i++) {
        const nibl_gguf_tensor *t = &gguf->tensors[i];
        if (t->offset + t->bytes > file_size)
            return nibl_fail(
                NIBL_E_TRUNCATED,
                "tensor '%.*s' ends at byte %llu, but the file ends after %llu bytes: fetch it again",
                NIBL_SHOW(t->name), (unsigned long long)(t->offset + t->bytes),
                (unsigned long long)file_size);
    }
    return NIBL_OK;
}

nibl_status nibl_gguf_new(nibl_gguf **out) {
    nibl_gguf *gguf = nibl_alloc_zero(sizeof *gguf);
    if (!gguf) return nibl_fail_memory(sizeof *gguf, "a header");
    *out = gguf;
    return NIBL_OK;
}

void nibl_gguf_free(nibl_gguf *gguf) {
    if (!gguf) return;
    for (nibl_gguf *part = gguf->part, *next; part; part = next) {
        next = part->part;
        part->part = NULL;
        nibl_gguf_free(part);
    }
    nibl_free(gguf->bytes);
    nibl_free(gguf->metadata);
    nibl_free(gguf->tensors);
    nibl_free(gguf->strings);
    nibl_free(gguf->keys);
    nibl_free(gguf->names);
    nibl_free(gguf);
}

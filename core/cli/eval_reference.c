/* A reference's answers in a file, little-endian:
 *     "NIBLREF1", u32 vocabulary, u32 window, u64 hash of the vocabulary, string model
 *     text: u32 1, string name, u32 windows, i32 tokens[windows * window], of each scored position what
 *           nibl_reference_pack writes
 *     task: u32 2, string name, u64 hash of its items, u32 count, f32 log p of every answer, item after item
 *     end:  u32 0
 * where a string is its u32 length and its bytes. The tokens stand in it, so that whoever reads it scores the same ones;
 * the vocabulary's hash is over the bytes of all tokens. The file may come from anybody. */
#include "core/cli/eval.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = "NIBLREF1";
enum { MAX_NAME = 4096, MAX_WINDOWS = 1 << 20, TOKEN_BYTES = 512 };

/* ---- The vocabulary ---- */

static const uint64_t FNV_BASIS = UINT64_C(0xCBF29CE484222325), FNV_PRIME = UINT64_C(0x100000001B3);

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length) {
    const unsigned char *b = bytes;
    for (size_t i = 0; i < length; i++) hash = (hash ^ b[i]) * FNV_PRIME;
    return hash;
}

static uint64_t hash_vocabulary(const nibl_cli_model *model) {
    uint64_t hash = FNV_BASIS;
    for (uint32_t id = 0; id < model->info.vocabulary; id++) {
        char text[TOKEN_BYTES];
        const int32_t token = (int32_t)id;
        size_t length = 0;
        nibl_detokenize(model->model, &token, 1, true, text, sizeof text, &length);
        hash = hash_bytes(hash, text, length < sizeof text ? length : sizeof text);
        hash = hash_bytes(hash, &(unsigned char){0xFF}, 1); /* no token ends in this byte */
    }
    return hash;
}

/* ---- Numbers ---- */

static uint32_t load_u32(const uint8_t *b) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void store_u32(uint8_t *b, uint32_t value) {
    for (int i = 0; i < 4; i++) b[i] = (uint8_t)(value >> (8 * i));
}

/* ---- Reading ---- */

static int read_bytes(nibl_cli_reference *r, void *out, size_t length) {
    if (length > r->left) return nibl_cli_fail("%s: the reference ends too early", r->path);
    if (fread(out, 1, length, r->stream) != length)
        return nibl_cli_fail("%s: %s", r->path, errno ? strerror(errno) : "the reference ends too early");
    r->left -= length;
    return NIBL_EXIT_OK;
}

static int read_u32(nibl_cli_reference *r, uint32_t *out) {
    uint8_t bytes[4];
    const int code = read_bytes(r, bytes, sizeof bytes);
    if (code == NIBL_EXIT_OK) *out = load_u32(bytes);
    return code;
}

static int read_u64(nibl_cli_reference *r, uint64_t *out) {
    uint32_t low = 0, high = 0;
    int code = read_u32(r, &low);
    if (code == NIBL_EXIT_OK) code = read_u32(r, &high);
    *out = low | (uint64_t)high << 32;
    return code;
}

static int read_string(nibl_cli_reference *r, nibl_cli_text *out) {
    uint32_t length = 0;
    int code = read_u32(r, &length);
    if (code == NIBL_EXIT_OK && length > MAX_NAME)
        code = nibl_cli_fail("%s: has a name of %" PRIu32 " bytes", r->path, length);
    if (code == NIBL_EXIT_OK && !nibl_cli_text_reserve(out, length)) code = NIBL_EXIT_FAILED;
    if (code == NIBL_EXIT_OK) code = read_bytes(r, out->bytes, length);
    if (code != NIBL_EXIT_OK) return code;
    out->length = length;
    out->bytes[length] = '\0';
    return NIBL_EXIT_OK;
}

bool nibl_cli_is_reference(const char *path) {
    char begin[sizeof magic];
    FILE *stream = fopen(path, "rb");
    if (!stream) return false;
    const bool is =
        fread(begin, 1, sizeof begin, stream) == sizeof begin && memcmp(begin, magic, sizeof begin) == 0;
    fclose(stream);
    return is;
}

static int make_record(nibl_cli_reference *r) {
    r->record_bytes = nibl_reference_bytes(r->vocabulary);
    r->record = malloc(r->record_bytes);
    return r->record ? NIBL_EXIT_OK : nibl_cli_fail("out of memory");
}

int nibl_cli_reference_open(const char *path, const nibl_cli_model *model, nibl_cli_reference *out) {
    nibl_cli_reference *r = out;
    uint8_t begin[sizeof magic];
    uint64_t hash = 0;
    *r = (nibl_cli_reference){.path = path, .stream = fopen(path, "rb")};
    if (!r->stream) return nibl_cli_fail("%s: %s", path, strerror(errno));
    if (fseek(r->stream, 0, SEEK_END) != 0 || ftell(r->stream) < 0)
        return nibl_cli_fail("%s: its size is not known", path);
    r->left = (uint64_t)ftell(r->stream);
    rewind(r->stream);
    errno = 0;
    int code = read_bytes(r, begin, sizeof begin);
    if (code == NIBL_EXIT_OK) code = read_u32(r, &r->vocabulary);
    if (code == NIBL_EXIT_OK) code = read_u32(r, &r->window);
    if (code == NIBL_EXIT_OK) code = read_u64(r, &hash);
    if (code == NIBL_EXIT_OK) code = read_string(r, &r->model);
    if (code != NIBL_EXIT_OK) return code;
    if (r->vocabulary != model->info.vocabulary || hash != hash_vocabulary(model))
        return nibl_cli_fail(
            "%s: is of a model with another vocabulary than %s; compare models of one family", path,
            model->path);
    if (r->window < 4 || r->window > 1 << 24)
        return nibl_cli_fail("%s: has windows of %" PRIu32 " tokens", path, r->window);
    return make_record(r);
}

int nibl_cli_reference_next(nibl_cli_reference *r, nibl_cli_section *section, nibl_cli_tokens *tokens) {
    uint32_t kind = 0;
    int code = read_u32(r, &kind);
    if (code != NIBL_EXIT_OK) return code;
    *section = (nibl_cli_section)kind;
    if (kind == NIBL_CLI_SECTION_END)
        return r->left == 0 ? NIBL_EXIT_OK
                            : nibl_cli_fail("%s: %" PRIu64 " bytes follow its end", r->path, r->left);
    if (kind > NIBL_CLI_SECTION_TASK)
        return nibl_cli_fail("%s: has a section of kind %" PRIu32, r->path, kind);
    code = read_string(r, &r->name);
    if (code == NIBL_EXIT_OK && kind == NIBL_CLI_SECTION_TASK) return read_u64(r, &r->hash);
    if (code == NIBL_EXIT_OK) code = read_u32(r, &r->windows);
    if (code != NIBL_EXIT_OK) return code;
    const uint64_t count = (uint64_t)r->windows * r->window;
    if (r->windows == 0 || r->windows > MAX_WINDOWS || count > r->left / 4)
        return nibl_cli_fail("%s: ends within the tokens of '%s'", r->path, r->name.bytes);
    tokens->count = 0;
    if (!nibl_cli_tokens_reserve(tokens, (size_t)count)) return NIBL_EXIT_FAILED;
    for (; tokens->count < count && code == NIBL_EXIT_OK; tokens->count++) {
        uint32_t id = 0;
        code = read_u32(r, &id);
        if (code == NIBL_EXIT_OK && id >= r->vocabulary)
            code = nibl_cli_fail("%s: '%s' has token %" PRIu32 ", but there are %" PRIu32, r->path,
                                 r->name.bytes, id, r->vocabulary);
        tokens->ids[tokens->count] = (int32_t)id;
    }
    return code;
}

int nibl_cli_reference_read_row(nibl_cli_reference *r) { return read_bytes(r, r->record, r->record_bytes); }

int nibl_cli_reference_read_scores(nibl_cli_reference *r, float *scores, size_t count) {
    uint32_t stored = 0;
    int code = read_u32(r, &stored);
    if (code == NIBL_EXIT_OK && stored != count)
        code = nibl_cli_fail("%s: has %" PRIu32 " scores of task '%s', there are %zu answers", r->path,
                             stored, r->name.bytes, count);
    for (size_t i = 0; i < count && code == NIBL_EXIT_OK; i++) {
        uint32_t bits = 0;
        code = read_u32(r, &bits);
        memcpy(&scores[i], &bits, sizeof bits);
        if (code == NIBL_EXIT_OK && !(scores[i] <= 1e-3f && scores[i] > -1e9f))
            code = nibl_cli_fail("%s: a score of task '%s' is no log probability", r->path, r->name.bytes);
    }
    return code;
}

int nibl_cli_reference_skip_scores(nibl_cli_reference *r) {
    uint32_t count = 0, bits;
    int code = read_u32(r, &count);
    for (uint32_t i = 0; i < count && code == NIBL_EXIT_OK; i++) code = read_u32(r, &bits);
    return code;
}

/* ---- Writing ---- */

static int write_u32(nibl_cli_reference *r, uint32_t value) {
    uint8_t bytes[4];
    store_u32(bytes, value);
    return nibl_cli_output_write(&r->output, bytes, sizeof bytes);
}

static int write_u64(nibl_cli_reference *r, uint64_t value) {
    const int code = write_u32(r, (uint32_t)value);
    return code == NIBL_EXIT_OK ? write_u32(r, (uint32_t)(value >> 32)) : code;
}

static int write_string(nibl_cli_reference *r, const char *text) {
    const size_t length = strlen(text) < MAX_NAME ? strlen(text) : MAX_NAME;
    const int code = write_u32(r, (uint32_t)length);
    return code == NIBL_EXIT_OK ? nibl_cli_output_write(&r->output, text, length) : code;
}

int nibl_cli_reference_create(const char *path, const nibl_cli_model *model, uint32_t window,
                              nibl_cli_reference *out) {
    const char *slash = strrchr(model->path, '/');
    *out = (nibl_cli_reference){.path = path, .vocabulary = model->info.vocabulary, .window = window};
    int code = make_record(out);
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_open(path, &out->output);
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_write(&out->output, magic, sizeof magic);
    if (code == NIBL_EXIT_OK) code = write_u32(out, out->vocabulary);
    if (code == NIBL_EXIT_OK) code = write_u32(out, window);
    if (code == NIBL_EXIT_OK) code = write_u64(out, hash_vocabulary(model));
    return code == NIBL_EXIT_OK ? write_string(out, slash && slash[1] ? slash + 1 : model->path) : code;
}

int nibl_cli_reference_write_text(nibl_cli_reference *r, const char *name, uint32_t windows,
                                  const int32_t *ids) {
    int code = write_u32(r, NIBL_CLI_SECTION_TEXT);
    if (code == NIBL_EXIT_OK) code = write_string(r, name);
    if (code == NIBL_EXIT_OK) code = write_u32(r, windows);
    for (size_t i = 0; i < (size_t)windows * r->window && code == NIBL_EXIT_OK; i++)
        code = write_u32(r, (uint32_t)ids[i]);
    return code;
}

int nibl_cli_reference_write_row(nibl_cli_reference *r, const float *logits, int32_t next) {
    if (nibl_reference_pack(logits, r->vocabulary, next, r->record) < 0)
        return nibl_cli_fail_library("the reference");
    return nibl_cli_output_write(&r->output, r->record, r->record_bytes);
}

int nibl_cli_reference_write_task(nibl_cli_reference *r, const char *name, uint64_t hash, const float *scores,
                                  size_t count) {
    int code = write_u32(r, NIBL_CLI_SECTION_TASK);
    if (code == NIBL_EXIT_OK) code = write_string(r, name);
    if (code == NIBL_EXIT_OK) code = write_u64(r, hash);
    if (code == NIBL_EXIT_OK) code = write_u32(r, (uint32_t)count);
    for (size_t i = 0; i < count && code == NIBL_EXIT_OK; i++) {
        uint32_t bits;
        memcpy(&bits, &scores[i], sizeof bits);
        code = write_u32(r, bits);
    }
    return code;
}

int nibl_cli_reference_commit(nibl_cli_reference *r) {
    const int code = write_u32(r, NIBL_CLI_SECTION_END);
    return code == NIBL_EXIT_OK ? nibl_cli_output_commit(&r->output) : code;
}

void nibl_cli_reference_close(nibl_cli_reference *r) {
    if (r->stream) fclose(r->stream);
    nibl_cli_output_discard(&r->output);
    nibl_cli_text_free(&r->model);
    nibl_cli_text_free(&r->name);
    free(r->record);
    *r = (nibl_cli_reference){0};
}

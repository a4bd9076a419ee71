#define _GNU_SOURCE /* flock, fileno, fstat under -std=c11 */
#include "core/cli/resume.h"
#include "core/cli/console.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if !defined(__wasi__)
#include <sys/file.h>
#endif
#if defined(__APPLE__)
#define st_mtim st_mtimespec
#endif

static const double INTERVAL = 1 /* seconds, at least, between two states, */,
                    PART = 20; /* and of the time that one takes so many */
#define MAGIC "nibl-q1"
static const size_t LARGEST = (size_t)1 << 31;

static int fail_system(const char *path) { return nibl_cli_fail("%s: %s", path, strerror(errno)); }

/* ---- What an output is made of ---- */

/* FNV-1a. */
static uint64_t continue_hash(uint64_t hash, const void *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

/* Size and time of the files of the source. False where it is a stream. */
static bool hash_files(const nibl_cli_model *model, uint64_t *hash) {
    const char *slash = strrchr(model->path, '/'), *name;
    const bool is_folder = nibl_cli_is_folder(model->path);
    bool found = !model->sequential;
    for (uint32_t i = 0; found && (name = nibl_loader_file_name(model->loader, i)); i++) {
        nibl_cli_text file = {0};
        struct stat status = {0};
        found = (is_folder || !slash ||
                 nibl_cli_text_append(&file, model->path, (size_t)(slash - model->path))) &&
                nibl_cli_join(is_folder    ? model->path
                              : file.bytes ? file.bytes
                                           : "",
                              name, &file) &&
                (stat(file.bytes, &status) == 0 || errno == ENOENT);
        const int64_t facts[] = {(int64_t)status.st_size, (int64_t)status.st_mtim.tv_sec,
                                 (int64_t)status.st_mtim.tv_nsec};
        *hash = continue_hash(continue_hash(*hash, name, strlen(name) + 1), facts, sizeof facts);
        nibl_cli_text_free(&file);
    }
    return found;
}

/* ---- The state ---- */

typedef struct preamble {
    char magic[8];
    uint64_t key, written; /* bytes of the output */
} preamble;

/* Where there is a state that fits: *offset is what stands of the output; else that stays 0. */
static int restore(const nibl_cli_resume *r, const nibl_cli_model *model, nibl_quantizer *q, uint64_t written,
                   uint64_t *offset) {
    nibl_cli_text text = {0};
    preamble begin = {{0}, 0, 0};
    uint64_t hash;
    int code = nibl_cli_read_file(r->state.bytes, LARGEST, &text);
    const size_t least = sizeof begin + sizeof hash;
    if (code == NIBL_EXIT_OK && text.length >= least) {
        memcpy(&begin, text.bytes, sizeof begin);
        memcpy(&hash, text.bytes + text.length - sizeof hash, sizeof hash);
        if (memcmp(begin.magic, MAGIC, sizeof begin.magic) == 0 && begin.key == r->key &&
            begin.written <= written && hash == continue_hash(0, text.bytes, text.length - sizeof hash) &&
            nibl_quantizer_restore(q, model->loader, text.bytes + sizeof begin, text.length - least, offset) <
                0)
            code = nibl_cli_fail_library(r->state.bytes);
    }
    nibl_cli_text_free(&text);
    return code;
}

static bool write_state(const nibl_cli_resume *r, nibl_quantizer *q, uint64_t written, FILE *stream) {
    const preamble begin = {MAGIC, r->key, written};
    uint64_t hash = continue_hash(0, &begin, sizeof begin);
    bool whole = fwrite(&begin, sizeof begin, 1, stream) == 1;
    const void *bytes;
    size_t length;
    for (size_t piece = 0; nibl_quantizer_save(q, piece, &bytes, &length) == NIBL_OK && length > 0; piece++) {
        whole = whole && fwrite(bytes, 1, length, stream) == length;
        hash = continue_hash(hash, bytes, length);
    }
    return whole && fwrite(&hash, sizeof hash, 1, stream) == 1 && fflush(stream) == 0 &&
           fsync(fileno(stream)) == 0;
}

/* The output's bytes first: a state tells that they are there. */
int nibl_cli_resume_save(nibl_cli_resume *r, nibl_quantizer *q, nibl_cli_output *out, uint64_t written) {
    const double start = nibl_cli_seconds();
    const void *bytes;
    size_t length = 0;
    if (!r->state.bytes || start - r->saved < INTERVAL || start - r->saved < PART * r->cost)
        return NIBL_EXIT_OK;
    if (nibl_quantizer_save(q, 0, &bytes, &length) < 0) return nibl_cli_fail_library(out->path);
    if (length == 0) return NIBL_EXIT_OK;
    if (fflush(out->stream) != 0 || fsync(fileno(out->stream)) != 0) return fail_system(out->path);
    FILE *stream = fopen(r->fresh.bytes, "wb");
    bool whole = stream && write_state(r, q, written, stream);
    if (stream) whole = fclose(stream) == 0 && whole;
    if (!whole || rename(r->fresh.bytes, r->state.bytes) != 0) return fail_system(r->state.bytes);
    r->saved = nibl_cli_seconds();
    r->cost = r->saved - start;
    return NIBL_EXIT_OK;
}

void nibl_cli_resume_end(nibl_cli_resume *r) {
    if (r->state.bytes) remove(r->state.bytes);
    if (r->fresh.bytes) remove(r->fresh.bytes);
    nibl_cli_text_free(&r->state);
    nibl_cli_text_free(&r->fresh);
}

/* ---- The output ---- */

/* Where no other process can be kept away, nobody goes on. */
#if defined(__wasi__)
enum { LOCKS = 0 };
static bool lock(FILE *stream, const char *path) { return stream && path && LOCKS; }
#else
enum { LOCKS = 1 };

/* Ours alone, until this process ends, and still of that name. */
static bool lock(FILE *stream, const char *path) {
    struct stat ours, named;
    const int fd = fileno(stream);
    return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 && stat(path, &named) == 0 &&
           ours.st_ino == named.st_ino && ours.st_dev == named.st_dev && S_ISREG(ours.st_mode) &&
           ours.st_nlink == 1 && ours.st_uid == geteuid();
}
#endif

/* The file of that name, whether it is there or not; false where another process has it, or none can. */
static bool open_named(const char *path, nibl_cli_resume *r, nibl_cli_output *out) {
    char name[64];
    *out = (nibl_cli_output){.path = path};
    if (!LOCKS) return false;
    snprintf(name, sizeof name, ".%016" PRIx64 ".part", r->key);
    if (!nibl_cli_text_append(&out->temporary, path, strlen(path)) ||
        !nibl_cli_text_append(&out->temporary, name, strlen(name)))
        return false;
    const int fd = open(out->temporary.bytes, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    out->stream = fd < 0 ? NULL : fdopen(fd, "r+b");
    if (fd >= 0 && !out->stream) close(fd);
    if (out->stream && lock(out->stream, out->temporary.bytes) &&
        nibl_cli_text_append(&r->state, out->temporary.bytes, out->temporary.length) &&
        nibl_cli_text_append(&r->state, ".state", 6) &&
        nibl_cli_text_append(&r->fresh, r->state.bytes, r->state.length) &&
        nibl_cli_text_append(&r->fresh, ".new", 4))
        return true;
    if (out->stream) fclose(out->stream);
    nibl_cli_text_free(&out->temporary);
    nibl_cli_text_free(&r->state);
    return false;
}

int nibl_cli_resume_open(const char *path, const nibl_cli_model *model, nibl_quantizer *q, const void *seen,
                         size_t seen_length, nibl_cli_resume *r, nibl_cli_output *out, uint64_t *written) {
    const void *header;
    size_t length;
    struct stat status;
    nibl_quantizer_output(q, &header, &length);
    *r = (nibl_cli_resume){.saved = nibl_cli_seconds()};
    *written = 0;
    r->key = continue_hash(0xcbf29ce484222325u, NIBL_VERSION, sizeof NIBL_VERSION);
    r->key = continue_hash(continue_hash(r->key, header, length), seen, seen_length);
    const bool direct = stat(path, &status) == 0 && !S_ISREG(status.st_mode);
    int code = NIBL_EXIT_OK;
    if (direct || !hash_files(model, &r->key) || !open_named(path, r, out)) {
        code = nibl_cli_output_open(path, out);
    } else {
        if (fstat(fileno(out->stream), &status) != 0) code = fail_system(path);
        if (code == NIBL_EXIT_OK && nibl_cli_is_file(r->state.bytes))
            code = restore(r, model, q, (uint64_t)status.st_size, written);
        if (code == NIBL_EXIT_OK &&
            (ftruncate(fileno(out->stream), (off_t)*written) != 0 || fseek(out->stream, 0, SEEK_END) != 0))
            code = fail_system(path);
    }
    if (code == NIBL_EXIT_OK && *written == 0) {
        code = nibl_cli_output_write(out, header, length);
        *written = length;
    } else if (code == NIBL_EXIT_OK) {
        fprintf(stderr, "nibl: %s: goes on, %.0f %% were made already\n", path,
                100 * (double)*written / (double)nibl_quantizer_size(q));
    }
    return code;
}

#define _GNU_SOURCE /* pread, fstat under -std=c11 */
#define _FILE_OFFSET_BITS 64
#include "core/cli/file.h"
#include "core/cli/console.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };
static const double PROGRESS_INTERVAL = 0.05; /* seconds */

/* ---- Loading ---- */

typedef struct source {
    nibl_cli_model *model;
    nibl_cli_text folder; /* of the model's files, with its slash */
    int fd; /* of the file at hand */
    uint32_t file; /* its index */
    const char *quantize; /* NULL = not */
    const nibl_cli_receiver *receiver; /* NULL = a model is built */
    bool header_only, config_only, begun, show_progress;
    double start, last_progress;
    char *buffer;
} source;

static void show_progress(source *s, bool last) {
    if (!s->show_progress) return;
    double now = nibl_cli_seconds();
    if (!last && now - s->last_progress < PROGRESS_INTERVAL) return;
    s->last_progress = now;
    if (last) {
        fputs("\r\033[K", stderr);
        return;
    }
    uint64_t arrived, total;
    nibl_loader_progress(s->model->loader, &arrived, &total);
    if (total == 0) return;
    fprintf(stderr, "\r%s %3.0f %%  %.0f of %.0f MB", s->receiver ? s->receiver->doing : "loading",
            100 * (double)arrived / (double)total, (double)arrived * 1e-6, (double)total * 1e-6);
    const double left = (now - s->start) * (double)(total - arrived) / (double)arrived;
    if (now - s->start > 1 && arrived > 0) fprintf(stderr, "  %.0f s left\033[K", left);
}

static int fail_system(const char *path) { return nibl_cli_fail("%s: %s", path, strerror(errno)); }

int nibl_cli_model_begin_parts(nibl_cli_model *model) {
    const nibl_status status = model->sequential ? nibl_loader_begin(model->loader, &model->model)
                                                 : nibl_loader_begin_parts(model->loader, &model->model);
    return status < 0 || nibl_model_get_info(model->model, &model->info) < 0
               ? nibl_cli_fail_library(model->path)
               : NIBL_EXIT_OK;
}

/* The header is there. */
static int begin(source *s) {
    nibl_cli_model *m = s->model;
    s->begun = true;
    if (s->receiver) return s->receiver->begin(s->receiver->context, m);
    return nibl_loader_begin(m->loader, &m->model) < 0 ? nibl_cli_fail_library(m->path) : NIBL_EXIT_OK;
}

/* Feeds bytes that stand at `address`; begins as soon as the header is there. *done: nothing more is wanted. */
static int feed(source *s, uint64_t address, size_t length, bool *done) {
    nibl_cli_model *m = s->model;
    nibl_status status = nibl_loader_feed(m->loader, address, s->buffer, length);
    if (status < 0) return nibl_cli_fail_library(m->path);
    if (!s->begun && nibl_loader_header_ready(m->loader)) {
        if (s->header_only) {
            *done = true;
            return NIBL_EXIT_OK;
        }
        int code = begin(s);
        if (code != NIBL_EXIT_OK) return code;
        /* What followed the header in these bytes has not been taken yet. */
        status = nibl_loader_feed(m->loader, address, s->buffer, length);
        if (status < 0) return nibl_cli_fail_library(m->path);
    }
    *done = s->begun && status == NIBL_OK;
    if (s->begun && s->receiver) {
        int code = s->receiver->fed(s->receiver->context);
        if (code != NIBL_EXIT_OK) return code;
    }
    show_progress(s, false);
    if (nibl_cli_interrupted()) return nibl_cli_fail("interrupted while loading %s", m->path);
    return NIBL_EXIT_OK;
}

/* The file at hand is over at `size`, but the loader wants more. */
static int fail_end(source *s, uint64_t size) {
    if (nibl_loader_end(s->model->loader, NIBL_ADDRESS(s->file, size)) < 0)
        return nibl_cli_fail_library(s->model->path);
    return nibl_cli_fail("%s: the file ends at byte %" PRIu64 ", before the model is complete",
                         s->model->path, size);
}

/* Makes another file of the model the one at hand and tells the loader its size: 0 where there is none. */
static int open_sibling(source *s, uint32_t file) {
    nibl_cli_model *m = s->model;
    const char *name = nibl_loader_file_name(m->loader, file);
    nibl_cli_text path = {0};
    if (!nibl_cli_text_append(&path, s->folder.bytes ? s->folder.bytes : "", s->folder.length) ||
        !nibl_cli_text_append(&path, name, strlen(name)))
        return NIBL_EXIT_FAILED;
    if (s->fd >= 0) close(s->fd);
    s->file = file;
    s->fd = open(path.bytes, O_RDONLY | O_CLOEXEC);
    struct stat status = {0};
    int code = NIBL_EXIT_OK;
    if (s->fd < 0 ? errno != ENOENT : fstat(s->fd, &status) != 0)
        code = fail_system(path.bytes);
    else if (nibl_loader_end(m->loader, NIBL_ADDRESS(file, (uint64_t)status.st_size)) < 0)
        code = nibl_cli_fail_library(m->path);
    nibl_cli_text_free(&path);
    return code;
}

static int load_ranges(source *s) {
    for (bool done = false; !done || s->receiver;) { /* a receiver may want bytes once more */
        uint64_t address, wanted;
        if (nibl_loader_want(s->model->loader, &address, &wanted) < 0)
            return nibl_cli_fail_library(s->model->path);
        if (wanted == 0) return s->begun ? NIBL_EXIT_OK : fail_end(s, s->model->file_size);
        if (NIBL_ADDRESS_FILE(address) != s->file) {
            int code = open_sibling(s, NIBL_ADDRESS_FILE(address));
            if (code != NIBL_EXIT_OK) return code;
            continue;
        }
        const uint64_t offset = NIBL_ADDRESS_OFFSET(address);
        ssize_t got = pread(s->fd, s->buffer, wanted < BUFFER ? (size_t)wanted : BUFFER, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_system(s->model->path);
        if (got == 0) return fail_end(s, offset);
        int code = feed(s, address, (size_t)got, &done);
        if (code != NIBL_EXIT_OK) return code;
    }
    return NIBL_EXIT_OK;
}

static int load_stream(source *s) {
    uint64_t offset = 0;
    for (bool done = false; !done;) {
        ssize_t got = nibl_cli_read(s->fd, s->buffer, BUFFER);
        if (got < 0) return fail_system(s->model->path);
        if (got == 0)
            return offset == 0 ? nibl_cli_fail("%s: no bytes came", s->model->path) : fail_end(s, offset);
        int code = feed(s, offset, (size_t)got, &done);
        if (code != NIBL_EXIT_OK) return code;
        offset += (uint64_t)got;
    }
    return NIBL_EXIT_OK;
}

static int new_loader(source *s, const char *name) {
    nibl_cli_model *m = s->model;
    if (nibl_loader_new(m->file_size, &m->loader) < 0 || nibl_loader_set_name(m->loader, name) < 0 ||
        (s->quantize && nibl_loader_set_quantize(m->loader, s->quantize) < 0) ||
        (s->config_only && nibl_loader_set_config_only(m->loader) < 0))
        return nibl_cli_fail_library(m->path);
    return NIBL_EXIT_OK;
}

/* A Hugging Face folder: its config.json is the first file. */
static int load_folder(source *s) {
    static const char first[] = "config.json";
    nibl_cli_model *m = s->model;
    const size_t length = strlen(m->path);
    if (!nibl_cli_text_append(&s->folder, m->path, length)) return NIBL_EXIT_FAILED;
    if (m->path[length - 1] != '/' && !nibl_cli_text_append(&s->folder, "/", 1)) return NIBL_EXIT_FAILED;
    int code = new_loader(s, first);
    if (code == NIBL_EXIT_OK) code = open_sibling(s, 0);
    return code == NIBL_EXIT_OK ? load_ranges(s) : code;
}

static int load_source(source *s) {
    nibl_cli_model *m = s->model;
    struct stat status;
    if (fstat(s->fd, &status) != 0) return fail_system(m->path);
    if (S_ISDIR(status.st_mode)) return load_folder(s);
    bool ranges = S_ISREG(status.st_mode) && s->fd != STDIN_FILENO;
    m->sequential = !ranges;
    if (ranges) m->file_size = (uint64_t)status.st_size;
    if (ranges && m->file_size == 0) return nibl_cli_fail("%s: the file is empty", m->path);
    const char *slash = strrchr(m->path, '/'), *name = slash ? slash + 1 : m->path;
    if (!nibl_cli_text_append(&s->folder, m->path, (size_t)(name - m->path))) return NIBL_EXIT_FAILED;
    int code = new_loader(s, ranges ? name : "");
    if (code != NIBL_EXIT_OK) return code;
    return ranges ? load_ranges(s) : load_stream(s);
}

/* Reads from `path` what `s` is for. */
static int read_source(source *s, const char *path) {
    nibl_cli_model *m = s->model;
    bool is_stdin = strcmp(path, "-") == 0;
    *m = (nibl_cli_model){.path = is_stdin ? "standard input" : path, .info.size = sizeof m->info};
    s->start = nibl_cli_seconds();
    s->show_progress =
        !s->header_only && (!s->receiver || s->receiver->doing) && nibl_cli_stderr_is_terminal();
    s->fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0) return fail_system(path);
    s->buffer = malloc(BUFFER);
    int code = s->buffer ? load_source(s) : nibl_cli_fail("out of memory");
    show_progress(s, true);
    free(s->buffer);
    nibl_cli_text_free(&s->folder);
    if (!is_stdin && s->fd >= 0) close(s->fd);
    m->seconds = nibl_cli_seconds() - s->start;
    return code;
}

int nibl_cli_model_open(const char *path, const char *quantize, bool header_only, nibl_cli_model *out) {
    source s = {.model = out, .quantize = quantize, .header_only = header_only};
    int code = read_source(&s, path);
    if (code == NIBL_EXIT_OK && !header_only && nibl_model_get_info(out->model, &out->info) < 0)
        code = nibl_cli_fail_library(out->path);
    return code;
}

int nibl_cli_header_open(const char *path, nibl_cli_model *out) {
    static const char *const files[] = {"config.json", "model.safetensors", "model.safetensors.index.json"};
    bool present[3] = {false};
    nibl_cli_text file = {0};
    for (size_t i = 0; i < 3; i++) {
        struct stat status;
        file.length = 0;
        present[i] = nibl_cli_join(path, files[i], &file) && stat(file.bytes, &status) == 0;
    }
    nibl_cli_text_free(&file);
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    source s = {.model = out, .header_only = true};
    s.config_only = strcmp(name, files[0]) == 0 || (present[0] && !present[1] && !present[2]);
    return read_source(&s, path);
}

int nibl_cli_model_read(const char *path, const nibl_cli_receiver *receiver, nibl_cli_model *out) {
    source s = {.model = out, .receiver = receiver};
    return read_source(&s, path);
}

void nibl_cli_model_close(nibl_cli_model *model) {
    nibl_loader_free(model->loader);
    nibl_model_free(model->model);
    *model = (nibl_cli_model){0};
}

/* ---- Whole files ---- */

int nibl_cli_read_file(const char *path, size_t limit, nibl_cli_text *out) {
    bool is_stdin = strcmp(path, "-") == 0;
    const char *shown = is_stdin ? "standard input" : path;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_system(path);
    int code = NIBL_EXIT_OK;
    for (size_t taken = 0; code == NIBL_EXIT_OK;) {
        if (taken > limit) {
            code = nibl_cli_fail("%s: more than %zu bytes, the limit here", shown, limit);
            break;
        }
        if (!nibl_cli_text_reserve(out, out->length + 65536)) {
            code = NIBL_EXIT_FAILED;
            break;
        }
        ssize_t got = nibl_cli_read(fd, out->bytes + out->length, 65536);
        if (got < 0) code = fail_system(shown);
        if (got <= 0) break;
        out->length += (size_t)got;
        taken += (size_t)got;
        out->bytes[out->length] = '\0';
    }
    if (!is_stdin) close(fd);
    return code;
}

/* ---- Folders ---- */

bool nibl_cli_join(const char *folder, const char *name, nibl_cli_text *out) {
    const size_t length = strlen(folder);
    return nibl_cli_text_append(out, folder, length) &&
           (length == 0 || folder[length - 1] == '/' || nibl_cli_text_append(out, "/", 1)) &&
           nibl_cli_text_append(out, name, strlen(name));
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool add_name(nibl_cli_names *names, const char *name) {
    if (names->count == names->capacity) {
        const size_t capacity = names->capacity ? 2 * names->capacity : 32;
        char **items = realloc(names->items, capacity * sizeof *items);
        if (!items) return false;
        names->items = items;
        names->capacity = capacity;
    }
    char *copy = malloc(strlen(name) + 1);
    if (!copy) return false;
    names->items[names->count++] = strcpy(copy, name);
    return true;
}

int nibl_cli_list_folder(const char *path, nibl_cli_names *out) {
    DIR *folder = opendir(path);
    if (!folder) return fail_system(path);
    int code = NIBL_EXIT_OK;
    for (struct dirent *entry; code == NIBL_EXIT_OK && (entry = readdir(folder));) {
        nibl_cli_text whole = {0};
        struct stat status;
        if (entry->d_name[0] == '.') continue;
        if (!nibl_cli_join(path, entry->d_name, &whole))
            code = NIBL_EXIT_FAILED;
        else if (stat(whole.bytes, &status) == 0 && S_ISREG(status.st_mode) && !add_name(out, entry->d_name))
            code = nibl_cli_fail("out of memory");
        nibl_cli_text_free(&whole);
    }
    closedir(folder);
    if (code == NIBL_EXIT_OK && out->count == 0)
        code = nibl_cli_fail("%s: there are no files in this folder", path);
    if (out->count > 0) qsort(out->items, out->count, sizeof *out->items, compare_names);
    return code;
}

void nibl_cli_names_free(nibl_cli_names *names) {
    for (size_t i = 0; i < names->count; i++) free(names->items[i]);
    free(names->items);
    *names = (nibl_cli_names){0};
}

/* ---- Output files ---- */

int nibl_cli_output_open(const char *path, nibl_cli_output *out) {
    *out = (nibl_cli_output){.path = path};
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        out->stream = fopen(path, "wb");
        return out->stream ? NIBL_EXIT_OK : fail_system(path);
    }
    char suffix[32];
    snprintf(suffix, sizeof suffix, ".%016" PRIx64 ".part", nibl_cli_random());
    if (!nibl_cli_text_append(&out->temporary, path, strlen(path)) ||
        !nibl_cli_text_append(&out->temporary, suffix, strlen(suffix)))
        return NIBL_EXIT_FAILED;
    out->stream = fopen(out->temporary.bytes, "wbx");
    if (out->stream) return NIBL_EXIT_OK;
    int code = fail_system(path);
    nibl_cli_text_free(&out->temporary);
    return code;
}

int nibl_cli_output_write(nibl_cli_output *output, const void *bytes, size_t length) {
    if (fwrite(bytes, 1, length, output->stream) == length) return NIBL_EXIT_OK;
    return fail_system(output->path);
}

int nibl_cli_output_commit(nibl_cli_output *output) {
    FILE *stream = output->stream;
    output->stream = NULL;
    int code = fclose(stream) == 0 ? NIBL_EXIT_OK : fail_system(output->path);
    if (code == NIBL_EXIT_OK && output->temporary.bytes) {
        if (rename(output->temporary.bytes, output->path) == 0)
            nibl_cli_text_free(&output->temporary);
        else
            code = fail_system(output->path);
    }
    nibl_cli_output_discard(output);
    return code;
}

void nibl_cli_output_discard(nibl_cli_output *output) {
    if (output->stream) fclose(output->stream);
    if (output->temporary.bytes) remove(output->temporary.bytes);
    nibl_cli_text_free(&output->temporary);
    output->stream = NULL;
}

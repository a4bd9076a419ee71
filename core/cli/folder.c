#include "core/cli/console.h"
#include "core/cli/file.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail_system(const char *path) { return nibl_cli_fail("%s: %s", path, strerror(errno)); }

bool nibl_cli_is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool nibl_cli_is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

static bool is_empty(const char *path) {
    DIR *folder = opendir(path);
    int entries = 0;
    while (folder && entries < 3 && readdir(folder)) entries++; /* "." and ".." are two */
    if (folder) closedir(folder);
    return entries < 3;
}

int nibl_cli_folder_open(const char *path, nibl_cli_folder *out) {
    *out = (nibl_cli_folder){.path = path};
    size_t length = strlen(path);
    struct stat status;
    while (length > 1 && path[length - 1] == '/') length--;
    if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode))
        return nibl_cli_fail("%s: exists and is no folder", path);
    if (stat(path, &status) == 0 && !is_empty(path))
        return nibl_cli_fail("%s: the folder exists and is not empty", path);
    char suffix[32];
    snprintf(suffix, sizeof suffix, ".%016" PRIx64 ".part", nibl_cli_random());
    if (!nibl_cli_text_append(&out->temporary, path, length) ||
        !nibl_cli_text_append(&out->temporary, suffix, strlen(suffix)))
        return NIBL_EXIT_FAILED;
    if (mkdir(out->temporary.bytes, 0777) == 0) return NIBL_EXIT_OK;
    const int code = fail_system(path);
    nibl_cli_text_free(&out->temporary);
    return code;
}

static bool path_in(const char *folder, const char *name, nibl_cli_text *out) {
    out->length = 0;
    return nibl_cli_text_append(out, folder, strlen(folder)) && nibl_cli_text_append(out, "/", 1) &&
           nibl_cli_text_append(out, name, strlen(name));
}

static int close_file(nibl_cli_folder *f) {
    FILE *stream = f->stream;
    f->stream = NULL;
    return !stream || fclose(stream) == 0 ? NIBL_EXIT_OK : fail_system(f->path);
}

static const char *last_name(const nibl_cli_folder *f) {
    size_t at = f->names.length;
    if (at == 0) return "";
    for (at--; at > 0 && f->names.bytes[at - 1];) at--;
    return f->names.bytes + at;
}

int nibl_cli_folder_write(nibl_cli_folder *f, const char *name, const void *bytes, size_t length) {
    if (!f->stream || strcmp(last_name(f), name) != 0) {
        nibl_cli_text path = {0};
        int code = close_file(f);
        if (code != NIBL_EXIT_OK) return code;
        if (!path_in(f->temporary.bytes, name, &path) ||
            !nibl_cli_text_append(&f->names, name, strlen(name) + 1))
            return NIBL_EXIT_FAILED;
        f->stream = fopen(path.bytes, "wbx");
        code = f->stream ? NIBL_EXIT_OK : fail_system(path.bytes);
        nibl_cli_text_free(&path);
        if (code != NIBL_EXIT_OK) return code;
    }
    return fwrite(bytes, 1, length, f->stream) == length ? NIBL_EXIT_OK : fail_system(f->path);
}

int nibl_cli_folder_copy(nibl_cli_folder *f, const char *from, const char *name, size_t limit) {
    nibl_cli_text path = {0}, text = {0};
    struct stat status;
    int code = path_in(from, name, &path) ? NIBL_EXIT_OK : NIBL_EXIT_FAILED;
    if (code == NIBL_EXIT_OK && stat(path.bytes, &status) == 0) {
        code = nibl_cli_read_file(path.bytes, limit, &text);
        if (code == NIBL_EXIT_OK) code = nibl_cli_folder_write(f, name, text.bytes, text.length);
    }
    nibl_cli_text_free(&path);
    nibl_cli_text_free(&text);
    return code;
}

int nibl_cli_folder_commit(nibl_cli_folder *f) {
    int code = close_file(f);
    if (code == NIBL_EXIT_OK && rename(f->temporary.bytes, f->path) != 0) code = fail_system(f->path);
    if (code == NIBL_EXIT_OK) nibl_cli_text_free(&f->temporary);
    nibl_cli_folder_discard(f);
    return code;
}

void nibl_cli_folder_discard(nibl_cli_folder *f) {
    nibl_cli_text path = {0};
    if (f->stream) fclose(f->stream);
    f->stream = NULL;
    for (size_t at = 0; f->temporary.bytes && at < f->names.length; at += strlen(f->names.bytes + at) + 1)
        if (path_in(f->temporary.bytes, f->names.bytes + at, &path)) remove(path.bytes);
    if (f->temporary.bytes) rmdir(f->temporary.bytes);
    nibl_cli_text_free(&path);
    nibl_cli_text_free(&f->temporary);
    nibl_cli_text_free(&f->names);
}

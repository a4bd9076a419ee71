#include "core/cli/prompt_cache.h"
#include "core/cli/file.h"

#include <errno.h>
#include <string.h>

enum { PART = 1 << 16 };

int nibl_cli_prompt_cache_load(const char *path, nibl_session *session) {
    FILE *file = fopen(path, "rb");
    if (!file) return errno == ENOENT ? NIBL_EXIT_OK : nibl_cli_fail("%s: %s", path, strerror(errno));
    char part[PART];
    nibl_status status = NIBL_NEED_DATA;
    for (bool begin = true; status == NIBL_NEED_DATA; begin = false) {
        const size_t got = fread(part, 1, sizeof part, file);
        if (got == 0) break;
        status = nibl_session_restore(session, part, got, begin);
    }
    const bool failed = ferror(file);
    fclose(file);
    if (failed) return nibl_cli_fail("%s: could not be read", path);
    if (status == NIBL_OK) return NIBL_EXIT_OK;
    if (status == NIBL_NEED_DATA) nibl_cli_fail("%s: the saved prompt ends too early", path);
    if (status < 0) nibl_cli_fail_library(path);
    return nibl_cli_fail("remove %s, or name another --prompt-cache", path);
}

int nibl_cli_prompt_cache_save(const char *path, nibl_session *session) {
    nibl_cli_output output;
    int code = nibl_cli_output_open(path, &output);
    if (code != NIBL_EXIT_OK) return code;
    for (size_t piece = 0; code == NIBL_EXIT_OK; piece++) {
        const void *bytes;
        size_t length;
        if (nibl_session_save(session, piece, &bytes, &length) < 0)
            code = nibl_cli_fail_library(path);
        else if (length == 0)
            return nibl_cli_output_commit(&output);
        else
            code = nibl_cli_output_write(&output, bytes, length);
    }
    nibl_cli_output_discard(&output);
    return code;
}

#include "core/cli/calibration.h"

#include "core/cli/embedded.h"

#include <string.h>

enum { MAX_TEXT = 64 << 20, WINDOW = 512 };

/* The text that the command carries. */
static int own_text(nibl_cli_text *out) {
    const nibl_cli_embedded *file = nibl_cli_embedded_files;
    while (strcmp(file->name, NIBL_CLI_CALIBRATION) != 0) file++;
    const char *begin = memchr(file->bytes, '`', file->length);
    const size_t rest = file->length - (size_t)(begin + 1 - file->bytes);
    const char *end = memchr(begin + 1, '`', rest);
    return nibl_cli_text_append(out, begin + 1, (size_t)(end - begin - 1)) ? NIBL_EXIT_OK : NIBL_EXIT_FAILED;
}

int nibl_cli_calibration_read(const nibl_cli_model *model, const char *path, size_t most,
                              nibl_cli_tokens *tokens) {
    nibl_cli_text text = {0};
    size_t count = 0;
    const bool own = strcmp(path, NIBL_CLI_OWN_TEXT) == 0;
    int code = own ? own_text(&text) : nibl_cli_read_file(path, MAX_TEXT, &text);
    if (code == NIBL_EXIT_OK && !nibl_cli_tokens_reserve(tokens, 3 * text.length + 2))
        code = NIBL_EXIT_FAILED;
    if (code == NIBL_EXIT_OK &&
        nibl_tokenize(model->model, text.bytes, text.length, 0, tokens->ids, tokens->capacity, &count) < 0)
        code = nibl_cli_fail_library(path);
    nibl_cli_text_free(&text);
    tokens->count = count < most ? count : most;
    if (code == NIBL_EXIT_OK && count == 0)
        code = nibl_cli_fail("%s: there is no text to calibrate with", path);
    if (code == NIBL_EXIT_OK && own)
        fprintf(stderr, "nibl: calibrated with a small text of the command's own, most of it English prose: "
                        "a text like those the model will see is better\n");
    else if (code == NIBL_EXIT_OK && tokens->count < most)
        fprintf(stderr, "nibl: %s: only %zu tokens\n", path, tokens->count);
    return code;
}

uint32_t nibl_cli_calibration_window(const nibl_cli_model *model) {
    return model->info.context_length < WINDOW ? model->info.context_length : WINDOW;
}

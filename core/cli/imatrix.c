#include "core/cli/calibration.h"
#include "core/cli/console.h"
#include "core/cli/session.h"

typedef struct imatrix_options {
    nibl_cli_settings settings; /* threads */
    const char *output, *text;
    int64_t tokens;
} imatrix_options;

static const imatrix_options defaults = {.text = NIBL_CLI_OWN_TEXT, .tokens = 8192};

#define FIELD(member) offsetof(imatrix_options, member)
static const nibl_cli_option table[] = {
    {"-o, --output", NIBL_CLI_TEXT, FIELD(output), "OUT", 0, 0, NULL, "the file to be made"},
    {"-f, --file", NIBL_CLI_TEXT, FIELD(text), "FILE", 0, 0, NIBL_CLI_OWN_TEXT,
     "a text like those the model will see"},
    {"--tokens", NIBL_CLI_INTEGER, FIELD(tokens), "N", 1, 1 << 20, NULL, "tokens of it, in windows of 512"},
    {"-t, --threads", NIBL_CLI_INTEGER, FIELD(settings.threads), "N", 0, NIBL_MAX_THREADS,
     "one per physical core, at most 8", "threads; the result does not depend on them"},
};

typedef struct job {
    const imatrix_options *given;
    nibl_cli_model *model;
    nibl_imatrix *imatrix;
    bool complete;
} job;

/* As many layers as the weights that are there allow. */
static int step(void *context) {
    job *j = context;
    for (nibl_status status = NIBL_MORE; status == NIBL_MORE;) {
        double done;
        status = nibl_imatrix_step(j->imatrix, &done);
        if (status < 0) return nibl_cli_fail_library(j->model->path);
        if (nibl_cli_interrupted()) return nibl_cli_fail("interrupted");
        if (nibl_cli_stderr_is_terminal()) fprintf(stderr, "\rmeasuring %3.0f %%\033[K", 100 * done);
        j->complete = status == NIBL_OK;
    }
    return NIBL_EXIT_OK;
}

static int begin(void *context, nibl_cli_model *model) {
    job *j = context;
    nibl_cli_tokens tokens = {0};
    j->model = model;
    if (nibl_cli_model_begin_parts(model) != NIBL_EXIT_OK) return NIBL_EXIT_FAILED;
    int code = nibl_cli_calibration_read(model, j->given->text, (size_t)j->given->tokens, &tokens);
    if (code == NIBL_EXIT_OK &&
        nibl_imatrix_new(model->model, tokens.ids, tokens.count, nibl_cli_calibration_window(model),
                         j->given->text, nibl_cli_threads(&j->given->settings), &j->imatrix) < 0)
        code = nibl_cli_fail_library(model->path);
    nibl_cli_tokens_free(&tokens);
    return code == NIBL_EXIT_OK ? step(j) : code;
}

static int write_file(const job *j) {
    nibl_cli_output output = {0};
    const void *bytes;
    size_t length;
    nibl_imatrix_bytes(j->imatrix, &bytes, &length);
    int code = nibl_cli_output_open(j->given->output, &output);
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_write(&output, bytes, length);
    if (code == NIBL_EXIT_OK) code = nibl_cli_output_commit(&output);
    nibl_cli_output_discard(&output);
    if (code == NIBL_EXIT_OK) printf("%s: %zu bytes, %.1f s\n", j->given->output, length, j->model->seconds);
    return code;
}

static int imatrix(const char *path, const void *given) {
    job j = {.given = given};
    nibl_cli_model model = {0};
    const nibl_cli_receiver receiver = {NULL, begin, step, &j};
    if (!j.given->output)
        return nibl_cli_fail_usage(nibl_cli_imatrix.name, "OUT is missing: the path of the file to be made");
    int code = nibl_cli_model_read(path, &receiver, &model);
    if (nibl_cli_stderr_is_terminal()) fputs("\r\033[K", stderr);
    if (code == NIBL_EXIT_OK && !j.complete) code = nibl_cli_fail("%s: weights are missing", path);
    if (code == NIBL_EXIT_OK) code = write_file(&j);
    nibl_imatrix_free(j.imatrix);
    nibl_cli_model_close(&model);
    return code;
}

const nibl_cli_verb nibl_cli_imatrix = {
    .name = "imatrix",
    .arguments = "MODEL OUT [FILE] [options]",
    .summary = "Collects what a text makes of the inputs of every matrix, for quantize --imatrix.",
    .details =
        "\n"
        "OUT is a GGUF file as llama-imatrix makes it, and llama-quantize reads it, too:\n"
        "    nibl imatrix MODEL -f TEXT -o OUT && nibl quantize MODEL SMALL q4_0 --imatrix OUT\n"
        "One file serves any number of quantized ones; those of the matrices' own methods are the same as\n"
        "with the text.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .places = "--output --file",
    .run = imatrix,
};

#include "core/cli/calibration.h"
#include "core/cli/console.h"
#include "core/cli/json.h"
#include "core/cli/recipe.h"
#include "core/cli/resume.h"
#include "core/cli/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct quantize_options {
    nibl_cli_settings settings; /* threads */
    const char *output, *type, *embedding, *head, *method, *calibration, *recipe, *report, *size, *types,
        *format, *imatrix;
    double bits; /* per weight */
    int64_t calibration_tokens, shard_size;
    nibl_cli_texts tensors; /* PATTERN=TYPE */
    bool requantize, force, json;
} quantize_options;

enum { MAX_DOCUMENT = 256 << 20, MAX_IMATRIX = 0x7fffffff };

static const quantize_options defaults = {.calibration_tokens = 8192};

#define FIELD(member) offsetof(quantize_options, member)
static const nibl_cli_option table[] = {
    {"-o, --output", NIBL_CLI_TEXT, FIELD(output), "OUT", 0, 0, NULL,
     "the GGUF file, or the folder, to be made"},
    {"--type", NIBL_CLI_TEXT, FIELD(type), "TYPE", 0, 0, "q4_0",
     "type of matrices: any that GGUF has, q4_k, mxfp4, f16, ...; or integers like w4g64asym (below)"},
    {"--as", NIBL_CLI_TEXT, FIELD(format), "gguf|safetensors", 0, 0, "as TYPE demands",
     "the format of what comes out"},
    {"--shard-size", NIBL_CLI_INTEGER, FIELD(shard_size), "MB", 1, 1 << 20, "5000",
     "of a folder: at most so much in a file of weights"},
    {"--embedding, --token-embedding-type", NIBL_CLI_TEXT, FIELD(embedding), "TYPE", 0, 0, "q8_0",
     "type of the embedding"},
    {"--head, --output-tensor-type", NIBL_CLI_TEXT, FIELD(head), "TYPE", 0, 0, "q8_0",
     "type of the head; of both where they are one tensor"},
    {"--tensor, --tensor-type", NIBL_CLI_TEXTS, FIELD(tensors), "PATTERN=TYPE", 0, 0, NULL,
     "another type for some, as '*.ffn_down.weight=q6_k'; the first that fits counts"},
    {"--method", NIBL_CLI_TEXT, FIELD(method), "LIST", 0, 0, "rtn",
     "of rtn (each type's rule), clip (the scales that lose least), recover (the grid that weights lie on "
     "already), "
     "rotate (turned first), and with a text imatrix, awq, gptq: awq,gptq; best: that, of iq4_nl where no "
     "TYPE is told, which lost least"},
    {"--recipe", NIBL_CLI_TEXT, FIELD(recipe), "FILE", 0, 0, NULL,
     "types, exceptions and methods from a file: the JSON that quantized files carry (nibl.recipe), or a "
     "report"},
    {"--report", NIBL_CLI_TEXT, FIELD(report), "FILE", 0, 0, NULL,
     "writes what became of every tensor, and what rounding lost, as JSON; `npx nibl report` makes a page of "
     "it"},
    {"--calibration", NIBL_CLI_TEXT, FIELD(calibration), "FILE", 0, 0, NIBL_CLI_OWN_TEXT,
     "a text like those the model will see, for the methods that look at activations"},
    {"--calibration-tokens", NIBL_CLI_INTEGER, FIELD(calibration_tokens), "N", 1, 1 << 20, NULL,
     "tokens of it, in windows of 512"},
    {"--imatrix", NIBL_CLI_TEXT, FIELD(imatrix), "FILE", 0, 0, NULL,
     "in place of a text a file of `nibl imatrix` or llama-imatrix, for methods imatrix (then the default) "
     "and "
     "clip"},
    {"--size", NIBL_CLI_TEXT, FIELD(size), "75MB", 0, 0, NULL,
     "mixed precision: the types with which a file of this size loses least, measured on the text"},
    {"--bpw", NIBL_CLI_REAL, FIELD(bits), "N", 1, 16, NULL,
     "the same by bits per weight, all tensors counted"},
    {"--types", NIBL_CLI_TEXT, FIELD(types), "LIST", 0, 0, "all of 2 to 8 bits",
     "the types to choose from, as q3_k,q4_0,q5_0,q8_0"},
    {"--allow-requantize", NIBL_CLI_FLAG, FIELD(requantize), NULL, 0, 0, NULL,
     "the source may be quantized already: its loss stays, and another is added"},
    {"--force", NIBL_CLI_FLAG, FIELD(force), NULL, 0, 0, NULL,
     "tq1_0 and tq2_0 also of a model that was not trained to be ternary, which destroys it"},
    {"-t, --threads", NIBL_CLI_INTEGER, FIELD(settings.threads), "N", 0, NIBL_MAX_THREADS,
     "one per physical core, at most 8", "threads; the result does not depend on them"},
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL,
     "what became of every tensor, as one JSON object"},
};

typedef struct job {
    const char *path;
    nibl_quantize_options options;
    nibl_quantizer *quantizer;
    nibl_cli_output output;
    nibl_cli_resume resume; /* of it */
    nibl_cli_folder folder; /* or this */
    nibl_cli_text config; /* of a source that is a folder */
    nibl_cli_text imatrix; /* the file's bytes */
    uint64_t written;
    const quantize_options *given;
    nibl_allotment *allotment; /* of mixed precision */
    nibl_cli_model *model; /* of what is quantized layer by layer */
    double start;
} job;

/* Takes what came out. */
static int write_output(job *j) {
    const void *bytes;
    size_t length;
    nibl_quantizer_output(j->quantizer, &bytes, &length);
    j->written += length;
    const char *file = nibl_quantizer_file(j->quantizer);
    if (length == 0) return NIBL_EXIT_OK;
    if (file) return nibl_cli_folder_write(&j->folder, file, bytes, length);
    const int code = nibl_cli_output_write(&j->output, bytes, length);
    return code == NIBL_EXIT_OK ? nibl_cli_resume_save(&j->resume, j->quantizer, &j->output, j->written)
                                : code;
}

static int open_output(job *j, const nibl_cli_model *model, const nibl_cli_tokens *tokens) {
    if (nibl_quantizer_file(j->quantizer)) return nibl_cli_folder_open(j->path, &j->folder);
    const void *seen = j->imatrix.bytes ? (const void *)j->imatrix.bytes : tokens->ids;
    const size_t length = j->imatrix.bytes ? j->imatrix.length : tokens->count * sizeof *tokens->ids;
    return nibl_cli_resume_open(j->path, model, j->quantizer, seen, length, &j->resume, &j->output,
                                &j->written);
}

/* ---- Layer by layer, with a calibration text or for types that need it ---- */

/* Files that a folder has besides config.json and its weights. */
static int copy_documents(job *j, const char *path) {
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "generation_config.json",
                                        "chat_template.jinja",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "tokenizer.model",
                                        "vocab.json",
                                        "merges.txt"};
    int code = NIBL_EXIT_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && code == NIBL_EXIT_OK; i++)
        code = nibl_cli_folder_copy(&j->folder, path, names[i], MAX_DOCUMENT);
    return code;
}

/* The text of config.json, where the source is a folder. */
static int read_config(const char *path, job *j) {
    nibl_cli_text name = {0};
    int code = NIBL_EXIT_OK;
    if (!nibl_cli_is_folder(path)) return code;
    if (!nibl_cli_text_append(&name, path, strlen(path)) || !nibl_cli_text_append(&name, "/config.json", 12))
        code = NIBL_EXIT_FAILED;
    if (code == NIBL_EXIT_OK) code = nibl_cli_read_file(name.bytes, MAX_DOCUMENT, &j->config);
    nibl_cli_text_free(&name);
    j->options.config = j->config.bytes;
    return code;
}

static void show_steps(const job *j) {
    const double done = (double)j->written / (double)nibl_quantizer_size(j->quantizer),
                 left = (nibl_cli_seconds() - j->start) * (1 - done) / done;
    if (nibl_cli_stderr_is_terminal() && done > 0)
        fprintf(stderr, "\rquantizing %3.0f %%  %.0f s left\033[K", 100 * done, left);
}

/* ---- Mixed precision ---- */

static int measure_tensors(const nibl_cli_model *model, nibl_allotment *allotment) {
    int code = NIBL_EXIT_OK;
    for (nibl_status status = NIBL_MORE; code == NIBL_EXIT_OK && status == NIBL_MORE;) {
        double done;
        status = nibl_allotment_step(allotment, &done);
        if (status < 0)
            code = nibl_cli_fail_library(model->path);
        else if (nibl_cli_interrupted())
            code = nibl_cli_fail("interrupted");
        else if (nibl_cli_stderr_is_terminal())
            fprintf(stderr, "\rmeasuring %3.0f %%\033[K", 100 * done);
    }
    return code;
}

/* Types for so many bytes of the whole file: its header depends on them. */
static int choose_types(const nibl_cli_model *model, job *j, const nibl_cli_tokens *tokens, uint32_t window) {
    const quantize_options *o = j->given;
    uint64_t size = (uint64_t)(o->bits / 8 * (double)model->info.parameters);
    if (o->size && !nibl_cli_parse_size(o->size, &size))
        return nibl_cli_fail_usage(nibl_cli_quantize.name, "--size must be a size as 75MB or 800MiB");
    for (uint64_t left = size;;) {
        if (nibl_allotment_choose(j->allotment, left, &j->options.tensors, &j->options.tensor_count) < 0 ||
            nibl_model_quantizer_new(model->model, &j->options, tokens->ids, tokens->count, window,
                                     &j->quantizer) < 0)
            return nibl_cli_fail_library(model->path);
        const uint64_t whole = nibl_quantizer_size(j->quantizer);
        if (!o->size || whole <= size) return NIBL_EXIT_OK;
        nibl_quantizer_free(j->quantizer);
        j->quantizer = NULL;
        left = left > whole - size ? left - (whole - size) : 0;
    }
}

static bool is_mixed(const quantize_options *o) { return o->size || o->bits > 0; }

/* The model is there, its weights need not be: makes the quantizer and opens the output. */
static int begin_model(job *j) {
    const nibl_cli_model *model = j->model;
    const quantize_options *o = j->given;
    nibl_cli_tokens tokens = {0};
    int code = o->calibration
                   ? nibl_cli_calibration_read(model, o->calibration, (size_t)o->calibration_tokens, &tokens)
                   : NIBL_EXIT_OK;
    const uint32_t window = nibl_cli_calibration_window(model);
    if (code == NIBL_EXIT_OK &&
        (is_mixed(o) ? nibl_allotment_new(model->model, &j->options, o->types, tokens.ids, tokens.count,
                                          window, &j->allotment)
                     : nibl_model_quantizer_new(model->model, &j->options, tokens.ids, tokens.count, window,
                                                &j->quantizer)) < 0)
        code = nibl_cli_fail_library(model->path);
    if (code == NIBL_EXIT_OK && is_mixed(o)) code = measure_tensors(model, j->allotment);
    if (code == NIBL_EXIT_OK && is_mixed(o)) code = choose_types(model, j, &tokens, window);
    if (code == NIBL_EXIT_OK) code = open_output(j, model, &tokens);
    nibl_cli_tokens_free(&tokens);
    return code;
}

/* As many steps as the weights that are there allow. */
static int step_model(void *context) {
    job *j = context;
    int code = NIBL_EXIT_OK;
    for (nibl_status status = NIBL_MORE; code == NIBL_EXIT_OK && status == NIBL_MORE;) {
        status = nibl_quantizer_step(j->quantizer);
        code = status < 0 ? nibl_cli_fail_library(j->model->path) : write_output(j);
        show_steps(j);
        if (nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    }
    return code;
}

static int begin_layers(void *context, nibl_cli_model *model) {
    job *j = context;
    j->model = model;
    if (nibl_cli_model_begin_parts(model) != NIBL_EXIT_OK) return NIBL_EXIT_FAILED;
    const int code = begin_model(j);
    return code == NIBL_EXIT_OK ? step_model(j) : code;
}

/* As a stream, or layer by layer where the source's tensors are not those of the output. */
static int begin(void *context, nibl_cli_model *model) {
    job *j = context;
    if (!model->sequential && nibl_quantize_needs_model(model->loader, &j->options))
        return begin_layers(context, model);
    const nibl_status status = nibl_quantizer_new(model->loader, &j->options, &j->quantizer);
    const nibl_cli_tokens none = {0};
    return status < 0 ? nibl_cli_fail_library(model->path) : open_output(j, model, &none);
}

static int take(void *context) {
    job *j = context;
    return j->model ? step_model(context) : write_output(context);
}

/* Mixed precision is measured of all layers before the first one is rounded. */
static int quantize_model(const char *path, job *j, nibl_cli_model *model) {
    const nibl_cli_receiver receiver = {NULL, begin_layers, step_model, j};
    j->start = nibl_cli_seconds();
    int code = read_config(path, j);
    j->model = model;
    if (code == NIBL_EXIT_OK)
        code = is_mixed(j->given) ? nibl_cli_model_open(path, NULL, false, model)
                                  : nibl_cli_model_read(path, &receiver, model);
    if (code == NIBL_EXIT_OK && is_mixed(j->given)) {
        code = begin_model(j);
        if (code == NIBL_EXIT_OK) code = step_model(j);
    }
    if (code == NIBL_EXIT_OK && j->config.bytes && j->folder.temporary.bytes) code = copy_documents(j, path);
    if (nibl_cli_stderr_is_terminal()) fputs("\r\033[K", stderr);
    model->seconds = nibl_cli_seconds() - j->start;
    return code;
}

/* ---- What came out ---- */

static bool same_member(const nibl_cli_document *d, size_t a, size_t b, const char *key) {
    const size_t x = nibl_cli_document_member(d, a, key), y = nibl_cli_document_member(d, b, key);
    return x && y && d->nodes[x].length == d->nodes[y].length &&
           memcmp(d->nodes[x].bytes, d->nodes[y].bytes, d->nodes[x].length) == 0;
}

/* One line for all tensors that got another type for the same reason as tensor `t`, at the first of them; how many lines. */
static unsigned print_exceptions(const nibl_cli_document *d, size_t tensors, size_t t) {
    const size_t why = nibl_cli_document_member(d, t, "why");
    uint32_t alike = 0;
    if (!why) return 0;
    for (size_t other = tensors + 1; other < d->nodes[tensors].next; other = d->nodes[other].next) {
        if (!same_member(d, t, other, "why") || !same_member(d, t, other, "to")) continue;
        if (other < t) return 0;
        alike++;
    }
    const nibl_cli_node *name = &d->nodes[nibl_cli_document_member(d, t, "name")],
                        *to = &d->nodes[nibl_cli_document_member(d, t, "to")];
    printf("%.*s%s: %.*s (%.*s)\n", (int)name->length, name->bytes, alike > 1 ? " and others" : "",
           (int)to->length, to->bytes, (int)d->nodes[why].length, d->nodes[why].bytes);
    return 1;
}

static double real(const nibl_cli_document *d, size_t index) {
    return index ? strtod(d->nodes[index].bytes, NULL) : 0;
}

/* What rounding lost of all matrices, and of which most. */
static void print_loss(const nibl_cli_document *d, size_t tensors) {
    double sum = 0, most = 0;
    size_t worst = 0, count = 0;
    for (size_t t = tensors + 1; t < d->nodes[tensors].next; t = d->nodes[t].next) {
        const size_t member = nibl_cli_document_member(d, t, "error");
        const double error = real(d, member);
        if (!member) continue;
        count++;
        sum += error;
        if (error > most) most = error, worst = t;
    }
    if (!worst) return;
    const nibl_cli_node *name = &d->nodes[nibl_cli_document_member(d, worst, "name")];
    printf("rounding changed matrices by %.1f %% on average, %.*s most (%.1f %%)\n",
           100 * sum / (double)count, (int)name->length, name->bytes, 100 * most);
}

static void print_salient(const nibl_cli_document *d) {
    const size_t inputs = nibl_cli_document_member(d, 0, "inputs");
    double most = 0;
    size_t at = 0;
    for (size_t i = inputs + 1; inputs && i < d->nodes[inputs].next; i = d->nodes[i].next) {
        const size_t channels = nibl_cli_document_member(d, i, "channels");
        const double ratio =
            real(d, channels + 3) / (real(d, nibl_cli_document_member(d, i, "median")) + 1e-12);
        if (ratio > most) most = ratio, at = i;
    }
    if (!at) return;
    const nibl_cli_node *name = &d->nodes[nibl_cli_document_member(d, at, "tensor")],
                        *channel = &d->nodes[nibl_cli_document_member(d, at, "channels") + 2];
    printf("the channel that stands out most: %.*s of the input of %.*s, %.0f times the median\n",
           (int)channel->length, channel->bytes, (int)name->length, name->bytes, most);
}

/* Tensors with a member that tells of matrices which a method left out. */
static void print_left_out(const nibl_cli_document *d, size_t tensors, const char *member, const char *why) {
    size_t count = 0, first = 0;
    for (size_t t = tensors + 1; t < d->nodes[tensors].next; t = d->nodes[t].next) {
        if (!nibl_cli_document_member(d, t, member)) continue;
        if (count++ == 0) first = nibl_cli_document_member(d, t, "name");
    }
    if (count == 0) return;
    printf("%zu tensor%s: %s %.*s%s, rounded as without it\n", count, count > 1 ? "s" : "", why,
           (int)d->nodes[first].length, d->nodes[first].bytes, count > 1 ? " and others" : "");
}

/* Tensors whose grid was looked for. */
static void print_recovered(const nibl_cli_document *d, size_t tensors) {
    size_t looked = 0, whole = 0, worst = 0;
    uint64_t rounded = 0;
    double least = 1;
    for (size_t t = tensors + 1; t < d->nodes[tensors].next; t = d->nodes[t].next) {
        const size_t groups = nibl_cli_document_member(d, t, "groups");
        if (!groups) continue;
        const double share = real(d, nibl_cli_document_member(d, t, "recovered")) / real(d, groups);
        looked++;
        whole += share >= 1;
        rounded += (uint64_t)real(d, nibl_cli_document_member(d, t, "scales_rounded"));
        if (share < least) least = share, worst = t;
    }
    if (looked == 0) return;
    printf("%zu of %zu tensors lie on their grid and are the same", whole, looked);
    if (rounded > 0) printf(", but for %" PRIu64 " scales, which were rounded", rounded);
    if (worst) {
        const nibl_cli_node *name = &d->nodes[nibl_cli_document_member(d, worst, "name")];
        printf("; least of all %.*s: %.6g %% of it", (int)name->length, name->bytes, 100 * least);
    }
    puts("");
}

/* Ten lines at most. */
static void print_summary(const nibl_cli_document *d, const char *path, const char *imatrix, double seconds) {
    const double mb = 1e-6,
                 source =
                     (double)nibl_cli_document_integer(d, nibl_cli_document_member(d, 0, "source_bytes")),
                 file = (double)nibl_cli_document_integer(d, nibl_cli_document_member(d, 0, "file_bytes"));
    const uint64_t parameters = nibl_cli_document_integer(d, nibl_cli_document_member(d, 0, "parameters"));
    const size_t bits = nibl_cli_document_member(d, 0, "bits_per_weight"),
                 tensors = nibl_cli_document_member(d, 0, "tensors"),
                 recipe = nibl_cli_document_member(d, 0, "recipe");
    printf("%s: %.1f MB from %.1f MB, %.*s bits per weight, %.1f s (%.0f million weights/s)\n", path,
           file * mb, source * mb, (int)d->nodes[bits].length, d->nodes[bits].bytes, seconds,
           (double)parameters * mb / seconds);
    printf("recipe: %.*s\n", (int)d->nodes[recipe].length, d->nodes[recipe].bytes);
    print_loss(d, tensors);
    print_salient(d);
    print_left_out(d, tensors, "uncalibrated",
                   imatrix ? "the imatrix file tells nothing of" : "the text hardly reaches");
    print_left_out(d, tensors, "unscaled", "AWQ finds nothing that takes a scale back before");
    print_recovered(d, tensors);
    unsigned lines = 5;
    for (size_t t = tensors + 1; t < d->nodes[tensors].next && lines > 0; t = d->nodes[t].next)
        lines -= print_exceptions(d, tensors, t);
}

/* What the report's file says besides the library's document. */
static int write_report(const nibl_cli_model *model, const quantize_options *o, const char *document,
                        double seconds) {
    nibl_cli_output output = {0};
    nibl_cli_text command = {0};
    if (!nibl_cli_write_command(&command)) return NIBL_EXIT_FAILED;
    int code = nibl_cli_output_open(o->report, &output);
    if (code == NIBL_EXIT_OK) {
        nibl_cli_json json = {.out = output.stream};
        nibl_cli_json_open(&json, NULL, '{');
        nibl_cli_json_string(&json, "nibl", NIBL_VERSION);
        nibl_cli_json_string(&json, "command", command.bytes);
        nibl_cli_json_string(&json, "source", model->path);
        nibl_cli_json_string(&json, "output", o->output);
        if (o->calibration || o->imatrix)
            nibl_cli_json_string(&json, "calibration", o->calibration ? o->calibration : o->imatrix);
        nibl_cli_json_real(&json, "seconds", seconds);
        nibl_cli_json_string(&json, "isa", nibl_isa());
        nibl_cli_json_raw(&json, "quantization", document);
        nibl_cli_json_close(&json, '}');
        code = nibl_cli_output_commit(&output);
    }
    nibl_cli_output_discard(&output);
    nibl_cli_text_free(&command);
    return code;
}

static int report(const job *j, const nibl_cli_model *model, const quantize_options *o) {
    nibl_cli_text json = {0};
    nibl_cli_document document = {0};
    size_t needed = 0;
    int code = NIBL_EXIT_OK;
    nibl_quantizer_report(j->quantizer, NULL, 0, &needed);
    if (!nibl_cli_text_reserve(&json, needed) ||
        nibl_quantizer_report(j->quantizer, json.bytes, json.capacity, &needed) < 0 ||
        !nibl_cli_document_parse(json.bytes, &document))
        code = nibl_cli_fail("the report could not be made");
    if (code == NIBL_EXIT_OK && o->report) code = write_report(model, o, json.bytes, model->seconds);
    if (code == NIBL_EXIT_OK && o->json) puts(json.bytes);
    if (code == NIBL_EXIT_OK && !o->json) print_summary(&document, j->path, o->imatrix, model->seconds);
    nibl_cli_document_free(&document);
    nibl_cli_text_free(&json);
    return code;
}

/* "PATTERN=TYPE", taken apart in `room`. */
static int read_tensors(const quantize_options *o, nibl_tensor_type *tensors, char **room) {
    for (size_t i = 0; i < o->tensors.count; i++) {
        const char *text = o->tensors.items[i], *equals = strrchr(text, '=');
        if (!equals || equals == text)
            return nibl_cli_fail_usage(nibl_cli_quantize.name, "--tensor must be PATTERN=TYPE, not '%s'",
                                       text);
        const size_t length = (size_t)(equals - text);
        room[i] = malloc(length + 1);
        if (!room[i]) return nibl_cli_fail("out of memory");
        memcpy(room[i], text, length);
        room[i][length] = 0;
        tensors[i] = (nibl_tensor_type){room[i], equals + 1};
    }
    return NIBL_EXIT_OK;
}

static int quantize(const char *path, const void *given) {
    quantize_options told = *(const quantize_options *)given;
    const quantize_options *o = &told;
    nibl_tensor_type tensors[NIBL_CLI_MAX_TEXTS];
    char *room[NIBL_CLI_MAX_TEXTS] = {0};
    if (!o->output)
        return nibl_cli_fail_usage(nibl_cli_quantize.name, "OUT is missing: the path of the file to be made");
    if (o->recipe && (o->type || o->embedding || o->head || o->method || o->tensors.count > 0))
        return nibl_cli_fail_usage(
            nibl_cli_quantize.name,
            "--recipe says what types and methods are: TYPE, --embedding, --head, --tensor and "
            "--method are not for it");
    if (o->imatrix && (o->calibration || is_mixed(o)))
        return nibl_cli_fail_usage(
            nibl_cli_quantize.name,
            "--imatrix stands for a text: --calibration, and --size and --bpw, which are "
            "measured on one, are not for it");
    job j = {.path = o->output,
             .given = o,
             .options = {.size = sizeof j.options,
                         .type = o->type,
                         .embedding = o->embedding,
                         .head = o->head,
                         .tensors = tensors,
                         .tensor_count = o->tensors.count,
                         .method = o->method,
                         .format = o->format,
                         .shard_bytes = (uint64_t)o->shard_size * 1000000,
                         .threads = nibl_cli_threads(&o->settings),
                         .requantize = o->requantize,
                         .force = o->force,
                         .measure = o->report != NULL}};
    nibl_cli_model model = {0};
    const nibl_cli_receiver receiver = {"quantizing", begin, take, &j};
    nibl_cli_recipe recipe = {0};
    int code = read_tensors(o, tensors, room);
    if (code == NIBL_EXIT_OK && o->recipe) code = nibl_cli_recipe_read(o->recipe, &j.options, &recipe);
    if (code == NIBL_EXIT_OK && o->imatrix) code = nibl_cli_read_file(o->imatrix, MAX_IMATRIX, &j.imatrix);
    j.options.imatrix = o->imatrix ? j.imatrix.bytes : NULL;
    j.options.imatrix_bytes = j.imatrix.length;
    if (!o->calibration && (o->size || o->bits > 0 || nibl_quantize_needs_text(&j.options)))
        told.calibration = NIBL_CLI_OWN_TEXT;
    if (code == NIBL_EXIT_OK)
        code = o->calibration || nibl_quantize_needs_model(NULL, &j.options)
                   ? quantize_model(path, &j, &model)
                   : nibl_cli_model_read(path, &receiver, &model);
    if (code == NIBL_EXIT_OK && j.written != nibl_quantizer_size(j.quantizer))
        code = nibl_cli_fail("%s: %" PRIu64 " bytes came out instead of %" PRIu64, path, j.written,
                             nibl_quantizer_size(j.quantizer));
    if (code == NIBL_EXIT_OK)
        code = j.folder.path ? nibl_cli_folder_commit(&j.folder) : nibl_cli_output_commit(&j.output);
    nibl_cli_output_discard(&j.output);
    nibl_cli_resume_end(&j.resume);
    nibl_cli_folder_discard(&j.folder);
    nibl_cli_text_free(&j.config);
    nibl_cli_text_free(&j.imatrix);
    if (code == NIBL_EXIT_OK) code = report(&j, &model, o);
    nibl_quantizer_free(j.quantizer);
    nibl_allotment_free(j.allotment);
    nibl_cli_model_close(&model);
    nibl_cli_recipe_free(&recipe);
    for (size_t i = 0; i < NIBL_CLI_MAX_TEXTS; i++) free(room[i]);
    return code;
}

const nibl_cli_verb nibl_cli_quantize = {
    .name = "quantize",
    .arguments = "MODEL OUT [TYPE] [options]",
    .summary = "Makes a smaller GGUF file or folder of a GGUF file, a split one, or a Hugging Face folder.",
    .details =
        "\n"
        "OUT appears when it is complete, or not at all. Rows that do not divide into a type's blocks get\n"
        "another, which is told. Where the command was killed, the same one goes on: a GGUF file at the\n"
        "tensor or layer it had come to, with the same bytes; a folder, --report and standard input begin "
        "anew.\n"
        "\n"
        "TYPE may be integers: w4g64 (4 bits, a scale for 64 inputs), w3g128asym (with zero points), w8row,\n"
        "w4tensor; a symmetric scale is -extreme, -range or -absmax, stored as -f16, -bf16 or -f32. OUT is "
        "a\n"
        "folder then, in compressed-tensors' layout (pack-quantized), for nibl, transformers and vLLM:\n"
        "    nibl quantize MODEL OUT w4g64asym --method awq --calibration TEXT && vllm serve OUT\n"
        "--as gguf writes those with 4 bits and no zero point as Q4_0 for llama.cpp.\n"
        "\n"
        "Other engines: llama-cli -m OUT.gguf, vllm serve OUT, and in Python, with transformers and\n"
        "compressed-tensors installed, AutoModelForCausalLM.from_pretrained('OUT').\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .places = "--output --type",
    .run = quantize,
};

#include "core/cli/console.h"
#include "core/cli/json.h"
#include "core/cli/random_tokens.h"
#include "core/cli/session.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPETITIONS = 1000 };
enum format { FORMAT_MD, FORMAT_CSV, FORMAT_JSON };

typedef struct bench_options {
    nibl_cli_settings settings;
    int64_t prefill, decode, depth, repetitions;
    int format;
} bench_options;

static const bench_options defaults = {.prefill = 512, .decode = 128, .repetitions = 5};

#define FIELD(member) offsetof(bench_options, member)
static const nibl_cli_option table[] = {
    {"-p, --n-prompt", NIBL_CLI_INTEGER, FIELD(prefill), "N", 0, 1 << 20, NULL,
     "tokens of the prefill test; 0 = none"},
    {"-n, --n-gen", NIBL_CLI_INTEGER, FIELD(decode), "N", 0, 1 << 20, NULL,
     "tokens of the decode test; 0 = none"},
    {"-d, --n-depth", NIBL_CLI_INTEGER, FIELD(depth), "N", 0, 1 << 20, NULL,
     "tokens that are in the context before each test"},
    {"-r, --repetitions", NIBL_CLI_INTEGER, FIELD(repetitions), "N", 1, MAX_REPETITIONS, NULL,
     "runs of each test"},
    NIBL_CLI_COMPUTE_OPTIONS(bench_options),
    NIBL_CLI_KV_OPTIONS(bench_options),
    {"-o, --output", NIBL_CLI_CHOICE, FIELD(format), "md|csv|json", 0, 0, NULL, "form of the table"},
};

typedef struct result {
    char test[48]; /* "pp512 @ d1024" */
    double mean, deviation, median; /* tokens per second */
    double samples[MAX_REPETITIONS];
    size_t count;
} result;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Mean, sample standard deviation and median. */
static void summarise(result *r) {
    double sum = 0, squares = 0, sorted[MAX_REPETITIONS];
    for (size_t i = 0; i < r->count; i++) sum += r->samples[i];
    r->mean = sum / (double)r->count;
    for (size_t i = 0; i < r->count; i++) squares += (r->samples[i] - r->mean) * (r->samples[i] - r->mean);
    r->deviation = r->count > 1 ? sqrt(squares / (double)(r->count - 1)) : 0;
    memcpy(sorted, r->samples, r->count * sizeof *sorted);
    qsort(sorted, r->count, sizeof *sorted, compare);
    r->median = (sorted[(r->count - 1) / 2] + sorted[r->count / 2]) / 2;
}

/* Computes all tokens in one call: nothing of the command itself is measured. */
static int step(nibl_session *session) {
    nibl_status status = nibl_step(&session, 1, 0);
    if (status == NIBL_OK) return NIBL_EXIT_OK;
    return status < 0 ? nibl_cli_fail_library("computing") : nibl_cli_fail("computing: not done in one step");
}

/* One run behind `depth` tokens, which are the same every time and stay computed: `count` tokens at once, or one by one.
 * Nothing else is kept from the run before, since every run has other tokens from the first one on. */
static int measure(nibl_session *session, uint32_t vocabulary, uint64_t run, size_t depth, size_t count,
                   bool one_by_one, double *per_second) {
    nibl_cli_tokens tokens = {0};
    if (!nibl_cli_random_tokens(&tokens, depth, vocabulary, 0) ||
        !nibl_cli_random_tokens(&tokens, count, vocabulary, run))
        return NIBL_EXIT_FAILED;
    tokens.ids[depth] = (int32_t)(run % vocabulary);
    int code = NIBL_EXIT_OK;
    if (depth > 0 && nibl_session_set_tokens(session, tokens.ids, depth, NULL) < 0)
        code = nibl_cli_fail_library("the context");
    if (depth > 0 && code == NIBL_EXIT_OK) code = step(session);
    double start = nibl_cli_seconds();
    size_t batch = depth + (one_by_one ? 1 : count);
    if (code == NIBL_EXIT_OK && nibl_session_set_tokens(session, tokens.ids, batch, NULL) < 0)
        code = nibl_cli_fail_library("the test");
    if (code == NIBL_EXIT_OK) code = step(session);
    for (size_t i = batch; i < depth + count && code == NIBL_EXIT_OK && !nibl_cli_interrupted(); i++) {
        if (nibl_session_append(session, &tokens.ids[i], 1) < 0) code = nibl_cli_fail_library("the test");
        if (code == NIBL_EXIT_OK) code = step(session);
    }
    double seconds = nibl_cli_seconds() - start;
    *per_second = seconds > 0 ? (double)count / seconds : 0;
    nibl_cli_tokens_free(&tokens);
    if (code == NIBL_EXIT_OK && nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    return code;
}

/* A short run first, so that pages are there and threads are awake. */
static int run_test(nibl_session *session, uint32_t vocabulary, const bench_options *o, bool one_by_one,
                    result *out) {
    size_t count = (size_t)(one_by_one ? o->decode : o->prefill);
    const size_t depth = (size_t)o->depth;
    int length = snprintf(out->test, sizeof out->test, "%s%zu", one_by_one ? "tg" : "pp", count);
    if (depth > 0) snprintf(out->test + length, sizeof out->test - (size_t)length, " @ d%zu", depth);
    double ignored;
    uint64_t run = one_by_one ? 0 : (uint64_t)o->repetitions + 1;
    int code =
        measure(session, vocabulary, run, depth, one_by_one && count > 8 ? 8 : count, one_by_one, &ignored);
    for (; code == NIBL_EXIT_OK && out->count < (size_t)o->repetitions; out->count++)
        code = measure(session, vocabulary, ++run, depth, count, one_by_one, &out->samples[out->count]);
    if (code == NIBL_EXIT_OK) summarise(out);
    return code;
}

/* ---- Tables: one row per column names it and prints its cell ---- */

typedef struct row {
    const nibl_cli_model *model;
    const char *name;
    uint64_t size;
    uint32_t threads;
    const result *result;
    enum format format;
} row;

static void print_model(const row *r) {
    for (const char *c = r->name; *c; c++) {
        bool breaks = (unsigned char)*c < 0x20 || *c == 0x7F || *c == '"' || *c == '|' || *c == ',';
        putchar(breaks ? ' ' : *c);
    }
}

static void print_size(const row *r) {
    if (r->format == FORMAT_MD)
        printf("%.2f MiB", (double)r->size / 1048576);
    else
        printf("%" PRIu64, r->size);
}

static void print_params(const row *r) {
    if (r->format == FORMAT_MD)
        printf("%.2f M", (double)r->model->info.parameters * 1e-6);
    else
        printf("%" PRIu64, r->model->info.parameters);
}

static void print_backend(const row *r) {
    (void)r;
    printf("CPU %s", nibl_isa());
}

static void print_threads(const row *r) { printf("%" PRIu32, r->threads); }

static void print_test(const row *r) { fputs(r->result->test, stdout); }

static void print_speed(const row *r) {
    printf(r->format == FORMAT_MD ? "%.2f ± %.2f" : "%.9g,%.9g", r->result->mean, r->result->deviation);
}

static void print_median(const row *r) {
    printf(r->format == FORMAT_MD ? "%.2f" : "%.9g", r->result->median);
}

static const struct {
    const char *md, *csv;
    void (*print)(const row *row);
} columns[] = {
    {"model", "model", print_model},       {"size", "size", print_size},
    {"params", "params", print_params},    {"backend", "backend", print_backend},
    {"threads", "threads", print_threads}, {"test", "test", print_test},
    {"t/s", "t/s,t/s sd", print_speed},    {"median", "t/s median", print_median},
};
enum { COLUMNS = sizeof columns / sizeof *columns };

static void print_header(enum format format) {
    for (size_t i = 0; i < COLUMNS; i++) {
        if (format == FORMAT_MD)
            printf("| %s ", columns[i].md);
        else
            printf("%s%s", i > 0 ? "," : "", columns[i].csv);
    }
    if (format == FORMAT_MD) {
        fputs("|\n", stdout);
        for (size_t i = 0; i < COLUMNS; i++) fputs("| --- ", stdout);
        putchar('|');
    }
    putchar('\n');
}

static void print_row(const row *r) {
    for (size_t i = 0; i < COLUMNS; i++) {
        fputs(r->format == FORMAT_MD ? "| " : i > 0 ? "," : "", stdout);
        columns[i].print(r);
        if (r->format == FORMAT_MD) putchar(' ');
    }
    puts(r->format == FORMAT_MD ? "|" : "");
    fflush(stdout);
}

static void print_json(const row *r, const result *results, size_t count) {
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_string(&json, "model", r->name);
    nibl_cli_json_integer(&json, "size", r->size);
    nibl_cli_json_integer(&json, "params", r->model->info.parameters);
    nibl_cli_json_string(&json, "backend", "CPU");
    nibl_cli_json_string(&json, "isa", nibl_isa());
    nibl_cli_json_integer(&json, "threads", r->threads);
    nibl_cli_json_real(&json, "load_seconds", r->model->seconds);
    nibl_cli_json_integer(&json, "process_peak", nibl_cli_peak_memory());
    nibl_cli_json_open(&json, "results", '[');
    for (size_t i = 0; i < count; i++) {
        nibl_cli_json_open(&json, NULL, '{');
        nibl_cli_json_string(&json, "test", results[i].test);
        nibl_cli_json_real(&json, "mean", results[i].mean);
        nibl_cli_json_real(&json, "sd", results[i].deviation);
        nibl_cli_json_real(&json, "median", results[i].median);
        nibl_cli_json_open(&json, "samples", '[');
        for (size_t k = 0; k < results[i].count; k++) nibl_cli_json_real(&json, NULL, results[i].samples[k]);
        nibl_cli_json_close(&json, ']');
        nibl_cli_json_close(&json, '}');
    }
    nibl_cli_json_close(&json, ']');
    nibl_cli_json_close(&json, '}');
}

/* ---- The verb ---- */

static int run_all(const nibl_cli_model *model, const bench_options *o, nibl_session *session,
                   result *results) {
    const char *slash = strrchr(model->path, '/');
    nibl_plan plan = {.size = sizeof plan};
    if (nibl_loader_plan(model->loader, &plan) < 0) return nibl_cli_fail_library(model->path);
    row r = {.model = model,
             .name = *model->info.name ? model->info.name
                     : slash           ? slash + 1
                                       : model->path,
             .size = plan.file_tensor_bytes,
             .threads = nibl_cli_threads(&o->settings),
             .format = (enum format)o->format};
    if (r.format != FORMAT_JSON) print_header(r.format);
    size_t count = 0;
    for (int one_by_one = 0; one_by_one < 2; one_by_one++) {
        if ((one_by_one ? o->decode : o->prefill) == 0) continue;
        int code = run_test(session, model->info.vocabulary, o, one_by_one, &results[count]);
        if (code != NIBL_EXIT_OK) return code;
        r.result = &results[count++];
        if (r.format != FORMAT_JSON) print_row(&r);
    }
    if (r.format == FORMAT_JSON) print_json(&r, results, count);
    return NIBL_EXIT_OK;
}

static int bench(const char *path, const void *given) {
    const bench_options *o = given;
    int code = nibl_cli_settings_check(&o->settings, nibl_cli_bench.name);
    if (code != NIBL_EXIT_OK) return code;
    int64_t context = o->prefill > o->decode ? o->prefill : o->decode;
    if (context == 0)
        return nibl_cli_fail_usage(nibl_cli_bench.name, "-p and -n are both 0: there is nothing to run");
    nibl_cli_model model;
    nibl_session *session = NULL;
    nibl_session_options options = nibl_cli_session_options(&o->settings, (uint32_t)(context + o->depth));
    result *results = calloc(2, sizeof *results);
    code = nibl_cli_model_open(path, false, &model);
    if (code == NIBL_EXIT_OK && !results) code = nibl_cli_fail("out of memory");
    if (code == NIBL_EXIT_OK && nibl_session_new(model.model, &options, &session) < 0)
        code = nibl_cli_fail_library("the session");
    if (code == NIBL_EXIT_OK) code = run_all(&model, o, session, results);
    nibl_session_free(session);
    nibl_cli_model_close(&model);
    free(results);
    return code;
}

const nibl_cli_verb nibl_cli_bench = {
    .name = "bench",
    .arguments = "MODEL [-p 512] [-n 128] [-d 0] [-r 5] [options]",
    .summary = "Measures tokens per second: prefill of N tokens (ppN) and decode of N tokens (tgN).",
    .details = "\n"
               "Each test starts behind -d tokens, has random tokens, and runs once before it is measured. "
               "t/s is\n"
               "mean ± standard deviation; the median tells more where other programs run.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = bench,
};

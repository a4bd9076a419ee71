#include "core/cli/json.h"
#include "core/cli/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct inspect_options {
    nibl_cli_settings settings;
    bool tensors, metadata, json;
} inspect_options;

static const inspect_options defaults = {0};

#define FIELD(member) offsetof(inspect_options, member)
static const nibl_cli_option table[] = {
    {"--tensors", NIBL_CLI_FLAG, FIELD(tensors), NULL, 0, 0, NULL, "list the tensors"},
    {"--metadata", NIBL_CLI_FLAG, FIELD(metadata), NULL, 0, 0, NULL, "list the metadata"},
    NIBL_CLI_CONTEXT_OPTION(inspect_options),
    NIBL_CLI_QUANTIZE_OPTION(inspect_options),
    NIBL_CLI_KV_OPTIONS(inspect_options),
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "everything as one JSON object"},
};

static const double MIB = 1048576;

/* What is shown: the library's document, and the plan, or why there is none. */
typedef struct report {
    const nibl_cli_model *model;
    nibl_cli_text json;
    nibl_cli_document document;
    nibl_plan plan;
    bool planned;
    char why_not[512];
} report;

static int make_report(const nibl_cli_model *model, const inspect_options *o, report *r) {
    *r = (report){.model = model,
                  .plan = {.size = sizeof r->plan,
                           .context_length = (uint32_t)o->settings.context,
                           .kv_type = nibl_cli_kv_type(o->settings.key_type)}};
    r->planned = nibl_loader_plan(model->loader, &r->plan) == NIBL_OK;
    if (!r->planned) snprintf(r->why_not, sizeof r->why_not, "%s", nibl_last_message());
    if (r->planned && (size_t)r->plan.total != r->plan.total)
        snprintf(r->why_not, sizeof r->why_not,
                 "more memory than this build's addresses of %zu bits reach: take a shorter context",
                 8 * sizeof(void *));
    size_t needed = 0;
    nibl_status status = nibl_loader_inspect(model->loader, NULL, 0, &needed);
    if (status == NIBL_E_BUFFER) {
        if (!nibl_cli_text_reserve(&r->json, needed)) return NIBL_EXIT_FAILED;
        status = nibl_loader_inspect(model->loader, r->json.bytes, r->json.capacity, &needed);
    }
    if (status < 0) return nibl_cli_fail_library(model->path);
    if (!nibl_cli_document_parse(r->json.bytes, &r->document))
        return nibl_cli_fail("%s: its description could not be read", model->path);
    return NIBL_EXIT_OK;
}

/* ---- As JSON ---- */

static void print_json(const report *r) {
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_string(&json, "path", r->model->path);
    nibl_cli_json_integer(&json, "file_bytes", r->model->file_size);
    nibl_cli_json_raw(&json, "model", r->json.bytes);
    if (r->planned) {
        nibl_cli_json_open(&json, "plan", '{');
        nibl_cli_json_integer(&json, "context_length", r->plan.context_length);
        nibl_cli_json_integer(&json, "weights", r->plan.weights);
        nibl_cli_json_integer(&json, "kv", r->plan.kv);
        nibl_cli_json_integer(&json, "scratch", r->plan.scratch);
        nibl_cli_json_integer(&json, "vocabulary", r->plan.vocabulary);
        nibl_cli_json_integer(&json, "total", r->plan.total);
        nibl_cli_json_close(&json, '}');
    }
    if (*r->why_not) nibl_cli_json_string(&json, "unsupported", r->why_not);
    nibl_cli_json_close(&json, '}');
}

/* ---- As text: strings stay escaped as in the document, so that a file cannot steer the terminal ---- */

static void print_node(const char *label, const report *r, size_t index) {
    const nibl_cli_node *node = &r->document.nodes[index];
    if (index && node->kind == '"') printf("%-14s %.*s\n", label, (int)node->length, node->bytes);
}

static void print_summary(const report *r) {
    const nibl_cli_document *d = &r->document;
    printf("%-14s %s\n", "file", r->model->path);
    if (r->model->file_size) printf("%-14s %" PRIu64 " bytes\n", "size", r->model->file_size);
    print_node("architecture", r, nibl_cli_document_member(d, 0, "architecture"));
    print_node("name", r, nibl_cli_document_member(d, 0, "name"));
    uint64_t parameters = nibl_cli_document_integer(d, nibl_cli_document_member(d, 0, "parameters"));
    printf("%-14s %" PRIu64 " (%.1f million)\n", "parameters", parameters, (double)parameters * 1e-6);
    size_t types = nibl_cli_document_member(d, 0, "types");
    const char *label = "types";
    for (size_t i = types + 1; types && i < d->nodes[types].next; i = d->nodes[i + 1].next, label = "") {
        uint64_t bytes = nibl_cli_document_integer(d, nibl_cli_document_member(d, i + 1, "bytes"));
        uint64_t tensors = nibl_cli_document_integer(d, nibl_cli_document_member(d, i + 1, "tensors"));
        printf("%-14s %-8.*s %5" PRIu64 " tensors", label, (int)d->nodes[i].length, d->nodes[i].bytes,
               tensors);
        if (bytes) printf(" %10.1f MiB", (double)bytes / MIB);
        putchar('\n');
    }
    if (*r->why_not) printf("%-14s no: %s\n", "runs here", r->why_not);
    if (!r->planned) return;
    printf("%-14s %" PRIu32 " tokens\n", "context", r->plan.context_length);
    printf("%-14s %.1f MiB: weights %.1f, KV cache %.1f, scratch %.1f, vocabulary %.1f\n", "memory",
           (double)r->plan.total / MIB, (double)r->plan.weights / MIB, (double)r->plan.kv / MIB,
           (double)r->plan.scratch / MIB, (double)r->plan.vocabulary / MIB);
}

static void print_metadata(const report *r) {
    const nibl_cli_node *nodes = r->document.nodes;
    size_t list = nibl_cli_document_member(&r->document, 0, "metadata");
    puts("\nmetadata");
    for (size_t i = list + 1; list && i < nodes[list].next; i = nodes[i + 1].next) {
        const nibl_cli_node *value = &nodes[i + 1];
        const char *quote = value->kind == '"' ? "\"" : "";
        printf("  %.*s = %s%.*s%s\n", (int)nodes[i].length, nodes[i].bytes, quote, (int)value->length,
               value->bytes, quote);
    }
}

static void print_tensors(const report *r) {
    const nibl_cli_document *d = &r->document;
    size_t list = nibl_cli_document_member(d, 0, "tensors");
    puts("\ntensors         offset        bytes  type      shape (fastest first)  name");
    for (size_t i = list + 1; list && i < d->nodes[list].next; i = d->nodes[i].next) {
        const nibl_cli_node *name = &d->nodes[nibl_cli_document_member(d, i, "name")];
        const nibl_cli_node *type = &d->nodes[nibl_cli_document_member(d, i, "type")];
        const nibl_cli_node *shape = &d->nodes[nibl_cli_document_member(d, i, "shape")];
        printf("  %20" PRIu64 " %12" PRIu64 "  %-8.*s  %-21.*s  %.*s\n",
               nibl_cli_document_integer(d, nibl_cli_document_member(d, i, "offset")),
               nibl_cli_document_integer(d, nibl_cli_document_member(d, i, "bytes")), (int)type->length,
               type->bytes, (int)shape->length, shape->bytes, (int)name->length, name->bytes);
    }
}

static int inspect(const char *path, const void *given) {
    const inspect_options *o = given;
    int code = nibl_cli_settings_check(&o->settings, nibl_cli_inspect.name);
    if (code != NIBL_EXIT_OK) return code;
    nibl_cli_model model;
    report r = {0};
    code = nibl_cli_model_open(path, o->settings.quantize, true, &model);
    if (code == NIBL_EXIT_OK) code = make_report(&model, o, &r);
    if (code == NIBL_EXIT_OK && o->json) print_json(&r);
    if (code == NIBL_EXIT_OK && !o->json) {
        print_summary(&r);
        if (o->metadata) print_metadata(&r);
        if (o->tensors) print_tensors(&r);
    }
    nibl_cli_document_free(&r.document);
    nibl_cli_text_free(&r.json);
    nibl_cli_model_close(&model);
    return code;
}

const nibl_cli_verb nibl_cli_inspect = {
    .name = "inspect",
    .arguments = "MODEL [options]",
    .summary = "Tells what a model file holds and how much memory it needs, from its header alone.",
    .details = "",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = inspect,
};

/* What of a model fits a device. For every recipe the header of the file that it would make is made, and the memory planned
 * from that as a load plans it: weights as they are packed, KV cache, activations, tokenizer. What a recipe loses is looked
 * up in the project's own measurements (web/losses.js). */
#include "core/cli/embedded.h"
#include "core/cli/json.h"
#include "core/cli/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct fit_options {
    const char *memory;
    int64_t context;
    bool json;
} fit_options;

static const fit_options defaults = {0};

#define FIELD(member) offsetof(fit_options, member)
static const nibl_cli_option table[] = {
    {"--memory", NIBL_CLI_TEXT, FIELD(memory), "4GB", 0, 0, NULL,
     "what the device has for it: bytes, KB, MB, GB, KiB, MiB, GiB"},
    {"-c, --context, --ctx-size", NIBL_CLI_INTEGER, FIELD(context), "N", 0, 1 << 24,
     "the model's, 4096 at most", "tokens the context holds"},
    {"--json", NIBL_CLI_FLAG, FIELD(json), NULL, 0, 0, NULL, "everything as one JSON object"},
};

enum { KV_TYPES = NIBL_KV_F32 + 1, MAX_RECIPES = 32, MAX_TYPE = 16, MAX_METHOD = 32 };
static const char *const kv_names[KV_TYPES] = {"i8", "f16", "f32"};
static const double MB = 1e-6;

typedef struct recipe {
    char type[MAX_TYPE], method[MAX_METHOD]; /* no type: the model as it is */
    double perplexity[2], kl[2]; /* change and its error, the latter negative where it was not measured */
    uint64_t file_bytes;
    nibl_plan plans[KV_TYPES];
    uint64_t longest; /* tokens of context that fit, with the smallest KV cache; 0 = none */
} recipe;

typedef struct fitting {
    const fit_options *o;
    uint64_t memory;
    nibl_cli_text source; /* types of the model as it is */
    uint64_t parameters, model_context;
    recipe recipes[MAX_RECIPES];
    size_t count;
    char note[512]; /* why there are no recipes */
} fitting;

/* ---- Plans ---- */

static nibl_status plan_of(const nibl_loader *loader, uint32_t kv_type, uint64_t context, nibl_plan *plan) {
    *plan = (nibl_plan){.size = sizeof *plan, .context_length = (uint32_t)context, .kv_type = kv_type};
    return nibl_loader_plan(loader, plan);
}

/* The longest context that fits, up to the model's own. */
static uint64_t longest_of(const fitting *f, const nibl_loader *loader) {
    uint64_t low = 0, high = f->model_context;
    while (low < high) {
        const uint64_t middle = high - (high - low) / 2;
        nibl_plan plan;
        if (plan_of(loader, NIBL_KV_I8, middle, &plan) >= 0 && plan.total <= f->memory)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

static int plan_recipe(const fitting *f, const nibl_loader *loader, recipe *r) {
    for (uint32_t kv = 0; kv < KV_TYPES; kv++)
        if (plan_of(loader, kv, (uint64_t)f->o->context, &r->plans[kv]) < 0)
            return nibl_cli_fail_library("planning");
    r->longest = longest_of(f, loader);
    return NIBL_EXIT_OK;
}

/* Plans the file that the recipe makes: its header comes out first. */
static int plan_output(fitting *f, const char *path, recipe *r) {
    nibl_cli_model model = {0};
    nibl_quantizer *quantizer = NULL;
    nibl_loader *loader = NULL;
    const nibl_quantize_options options = {.size = sizeof options, .type = r->type};
    int code = nibl_cli_header_open(path, &model);
    if (code == NIBL_EXIT_OK && nibl_quantizer_new(model.loader, &options, &quantizer) < 0) {
        snprintf(f->note, sizeof f->note, "%s", nibl_last_message());
    } else if (code == NIBL_EXIT_OK) {
        const void *bytes;
        size_t length;
        nibl_quantizer_output(quantizer, &bytes, &length);
        r->file_bytes = nibl_quantizer_size(quantizer);
        if (nibl_loader_new(r->file_bytes, &loader) < 0 || nibl_loader_feed(loader, 0, bytes, length) < 0)
            code = nibl_cli_fail_library(r->type);
        if (code == NIBL_EXIT_OK) code = plan_recipe(f, loader, r);
    }
    nibl_loader_free(loader);
    nibl_quantizer_free(quantizer);
    nibl_cli_model_close(&model);
    return code;
}

/* ---- What there is ---- */

static double real_member(const nibl_cli_document *d, size_t list, size_t index) {
    size_t i = list + 1;
    for (; list && index > 0 && i < d->nodes[list].next; index--) i = d->nodes[i].next;
    return list && i < d->nodes[list].next ? strtod(d->nodes[i].bytes, NULL) : -1;
}

static void copy_member(const nibl_cli_document *d, size_t object, const char *key, char *out,
                        size_t capacity) {
    const nibl_cli_node *node = &d->nodes[nibl_cli_document_member(d, object, key)];
    snprintf(out, capacity, "%.*s", (int)node->length, node->bytes);
}

/* The list that the command carries: what stands behind "default". */
static int read_losses(fitting *f) {
    const nibl_cli_embedded *file = nibl_cli_embedded_files;
    while (strcmp(file->name, NIBL_CLI_LOSSES) != 0) file++;
    nibl_cli_text text = {0};
    nibl_cli_document d = {0};
    int code = nibl_cli_text_append(&text, file->bytes, file->length) ? NIBL_EXIT_OK : NIBL_EXIT_FAILED;
    const char *list = code == NIBL_EXIT_OK ? strstr(text.bytes, "default [") : NULL;
    if (code == NIBL_EXIT_OK && (!list || !nibl_cli_document_parse(list + 8, &d)))
        code = nibl_cli_fail("%s is no list", file->name);
    for (size_t i = 1; code == NIBL_EXIT_OK && i < d.nodes[0].next && f->count < MAX_RECIPES;
         i = d.nodes[i].next) {
        recipe *r = &f->recipes[f->count++];
        copy_member(&d, i, "type", r->type, sizeof r->type);
        copy_member(&d, i, "method", r->method, sizeof r->method);
        for (size_t k = 0; k < 2; k++) {
            r->perplexity[k] = real_member(&d, nibl_cli_document_member(&d, i, "perplexity"), k);
            r->kl[k] = real_member(&d, nibl_cli_document_member(&d, i, "kl"), k);
        }
    }
    nibl_cli_document_free(&d);
    nibl_cli_text_free(&text);
    return code;
}

/* The model as it is: the first recipe, without loss. */
static int plan_source(fitting *f, const char *path) {
    nibl_cli_model model = {0};
    nibl_cli_text text = {0};
    nibl_cli_document d = {0};
    size_t needed = 0;
    int code = nibl_cli_header_open(path, &model);
    if (code == NIBL_EXIT_OK) {
        nibl_loader_inspect(model.loader, NULL, 0, &needed);
        if (!nibl_cli_text_reserve(&text, needed) ||
            nibl_loader_inspect(model.loader, text.bytes, text.capacity, &needed) < 0 ||
            !nibl_cli_document_parse(text.bytes, &d))
            code = nibl_cli_fail("%s: its description could not be read", path);
    }
    if (code == NIBL_EXIT_OK) {
        const size_t types = nibl_cli_document_member(&d, 0, "types");
        f->parameters = nibl_cli_document_integer(&d, nibl_cli_document_member(&d, 0, "parameters"));
        f->recipes[0].file_bytes =
            nibl_cli_document_integer(&d, nibl_cli_document_member(&d, 0, "file_tensor_bytes"));
        for (size_t i = types + 1; types && i < d.nodes[types].next; i = d.nodes[i + 1].next)
            if (!nibl_cli_text_append(&f->source, ", ", f->source.length > 0 ? 2 : 0) ||
                !nibl_cli_text_append(&f->source, d.nodes[i].bytes, d.nodes[i].length))
                code = NIBL_EXIT_FAILED;
        /* A plan for more than the model's own context is refused. */
        nibl_plan plan;
        for (uint64_t step = UINT64_C(1) << 24; step > 0; step /= 2)
            if (plan_of(model.loader, NIBL_KV_I8, f->model_context + step, &plan) >= 0)
                f->model_context += step;
        code = plan_recipe(f, model.loader, &f->recipes[0]);
        f->count = 1;
    }
    nibl_cli_document_free(&d);
    nibl_cli_text_free(&text);
    nibl_cli_model_close(&model);
    return code;
}

/* ---- Results ---- */

/* The context at which the KV cache is as large as the weights. */
static double outgrown_at(const nibl_plan *plan) {
    return plan->kv ? (double)plan->weights * plan->context_length / (double)plan->kv : 0;
}

/* The one with the least loss, with the KV cache of the library's default. */
static const recipe *choose(const fitting *f) {
    const recipe *best = NULL;
    for (size_t i = 0; i < f->count; i++) {
        const recipe *r = &f->recipes[i];
        if (r->plans[NIBL_KV_I8].total <= f->memory && (!best || r->kl[0] < best->kl[0])) best = r;
    }
    return best;
}

static void print_estimate(nibl_cli_json *json, const char *key, const double *value) {
    nibl_cli_json_open(json, key, '{');
    nibl_cli_json_real(json, "value", value[0]);
    nibl_cli_json_real(json, "error", value[1]);
    nibl_cli_json_close(json, '}');
}

static void print_recipe(nibl_cli_json *json, const fitting *f, const recipe *r) {
    const nibl_plan *plan = &r->plans[NIBL_KV_I8];
    nibl_cli_json_open(json, NULL, '{');
    nibl_cli_json_string(json, "type", r->type[0] ? r->type : "as it is");
    if (r->type[0]) nibl_cli_json_string(json, "method", r->method);
    nibl_cli_json_integer(json, "file_bytes", r->file_bytes);
    nibl_cli_json_integer(json, "weights", plan->weights);
    nibl_cli_json_integer(json, "scratch", plan->scratch);
    nibl_cli_json_integer(json, "vocabulary", plan->vocabulary);
    for (int part = 0; part < 2; part++) {
        nibl_cli_json_open(json, part == 0 ? "kv" : "total", '{');
        for (uint32_t kv = 0; kv < KV_TYPES; kv++)
            nibl_cli_json_integer(json, kv_names[kv], part == 0 ? r->plans[kv].kv : r->plans[kv].total);
        nibl_cli_json_close(json, '}');
    }
    nibl_cli_json_boolean(json, "fits", plan->total <= f->memory);
    nibl_cli_json_integer(json, "longest_context", r->longest);
    nibl_cli_json_real(json, "kv_outgrows_weights_at", outgrown_at(plan));
    if (r->type[0]) {
        nibl_cli_json_open(json, "loss", '{');
        print_estimate(json, "perplexity", r->perplexity);
        print_estimate(json, "kl", r->kl);
        nibl_cli_json_close(json, '}');
    }
    nibl_cli_json_close(json, '}');
}

static void print_json(const char *path, const fitting *f) {
    const recipe *best = choose(f);
    nibl_cli_json json = {.out = stdout};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_string(&json, "model", path);
    nibl_cli_json_integer(&json, "parameters", f->parameters);
    nibl_cli_json_integer(&json, "memory", f->memory);
    nibl_cli_json_integer(&json, "context_length", f->recipes[0].plans[0].context_length);
    nibl_cli_json_string(&json, "losses_of", "SmolLM2-135M-Instruct");
    nibl_cli_json_open(&json, "recipes", '[');
    for (size_t i = 0; i < f->count; i++) print_recipe(&json, f, &f->recipes[i]);
    nibl_cli_json_close(&json, ']');
    if (best) nibl_cli_json_integer(&json, "choice", (uint64_t)(best - f->recipes));
    if (f->note[0]) nibl_cli_json_string(&json, "note", f->note);
    nibl_cli_json_close(&json, '}');
}

static void print_row(const fitting *f, const recipe *r, bool is_choice) {
    const nibl_plan *plan = &r->plans[NIBL_KV_I8];
    char what[64], loss[64] = "none";
    snprintf(what, sizeof what, "%s%s%s", r->type[0] ? r->type : "as it is", r->type[0] ? " " : "",
             r->type[0] ? r->method : "");
    if (r->type[0]) snprintf(loss, sizeof loss, "%+.1f %%, %.4f", 100 * r->perplexity[0], r->kl[0]);
    printf("%c %-16s%9.1f%10.1f%9.1f%9.1f%10.1f%10.1f  %-17s%9" PRIu64 "%10.0f\n",
           is_choice                  ? '*'
           : plan->total <= f->memory ? ' '
                                      : '-',
           what, (double)r->file_bytes * MB, (double)plan->weights * MB, (double)plan->kv * MB,
           (double)r->plans[NIBL_KV_F16].kv * MB, (double)plan->total * MB,
           (double)r->plans[NIBL_KV_F16].total * MB, loss, r->longest, outgrown_at(plan));
}

static void print_table(const char *path, const fitting *f) {
    const recipe *best = choose(f);
    printf("%s: %.1f million parameters (%s), %.0f MB of memory, a context of %u tokens\n\n", path,
           (double)f->parameters * MB, f->source.bytes ? f->source.bytes : "", (double)f->memory * MB,
           f->recipes[0].plans[0].context_length);
    puts("                       MB of KV cache, and of all with it              loss: perplexity,  longest  "
         "KV cache\n"
         "  recipe               file   weights    KV i8   KV f16    all i8   all f16  KL in nats          "
         "context > weights");
    for (size_t i = 0; i < f->count; i++) print_row(f, &f->recipes[i], best == &f->recipes[i]);
    puts("\n* the choice; - does not fit. Losses are those of SmolLM2-135M, the hard case: larger models "
         "lose less.");
    if (f->note[0]) printf("No recipes: %s\n", f->note);
    if (!best) puts("Nothing fits: a shorter context (-c) or a smaller model.");
    if (best && best->type[0])
        printf("nibl quantize %s OUT.gguf %s%s%s%s\n", path, best->type,
               strcmp(best->method, "rtn") ? " --method " : "",
               strcmp(best->method, "rtn") ? best->method : "",
               strcmp(best->method, "rtn") && strcmp(best->method, "clip") ? " --calibration TEXT" : "");
}

static int fit(const char *path, const void *given) {
    fitting *f = calloc(1, sizeof *f);
    if (!f) return nibl_cli_fail("out of memory");
    f->o = given;
    int code = NIBL_EXIT_OK;
    if (!f->o->memory || !nibl_cli_parse_size(f->o->memory, &f->memory))
        code = nibl_cli_fail_usage(nibl_cli_fit.name, "--memory must be a size as 4GB or 800MiB");
    if (code == NIBL_EXIT_OK) code = plan_source(f, path);
    if (code == NIBL_EXIT_OK) code = read_losses(f);
    size_t kept = 1;
    for (size_t i = 1; i < f->count && code == NIBL_EXIT_OK; i++) {
        code = plan_output(f, path, &f->recipes[i]);
        if (f->recipes[i].file_bytes > 0) f->recipes[kept++] = f->recipes[i];
    }
    f->count = kept;
    if (code == NIBL_EXIT_OK) (f->o->json ? print_json : print_table)(path, f);
    nibl_cli_text_free(&f->source);
    free(f);
    return code;
}

const nibl_cli_verb nibl_cli_fit = {
    .name = "fit",
    .arguments = "MODEL --memory 4GB [options]",
    .summary = "Tells what of a model fits a device, at which loss.",
    .details = "\n"
               "MODEL is a GGUF file, a Hugging Face folder, or a config.json alone. Memory is what a load "
               "plans; a file's\n"
               "embedding and head are Q8_0, as `nibl quantize` makes them.\n",
    .options = table,
    .option_count = sizeof table / sizeof *table,
    .defaults = &defaults,
    .options_size = sizeof defaults,
    .run = fit,
};

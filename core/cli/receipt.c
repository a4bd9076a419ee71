#include "core/cli/receipt.h"

#include "core/cli/file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RECEIPT = 64 << 20, MAX_FILES = 4096, MAX_CONTEXT = 1 << 24, MAX_NUMBER = 32 };

static const char *const kv_types[] = {"i8", "f16", "f32", NULL};
static const char *const activations[] = {"i8", "f32", NULL};
static const char *const formats[] = {"gbnf", "json-schema", NULL};
static const char *const finishes[] = {"end", "stop", "length", "abort", NULL};
static const nibl_cli_finish finish_values[] = {NIBL_CLI_FINISH_END, NIBL_CLI_FINISH_STOP,
                                                NIBL_CLI_FINISH_LENGTH, NIBL_CLI_FINISH_INTERRUPTED};

/* ---- Reading ---- */

typedef struct reader {
    const char *path;
    nibl_cli_document document;
    nibl_cli_receipt *receipt;
    bool bad; /* told already */
} reader;

static void refuse(reader *r, const char *name, const char *must) {
    if (!r->bad) nibl_cli_fail("%s: is no receipt: \"%s\" must be %s", r->path, name, must);
    r->bad = true;
}

static const nibl_cli_node *node_at(const reader *r, size_t index) { return &r->document.nodes[index]; }

static bool is_word(const reader *r, size_t index, const char *word) {
    const nibl_cli_node *node = node_at(r, index);
    return index != 0 && node->kind == '0' && node->length == strlen(word) &&
           memcmp(node->bytes, word, node->length) == 0;
}

/* A member that is null counts as absent. */
static size_t member(const reader *r, size_t object, const char *name) {
    const size_t index = nibl_cli_document_member(&r->document, object, name);
    return is_word(r, index, "null") ? 0 : index;
}

static size_t container(reader *r, size_t object, const char *name, char kind) {
    const size_t index = member(r, object, name);
    if (index != 0 && node_at(r, index)->kind == kind) return index;
    refuse(r, name, kind == '{' ? "an object" : "an array");
    return 0;
}

static bool parse_number(const reader *r, size_t index, double *out) {
    const nibl_cli_node *node = node_at(r, index);
    char copy[MAX_NUMBER + 1], *end;
    if (index == 0 || node->kind != '0' || node->length > MAX_NUMBER) return false;
    memcpy(copy, node->bytes, node->length);
    copy[node->length] = '\0';
    if (copy[strspn(copy, "+-.0123456789eE")] != '\0') return false;
    *out = strtod(copy, &end);
    return *end == '\0' && end != copy && isfinite(*out);
}

static double number(reader *r, size_t index, const char *name, double low, double high) {
    double value;
    if (parse_number(r, index, &value) && value >= low && value <= high) return value;
    char must[64];
    snprintf(must, sizeof must, "a number from %.9g to %.9g", low, high);
    refuse(r, name, must);
    return low;
}

static uint64_t whole(reader *r, size_t index, const char *name, double low, double high) {
    const double value = number(r, index, name, low, high);
    if (value == floor(value)) return (uint64_t)value;
    refuse(r, name, "a whole number");
    return 0;
}

static void text(reader *r, size_t index, const char *name, nibl_cli_text *out) {
    if (!nibl_cli_document_text(&r->document, index, out)) refuse(r, name, "a text without NUL bytes");
}

static size_t choice(reader *r, size_t index, const char *name, const char *const *choices) {
    const nibl_cli_node *node = node_at(r, index);
    for (size_t i = 0; choices[i] && index != 0 && node->kind == '"'; i++)
        if (strlen(choices[i]) == node->length && memcmp(choices[i], node->bytes, node->length) == 0)
            return i;
    refuse(r, name, "one of those that there are");
    return 0;
}

static void token_list(reader *r, size_t object, nibl_cli_tokens *out) {
    const size_t list = container(r, object, "tokens", '[');
    if (r->bad) return;
    for (size_t i = list + 1; i < node_at(r, list)->next && !r->bad; i = node_at(r, i)->next) {
        const int32_t token = (int32_t)whole(r, i, "tokens", 0, INT32_MAX);
        if (out->count == MAX_CONTEXT) refuse(r, "tokens", "shorter");
        if (!r->bad && !nibl_cli_tokens_append(out, &token, 1)) r->bad = true;
    }
}

static bool is_plain_name(const nibl_cli_text *name) {
    return name->length > 0 && name->bytes[strcspn(name->bytes, "/\\:")] == '\0' && name->bytes[0] != '.';
}

static nibl_cli_receipt_file *new_file(nibl_cli_receipt *receipt) {
    const size_t bytes = (receipt->file_count + 1) * sizeof *receipt->files;
    nibl_cli_receipt_file *files = receipt->file_count < MAX_FILES ? realloc(receipt->files, bytes) : NULL;
    if (!files) return NULL;
    receipt->files = files;
    files[receipt->file_count] = (nibl_cli_receipt_file){0};
    return &files[receipt->file_count++];
}

static void read_files(reader *r) {
    const size_t model = container(r, 0, "model", '{');
    if (r->bad) return;
    const size_t list = container(r, model, "files", '[');
    if (r->bad) return;
    for (size_t i = list + 1; i < node_at(r, list)->next && !r->bad; i = node_at(r, i)->next) {
        nibl_cli_receipt_file *file = node_at(r, i)->kind == '{' ? new_file(r->receipt) : NULL;
        if (!file) {
            refuse(r, "files", "a list of objects, not too many");
            return;
        }
        text(r, member(r, i, "name"), "name", &file->name);
        if (!r->bad && !is_plain_name(&file->name)) refuse(r, "name", "that of a file, without its folder");
        file->size = whole(r, member(r, i, "size"), "size", 0, 1e15);
        const size_t sha256 = member(r, i, "sha256");
        if (sha256 == 0) continue;
        const nibl_cli_node *node = node_at(r, sha256);
        if (node->kind != '"' || node->length != 64 || strspn(node->bytes, "0123456789abcdef") != 64) {
            refuse(r, "sha256", "64 hexadecimal digits or null");
            return;
        }
        memcpy(file->sha256, node->bytes, 64);
    }
}

static void read_biases(reader *r, size_t list) {
    nibl_cli_receipt *out = r->receipt;
    size_t count = 0;
    for (size_t i = list + 1; i < node_at(r, list)->next; i = node_at(r, i)->next) count++;
    out->biases = calloc(count + 1, sizeof *out->biases);
    if (!out->biases) {
        refuse(r, "logitBias", "shorter");
        return;
    }
    out->sampler.logit_bias = out->biases;
    for (size_t i = list + 1; i < node_at(r, list)->next && !r->bad; i = node_at(r, i)->next) {
        if (node_at(r, i)->kind != '[' || node_at(r, i)->next != i + 3) {
            refuse(r, "logitBias", "a list of [token, bias]");
            return;
        }
        nibl_logit_bias *bias = &out->biases[out->sampler.logit_bias_count++];
        bias->token = (int32_t)whole(r, i + 1, "logitBias", 0, INT32_MAX);
        bias->bias =
            is_word(r, i + 2, "null") ? -INFINITY : (float)number(r, i + 2, "logitBias", -3e38, 3e38);
    }
}

static void read_stops(reader *r, size_t list) {
    nibl_cli_receipt *out = r->receipt;
    for (size_t i = list + 1; i < node_at(r, list)->next && !r->bad; i = node_at(r, i)->next) {
        if (out->stop_count == NIBL_CLI_MAX_TEXTS) {
            refuse(r, "stop", "a list of 16 texts at most");
            return;
        }
        text(r, i, "stop", &out->stop[out->stop_count++]);
    }
}

static void read_settings(reader *r) {
    nibl_cli_receipt *out = r->receipt;
    const size_t s = container(r, 0, "settings", '{');
    if (r->bad) return;
    out->session = (nibl_session_options){.size = sizeof out->session};
    out->session.context_length =
        (uint32_t)whole(r, member(r, s, "contextLength"), "contextLength", 1, MAX_CONTEXT);
    out->session.kv_type = (uint32_t)choice(r, member(r, s, "kv"), "kv", kv_types);
    out->session.activations = (uint32_t)choice(r, member(r, s, "activations"), "activations", activations);
    if (member(r, s, "quantize")) text(r, member(r, s, "quantize"), "quantize", &out->quantize);
    const size_t limit = member(r, s, "maxTokens");
    out->limit = limit ? (int64_t)whole(r, limit, "maxTokens", 0, INT32_MAX) : -1;
    nibl_sampler_options *o = &out->sampler;
    *o = (nibl_sampler_options){.size = sizeof *o};
    o->temperature = (float)number(r, member(r, s, "temperature"), "temperature", 0, 100);
    o->top_k = (uint32_t)whole(r, member(r, s, "topK"), "topK", 0, INT32_MAX);
    o->top_p = (float)number(r, member(r, s, "topP"), "topP", 0, 1);
    o->min_p = (float)number(r, member(r, s, "minP"), "minP", 0, 1);
    o->repeat_penalty = (float)number(r, member(r, s, "repeatPenalty"), "repeatPenalty", 0, 100);
    o->repeat_window = (uint32_t)whole(r, member(r, s, "repeatWindow"), "repeatWindow", 1, INT32_MAX);
    o->seed = whole(r, member(r, 0, "seed"), "seed", 0, 9007199254740991.0);
    const size_t stops = container(r, s, "stop", '['), biases = container(r, s, "logitBias", '[');
    if (r->bad) return;
    read_stops(r, stops);
    read_biases(r, biases);
    const size_t grammar = member(r, s, "grammar");
    out->grammar_format = -1;
    if (grammar == 0) return;
    out->grammar_format = (int)choice(r, member(r, grammar, "format"), "format", formats);
    text(r, member(r, grammar, "text"), "grammar", &out->grammar);
}

static void read_answer(reader *r) {
    nibl_cli_receipt *out = r->receipt;
    const size_t prompt = container(r, 0, "prompt", '{');
    if (r->bad) return;
    text(r, member(r, prompt, "text"), "text", &out->prompt);
    out->bos = is_word(r, member(r, prompt, "bos"), "true");
    if (!out->bos && !is_word(r, member(r, prompt, "bos"), "false")) refuse(r, "bos", "true or false");
    token_list(r, prompt, &out->prompt_tokens);
    token_list(r, 0, &out->tokens);
    if (!r->bad && (out->prompt_tokens.count == 0 || out->tokens.count == 0))
        refuse(r, "tokens", "some: there is nothing to repeat");
    text(r, member(r, 0, "text"), "text", &out->text);
    out->finish = finish_values[choice(r, member(r, 0, "finish"), "finish", finishes)];
    const size_t hash = member(r, 0, "hash");
    if (hash == 0 || node_at(r, hash)->kind != '"' || node_at(r, hash)->length != 16 ||
        strspn(node_at(r, hash)->bytes, "0123456789abcdef") != 16) {
        refuse(r, "hash", "16 hexadecimal digits");
        return;
    }
    out->hash = strtoull(node_at(r, hash)->bytes, NULL, 16);
}

int nibl_cli_receipt_read(const char *path, nibl_cli_receipt *out) {
    nibl_cli_text bytes = {0};
    reader r = {.path = path, .receipt = out};
    *out = (nibl_cli_receipt){0};
    int code = nibl_cli_read_file(path, MAX_RECEIPT, &bytes);
    if (code == NIBL_EXIT_OK) {
        const bool is_object = bytes.length > 0 && nibl_cli_document_parse(bytes.bytes, &r.document) &&
                               node_at(&r, 0)->kind == '{';
        if (!is_object || !is_word(&r, member(&r, 0, "receipt"), "1")) {
            r.bad = true;
            nibl_cli_fail("%s: is no receipt, which is a JSON object with \"receipt\": 1", path);
        } else {
            read_files(&r);
            if (!r.bad) read_settings(&r);
            if (!r.bad) read_answer(&r);
        }
    }
    nibl_cli_document_free(&r.document);
    nibl_cli_text_free(&bytes);
    return r.bad ? NIBL_EXIT_FAILED : code;
}

void nibl_cli_receipt_free(nibl_cli_receipt *r) {
    for (size_t i = 0; i < r->file_count; i++) nibl_cli_text_free(&r->files[i].name);
    for (size_t i = 0; i < r->stop_count; i++) nibl_cli_text_free(&r->stop[i]);
    free(r->files);
    free(r->biases);
    nibl_cli_text *texts[] = {&r->prompt, &r->text, &r->grammar, &r->quantize};
    for (size_t i = 0; i < 4; i++) nibl_cli_text_free(texts[i]);
    nibl_cli_tokens_free(&r->prompt_tokens);
    nibl_cli_tokens_free(&r->tokens);
    *r = (nibl_cli_receipt){0};
}

/* ---- Writing ---- */

int nibl_cli_receipt_add_file(nibl_cli_receipt *receipt, const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    nibl_cli_receipt_file *file = new_file(receipt);
    if (!file || !nibl_cli_text_append(&file->name, name, strlen(name)))
        return nibl_cli_fail("out of memory");
    return nibl_cli_sha256_file(path, &file->size, file->sha256);
}

static void write_text(nibl_cli_json *json, const char *key, const nibl_cli_text *text) {
    nibl_cli_json_bytes(json, key, text->bytes ? text->bytes : "", text->length);
}

static void write_tokens(nibl_cli_json *json, const nibl_cli_tokens *tokens) {
    nibl_cli_json_open(json, "tokens", '[');
    for (size_t i = 0; i < tokens->count; i++) nibl_cli_json_integer(json, NULL, (uint64_t)tokens->ids[i]);
    nibl_cli_json_close(json, ']');
}

static void write_settings(nibl_cli_json *json, const nibl_cli_receipt *r) {
    const nibl_sampler_options *o = &r->sampler;
    nibl_cli_json_open(json, "settings", '{');
    nibl_cli_json_integer(json, "contextLength", r->session.context_length);
    nibl_cli_json_string(json, "kv", kv_types[r->session.kv_type]);
    nibl_cli_json_string(json, "activations", activations[r->session.activations]);
    if (r->quantize.length) write_text(json, "quantize", &r->quantize);
    if (r->limit >= 0) nibl_cli_json_integer(json, "maxTokens", (uint64_t)r->limit);
    nibl_cli_json_real(json, "temperature", (double)o->temperature);
    nibl_cli_json_integer(json, "topK", o->top_k);
    nibl_cli_json_real(json, "topP", (double)o->top_p);
    nibl_cli_json_real(json, "minP", (double)o->min_p);
    nibl_cli_json_real(json, "repeatPenalty", (double)o->repeat_penalty);
    nibl_cli_json_integer(json, "repeatWindow", o->repeat_window);
    nibl_cli_json_open(json, "stop", '[');
    for (size_t i = 0; i < r->stop_count; i++) write_text(json, NULL, &r->stop[i]);
    nibl_cli_json_close(json, ']');
    nibl_cli_json_open(json, "logitBias", '[');
    for (size_t i = 0; i < o->logit_bias_count; i++) {
        nibl_cli_json_open(json, NULL, '[');
        nibl_cli_json_integer(json, NULL, (uint64_t)o->logit_bias[i].token);
        nibl_cli_json_real(json, NULL, (double)o->logit_bias[i].bias);
        nibl_cli_json_close(json, ']');
    }
    nibl_cli_json_close(json, ']');
    if (r->grammar_format >= 0) {
        nibl_cli_json_open(json, "grammar", '{');
        nibl_cli_json_string(json, "format", formats[r->grammar_format]);
        write_text(json, "text", &r->grammar);
        nibl_cli_json_close(json, '}');
    }
    nibl_cli_json_close(json, '}');
}

int nibl_cli_receipt_write(const char *path, const nibl_cli_receipt *r, const nibl_model_info *model) {
    nibl_cli_output output;
    int code = nibl_cli_output_open(path, &output);
    if (code != NIBL_EXIT_OK) return code;
    size_t finish = 0;
    while (finish < 3 && finish_values[finish] != r->finish) finish++;
    if (r->finish == NIBL_CLI_FINISH_CONTEXT) finish = 2;
    nibl_cli_json json = {.out = output.stream};
    nibl_cli_json_open(&json, NULL, '{');
    nibl_cli_json_integer(&json, "receipt", 1);
    nibl_cli_json_string(&json, "nibl", NIBL_VERSION);
    nibl_cli_json_open(&json, "model", '{');
    nibl_cli_json_string(&json, "name", model->name);
    nibl_cli_json_string(&json, "architecture", model->architecture);
    nibl_cli_json_open(&json, "files", '[');
    for (size_t i = 0; i < r->file_count; i++) {
        nibl_cli_json_open(&json, NULL, '{');
        write_text(&json, "name", &r->files[i].name);
        nibl_cli_json_integer(&json, "size", r->files[i].size);
        nibl_cli_json_string(&json, "sha256", r->files[i].sha256);
        nibl_cli_json_close(&json, '}');
    }
    nibl_cli_json_close(&json, ']');
    nibl_cli_json_close(&json, '}');
    nibl_cli_json_open(&json, "prompt", '{');
    write_text(&json, "text", &r->prompt);
    nibl_cli_json_boolean(&json, "bos", r->bos);
    write_tokens(&json, &r->prompt_tokens);
    nibl_cli_json_close(&json, '}');
    write_settings(&json, r);
    nibl_cli_json_integer(&json, "seed", r->sampler.seed);
    write_tokens(&json, &r->tokens);
    write_text(&json, "text", &r->text);
    nibl_cli_json_string(&json, "finish", finishes[finish]);
    nibl_cli_json_hash(&json, "hash", r->hash);
    nibl_cli_json_close(&json, '}');
    return nibl_cli_output_commit(&output);
}

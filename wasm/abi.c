/* The C side of the JavaScript boundary: what nibl.h says with structs and 64-bit integers, said with scalars and
 * pointers. File offsets and byte counts are doubles (exact to 2^53; JavaScript never passes a negative one); results
 * go to memory of the caller. Functions of nibl.h whose signatures are plain already are exported as they are: see
 * exports.txt. */
#include "core/nibl.h"

nibl_status nibl_abi_loader_new(double file_size, nibl_loader **out) {
    return nibl_loader_new((uint64_t)file_size, out);
}

/* out: {offset, length} */
nibl_status nibl_abi_loader_want(const nibl_loader *loader, double *out) {
    uint64_t offset = 0, length = 0;
    nibl_status status = nibl_loader_want(loader, &offset, &length);
    out[0] = (double)offset;
    out[1] = (double)length;
    return status;
}

nibl_status nibl_abi_loader_feed(nibl_loader *loader, double offset, const void *bytes, size_t length) {
    return nibl_loader_feed(loader, (uint64_t)offset, bytes, length);
}

nibl_status nibl_abi_loader_end(nibl_loader *loader, double file_size) {
    return nibl_loader_end(loader, (uint64_t)file_size);
}

/* out: {context_length, file_tensor_bytes, weights, kv, scratch, vocabulary, total} */
nibl_status nibl_abi_loader_plan(const nibl_loader *loader, uint32_t context_length, uint32_t threads,
                                 uint32_t kv_type, uint32_t sessions, double *out) {
    nibl_plan plan = {.size = sizeof plan,
                      .context_length = context_length,
                      .threads = threads,
                      .kv_type = kv_type,
                      .sessions = sessions};
    nibl_status status = nibl_loader_plan(loader, &plan);
    if (status < 0) return status;
    out[0] = plan.context_length;
    out[1] = (double)plan.file_tensor_bytes;
    out[2] = (double)plan.weights;
    out[3] = (double)plan.kv;
    out[4] = (double)plan.scratch;
    out[5] = (double)plan.vocabulary;
    out[6] = (double)plan.total;
    return NIBL_OK;
}

/* nibl_quantize_options, every member one word. */
typedef struct abi_quantize_options {
    const char *type, *embedding, *head, *method, *format, *config;
    const nibl_tensor_type *tensors;
    size_t tensor_count, threads, requantize, measure, force, shard_bytes;
    const void *imatrix;
    size_t imatrix_bytes;
} abi_quantize_options;

static nibl_quantize_options options_of(const abi_quantize_options *o) {
    return (nibl_quantize_options){.size = sizeof(nibl_quantize_options),
                                   .type = o->type,
                                   .embedding = o->embedding,
                                   .head = o->head,
                                   .method = o->method,
                                   .tensors = o->tensors,
                                   .tensor_count = o->tensor_count,
                                   .threads = (uint32_t)o->threads,
                                   .format = o->format,
                                   .config = o->config,
                                   .shard_bytes = o->shard_bytes,
                                   .requantize = o->requantize != 0,
                                   .measure = o->measure != 0,
                                   .force = o->force != 0,
                                   .imatrix = o->imatrix,
                                   .imatrix_bytes = o->imatrix_bytes};
}

bool nibl_abi_quantize_needs_model(nibl_loader *loader, const abi_quantize_options *o) {
    const nibl_quantize_options options = options_of(o);
    return nibl_quantize_needs_model(loader, &options);
}

bool nibl_abi_quantize_needs_text(const abi_quantize_options *o) {
    const nibl_quantize_options options = options_of(o);
    return nibl_quantize_needs_text(&options);
}

nibl_status nibl_abi_quantizer_new(nibl_loader *loader, const abi_quantize_options *o, nibl_quantizer **out) {
    const nibl_quantize_options options = options_of(o);
    return nibl_quantizer_new(loader, &options, out);
}

nibl_status nibl_abi_model_quantizer_new(nibl_model *model, const abi_quantize_options *o,
                                         const int32_t *tokens, size_t count, uint32_t window,
                                         nibl_quantizer **out) {
    const nibl_quantize_options options = options_of(o);
    return nibl_model_quantizer_new(model, &options, tokens, count, window, out);
}

nibl_status nibl_abi_allotment_new(nibl_model *model, const abi_quantize_options *o, const char *types,
                                   const int32_t *tokens, size_t count, uint32_t window,
                                   nibl_allotment **out) {
    const nibl_quantize_options options = options_of(o);
    return nibl_allotment_new(model, &options, types, tokens, count, window, out);
}

/* Puts the chosen types into the options. */
nibl_status nibl_abi_allotment_choose(nibl_allotment *allotment, double bytes, abi_quantize_options *o) {
    return nibl_allotment_choose(allotment, (uint64_t)bytes, &o->tensors, &o->tensor_count);
}

double nibl_abi_quantizer_size(const nibl_quantizer *quantizer) {
    return (double)nibl_quantizer_size(quantizer);
}

/* out: {architecture, name (both addresses of C strings), parameters, packed_bytes, context_length, layers,
 * vocabulary, bos, eos, add_bos, width} */
nibl_status nibl_abi_model_info(const nibl_model *model, double *out) {
    nibl_model_info info = {.size = sizeof info};
    nibl_status status = nibl_model_get_info(model, &info);
    if (status < 0) return status;
    out[0] = (double)(uintptr_t)info.architecture;
    out[1] = (double)(uintptr_t)info.name;
    out[2] = (double)info.parameters;
    out[3] = (double)info.packed_bytes;
    out[4] = info.context_length;
    out[5] = info.layers;
    out[6] = info.vocabulary;
    out[7] = info.bos;
    out[8] = info.eos;
    out[9] = info.add_bos;
    out[10] = info.width;
    return NIBL_OK;
}

nibl_status nibl_abi_session_new(nibl_model *model, uint32_t context_length, uint32_t chunk, uint32_t threads,
                                 uint32_t kv_type, uint32_t activations, uint32_t logits,
                                 nibl_session **out) {
    const nibl_session_options options = {.size = sizeof options,
                                          .context_length = context_length,
                                          .chunk = chunk,
                                          .threads = threads,
                                          .kv_type = kv_type,
                                          .activations = activations,
                                          .logits = logits};
    return nibl_session_new(model, &options, out);
}

/* A row of logits and the token that follows in the text. out: {log p of the token, log p of the likeliest one, that token, and
 * where there is a reference's row the same three of it, and KL(reference, row)} */
nibl_status nibl_abi_score(const float *logits, const float *reference, uint32_t vocabulary, int32_t next,
                           double *out) {
    const float *rows[] = {logits, reference};
    for (int r = 0; r < 2 && rows[r]; r++) {
        uint32_t top = 0;
        for (uint32_t i = 1; i < vocabulary; i++)
            if (rows[r][i] > rows[r][top]) top = i;
        nibl_status status = nibl_log_probability(rows[r], vocabulary, next, &out[3 * r]);
        if (status >= 0) status = nibl_log_probability(rows[r], vocabulary, (int32_t)top, &out[3 * r + 1]);
        if (status < 0) return status;
        out[3 * r + 2] = top;
    }
    return reference ? nibl_divergence(logits, reference, vocabulary, &out[6]) : NIBL_OK;
}

/* Tokens of the session that are computed, and that are not yet. */
size_t nibl_abi_session_computed(const nibl_session *session) {
    size_t computed = 0;
    nibl_session_length(session, NULL, &computed);
    return computed;
}

size_t nibl_abi_session_pending(const nibl_session *session) {
    size_t tokens = 0, computed = 0;
    nibl_session_length(session, &tokens, &computed);
    return tokens - computed;
}

/* out: {high, low} 32 bits */
void nibl_abi_session_hash(const nibl_session *session, uint32_t *out) {
    uint64_t hash = nibl_session_hash(session);
    out[0] = (uint32_t)(hash >> 32);
    out[1] = (uint32_t)hash;
}

/* out: {proposed, accepted} */
void nibl_abi_session_guesses(const nibl_session *session, double *out) {
    uint64_t proposed = 0, accepted = 0;
    nibl_session_guesses(session, &proposed, &accepted);
    out[0] = (double)proposed;
    out[1] = (double)accepted;
}

nibl_status nibl_abi_sampler_new(const nibl_model *model, float temperature, uint32_t top_k, float top_p,
                                 float min_p, float repeat_penalty, uint32_t repeat_window,
                                 uint32_t seed_high, uint32_t seed_low, const nibl_logit_bias *bias,
                                 size_t bias_count, nibl_sampler **out) {
    const nibl_sampler_options options = {.size = sizeof options,
                                          .temperature = temperature,
                                          .top_k = top_k,
                                          .top_p = top_p,
                                          .min_p = min_p,
                                          .repeat_penalty = repeat_penalty,
                                          .repeat_window = repeat_window,
                                          .seed = (uint64_t)seed_high << 32 | seed_low,
                                          .logit_bias = bias,
                                          .logit_bias_count = bias_count};
    return nibl_sampler_new(model, &options, out);
}

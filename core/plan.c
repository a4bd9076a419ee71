#include "core/plan.h"

#include "core/session.h"
#include "core/tokenizer.h"

/* What the allocator adds to all but the weights, which are one block: one part in so many. */
enum { OVERHEAD_SHARE = 256 };

/* Bytes per token of a tokenizer that is not there: an estimate above those of byte-level BPE that were looked at. */
enum { TOKEN_BYTES = 110 };

nibl_status nibl_model_plan(nibl_gguf *gguf, const nibl_dtype *quantize, nibl_plan *plan) {
    if (plan->size != sizeof *plan)
        return nibl_fail(NIBL_E_ARGUMENT, "nibl_plan.size is %zu, must be %zu", plan->size, sizeof *plan);
    nibl_model_size size;
    NIBL_TRY(nibl_model_sizes(gguf, quantize, &size));
    nibl_session_options o = {.size = sizeof o,
                              .context_length = plan->context_length,
                              .threads = plan->threads,
                              .kv_type = plan->kv_type};
    NIBL_TRY(nibl_session_defaults(&size.hyper, &o));

    nibl_kv kv;
    nibl_kv_init(&kv, &size.hyper, o.kv_type, o.context_length);
    plan->context_length = o.context_length;
    plan->threads = o.threads;
    plan->sessions = plan->sessions ? plan->sessions : 1;
    plan->file_tensor_bytes = size.file_bytes;
    plan->weights = size.packed_bytes;
    plan->kv = plan->sessions * nibl_kv_bytes(&kv, o.context_length);
    const uint32_t logits = plan->sessions * (1 + NIBL_GUESSES);
    /* a prompt as long as the context may be prefilled while the weights arrive */
    plan->scratch =
        nibl_run_bytes(&size.hyper, o.context_length, o.chunk, logits, o.threads, o.context_length) +
        4ull * logits * size.hyper.vocabulary + 8ull * plan->sessions * o.context_length;
    const uint64_t tokenizer = nibl_tokenizer_plan(gguf);
    plan->vocabulary = nibl_gguf_header_bytes(gguf) +
                       (tokenizer ? tokenizer : (uint64_t)TOKEN_BYTES * size.hyper.vocabulary);
    const uint64_t rest = plan->kv + plan->scratch + plan->vocabulary;
    plan->total = plan->weights + rest + rest / OVERHEAD_SHARE;
    return NIBL_OK;
}

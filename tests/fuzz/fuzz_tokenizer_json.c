/* tokenizer.json: what it becomes in a header, and the tokenizer that this makes. */
#include "core/hf.h"
#include "core/tokenizer.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t before, after;
    nibl_memory(&before, NULL);
    nibl_hf_parsed hf = {0};
    if (nibl_json_parse("tokenizer.json", (const char *)data, size, &hf.json[NIBL_HF_TOKENIZER]) == NIBL_OK) {
        nibl_gguf_builder b = {0};
        nibl_gguf *gguf = NULL;
        const nibl_status status = nibl_hf_build_tokenizer(&hf, &b);
        if (status < 0) b.status = status;
        if (nibl_gguf_build_end(&b, &gguf) == NIBL_OK) {
            nibl_tokenizer *t = NULL;
            int32_t ids[256];
            size_t count;
            static const char text[] = "Hello, 12 worlds!\n<|a|> \xC3\xA9\t ab";
            if (nibl_tokenizer_new(gguf, &t) == NIBL_OK)
                nibl_tokenizer_encode(t, text, sizeof text - 1, NIBL_TOKENIZE_SPECIAL, ids, 256, &count);
            nibl_tokenizer_free(t);
            nibl_gguf_free(gguf);
        }
        nibl_json_free(&hf.json[NIBL_HF_TOKENIZER]);
    }
    nibl_memory(&after, NULL);
    if (after != before) abort();
    return 0;
}

/* The default model's tokenizer against Hugging Face's; NIBL_MODEL names the file. */
#include "tests/c/corpus.h"

static const char *model_path;

static nibl_gguf *read_header(const char *path) {
    builder b = {0};
    uint8_t piece[65536];
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("cannot open %s, which NIBL_MODEL names\n", path);
        exit(1);
    }
    for (size_t n; b.length < 8 << 20 && (n = fread(piece, 1, sizeof piece, f)) > 0;) put(&b, piece, n);
    fclose(f);
    nibl_gguf *gguf = header_of(&b);
    free(b.bytes);
    return gguf;
}

static void same_as_reference(void) {
    nibl_gguf *gguf = read_header(model_path);
    nibl_tokenizer *t = NULL;
    CHECK(peak_of_new(gguf, &t) <= nibl_tokenizer_plan(gguf));
    CHECK(nibl_tokenizer_plan(gguf) < 2 << 20);
    CHECK_EQ(nibl_tokenizer_size(t), 49152);
    CHECK_EQ(nibl_tokenizer_bos(t), 1);
    CHECK_EQ(nibl_tokenizer_eos(t), 2);
    CHECK(!nibl_tokenizer_add_bos(t));
    CHECK(nibl_tokenizer_is_end(t, 2) && !nibl_tokenizer_is_end(t, 1) && !nibl_tokenizer_is_end(t, -1));
    check_corpus(t,
                 (corpus_check){.ids = FIXTURE("smollm2.ids"), .lost = "\x04\x06\x13\x14\x16\x1d\xf1\xf2"});
    nibl_tokenizer_free(t);
    nibl_gguf_free(gguf);
    CHECK_EQ(memory_now(), 0);
}

int main(void) {
    static const test tests[] = {
        {"ids of the corpus are Hugging Face's, and the text comes back", same_as_reference}};
    model_path = getenv("NIBL_MODEL");
    if (!model_path) {
        printf("skipped: no model (NIBL_MODEL is not set)\n");
        return 77;
    }
    return test_run(tests, sizeof tests / sizeof *tests);
}

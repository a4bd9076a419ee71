/* Saved sessions of anybody: a right one with bytes that the input changes, signed again as whoever sends it can, and the
 * input itself. What is taken is gone on with. Input: the KV type and how it is fed, then changes: a place (2 bytes), a byte. */
#include "core/session.h"
#include "tests/c/model_file.h"
#include "tests/fuzz/fuzz.h"

enum { TOKENS = 70 /* more than one block of keys and values */, KV_TYPES = 3 };

static struct {
    nibl_session *session;
    uint8_t *saved, *changed;
    size_t length;
} kinds[KV_TYPES];

static void go_on(nibl_session *s, const int32_t *tokens, size_t count) {
    const nibl_status status = nibl_session_append(s, tokens, count);
    if (status == NIBL_E_CONTEXT) return;
    EXPECT(status == NIBL_OK);
    nibl_step(&s, 1, 0); /* numbers that overflow are an error of its own */
}

static void prepare(void) {
    int32_t tokens[TOKENS];
    nibl_model *model = load_file("tests/fixtures/tiny-llama-q4_0.gguf");
    EXPECT(model);
    for (int32_t i = 0; i < TOKENS; i++) tokens[i] = (i * 37 + 11) % 272;
    for (uint32_t k = 0; k < KV_TYPES; k++) {
        static const uint32_t types[KV_TYPES] = {NIBL_KV_I8, NIBL_KV_F16, NIBL_KV_F32};
        const nibl_session_options o = {.size = sizeof o, .kv_type = types[k], .context_length = 2 * TOKENS};
        const void *bytes;
        size_t n;
        EXPECT(nibl_session_new(model, &o, &kinds[k].session) == NIBL_OK);
        go_on(kinds[k].session, tokens, TOKENS);
        for (size_t i = 0; nibl_session_save(kinds[k].session, i, &bytes, &n) == NIBL_OK && n > 0; i++) {
            kinds[k].saved = realloc(kinds[k].saved, kinds[k].length + n);
            EXPECT(kinds[k].saved);
            memcpy(kinds[k].saved + kinds[k].length, bytes, n);
            kinds[k].length += n;
        }
        kinds[k].changed = malloc(kinds[k].length);
        EXPECT(kinds[k].changed && kinds[k].length > sizeof(nibl_state));
    }
}

static nibl_status restore(nibl_session *s, const uint8_t *bytes, size_t length, size_t chunk) {
    nibl_status status = NIBL_NEED_DATA;
    for (size_t at = 0, n; status == NIBL_NEED_DATA && at < length; at += n) {
        n = chunk < length - at ? chunk : length - at;
        status = nibl_session_restore(s, bytes + at, n, at == 0);
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!kinds[0].session) prepare();
    if (size < 2) return 0;
    const size_t k = data[0] % KV_TYPES, chunk = 1 + data[0] / KV_TYPES * 97u;
    nibl_session *s = kinds[k].session;
    const int32_t next = data[1];
    size_t tokens, computed;

    EXPECT(restore(s, data + 2, size - 2, chunk) != NIBL_OK);
    memcpy(kinds[k].changed, kinds[k].saved, kinds[k].length);
    for (size_t i = 2; i + 3 <= size; i += 3)
        kinds[k].changed[((size_t)data[i] | (size_t)data[i + 1] << 8) % kinds[k].length] = data[i + 2];
    nibl_status status = restore(s, kinds[k].changed, kinds[k].length, chunk);
    nibl_session_length(s, &tokens, &computed);
    if (status == NIBL_E_STATE &&
        s->state.tokens > 0) { /* all of it was read: the checksum may be all that is wrong */
        const uint64_t checksum = nibl_session_checksum(s);
        memcpy(kinds[k].changed + offsetof(nibl_state, checksum), &checksum, sizeof checksum);
        status = restore(s, kinds[k].changed, kinds[k].length, chunk);
        nibl_session_length(s, &tokens, &computed);
    }
    if (status == NIBL_OK) {
        EXPECT(tokens > 0 && tokens == computed);
        for (size_t i = 0; i < tokens; i++) EXPECT((uint32_t)s->tokens[i] < s->model->hyper.vocabulary);
        go_on(s, &next, 1);
    } else {
        EXPECT(status < 0 || status == NIBL_NEED_DATA);
        EXPECT(tokens == 0 && computed == 0);
    }
    return 0;
}

#include "core/pieces.h"

#include <string.h>

static uint64_t hash_slice(uint64_t hash, nibl_slice s) { return nibl_hash_bytes(hash, s.bytes, s.length); }

nibl_status nibl_pieces_index(nibl_pieces *pieces) {
    uint32_t count = (uint32_t)pieces->texts.count;
    NIBL_TRY(nibl_index_new(&pieces->index, count, "the vocabulary"));
    for (uint32_t i = 0; i < count; i++) {
        nibl_slice text = nibl_gguf_array_string(&pieces->texts, i);
        if (text.length > pieces->longest) pieces->longest = text.length;
        nibl_probe probe = nibl_index_start(&pieces->index, hash_slice(NIBL_HASH_SEED, text));
        for (uint32_t other; nibl_index_next(&pieces->index, &probe, &other);) {
            nibl_slice known = nibl_gguf_array_string(&pieces->texts, other);
            if (known.length == text.length && memcmp(known.bytes, text.bytes, text.length) == 0)
                return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: tokens %u and %u are the same", other,
                                 i);
        }
        if (!nibl_index_put(&pieces->index, &probe, i))
            return nibl_fail(NIBL_E_FILE, "tokenizer.ggml.tokens: token %u collides with too many others", i);
    }
    return NIBL_OK;
}

void nibl_pieces_free(nibl_pieces *pieces) { nibl_index_free(&pieces->index); }

uint32_t nibl_pieces_type(const nibl_pieces *pieces, uint32_t token) {
    return nibl_load_u32(pieces->types.data + 4 * (size_t)token);
}

uint32_t nibl_pieces_rank(const nibl_pieces *pieces, uint32_t token) {
    uint32_t bits = nibl_load_u32(pieces->scores.data + 4 * (size_t)token);
    if (bits == 0x80000000u) bits = 0; /* -0 */
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFFu;
}

uint32_t nibl_pieces_find(const nibl_pieces *pieces, nibl_slice a, nibl_slice b) {
    if (a.length + b.length > pieces->longest) return NIBL_NO_TOKEN;
    nibl_probe probe = nibl_index_start(&pieces->index, hash_slice(hash_slice(NIBL_HASH_SEED, a), b));
    for (uint32_t token; nibl_index_next(&pieces->index, &probe, &token);) {
        nibl_slice text = nibl_gguf_array_string(&pieces->texts, token);
        if (text.length == a.length + b.length && memcmp(text.bytes, a.bytes, a.length) == 0 &&
            memcmp(text.bytes + a.length, b.bytes, b.length) == 0)
            return token;
    }
    return NIBL_NO_TOKEN;
}

uint32_t nibl_pieces_find_word(const nibl_pieces *pieces, const char *bytes, size_t length) {
    uint32_t token = nibl_pieces_find(pieces, (nibl_slice){bytes, length}, (nibl_slice){"", 0});
    if (token == NIBL_NO_TOKEN) return token;
    uint32_t type = nibl_pieces_type(pieces, token);
    return type <= NIBL_TYPE_NORMAL || type == NIBL_TYPE_USER ? token : NIBL_NO_TOKEN;
}

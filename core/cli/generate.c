#include "core/cli/generate.h"
#include "core/cli/console.h"
#include "core/cli/prompt_cache.h"

#include <errno.h>
#include <string.h>

const char *nibl_cli_finish_name(nibl_cli_finish finish) {
    static const char *const names[] = {"end", "stop", "length", "context", "interrupted"};
    return names[finish];
}

void nibl_cli_answer_free(nibl_cli_answer *answer) {
    nibl_cli_text_free(&answer->text);
    nibl_cli_tokens_free(&answer->tokens);
}

typedef struct writer {
    const nibl_cli_generator *generator;
    nibl_cli_answer *answer;
    nibl_decoder *decoder;
    size_t shown; /* bytes of the answer that have been streamed; no stop string begins before them */
} writer;

static int show(writer *w, size_t end) {
    FILE *stream = w->generator->stream;
    const char *bytes = w->answer->text.bytes + w->shown;
    size_t length = end - w->shown;
    w->shown = end;
    if (!stream || length == 0) return NIBL_EXIT_OK;
    if (fwrite(bytes, 1, length, stream) == length && fflush(stream) == 0) return NIBL_EXIT_OK;
    return nibl_cli_fail("standard output: %s", strerror(errno));
}

/* Looks for stop strings in what has not been shown. Returns the end of what may be shown: the earliest stop string's
 * beginning (*found), or the beginning of the longest tail that could still grow into one. */
static size_t safe_end(const writer *w, bool *found) {
    const nibl_cli_text *text = &w->answer->text;
    const nibl_cli_texts *stop = w->generator->stop;
    size_t tail = text->length;
    for (size_t at = w->shown; at < text->length; at++) {
        size_t left = text->length - at;
        for (size_t i = 0; i < stop->count; i++) {
            size_t length = strlen(stop->items[i]);
            if (memcmp(text->bytes + at, stop->items[i], length < left ? length : left) != 0) continue;
            *found = length <= left;
            if (*found) return at;
            if (at < tail) tail = at;
        }
    }
    return tail;
}

/* Takes one token (-1: the end), appends its text and shows what is sure. */
static int take(writer *w, int32_t token, bool *stopped) {
    const char *piece;
    size_t length;
    if (nibl_decoder_push(w->decoder, token, &piece, &length) < 0)
        return nibl_cli_fail_library("decoding a token");
    if (!nibl_cli_text_append(&w->answer->text, piece, length)) return NIBL_EXIT_FAILED;
    size_t end = safe_end(w, stopped);
    if (*stopped) {
        w->answer->text.length = end;
        w->answer->text.bytes[end] = '\0';
    } else if (token < 0) {
        end = w->answer->text.length;
    }
    return show(w, end);
}

static int decode(writer *w) {
    const nibl_cli_generator *g = w->generator;
    nibl_cli_answer *answer = w->answer;
    for (int64_t made = 0;; made++) {
        answer->finish = NIBL_CLI_FINISH_LENGTH;
        if (made == g->limit) return NIBL_EXIT_OK;
        int32_t token;
        if (nibl_sample(g->sampler, g->session, &token, NULL) < 0) return nibl_cli_fail_library("sampling");
        answer->finish = NIBL_CLI_FINISH_END;
        if (nibl_is_end_token(g->model, token)) {
            answer->end_token = token;
            return NIBL_EXIT_OK;
        }
        if (!nibl_cli_tokens_append(&answer->tokens, &token, 1)) return NIBL_EXIT_FAILED;
        bool stopped = false;
        int code = take(w, token, &stopped);
        answer->finish = NIBL_CLI_FINISH_STOP;
        if (code != NIBL_EXIT_OK || stopped) return code;
        answer->finish = NIBL_CLI_FINISH_END;
        if (nibl_sampler_done(g->sampler)) return NIBL_EXIT_OK;
        if (made + 1 == g->limit) continue;
        nibl_status status = nibl_session_append(g->session, &token, 1);
        answer->finish = NIBL_CLI_FINISH_CONTEXT;
        if (status == NIBL_E_CONTEXT) return NIBL_EXIT_OK;
        if (status < 0) return nibl_cli_fail_library("decoding");
        code = nibl_cli_compute(&g->session, 1);
        answer->finish = NIBL_CLI_FINISH_INTERRUPTED;
        if (nibl_cli_interrupted()) return NIBL_EXIT_OK;
        if (code != NIBL_EXIT_OK) return code;
        answer->decoded_tokens++;
    }
}

int nibl_cli_generate(const nibl_cli_generator *generator, const nibl_cli_tokens *prompt,
                      nibl_cli_answer *answer) {
    double start = nibl_cli_seconds();
    answer->prompt_tokens = prompt->count;
    answer->end_token = -1;
    nibl_status status =
        nibl_session_set_tokens(generator->session, prompt->ids, prompt->count, &answer->reused_tokens);
    answer->too_long = status == NIBL_E_CONTEXT;
    if (status < 0) return nibl_cli_fail_library("the prompt");
    int code = nibl_cli_compute(&generator->session, 1);
    double prefilled = nibl_cli_seconds();
    answer->prefill_seconds = prefilled - start;
    answer->finish = NIBL_CLI_FINISH_INTERRUPTED;
    if (nibl_cli_interrupted()) return NIBL_EXIT_OK;
    if (code == NIBL_EXIT_OK && generator->cache)
        code = nibl_cli_prompt_cache_save(generator->cache, generator->session);
    if (code != NIBL_EXIT_OK) return code;

    if (generator->grammar && generator->limit != 0) {
        const int64_t room = (int64_t)generator->context - (int64_t)prompt->count + 1;
        const bool limited = generator->limit > 0 && generator->limit < room;
        const uint32_t tokens = (uint32_t)(limited ? generator->limit : room);
        if (nibl_sampler_constrain(generator->sampler, generator->grammar, tokens) < 0)
            return nibl_cli_fail_library("the grammar");
    }

    writer w = {.generator = generator, .answer = answer};
    if (nibl_decoder_new(generator->model, generator->special, &w.decoder) < 0)
        return nibl_cli_fail_library("decoding tokens");
    code = decode(&w);
    bool stopped = answer->finish == NIBL_CLI_FINISH_STOP;
    if (code == NIBL_EXIT_OK && !stopped) {
        code = take(&w, -1, &stopped);
        if (stopped) answer->finish = NIBL_CLI_FINISH_STOP;
    }
    nibl_decoder_free(w.decoder);
    nibl_session_guesses(generator->session, &answer->guessed, &answer->guessed_right);
    answer->decode_seconds = nibl_cli_seconds() - prefilled;
    return code;
}

/* Chat templates: they write what Jinja writes, or are refused. */
#include "tests/c/corpus.h"

enum { MAX_FIELDS = 16, MAX_CONVERSATIONS = 16, TEXT = 8192 };

typedef struct fields {
    size_t count;
    const char *at[MAX_FIELDS];
} fields;

/* Cuts the text at its separators; the fields stay in it, each with a NUL behind it. */
static fields split(record *r) {
    fields f = {1, {r->text}};
    r->text[r->length] = 0; /* at latest where the line ended */
    for (char *p = r->text; (p = strchr(p, '\x1f'));) {
        if (!CHECK(f.count < MAX_FIELDS)) break;
        *p++ = 0;
        f.at[f.count++] = p;
    }
    return f;
}

static nibl_gguf *header_with(const char *jinja) {
    builder b = {0};
    put_start(&b, 0, jinja ? 4 : 3);
    put_key_array(&b, "tokenizer.ggml.tokens", B_STRING, 3);
    put_string(&b, "<unk>");
    put_string(&b, "<s>");
    put_string(&b, "</s>");
    put_key_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    put_key_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    if (jinja) put_key_string(&b, "tokenizer.chat_template", jinja);
    nibl_gguf *gguf = header_of(&b);
    free(b.bytes);
    return gguf;
}

static size_t messages_of(const fields *conversation, nibl_message *messages) {
    size_t count = (conversation->count - 1) / 2;
    for (size_t i = 0; i < count; i++)
        messages[i] = (nibl_message){conversation->at[1 + 2 * i], conversation->at[2 + 2 * i]};
    return count;
}

static void check_expected(const nibl_gguf *gguf, const fields *conversation, const record *expected) {
    nibl_message messages[MAX_FIELDS];
    size_t count = messages_of(conversation, messages);
    char text[TEXT];
    nibl_writer w = {.text = text, .capacity = TEXT};
    CHECK_EQ(nibl_template_write(gguf, messages, count, conversation->at[0][0] == '1', NULL, &w), NIBL_OK);
    if (CHECK(w.length == expected->length && memcmp(text, expected->text, w.length) == 0)) return;
    printf("    wrote '%.*s'\n    wanted '%.*s'\n", (int)w.length, text, (int)expected->length,
           expected->text);
}

/* The template itself refuses this conversation, or looks into what is not there. */
static void check_exception(const nibl_gguf *gguf, const fields *conversation) {
    nibl_message messages[MAX_FIELDS];
    size_t count = messages_of(conversation, messages);
    char text[TEXT] = "";
    nibl_writer w = {.text = text, .capacity = TEXT};
    nibl_status status = nibl_template_write(gguf, messages, count, conversation->at[0][0] == '1', NULL, &w);
    CHECK_EQ(w.length, 0);
    if (status == NIBL_E_ARGUMENT)
        CHECK_HAS(nibl_last_message(), "chat template refuses these messages: ");
    else if (CHECK_EQ(status, NIBL_E_UNSUPPORTED))
        CHECK_HAS(nibl_last_message(), "something undefined");
}

static void check_refused(const nibl_gguf *gguf, const char *part) {
    const nibl_message message = {"user", "Hello"};
    char text[TEXT];
    nibl_writer w = {.text = text, .capacity = TEXT};
    CHECK_EQ(nibl_template_write(gguf, &message, 1, true, NULL, &w), NIBL_E_UNSUPPORTED);
    CHECK_HAS(nibl_last_message(), part);
    CHECK_EQ(w.length, 0);
}

static void same_as_jinja(void) {
    builder file = read_whole(FIXTURE("template.txt"));
    fields conversations[MAX_CONVERSATIONS];
    size_t conversation_count = 0, next = 0, known = 0, refused = 0, compared = 0, exceptions = 0;
    nibl_gguf *gguf = NULL;
    char *at = (char *)file.bytes;
    for (record r; record_next(&at, (char *)file.bytes + file.length, &r);) {
        if (r.kind == 'C' && CHECK(conversation_count < MAX_CONVERSATIONS)) {
            conversations[conversation_count++] = split(&r);
        } else if (r.kind == 'E' && CHECK(gguf && next < conversation_count)) {
            check_expected(gguf, &conversations[next++], &r);
            compared++;
        } else if (r.kind == 'R' && CHECK(gguf && next < conversation_count)) {
            check_exception(gguf, &conversations[next++]);
            exceptions++;
        } else if (r.kind == 'T') {
            fields f = split(&r);
            nibl_gguf_free(gguf);
            gguf = header_with(f.at[1]);
            next = 0;
            if (*f.at[0] == 'K')
                known++;
            else
                check_refused(gguf, f.at[1][0] ? "tokenizer.chat_template" : "no tokenizer.chat_template"),
                    refused++;
        }
    }
    CHECK(conversation_count == 10 && known == 35 && compared + exceptions == 350 && exceptions == 20);
    CHECK_EQ(refused, 38);
    nibl_gguf_free(gguf);
    free(file.bytes);
}

/* The host's date. Expected: what @huggingface/jinja 0.5 writes at that minute. */
static void dates(void) {
    static const nibl_moment now = {2026, 3, 5, 7, 9};
    static const struct {
        const char *jinja, *dated, *undated;
    } cases[] = {
        {"{{ strftime_now('%d %b %Y, %B %m %H:%M %% %y %%Y %Q%') }}",
         "05 Mar 2026, March 03 07:09 % %y %Y %Q%", NULL},
        {"{% if strftime_now is defined %}{% set d = strftime_now('%d %b %Y') %}{% else %}{% set d = '26 Jul "
         "2024' "
         "%}{% endif %}{{ d }}",
         "05 Mar 2026", "26 Jul 2024"},
        {"{{ strftime_now('') }}|{{ 'x' if strftime_now }}", "|x", NULL},
        {"{{ strftime_now(1) }}", NULL, NULL},
        {"{{ strftime_now() }}", NULL, NULL},
        {"{{ strftime_now }}", NULL, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nibl_gguf *gguf = header_with(cases[i].jinja);
        for (int dated = 0; dated < 2; dated++) {
            const nibl_message message = {"user", "Hello"};
            const char *wanted = dated ? cases[i].dated : cases[i].undated;
            char text[TEXT] = "";
            nibl_writer w = {.text = text, .capacity = TEXT};
            const nibl_status status = nibl_template_write(gguf, &message, 1, true, dated ? &now : NULL, &w);
            CHECK_EQ(status, wanted ? NIBL_OK : NIBL_E_UNSUPPORTED);
            if (wanted) CHECK(strcmp(text, wanted) == 0);
        }
        nibl_gguf_free(gguf);
    }
}

static void bad_arguments(void) {
    nibl_gguf *gguf = header_with(NULL);
    check_refused(gguf, "the file has no tokenizer.chat_template");
    nibl_writer w = {0};
    CHECK_EQ(nibl_template_write(gguf, &(nibl_message){"user", NULL}, 1, true, NULL, &w), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "message 0 has no content");
    CHECK_EQ(nibl_template_write(gguf, &(nibl_message){NULL, "Hello"}, 1, true, NULL, &w), NIBL_E_ARGUMENT);
    CHECK_HAS(nibl_last_message(), "message 0 has no role");
    nibl_gguf_free(gguf);
}

/* A template cut anywhere, or with any byte changed, is refused or still known; memory comes back. */
static void spoiled(void) {
    static const char jinja[] = "{%- for message in messages -%}{{'<|im_start|>' + message['role'] + '\\n' + "
                                "message.content + '<|im_end|>' + '\\n'}}{% endfor %}";
    const nibl_message message = {"user", "Hello"};
    uint64_t before = memory_now();
    unsigned known = 0;
    for (size_t i = 0; i < sizeof jinja; i++) {
        static const char bytes[] = {0, ' ', '-', '\'', '"', '\\', '{', '}', '%', ']', '\1'};
        for (size_t k = 0; k < sizeof bytes; k++) {
            char text[sizeof jinja];
            memcpy(text, jinja, sizeof jinja);
            text[i] = bytes[k];
            text[sizeof jinja - 1] = 0;
            nibl_gguf *gguf = header_with(text);
            nibl_writer w = {0};
            nibl_status status = nibl_template_write(gguf, &message, 1, true, NULL, &w);
            CHECK(status == NIBL_E_UNSUPPORTED || status == NIBL_OK);
            known += status == NIBL_OK;
            nibl_gguf_free(gguf);
        }
    }
    CHECK(known > 20);
    CHECK_EQ(memory_now(), before);
}

int main(void) {
    static const test tests[] = {
        {"ten conversations: the text that Jinja writes", same_as_jinja},
        {"the date that the host gives", dates},
        {"no template, messages without role or content", bad_arguments},
        {"spoiled templates", spoiled},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

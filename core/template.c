/* Chat templates: the file has its template as Jinja text, of which jinja.h runs what conversations need. */
#include "core/jinja.h"
#include "core/tokenizer.h"

/* The text of the token that the key names; empty where there is none. */
static nibl_jinja_value token_text(const nibl_gguf *gguf, const char *key) {
    nibl_slice text = {"", 0};
    nibl_gguf_array tokens;
    uint64_t id;
    if (nibl_gguf_u64(gguf, key, &id) && nibl_gguf_array_of(gguf, "tokenizer.ggml.tokens", &tokens) &&
        tokens.type == NIBL_GGUF_STRING && id < tokens.count)
        text = nibl_gguf_array_string(&tokens, id);
    return nibl_jinja_text(text);
}

static void set_variables(nibl_jinja *j, const nibl_gguf *gguf, const nibl_message *messages, size_t count,
                          bool generation_prompt, const nibl_moment *now) {
    nibl_jinja_value list = {.kind = NIBL_JINJA_LIST}, *items = NULL;
    if (count > 0) items = nibl_jinja_alloc(j, (uint64_t)count * sizeof *items);
    for (size_t i = 0; items && i < count; i++)
        items[i] = (nibl_jinja_value){NIBL_JINJA_MESSAGE, {.message = &messages[i]}};
    list.as.list.items = items;
    list.as.list.count = items ? count : 0;
    const struct {
        const char *name;
        nibl_jinja_value value;
    } variables[] = {
        {"messages", list},
        {"add_generation_prompt", nibl_jinja_bool(generation_prompt)},
        {"bos_token", token_text(gguf, "tokenizer.ggml.bos_token_id")},
        {"eos_token", token_text(gguf, "tokenizer.ggml.eos_token_id")},
    };
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        nibl_jinja_set(j, &j->variables, 0, nibl_jinja_word(variables[i].name), variables[i].value);
    if (now)
        nibl_jinja_set(j, &j->variables, 0, nibl_jinja_word("strftime_now"),
                       (nibl_jinja_value){NIBL_JINJA_CLOCK, {.now = now}});
}

nibl_status nibl_template_write(const nibl_gguf *gguf, const nibl_message *messages, size_t count,
                                bool generation_prompt, const nibl_moment *now, nibl_writer *out) {
    for (size_t i = 0; i < count; i++)
        if (!messages[i].role || !messages[i].content)
            return nibl_fail(NIBL_E_ARGUMENT, "message %zu has no %s", i,
                             messages[i].role ? "content" : "role");
    nibl_slice jinja;
    if (!nibl_gguf_string(gguf, "tokenizer.chat_template", &jinja) || jinja.length == 0)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "the file has no tokenizer.chat_template: write the prompt yourself");
    if (jinja.length > NIBL_JINJA_MAX_TEMPLATE)
        return nibl_fail(NIBL_E_UNSUPPORTED, "tokenizer.chat_template has %zu bytes (limit %u)", jinja.length,
                         (unsigned)NIBL_JINJA_MAX_TEMPLATE);
    nibl_jinja j = {0};
    const size_t before = out->length;
    nibl_jinja_tokenize(&j, jinja.bytes, jinja.length);
    set_variables(&j, gguf, messages, count, generation_prompt, now);
    nibl_status status = nibl_jinja_render(&j, out);
    nibl_jinja_free(&j);
    if (status < 0) out->length = before;
    return status;
}

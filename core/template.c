/* Chat templates known to C. The file has its template as Jinja text; it is brought into one canonical form,
 * which must then be, piece by piece, a known template:
 *
 *   chatml = [default of add_generation_prompt]
 *            for [default system message] message endfor [generation prompt]
 *
 * Canonical: tags without blanks except between two words or operators, x['name'] as x.name, literals
 * resolved, joined over '+' and enclosed in QUOTE, blanks around tags trimmed as with trim_blocks and
 * lstrip_blocks. */
#include "core/tokenizer.h"

#include <string.h>

#define QUOTE "\1"
#define CHATML_DEFAULT                                                                                       \
    "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}"
#define CHATML_FOR "{%for message in messages%}"
#define CHATML_SYSTEM                                                                                        \
    "{%if loop.first and messages[0].role!=" QUOTE "system" QUOTE "%}{{" QUOTE "<|im_start|>system\n"
#define CHATML_SYSTEM_END "<|im_end|>\n" QUOTE "}}{%endif%}"
#define CHATML_MESSAGE                                                                                       \
    "{{" QUOTE "<|im_start|>" QUOTE "+message.role+" QUOTE "\n" QUOTE "+message.content+" QUOTE              \
    "<|im_end|>\n" QUOTE "}}"
#define CHATML_END "{%endfor%}"
#define CHATML_GENERATION "{%if add_generation_prompt%}{{" QUOTE "<|im_start|>assistant\n" QUOTE "}}{%endif%}"

typedef struct chatml {
    bool generation; /* has a generation prompt */
    const char *system; /* default system message or NULL */
    size_t system_length;
} chatml;

/* ---- The canonical form ---- */

typedef struct canon {
    const char *at, *begin, *end; /* of the template */
    char *out; /* as many bytes as the template has */
    size_t length;
} canon;

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_operator(char c) { return c && strchr("!=%{}<>+-*/|~", c); }

static void put(canon *c, char byte) { c->out[c->length++] = byte; }

static bool ends_with(const canon *c, const char *tail, size_t length) {
    return c->length >= length && memcmp(c->out + c->length - length, tail, length) == 0;
}

/* A literal; false where it does not end or has an escape that is not known here. */
static bool read_literal(canon *c) {
    char mark = *c->at++;
    if (ends_with(c, QUOTE "+", 2))
        c->length -= 2;
    else
        put(c, QUOTE[0]);
    for (; c->at < c->end && *c->at != mark; c->at++) {
        char byte = *c->at;
        if (byte == '\\') {
            static const char names[] = "ntr\\'\"", bytes[] = "\n\t\r\\'\"";
            const char *name = ++c->at < c->end ? memchr(names, *c->at, sizeof names - 1) : NULL;
            if (!name) return false;
            byte = bytes[name - names];
        }
        put(c, byte);
    }
    if (c->at == c->end) return false;
    c->at++;
    put(c, QUOTE[0]);
    return true;
}

/* x['name' -> x.name, where the output ends so. */
static bool name_member(canon *c) {
    if (!ends_with(c, QUOTE, 1)) return false;
    size_t close = c->length - 1, open = close; /* where the name ends and begins */
    while (open > 0 && is_word(c->out[open - 1])) open--;
    if (open < 2 || open == close || c->out[open - 1] != QUOTE[0] || c->out[open - 2] != '[') return false;
    c->out[open - 2] = '.';
    memmove(c->out + open - 1, c->out + open, close - open);
    c->length = close - 1;
    return true;
}

/* What stands between the marks of a tag, the closing mark ("%}" or "}}") included. */
static bool read_inside(canon *c, char close) {
    for (bool blank = false; c->end - c->at >= 2;) {
        char byte = *c->at;
        if (byte == close && c->at[1] == '}') {
            c->at += 2;
            put(c, close);
            put(c, '}');
            return true;
        }
        if (is_blank(byte)) {
            blank = true;
            c->at++;
            continue;
        }
        if (byte == '-' && c->at[1] == close) { /* trims what follows; read_tag does it */
            c->at++;
            continue;
        }
        char last = c->out[c->length - 1];
        if (blank && ((is_word(last) && is_word(byte)) || (is_operator(last) && is_operator(byte))))
            put(c, ' ');
        blank = false;
        if (byte == '\'' || byte == '"') {
            if (!read_literal(c)) return false;
            continue;
        }
        c->at++;
        if (byte != ']' || !name_member(c)) put(c, byte);
    }
    return false;
}

/* One tag with the blanks around it; `data` is where the text before it begins in the output. */
static bool read_tag(canon *c, size_t data) {
    bool block = c->at[1] == '%';
    const char *line = c->at;
    while (line > c->begin && (line[-1] == ' ' || line[-1] == '\t')) line--;
    bool alone = line == c->begin || line[-1] == '\n';
    c->at += 2;
    bool trim = c->at < c->end && *c->at == '-';
    while (c->length > data && is_blank(c->out[c->length - 1]) &&
           (trim || (block && alone && c->out[c->length - 1] != '\n')))
        c->length--;
    c->at += trim;
    put(c, '{');
    put(c, block ? '%' : '{');
    if (!read_inside(c, block ? '%' : '}')) return false;
    if (c->at[-3] == '-') {
        while (c->at < c->end && is_blank(*c->at)) c->at++;
    } else if (block && c->at < c->end && *c->at == '\n') {
        c->at++;
    }
    return true;
}

/* Fills c->out; false where the text is not of the kind that is known here. */
static bool canonicalise(canon *c) {
    if (memchr(c->begin, QUOTE[0], (size_t)(c->end - c->begin))) return false;
    if (c->end > c->begin && c->end[-1] == '\n') c->end--;
    for (size_t data = 0; c->at < c->end;) {
        if (c->at[0] == '{' && c->end - c->at > 1 && (c->at[1] == '%' || c->at[1] == '{')) {
            if (!read_tag(c, data)) return false;
            data = c->length;
        } else {
            put(c, *c->at++);
        }
    }
    return true;
}

/* ---- Recognition ---- */

static bool skip(nibl_slice *text, const char *piece) {
    size_t length = strlen(piece);
    if (text->length < length || memcmp(text->bytes, piece, length) != 0) return false;
    text->bytes += length;
    text->length -= length;
    return true;
}

static bool match_chatml(nibl_slice text, chatml *out) {
    skip(&text, CHATML_DEFAULT);
    if (!skip(&text, CHATML_FOR)) return false;
    if (skip(&text, CHATML_SYSTEM)) {
        const char *close = memchr(text.bytes, QUOTE[0], text.length);
        const size_t tail = sizeof "<|im_end|>\n" - 1;
        if (!close || (size_t)(close - text.bytes) < tail) return false;
        out->system = text.bytes;
        out->system_length = (size_t)(close - text.bytes) - tail;
        text.bytes += out->system_length;
        text.length -= out->system_length;
        if (!skip(&text, CHATML_SYSTEM_END)) return false;
    }
    if (!skip(&text, CHATML_MESSAGE) || !skip(&text, CHATML_END)) return false;
    out->generation = skip(&text, CHATML_GENERATION);
    return text.length == 0;
}

/* ---- Writing ---- */

static void write_text(nibl_writer *w, const char *text) { nibl_write(w, text, strlen(text)); }

static void write_opening(nibl_writer *w, const char *role) {
    write_text(w, "<|im_start|>");
    write_text(w, role);
    write_text(w, "\n");
}

static void write_chatml(const chatml *t, const nibl_message *messages, size_t count, bool generation_prompt,
                         nibl_writer *w) {
    if (t->system && count > 0 && strcmp(messages[0].role, "system") != 0) {
        write_opening(w, "system");
        nibl_write(w, t->system, t->system_length);
        write_text(w, "<|im_end|>\n");
    }
    for (size_t i = 0; i < count; i++) {
        write_opening(w, messages[i].role);
        write_text(w, messages[i].content);
        write_text(w, "<|im_end|>\n");
    }
    if (t->generation && generation_prompt) write_opening(w, "assistant");
}

nibl_status nibl_template_write(const nibl_gguf *gguf, const nibl_message *messages, size_t count,
                                bool generation_prompt, nibl_writer *out) {
    for (size_t i = 0; i < count; i++)
        if (!messages[i].role || !messages[i].content)
            return nibl_fail(NIBL_E_ARGUMENT, "message %zu has no %s", i,
                             messages[i].role ? "content" : "role");
    nibl_slice jinja;
    if (!nibl_gguf_string(gguf, "tokenizer.chat_template", &jinja) || jinja.length == 0)
        return nibl_fail(NIBL_E_UNSUPPORTED,
                         "the file has no tokenizer.chat_template: write the prompt yourself");
    canon c = {.at = jinja.bytes, .begin = jinja.bytes, .end = jinja.bytes + jinja.length};
    c.out = nibl_alloc(jinja.length);
    if (!c.out) return nibl_fail_memory(jinja.length, "the chat template");
    chatml t = {0};
    bool known = canonicalise(&c) && match_chatml((nibl_slice){c.out, c.length}, &t);
    if (known) write_chatml(&t, messages, count, generation_prompt, out);
    nibl_free(c.out);
    if (known) return NIBL_OK;
    return nibl_fail(NIBL_E_UNSUPPORTED,
                     "tokenizer.chat_template is not chatml, the only one known here: write the prompt "
                     "yourself, or use the JavaScript interface, which runs any template");
}

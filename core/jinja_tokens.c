#include "core/jinja.h"

#include <string.h>

typedef struct lexer {
    nibl_jinja *j;
    const char *begin, *at, *end;
    unsigned braces; /* open inside the tag */
} lexer;

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c);
}

static bool starts(const lexer *x, const char *text) {
    size_t length = strlen(text);
    return (size_t)(x->end - x->at) >= length && memcmp(x->at, text, length) == 0;
}

static nibl_jinja_token *add(lexer *x, nibl_jinja_mark mark, const char *from, const char *to) {
    nibl_jinja *j = x->j;
    static nibl_jinja_token none;
    if (j->status < 0) return &none;
    void *array = j->tokens;
    j->status = nibl_reserve(&array, &j->capacity, j->count + 1, sizeof *j->tokens, "a chat template");
    j->tokens = array;
    if (j->status < 0) return &none;
    j->tokens[j->count] = (nibl_jinja_token){
        .mark = mark, .at = (uint32_t)(from - x->begin), .text = {from, (size_t)(to - from)}};
    return &j->tokens[j->count++];
}

static void fail(lexer *x, const char *what, const char *at) {
    nibl_jinja_token *token = add(x, NIBL_JINJA_END, at, at);
    if (x->j->status < 0) return;
    x->j->at = (size_t)(token - x->j->tokens);
    nibl_jinja_fail(x->j, what, (nibl_slice){at, x->end > at ? 1 : 0});
}

/* 'text' with its escapes resolved. */
static void read_string(lexer *x) {
    static const char names[] = "ntrbfv\\'\"", bytes[] = "\n\t\r\b\f\v\\'\"";
    const char *from = x->at, mark = *x->at++;
    const char *stop = x->at;
    while (stop < x->end && *stop != mark) stop += *stop == '\\' && stop + 1 < x->end ? 2 : 1;
    if (stop >= x->end) {
        fail(x, "a text without an end", from);
        return;
    }
    char *text = nibl_jinja_alloc(x->j, (uint64_t)(stop - x->at) + 1);
    size_t length = 0;
    for (; text && x->at < stop; x->at++) {
        char byte = *x->at;
        if (byte == '\\') {
            const char *name = memchr(names, *++x->at, sizeof names - 1);
            if (!name) {
                fail(x, "an unknown escape", x->at);
                return;
            }
            byte = bytes[name - names];
        }
        text[length++] = byte;
    }
    nibl_jinja_token *token = add(x, NIBL_JINJA_STRING, from, from);
    if (x->j->status == NIBL_OK) token->text = (nibl_slice){text, length};
    x->at = stop + 1;
}

static void read_number(lexer *x) {
    const char *from = x->at;
    int64_t value = 0;
    for (; x->at < x->end && is_digit(*x->at) && x->at - from < 10; x->at++)
        value = value * 10 + (*x->at - '0');
    if (x->at < x->end && (is_word(*x->at) || (*x->at == '.' && x->at + 1 < x->end && is_digit(x->at[1])))) {
        fail(x, "a number that is no small integer", from);
        return;
    }
    nibl_jinja_token *token = add(x, NIBL_JINJA_NUMBER, from, x->at);
    if (x->j->status == NIBL_OK) token->number = value;
}

static void read_sign(lexer *x) {
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "//", "**"};
    static const char singles[] = "()[]{},.:|<>+-~*/%=";
    const char *from = x->at;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (!starts(x, pairs[i])) continue;
        x->at += 2;
        add(x, NIBL_JINJA_SIGN, from, x->at);
        return;
    }
    if (!*from || !strchr(singles, *from)) {
        fail(x, "an unknown character", from);
        return;
    }
    x->braces += *from == '{';
    x->braces -= *from == '}' && x->braces > 0;
    x->at++;
    add(x, NIBL_JINJA_SIGN, from, x->at);
}

/* What stands in a tag, its end included; true where that trims the blanks behind it. */
static bool read_tag(lexer *x, const char *close, nibl_jinja_mark close_mark) {
    const char *from = x->at;
    x->braces = 0;
    while (x->j->status == NIBL_OK) {
        while (x->at < x->end && is_blank(*x->at)) x->at++;
        bool trim =
            x->at < x->end && *x->at == '-' && x->end - x->at >= 3 && memcmp(x->at + 1, close, 2) == 0;
        if (trim || (starts(x, close) && x->braces == 0)) {
            add(x, close_mark, x->at, x->at);
            x->at += trim ? 3 : 2;
            return trim;
        }
        if (x->at == x->end)
            fail(x, "a tag without an end", from);
        else if (*x->at == '\'' || *x->at == '"')
            read_string(x);
        else if (is_digit(*x->at))
            read_number(x);
        else if (is_word(*x->at)) {
            const char *word = x->at;
            while (x->at < x->end && is_word(*x->at)) x->at++;
            add(x, NIBL_JINJA_NAME, word, x->at);
        } else
            read_sign(x);
    }
    return false;
}

/* The comment at hand; true where its end trims. */
static bool skip_comment(lexer *x) {
    const char *from = x->at;
    while (x->at < x->end && !starts(x, "#}")) x->at++;
    if (x->at == x->end) {
        fail(x, "a comment without an end", from);
        return false;
    }
    bool trim = x->at > from && x->at[-1] == '-';
    x->at += 2;
    return trim;
}

/* The text before the next tag, and the tag. `fresh`: a line begins here. */
static void read_piece(lexer *x, bool *fresh) {
    const char *from = x->at, *to = from;
    while (to < x->end &&
           !(to[0] == '{' && to + 1 < x->end && (to[1] == '%' || to[1] == '{' || to[1] == '#')))
        to++;
    if (to == x->end) {
        if (from < to) add(x, NIBL_JINJA_TEXT, from, to);
        x->at = to;
        return;
    }
    const char kind = to[1], *text_end = to;
    const bool trim_before = to + 2 < x->end && to[2] == '-';
    if (trim_before) {
        while (text_end > from && is_blank(text_end[-1])) text_end--;
    } else if (kind != '{') {
        while (text_end > from && (text_end[-1] == ' ' || text_end[-1] == '\t')) text_end--;
        if (text_end == from ? !*fresh : text_end[-1] != '\n') text_end = to;
    }
    if (from < text_end) add(x, NIBL_JINJA_TEXT, from, text_end);
    x->at = to + 2 + trim_before;
    bool trim_after;
    if (kind == '#') {
        trim_after = skip_comment(x);
    } else {
        add(x, kind == '%' ? NIBL_JINJA_OPEN : NIBL_JINJA_OPEN_OUTPUT, to, to + 2);
        trim_after =
            kind == '%' ? read_tag(x, "%}", NIBL_JINJA_CLOSE) : read_tag(x, "}}", NIBL_JINJA_CLOSE_OUTPUT);
    }
    const char *behind = x->at;
    if (trim_after)
        while (x->at < x->end && is_blank(*x->at)) x->at++;
    else if (kind != '{' && x->at < x->end && *x->at == '\n')
        x->at++;
    *fresh = x->at > behind && x->at[-1] == '\n';
}

void nibl_jinja_tokenize(nibl_jinja *j, const char *text, size_t length) {
    lexer x = {j, text, text, text + length, 0};
    if (length > 0 && text[length - 1] == '\n') x.end--;
    for (bool fresh = true; x.at < x.end && j->status == NIBL_OK;) read_piece(&x, &fresh);
    add(&x, NIBL_JINJA_END, x.end, x.end);
    j->at = 0;
}

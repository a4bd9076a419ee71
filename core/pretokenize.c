#include "core/pretokenize.h"

#include "core/unicode.h"

#include <string.h>

static const nibl_pretokenizer table[] = {
    {"smollm", .split_digits = true},
    {"gpt-2", .split_digits = false},
};

const nibl_pretokenizer *nibl_pretokenizer_find(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0) return &table[i];
    }
    return NULL;
}

/* Class of the character at `text` and its width in bytes. */
static nibl_class class_at(const nibl_pretokenizer *pre, const char *text, size_t length, size_t *width) {
    uint8_t c = (uint8_t)text[0];
    if (c < 0x80) {
        *width = 1;
        if ((uint8_t)((c | 32) - 'a') < 26) return NIBL_CLASS_LETTER;
        if (c == ' ' || (c >= '\t' && c <= '\r')) return NIBL_CLASS_SPACE;
        return (uint8_t)(c - '0') < 10 ? NIBL_CLASS_NUMBER : NIBL_CLASS_OTHER;
    }
    uint32_t code;
    *width = nibl_utf8_step(text, length, &code);
    nibl_class class = nibl_unicode_class(code);
    if (class == NIBL_CLASS_NUMERIC) return pre->split_digits ? NIBL_CLASS_NUMBER : NIBL_CLASS_OTHER;
    return class;
}

/* Length of 's 't 'm 'd 're 've 'll at `text`, which begins with an apostrophe; 0 where none is. */
static size_t contraction(const char *text, size_t length) {
    if (length > 1 && memchr("stmd", text[1], 4)) return 2;
    if (length < 3) return 0;
    return !memcmp(text + 1, "re", 2) || !memcmp(text + 1, "ve", 2) || !memcmp(text + 1, "ll", 2) ? 3 : 0;
}

size_t nibl_pretokenize(const nibl_pretokenizer *pre, const char *text, size_t length) {
    size_t width, end;
    nibl_class class = class_at(pre, text, length, &width);
    if (class == NIBL_CLASS_NUMBER && pre->split_digits) return width;
    if (text[0] == '\'' && (end = contraction(text, length)) > 0) return end;

    end = width;
    if (text[0] == ' ' && length > 1) { /* one space goes with the word behind it */
        nibl_class next = class_at(pre, text + 1, length - 1, &width);
        bool cut = next == NIBL_CLASS_NUMBER && pre->split_digits;
        if (next != NIBL_CLASS_SPACE && !cut) {
            class = next;
            end = 1 + width;
        }
    }
    size_t last = 0; /* where the run's last character begins */
    nibl_class behind = class;
    while (end < length && (behind = class_at(pre, text + end, length - end, &width)) == class) {
        last = end;
        end += width;
    }
    if (class != NIBL_CLASS_SPACE || end == length || last == 0) return end;
    /* A run of spaces leaves its last one to the word behind it; digits cut apart count as the text's end. */
    return behind == NIBL_CLASS_NUMBER && pre->split_digits ? end : last;
}

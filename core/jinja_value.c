#include "core/jinja.h"

#include "core/unicode.h"

#include <string.h>

typedef nibl_jinja_value value;

static const value undefined;

nibl_slice nibl_jinja_word(const char *text) { return (nibl_slice){text, strlen(text)}; }

static bool same_text(nibl_slice a, nibl_slice b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

bool nibl_jinja_is(nibl_slice text, const char *word) { return same_text(text, nibl_jinja_word(word)); }
value nibl_jinja_bool(bool b) { return (value){NIBL_JINJA_BOOL, {.number = b}}; }
value nibl_jinja_int(int64_t number) { return (value){NIBL_JINJA_INT, {.number = number}}; }
value nibl_jinja_text(nibl_slice text) { return (value){NIBL_JINJA_TEXT_VALUE, {.text = text}}; }

static value list_of(const value *items, size_t count) {
    value v = {.kind = NIBL_JINJA_LIST};
    v.as.list.items = items;
    v.as.list.count = count;
    return v;
}

bool nibl_jinja_truth(const value *v) {
    switch (v->kind) {
    case NIBL_JINJA_UNDEFINED:
    case NIBL_JINJA_NONE: return false;
    case NIBL_JINJA_BOOL:
    case NIBL_JINJA_INT: return v->as.number != 0;
    case NIBL_JINJA_TEXT_VALUE: return v->as.text.length > 0;
    case NIBL_JINJA_LIST: return v->as.list.count > 0;
    default: return true;
    }
}

void *nibl_jinja_alloc(nibl_jinja *j, uint64_t bytes) {
    if (j->status < 0) return NULL;
    void *block = NULL;
    if (j->arena.bytes + bytes > NIBL_JINJA_MAX_MEMORY)
        j->status = nibl_fail(NIBL_E_UNSUPPORTED, "tokenizer.chat_template makes more than %u bytes of text",
                              (unsigned)NIBL_JINJA_MAX_MEMORY);
    else if (!(block = nibl_arena_alloc(&j->arena, bytes + (bytes == 0))))
        j->status = nibl_fail_memory(bytes, "a chat template's texts");
    return block;
}

bool nibl_jinja_charge(nibl_jinja *j, uint64_t bytes) {
    j->steps += bytes / 64;
    if (j->steps > NIBL_JINJA_MAX_STEPS)
        nibl_jinja_fail(j, "a template of so many steps", (nibl_slice){"", 0});
    return j->status == NIBL_OK;
}

/* Of a text, or of both; a search takes as long as the product. */
static bool charge(nibl_jinja *j, const value *a, const value *b, bool search) {
    const uint64_t m = a && a->kind == NIBL_JINJA_TEXT_VALUE ? a->as.text.length : 0,
                   n = b && b->kind == NIBL_JINJA_TEXT_VALUE ? b->as.text.length : 0;
    return nibl_jinja_charge(j, search ? (m + 1) * (n / 16 + 1) : m + n);
}

static bool is_number(const value *v) { return v->kind == NIBL_JINJA_INT || v->kind == NIBL_JINJA_BOOL; }
static bool is_text(const value *v) { return v->kind == NIBL_JINJA_TEXT_VALUE; }

/* ---- Operators ---- */

static value join(nibl_jinja *j, nibl_slice a, nibl_slice b) {
    char *text = nibl_jinja_alloc(j, (uint64_t)a.length + b.length);
    if (!text) return undefined;
    if (a.length) memcpy(text, a.bytes, a.length);
    if (b.length) memcpy(text + a.length, b.bytes, b.length);
    return nibl_jinja_text((nibl_slice){text, a.length + b.length});
}

static value concatenate(nibl_jinja *j, value a, value b) {
    const size_t count = a.as.list.count, more = b.as.list.count;
    value *items = nibl_jinja_alloc(j, ((uint64_t)count + more) * sizeof *items);
    if (!items) return undefined;
    if (count) memcpy(items, a.as.list.items, count * sizeof *items);
    if (more) memcpy(items + count, b.as.list.items, more * sizeof *items);
    return list_of(items, count + more);
}

static value arithmetic(nibl_jinja *j, nibl_slice sign, int64_t a, int64_t b) {
    const int64_t limit = INT32_MAX;
    if (a > limit || a < -limit || b > limit || b < -limit)
        return nibl_jinja_fail(j, "too large a number at", sign);
    if (nibl_jinja_is(sign, "+")) return nibl_jinja_int(a + b);
    if (nibl_jinja_is(sign, "-")) return nibl_jinja_int(a - b);
    if (nibl_jinja_is(sign, "*")) return nibl_jinja_int(a * b);
    if (nibl_jinja_is(sign, "<")) return nibl_jinja_bool(a < b);
    if (nibl_jinja_is(sign, ">")) return nibl_jinja_bool(a > b);
    if (nibl_jinja_is(sign, "<=")) return nibl_jinja_bool(a <= b);
    if (nibl_jinja_is(sign, ">=")) return nibl_jinja_bool(a >= b);
    if (b > 0 && a >= 0) { /* elsewhere Jinjas differ */
        if (nibl_jinja_is(sign, "%")) return nibl_jinja_int(a % b);
        if (nibl_jinja_is(sign, "//")) return nibl_jinja_int(a / b);
    }
    return nibl_jinja_fail(j, "such numbers with the operator", sign);
}

static bool equal(nibl_jinja *j, const value *a, const value *b) {
    if (is_number(a) && is_number(b)) return a->as.number == b->as.number;
    if (a->kind != b->kind) {
        const bool none = a->kind <= NIBL_JINJA_NONE && b->kind <= NIBL_JINJA_NONE;
        const bool mixed = (is_text(a) && is_number(b)) || (is_text(b) && is_number(a));
        const nibl_slice text = is_text(a) ? a->as.text : b->as.text;
        if (none || (mixed && (text.length == 0 || a->kind == NIBL_JINJA_INT || b->kind == NIBL_JINJA_INT)))
            nibl_jinja_fail(j, "a comparison that Jinjas disagree about, at", nibl_jinja_word("=="));
        return false;
    }
    switch (a->kind) {
    case NIBL_JINJA_UNDEFINED:
    case NIBL_JINJA_NONE: return true;
    case NIBL_JINJA_TEXT_VALUE: return same_text(a->as.text, b->as.text);
    default: nibl_jinja_fail(j, "a comparison of lists or mappings at", nibl_jinja_word("==")); return false;
    }
}

static bool find_text(nibl_slice text, nibl_slice part, size_t *at) {
    for (; *at + part.length <= text.length; ++*at)
        if (part.length == 0 || memcmp(text.bytes + *at, part.bytes, part.length) == 0) return true;
    return false;
}

static value contains(nibl_jinja *j, value part, value whole) {
    size_t at = 0;
    bool found = false;
    if (whole.kind == NIBL_JINJA_UNDEFINED) return nibl_jinja_bool(false);
    if (is_text(&part) && is_text(&whole))
        return nibl_jinja_bool(find_text(whole.as.text, part.as.text, &at));
    if (is_text(&part) && whole.kind == NIBL_JINJA_MESSAGE)
        return nibl_jinja_bool(nibl_jinja_is(part.as.text, "role") || nibl_jinja_is(part.as.text, "content"));
    if (whole.kind != NIBL_JINJA_LIST) return nibl_jinja_fail(j, "these operands of", nibl_jinja_word("in"));
    for (size_t i = 0; i < whole.as.list.count && !found; i++)
        found = equal(j, &part, &whole.as.list.items[i]);
    return nibl_jinja_bool(found);
}

value nibl_jinja_binary(nibl_jinja *j, nibl_slice sign, value a, value b) {
    const bool texts = is_text(&a) && is_text(&b);
    if (!charge(j, &b, &a, nibl_jinja_is(sign, "in"))) return undefined;
    if (nibl_jinja_is(sign, "==")) return nibl_jinja_bool(equal(j, &a, &b));
    if (nibl_jinja_is(sign, "!=")) return nibl_jinja_bool(!equal(j, &a, &b));
    if (nibl_jinja_is(sign, "in")) return contains(j, a, b);
    if (nibl_jinja_is(sign, "+") && texts) return join(j, a.as.text, b.as.text);
    if (nibl_jinja_is(sign, "~")) {
        const nibl_jinja_arguments none = {.count = 0};
        a = nibl_jinja_filter(j, nibl_jinja_word("string"), a, &none);
        b = nibl_jinja_filter(j, nibl_jinja_word("string"), b, &none);
        return j->status < 0 ? undefined : join(j, a.as.text, b.as.text);
    }
    if (nibl_jinja_is(sign, "+") && a.kind == NIBL_JINJA_LIST && b.kind == NIBL_JINJA_LIST)
        return concatenate(j, a, b);
    if (a.kind == NIBL_JINJA_INT && b.kind == NIBL_JINJA_INT)
        return arithmetic(j, sign, a.as.number, b.as.number);
    return nibl_jinja_fail(j, "these operands of", sign);
}

/* ---- Members ---- */

static value loop_member(nibl_jinja *j, const nibl_jinja_loop *loop, nibl_slice key) {
    const int64_t index = (int64_t)loop->index, count = (int64_t)loop->count;
    if (nibl_jinja_is(key, "index")) return nibl_jinja_int(index + 1);
    if (nibl_jinja_is(key, "index0")) return nibl_jinja_int(index);
    if (nibl_jinja_is(key, "revindex")) return nibl_jinja_int(count - index);
    if (nibl_jinja_is(key, "revindex0")) return nibl_jinja_int(count - index - 1);
    if (nibl_jinja_is(key, "first")) return nibl_jinja_bool(index == 0);
    if (nibl_jinja_is(key, "last")) return nibl_jinja_bool(index == count - 1);
    if (nibl_jinja_is(key, "length")) return nibl_jinja_int(count);
    if (nibl_jinja_is(key, "previtem")) return index > 0 ? loop->items[index - 1] : undefined;
    if (nibl_jinja_is(key, "nextitem")) return index + 1 < count ? loop->items[index + 1] : undefined;
    return nibl_jinja_fail(j, "the loop's member", key);
}

value nibl_jinja_member(nibl_jinja *j, value object, value key) {
    if (object.kind == NIBL_JINJA_LIST && key.kind == NIBL_JINJA_INT) {
        const int64_t count = (int64_t)object.as.list.count,
                      i = key.as.number < 0 ? key.as.number + count : key.as.number;
        return i >= 0 && i < count ? object.as.list.items[i] : undefined;
    }
    if (!is_text(&key)) return nibl_jinja_fail(j, "a member by such a key", (nibl_slice){"", 0});
    if (object.kind == NIBL_JINJA_MESSAGE) {
        value v = undefined;
        if (nibl_jinja_is(key.as.text, "role")) v = nibl_jinja_text(nibl_jinja_word(object.as.message->role));
        if (nibl_jinja_is(key.as.text, "content"))
            v = nibl_jinja_text(nibl_jinja_word(object.as.message->content));
        charge(j, &v, NULL, false);
        return v;
    }
    if (object.kind == NIBL_JINJA_LOOP) return loop_member(j, object.as.loop, key.as.text);
    if (object.kind == NIBL_JINJA_SPACE) {
        for (size_t i = j->attributes.count; i-- > 0;)
            if (j->attributes.list[i].space == object.as.number &&
                same_text(j->attributes.list[i].name, key.as.text))
                return j->attributes.list[i].value;
        return undefined;
    }
    if (object.kind == NIBL_JINJA_TEXT_VALUE || object.kind == NIBL_JINJA_LIST) return undefined;
    return nibl_jinja_fail(j,
                           object.kind == NIBL_JINJA_UNDEFINED ? "something undefined, and its member"
                                                               : "a value without members, and its member",
                           key.as.text);
}

static int64_t clamp(int64_t i, int64_t count, int64_t low, int64_t high) {
    if (i < 0) i += count;
    return i < low ? low : i > high ? high : i;
}

value nibl_jinja_part(nibl_jinja *j, value list, const value bounds[3]) {
    for (size_t i = 0; i < 3; i++)
        if (bounds[i].kind != NIBL_JINJA_UNDEFINED && bounds[i].kind != NIBL_JINJA_INT)
            list.kind = NIBL_JINJA_NONE;
    const int64_t step = bounds[2].kind == NIBL_JINJA_INT ? bounds[2].as.number : 1;
    if (list.kind != NIBL_JINJA_LIST || step == 0)
        return nibl_jinja_fail(j, "a slice of something that is no list", (nibl_slice){"", 0});
    if (list.as.list.count == 0) return list;
    const int64_t count = (int64_t)list.as.list.count, low = step < 0 ? -1 : 0,
                  high = step < 0 ? count - 1 : count;
    int64_t from = bounds[0].kind == NIBL_JINJA_INT ? clamp(bounds[0].as.number, count, low, high)
                   : step < 0                       ? high
                                                    : low;
    const int64_t to = bounds[1].kind == NIBL_JINJA_INT ? clamp(bounds[1].as.number, count, low, high)
                       : step < 0                       ? low
                                                        : high;
    if (step == 1) return list_of(list.as.list.items + from, from < to ? (size_t)(to - from) : 0);
    value *items = nibl_jinja_alloc(j, (uint64_t)count * sizeof *items);
    size_t kept = 0;
    for (; items && (step < 0 ? from > to : from < to); from += step)
        items[kept++] = list.as.list.items[from];
    return list_of(items, kept);
}

/* ---- Texts ---- */

/* White space as JavaScript trims it. */
static bool is_space(uint32_t code) {
    return code == 0xFEFF || (nibl_unicode_category(code) == NIBL_CATEGORY_SPACE && code != 0x85);
}

/* Without what is at its ends, of `set`, or blanks where that is empty. */
static nibl_slice strip(nibl_slice text, nibl_slice set, bool left, bool right) {
    uint32_t code;
    for (size_t width; left && text.length > 0; text.bytes += width, text.length -= width) {
        width = nibl_utf8_step(text.bytes, text.length, &code);
        if (set.length ? !memchr(set.bytes, text.bytes[0], set.length) : !is_space(code)) break;
    }
    for (size_t width; right && text.length > 0; text.length -= width) {
        for (width = 1; width < text.length && width < 4;) {
            if (((uint8_t)text.bytes[text.length - width] & 0xC0) != 0x80) break;
            width++;
        }
        nibl_utf8_step(text.bytes + text.length - width, width, &code);
        if (set.length ? !memchr(set.bytes, text.bytes[text.length - 1], set.length) : !is_space(code)) break;
    }
    return text;
}

static size_t characters(nibl_slice text) {
    size_t count = 0;
    for (size_t i = 0; i < text.length; i++) count += ((uint8_t)text.bytes[i] & 0xC0) != 0x80;
    return count;
}

static value split(nibl_jinja *j, nibl_slice text, nibl_slice separator) {
    size_t parts = 1, at = 0, from = 0;
    for (; find_text(text, separator, &at); at += separator.length) parts++;
    value *items = nibl_jinja_alloc(j, (uint64_t)parts * sizeof *items);
    if (!items) return undefined;
    at = parts = 0;
    for (; find_text(text, separator, &at); from = at += separator.length)
        items[parts++] = nibl_jinja_text((nibl_slice){text.bytes + from, at - from});
    items[parts++] = nibl_jinja_text((nibl_slice){text.bytes + from, text.length - from});
    return list_of(items, parts);
}

static value replace(nibl_jinja *j, nibl_slice text, nibl_slice old, nibl_slice by) {
    size_t count = 0, at = 0, from = 0;
    for (; find_text(text, old, &at); at += old.length) count++;
    char *out = nibl_jinja_alloc(j, (uint64_t)text.length + (uint64_t)count * by.length);
    if (!out) return undefined;
    char *end = out;
    for (at = 0; find_text(text, old, &at); from = at += old.length) {
        memcpy(end, text.bytes + from, at - from);
        end += at - from;
        if (by.length) memcpy(end, by.bytes, by.length);
        end += by.length;
    }
    memcpy(end, text.bytes + from, text.length - from);
    return nibl_jinja_text((nibl_slice){out, (size_t)(end - out) + text.length - from});
}

static bool is_ascii(nibl_slice text) { return characters(text) == text.length; }

static value change_case(nibl_jinja *j, nibl_slice name, nibl_slice text) {
    if (!is_ascii(text)) return nibl_jinja_fail(j, "letters beyond ASCII with", name);
    char *out = nibl_jinja_alloc(j, text.length);
    bool upper = nibl_jinja_is(name, "upper"), title = nibl_jinja_is(name, "title"), inside = false;
    for (size_t i = 0; out && i < text.length; i++) {
        const char c = text.bytes[i];
        const bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        out[i] = !letter ? c : (title ? !inside : upper) ? (char)(c & ~32) : (char)(c | 32);
        inside = letter;
    }
    return nibl_jinja_text((nibl_slice){out, out ? text.length : 0});
}

value nibl_jinja_method(nibl_jinja *j, nibl_slice name, value v, const nibl_jinja_arguments *arguments) {
    const value *a = arguments->values;
    const size_t count = arguments->count;
    if (!charge(j, &v, count ? &a[0] : NULL, true)) return undefined;
    if (v.kind == NIBL_JINJA_MESSAGE && nibl_jinja_is(name, "get") && count >= 1 && count <= 2 &&
        is_text(&a[0])) {
        v = nibl_jinja_member(j, v, a[0]);
        return v.kind != NIBL_JINJA_UNDEFINED ? v : count == 2 ? a[1] : (value){.kind = NIBL_JINJA_NONE};
    }
    bool known = is_text(&v);
    for (size_t i = 0; i < count; i++) known = known && is_text(&a[i]) && arguments->names[i].length == 0;
    if (known && count <= 1) {
        const nibl_slice text = v.as.text, set = count ? a[0].as.text : (nibl_slice){"", 0};
        if (is_ascii(set) && (count == 0 || set.length > 0)) {
            if (nibl_jinja_is(name, "strip")) return nibl_jinja_text(strip(text, set, true, true));
            if (nibl_jinja_is(name, "lstrip")) return nibl_jinja_text(strip(text, set, true, false));
            if (nibl_jinja_is(name, "rstrip")) return nibl_jinja_text(strip(text, set, false, true));
        }
        if (count == 0 &&
            (nibl_jinja_is(name, "upper") || nibl_jinja_is(name, "lower") || nibl_jinja_is(name, "title")))
            return change_case(j, name, text);
        if (set.length > 0 && nibl_jinja_is(name, "split")) return split(j, text, set);
        const bool fits = count == 1 && set.length <= text.length;
        if (count == 1 && nibl_jinja_is(name, "startswith"))
            return nibl_jinja_bool(fits && same_text((nibl_slice){text.bytes, set.length}, set));
        if (count == 1 && nibl_jinja_is(name, "endswith"))
            return nibl_jinja_bool(
                fits && same_text((nibl_slice){text.bytes + text.length - set.length, set.length}, set));
    }
    if (known && count == 2 && a[0].as.text.length > 0 && nibl_jinja_is(name, "replace"))
        return replace(j, v.as.text, a[0].as.text, a[1].as.text);
    return nibl_jinja_fail(j, "the method", name);
}

/* ---- Filters, tests, functions ---- */

value nibl_jinja_test(nibl_jinja *j, nibl_slice name, value v) {
    const nibl_jinja_kind kind = v.kind;
    const bool many = kind == NIBL_JINJA_LIST || kind == NIBL_JINJA_TEXT_VALUE;
    if (nibl_jinja_is(name, "defined")) return nibl_jinja_bool(kind != NIBL_JINJA_UNDEFINED);
    if (nibl_jinja_is(name, "undefined")) return nibl_jinja_bool(kind == NIBL_JINJA_UNDEFINED);
    if (nibl_jinja_is(name, "none")) return nibl_jinja_bool(kind == NIBL_JINJA_NONE);
    if (nibl_jinja_is(name, "string")) return nibl_jinja_bool(kind == NIBL_JINJA_TEXT_VALUE);
    if (nibl_jinja_is(name, "mapping") && kind != NIBL_JINJA_LOOP)
        return nibl_jinja_bool(kind == NIBL_JINJA_MESSAGE);
    if (nibl_jinja_is(name, "boolean")) return nibl_jinja_bool(kind == NIBL_JINJA_BOOL);
    if (nibl_jinja_is(name, "true")) return nibl_jinja_bool(kind == NIBL_JINJA_BOOL && v.as.number);
    if (nibl_jinja_is(name, "false")) return nibl_jinja_bool(kind == NIBL_JINJA_BOOL && !v.as.number);
    if (nibl_jinja_is(name, "iterable") && (many || kind == NIBL_JINJA_NONE || is_number(&v)))
        return nibl_jinja_bool(many);
    return nibl_jinja_fail(j, "the test", name);
}

static value select_by(nibl_jinja *j, value list, const nibl_jinja_arguments *arguments, bool wanted) {
    const value *a = arguments->values;
    value *items = nibl_jinja_alloc(j, (uint64_t)list.as.list.count * sizeof *items);
    size_t kept = 0;
    for (size_t i = 0; items && i < list.as.list.count && j->status == NIBL_OK; i++) {
        const value member = nibl_jinja_member(j, list.as.list.items[i], a[0]);
        if (equal(j, &member, &a[2]) == wanted) items[kept++] = list.as.list.items[i];
    }
    return list_of(items, kept);
}

static value json(nibl_jinja *j, nibl_slice text) {
    static const char names[] = "\"\\bfnrt", bytes[] = "\"\\\b\f\n\r\t";
    char *out = nibl_jinja_alloc(j, 6 * (uint64_t)text.length + 3);
    if (!out) return undefined;
    nibl_writer w = {.text = out, .capacity = 6 * text.length + 3};
    nibl_write(&w, "\"", 1);
    for (size_t i = 0; i < text.length; i++) {
        const char *known = memchr(bytes, text.bytes[i], sizeof bytes - 1);
        if (known)
            nibl_print(&w, "\\%c", names[known - bytes]);
        else if ((uint8_t)text.bytes[i] < 0x20)
            nibl_print(&w, "\\u%04x", (unsigned)text.bytes[i]);
        else
            nibl_write(&w, &text.bytes[i], 1);
    }
    nibl_write(&w, "\"", 1);
    return nibl_jinja_text((nibl_slice){out, w.length});
}

static value text_filter(nibl_jinja *j, nibl_slice name, value v) {
    if (nibl_jinja_is(name, "trim"))
        return nibl_jinja_text(strip(v.as.text, (nibl_slice){"", 0}, true, true));
    if (nibl_jinja_is(name, "length")) return nibl_jinja_int((int64_t)characters(v.as.text));
    if (nibl_jinja_is(name, "tojson")) return json(j, v.as.text);
    if (nibl_jinja_is(name, "string") || nibl_jinja_is(name, "safe")) return v;
    if (nibl_jinja_is(name, "upper") || nibl_jinja_is(name, "lower")) return change_case(j, name, v.as.text);
    return nibl_jinja_fail(j, "the filter", name);
}

value nibl_jinja_filter(nibl_jinja *j, nibl_slice name, value v, const nibl_jinja_arguments *arguments) {
    const value *a = arguments->values;
    const size_t count = arguments->count;
    if (!charge(j, &v, NULL, false)) return undefined;
    if (nibl_jinja_is(name, "default") && count == 1 && arguments->names[0].length == 0)
        return v.kind == NIBL_JINJA_UNDEFINED ? a[0] : v;
    if (is_text(&v) && count == 0) return text_filter(j, name, v);
    if (v.kind == NIBL_JINJA_INT && count == 0 && nibl_jinja_is(name, "string")) {
        char *digits = nibl_jinja_alloc(j, 24);
        nibl_writer w = {.text = digits, .capacity = 24};
        if (digits) nibl_print(&w, "%lld", (long long)v.as.number);
        return nibl_jinja_text((nibl_slice){digits, w.length});
    }
    if (v.kind == NIBL_JINJA_LIST && count == 0) {
        const size_t length = v.as.list.count;
        if (nibl_jinja_is(name, "list")) return v;
        if (nibl_jinja_is(name, "length")) return nibl_jinja_int((int64_t)length);
        if (nibl_jinja_is(name, "first")) return length ? v.as.list.items[0] : undefined;
        if (nibl_jinja_is(name, "last")) return length ? v.as.list.items[length - 1] : undefined;
    }
    if (v.kind == NIBL_JINJA_LIST && count == 3 && is_text(&a[0]) && is_text(&a[1]) &&
        (nibl_jinja_is(a[1].as.text, "equalto") || nibl_jinja_is(a[1].as.text, "=="))) {
        if (nibl_jinja_is(name, "selectattr")) return select_by(j, v, arguments, true);
        if (nibl_jinja_is(name, "rejectattr")) return select_by(j, v, arguments, false);
    }
    return nibl_jinja_fail(j, "the filter", name);
}

static value range(nibl_jinja *j, const nibl_jinja_arguments *arguments) {
    int64_t bounds[2] = {0, 0};
    for (size_t i = 0; i < arguments->count; i++) {
        if (arguments->count > 2 || arguments->values[i].kind != NIBL_JINJA_INT)
            return nibl_jinja_fail(j, "these arguments of", nibl_jinja_word("range"));
        bounds[arguments->count == 1 ? 1 : i] = arguments->values[i].as.number;
    }
    const int64_t count = bounds[1] > bounds[0] ? bounds[1] - bounds[0] : 0;
    value *items = nibl_jinja_alloc(j, (uint64_t)count * sizeof *items);
    for (int64_t i = 0; items && i < count; i++) items[i] = nibl_jinja_int(bounds[0] + i);
    return list_of(items, items ? (size_t)count : 0);
}

value nibl_jinja_date(nibl_jinja *j, const nibl_moment *now, const nibl_jinja_arguments *arguments) {
    static const char *const months[] = {"January",   "February", "March",    "April",
                                         "May",       "June",     "July",     "August",
                                         "September", "October",  "November", "December"};
    if (arguments->count != 1 || !is_text(&arguments->values[0]))
        return nibl_jinja_fail(j, "these arguments of", nibl_jinja_word("strftime_now"));
    const nibl_slice form = arguments->values[0].as.text;
    const char *month = months[now->month < 1 || now->month > 12 ? 0 : now->month - 1];
    const uint64_t most = 11 * (uint64_t)form.length; /* of "%Y", or a part of it */
    char *out = nibl_jinja_charge(j, most) ? nibl_jinja_alloc(j, most + 1) : NULL;
    if (!out) return undefined;
    nibl_writer w = {.text = out, .capacity = (size_t)most + 1};
    for (size_t i = 0; i < form.length; i++) {
        const char next = form.bytes[i] == '%' && i + 1 < form.length ? form.bytes[i + 1] : 0;
        switch (next) {
        case 'Y': nibl_print(&w, "%d", (int)now->year); break;
        case 'm': nibl_print(&w, "%02d", (int)now->month); break;
        case 'd': nibl_print(&w, "%02d", (int)now->day); break;
        case 'H': nibl_print(&w, "%02d", (int)now->hour); break;
        case 'M': nibl_print(&w, "%02d", (int)now->minute); break;
        case 'B': nibl_print(&w, "%s", month); break;
        case 'b': nibl_print(&w, "%.3s", month); break;
        case '%': nibl_print(&w, "%%"); break;
        default: nibl_write(&w, &form.bytes[i], 1); continue;
        }
        i++;
    }
    return nibl_jinja_text((nibl_slice){out, w.length});
}

value nibl_jinja_call(nibl_jinja *j, nibl_slice name, const nibl_jinja_arguments *arguments) {
    if (nibl_jinja_is(name, "raise_exception")) {
        const value *message = arguments->values;
        const nibl_slice text =
            arguments->count == 1 && is_text(message) ? message->as.text : nibl_jinja_word("?");
        if (j->status == NIBL_OK)
            j->status = nibl_fail(NIBL_E_ARGUMENT, "the model's chat template refuses these messages: %.*s",
                                  text.length < 200 ? (int)text.length : 200, text.bytes);
        return undefined;
    }
    if (nibl_jinja_is(name, "range") && arguments->count > 0) return range(j, arguments);
    if (nibl_jinja_is(name, "namespace")) {
        const value space = {NIBL_JINJA_SPACE, {.number = ++j->spaces}};
        for (size_t i = 0; i < arguments->count; i++) {
            if (arguments->names[i].length == 0) return nibl_jinja_fail(j, "these arguments of", name);
            nibl_jinja_set(j, &j->attributes, space.as.number, arguments->names[i], arguments->values[i]);
        }
        return space;
    }
    if (nibl_jinja_is(name, "strftime_now"))
        return nibl_jinja_fail(j, "the date of today, which was not given, by", name);
    return nibl_jinja_fail(j, "the function", name);
}

void nibl_jinja_print(nibl_jinja *j, value v) {
    static const nibl_jinja_arguments none;
    if (j->status < 0 || v.kind == NIBL_JINJA_UNDEFINED) return;
    if (v.kind != NIBL_JINJA_TEXT_VALUE && v.kind != NIBL_JINJA_INT) {
        nibl_jinja_fail(j, "output of something that is no text", (nibl_slice){"", 0});
        return;
    }
    v = nibl_jinja_filter(j, nibl_jinja_word("string"), v, &none);
    if (j->status == NIBL_OK) nibl_write(j->out, v.as.text.bytes, v.as.text.length);
}

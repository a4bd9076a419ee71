#include "core/jinja.h"

#include <string.h>

typedef nibl_jinja_value value;

static const value undefined;

value nibl_jinja_fail(nibl_jinja *j, const char *what, nibl_slice name) {
    if (j->status < 0) return undefined;
    char shown[41] = "";
    for (size_t i = 0; i < name.length && i < 40; i++) shown[i] = name.bytes[i] >= ' ' ? name.bytes[i] : ' ';
    j->status = nibl_fail(
        NIBL_E_UNSUPPORTED,
        "tokenizer.chat_template, byte %u: %s%s%s is not supported here: write the prompt yourself, or "
        "use the JavaScript interface",
        (unsigned)j->tokens[j->at].at, what, *shown ? " " : "", shown);
    return undefined;
}

void nibl_jinja_free(nibl_jinja *j) {
    nibl_arena_free(&j->arena);
    nibl_free(j->tokens);
    nibl_free(j->variables.list);
    nibl_free(j->attributes.list);
}

static bool same_name(nibl_slice a, nibl_slice b) {
    return a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
}

void nibl_jinja_set(nibl_jinja *j, nibl_jinja_variables *where, int64_t space, nibl_slice name, value v) {
    if (j->status < 0 || !nibl_jinja_charge(j, (uint64_t)where->count * 8)) return;
    for (size_t i = 0; space && i < where->count; i++) {
        nibl_jinja_variable *known = &where->list[i];
        if (known->space != space || !same_name(known->name, name)) continue;
        known->value = v;
        return;
    }
    if (where->count == NIBL_JINJA_MAX_VARIABLES)
        nibl_jinja_fail(j, "a template with so many variables, at", name);
    if (j->status < 0) return;
    void *array = where->list;
    j->status = nibl_reserve(&array, &where->capacity, where->count + 1, sizeof *where->list,
                             "a template's variables");
    where->list = array;
    if (j->status == NIBL_OK) where->list[where->count++] = (nibl_jinja_variable){name, space, v};
}

/* ---- Tokens ---- */

static const nibl_jinja_token *here(const nibl_jinja *j) {
    return &j->tokens[j->status < 0 ? j->count - 1 : j->at];
}

static bool at_mark(const nibl_jinja *j, nibl_jinja_mark mark) { return here(j)->mark == mark; }
static bool at_sign(const nibl_jinja *j, const char *sign) {
    return at_mark(j, NIBL_JINJA_SIGN) && nibl_jinja_is(here(j)->text, sign);
}
static bool at_name(const nibl_jinja *j, const char *name) {
    return at_mark(j, NIBL_JINJA_NAME) && nibl_jinja_is(here(j)->text, name);
}

static void advance(nibl_jinja *j) {
    if (++j->steps > NIBL_JINJA_MAX_STEPS)
        nibl_jinja_fail(j, "a template of so many steps", (nibl_slice){"", 0});
    if (j->at + 1 < j->count) j->at++;
}

static bool take_sign(nibl_jinja *j, const char *sign) {
    const bool there = at_sign(j, sign);
    if (there) advance(j);
    return there;
}

static bool take_name(nibl_jinja *j, const char *name) {
    const bool there = at_name(j, name);
    if (there) advance(j);
    return there;
}

static void expect_sign(nibl_jinja *j, const char *sign) {
    if (!take_sign(j, sign)) nibl_jinja_fail(j, "the syntax at", here(j)->text);
}

static void expect(nibl_jinja *j, nibl_jinja_mark mark) {
    if (!at_mark(j, mark)) nibl_jinja_fail(j, "the syntax at", here(j)->text);
    advance(j);
}

static nibl_slice name(nibl_jinja *j) {
    const nibl_slice text = here(j)->text;
    expect(j, NIBL_JINJA_NAME);
    return text;
}

static bool descend(nibl_jinja *j) {
    if (j->depth == NIBL_JINJA_MAX_DEPTH)
        nibl_jinja_fail(j, "a template nested so deep", (nibl_slice){"", 0});
    if (j->status < 0) return false;
    j->depth++;
    return true;
}

/* ---- Expressions; one that is not `live` is parsed only ---- */

static value expression(nibl_jinja *j, bool live);

static void arguments(nibl_jinja *j, bool live, nibl_jinja_arguments *out) {
    out->count = 0;
    while (j->status == NIBL_OK && !at_sign(j, ")")) {
        if (out->count == NIBL_JINJA_MAX_ARGUMENTS)
            nibl_jinja_fail(j, "a call with so many arguments", here(j)->text);
        const size_t i = out->count < NIBL_JINJA_MAX_ARGUMENTS ? out->count++ : 0;
        const nibl_jinja_token *next = j->at + 1 < j->count ? here(j) + 1 : here(j);
        out->names[i] = (nibl_slice){"", 0};
        if (at_mark(j, NIBL_JINJA_NAME) && next->mark == NIBL_JINJA_SIGN && nibl_jinja_is(next->text, "=")) {
            out->names[i] = name(j);
            expect_sign(j, "=");
        }
        out->values[i] = expression(j, live);
        if (!take_sign(j, ",")) break;
    }
    expect_sign(j, ")");
}

static value look_up(nibl_jinja *j, nibl_slice key) {
    nibl_jinja_charge(j, (uint64_t)j->variables.count * 8);
    for (size_t i = j->variables.count; i-- > 0;)
        if (same_name(j->variables.list[i].name, key)) return j->variables.list[i].value;
    return undefined;
}

static value word(nibl_jinja *j, bool live) {
    static const struct {
        const char *name;
        value v;
    } constants[] = {
        {"true", {NIBL_JINJA_BOOL, {.number = 1}}},  {"True", {NIBL_JINJA_BOOL, {.number = 1}}},
        {"false", {NIBL_JINJA_BOOL, {.number = 0}}}, {"False", {NIBL_JINJA_BOOL, {.number = 0}}},
        {"none", {NIBL_JINJA_NONE, {.number = 0}}},  {"None", {NIBL_JINJA_NONE, {.number = 0}}},
    };
    const nibl_slice key = name(j);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (nibl_jinja_is(key, constants[i].name)) return constants[i].v;
    if (!take_sign(j, "(")) return look_up(j, key);
    nibl_jinja_arguments list;
    arguments(j, live, &list);
    if (!live || j->status < 0) return undefined;
    const value callee = look_up(j, key);
    if (callee.kind == NIBL_JINJA_CLOCK) return nibl_jinja_date(j, callee.as.now, &list);
    if (callee.kind != NIBL_JINJA_UNDEFINED) return nibl_jinja_fail(j, "a call of", key);
    return nibl_jinja_call(j, key, &list);
}

static value list_of(const value *items, size_t count) {
    value list = {.kind = NIBL_JINJA_LIST};
    list.as.list.items = items;
    list.as.list.count = count;
    return list;
}

/* What stands before the closing bracket of a list. */
static value items(nibl_jinja *j, bool live, const char *close) {
    value list = list_of(NULL, 0);
    while (j->status == NIBL_OK && !at_sign(j, close)) {
        const value item = expression(j, live);
        if (live) list = nibl_jinja_binary(j, nibl_jinja_word("+"), list, list_of(&item, 1));
        if (!take_sign(j, ",")) break;
    }
    expect_sign(j, close);
    return list;
}

/* (first, ... */
static value rest_of_list(nibl_jinja *j, bool live, value first) {
    const value rest = items(j, live, ")");
    return live ? nibl_jinja_binary(j, nibl_jinja_word("+"), list_of(&first, 1), rest) : undefined;
}

static value mapping(nibl_jinja *j, bool live) {
    while (j->status == NIBL_OK && !at_sign(j, "}")) {
        expression(j, false);
        expect_sign(j, ":");
        expression(j, false);
        if (!take_sign(j, ",")) break;
    }
    expect_sign(j, "}");
    return live ? nibl_jinja_fail(j, "a mapping", (nibl_slice){"", 0}) : undefined;
}

static value primary(nibl_jinja *j, bool live) {
    if (at_mark(j, NIBL_JINJA_NAME)) return word(j, live);
    if (at_mark(j, NIBL_JINJA_NUMBER)) {
        const value v = nibl_jinja_int(here(j)->number);
        advance(j);
        return v;
    }
    if (at_mark(j, NIBL_JINJA_STRING)) {
        value v = nibl_jinja_text(here(j)->text);
        for (advance(j); at_mark(j, NIBL_JINJA_STRING); advance(j))
            if (live) v = nibl_jinja_binary(j, nibl_jinja_word("+"), v, nibl_jinja_text(here(j)->text));
        return v;
    }
    if (take_sign(j, "[")) return items(j, live, "]");
    if (take_sign(j, "{")) return mapping(j, live);
    if (take_sign(j, "(")) {
        const value v = expression(j, live);
        if (take_sign(j, ",")) return rest_of_list(j, live, v);
        expect_sign(j, ")");
        return v;
    }
    return nibl_jinja_fail(j, "the syntax at", here(j)->text);
}

/* x[key] and x[from:to:step], behind the bracket. */
static value bracket(nibl_jinja *j, value object, bool live) {
    value bounds[3] = {{0}};
    size_t colons = 0;
    while (j->status == NIBL_OK && !at_sign(j, "]")) {
        if (take_sign(j, ":")) {
            if (++colons > 2) nibl_jinja_fail(j, "a slice of so many parts", (nibl_slice){"", 0});
        } else {
            bounds[colons < 3 ? colons : 0] = expression(j, live);
            if (!at_sign(j, ":")) break;
        }
    }
    expect_sign(j, "]");
    if (!live || j->status < 0) return undefined;
    return colons ? nibl_jinja_part(j, object, bounds) : nibl_jinja_member(j, object, bounds[0]);
}

static value postfix(nibl_jinja *j, bool live) {
    value v = primary(j, live);
    while (j->status == NIBL_OK) {
        if (take_sign(j, "[")) {
            v = bracket(j, v, live);
        } else if (take_sign(j, ".")) {
            const nibl_slice key = name(j);
            nibl_jinja_arguments list;
            const bool call = take_sign(j, "(");
            if (call) arguments(j, live, &list);
            if (live && j->status == NIBL_OK)
                v = call ? nibl_jinja_method(j, key, v, &list)
                         : nibl_jinja_member(j, v, nibl_jinja_text(key));
        } else {
            break;
        }
    }
    return v;
}

static value unary(nibl_jinja *j, bool live) {
    const bool negative = take_sign(j, "-");
    value v = postfix(j, live);
    if (negative && live && v.kind != NIBL_JINJA_INT)
        return nibl_jinja_fail(j, "a sign before something that is no number", (nibl_slice){"", 0});
    if (negative && live) v = nibl_jinja_int(-v.as.number);
    while (j->status == NIBL_OK) {
        if (take_sign(j, "|")) {
            const nibl_slice filter = name(j);
            nibl_jinja_arguments list = {.count = 0};
            if (take_sign(j, "(")) arguments(j, live, &list);
            if (live && j->status == NIBL_OK) v = nibl_jinja_filter(j, filter, v, &list);
        } else if (take_name(j, "is")) {
            const bool not = take_name(j, "not");
            const nibl_slice test = name(j);
            const bool operand =
                at_sign(j, "(") || at_mark(j, NIBL_JINJA_STRING) || at_mark(j, NIBL_JINJA_NUMBER);
            if (operand) primary(j, false);
            if (operand && live) nibl_jinja_fail(j, "an operand of the test", test);
            if (live && j->status == NIBL_OK) v = nibl_jinja_test(j, test, v);
            if (not) v = nibl_jinja_bool(!nibl_jinja_truth(&v));
        } else {
            break;
        }
    }
    return v;
}

/* Operators by how they bind, loosest first; "not" stands between 1 and 2. */
static const char *const signs[][7] = {
    {"or"}, {"and"}, {"==", "!=", "<", ">", "<=", ">=", "in"}, {"+", "-", "~"}, {"*", "%", "//"}};
enum { LEVELS = sizeof signs / sizeof *signs, COMPARISON = 2 };

static const nibl_jinja_token *operator_at(const nibl_jinja *j, size_t level) {
    for (size_t i = 0; i < 7 && signs[level][i]; i++)
        if (at_sign(j, signs[level][i]) || at_name(j, signs[level][i])) return here(j);
    return NULL;
}

static value operation(nibl_jinja *j, size_t level, bool live) {
    if (level == LEVELS) return unary(j, live);
    if (level == COMPARISON && take_name(j, "not")) {
        if (!descend(j)) return undefined;
        const value v = operation(j, level, live);
        j->depth--;
        return nibl_jinja_bool(!nibl_jinja_truth(&v));
    }
    value v = operation(j, level + 1, live);
    for (size_t count = 0; j->status == NIBL_OK; count++) {
        const nibl_jinja_token *next = j->at + 1 < j->count ? here(j) + 1 : here(j);
        const bool not_in = level == COMPARISON && at_name(j, "not") && next->mark == NIBL_JINJA_NAME &&
                            nibl_jinja_is(next->text, "in");
        if (not_in) advance(j);
        const nibl_jinja_token *sign = operator_at(j, level);
        if (!sign) break;
        if (level == COMPARISON && count > 0)
            return nibl_jinja_fail(j, "a chain of comparisons at", sign->text);
        advance(j);
        if (level < COMPARISON) { /* the right side may not matter */
            const bool decided = nibl_jinja_truth(&v) == (level == 0);
            const value right = operation(j, level + 1, live && !decided);
            if (!decided) v = right;
            continue;
        }
        const value right = operation(j, level + 1, live);
        if (live && j->status == NIBL_OK) v = nibl_jinja_binary(j, sign->text, v, right);
        if (not_in) v = nibl_jinja_bool(!nibl_jinja_truth(&v));
    }
    return v;
}

/* The "if" of "x if condition", where the expression at hand has one; else 0. */
static size_t find_condition(nibl_jinja *j) {
    size_t depth = 0;
    for (size_t i = j->at; j->status == NIBL_OK; i++, j->steps++) {
        const nibl_jinja_token *token = &j->tokens[i];
        if (token->mark == NIBL_JINJA_NAME && depth == 0) {
            if (nibl_jinja_is(token->text, "if")) return i;
            if (nibl_jinja_is(token->text, "else")) return 0;
        } else if (token->mark == NIBL_JINJA_SIGN) {
            if (strchr("([{", token->text.bytes[0]))
                depth++;
            else if (strchr(")]}", token->text.bytes[0]) && depth-- == 0)
                return 0;
            else if (depth == 0 && strchr(",:=", token->text.bytes[0]) && token->text.length == 1)
                return 0;
        } else if (token->mark == NIBL_JINJA_END || token->mark == NIBL_JINJA_CLOSE ||
                   token->mark == NIBL_JINJA_CLOSE_OUTPUT) {
            return 0;
        }
    }
    return 0;
}

static value expression(nibl_jinja *j, bool live) {
    if (!descend(j)) return undefined;
    const size_t begin = j->at, condition = find_condition(j);
    value v;
    if (condition == 0) {
        v = operation(j, 0, live);
    } else {
        j->at = condition;
        advance(j);
        const value truth = operation(j, 0, live);
        const bool chosen = nibl_jinja_truth(&truth);
        const size_t end = j->at;
        j->at = begin;
        v = operation(j, 0, live && chosen);
        if (j->at != condition) nibl_jinja_fail(j, "the syntax at", here(j)->text);
        if (j->status == NIBL_OK) j->at = end;
        value other = undefined;
        if (take_name(j, "else")) other = expression(j, live && !chosen);
        if (!chosen) v = other;
    }
    j->depth--;
    return v;
}

/* ---- Statements ---- */

static void block(nibl_jinja *j, bool live);

/* Whether the tag at hand is {% name. */
static bool at_tag(const nibl_jinja *j, const char *keyword) {
    if (!at_mark(j, NIBL_JINJA_OPEN) || j->at + 1 >= j->count) return false;
    const nibl_jinja_token *next = here(j) + 1;
    return next->mark == NIBL_JINJA_NAME && nibl_jinja_is(next->text, keyword);
}

static bool take_tag(nibl_jinja *j, const char *keyword) {
    if (!at_tag(j, keyword)) return false;
    advance(j);
    advance(j);
    return true;
}

static void end_tag(nibl_jinja *j, const char *keyword) {
    if (!take_tag(j, keyword)) nibl_jinja_fail(j, "a block without its end,", nibl_jinja_word(keyword));
    expect(j, NIBL_JINJA_CLOSE);
}

static void if_statement(nibl_jinja *j, bool live) {
    bool open = true; /* no branch was taken yet */
    do {
        const value truth = expression(j, live && open);
        expect(j, NIBL_JINJA_CLOSE);
        const bool taken = open && nibl_jinja_truth(&truth);
        block(j, live && taken);
        open = open && !taken;
    } while (take_tag(j, "elif"));
    if (take_tag(j, "else")) {
        expect(j, NIBL_JINJA_CLOSE);
        block(j, live && open);
    }
    end_tag(j, "endif");
}

/* The items for which the condition behind "if" is true. */
static value chosen_items(nibl_jinja *j, bool live, nibl_slice variable, value list) {
    const size_t condition = j->at, outer = j->variables.count;
    operation(j, 0, false);
    const size_t end = j->at, count = live && list.kind == NIBL_JINJA_LIST ? list.as.list.count : 0;
    value *items = count ? nibl_jinja_alloc(j, (uint64_t)count * sizeof *items) : NULL;
    size_t kept = 0;
    for (size_t i = 0; items && i < count && j->status == NIBL_OK; i++) {
        nibl_jinja_set(j, &j->variables, 0, variable, list.as.list.items[i]);
        j->at = condition;
        const value truth = operation(j, 0, true);
        if (nibl_jinja_truth(&truth)) items[kept++] = list.as.list.items[i];
        j->variables.count = outer;
    }
    if (j->status == NIBL_OK) j->at = end;
    return list.kind == NIBL_JINJA_LIST ? list_of(items, kept) : list;
}

/* What is set in a body is forgotten at its end. */
static void for_statement(nibl_jinja *j, bool live) {
    const nibl_slice variable = name(j);
    if (at_sign(j, ",") && live) nibl_jinja_fail(j, "a loop with several variables,", variable);
    while (take_sign(j, ",")) name(j);
    if (!take_name(j, "in")) nibl_jinja_fail(j, "the syntax at", here(j)->text);
    value list = operation(j, 0, live);
    if (take_name(j, "if")) list = chosen_items(j, live, variable, list);
    expect(j, NIBL_JINJA_CLOSE);
    if (live && list.kind != NIBL_JINJA_LIST && j->status == NIBL_OK)
        nibl_jinja_fail(j, "a loop over something that is no list, by", variable);
    const size_t body = j->at, outer = j->variables.count;
    const size_t count = live && j->status == NIBL_OK ? list.as.list.count : 0;
    nibl_jinja_loop *loop = count ? nibl_jinja_alloc(j, sizeof *loop) : NULL;
    if (count == 0) block(j, false);
    for (size_t i = 0; loop && i < count && j->status == NIBL_OK; i++) {
        *loop = (nibl_jinja_loop){list.as.list.items, count, i};
        j->at = body;
        nibl_jinja_set(j, &j->variables, 0, nibl_jinja_word("loop"),
                       (value){NIBL_JINJA_LOOP, {.loop = loop}});
        nibl_jinja_set(j, &j->variables, 0, variable, list.as.list.items[i]);
        block(j, true);
        j->variables.count = outer;
    }
    if (take_tag(j, "else")) {
        expect(j, NIBL_JINJA_CLOSE);
        block(j, live && count == 0);
    }
    end_tag(j, "endfor");
}

static void set_statement(nibl_jinja *j, bool live) {
    nibl_slice variable = name(j), attribute = {"", 0};
    if (take_sign(j, ".")) attribute = name(j);
    if (at_mark(j, NIBL_JINJA_CLOSE)) { /* a block's text becomes the value */
        expect(j, NIBL_JINJA_CLOSE);
        if (live) nibl_jinja_fail(j, "a block that is set to", variable);
        block(j, false);
        end_tag(j, "endset");
        return;
    }
    expect_sign(j, "=");
    const value v = expression(j, live);
    expect(j, NIBL_JINJA_CLOSE);
    if (!live || j->status < 0) return;
    if (attribute.length == 0) {
        nibl_jinja_set(j, &j->variables, 0, variable, v);
        return;
    }
    const value space = look_up(j, variable);
    if (space.kind != NIBL_JINJA_SPACE)
        nibl_jinja_fail(j, "a member that is set, of something that is no namespace,", variable);
    else
        nibl_jinja_set(j, &j->attributes, space.as.number, attribute, v);
}

/* A macro may be there, but not be called. */
static void macro_statement(nibl_jinja *j, bool live) {
    const nibl_slice macro = name(j);
    nibl_jinja_arguments parameters;
    expect_sign(j, "(");
    arguments(j, false, &parameters);
    expect(j, NIBL_JINJA_CLOSE);
    block(j, false);
    end_tag(j, "endmacro");
    if (live) nibl_jinja_set(j, &j->variables, 0, macro, (value){NIBL_JINJA_MACRO, {.number = 0}});
}

static void statement(nibl_jinja *j, bool live) {
    const nibl_slice keyword = name(j);
    if (nibl_jinja_is(keyword, "if"))
        if_statement(j, live);
    else if (nibl_jinja_is(keyword, "for"))
        for_statement(j, live);
    else if (nibl_jinja_is(keyword, "set"))
        set_statement(j, live);
    else if (nibl_jinja_is(keyword, "macro"))
        macro_statement(j, live);
    else if (nibl_jinja_is(keyword, "generation") || nibl_jinja_is(keyword, "endgeneration"))
        expect(j, NIBL_JINJA_CLOSE); /* marks the assistant's part for training */
    else if (!live && (nibl_jinja_is(keyword, "break") || nibl_jinja_is(keyword, "continue")))
        expect(j, NIBL_JINJA_CLOSE);
    else
        nibl_jinja_fail(j, "the statement", keyword);
}

/* Goes on until a tag that belongs to who called. */
static void block(nibl_jinja *j, bool live) {
    static const char *const ends[] = {"elif", "else", "endif", "endfor", "endset", "endmacro"};
    if (!descend(j)) return;
    while (!at_mark(j, NIBL_JINJA_END)) {
        bool end = false;
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) end = end || at_tag(j, ends[i]);
        if (end) break;
        if (at_mark(j, NIBL_JINJA_TEXT)) {
            if (live) nibl_write(j->out, here(j)->text.bytes, here(j)->text.length);
            advance(j);
        } else if (at_mark(j, NIBL_JINJA_OPEN)) {
            advance(j);
            statement(j, live);
        } else {
            expect(j, NIBL_JINJA_OPEN_OUTPUT);
            const value v = expression(j, live);
            expect(j, NIBL_JINJA_CLOSE_OUTPUT);
            if (live) nibl_jinja_print(j, v);
        }
    }
    j->depth--;
}

nibl_status nibl_jinja_render(nibl_jinja *j, nibl_writer *out) {
    j->out = out;
    for (int live = 0; live < 2 && j->status == NIBL_OK; live++) { /* the first time for the syntax */
        j->at = 0;
        block(j, live);
        if (j->status == NIBL_OK && !at_mark(j, NIBL_JINJA_END)) {
            advance(j);
            nibl_jinja_fail(j, "a block's end without its beginning,", here(j)->text);
        }
    }
    return j->status;
}

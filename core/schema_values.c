/* JSON Schema: the texts of the values that are valid for all parts of a set. Where valid values are hard to tell from others,
 * fewer are taken, or the schema is refused. */
#include "core/schema.h"

/* ---- Rules that many share ---- */

void nibl_schema_put_separator(compiler *c, nibl_sequence *s, const char *sign) {
    if (!c->space) {
        nibl_sequence one = {0};
        put(c, &one, " ");
        c->space = nibl_rule_of(c->rules, one);
    }
    put(c, s, sign);
    nibl_put_repeat(c->rules, s, c->space, 0, 1);
}

static void put_characters(compiler *c, nibl_sequence *s, uint32_t min, uint32_t max) {
    if (!c->character) {
        nibl_chars all = {0};
        nibl_sequence one = {0};
        nibl_chars_negate(&all);
        nibl_put_chars(c->rules, &one, &all, true);
        c->character = nibl_rule_of(c->rules, one);
    }
    nibl_put_repeat(c->rules, s, c->character, min, max);
}

static void put_any_string(compiler *c, nibl_sequence *s) {
    put(c, s, "\"");
    put_characters(c, s, 0, NIBL_GRAMMAR_MANY);
    put(c, s, "\"");
}

/* From min to max of what `one` is, with commas. */
uint32_t nibl_schema_list(compiler *c, nibl_sequence one, uint32_t min, uint32_t max) {
    const uint32_t item = nibl_rule_of(c->rules, one), rule = nibl_rule_new(c->rules);
    if (min == 0) nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    if (max == 0) return rule;
    nibl_sequence next = {0}, all = {0};
    nibl_schema_put_separator(c, &next, ",");
    nibl_put_rule(c->rules, &next, item);
    nibl_put_rule(c->rules, &all, item);
    nibl_put_repeat(c->rules, &all, nibl_rule_of(c->rules, next), min ? min - 1 : 0,
                    max == NIBL_GRAMMAR_MANY ? max : max - 1);
    nibl_rule_add(c->rules, rule, all);
    return rule;
}

/* Nothing, or that. */
uint32_t nibl_schema_optional(compiler *c, nibl_sequence s) {
    const uint32_t rule = nibl_rule_of(c->rules, s);
    nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    return rule;
}

static uint32_t any_value(compiler *c);

void nibl_schema_put_value(compiler *c, nibl_sequence *s, const set *what) {
    if (stopped(c)) return;
    if (what->count == 0 && !what->never)
        nibl_put_rule(c->rules, s, any_value(c));
    else
        nibl_schema_put(c, s, what);
}

/* Members, with commas; key 0: any string. */
uint32_t nibl_schema_pairs(compiler *c, uint32_t key, const set *value, uint32_t min, uint32_t max) {
    nibl_sequence pair = {0};
    if (key)
        nibl_put_rule(c->rules, &pair, key);
    else
        put_any_string(c, &pair);
    nibl_schema_put_separator(c, &pair, ":");
    nibl_schema_put_value(c, &pair, value);
    return nibl_schema_list(c, pair, min, max);
}

/* Any JSON. */
static uint32_t any_value(compiler *c) {
    static const char *const words[] = {"null", "true", "false"};
    if (c->value) return c->value;
    c->value = nibl_rule_new(c->rules);
    nibl_sequence s = {0}, item = {0};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++, s = (nibl_sequence){0}) {
        put(c, &s, words[i]);
        nibl_rule_add(c->rules, c->value, s);
    }
    nibl_schema_put_number(c->rules, &s, NULL, false);
    nibl_rule_add(c->rules, c->value, s);
    s = (nibl_sequence){0};
    put_any_string(c, &s);
    nibl_rule_add(c->rules, c->value, s);
    s = (nibl_sequence){0};
    put(c, &s, "[");
    nibl_put_rule(c->rules, &item, c->value);
    nibl_put_rule(c->rules, &s, nibl_schema_list(c, item, 0, NIBL_GRAMMAR_MANY));
    put(c, &s, "]");
    nibl_rule_add(c->rules, c->value, s);
    s = (nibl_sequence){0};
    put(c, &s, "{");
    nibl_put_rule(c->rules, &s, nibl_schema_pairs(c, 0, &(set){.count = 0}, 0, NIBL_GRAMMAR_MANY));
    put(c, &s, "}");
    nibl_rule_add(c->rules, c->value, s);
    return c->value;
}

/* ---- Values that are there as they are ---- */

void nibl_schema_put_literal(compiler *c, nibl_sequence *s, uint32_t node) {
    const nibl_json_node n = c->json.nodes[node];
    if (n.kind == NIBL_JSON_STRING) put(c, s, "\"");
    if (n.kind != NIBL_JSON_ARRAY && n.kind != NIBL_JSON_OBJECT) {
        nibl_put_text(c->rules, s, c->json.text + n.at, n.length);
        if (n.kind == NIBL_JSON_STRING) put(c, s, "\"");
        return;
    }
    const bool object = n.kind == NIBL_JSON_OBJECT;
    bool first = true;
    put(c, s, object ? "{" : "[");
    for (uint32_t i = 0; nibl_json_each(&c->json, node, &i); first = false) {
        if (!first) put(c, s, ",");
        nibl_schema_put_literal(c, s, i);
        if (!object) continue;
        put(c, s, ":");
        nibl_schema_put_literal(c, s, i + 1);
    }
    put(c, s, object ? "}" : "]");
}

static nibl_verdict is_listed(compiler *c, uint32_t schema, uint32_t value) {
    const uint32_t only = get(c, schema, "const");
    const uint32_t list = get_kind(c, schema, "enum", NIBL_JSON_ARRAY);
    if (only && list) fail(c, list, "'enum' beside 'const' is not supported");
    if (only) return nibl_schema_same(&c->json, only, value);
    nibl_verdict found = NIBL_NO;
    for (uint32_t i = 0; nibl_json_each(&c->json, list, &i);) {
        const nibl_verdict same = nibl_schema_same(&c->json, i, value);
        if (same == NIBL_YES) return NIBL_YES;
        if (same == NIBL_UNKNOWN) found = NIBL_UNKNOWN;
    }
    return found;
}

static nibl_number_range read_range(compiler *c, const set *s, bool *bounded) {
    static const char *const names[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
    nibl_number_range range = {.low = {-NIBL_NUMBER_LARGEST, false}, .high = {NIBL_NUMBER_LARGEST, false}};
    for (uint32_t i = 0; i < s->count * 4; i++) {
        const uint32_t node = get(c, schema_of(s, i / 4), names[i % 4]);
        double value;
        if (!node) continue;
        if (!nibl_json_f64(&c->json, node, &value)) {
            fail(c, node, "it must be a number");
            break;
        }
        const bool upper = i % 4 >= 2, exclusive = i % 2 == 1;
        nibl_number_bound *bound = upper ? &range.high : &range.low;
        if (upper ? value < bound->value : value > bound->value)
            *bound = (nibl_number_bound){value, exclusive};
        if (value == bound->value && exclusive) bound->exclusive = true;
        *bounded = true;
    }
    return range;
}

static nibl_verdict number_holds(compiler *c, const set *s, uint32_t i, double value) {
    bool bounded = false;
    const nibl_number_range range = read_range(c, &(set){{s->parts[i]}, 1, false}, &bounded);
    if (bounded && (value < range.low.value || value > range.high.value ||
                    (value == range.low.value && range.low.exclusive) ||
                    (value == range.high.value && range.high.exclusive)))
        return NIBL_NO;
    return get(c, schema_of(s, i), "multipleOf") ? NIBL_UNKNOWN : NIBL_YES;
}

static nibl_verdict string_holds(compiler *c, uint32_t schema, uint32_t value) {
    const uint32_t length = nibl_schema_length(&c->json, value);
    if (get(c, schema, "pattern") || get(c, schema, "format")) return NIBL_UNKNOWN;
    return length >= get_count(c, schema, "minLength", 0) &&
                   length <= get_count(c, schema, "maxLength", NIBL_GRAMMAR_MANY)
               ? NIBL_YES
               : NIBL_NO;
}

static nibl_verdict holds(compiler *c, const set *s, uint32_t i, uint32_t value) {
    const uint32_t schema = schema_of(s, i), about = nibl_schema_about(c, schema);
    const uint32_t type = nibl_schema_type_of(&c->json, value);
    uint32_t types = NIBL_IS_ANY;
    double number;
    if (s->parts[i] & NIBL_PART_KEY && type != NIBL_IS_STRING) return NIBL_NO;
    if (!nibl_schema_types(&c->json, get(c, schema, "type"), &types))
        fail(c, get(c, schema, "type"), "there is no such type");
    if (!(type & types)) return NIBL_NO;
    nibl_verdict all = NIBL_YES;
    if (about & NIBL_ABOUT_VALUES) all = is_listed(c, schema, value);
    if (all != NIBL_NO && about & NIBL_ABOUT_NUMBERS && nibl_json_f64(&c->json, value, &number)) {
        const nibl_verdict one = number_holds(c, s, i, number);
        if (one != NIBL_YES) all = one;
    }
    if (all != NIBL_NO && about & NIBL_ABOUT_STRINGS && type == NIBL_IS_STRING) {
        const nibl_verdict one = string_holds(c, schema, value);
        if (one != NIBL_YES) all = one;
    }
    if (all == NIBL_YES && ((about & NIBL_ABOUT_OBJECTS && type == NIBL_IS_OBJECT) ||
                            (about & NIBL_ABOUT_ARRAYS && type == NIBL_IS_ARRAY)))
        all = NIBL_UNKNOWN;
    return all;
}

nibl_verdict nibl_schema_holds(compiler *c, const set *s, uint32_t value) {
    nibl_verdict all = NIBL_YES;
    for (uint32_t i = 0; i < s->count && all != NIBL_NO; i++) {
        const nibl_verdict one = holds(c, s, i, value);
        if (one != NIBL_YES) all = one;
    }
    return s->never ? NIBL_NO : all;
}

/* The values that schema `from` of the set lists, as far as they are valid for all. */
static void add_listed(compiler *c, uint32_t rule, const set *s, uint32_t from) {
    const uint32_t only = get(c, schema_of(s, from), "const");
    const uint32_t list = get_kind(c, schema_of(s, from), "enum", NIBL_JSON_ARRAY);
    bool any = false;
    for (uint32_t i = 0; !stopped(c) && (only ? i == 0 : nibl_json_each(&c->json, list, &i));) {
        if (only) i = only;
        const nibl_verdict valid = nibl_schema_holds(c, s, i);
        if (valid == NIBL_UNKNOWN)
            fail(c, i, "whether this value is valid for all that stands beside it cannot be told");
        if (valid == NIBL_YES) {
            nibl_sequence one = {0};
            nibl_schema_put_literal(c, &one, i);
            nibl_rule_add(c->rules, rule, one);
            any = true;
        }
        if (only) break;
    }
    if (!any) nothing(c, s, list ? list : only, "no value is allowed");
}

/* ---- Strings ---- */

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$"},
    {"time", "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"},
    {"date-time",
     "^(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z$"},
    {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    {"ipv4",
     "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$"},
    {"email", "^[a-z0-9]{1,16}([._-][a-z0-9]{1,16}){0,2}@[a-z0-9]{1,24}(\\.[a-z]{2,8}){1,2}$"},
};

void nibl_schema_put_pattern(compiler *c, nibl_sequence *s, uint32_t node) {
    char text[1024];
    nibl_writer out = {.text = text, .capacity = sizeof text};
    nibl_json_write_string(&c->json, node, &out);
    if (out.length >= sizeof text) {
        fail(c, node, "a pattern of more than 1023 bytes");
        return;
    }
    nibl_grammar_read_pattern(c->rules, s, (nibl_slice){text, out.length}, "JSON Schema, pattern");
}

static void put_format(compiler *c, nibl_sequence *s, uint32_t format) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!nibl_json_equals(&c->json, format, formats[i].name)) continue;
        nibl_grammar_read_pattern(c->rules, s, (nibl_slice){formats[i].pattern, strlen(formats[i].pattern)},
                                  "format");
        return;
    }
    fail(c, format, "this format is not supported: date, time, date-time, uuid, ipv4 and email are");
}

static bool put_string(compiler *c, nibl_sequence *s, const set *of) {
    uint32_t min, max, shape = 0;
    bool pattern = false;
    read_limits(c, of, "minLength", "maxLength", &min, &max);
    const bool length = min > 0 || max < NIBL_GRAMMAR_MANY;
    for (uint32_t i = 0; i < of->count * 2; i++) {
        const char *key = i % 2 ? "format" : "pattern";
        const uint32_t node = get_kind(c, schema_of(of, i / 2), key, NIBL_JSON_STRING);
        if (!node) continue;
        const bool again = shape && pattern == (i % 2 == 0) && nibl_schema_same_string(&c->json, shape, node);
        if ((shape && !again) || length)
            fail(c, schema_of(of, i / 2), "only one of 'pattern', 'format' and a length is supported");
        shape = node;
        pattern = i % 2 == 0;
    }
    if (max < min) return nothing(c, of, schema_of(of, 0), "maxLength is less than minLength");
    put(c, s, "\"");
    if (!shape)
        put_characters(c, s, min, max);
    else if (pattern)
        nibl_schema_put_pattern(c, s, shape);
    else
        put_format(c, s, shape);
    put(c, s, "\"");
    return true;
}

/* ---- Numbers ---- */

static bool put_number(compiler *c, nibl_sequence *s, const set *of, bool whole) {
    bool bounded = false;
    const nibl_number_range range = read_range(c, of, &bounded);
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t multiple = get(c, schema_of(of, i), "multipleOf");
        double step;
        if (multiple && (!nibl_json_f64(&c->json, multiple, &step) || step != 1.0))
            fail(c, multiple, "only 1 is supported");
        whole = whole || multiple;
    }
    if (stopped(c)) return false;
    if (nibl_schema_put_number(c->rules, s, bounded ? &range : NULL, whole)) return true;
    return nothing(c, of, schema_of(of, 0), "there is no number in this range that can be written simply");
}

/* ---- Sets ---- */

/* The types that are asked for: where no schema names one, those that its other keywords are about, though values of other
 * types are valid too. */
static uint32_t types_of(compiler *c, const set *of, uint32_t about) {
    uint32_t types = NIBL_IS_ANY;
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t type = get(c, schema_of(of, i), "type");
        uint32_t own = NIBL_IS_ANY;
        if (!nibl_schema_types(&c->json, type, &own)) fail(c, type, "there is no such type");
        types &= of->parts[i] & NIBL_PART_KEY ? own & NIBL_IS_STRING : own;
        if (of->parts[i] & NIBL_PART_KEY) about |= NIBL_ABOUT_TYPE;
    }
    if (about & NIBL_ABOUT_TYPE) return types;
    const uint32_t asked = (about & NIBL_ABOUT_OBJECTS ? NIBL_IS_OBJECT : 0) |
                           (about & NIBL_ABOUT_ARRAYS ? NIBL_IS_ARRAY : 0) |
                           (about & NIBL_ABOUT_STRINGS ? NIBL_IS_STRING : 0) |
                           (about & NIBL_ABOUT_NUMBERS ? NIBL_IS_INTEGER | NIBL_IS_FRACTION : 0);
    return asked ? asked : types;
}

void nibl_schema_add_values(compiler *c, uint32_t rule, const set *of) {
    static const struct {
        uint32_t type;
        const char *text;
    } words[] = {{NIBL_IS_NULL, "null"}, {NIBL_IS_BOOLEAN, "true"}, {NIBL_IS_BOOLEAN, "false"}};
    uint32_t about = 0;
    for (uint32_t i = 0; i < of->count; i++) {
        static const char *const unevaluated[] = {"unevaluatedProperties", "unevaluatedItems"};
        const uint32_t own = nibl_schema_about(c, schema_of(of, i));
        for (size_t k = 0; k < 2; k++)
            if (get(c, schema_of(of, i), unevaluated[k]) && of->count > 1 &&
                !(of->parts[i] & NIBL_PART_OWNER))
                fail(c, get(c, schema_of(of, i), unevaluated[k]), "beside other schemas it is not supported");
        if (own & NIBL_ABOUT_VALUES) {
            add_listed(c, rule, of, i);
            return;
        }
        about |= own;
    }
    const uint32_t types = types_of(c, of, about);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        nibl_sequence s = {0};
        if (!(types & words[i].type)) continue;
        put(c, &s, words[i].text);
        nibl_rule_add(c->rules, rule, s);
    }
    for (uint32_t type = NIBL_IS_INTEGER; type <= NIBL_IS_OBJECT && !stopped(c); type *= 2) {
        nibl_sequence s = {0};
        bool any = true;
        if (!(types & type) || (type == NIBL_IS_INTEGER && types & NIBL_IS_FRACTION)) continue;
        if (type == NIBL_IS_INTEGER || type == NIBL_IS_FRACTION)
            any = put_number(c, &s, of, type == NIBL_IS_INTEGER);
        if (type == NIBL_IS_STRING) any = put_string(c, &s, of);
        if (type == NIBL_IS_ARRAY) any = nibl_schema_put_array(c, &s, of);
        if (type == NIBL_IS_OBJECT) any = nibl_schema_put_object(c, &s, of);
        if (any) nibl_rule_add(c->rules, rule, s);
    }
}

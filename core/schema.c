/*
 * JSON Schema (2020-12, and the older names of its parts) to rules of a grammar, whose texts are all valid: a subset of
 * what the schema allows, compact JSON with at most a space behind ':' and ','. Properties come in the schema's order; where
 * additionalProperties is not there, only those that are named. Whatever is not in the table below is refused, with its
 * path. Every schema of the document becomes one rule, so that $ref may recurse.
 */
#include "core/grammar.h"
#include "core/json.h"
#include "core/schema_parts.h"

#include <string.h>

enum { MAX_MEMBERS = 1024 /* properties, items, alternatives */, MAX_NODES = 1 << 16 };

/* What a keyword is about: nothing (notes), how schemas combine, or values of a type. */
enum { NOTE = 0, COMBINE = 1, VALUES = 2, TYPE = 4, OBJECTS = 8, ARRAYS = 16, STRINGS = 32, NUMBERS = 64 };

static const struct {
    const char *name;
    uint8_t about;
} keywords[] = {
    {"type", TYPE},
    {"enum", VALUES},
    {"const", VALUES},
    {"$ref", COMBINE},
    {"anyOf", COMBINE},
    {"oneOf", COMBINE},
    {"allOf", COMBINE},
    {"properties", OBJECTS},
    {"required", OBJECTS},
    {"additionalProperties", OBJECTS},
    {"items", ARRAYS},
    {"prefixItems", ARRAYS},
    {"additionalItems", ARRAYS},
    {"minItems", ARRAYS},
    {"maxItems", ARRAYS},
    {"uniqueItems", ARRAYS},
    {"minLength", STRINGS},
    {"maxLength", STRINGS},
    {"pattern", STRINGS},
    {"format", STRINGS},
    {"minimum", NUMBERS},
    {"maximum", NUMBERS},
    {"exclusiveMinimum", NUMBERS},
    {"exclusiveMaximum", NUMBERS},
    {"multipleOf", NUMBERS},
    {"$schema", NOTE},
    {"$id", NOTE},
    {"id", NOTE},
    {"$comment", NOTE},
    {"$defs", NOTE},
    {"definitions", NOTE},
    {"title", NOTE},
    {"description", NOTE},
    {"default", NOTE},
    {"example", NOTE},
    {"examples", NOTE},
    {"deprecated", NOTE},
    {"readOnly", NOTE},
    {"writeOnly", NOTE},
    {"strict", NOTE},
};

typedef struct compiler {
    nibl_rules *rules;
    nibl_json json;
    uint32_t *rule_of; /* (json.count): of the schema that a node is; 0 = none yet */
    uint32_t *queue; /* (json.count): schemas whose rules are still empty */
    size_t queued;
    uint32_t space, character, value; /* rules; 0 = not needed yet */
} compiler;

/* ---- Errors ---- */

/* JSON pointer of a node, which may be a key. */
static void write_path(const nibl_json *json, uint32_t node, nibl_writer *out) {
    nibl_write(out, "#", 1);
    for (uint32_t at = NIBL_JSON_ROOT; at != node;) {
        uint32_t index = 0, inside = 0;
        const bool object = nibl_json_is(json, at, NIBL_JSON_OBJECT);
        for (uint32_t i = 0; nibl_json_each(json, at, &i); index++) {
            inside = object ? i + 1 : i;
            if (node >= i && node < json->nodes[inside].next) {
                nibl_write(out, "/", 1);
                if (object)
                    nibl_write(out, nibl_json_text(json, i).bytes, nibl_json_text(json, i).length);
                else
                    nibl_print(out, "%u", index);
                if (node == i) return;
                break;
            }
            inside = 0;
        }
        if (!inside) return;
        at = inside;
    }
}

static void fail(compiler *c, uint32_t node, const char *what) {
    char path[300];
    nibl_writer out = {.text = path, .capacity = sizeof path};
    write_path(&c->json, node, &out);
    if (out.length >= sizeof path) out.length = sizeof path - 1;
    nibl_rules_fail(c->rules, "JSON Schema, %.*s: %s", (int)out.length, path, what);
}

static bool stopped(const compiler *c) { return c->rules->status < 0; }

static uint32_t get(const compiler *c, uint32_t node, const char *key) {
    return nibl_json_get(&c->json, node, key);
}

static bool is(const compiler *c, uint32_t node, nibl_json_kind kind) {
    return nibl_json_is(&c->json, node, kind);
}

/* A keyword that must be of a kind; 0 where it is not there. */
static uint32_t get_kind(compiler *c, uint32_t node, const char *key, nibl_json_kind kind) {
    const uint32_t value = get(c, node, key);
    if (value && !is(c, value, kind)) fail(c, value, "the value is of the wrong type");
    return value;
}

static uint32_t get_count(compiler *c, uint32_t node, const char *key, uint32_t fallback) {
    const uint32_t value = get(c, node, key);
    double number;
    if (!value) return fallback;
    if (!nibl_json_f64(&c->json, value, &number) || !(number >= 0) || number != (double)(uint64_t)number)
        fail(c, value, "it must be a whole number, not negative");
    else if (number > (double)NIBL_GRAMMAR_MAX_REPEAT)
        return fallback == NIBL_GRAMMAR_MANY ? fallback : NIBL_GRAMMAR_MAX_REPEAT + 1;
    else
        return (uint32_t)number;
    return fallback;
}

/* ---- Rules that many share ---- */

static void put(compiler *c, nibl_sequence *s, const char *text) {
    nibl_put_text(c->rules, s, text, strlen(text));
}

static void put_separator(compiler *c, nibl_sequence *s, const char *sign) {
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

static void put_schema(compiler *c, nibl_sequence *s, uint32_t schema);

/* One or several of what `one` is, with commas; none too where min is 0. */
static uint32_t list_of(compiler *c, nibl_sequence one, uint32_t min, uint32_t max) {
    const uint32_t item = nibl_rule_of(c->rules, one), rule = nibl_rule_new(c->rules);
    if (min == 0) nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    if (max == 0) return rule;
    nibl_sequence next = {0}, all = {0};
    put_separator(c, &next, ",");
    nibl_put_rule(c->rules, &next, item);
    nibl_put_rule(c->rules, &all, item);
    nibl_put_repeat(c->rules, &all, nibl_rule_of(c->rules, next), min ? min - 1 : 0,
                    max == NIBL_GRAMMAR_MANY ? max : max - 1);
    nibl_rule_add(c->rules, rule, all);
    return rule;
}

/* Nothing, or that. */
static uint32_t optional(compiler *c, nibl_sequence s) {
    const uint32_t rule = nibl_rule_of(c->rules, s);
    nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    return rule;
}

/* One or several members; key 0: any string, schema 0: any value. */
static uint32_t pair_list(compiler *c, uint32_t key, uint32_t schema) {
    nibl_sequence pair = {0};
    if (key)
        nibl_put_rule(c->rules, &pair, key);
    else
        put_any_string(c, &pair);
    put_separator(c, &pair, ":");
    put_schema(c, &pair, schema);
    return list_of(c, pair, 1, NIBL_GRAMMAR_MANY);
}

/* Any JSON. */
static uint32_t any_value(compiler *c) {
    if (c->value) return c->value;
    c->value = nibl_rule_new(c->rules);
    nibl_sequence s = {0}, item = {0};
    for (size_t i = 0; i < 3; i++, s = (nibl_sequence){0}) {
        put(c, &s, (const char *[]){"null", "true", "false"}[i]);
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
    nibl_put_rule(c->rules, &s, list_of(c, item, 0, NIBL_GRAMMAR_MANY));
    put(c, &s, "]");
    nibl_rule_add(c->rules, c->value, s);
    s = (nibl_sequence){0};
    put(c, &s, "{");
    item = (nibl_sequence){0};
    nibl_put_rule(c->rules, &item, pair_list(c, 0, 0));
    nibl_put_rule(c->rules, &s, optional(c, item));
    put(c, &s, "}");
    nibl_rule_add(c->rules, c->value, s);
    return c->value;
}

/* A value of the schema; 0: any. */
static void put_schema(compiler *c, nibl_sequence *s, uint32_t schema) {
    if (stopped(c)) return;
    if (schema && !c->rule_of[schema]) {
        c->rule_of[schema] = nibl_rule_new(c->rules);
        c->queue[c->queued++] = schema;
    }
    nibl_put_rule(c->rules, s, schema ? c->rule_of[schema] : any_value(c));
}

/* ---- Values ---- */

static void put_literal(compiler *c, nibl_sequence *s, uint32_t node) {
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
        put_literal(c, s, i);
        if (!object) continue;
        put(c, s, ":");
        put_literal(c, s, i + 1);
    }
    put(c, s, object ? "}" : "]");
}

static void add_values(compiler *c, uint32_t schema, uint32_t rule, uint32_t types) {
    const uint32_t only = get(c, schema, "const");
    const uint32_t list = get_kind(c, schema, "enum", NIBL_JSON_ARRAY);
    if (only && list) fail(c, list, "'enum' beside 'const' is not supported");
    bool any = false;
    for (uint32_t i = 0; !stopped(c) && (only ? i == 0 : nibl_json_each(&c->json, list, &i));) {
        if (only) i = only;
        if (nibl_schema_type_of(&c->json, i) & types) {
            nibl_sequence s = {0};
            put_literal(c, &s, i);
            nibl_rule_add(c->rules, rule, s);
            any = true;
        }
        if (only) break;
    }
    if (!any) fail(c, list ? list : only, "no value is allowed");
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

static void put_pattern(compiler *c, nibl_sequence *s, uint32_t node) {
    char text[1024];
    nibl_writer out = {.text = text, .capacity = sizeof text};
    nibl_json_write_string(&c->json, node, &out);
    if (out.length >= sizeof text) {
        fail(c, node, "a pattern of more than 1023 bytes");
        return;
    }
    nibl_grammar_read_pattern(c->rules, s, (nibl_slice){text, out.length}, "JSON Schema, pattern");
}

static void put_string(compiler *c, nibl_sequence *s, uint32_t schema) {
    const uint32_t pattern = get_kind(c, schema, "pattern", NIBL_JSON_STRING);
    const uint32_t format = get_kind(c, schema, "format", NIBL_JSON_STRING);
    const uint32_t min = get_count(c, schema, "minLength", 0);
    const uint32_t max = get_count(c, schema, "maxLength", NIBL_GRAMMAR_MANY);
    const bool length = get(c, schema, "minLength") || get(c, schema, "maxLength");
    if (max < min) fail(c, schema, "maxLength is less than minLength");
    if ((pattern != 0) + (format != 0) + length > 1)
        fail(c, schema, "only one of 'pattern', 'format' and a length is supported");
    put(c, s, "\"");
    if (pattern) {
        put_pattern(c, s, pattern);
    } else if (format) {
        size_t i = 0;
        while (i < sizeof formats / sizeof *formats && !nibl_json_equals(&c->json, format, formats[i].name))
            i++;
        if (i == sizeof formats / sizeof *formats)
            fail(c, format, "this format is not supported: date, time, date-time, uuid, ipv4 and email are");
        else
            nibl_grammar_read_pattern(c->rules, s,
                                      (nibl_slice){formats[i].pattern, strlen(formats[i].pattern)}, "format");
    } else {
        put_characters(c, s, min, max);
    }
    put(c, s, "\"");
}

/* ---- Numbers ---- */

static void put_number(compiler *c, nibl_sequence *s, uint32_t schema, bool whole) {
    static const char *const names[] = {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"};
    nibl_number_range range = {.low = {-NIBL_NUMBER_LARGEST, false}, .high = {NIBL_NUMBER_LARGEST, false}};
    bool bounded = false;
    for (size_t i = 0; i < 4; i++) {
        const uint32_t node = get(c, schema, names[i]);
        double value;
        if (!node) continue;
        if (!nibl_json_f64(&c->json, node, &value)) {
            fail(c, node, "it must be a number");
            return;
        }
        nibl_number_bound *bound = i < 2 ? &range.low : &range.high;
        const bool tighter = i < 2 ? value >= bound->value : value <= bound->value;
        if (tighter) *bound = (nibl_number_bound){value, i % 2 == 1};
        bounded = true;
    }
    const uint32_t multiple = get(c, schema, "multipleOf");
    double step;
    if (multiple && (!nibl_json_f64(&c->json, multiple, &step) || step != 1.0))
        fail(c, multiple, "only 1 is supported");
    if (stopped(c)) return;
    if (!nibl_schema_put_number(c->rules, s, bounded ? &range : NULL, whole || multiple))
        fail(c, schema, "there is no number in this range that can be written simply");
}

/* ---- Arrays ---- */

static void put_array(compiler *c, nibl_sequence *s, uint32_t schema) {
    uint32_t min = get_count(c, schema, "minItems", 0),
             max = get_count(c, schema, "maxItems", NIBL_GRAMMAR_MANY);
    const uint32_t unique = get(c, schema, "uniqueItems");
    if (unique && !is(c, unique, NIBL_JSON_FALSE) && max > 1) fail(c, unique, "true is not supported");
    const uint32_t items = get(c, schema, "items");
    const bool old = is(c, items, NIBL_JSON_ARRAY);
    const uint32_t prefix = old ? items : get_kind(c, schema, "prefixItems", NIBL_JSON_ARRAY);
    const uint32_t rest = old ? get(c, schema, "additionalItems") : items;
    uint32_t list[MAX_MEMBERS], count = 0;
    for (uint32_t i = 0; nibl_json_each(&c->json, prefix, &i) && count < max;) {
        if (count == MAX_MEMBERS) {
            fail(c, prefix, "more than 1024 items");
            return;
        }
        list[count++] = i;
    }
    const uint32_t more_min = min > count ? min - count : 0;
    uint32_t more_max = max == NIBL_GRAMMAR_MANY ? max : max - count;
    if (is(c, rest, NIBL_JSON_FALSE)) more_max = 0;
    if (prefix && !rest && more_max > more_min)
        more_max = more_min; /* more are allowed, but nobody asks for them */
    if (max < min || more_max < more_min) fail(c, schema, "so few items are allowed that none fit");
    if (stopped(c)) return;

    /* Rule i: what follows i of the first items. */
    nibl_sequence one = {0};
    uint32_t rule = 0;
    if (more_max > 0) put_schema(c, &one, is(c, rest, NIBL_JSON_TRUE) ? 0 : rest);
    if (count == 0) {
        rule = list_of(c, one, more_min, more_max);
    } else {
        nibl_sequence tail = {0}, next = {0};
        if (more_max > 0) {
            put_separator(c, &next, ",");
            nibl_put_rule(c->rules, &next, nibl_rule_of(c->rules, one));
            nibl_put_repeat(c->rules, &tail, nibl_rule_of(c->rules, next), more_min, more_max);
        }
        rule = nibl_rule_of(c->rules, tail);
    }
    for (uint32_t i = count; i-- > 0;) {
        nibl_sequence item = {0};
        if (i > 0) put_separator(c, &item, ",");
        put_schema(c, &item, list[i]);
        nibl_put_rule(c->rules, &item, rule);
        rule = nibl_rule_of(c->rules, item);
        if (i >= min) nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    }
    put(c, s, "[");
    nibl_put_rule(c->rules, s, rule);
    put(c, s, "]");
}

/* ---- Objects ---- */

typedef struct members {
    uint32_t keys[MAX_MEMBERS], schemas[MAX_MEMBERS]; /* schemas: 0 = any */
    bool required[MAX_MEMBERS];
    uint32_t count;
} members;

static uint32_t find_member(const compiler *c, const members *list, uint32_t key) {
    uint32_t i = 0;
    while (i < list->count && !nibl_schema_same_string(&c->json, list->keys[i], key)) i++;
    return i;
}

static bool add_member(compiler *c, members *list, uint32_t key, uint32_t schema) {
    if (list->count == MAX_MEMBERS) {
        fail(c, key, "more than 1024 properties");
        return false;
    }
    list->keys[list->count] = key;
    list->schemas[list->count] = schema;
    list->required[list->count++] = false;
    return true;
}

static void read_members(compiler *c, uint32_t schema, uint32_t additional, members *list) {
    const uint32_t properties = get_kind(c, schema, "properties", NIBL_JSON_OBJECT);
    const uint32_t required = get_kind(c, schema, "required", NIBL_JSON_ARRAY);
    for (uint32_t i = 0; !stopped(c) && nibl_json_each(&c->json, properties, &i);)
        if (find_member(c, list, i) == list->count) add_member(c, list, i, i + 1);
    for (uint32_t i = 0; !stopped(c) && nibl_json_each(&c->json, required, &i);) {
        if (!is(c, i, NIBL_JSON_STRING)) fail(c, i, "names are strings");
        if (stopped(c)) return;
        const uint32_t at = find_member(c, list, i);
        if (at == list->count && is(c, additional, NIBL_JSON_FALSE))
            fail(c, i, "it is required, and not allowed");
        if (at < list->count || add_member(c, list, i, is(c, additional, NIBL_JSON_TRUE) ? 0 : additional))
            list->required[at] = true;
    }
}

/* The rule of a string that is no property's name; 0 = of any string. */
static uint32_t key_beside(compiler *c, const members *list) {
    nibl_slice names[MAX_MEMBERS];
    for (uint32_t i = 0; i < list->count; i++) {
        names[i] = nibl_json_text(&c->json, list->keys[i]);
        /* One that is written with escapes may be of plain characters all the same. */
        if (c->json.nodes[list->keys[i]].escaped)
            fail(c, list->keys[i], "a name with escapes beside other properties");
    }
    return list->count ? nibl_schema_other_key(c->rules, names, list->count) : 0;
}

static void put_member(compiler *c, nibl_sequence *s, const members *list, uint32_t i) {
    put_literal(c, s, list->keys[i]);
    put_separator(c, s, ":");
    put_schema(c, s, list->schemas[i]);
}

static void put_object(compiler *c, nibl_sequence *s, uint32_t schema) {
    members list = {.count = 0};
    const uint32_t additional = get(c, schema, "additionalProperties");
    read_members(c, schema, additional, &list);
    const bool more = additional ? !is(c, additional, NIBL_JSON_FALSE) : get(c, schema, "properties") == 0;
    if (stopped(c)) return;

    /* What follows the first i properties: `rest` where one of them is there, `first` where none is. */
    nibl_sequence as_all = {0}, behind = {0};
    if (more) {
        const uint32_t value = is(c, additional, NIBL_JSON_TRUE) ? 0 : additional;
        const uint32_t pairs = pair_list(c, key_beside(c, &list), value);
        nibl_put_rule(c->rules, &as_all, pairs);
        put_separator(c, &behind, ",");
        nibl_put_rule(c->rules, &behind, pairs);
    }
    uint32_t first = optional(c, as_all), rest = optional(c, behind);
    for (uint32_t i = list.count; i-- > 0 && !stopped(c);) {
        nibl_sequence as_first = {0}, as_next = {0}, without_first = {0}, without = {0};
        put_member(c, &as_first, &list, i);
        nibl_put_rule(c->rules, &as_first, rest);
        put_separator(c, &as_next, ",");
        put_member(c, &as_next, &list, i);
        nibl_put_rule(c->rules, &as_next, rest);
        nibl_put_rule(c->rules, &without_first, first);
        nibl_put_rule(c->rules, &without, rest);
        first = nibl_rule_of(c->rules, as_first);
        rest = nibl_rule_of(c->rules, as_next);
        if (list.required[i]) continue;
        nibl_rule_add(c->rules, first, without_first);
        nibl_rule_add(c->rules, rest, without);
    }
    put(c, s, "{");
    nibl_put_rule(c->rules, s, first);
    put(c, s, "}");
}

/* ---- Schemas ---- */

static void add_combined(compiler *c, uint32_t schema, uint32_t rule) {
    nibl_sequence s = {0};
    const uint32_t reference = get_kind(c, schema, "$ref", NIBL_JSON_STRING);
    if (reference) {
        const uint32_t target = nibl_schema_resolve(&c->json, reference);
        if (!target) fail(c, reference, "it does not point into this document");
        put_schema(c, &s, target);
        nibl_rule_add(c->rules, rule, s);
        return;
    }
    const uint32_t any = get_kind(c, schema, "anyOf", NIBL_JSON_ARRAY);
    const uint32_t one = get_kind(c, schema, "oneOf", NIBL_JSON_ARRAY);
    const uint32_t all = get_kind(c, schema, "allOf", NIBL_JSON_ARRAY);
    const uint32_t list = any ? any : one ? one : all;
    uint32_t count = 0;
    for (uint32_t i = 0; !stopped(c) && nibl_json_each(&c->json, list, &i); count++) {
        if (count == MAX_MEMBERS) fail(c, list, "more than 1024 alternatives");
        for (uint32_t j = 0; one && !stopped(c) && nibl_json_each(&c->json, list, &j) && j < i;)
            if (!nibl_schema_disjoint(&c->json, i, j))
                fail(c, i, "a value may be valid for it and for another of 'oneOf': 'anyOf' takes that");
        s = (nibl_sequence){0};
        put_schema(c, &s, i);
        nibl_rule_add(c->rules, rule, s);
    }
    if (all && count != 1) fail(c, all, "'allOf' is supported with one schema alone");
    if (count == 0) fail(c, list, "at least one schema must be there");
}

static void add_types(compiler *c, uint32_t schema, uint32_t rule, uint32_t types) {
    static const struct {
        uint32_t type;
        const char *text;
    } words[] = {{NIBL_IS_NULL, "null"}, {NIBL_IS_BOOLEAN, "true"}, {NIBL_IS_BOOLEAN, "false"}};
    for (size_t i = 0; i < 3; i++) {
        nibl_sequence s = {0};
        if (!(types & words[i].type)) continue;
        put(c, &s, words[i].text);
        nibl_rule_add(c->rules, rule, s);
    }
    for (uint32_t type = NIBL_IS_INTEGER; type <= NIBL_IS_OBJECT && !stopped(c); type *= 2) {
        nibl_sequence s = {0};
        if (!(types & type) || (type == NIBL_IS_INTEGER && types & NIBL_IS_FRACTION)) continue;
        if (type == NIBL_IS_INTEGER || type == NIBL_IS_FRACTION)
            put_number(c, &s, schema, type == NIBL_IS_INTEGER);
        if (type == NIBL_IS_STRING) put_string(c, &s, schema);
        if (type == NIBL_IS_ARRAY) put_array(c, &s, schema);
        if (type == NIBL_IS_OBJECT) put_object(c, &s, schema);
        nibl_rule_add(c->rules, rule, s);
    }
}

static void compile(compiler *c, uint32_t schema) {
    const uint32_t rule = c->rule_of[schema];
    if (is(c, schema, NIBL_JSON_TRUE)) {
        nibl_sequence s = {0};
        nibl_put_rule(c->rules, &s, any_value(c));
        nibl_rule_add(c->rules, rule, s);
        return;
    }
    if (!is(c, schema, NIBL_JSON_OBJECT)) {
        fail(c, schema, is(c, schema, NIBL_JSON_FALSE) ? "false allows no value" : "a schema is an object");
        return;
    }
    uint32_t about = 0, combining = 0;
    for (uint32_t i = 0; nibl_json_each(&c->json, schema, &i);) {
        size_t k = 0;
        while (k < sizeof keywords / sizeof *keywords && !nibl_json_equals(&c->json, i, keywords[k].name))
            k++;
        if (k == sizeof keywords / sizeof *keywords) {
            fail(c, i, "this keyword is not supported");
            return;
        }
        about |= keywords[k].about;
        combining += keywords[k].about == COMBINE;
    }
    if (combining > 1 || (combining && about != COMBINE)) {
        fail(c, schema,
             "$ref, anyOf, oneOf and allOf are supported only where no other condition stands beside them");
        return;
    }
    if (combining) {
        add_combined(c, schema, rule);
        return;
    }
    uint32_t types = NIBL_IS_ANY;
    if (!nibl_schema_types(&c->json, get(c, schema, "type"), &types))
        fail(c, get(c, schema, "type"), "there is no such type");
    else if (about & VALUES) {
        if (about & ~(uint32_t)(VALUES | TYPE))
            fail(c, schema, "only 'type' is supported beside 'enum' and 'const'");
        add_values(c, schema, rule, types);
    } else if (!get(c, schema, "type") && about) {
        /* Valid are also values of other types; asked for are these. */
        types = (about & OBJECTS ? NIBL_IS_OBJECT : 0) | (about & ARRAYS ? NIBL_IS_ARRAY : 0) |
                (about & STRINGS ? NIBL_IS_STRING : 0) |
                (about & NUMBERS ? NIBL_IS_INTEGER | NIBL_IS_FRACTION : 0);
        add_types(c, schema, rule, types);
    } else {
        add_types(c, schema, rule, types);
    }
}

static void read_schema(compiler *c, const char *text, size_t length) {
    if (length > NIBL_GRAMMAR_MAX_SOURCE) {
        nibl_rules_fail(c->rules, "JSON Schema: longer than 1 MiB");
        return;
    }
    const nibl_status status = nibl_json_parse("JSON Schema", text, length, &c->json);
    if (status < 0) {
        char message[256];
        nibl_writer out = {.text = message, .capacity = sizeof message};
        nibl_print(&out, "%.240s", nibl_last_message());
        if (status == NIBL_E_FILE)
            nibl_rules_fail(c->rules, "%s", message);
        else
            c->rules->status = status;
        return;
    }
    c->rule_of = nibl_alloc_zero(c->json.count * sizeof *c->rule_of);
    c->queue = nibl_alloc(c->json.count * sizeof *c->queue);
    if (!c->rule_of || !c->queue) {
        c->rules->status = nibl_fail_memory(c->json.count * 8ull, "a JSON Schema");
        return;
    }
    if (c->json.count > MAX_NODES) fail(c, NIBL_JSON_ROOT, "more than 65536 values");
    nibl_sequence root = {0};
    const uint32_t rule = nibl_rule_new(c->rules);
    put_schema(c, &root, NIBL_JSON_ROOT);
    nibl_rule_add(c->rules, rule, root);
    while (c->queued > 0 && !stopped(c)) compile(c, c->queue[--c->queued]);
}

void nibl_grammar_read_schema(nibl_rules *rules, const char *text, size_t length) {
    compiler c = {.rules = rules};
    read_schema(&c, text, length);
    if (c.json.nodes) nibl_json_free(&c.json);
    nibl_free(c.rule_of);
    nibl_free(c.queue);
}

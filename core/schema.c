/*
 * JSON Schema (2020-12, and the older names of its parts) to rules of a grammar, whose texts are all valid: a subset of
 * what the schema allows, compact JSON with at most a space behind ':' and ','. Properties come in the schema's order; where
 * additionalProperties is not there, only those that are named. Whatever is not in the table below is refused, with its
 * path. Every set of schemas that a value must be valid for becomes one rule, so that $ref may recurse; allOf and what
 * stands beside $ref join a set, each alternative of anyOf makes one.
 */
#include "core/schema.h"

struct nibl_schema_rule {
    uint32_t first, count; /* in compiler.parts */
    uint32_t rule, next; /* the next set of this hash, + 1 */
};

enum { MAX_DEPTH = 32 /* of references and allOf within each other */ };

static const struct {
    const char *name;
    uint8_t about;
} keywords[] = {
    {"type", NIBL_ABOUT_TYPE},
    {"enum", NIBL_ABOUT_VALUES},
    {"const", NIBL_ABOUT_VALUES},
    {"$ref", NIBL_ABOUT_COMBINING},
    {"anyOf", NIBL_ABOUT_COMBINING},
    {"oneOf", NIBL_ABOUT_COMBINING},
    {"allOf", NIBL_ABOUT_COMBINING},
    {"properties", NIBL_ABOUT_OBJECTS},
    {"required", NIBL_ABOUT_OBJECTS},
    {"additionalProperties", NIBL_ABOUT_OBJECTS},
    {"unevaluatedProperties", NIBL_ABOUT_OBJECTS},
    {"patternProperties", NIBL_ABOUT_OBJECTS},
    {"propertyNames", NIBL_ABOUT_OBJECTS},
    {"minProperties", NIBL_ABOUT_OBJECTS},
    {"maxProperties", NIBL_ABOUT_OBJECTS},
    {"items", NIBL_ABOUT_ARRAYS},
    {"prefixItems", NIBL_ABOUT_ARRAYS},
    {"additionalItems", NIBL_ABOUT_ARRAYS},
    {"unevaluatedItems", NIBL_ABOUT_ARRAYS},
    {"contains", NIBL_ABOUT_ARRAYS},
    {"minContains", NIBL_ABOUT_ARRAYS},
    {"minItems", NIBL_ABOUT_ARRAYS},
    {"maxItems", NIBL_ABOUT_ARRAYS},
    {"uniqueItems", NIBL_ABOUT_ARRAYS},
    {"minLength", NIBL_ABOUT_STRINGS},
    {"maxLength", NIBL_ABOUT_STRINGS},
    {"pattern", NIBL_ABOUT_STRINGS},
    {"format", NIBL_ABOUT_STRINGS},
    {"minimum", NIBL_ABOUT_NUMBERS},
    {"maximum", NIBL_ABOUT_NUMBERS},
    {"exclusiveMinimum", NIBL_ABOUT_NUMBERS},
    {"exclusiveMaximum", NIBL_ABOUT_NUMBERS},
    {"multipleOf", NIBL_ABOUT_NUMBERS},
    {"$schema", 0},
    {"$id", 0},
    {"id", 0},
    {"$comment", 0},
    {"$defs", 0},
    {"definitions", 0},
    {"title", 0},
    {"description", 0},
    {"default", 0},
    {"example", 0},
    {"examples", 0},
    {"deprecated", 0},
    {"readOnly", 0},
    {"writeOnly", 0},
    {"strict", 0},
};

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

void nibl_schema_fail(compiler *c, uint32_t node, const char *what) {
    char path[300];
    nibl_writer out = {.text = path, .capacity = sizeof path};
    write_path(&c->json, node, &out);
    if (out.length >= sizeof path) out.length = sizeof path - 1;
    nibl_rules_fail(c->rules, "JSON Schema, %.*s: %s", (int)out.length, path, what);
}

uint32_t nibl_schema_about(compiler *c, uint32_t schema) {
    uint32_t about = 0;
    for (uint32_t i = 0; nibl_json_each(&c->json, schema, &i);) {
        size_t k = 0;
        while (k < sizeof keywords / sizeof *keywords && !nibl_json_equals(&c->json, i, keywords[k].name))
            k++;
        if (k == sizeof keywords / sizeof *keywords) {
            fail(c, i, "this keyword is not supported");
            return 0;
        }
        about |= keywords[k].about;
    }
    return about;
}

static uint32_t get_list(compiler *c, uint32_t schema, const char *key) {
    const uint32_t list = get(c, schema, key);
    if (list && (!is(c, list, NIBL_JSON_ARRAY) || c->json.nodes[list].next == list + 1))
        fail(c, list, "it must be a list of at least one schema");
    return list;
}

/* ---- Sets ---- */

static void insert(compiler *c, set *s, uint32_t node, uint32_t flags) {
    const uint32_t part = node << NIBL_PART_SHIFT | flags;
    uint32_t at = s->count;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->parts[i] == part) return;
    if (s->count == NIBL_SCHEMA_MAX_PARTS) {
        fail(c, node, "one of more than 64 schemas that a value must be valid for");
        return;
    }
    for (; at > 0 && s->parts[at - 1] > part; at--) s->parts[at] = s->parts[at - 1];
    s->parts[at] = part;
    s->count++;
}

/* `path`: the schemas through which it came here. */
static void join(compiler *c, set *s, uint32_t node, uint32_t flags, uint32_t *path, uint32_t depth) {
    const bool any = is(c, node, NIBL_JSON_TRUE);
    if (is(c, node, NIBL_JSON_FALSE)) s->never = true;
    if (stopped(c) || s->never) return;
    if (!any && !is(c, node, NIBL_JSON_OBJECT)) {
        fail(c, node, "a schema is an object");
        return;
    }
    for (uint32_t i = 0; i < depth; i++)
        if (path[i] == node || depth == MAX_DEPTH) {
            fail(c, node, "it refers to itself, or through more than 32 others");
            return;
        }
    path[depth] = node;
    const uint32_t about = nibl_schema_about(c, node);
    const uint32_t reference = get(c, node, "$ref"), all = get_list(c, node, "allOf");
    const bool choice = (!(flags & NIBL_PART_ANY_CHOSEN) && get_list(c, node, "anyOf")) ||
                        (!(flags & NIBL_PART_ONE_CHOSEN) && get_list(c, node, "oneOf"));
    const bool kept = about & ~(uint32_t)NIBL_ABOUT_COMBINING || choice || flags & NIBL_PART_KEY;
    /* It is told apart only where that matters; a schema that only refers to one other leaves it to that. */
    if (!get(c, node, "unevaluatedProperties") && !get(c, node, "unevaluatedItems") &&
        (kept || (reference && all)))
        flags &= ~(uint32_t)NIBL_PART_OWNER;
    if (kept) insert(c, s, node, flags);
    const uint32_t passed = kept ? 0 : flags & NIBL_PART_OWNER;
    if (reference) {
        const uint32_t target =
            is(c, reference, NIBL_JSON_STRING) ? nibl_schema_resolve(&c->json, reference) : 0;
        if (target)
            join(c, s, target, passed, path, depth + 1);
        else
            fail(c, reference, "it does not point into this document");
    }
    const bool lone = all && c->json.nodes[all + 1].next == c->json.nodes[all].next;
    for (uint32_t i = 0; nibl_json_each(&c->json, all, &i);)
        join(c, s, i, lone ? passed : 0, path, depth + 1);
}

void nibl_schema_join(compiler *c, set *s, uint32_t schema, uint32_t flags) {
    uint32_t path[MAX_DEPTH + 1];
    join(c, s, schema, flags, path, 0);
}

static uint32_t hash_of(const compiler *c, const set *s) {
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (uint32_t i = 0; i < s->count; i++) hash = (hash ^ s->parts[i]) * 1099511628211u;
    return (uint32_t)((hash >> 32) % c->json.count);
}

/* The rule of a set, which compile() fills. */
static uint32_t rule_of(compiler *c, const set *s) {
    uint32_t *head = &c->heads[hash_of(c, s)];
    for (uint32_t i = *head; i; i = c->sets[i - 1].next) {
        const nibl_schema_rule *known = &c->sets[i - 1];
        if (known->count == s->count &&
            memcmp(c->parts + known->first, s->parts, s->count * sizeof *s->parts) == 0)
            return known->rule;
    }
    void *sets = c->sets, *parts = c->parts;
    nibl_status status =
        nibl_reserve(&sets, &c->set_capacity, c->set_count + 1, sizeof *c->sets, "a JSON Schema");
    c->sets = sets;
    if (status >= 0)
        status = nibl_reserve(&parts, &c->part_capacity, c->part_count + s->count, sizeof *c->parts,
                              "a JSON Schema");
    c->parts = parts;
    if (status < 0) {
        c->rules->status = status;
        return 0;
    }
    const nibl_schema_rule added = {(uint32_t)c->part_count, s->count, nibl_rule_new(c->rules), *head};
    memcpy(c->parts + c->part_count, s->parts, s->count * sizeof *s->parts);
    c->part_count += s->count;
    c->sets[c->set_count++] = added;
    *head = (uint32_t)c->set_count;
    return added.rule;
}

void nibl_schema_put(compiler *c, nibl_sequence *s, const set *what) {
    nibl_put_rule(c->rules, s, what->never ? nibl_rule_new(c->rules) : rule_of(c, what));
}

/* ---- Rules of sets ---- */

/* One of the alternatives of part `at` each. False where it has none that is to be chosen. */
static bool add_choices(compiler *c, uint32_t rule, const set *s, uint32_t at, const char *key,
                        uint32_t flag) {
    const uint32_t part = s->parts[at], node = schema_of(s, at);
    const uint32_t list = part & flag ? 0 : get(c, node, key);
    if (!list) return false;
    set others = {.count = 0};
    for (uint32_t i = 0; i < s->count; i++)
        if (i != at) others.parts[others.count++] = s->parts[i];
    uint32_t count = 0;
    for (uint32_t i = 0; !stopped(c) && nibl_json_each(&c->json, list, &i); count++) {
        if (count == NIBL_SCHEMA_MAX_MEMBERS) fail(c, list, "more than 1024 alternatives");
        if (flag == NIBL_PART_ONE_CHOSEN)
            for (uint32_t j = 0; nibl_json_each(&c->json, list, &j) && j < i;)
                if (!nibl_schema_disjoint(&c->json, i, j))
                    nibl_schema_fail(
                        c, i, "a value may be valid for it and for another of 'oneOf': 'anyOf' takes that");
        set chosen = others;
        nibl_sequence one = {0};
        nibl_schema_join(c, &chosen, node, (part & ((1u << NIBL_PART_SHIFT) - 1)) | flag);
        nibl_schema_join(c, &chosen, i, chosen.count ? 0 : NIBL_PART_OWNER);
        nibl_schema_put_value(c, &one, &chosen);
        nibl_rule_add(c->rules, rule, one);
    }
    return true;
}

static void compile(compiler *c, const nibl_schema_rule *of) {
    set s = {.count = of->count};
    memcpy(s.parts, c->parts + of->first, of->count * sizeof *s.parts);
    const uint32_t rule = of->rule;
    for (uint32_t i = 0; i < s.count; i++)
        if (add_choices(c, rule, &s, i, "anyOf", NIBL_PART_ANY_CHOSEN) ||
            add_choices(c, rule, &s, i, "oneOf", NIBL_PART_ONE_CHOSEN))
            return;
    nibl_schema_add_values(c, rule, &s);
}

static void read_schema(compiler *c, const char *text, size_t length) {
    if (length > NIBL_GRAMMAR_MAX_SOURCE) {
        nibl_rules_fail(c->rules, "JSON Schema: longer than 1 MiB");
        return;
    }
    const nibl_status status = nibl_json_parse("JSON Schema", text, length, &c->json);
    if (status < 0) {
        if (status == NIBL_E_FILE)
            nibl_rules_fail(c->rules, "%.240s", nibl_last_message());
        else
            c->rules->status = status;
        return;
    }
    c->heads = nibl_alloc_zero(c->json.count * sizeof *c->heads);
    if (!c->heads) {
        c->rules->status = nibl_fail_memory(c->json.count * 4ull, "a JSON Schema");
        return;
    }
    if (c->json.count > NIBL_SCHEMA_MAX_NODES) fail(c, NIBL_JSON_ROOT, "more than 65536 values");
    nibl_sequence one = {0};
    set root = {.count = 0};
    const uint32_t rule = nibl_rule_new(c->rules);
    nibl_schema_join(c, &root, NIBL_JSON_ROOT, NIBL_PART_OWNER);
    if (root.never) fail(c, NIBL_JSON_ROOT, "false allows no value");
    nibl_schema_put_value(c, &one, &root);
    nibl_rule_add(c->rules, rule, one);
    while (c->compiled < c->set_count && !stopped(c)) {
        const nibl_schema_rule next = c->sets[c->compiled++];
        compile(c, &next);
    }
}

void nibl_grammar_read_schema(nibl_rules *rules, const char *text, size_t length) {
    compiler c = {.rules = rules};
    read_schema(&c, text, length);
    if (c.json.nodes) nibl_json_free(&c.json);
    nibl_free(c.sets);
    nibl_free(c.parts);
    nibl_free(c.heads);
}

/* JSON Schema: lists and objects that are valid for all parts of a set. */
#include "core/schema.h"

/* ---- Arrays ---- */

/* The schemas of the first items, and that of the others (0: none). */
static void read_items(compiler *c, uint32_t schema, uint32_t *prefix, uint32_t *rest) {
    const uint32_t items = get(c, schema, "items");
    const bool old = is(c, items, NIBL_JSON_ARRAY);
    *prefix = old ? items : get_kind(c, schema, "prefixItems", NIBL_JSON_ARRAY);
    *rest = old ? get(c, schema, "additionalItems") : items;
}

static uint32_t child_at(const compiler *c, uint32_t list, uint32_t index) {
    for (uint32_t i = 0; nibl_json_each(&c->json, list, &i); index--)
        if (index == 0) return i;
    return 0;
}

static uint32_t children(const compiler *c, uint32_t list) {
    uint32_t count = 0;
    for (uint32_t i = 0; nibl_json_each(&c->json, list, &i);) count++;
    return count;
}

/* What item `index` must be valid for, NIBL_GRAMMAR_MANY: one behind the first; `contains`: one that counts. */
static set item_set(compiler *c, const set *of, uint32_t index, uint32_t contains) {
    set item = {.count = 0};
    for (uint32_t i = 0; i < of->count; i++) {
        uint32_t prefix, rest;
        read_items(c, schema_of(of, i), &prefix, &rest);
        const uint32_t own = child_at(c, prefix, index);
        if (index == NIBL_GRAMMAR_MANY && !rest) rest = get(c, schema_of(of, i), "unevaluatedItems");
        if (own || rest)
            nibl_schema_join(c, &item, own ? own : rest, of->count == 1 && !contains ? NIBL_PART_OWNER : 0);
    }
    if (contains) nibl_schema_join(c, &item, contains, 0);
    return item;
}

static uint32_t read_contains(compiler *c, const set *of, uint32_t *needed) {
    uint32_t contains = 0;
    *needed = 0;
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t schema = schema_of(of, i), own = get(c, schema, "contains");
        const uint32_t min = get_count(c, schema, "minContains", 1);
        if (!own || min == 0) continue;
        if (contains) fail(c, own, "a second 'contains' is not supported");
        contains = own;
        *needed = min;
    }
    return contains;
}

bool nibl_schema_put_array(compiler *c, nibl_sequence *s, const set *of) {
    uint32_t min, max, needed, count = 0;
    bool open = true; /* more than the first items are asked for */
    read_limits(c, of, "minItems", "maxItems", &min, &max);
    for (uint32_t i = 0; i < of->count; i++) {
        uint32_t prefix, rest;
        const uint32_t unique = get(c, schema_of(of, i), "uniqueItems");
        if (unique && !is(c, unique, NIBL_JSON_FALSE) && max > 1) fail(c, unique, "true is not supported");
        read_items(c, schema_of(of, i), &prefix, &rest);
        const uint32_t own = children(c, prefix);
        if (own > NIBL_SCHEMA_MAX_MEMBERS) fail(c, prefix, "more than 1024 items");
        count = larger(count, own);
        open = open && (!own || rest || get(c, schema_of(of, i), "unevaluatedItems"));
    }
    const uint32_t contains = read_contains(c, of, &needed);
    count = smaller(count, max);
    for (uint32_t i = 0; i < count && !stopped(c); i++) {
        const set item = item_set(c, of, i, 0);
        if (item.never) max = count = i;
    }
    const set others = item_set(c, of, NIBL_GRAMMAR_MANY, 0);
    if (others.never) max = smaller(max, count);
    if (stopped(c)) return false;
    if (needed) min = larger(min, count + needed);
    const uint32_t more_min = min > count ? min - count : 0;
    const uint32_t more_max = !open ? more_min : max == NIBL_GRAMMAR_MANY ? max : max - count;
    if (max < min || more_max < more_min)
        return nothing(c, of, schema_of(of, 0), "so few items are allowed that none fit");

    /* Behind the first items: those that `contains` asks for, then the others. Rule: what follows i of the first. */
    const uint32_t rest_max = more_max == NIBL_GRAMMAR_MANY ? more_max : more_max - needed;
    nibl_sequence tail = {0}, one = {0};
    if (needed) {
        nibl_sequence counted = {0};
        const set item = item_set(c, of, NIBL_GRAMMAR_MANY, contains);
        if (count > 0) nibl_schema_put_separator(c, &tail, ",");
        nibl_schema_put_value(c, &counted, &item);
        nibl_put_rule(c->rules, &tail, nibl_schema_list(c, counted, needed, needed));
    }
    if (rest_max > 0) nibl_schema_put_value(c, &one, &others);
    if (count + needed == 0) {
        nibl_put_rule(c->rules, &tail, nibl_schema_list(c, one, more_min, rest_max));
    } else if (rest_max > 0) {
        nibl_sequence next = {0};
        nibl_schema_put_separator(c, &next, ",");
        nibl_put_rule(c->rules, &next, nibl_rule_of(c->rules, one));
        nibl_put_repeat(c->rules, &tail, nibl_rule_of(c->rules, next), more_min - needed, rest_max);
    }
    uint32_t rule = nibl_rule_of(c->rules, tail);
    for (uint32_t i = count; i-- > 0 && !stopped(c);) {
        nibl_sequence item = {0};
        const set what = item_set(c, of, i, 0);
        if (i > 0) nibl_schema_put_separator(c, &item, ",");
        nibl_schema_put_value(c, &item, &what);
        nibl_put_rule(c->rules, &item, rule);
        rule = nibl_rule_of(c->rules, item);
        if (i >= min) nibl_rule_add(c->rules, rule, (nibl_sequence){0});
    }
    put(c, s, "[");
    nibl_put_rule(c->rules, s, rule);
    put(c, s, "]");
    return true;
}

/* ---- Objects ---- */

typedef struct members {
    uint32_t keys[NIBL_SCHEMA_MAX_MEMBERS];
    bool required[NIBL_SCHEMA_MAX_MEMBERS];
    uint32_t count, least; /* that are required */
} members;

/* The schema of members that have none of their own; 0: none. */
static uint32_t additional_of(const compiler *c, uint32_t schema) {
    const uint32_t additional = get(c, schema, "additionalProperties");
    return additional ? additional : get(c, schema, "unevaluatedProperties");
}

/* The value of a key, which may be one of another schema; of 0 there is none. */
static uint32_t property_of(const compiler *c, uint32_t schema, uint32_t key) {
    for (uint32_t i = 0; key && nibl_json_each(&c->json, get(c, schema, "properties"), &i);)
        if (nibl_schema_same_string(&c->json, i, key)) return i + 1;
    return 0;
}

/* What a member must be valid for; key 0: one without a schema of its own. */
static set member_set(compiler *c, const set *of, uint32_t key) {
    set value = {.count = 0};
    bool named = false;
    for (uint32_t i = 0; i < of->count; i++) named = named || property_of(c, schema_of(of, i), key);
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t schema = schema_of(of, i), own = property_of(c, schema, key);
        /* What a schema beside it names is evaluated. */
        const uint32_t other = named ? get(c, schema, "additionalProperties") : additional_of(c, schema);
        if (own || other)
            nibl_schema_join(c, &value, own ? own : other, of->count == 1 ? NIBL_PART_OWNER : 0);
    }
    return value;
}

static uint32_t find_member(const compiler *c, const members *list, uint32_t key) {
    uint32_t i = 0;
    while (i < list->count && !nibl_schema_same_string(&c->json, list->keys[i], key)) i++;
    return i;
}

static uint32_t add_member(compiler *c, members *list, uint32_t key) {
    const uint32_t at = find_member(c, list, key);
    if (at < list->count) return at;
    if (at == NIBL_SCHEMA_MAX_MEMBERS) {
        fail(c, key, "more than 1024 properties");
        return 0;
    }
    list->keys[at] = key;
    list->required[at] = false;
    list->count++;
    return at;
}

static void require(members *list, uint32_t at) {
    if (!list->required[at]) list->least++;
    list->required[at] = true;
}

static void read_members(compiler *c, const set *of, members *list) {
    for (uint32_t i = 0; i < of->count; i++)
        for (uint32_t key = 0;
             !stopped(c) &&
             nibl_json_each(&c->json, get_kind(c, schema_of(of, i), "properties", NIBL_JSON_OBJECT), &key);)
            add_member(c, list, key);
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t required = get_kind(c, schema_of(of, i), "required", NIBL_JSON_ARRAY);
        for (uint32_t key = 0; !stopped(c) && nibl_json_each(&c->json, required, &key);) {
            if (!is(c, key, NIBL_JSON_STRING)) fail(c, key, "names are strings");
            if (!stopped(c)) require(list, add_member(c, list, key));
        }
    }
}

/* What names must be valid for. */
static set name_set(compiler *c, const set *of) {
    set names = {.count = 0};
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t own = get(c, schema_of(of, i), "propertyNames");
        if (own) nibl_schema_join(c, &names, own, NIBL_PART_KEY);
    }
    return names;
}

/* Takes out optional members that are not allowed, or more than `max`. False where a required one is not. */
static bool keep_allowed(compiler *c, const set *of, const set *names, uint32_t max, members *list) {
    uint32_t kept = 0;
    if (list->least > max)
        return nothing(c, of, schema_of(of, 0), "more properties are required than allowed");
    uint32_t room = max - list->least;
    for (uint32_t i = 0; i < list->count && !stopped(c); i++) {
        const uint32_t key = list->keys[i];
        const set value = member_set(c, of, key);
        const nibl_verdict named = nibl_schema_holds(c, names, key);
        if (named == NIBL_UNKNOWN) fail(c, key, "whether 'propertyNames' allows it cannot be told");
        if (value.never || named == NIBL_NO) {
            if (list->required[i]) return nothing(c, of, key, "it is required, and not allowed");
            continue;
        }
        if (!list->required[i] && room == 0) continue;
        if (!list->required[i]) room--;
        list->keys[kept] = key;
        list->required[kept++] = list->required[i];
    }
    list->count = kept;
    return !stopped(c);
}

/* Whether members that no schema names are asked for. */
static bool asks_for_more(compiler *c, const set *of) {
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t schema = schema_of(of, i);
        if (!additional_of(c, schema) && get(c, schema, "properties")) return false;
    }
    const set others = member_set(c, of, 0);
    return !others.never;
}

/* The rule of a string that is no property's name; 0 = of any string. */
static uint32_t key_beside(compiler *c, const members *list) {
    nibl_slice names[NIBL_SCHEMA_MAX_MEMBERS];
    for (uint32_t i = 0; i < list->count; i++) {
        names[i] = nibl_json_text(&c->json, list->keys[i]);
        /* One that is written with escapes may be of plain characters all the same. */
        if (c->json.nodes[list->keys[i]].escaped)
            fail(c, list->keys[i], "a name with escapes beside other properties");
    }
    return list->count ? nibl_schema_other_key(c->rules, names, list->count) : 0;
}

/* The members that follow the named ones: how many, of what name and value. False where there are none. */
typedef struct others {
    uint32_t key, min, max;
    set value;
} others;

/* Members by 'patternProperties': one pattern, where nothing else is said of members. */
static bool read_pattern(compiler *c, const set *of, uint32_t patterns, others *more) {
    const uint32_t key = patterns + 1;
    nibl_sequence name = {0};
    for (uint32_t i = 0; i < of->count; i++)
        if (get(c, schema_of(of, i), "properties") || get(c, schema_of(of, i), "required") ||
            get(c, schema_of(of, i), "propertyNames") ||
            (of->count > 1 && additional_of(c, schema_of(of, i))))
            fail(c, patterns, "beside other rules for properties it is not supported");
    if (c->json.nodes[key + 1].next != c->json.nodes[patterns].next)
        fail(c, patterns, "it is supported with one pattern alone");
    if (stopped(c)) return false;
    put(c, &name, "\"");
    nibl_schema_put_pattern(c, &name, key);
    put(c, &name, "\"");
    more->key = nibl_rule_of(c->rules, name);
    nibl_schema_join(c, &more->value, key + 1, 0);
    return !more->value.never;
}

static bool read_others(compiler *c, const set *of, const set *names, const members *list, others *more) {
    uint32_t patterns = 0;
    for (uint32_t i = 0; i < of->count; i++) {
        const uint32_t own = get_kind(c, schema_of(of, i), "patternProperties", NIBL_JSON_OBJECT);
        if (!own || c->json.nodes[own].next == own + 1) continue;
        if (patterns) fail(c, own, "it is supported with one pattern alone");
        patterns = own;
    }
    if (patterns) return read_pattern(c, of, patterns, more);
    if (names->never || !asks_for_more(c, of) || (names->count && list->count)) return false;
    more->value = member_set(c, of, 0);
    if (names->count) {
        nibl_sequence name = {0};
        nibl_schema_put_value(c, &name, names);
        more->key = nibl_rule_of(c->rules, name);
    } else {
        more->key = key_beside(c, list);
    }
    return true;
}

static void put_member(compiler *c, nibl_sequence *s, const set *of, uint32_t key) {
    const set value = member_set(c, of, key);
    nibl_schema_put_literal(c, s, key);
    nibl_schema_put_separator(c, s, ":");
    nibl_schema_put_value(c, s, &value);
}

bool nibl_schema_put_object(compiler *c, nibl_sequence *s, const set *of) {
    members list = {.count = 0};
    others more = {.min = 0};
    uint32_t min, max;
    read_limits(c, of, "minProperties", "maxProperties", &min, &max);
    read_members(c, of, &list);
    const set names = name_set(c, of);
    if (stopped(c) || !keep_allowed(c, of, &names, max, &list)) return false;
    more.max = max - (max == NIBL_GRAMMAR_MANY ? 0 : list.count);
    const bool open = more.max > 0 && read_others(c, of, &names, &list, &more);
    /* Enough of them: the first that are optional become required, then one more, of which no two need differ. */
    for (uint32_t i = 0; i < list.count && list.least < min; i++) require(&list, i);
    if (min > list.least && open) more.min = 1;
    if (min > list.least + more.min) {
        if (open) fail(c, schema_of(of, 0), "that many properties are supported only where they are named");
        return nothing(c, of, schema_of(of, 0), "so few properties are allowed that none fit");
    }
    if (stopped(c)) return false;

    /* What follows the first i properties: `rest` where one of them is there, `first` where none is. */
    nibl_sequence as_all = {0}, behind = {0};
    if (open) {
        const uint32_t pairs = nibl_schema_pairs(c, more.key, &more.value, 1, more.max);
        nibl_put_rule(c->rules, &as_all, pairs);
        nibl_schema_put_separator(c, &behind, ",");
        nibl_put_rule(c->rules, &behind, pairs);
    }
    uint32_t first = more.min ? nibl_rule_of(c->rules, as_all) : nibl_schema_optional(c, as_all);
    uint32_t rest = more.min ? nibl_rule_of(c->rules, behind) : nibl_schema_optional(c, behind);
    for (uint32_t i = list.count; i-- > 0 && !stopped(c);) {
        nibl_sequence as_first = {0}, as_next = {0}, without_first = {0}, without = {0};
        put_member(c, &as_first, of, list.keys[i]);
        nibl_put_rule(c->rules, &as_first, rest);
        nibl_schema_put_separator(c, &as_next, ",");
        put_member(c, &as_next, of, list.keys[i]);
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
    return true;
}

#include "core/cli/options.h"
#include "core/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_WORD = 64, HELP_COLUMN = 30 };

/* ---- Words ---- */

size_t nibl_cli_distance(const char *a, size_t a_length, const char *b, size_t b_length) {
    size_t row[MAX_WORD + 1];
    if (a_length > MAX_WORD || b_length > MAX_WORD) return SIZE_MAX;
    for (size_t j = 0; j <= b_length; j++) row[j] = j;
    for (size_t i = 0; i < a_length; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < b_length; j++) {
            size_t best = diagonal + (a[i] == b[j] ? 0 : 1);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j + 1] + 1 < best) best = row[j + 1] + 1;
            diagonal = row[j + 1];
            row[j + 1] = best;
        }
    }
    return row[b_length];
}

bool nibl_cli_close(size_t distance, size_t length) {
    return length > 2 && distance <= (length < 6 ? 2 : length / 3);
}

/* Steps through a list of words; false at its end. Call with *at pointing to the list's beginning. */
static bool next_word(const char **at, const char *separators, const char **word, size_t *length) {
    *at += strspn(*at, separators);
    *word = *at;
    *length = strcspn(*at, separators);
    *at += *length;
    return *length > 0;
}

static bool has_name(const nibl_cli_option *option, const char *name, size_t name_length) {
    const char *at = option->names, *word;
    size_t length;
    while (next_word(&at, ", ", &word, &length))
        if (length == name_length && memcmp(word, name, length) == 0) return true;
    return false;
}

static const nibl_cli_option *find_option(const nibl_cli_verb *verb, const char *name, size_t length) {
    for (size_t i = 0; i < verb->option_count; i++)
        if (has_name(&verb->options[i], name, length)) return &verb->options[i];
    return NULL;
}

static int fail_unknown(const nibl_cli_verb *verb, const char *name, size_t length) {
    const char *closest = NULL;
    size_t closest_length = 0, closest_distance = SIZE_MAX;
    for (size_t i = 0; i < verb->option_count; i++) {
        const char *at = verb->options[i].names, *word;
        size_t word_length;
        while (next_word(&at, ", ", &word, &word_length)) {
            size_t distance = nibl_cli_distance(name, length, word, word_length);
            if (distance >= closest_distance) continue;
            closest = word, closest_length = word_length, closest_distance = distance;
        }
    }
    int shown = length < MAX_WORD ? (int)length : MAX_WORD;
    if (closest && nibl_cli_close(closest_distance, length))
        return nibl_cli_fail_usage(verb->name, "unknown option %.*s; did you mean %.*s?", shown, name,
                                   (int)closest_length, closest);
    return nibl_cli_fail_usage(verb->name, "unknown option %.*s", shown, name);
}

/* ---- Values ---- */

static bool parse_integer(const char *text, int64_t *out) {
    if (text[strspn(text, "+-0123456789")] != '\0' || *text == '\0') return false;
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*end != '\0' || end == text || errno != 0) return false;
    *out = value;
    return true;
}

static bool parse_real(const char *text, double *out) {
    if (text[strspn(text, "+-.0123456789eE")] != '\0' || *text == '\0') return false;
    char *end;
    double value = strtod(text, &end);
    if (*end != '\0' || end == text) return false;
    *out = value;
    return true;
}

bool nibl_cli_parse_size(const char *text, uint64_t *out) {
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},       {"B", 1},         {"KB", 1e3},        {"MB", 1e6},
                 {"GB", 1e9},   {"K", 1024},      {"M", 1048576},     {"G", 1073741824},
                 {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
    const size_t digits = strspn(text, "0123456789.");
    const char *end = text + digits + strspn(text + digits, " ");
    const double value = digits > 0 ? strtod(text, NULL) : 0;
    if (!(value > 0)) return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && value * units[i].bytes < 1e18) {
            *out = (uint64_t)(value * units[i].bytes);
            return true;
        }
    return false;
}

static bool parse_choice(const char *choices, const char *text, int *out) {
    const char *word;
    size_t length, wanted = strlen(text);
    for (int index = 0; next_word(&choices, "|", &word, &length); index++) {
        if (length != wanted || memcmp(word, text, length) != 0) continue;
        *out = index;
        return true;
    }
    return false;
}

/* `name` as the user wrote it. */
static int set_value(const nibl_cli_verb *verb, const nibl_cli_option *option, const char *name,
                     int name_length, const char *text, void *options) {
    void *field = (char *)options + option->field;
    switch (option->kind) {
    case NIBL_CLI_FLAG: *(bool *)field = true; return NIBL_EXIT_OK;
    case NIBL_CLI_TEXT: *(const char **)field = text; return NIBL_EXIT_OK;
    case NIBL_CLI_TEXTS: {
        nibl_cli_texts *texts = field;
        if (texts->count == NIBL_CLI_MAX_TEXTS)
            return nibl_cli_fail_usage(verb->name, "%.*s may be given at most %d times", name_length, name,
                                       NIBL_CLI_MAX_TEXTS);
        texts->items[texts->count++] = text;
        return NIBL_EXIT_OK;
    }
    case NIBL_CLI_CHOICE:
        if (parse_choice(option->value, text, field)) return NIBL_EXIT_OK;
        return nibl_cli_fail_usage(verb->name, "%.*s must be one of %s, not '%s'", name_length, name,
                                   option->value, text);
    case NIBL_CLI_INTEGER: {
        int64_t value;
        if (parse_integer(text, &value) && value >= option->min && value <= option->max) {
            *(int64_t *)field = value;
            return NIBL_EXIT_OK;
        }
        return nibl_cli_fail_usage(verb->name,
                                   "%.*s must be a whole number from %" PRId64 " to %" PRId64 ", not '%s'",
                                   name_length, name, option->min, option->max, text);
    }
    case NIBL_CLI_REAL: {
        double value;
        if (parse_real(text, &value) && value >= (double)option->min && value <= (double)option->max) {
            *(double *)field = value;
            return NIBL_EXIT_OK;
        }
        return nibl_cli_fail_usage(verb->name,
                                   "%.*s must be a number from %" PRId64 " to %" PRId64 ", not '%s'",
                                   name_length, name, option->min, option->max, text);
    }
    }
    return NIBL_EXIT_FAILED;
}

int nibl_cli_parse(const nibl_cli_verb *verb, int argc, char **argv, void *options, const char **model,
                   bool *help) {
    bool options_over = false;
    const char *path = NULL, *places = verb->places ? verb->places : "";
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        if (options_over || argument[0] != '-' || argument[1] == '\0') {
            const char *word;
            size_t length;
            if (path && !next_word(&places, " ", &word, &length))
                return nibl_cli_fail_usage(verb->name, "one MODEL is expected; '%s' is one too many",
                                           argument);
            if (path) {
                int code =
                    set_value(verb, find_option(verb, word, length), word, (int)length, argument, options);
                if (code != NIBL_EXIT_OK) return code;
            } else {
                path = argument;
            }
            continue;
        }
        if (strcmp(argument, "--") == 0) {
            options_over = true;
            continue;
        }
        if (strcmp(argument, "-h") == 0 || strcmp(argument, "--help") == 0) {
            *help = true;
            return NIBL_EXIT_OK;
        }
        const char *equals = strncmp(argument, "--", 2) == 0 ? strchr(argument, '=') : NULL;
        size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
        const nibl_cli_option *option = find_option(verb, argument, length);
        if (!option) return fail_unknown(verb, argument, length);
        const char *text = equals ? equals + 1 : NULL;
        if (option->kind == NIBL_CLI_FLAG && text)
            return nibl_cli_fail_usage(verb->name, "%.*s takes no value", (int)length, argument);
        if (option->kind != NIBL_CLI_FLAG && !text) {
            if (i + 1 == argc)
                return nibl_cli_fail_usage(verb->name, "%s needs a value: %s", argument, option->value);
            text = argv[++i];
        }
        int code = set_value(verb, option, argument, (int)length, text, options);
        if (code != NIBL_EXIT_OK) return code;
    }
    if (!path)
        return nibl_cli_fail_usage(verb->name, "%.*s is missing: the path of a file, or - for stdin",
                                   (int)strcspn(verb->arguments, " "), verb->arguments);
    *model = path;
    return NIBL_EXIT_OK;
}

/* ---- Help ---- */

static void print_default(const nibl_cli_option *option, const void *defaults) {
    const void *field = (const char *)defaults + option->field;
    if (option->shown) {
        if (*option->shown) printf(" (default: %s)", option->shown);
        return;
    }
    switch (option->kind) {
    case NIBL_CLI_INTEGER: printf(" (default: %" PRId64 ")", *(const int64_t *)field); break;
    case NIBL_CLI_REAL: printf(" (default: %g)", *(const double *)field); break;
    case NIBL_CLI_CHOICE: {
        const char *at = option->value, *word;
        size_t length;
        for (int index = *(const int *)field; next_word(&at, "|", &word, &length); index--)
            if (index == 0) printf(" (default: %.*s)", (int)length, word);
        break;
    }
    case NIBL_CLI_FLAG:
    case NIBL_CLI_TEXT:
    case NIBL_CLI_TEXTS: break;
    }
}

void nibl_cli_print_help(const nibl_cli_verb *verb) {
    printf("usage: nibl %s %s\n\n%s\n%s\noptions:\n", verb->name, verb->arguments, verb->summary,
           verb->details);
    for (size_t i = 0; i < verb->option_count; i++) {
        const nibl_cli_option *option = &verb->options[i];
        int width =
            printf("  %s%s%s", option->names, option->value ? " " : "", option->value ? option->value : "");
        printf("%*s%s", width < HELP_COLUMN ? HELP_COLUMN - width : 1, "", option->help);
        print_default(option, verb->defaults);
        putchar('\n');
    }
    printf("  %-*s%s\n", HELP_COLUMN - 2, "-h, --help", "this text");
}

#include "core/cli/cli.h"
#include "core/cli/console.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

static const nibl_cli_verb *const verbs[] = {
    &nibl_cli_run, &nibl_cli_embed, &nibl_cli_quantize, &nibl_cli_imatrix, &nibl_cli_inspect,
    &nibl_cli_fit, &nibl_cli_bench, &nibl_cli_eval,     &nibl_cli_hash,    &nibl_cli_verify};
enum { VERBS = sizeof verbs / sizeof *verbs };

/* ---- Messages ---- */

int nibl_cli_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("nibl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return NIBL_EXIT_FAILED;
}

int nibl_cli_fail_library(const char *where) { return nibl_cli_fail("%s: %s", where, nibl_last_message()); }

int nibl_cli_fail_usage(const char *verb, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("nibl: ", stderr);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\nnibl: see 'nibl help%s%s'\n", verb ? " " : "", verb ? verb : "");
    va_end(arguments);
    return NIBL_EXIT_USAGE;
}

/* ---- The verb table ---- */

static const nibl_cli_verb *find_verb(const char *name) {
    for (size_t i = 0; i < VERBS; i++)
        if (strcmp(verbs[i]->name, name) == 0) return verbs[i];
    return NULL;
}

static int fail_unknown(const char *name) {
    const nibl_cli_verb *closest = NULL;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < VERBS; i++) {
        size_t distance = nibl_cli_distance(name, strlen(name), verbs[i]->name, strlen(verbs[i]->name));
        if (distance >= best) continue;
        closest = verbs[i], best = distance;
    }
    if (closest && nibl_cli_close(best, strlen(name)))
        return nibl_cli_fail_usage(NULL, "unknown verb '%s'; did you mean %s?", name, closest->name);
    return nibl_cli_fail_usage(NULL, "unknown verb '%s'", name);
}

static void print_help(void) {
    puts("usage: nibl VERB MODEL [options]\n\nRuns 4-bit language models, and makes them.\n");
    for (size_t i = 0; i < VERBS; i++) printf("  %-10s%s\n", verbs[i]->name, verbs[i]->summary);
    puts("\n  nibl help VERB    the options of a verb\n"
         "  nibl --version    the version and the instruction set in use\n\n"
         "Exit codes: 0 success, 1 failure, 2 bad usage.");
}

static int run_verb(const nibl_cli_verb *verb, int argc, char **argv) {
    void *options = malloc(verb->options_size);
    if (!options) return nibl_cli_fail("out of memory");
    memcpy(options, verb->defaults, verb->options_size);
    const char *model = NULL;
    bool help = false;
    int code = nibl_cli_parse(verb, argc, argv, options, &model, &help);
    if (help)
        nibl_cli_print_help(verb);
    else if (code == NIBL_EXIT_OK)
        code = verb->run(model, options);
    free(options);
    return code;
}

static int dispatch(int argc, char **argv) {
    if (argc < 2) return nibl_cli_fail_usage(NULL, "a verb is missing");
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        printf("nibl %s (%s)\n", NIBL_VERSION, nibl_isa());
        return NIBL_EXIT_OK;
    }
    bool asks_help = strcmp(name, "help") == 0;
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (asks_help && argc == 2)) {
        print_help();
        return NIBL_EXIT_OK;
    }
    if (asks_help) name = argv[2];
    const nibl_cli_verb *verb = find_verb(name);
    if (!verb) return fail_unknown(name);
    if (!asks_help) return run_verb(verb, argc - 2, argv + 2);
    nibl_cli_print_help(verb);
    return NIBL_EXIT_OK;
}

static int word_count;
static char **words;

bool nibl_cli_write_command(nibl_cli_text *out) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:+@%";
    bool ok = nibl_cli_text_append(out, "nibl", 4);
    for (int i = 1; i < word_count && ok; i++) {
        const char *word = words[i];
        const bool is_plain = *word && word[strspn(word, plain)] == '\0';
        ok = nibl_cli_text_append(out, is_plain ? " " : " '", is_plain ? 1 : 2);
        for (; *word && ok; word++)
            ok = !is_plain && *word == '\'' ? nibl_cli_text_append(out, "'\\''", 4)
                                            : nibl_cli_text_append(out, word, 1);
        if (!is_plain) ok = ok && nibl_cli_text_append(out, "'", 1);
    }
    return ok;
}

int main(int argc, char **argv) {
    word_count = argc;
    words = argv;
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD,
            1 << 20); /* what is larger goes back when it is freed; glibc would keep up to 32 MiB */
#endif
    nibl_cli_catch_interrupts();
    int code = dispatch(argc, argv);
    /* Success means that the output has arrived, on a full disk too. */
    errno = 0;
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == NIBL_EXIT_OK)
        code = nibl_cli_fail("standard output: %s", errno ? strerror(errno) : "not all could be written");
    return code;
}

/*
 * checkkern: every variant of every kernel that this machine can run against the scalar reference, bit for bit, on random
 * shapes and extreme values, with guard bytes around outputs. checkkern --help names the options.
 */
#include "tests/c/checkkern.h"

#include "core/plat.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct options {
    const char *op, *isa;
    uint64_t seed;
    uint32_t rounds;
    bool bench, stream;
} options;

static const char help[] =
    "usage: checkkern [--op NAME] [--isa NAME] [--seed N] [--rounds N] [--bench] [--stream]\n"
    "Checks the kernels against the scalar reference; ends with 0 when all agree.\n"
    "  --op, --isa  only this operation, only variants of this instruction set\n"
    "  --seed       repeats a run; --rounds: trials of each variant, 240 otherwise\n"
    "  --bench      also times them on shapes of SmolLM2-135M\n"
    "  --stream     the same, of matrices times one token only, with 16384 x 8192, which no "
    "cache holds\n"
    "With NIBL_ISA set in the environment the variants are those of that instruction "
    "set, and it is also checked that the\n"
    "library chooses them.\n";

static size_t row_count;
static const nibl_kernel_row *rows;

/* Exit status, or -1 to go on. */
static int parse(int argc, char **argv, options *o) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        char *end = "";
        if (strcmp(name, "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (strcmp(name, "--bench") == 0) {
            o->bench = true;
            continue;
        }
        if (strcmp(name, "--stream") == 0) {
            o->bench = o->stream = true;
            continue;
        }
        if (value && strcmp(name, "--op") == 0)
            o->op = value;
        else if (value && strcmp(name, "--isa") == 0)
            o->isa = value;
        else if (value && strcmp(name, "--seed") == 0)
            o->seed = strtoull(value, &end, 10);
        else if (value && strcmp(name, "--rounds") == 0)
            o->rounds = (uint32_t)strtoul(value, &end, 10);
        else
            end = argv[i];
        if (*end) {
            fprintf(stderr, "checkkern: cannot read '%s'\n%s", name, help);
            return 2;
        }
        i++;
    }
    bool found = false;
    for (size_t i = 0; i < row_count; i++)
        found = found ||
                ((!o->op || strcmp(o->op, rows[i].op) == 0) && (!o->isa || strcmp(o->isa, rows[i].isa) == 0));
    if (found) return -1;
    fprintf(stderr, "checkkern: no kernel '%s' for '%s'; there are:\n", o->op ? o->op : "",
            o->isa ? o->isa : "");
    for (size_t i = 0; i < row_count; i++) fprintf(stderr, "  %s %s\n", rows[i].op, rows[i].isa);
    return 2;
}

static void (*reference_of(const char *op))(void) {
    for (size_t i = 0; i < row_count; i++)
        if (strcmp(rows[i].op, op) == 0 && strcmp(rows[i].isa, "scalar") == 0) return rows[i].function;
    return NULL;
}

/* All rounds of one variant; false, told, at the first that fails. The cases do not depend on the variant. */
static bool check(const options *o, size_t op, const nibl_kernel_row *row) {
    void (*reference)(void) = reference_of(row->op);
    for (uint32_t round = 0; round < o->rounds; round++) {
        uint64_t random = o->seed + ((uint64_t)op << 32 | round);
        random_bits(&random);
        shape s = {.profile = (profile)random_below(&random, PROFILE_COUNT)};
        operations[op]->pick(&s, &random, round);
        trial t;
        trial_begin(&t, &s, random);
        operations[op]->make(&t);
        const char *wrong = trial_run(&t, operations[op], reference, row->function);
        trial_end(&t);
        if (!wrong) continue;
        printf("%-12s %-11s FAILED %s; round %u: rows %u, cols %u, kind %d, scale %d, panels %u..%u, tokens "
               "%u, n %u, "
               "width %u, flag %d, values %d\n",
               row->op, row->isa, wrong, (unsigned)round, (unsigned)s.rows, (unsigned)s.cols, s.kind,
               (int)s.scale, (unsigned)s.begin, (unsigned)s.end, (unsigned)s.tokens, (unsigned)s.n,
               (unsigned)s.width, s.flag, s.profile);
        return false;
    }
    printf("%-12s %-11s ok\n", row->op, row->isa);
    return true;
}

enum { STREAMED = 16384 /* rows */ };

/* Best of many: nanoseconds of one call. */
static double measure(const operation *op, const shape *s, void (*function)(void)) {
    enum { SAMPLE = 1000000, SAMPLES = 30, TOTAL = 400000000 };
    trial t;
    trial_begin(&t, s, 1);
    op->make(&t);
    double best = INFINITY;
    uint64_t total = 0;
    uint32_t calls = 1;
    for (int samples = 0; samples < SAMPLES && total < TOTAL;) {
        const uint64_t begin = nibl_plat_now();
        for (uint32_t i = 0; i < calls; i++) op->call(&t, function);
        const uint64_t spent = nibl_plat_now() - begin;
        total += spent;
        if (spent < SAMPLE && calls < 1u << 24) {
            calls *= 2;
            continue;
        }
        samples++;
        if ((double)spent / calls < best) best = (double)spent / calls;
    }
    trial_end(&t);
    return best;
}

/* Of a matrix that no cache holds, a piece at a time: sums the shortest of each piece's calls, since others run meanwhile. */
static double measure_stream(const operation *op, const shape *s, void (*function)(void)) {
    enum { PIECE = 32, PIECES = STREAMED / NIBL_PANEL / PIECE, PASSES = 12 };
    trial t;
    trial_begin(&t, s, 1);
    op->make(&t);
    uint64_t best[PIECES], total = 0;
    memset(best, 0xFF, sizeof best);
    for (uint32_t i = 0; i < PASSES * PIECES; i++) {
        t.shape.begin = i % PIECES * PIECE;
        t.shape.end = t.shape.begin + PIECE;
        const uint64_t begin = nibl_plat_now();
        op->call(&t, function);
        const uint64_t spent = nibl_plat_now() - begin;
        if (spent < best[i % PIECES]) best[i % PIECES] = spent;
    }
    for (uint32_t i = 0; i < PIECES; i++) total += best[i];
    trial_end(&t);
    return (double)total;
}

enum { MAX_BENCH = sizeof operations[0]->bench / sizeof(shape) };

static const char *const kinds[] = {"f32",  "f16",   "bf16",  "nibble", "int8", "iq4",
                                    "e2m1", "bits2", "bits3", "bits5",  "bits6"};
static const char *const scales[] = {
    "",       "+min",  " f16+zero", " bf16",        " bf16+zero",  " f32",        " e8m0",
    " ue4m3", " d256", " d256 i6",  " d256 u6+min", " d256 i6/16", " d256 i8/16", " d256 u4+min/16"};

/* The i-th shape to time; false after the last. Without rows and n: none at this place. */
static bool bench_shape(const options *o, const operation *op, size_t i, shape *s) {
    *s = op->bench[i];
    if (i >= MAX_BENCH || (!s->n && !s->rows)) return false;
    if (!o->stream) return true;
    if (s->tokens != 1 || !s->end) *s = (shape){0};
    s->rows = s->rows ? STREAMED : 0;
    s->cols = 8192;
    s->end = STREAMED / NIBL_PANEL;
    return true;
}

static void bench(const options *o, const operation *op, const nibl_kernel_row *row, const double *scalar) {
    shape shown, *s = &shown;
    for (size_t i = 0; bench_shape(o, op, i, s); i++) {
        double bytes, macs;
        if (!s->n && !s->rows) continue;
        op->work(s, &bytes, &macs);
        const double time = strcmp(row->isa, "scalar") == 0 ? scalar[i]
                            : o->stream                     ? measure_stream(op, s, row->function)
                                                            : measure(op, s, row->function);
        char label[48];
        if (s->rows)
            snprintf(label, sizeof label, "%u x %u %s%s, tokens %u", (unsigned)s->rows, (unsigned)s->cols,
                     kinds[s->kind], scales[s->scale], (unsigned)s->tokens);
        else
            snprintf(label, sizeof label, s->width ? "%u x %u" : "%u", (unsigned)s->n, (unsigned)s->width);
        printf("    %-46s %11.0f ns %7.2f GB/s %7.2f GMAC/s", label, time, bytes / time, macs / time);
        if (scalar[i] > 0) printf(" %7.2f x scalar", scalar[i] / time);
        printf("\n");
    }
}

/* The table of the library holds this variant for the operation. */
static bool is_chosen(const nibl_kernels *k, const nibl_kernel_row *row) {
    void (*const chosen[])(void) = {
#define NIBL_OP(name, args, check) (void (*)(void)) k->name,
#include "kernels/kernels.def"
    };
    for (size_t op = 0; op < operation_count; op++)
        if (strcmp(operation_names[op], row->op) == 0) return chosen[op] == row->function;
    return false;
}

/* With a cap the library must choose every variant of that ISA; without, the first that the machine can run. */
static bool check_choice(const nibl_kernels *k, const char *cap, uint32_t features) {
    bool ok = k != NULL;
    for (size_t i = 0; i < row_count && ok; i++) {
        bool expected = (rows[i].features & ~features) == 0;
        for (size_t j = i; j > 0 && !cap && strcmp(rows[j - 1].op, rows[i].op) == 0; j--)
            expected = expected && (rows[j - 1].features & ~features) != 0;
        if (cap) expected = expected && strcmp(rows[i].isa, cap) == 0;
        if (!expected || is_chosen(k, &rows[i])) continue;
        printf("choice FAILED: the library does not use %s for %s\n", rows[i].isa, rows[i].op);
        ok = false;
    }
    if (ok) printf("choice ok: %s\n", nibl_kernels_names());
    return ok;
}

int main(int argc, char **argv) {
    rows = nibl_kernel_rows(&row_count);
    const char *cap = nibl_plat_isa_cap();
    options o = {.isa = cap, .seed = (uint64_t)time(NULL), .rounds = 240};
    const int status = parse(argc, argv, &o);
    if (status >= 0) return status;
    printf("seed %llu\n", (unsigned long long)o.seed);

    const uint32_t features = nibl_cpu_features();
    const nibl_kernels *chosen = nibl_kernels_get(cap);
    unsigned passed = 0, failed = 0, skipped = 0;
    char absent[96] = "";
    if (chosen || !cap) *(check_choice(chosen, cap, features) ? &passed : &failed) += 1;
    for (size_t op = 0; op < operation_count; op++) {
        double scalar[MAX_BENCH] = {0};
        if (o.op && strcmp(o.op, operation_names[op]) != 0) continue;
        shape s;
        for (size_t i = 0; o.bench && !o.stream && bench_shape(&o, operations[op], i, &s); i++)
            if (s.n || s.rows) scalar[i] = measure(operations[op], &s, reference_of(operation_names[op]));
        for (size_t i = 0; i < row_count; i++) {
            if (strcmp(rows[i].op, operation_names[op]) != 0 || (o.isa && strcmp(o.isa, rows[i].isa) != 0))
                continue;
            if (rows[i].features & ~features) {
                skipped++;
                if (!strstr(absent, rows[i].isa)) {
                    strcat(absent, " ");
                    strcat(absent, rows[i].isa);
                }
                continue;
            }
            *(check(&o, op, &rows[i]) ? &passed : &failed) += 1;
            if (o.bench && !(o.stream && strcmp(rows[i].isa, "scalar") == 0))
                bench(&o, operations[op], &rows[i], scalar);
            fflush(stdout);
        }
    }
    printf("%u passed, %u failed, %u skipped%s%s%s\n", passed, failed, skipped,
           skipped ? " (this CPU has no" : "", absent, skipped ? ")" : "");
    return failed > 0;
}

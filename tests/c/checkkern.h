/* One trial of checkkern: inputs, outputs with guard bytes, and one call of a kernel. */
#ifndef NIBL_TEST_CHECKKERN_H
#define NIBL_TEST_CHECKKERN_H

#include "kernels/variants.h"
#include "tests/c/kernel_data.h"

enum { MAX_INPUTS = 4, MAX_OUTPUTS = 3, MAX_RANGES = 80 };

/* What a kernel is called with, apart from contents. */
typedef struct shape {
    uint32_t rows, cols; /* of a matrix */
    nibl_kind kind;
    nibl_scale scale;
    uint32_t begin, end; /* panels */
    uint32_t tokens;
    uint32_t n, width; /* of vectors, heads and attention blocks; n also: a row of the matrix */
    bool flag; /* rope: neox; rmsnorm: in place; activate: without `up` */
    nibl_activation function;
    uint32_t first; /* of attention blocks */
    float cap; /* 0 = none */
    profile profile;
} shape;

typedef enum content { CONTENT_FLOATS, CONTENT_BITS, CONTENT_SCRATCH } content;

/* Bytes of the output area that a kernel may write; scratch is not compared. */
typedef struct range {
    size_t offset, bytes;
    content content;
} range;

typedef struct trial {
    uint64_t random;
    shape shape;
    void *inputs[MAX_INPUTS];
    nibl_matrix w;
    size_t outputs[MAX_OUTPUTS]; /* offsets in the area */
    size_t stride, x_stride; /* floats between tokens */
    float scale;
    uint8_t *area; /* that the next call writes to */
    /* what follows belongs to checkkern_trial.c */
    uint8_t *bases[MAX_INPUTS], *copies[MAX_INPUTS];
    size_t input_bytes[MAX_INPUTS];
    size_t input_count, output_count, used;
    range ranges[MAX_RANGES];
    size_t range_count;
} trial;

/* A kernel's trial: the shape of the round-th one, its inputs and outputs, the call, and its work for --bench. */
typedef struct operation {
    void (*pick)(shape *s, uint64_t *random, uint32_t round);
    void (*make)(trial *t);
    void (*call)(const trial *t, void (*function)(void));
    void (*work)(const shape *s, double *bytes, double *macs);
    shape bench[20]; /* up to the first without n and rows */
} operation;

/* The operations in the order of the table; their number. */
extern const operation *const operations[];
extern const char *const operation_names[];
extern const size_t operation_count;

void trial_begin(trial *t, const shape *s, uint64_t seed);
void trial_end(trial *t);

/* Allocates exactly `bytes` (a sanitizer sees what is read behind them) at a multiple of 64 plus `shift`. */
void *trial_input(trial *t, size_t bytes, size_t shift);
/* Room in the output area, all guard bytes, at a multiple of 64 plus `shift`; its place in both areas for what is
 * there before the call. */
void *trial_output(trial *t, size_t bytes, size_t shift);
/* Bytes of the last output, relative to it, that may be written. Ranges come in ascending order. */
void trial_writes(trial *t, size_t offset, size_t bytes, content what);

/* Where output i is in the call's area. */
static inline void *output(const trial *t, size_t i) { return t->area + t->outputs[i]; }

/* Calls the reference and the variant. Empty, or what went wrong; static storage. */
const char *trial_run(trial *t, const operation *op, void (*reference)(void), void (*variant)(void));

#endif

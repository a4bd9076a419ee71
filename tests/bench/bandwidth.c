/* How fast memory can be read: sums of a buffer as large as a model's weights, in the widest vectors that the compiler
 * has for the machine. As a program, `bandwidth THREADS MIB` prints bytes per second, the best of some passes; in
 * WebAssembly bandwidth.js calls bench_read. */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define WIDTH 64
#elif defined(__AVX__)
#define WIDTH 32
#else
#define WIDTH 16
#endif
typedef uint64_t vector __attribute__((vector_size(WIDTH)));

enum { CHAINS = 8, STRIDE = CHAINS * WIDTH, AHEAD = 16384 };

#if defined(__wasm__)
__attribute__((export_name("bench_read")))
#else
static
#endif
uint64_t
bench_read(const char *bytes, size_t count) {
    vector sums[CHAINS] = {0};
    for (size_t i = 0; i + STRIDE <= count; i += STRIDE) {
        const vector *v = (const vector *)(const void *)(bytes + i);
#if !defined(__wasm__)
        for (int line = 0; line < STRIDE; line += 64) __builtin_prefetch(bytes + i + line + AHEAD);
#endif
        for (int k = 0; k < CHAINS; k++) sums[k] += v[k];
    }
    uint64_t sum = 0;
    for (int k = 0; k < CHAINS; k++)
        for (int lane = 0; lane < WIDTH / 8; lane++) sum += sums[k][lane];
    return sum;
}

#if !defined(__wasm__)
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_THREADS = 64, PASSES = 12, PAGE = 2 << 20 };

static pthread_barrier_t barrier;

typedef struct share {
    const char *bytes;
    size_t count;
    double best; /* seconds of the fastest pass */
    uint64_t sum;
} share;

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A pass ends when all threads have ended it. */
static void *work(void *argument) {
    share *s = argument;
    s->best = 1e9;
    for (int pass = 0; pass < PASSES; pass++) {
        pthread_barrier_wait(&barrier);
        double start = seconds();
        s->sum += bench_read(s->bytes, s->count);
        pthread_barrier_wait(&barrier);
        double taken = seconds() - start;
        if (taken < s->best) s->best = taken;
    }
    return NULL;
}

int main(int argc, char **argv) {
    size_t threads = argc > 1 ? (size_t)atoi(argv[1]) : 1, bytes = (size_t)(argc > 2 ? atoi(argv[2]) : 96)
                                                                   << 20;
    if (threads < 1 || threads > MAX_THREADS || bytes == 0) return 2;
    char *buffer = aligned_alloc(PAGE, bytes + PAGE - bytes % PAGE);
    if (!buffer) return 1;
#if defined(MADV_HUGEPAGE)
    madvise(buffer, bytes, MADV_HUGEPAGE);
#endif
    memset(buffer, 1, bytes);
    share shares[MAX_THREADS];
    pthread_t others[MAX_THREADS];
    size_t each = bytes / threads / STRIDE * STRIDE;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (size_t i = 0; i < threads; i++) shares[i] = (share){.bytes = buffer + i * each, .count = each};
    for (size_t i = 1; i < threads; i++)
        if (pthread_create(&others[i], NULL, work, &shares[i]) != 0) return 1;
    work(&shares[0]);
    for (size_t i = 1; i < threads; i++) pthread_join(others[i], NULL);
    printf("%.0f %d\n", (double)(each * threads) / shares[0].best, (int)(shares[0].sum & 1));
    free(buffer);
    return 0;
}
#endif

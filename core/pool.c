/* The worker pool on top of each OS's threads: persistent workers, spinning barriers that fall asleep. */
#include "core/plat/os.h"

#include <stdatomic.h>

/* How long a waiter spins before it sleeps: longer than any phase of a token is uneven, shorter than a person notices. */
enum { SPIN_ROUNDS = 256, PAUSES_PER_ROUND = 64, SPIN_NANOSECONDS = 200000 };

typedef struct worker {
    nibl_pool *pool;
    uint32_t index;
    nibl_os_thread thread;
} worker;

struct nibl_pool {
    _Alignas(64) _Atomic uint32_t generation; /* of jobs; a change starts one */
    _Alignas(64) _Atomic uint32_t arrived; /* at the barrier */
    _Alignas(64) _Atomic uint32_t phase; /* of the barrier */
    _Alignas(64) nibl_job job; /* NULL: stop */
    void *context;
    uint32_t workers;
    worker worker[NIBL_MAX_THREADS];
};

/* Returns when *value is no longer `old`. */
static void wait_change(_Atomic uint32_t *value, uint32_t old) {
    uint64_t start = 0;
    for (uint32_t round = 0; atomic_load_explicit(value, memory_order_acquire) == old; round++) {
        if (round < SPIN_ROUNDS) {
            for (int i = 0; i < PAUSES_PER_ROUND && atomic_load_explicit(value, memory_order_acquire) == old;
                 i++)
                nibl_os_pause();
        } else {
            uint64_t now = nibl_plat_now();
            if (start == 0) start = now;
            if (now - start > SPIN_NANOSECONDS)
                nibl_os_wait(value, old);
            else
                for (int i = 0; i < PAUSES_PER_ROUND; i++) nibl_os_pause();
        }
    }
}

static void change(_Atomic uint32_t *value) {
    atomic_fetch_add_explicit(value, 1, memory_order_release);
    nibl_os_wake(value);
}

void nibl_pool_barrier(nibl_pool *pool) {
    if (!pool) return;
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == pool->workers) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        change(&pool->phase);
    } else {
        wait_change(&pool->phase, phase);
    }
}

static void work(void *argument) {
    worker *w = argument;
    nibl_pool *pool = w->pool;
    for (uint32_t seen = 0;; seen++) {
        wait_change(&pool->generation, seen);
        if (!pool->job) return;
        pool->job(pool->context, w->index, pool->workers);
        nibl_pool_barrier(pool);
    }
}

void nibl_pool_run(nibl_pool *pool, nibl_job job, void *context) {
    if (!pool) {
        job(context, 0, 1);
        return;
    }
    pool->job = job;
    pool->context = context;
    change(&pool->generation);
    job(context, 0, pool->workers);
    nibl_pool_barrier(pool);
}

nibl_status nibl_pool_new(uint32_t workers, nibl_pool **out) {
    nibl_pool *pool = nibl_alloc_zero(sizeof *pool);
    if (!pool) return nibl_fail_memory(sizeof *pool, "the worker pool");
    if (workers > NIBL_MAX_THREADS) workers = NIBL_MAX_THREADS;
    uint32_t started = 1;
    /* nobody reads `workers` before the first job */
    for (; started < workers; started++) {
        worker *w = &pool->worker[started];
        *w = (worker){.pool = pool, .index = started};
        if (!nibl_os_thread_start(&w->thread, work, w)) break;
    }
    pool->workers = started;
    *out = pool;
    return NIBL_OK;
}

void nibl_pool_free(nibl_pool *pool) {
    if (!pool) return;
    pool->job = NULL;
    change(&pool->generation);
    for (uint32_t i = 1; i < pool->workers; i++) nibl_os_thread_join(&pool->worker[i].thread);
    nibl_free(pool);
}

uint32_t nibl_pool_workers(const nibl_pool *pool) { return pool ? pool->workers : 1; }

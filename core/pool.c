/* The worker pool on top of each OS's threads: persistent workers, spinning barriers that fall asleep. */
#include "core/plat/os.h"

#include <stdatomic.h>

/* A waiter spins, for phases of a token are shorter than a system call; then it sleeps. Who had to wait for LATE found
 * that another process holds the core of a worker: jobs then run on the caller alone for a while, since every barrier
 * would cost a time slice. */
enum { SPIN_ROUNDS = 64, PAUSES = 64, SPIN_NANOSECONDS = 100000, LATE = 1000000, LEFT_OUT = 100000000 };

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
    uint32_t workers, active; /* started; taking part in the job */
    _Atomic uint64_t alone_until; /* nibl_plat_now */
    worker worker[NIBL_MAX_THREADS];
};

/* Returns when *value is no longer `old`; the nanoseconds waited, 0 for a short while. */
static uint64_t wait_change(_Atomic uint32_t *value, uint32_t old) {
    uint64_t start = 0, now = 0;
    for (uint32_t round = 0; atomic_load_explicit(value, memory_order_acquire) == old; round++) {
        if (round >= SPIN_ROUNDS) {
            now = nibl_plat_now();
            if (start == 0) start = now;
            if (now - start > SPIN_NANOSECONDS) {
                nibl_os_wait(value, old);
                continue;
            }
        }
        for (int i = 0; i < PAUSES && atomic_load_explicit(value, memory_order_acquire) == old; i++)
            nibl_os_pause();
    }
    return start ? nibl_plat_now() - start : 0;
}

static void change(_Atomic uint32_t *value) {
    atomic_fetch_add_explicit(value, 1, memory_order_release);
    nibl_os_wake(value);
}

void nibl_pool_barrier(nibl_pool *pool) {
    /* read first: as soon as the last worker has arrived, the caller may set it for another job */
    const uint32_t active = pool ? pool->active : 1;
    if (active == 1) return;
    uint32_t phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == active) {
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        change(&pool->phase);
    } else if (wait_change(&pool->phase, phase) > LATE) {
        atomic_store_explicit(&pool->alone_until, nibl_plat_now() + LEFT_OUT, memory_order_relaxed);
    }
}

static void work(void *argument) {
    worker *w = argument;
    nibl_pool *pool = w->pool;
    for (uint32_t seen = 0;; seen++) {
        wait_change(&pool->generation, seen);
        if (!pool->job) return;
        pool->job(pool->context, w->index, pool->active);
        nibl_pool_barrier(pool);
    }
}

static bool alone(nibl_pool *pool) {
    const uint64_t until = atomic_load_explicit(&pool->alone_until, memory_order_relaxed);
    if (until == 0) return false;
    if (nibl_plat_now() < until) return true;
    atomic_store_explicit(&pool->alone_until, 0, memory_order_relaxed);
    return false;
}

void nibl_pool_run(nibl_pool *pool, nibl_job job, void *context) {
    if (!pool || pool->workers == 1 || alone(pool)) {
        if (pool) pool->active = 1;
        job(context, 0, 1);
        return;
    }
    pool->active = pool->workers;
    pool->job = job;
    pool->context = context;
    change(&pool->generation);
    job(context, 0, pool->active);
    nibl_pool_barrier(pool);
}

nibl_status nibl_pool_new(uint32_t workers, nibl_pool **out) {
    nibl_pool *pool = nibl_alloc_zero(sizeof *pool);
    if (!pool) return nibl_fail_memory(sizeof *pool, "the worker pool");
    if (workers > NIBL_MAX_THREADS) workers = NIBL_MAX_THREADS;
    uint32_t started = 1;
    /* workers read `active` only after the first job has set it */
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

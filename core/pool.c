/* The worker pool on top of each OS's threads: persistent workers, spinning barriers that fall asleep, and phases
 * whose chunks are claimed by whoever is free. */
#include "core/absence.h"
#include "core/plat/os.h"

#include <stdatomic.h>

/* A waiter spins, for phases of a token are shorter than a system call; then it sleeps. */
enum { SPIN_ROUNDS = 64, PAUSES = 64, SPIN_NANOSECONDS = 100000 };

/* A word to wait for; who changes it makes a system call only where somebody sleeps. */
typedef struct signal {
    _Atomic uint32_t value, sleepers;
} signal;

/* What belongs to one who takes part in the job at hand, written by that one most of the time. */
typedef struct seat {
    _Alignas(64) _Atomic uint32_t claimed[2]; /* units of its own share, of even and odd phases */
    uint32_t phases, thread; /* begun; index of the one that sits here */
} seat;

typedef struct thread {
    _Alignas(64) signal go; /* a change starts a job */
    nibl_pool *pool;
    uint32_t seat;
    nibl_absence absence;
    nibl_os_thread os;
} thread;

struct nibl_pool {
    _Alignas(64) _Atomic uint32_t arrived; /* at the barrier */
    _Alignas(64) signal phase; /* of the barrier */
    _Alignas(64) nibl_job job; /* NULL: stop */
    void *context;
    uint32_t workers, active; /* started; taking part in the job */
    _Atomic uint64_t waiting_since; /* nibl_plat_now: somebody sleeps at a barrier; 0: nobody */
    thread threads[NIBL_MAX_THREADS];
    seat seats[NIBL_MAX_THREADS];
};

/* Returns when the value is no longer `old`. Who falls asleep writes since when it waits to *since, if there is one. */
static void wait_change(signal *s, uint32_t old, _Atomic uint64_t *since) {
    uint64_t start = 0;
    for (uint32_t round = 0; atomic_load_explicit(&s->value, memory_order_acquire) == old; round++) {
        if (round >= SPIN_ROUNDS) {
            const uint64_t now = nibl_plat_now();
            if (start == 0) start = now;
            if (now - start > SPIN_NANOSECONDS) {
                if (since) atomic_store_explicit(since, start, memory_order_relaxed);
                /* sequentially consistent, as in `change`: one of both sees what the other wrote */
                atomic_fetch_add(&s->sleepers, 1);
                nibl_os_wait(&s->value, old);
                atomic_fetch_sub(&s->sleepers, 1);
                continue;
            }
        }
        for (int i = 0; i < PAUSES && atomic_load_explicit(&s->value, memory_order_acquire) == old; i++)
            nibl_os_pause();
    }
}

static void change(signal *s) {
    atomic_fetch_add(&s->value, 1);
    if (atomic_load(&s->sleepers)) nibl_os_wake(&s->value);
}

/* Called by the last one who comes to a barrier, while all others wait. */
static void charge_last(nibl_pool *pool, uint32_t worker, uint32_t active) {
    const uint64_t since = atomic_load_explicit(&pool->waiting_since, memory_order_relaxed);
    if (since == 0) return;
    atomic_store_explicit(&pool->waiting_since, 0, memory_order_relaxed);
    const uint64_t now = nibl_plat_now();
    /* where it is the caller, the others go: then it can move to a core of theirs */
    for (uint32_t i = 1; i < active && now > since; i++)
        if (i == worker || worker == 0)
            nibl_absence_charge(&pool->threads[pool->seats[i].thread].absence, now - since, now);
}

void nibl_pool_barrier(nibl_pool *pool, uint32_t worker) {
    /* read first: as soon as the last worker has arrived, the caller may set it for another job */
    const uint32_t active = pool ? pool->active : 1;
    if (active == 1) return;
    const uint32_t phase = atomic_load_explicit(&pool->phase.value, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) + 1 == active) {
        charge_last(pool, worker, active);
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        change(&pool->phase);
    } else {
        wait_change(&pool->phase, phase, &pool->waiting_since);
    }
}

nibl_claims nibl_pool_divide(nibl_pool *pool, uint32_t worker, uint32_t workers, uint32_t total,
                             uint32_t grain) {
    nibl_claims c = {.worker = worker, .workers = workers, .total = total, .grain = grain ? grain : 1};
    if (workers == 1) return c;
    seat *own = &pool->seats[worker];
    c.pool = pool;
    c.phase = own->phases++ & 1;
    /* the other counter is for the next phase; nobody reads it before the barrier that ends this one */
    atomic_store_explicit(&own->claimed[c.phase ^ 1], 0, memory_order_relaxed);
    return c;
}

bool nibl_pool_claim(nibl_claims *c, uint32_t *begin, uint32_t *end) {
    for (; c->visited < c->workers; c->visited++) {
        const uint32_t of = (c->worker + c->visited) % c->workers;
        const uint32_t first = (uint32_t)((uint64_t)c->total * of / c->workers);
        const uint32_t n = (uint32_t)((uint64_t)c->total * (of + 1) / c->workers) - first;
        uint32_t at = 0, most = n;
        if (c->pool) {
            _Atomic uint32_t *claimed = &c->pool->seats[of].claimed[c->phase];
            most = c->grain;
            at = atomic_load_explicit(claimed, memory_order_relaxed);
            if (at < n) at = atomic_fetch_add_explicit(claimed, most, memory_order_relaxed);
        } else {
            c->visited++; /* all at once */
        }
        if (at >= n) continue;
        *begin = first + at;
        *end = first + (n - at < most ? n : at + most);
        return true;
    }
    return false;
}

static void work(void *argument) {
    thread *w = argument;
    nibl_pool *pool = w->pool;
    for (uint32_t seen = 0;; seen++) {
        wait_change(&w->go, seen, NULL);
        if (!pool->job) return;
        pool->job(pool->context, w->seat, pool->active);
        nibl_pool_barrier(pool, w->seat);
    }
}

/* Seats the caller and all workers that are not left out; returns their number. */
static uint32_t take_seats(nibl_pool *pool) {
    uint32_t seats = 1;
    for (uint32_t i = 1; i < pool->workers; i++) {
        thread *w = &pool->threads[i];
        if (w->absence.until && nibl_absence_lasts(&w->absence, nibl_plat_now())) continue;
        pool->seats[seats].thread = i;
        w->seat = seats++;
    }
    for (uint32_t i = 0; i < seats; i++) {
        seat *s = &pool->seats[i];
        s->phases = 0;
        for (int j = 0; j < 2; j++) atomic_store_explicit(&s->claimed[j], 0, memory_order_relaxed);
    }
    return seats;
}

void nibl_pool_run(nibl_pool *pool, nibl_job job, void *context) {
    const uint32_t active = pool ? take_seats(pool) : 1;
    if (pool) pool->active = active;
    if (active > 1) {
        pool->job = job;
        pool->context = context;
        atomic_store_explicit(&pool->waiting_since, 0, memory_order_relaxed);
        for (uint32_t i = 1; i < active; i++) change(&pool->threads[pool->seats[i].thread].go);
    }
    job(context, 0, active);
    nibl_pool_barrier(pool, 0);
}

nibl_status nibl_pool_new(uint32_t workers, nibl_pool **out) {
    nibl_pool *pool = nibl_alloc_zero(sizeof *pool);
    if (!pool) return nibl_fail_memory(sizeof *pool, "the worker pool");
    if (workers > NIBL_MAX_THREADS) workers = NIBL_MAX_THREADS;
    uint32_t started = 1;
    for (; started < workers; started++) {
        thread *w = &pool->threads[started];
        w->pool = pool;
        if (!nibl_os_thread_start(&w->os, work, w)) break;
    }
    pool->workers = started;
    *out = pool;
    return NIBL_OK;
}

void nibl_pool_free(nibl_pool *pool) {
    if (!pool) return;
    pool->job = NULL;
    for (uint32_t i = 1; i < pool->workers; i++) change(&pool->threads[i].go);
    for (uint32_t i = 1; i < pool->workers; i++) nibl_os_thread_join(&pool->threads[i].os);
    nibl_free(pool);
}

uint32_t nibl_pool_workers(const nibl_pool *pool) { return pool ? pool->workers : 1; }

/* The worker pool: who runs what, and in what order. Data shared between workers is plain on purpose, so that the thread
 * sanitizer judges the pool's barriers. */
#define _POSIX_C_SOURCE 200809L
#include "core/absence.h"
#include "core/plat.h"
#include "tests/c/test.h"

#include <time.h>

enum { MOST = 4, JOBS = 3000, POOLS = 100, PHASES = 50, UNITS = 101 };

typedef struct slot {
    _Alignas(64) uint32_t value;
} slot;

typedef struct shared {
    nibl_pool *pool;
    slot runs[MOST]; /* inputs of the jobs each worker ran, added up */
    slot phase[MOST]; /* where each worker is */
    slot wrong[MOST]; /* what each worker saw amiss */
    slot out[MOST]; /* inputs of the jobs that were run without this worker, added up */
    uint32_t workers;
    uint32_t input;
    slot units[UNITS]; /* how often each was claimed */
} shared;

static nibl_pool *new_pool(uint32_t workers) {
    nibl_pool *pool = NULL;
    CHECK_EQ(nibl_pool_new(workers, &pool), NIBL_OK);
    return pool;
}

/* A job runs on all workers, or on some of them where the machine is busy. */
static void count_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    s->wrong[worker].value += workers > s->workers || worker >= workers;
    s->runs[worker].value += s->input;
    for (uint32_t w = workers; worker == 0 && w < s->workers; w++) s->out[w].value += s->input;
}

/* Each job runs once on every worker, sees what the caller wrote before, and is over when nibl_pool_run returns. Returns
 * about how many were run without the last worker. */
static uint32_t run_jobs(uint32_t workers, uint32_t jobs) {
    shared s = {.pool = new_pool(workers)};
    s.workers = nibl_pool_workers(s.pool);
    CHECK(s.workers >= 1 && s.workers <= workers);
    for (uint32_t i = jobs; i > 0; i--) {
        s.input = i;
        nibl_pool_run(s.pool, count_job, &s);
    }
    const uint32_t sum = jobs * (jobs + 1) / 2;
    CHECK_EQ(s.runs[0].value, sum);
    for (uint32_t w = 1; w < MOST; w++) CHECK_EQ(s.runs[w].value, w < s.workers ? sum - s.out[w].value : 0);
    for (uint32_t w = 0; w < MOST; w++) CHECK_EQ(s.wrong[w].value, 0);
    for (uint32_t w = 1; w < s.workers; w++) CHECK(s.out[w].value < sum); /* the first job is for all */
    nibl_pool_free(s.pool);
    return (uint32_t)((uint64_t)s.out[s.workers - 1].value * jobs / sum);
}

/* Short jobs one after the other: in one pool, and in fresh ones, which begin with all workers. */
static void every_worker_runs_every_job(void) {
    for (uint32_t workers = 1; workers <= MOST; workers++) {
        const uint32_t without = run_jobs(workers, JOBS);
        uint32_t fresh = 0;
        for (int i = 0; i < POOLS; i++) fresh += run_jobs(workers, JOBS / POOLS);
        printf("%u workers, %d jobs: about %u without all; in fresh pools %u\n", workers, JOBS, without,
               fresh);
    }
}

static void phase_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    for (uint32_t phase = 1; phase <= PHASES; phase++) {
        s->phase[worker].value = phase;
        nibl_pool_barrier(s->pool, worker);
        for (uint32_t w = 0; w < workers; w++) s->wrong[worker].value += s->phase[w].value != phase;
        nibl_pool_barrier(s->pool, worker);
    }
}

/* What was written before a barrier is seen behind it, by all. */
static void barriers_order(void) {
    for (uint32_t workers = 1; workers <= MOST; workers++) {
        shared s = {.pool = new_pool(workers)};
        for (int i = 0; i < 10; i++) nibl_pool_run(s.pool, phase_job, &s); /* the first for all workers */
        for (uint32_t w = 0; w < MOST; w++) {
            CHECK_EQ(s.wrong[w].value, 0);
            CHECK_EQ(s.phase[w].value, w < nibl_pool_workers(s.pool) ? PHASES : 0);
        }
        nibl_pool_free(s.pool);
    }
}

static void wait_milliseconds(uint64_t n) {
    for (const uint64_t begin = nibl_plat_now(); nibl_plat_now() - begin < n * 1000000;) {
    }
}

/* Workers that spin, sleep or have never worked can be joined; sleepers wake up for work. */
static void idle_pools_can_be_freed(void) {
    for (uint32_t workers = 1; workers <= MOST; workers++)
        for (uint64_t pause = 0; pause <= 3; pause += 3) {
            shared s = {.input = 1};
            nibl_pool_free(new_pool(workers));
            s.pool = new_pool(workers);
            s.workers = nibl_pool_workers(s.pool);
            wait_milliseconds(pause);
            nibl_pool_run(s.pool, count_job, &s);
            wait_milliseconds(pause);
            nibl_pool_run(s.pool, count_job, &s);
            for (uint32_t w = 0; w < s.workers; w++) CHECK_EQ(s.runs[w].value, 2 - s.out[w].value);
            wait_milliseconds(pause);
            nibl_pool_free(s.pool);
        }
}

static void claim_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    for (uint32_t phase = 0; phase < PHASES; phase++) {
        nibl_claims claims = nibl_pool_divide(s->pool, worker, workers, s->input, phase % 7);
        for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);) {
            s->wrong[worker].value += begin >= end || end > s->input;
            for (uint32_t i = begin; i < end && i < UNITS; i++) s->units[i].value++;
            if (worker == 1 && phase == 0) wait_milliseconds(1); /* a straggler, whom others relieve */
        }
        nibl_pool_barrier(s->pool, worker);
    }
}

/* Every unit of every phase is claimed once, whatever the number of workers and units. */
static void claims_cover_all(void) {
    for (uint32_t workers = 1; workers <= MOST; workers++)
        for (uint32_t units = 0; units <= UNITS; units += units < 6 ? 1 : 19) {
            shared s = {.pool = new_pool(workers), .input = units};
            for (int i = 0; i < 3; i++) nibl_pool_run(s.pool, claim_job, &s);
            for (uint32_t i = 0; i < UNITS; i++) CHECK_EQ(s.units[i].value, i < units ? 3 * PHASES : 0);
            for (uint32_t w = 0; w < MOST; w++) CHECK_EQ(s.wrong[w].value, 0);
            nibl_pool_free(s.pool);
        }
    shared s = {.input = UNITS};
    nibl_pool_run(NULL, claim_job, &s);
    for (uint32_t i = 0; i < UNITS; i++) CHECK_EQ(s.units[i].value, PHASES);
}

/* Others wait for `waited` of every `period` nanoseconds, from `now` on for a second at most: until when, or 0. */
static uint64_t time_until_left_out(nibl_absence *a, uint64_t now, uint64_t waited, uint64_t period) {
    for (const uint64_t end = now + 1000000000; now < end; now += period)
        if (nibl_absence_charge(a, waited, now)) return now;
    return 0;
}

static void who_is_late_is_left_out(void) {
    enum { US = 1000, MS = 1000000 };
    const uint64_t start = 7000000000;
    nibl_absence a = {0};
    CHECK(!nibl_absence_lasts(&a, start));
    /* one time slice, or a twentieth of the time: the worker stays */
    CHECK(!nibl_absence_charge(&a, 4 * MS, start));
    CHECK_EQ(time_until_left_out(&a, start + 100 * MS, 150 * US, 3 * MS), 0);
    CHECK(!nibl_absence_lasts(&a, start + 1200 * MS));

    /* short waits that take half of the time: two workers on one core; out within 20 ms, for 100 ms */
    a = (nibl_absence){0};
    uint64_t now = time_until_left_out(&a, start, 110 * US, 220 * US);
    CHECK(now > start && now < start + 20 * MS);
    CHECK(nibl_absence_lasts(&a, now));
    CHECK(nibl_absence_lasts(&a, now + 99 * MS));
    CHECK(!nibl_absence_lasts(&a, now + 100 * MS));
    /* again as soon as it is back: for twice as long, up to 1.6 s */
    uint64_t length = 100;
    for (int i = 0; i < 8; i++) {
        now += length * MS;
        length = length < 1600 ? 2 * length : 1600;
        CHECK(!nibl_absence_lasts(&a, now));
        CHECK(nibl_absence_charge(&a, 6 * MS, now += 2 * MS));
        CHECK(nibl_absence_lasts(&a, now + (length - 1) * MS));
        CHECK(!nibl_absence_lasts(&a, now + length * MS));
    }
    /* after a good while it begins with 100 ms */
    now += 10000 * (uint64_t)MS;
    CHECK(nibl_absence_charge(&a, 6 * MS, now));
    CHECK(nibl_absence_lasts(&a, now + 99 * MS));
    CHECK(!nibl_absence_lasts(&a, now + 100 * MS));
}

static void late_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    if (worker == s->input) wait_milliseconds(80);
    s->runs[worker].value = workers;
}

/* Whoever it is that comes 80 ms late, the next jobs run on the caller alone, and later ones on both again. Where the other
 * one was kept from its core for as long, nobody was late: then it is tried again. */
static void jobs_go_on_without_the_late(void) {
    for (uint32_t late = 0; late < 2; late++) {
        uint32_t next = 2, later = 1;
        for (int tries = 0; tries < 5 && next == 2; tries++) {
            shared s = {.pool = new_pool(2), .input = late};
            if (nibl_pool_workers(s.pool) == 1) next = 1, later = 2; /* there are no threads */
            if (next == 2) {
                nibl_pool_run(s.pool, late_job, &s);
                CHECK_EQ(s.runs[1].value, 2);
                s.input = 2;
                nibl_pool_run(s.pool, late_job, &s);
                next = s.runs[0].value;
                for (int slices = 0; slices < 20 && later == 1; slices++) {
                    wait_milliseconds(LEFT_OUT / 1000000);
                    nibl_pool_run(s.pool, late_job, &s);
                    later = s.runs[0].value;
                }
            }
            nibl_pool_free(s.pool);
        }
        CHECK_EQ(next, 1);
        CHECK_EQ(later, 2);
    }
}

#if !defined(__wasm__) /* WASI has neither threads nor a process's clock */
/* Waiting workers fall asleep: half a second of idling costs next to no processor time. */
static void idle_workers_sleep(void) {
    shared s = {.pool = new_pool(MOST), .input = 1};
    s.workers = nibl_pool_workers(s.pool);
    nibl_pool_run(s.pool, count_job, &s);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    const clock_t begin = clock();
    nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    CHECK(clock() - begin < CLOCKS_PER_SEC / 20);
    nibl_pool_free(s.pool);
}
#endif

static void no_pool_is_the_caller_alone(void) {
    shared s = {.input = 7, .workers = 1};
    CHECK_EQ(nibl_pool_workers(NULL), 1);
    nibl_pool_run(NULL, count_job, &s);
    nibl_pool_run(NULL, phase_job, &s);
    CHECK_EQ(s.runs[0].value, 7);
    CHECK_EQ(s.phase[0].value, PHASES);
    CHECK_EQ(s.wrong[0].value, 0);
    nibl_pool_free(NULL);
}

static void the_number_of_threads_is_bounded(void) {
    nibl_pool *pool = new_pool(NIBL_MAX_THREADS + 100);
    CHECK(nibl_pool_workers(pool) <= NIBL_MAX_THREADS);
    nibl_pool_free(pool);
    nibl_test_fail_alloc(0);
    pool = NULL;
    CHECK_EQ(nibl_pool_new(2, &pool), NIBL_E_MEMORY);
    CHECK(pool == NULL);
    nibl_test_fail_alloc(-1);
}

int main(void) {
    static const test tests[] = {
        {"every worker runs every job once", every_worker_runs_every_job},
        {"barriers order what workers do", barriers_order},
        {"idle pools can be freed", idle_pools_can_be_freed},
        {"every unit is claimed once", claims_cover_all},
        {"who is late is left out for a while", who_is_late_is_left_out},
        {"jobs go on without the late", jobs_go_on_without_the_late},
#if !defined(__wasm__)
        {"idle workers sleep", idle_workers_sleep},
#endif
        {"no pool is the caller alone", no_pool_is_the_caller_alone},
        {"the number of threads is bounded", the_number_of_threads_is_bounded},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

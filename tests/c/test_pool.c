/* The worker pool: who runs what, and in what order. Data shared between workers is plain on purpose, so that the thread
 * sanitizer judges the pool's barriers. */
#include "core/plat.h"
#include "tests/c/test.h"

enum { MOST = 4, JOBS = 10000, POOLS = 100, PHASES = 50 };

typedef struct slot {
    _Alignas(64) uint32_t value;
} slot;

typedef struct shared {
    nibl_pool *pool;
    slot runs[MOST]; /* inputs of the jobs each worker ran, added up */
    slot phase[MOST]; /* where each worker is */
    slot wrong[MOST]; /* what each worker saw amiss */
    uint32_t alone; /* inputs of the jobs that the caller ran alone, added up */
    uint32_t workers;
    uint32_t input;
} shared;

static nibl_pool *new_pool(uint32_t workers) {
    nibl_pool *pool = NULL;
    CHECK_EQ(nibl_pool_new(workers, &pool), NIBL_OK);
    return pool;
}

/* A job runs on all workers, or on the caller alone where the machine is busy. */
static void count_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    s->wrong[worker].value += workers != s->workers && workers != 1;
    s->runs[worker].value += s->input;
    if (workers == 1) s->alone += s->input;
}

/* Each job runs once on every worker, sees what the caller wrote before, and is over when nibl_pool_run returns. Returns
 * how many the caller ran alone, at most. */
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
    for (uint32_t w = 1; w < MOST; w++) CHECK_EQ(s.runs[w].value, w < s.workers ? sum - s.alone : 0);
    for (uint32_t w = 0; w < MOST; w++) CHECK_EQ(s.wrong[w].value, 0);
    CHECK(s.workers == 1 || s.alone < sum); /* the first job is for all */
    nibl_pool_free(s.pool);
    return s.alone == sum ? jobs : (uint32_t)((uint64_t)s.alone * jobs / sum);
}

/* Short jobs one after the other: in one pool, and in fresh ones, which never begin on the caller alone. */
static void every_worker_runs_every_job(void) {
    for (uint32_t workers = 1; workers <= MOST; workers++) {
        const uint32_t alone = run_jobs(workers, JOBS);
        uint32_t fresh = 0;
        for (int i = 0; i < POOLS; i++) fresh += run_jobs(workers, JOBS / POOLS);
        printf("%u workers, %d jobs: about %u on the caller alone; in fresh pools %u\n", workers, JOBS, alone,
               fresh);
    }
}

static void phase_job(void *context, uint32_t worker, uint32_t workers) {
    shared *s = context;
    for (uint32_t phase = 1; phase <= PHASES; phase++) {
        s->phase[worker].value = phase;
        nibl_pool_barrier(s->pool);
        for (uint32_t w = 0; w < workers; w++) s->wrong[worker].value += s->phase[w].value != phase;
        nibl_pool_barrier(s->pool);
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
            for (uint32_t w = 0; w < s.workers; w++) CHECK_EQ(s.runs[w].value, w == 0 ? 2 : 2 - s.alone);
            wait_milliseconds(pause);
            nibl_pool_free(s.pool);
        }
}

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
        {"no pool is the caller alone", no_pool_is_the_caller_alone},
        {"the number of threads is bounded", the_number_of_threads_is_bounded},
    };
    return test_run(tests, sizeof tests / sizeof *tests);
}

/* The core's only contact with the OS: threads and time. One file per OS in plat/; memory comes from the C library. */
#ifndef NIBL_PLAT_H
#define NIBL_PLAT_H

#include "core/base.h"

/* Monotonic time in nanoseconds. */
uint64_t nibl_plat_now(void);

/* Tells the OS that this block, not yet written, will be read from end to end again and again: large pages pay. */
void nibl_plat_will_stream(void *block, uint64_t bytes);

/* The environment variable NIBL_ISA, or NULL. */
const char *nibl_plat_isa_cap(void);

/* A pool of worker threads that run one function together with the caller. */
typedef struct nibl_pool nibl_pool;

/* Job of one worker; `worker` counts from 0 (the caller) to `workers` - 1. */
typedef void (*nibl_job)(void *context, uint32_t worker, uint32_t workers);

/* Starts `workers` - 1 threads (fewer where threads cannot be had: see nibl_pool_workers). */
nibl_status nibl_pool_new(uint32_t workers, nibl_pool **out);
void nibl_pool_free(nibl_pool *pool); /* joins; NULL is legal */
uint32_t nibl_pool_workers(const nibl_pool *pool); /* 1 for NULL */

/* Runs job on all workers and returns when all are done; on the caller alone with pool NULL. Workers that were late,
 * because another process held their core, are left out for a while. */
void nibl_pool_run(nibl_pool *pool, nibl_job job, void *context);

/* Inside a job: all workers wait for each other. */
void nibl_pool_barrier(nibl_pool *pool, uint32_t worker);

/* Inside a job, between two barriers: `total` units, of which every worker claims its own share, `grain` at a time, and
 * then what is left of the others'. All workers divide alike, at most once between two barriers:
 *     nibl_claims claims = nibl_pool_divide(pool, worker, workers, total, grain);
 *     for (uint32_t begin, end; nibl_pool_claim(&claims, &begin, &end);) ... */
typedef struct nibl_claims {
    nibl_pool *pool;
    uint32_t worker, workers, total, grain, phase, visited;
} nibl_claims;

nibl_claims nibl_pool_divide(nibl_pool *pool, uint32_t worker, uint32_t workers, uint32_t total,
                             uint32_t grain);
bool nibl_pool_claim(nibl_claims *claims, uint32_t *begin, uint32_t *end);

#endif

/* WASI preview 1: one thread. */
#include "core/plat/os.h"

#include <stdlib.h>
#include <time.h>

uint64_t nibl_plat_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void nibl_plat_will_stream(void *block, uint64_t bytes) { (void)block, (void)bytes; }

const char *nibl_plat_isa_cap(void) {
    const char *cap = getenv("NIBL_ISA");
    return cap && *cap ? cap : NULL;
}

void nibl_os_wait(_Atomic uint32_t *value, uint32_t old) { (void)value, (void)old; }
void nibl_os_wake(_Atomic uint32_t *value) { (void)value; }

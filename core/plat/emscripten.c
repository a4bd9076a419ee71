/* Emscripten: browser and Node; threads only in the -pthread variants. */
#include "core/plat/os.h"

#include <emscripten.h>
#if defined(__EMSCRIPTEN_PTHREADS__)
#include <emscripten/threading.h>
#include <limits.h>
#include <math.h>
#endif

uint64_t nibl_plat_now(void) { return (uint64_t)(emscripten_get_now() * 1e6); }

void nibl_plat_will_stream(void *block, uint64_t bytes) { (void)block, (void)bytes; }

const char *nibl_plat_isa_cap(void) { return NULL; } /* here an ISA is a binary */

#if defined(__EMSCRIPTEN_PTHREADS__)
void nibl_os_wait(_Atomic uint32_t *value, uint32_t old) {
    emscripten_futex_wait((volatile void *)value, old, INFINITY);
}
void nibl_os_wake(_Atomic uint32_t *value) { emscripten_futex_wake((volatile void *)value, INT_MAX); }
#else
void nibl_os_wait(_Atomic uint32_t *value, uint32_t old) { (void)value, (void)old; }
void nibl_os_wake(_Atomic uint32_t *value) { (void)value; }
#endif

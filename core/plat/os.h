/* What pool.c needs of an OS; one file per OS implements it, and nibl_plat_now, and nibl_plat_isa_cap. */
#ifndef NIBL_PLAT_OS_H
#define NIBL_PLAT_OS_H

#include "core/plat.h"

#if defined(__wasi__) || (defined(__EMSCRIPTEN__) && !defined(__EMSCRIPTEN_PTHREADS__))
typedef int nibl_os_thread; /* no threads here */

static inline bool nibl_os_thread_start(nibl_os_thread *thread, void (*function)(void *), void *argument) {
    (void)thread, (void)function, (void)argument;
    return false;
}

static inline void nibl_os_thread_join(nibl_os_thread *thread) { (void)thread; }
#else
#include <pthread.h>

typedef struct nibl_os_thread {
    pthread_t id;
    void (*function)(void *);
    void *argument;
} nibl_os_thread;

static inline void *nibl_os_thread_main(void *argument) {
    nibl_os_thread *thread = argument;
    thread->function(thread->argument);
    return NULL;
}

/* `thread` must stay in place until it is joined. */
static inline bool nibl_os_thread_start(nibl_os_thread *thread, void (*function)(void *), void *argument) {
    thread->function = function;
    thread->argument = argument;
    return pthread_create(&thread->id, NULL, nibl_os_thread_main, thread) == 0;
}

static inline void nibl_os_thread_join(nibl_os_thread *thread) { pthread_join(thread->id, NULL); }
#endif

/* Sleeps while *value is `old`; may return early. */
void nibl_os_wait(_Atomic uint32_t *value, uint32_t old);
void nibl_os_wake(_Atomic uint32_t *value); /* all waiters */

static inline void nibl_os_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif

#define _GNU_SOURCE /* sched_getaffinity, getentropy */
#include "core/cli/console.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if !defined(__wasm__)
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

double nibl_cli_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

nibl_moment nibl_cli_now(void) {
    const time_t now = time(NULL);
    struct tm local = {0};
    localtime_r(&now, &local);
    return (nibl_moment){.year = local.tm_year + 1900,
                         .month = local.tm_mon + 1,
                         .day = local.tm_mday,
                         .hour = local.tm_hour,
                         .minute = local.tm_min};
}

double nibl_cli_cpu_seconds(void) {
#if defined(CLOCK_PROCESS_CPUTIME_ID) && !defined(__wasi__)
    struct timespec now;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0)
        return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#endif
    return NAN;
}

bool nibl_cli_stdin_is_terminal(void) { return isatty(STDIN_FILENO) == 1; }

bool nibl_cli_stderr_is_terminal(void) { return isatty(STDERR_FILENO) == 1; }

uint64_t nibl_cli_random(void) {
    uint64_t value;
    if (getentropy(&value, sizeof value) == 0) return value;
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__wasm__)

void nibl_cli_catch_interrupts(void) {}

bool nibl_cli_interrupted(void) { return false; }

void nibl_cli_clear_interrupt(void) {}

ssize_t nibl_cli_read(int fd, void *buffer, size_t length) { return read(fd, buffer, length); }

uint32_t nibl_cli_cores(void) { return 1; }

uint64_t nibl_cli_peak_memory(void) { return (uint64_t)__builtin_wasm_memory_size(0) << 16; }

#else

static volatile sig_atomic_t interrupted;

static void on_signal(int number) { interrupted = number; }

void nibl_cli_catch_interrupts(void) {
    /* No SA_RESTART: a read that waits for a line must come back. */
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write that fails is told, and what was written removed */
}

bool nibl_cli_interrupted(void) { return interrupted != 0; }

void nibl_cli_clear_interrupt(void) {
    if (interrupted != SIGTERM) interrupted = 0;
    nibl_cli_catch_interrupts();
}

/* Looks again and again: the signal may come between the look at the flag and the wait. */
ssize_t nibl_cli_read(int fd, void *buffer, size_t length) {
    enum { LOOK = 100 /* ms */ };
    struct pollfd input = {.fd = fd, .events = POLLIN};
    ssize_t got = -1;
    for (errno = EINTR; got < 0 && errno == EINTR && !interrupted;) {
        const int ready = poll(&input, 1, LOOK);
        if (ready > 0) got = read(fd, buffer, length);
        if (ready == 0) errno = EINTR;
    }
    return got;
}

#if defined(__linux__)
/* The first processor of those that share a core with this one. */
static unsigned first_sibling(unsigned processor) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", processor);
    FILE *file = fopen(path, "r");
    unsigned first;
    if (!file) return processor;
    if (fscanf(file, "%u", &first) != 1) first = processor;
    fclose(file);
    return first < CPU_SETSIZE ? first : processor;
}
#endif

uint32_t nibl_cli_cores(void) {
#if defined(__linux__)
    cpu_set_t allowed, cores;
    CPU_ZERO(&cores);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        for (unsigned i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &allowed)) CPU_SET(first_sibling(i), &cores);
        return (uint32_t)CPU_COUNT(&cores);
    }
#endif
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (uint32_t)count : 1;
}

/* ru_maxrss survives exec: a program started by a larger one would report that one's peak. VmHWM does not. */
static uint64_t peak_of_proc(void) {
    FILE *status = fopen("/proc/self/status", "r");
    if (!status) return 0;
    char line[256];
    uint64_t kilobytes = 0;
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = strtoull(line + 6, NULL, 10);
    fclose(status);
    return kilobytes << 10;
}

uint64_t nibl_cli_peak_memory(void) {
    uint64_t peak = peak_of_proc();
    if (peak) return peak;
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#if defined(__APPLE__)
    return (uint64_t)usage.ru_maxrss;
#else
    return (uint64_t)usage.ru_maxrss << 10;
#endif
}

#endif

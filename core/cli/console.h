/* The command's contact with the machine it runs on: clock, terminal, signals, entropy, processors, memory. */
#ifndef NIBL_CLI_CONSOLE_H
#define NIBL_CLI_CONSOLE_H

#include "core/nibl.h"

#include <sys/types.h>

double nibl_cli_seconds(void); /* monotonic clock */
nibl_moment nibl_cli_now(void); /* in the local zone; WASI knows UTC only */
double nibl_cli_cpu_seconds(void); /* of all threads of this process; NaN = not known */

bool nibl_cli_stdin_is_terminal(void);
bool nibl_cli_stderr_is_terminal(void);

/* From then on Ctrl-C and SIGTERM only set a flag, which every long loop reads; a second one before the flag is cleared
 * ends the program at once. SIGTERM stays set. Where there are no signals (WASI) the flag is never set. */
void nibl_cli_catch_interrupts(void);
bool nibl_cli_interrupted(void);
void nibl_cli_clear_interrupt(void);

/* read(2), but it comes back with EINTR after an interrupt, whenever that came, and only then. */
ssize_t nibl_cli_read(int fd, void *buffer, size_t length);

uint64_t nibl_cli_random(void); /* from the system's entropy */
uint32_t nibl_cli_cores(void); /* physical ones that this process may use; 1 where there are no threads */
uint64_t
nibl_cli_peak_memory(void); /* bytes: peak resident set, or the linear memory's size; 0 = not known */

#endif

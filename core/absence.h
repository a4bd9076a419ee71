/* When a worker of the pool is left out. Others sleep at a barrier only where they wait far longer than a phase lasts:
 * then somebody else holds the late one's core, or two workers share one. A little of that costs less than the worker is
 * worth; one for whom others wait more than a share of the time is left out for a while, since every barrier would cost
 * a time slice; for longer each time that it comes back too early. */
#ifndef NIBL_ABSENCE_H
#define NIBL_ABSENCE_H

#include "core/base.h"

/* Nanoseconds; of the time that passes one part in PAYS_BACK is forgiven. */
enum { PAYS_BACK = 8, TOLERATED = 5000000, LEFT_OUT = 100000000, LEFT_OUT_MOST = 1600000000 };

/* Times are those of one clock that never goes back; all zeros: never late. */
typedef struct nibl_absence {
    uint64_t debt, charged; /* how long others waited, less what is forgiven; when that was */
    uint64_t until; /* its end; 0: the worker is there */
    uint64_t returned, length; /* end of the last one, and its length */
} nibl_absence;

/* Others waited so long for the worker; true where it is left out now. */
static inline bool nibl_absence_charge(nibl_absence *a, uint64_t waited, uint64_t now) {
    const uint64_t paid = now > a->charged ? (now - a->charged) / PAYS_BACK : 0;
    a->debt = (a->debt > paid ? a->debt - paid : 0) + waited;
    a->charged = now;
    if (a->debt < TOLERATED) return false;
    const bool again = now - a->returned < a->length;
    a->debt = 0;
    a->length = !again ? LEFT_OUT : a->length < LEFT_OUT_MOST ? 2 * a->length : LEFT_OUT_MOST;
    a->until = now + a->length;
    return true;
}

/* True while the worker is left out. */
static inline bool nibl_absence_lasts(nibl_absence *a, uint64_t now) {
    if (a->until == 0) return false;
    if (now < a->until) return true;
    a->returned = a->until;
    a->until = 0;
    return false;
}

#endif

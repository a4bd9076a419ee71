/* What the fuzz targets share. */
#ifndef NIBL_FUZZ_H
#define NIBL_FUZZ_H

#include "core/nibl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WEIGHTS_MAX = 4 << 20 };

#define EXPECT(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: expected %s; %s\n", __FILE__, __LINE__, #condition,                      \
                    nibl_last_message());                                                                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#endif

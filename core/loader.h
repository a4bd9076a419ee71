/* Inside of the push loader that inspect.c needs. */
#ifndef NIBL_LOADER_H
#define NIBL_LOADER_H

#include "core/gguf.h"

/* The loader's header, or the error that explains why there is none (yet). Owned by the loader or its
 * model. */
nibl_status nibl_loader_header(const nibl_loader *loader, nibl_gguf **out);

#endif

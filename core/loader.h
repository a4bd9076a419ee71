/* Inside of the push loader: what inspect.c and the quantizer need. */
#ifndef NIBL_LOADER_H
#define NIBL_LOADER_H

#include "core/source.h"

/* The loader's header, or the error that explains why there is none (yet). Owned by the loader or its
 * model. */
nibl_status nibl_loader_header(const nibl_loader *loader, nibl_gguf **out);

/* In place of nibl_loader_begin: the rows of these tensors go to `take`, one tensor after the
 * other, and the loader keeps its header. */
nibl_status nibl_loader_begin_rows(nibl_loader *loader, const nibl_source_item *items, size_t count,
                                   nibl_source_taker take, void *context);

/* Behind that, or behind nibl_loader_begin_parts: items from `first` to before `end`, by the order of need, are not wanted. */
void nibl_loader_skip(nibl_loader *loader, size_t first, size_t end);

#endif

/* The header of a safetensors file: u64 length (little-endian), JSON of that length, data. The JSON maps tensor names to
 * {"dtype", "shape" (slowest first), "data_offsets" [begin, end) in the data}. */
#ifndef NIBL_SAFETENSORS_H
#define NIBL_SAFETENSORS_H

#include "core/gguf.h"
#include "core/json.h"

#define NIBL_SAFETENSORS_MAX_HEADER (100u << 20) /* the format's own limit */

typedef struct nibl_safetensor {
    nibl_slice name; /* in the header's text */
    nibl_slice dtype; /* "BF16"; may be one this build does not know */
    uint32_t n_dims;
    uint64_t dims[NIBL_GGUF_MAX_DIMS]; /* fastest first, as in GGUF; missing ones are 1 */
    uint64_t begin, end; /* in the file */
} nibl_safetensor;

/* Reads the tensors from the JSON of a header; `file` begins every message. Sizes that contradict shapes, overlaps and
 * names that stand twice are NIBL_E_FILE. `*out` is the caller's (nibl_free), its slices point into `text`. */
nibl_status nibl_safetensors_read(const char *file, const char *text, size_t length, nibl_safetensor **out,
                                  size_t *count);

#endif

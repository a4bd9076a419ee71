/* Normalization form C (Unicode Standard Annex 15): characters and their marks as few code points. */
#ifndef NIBL_NORMALIZE_H
#define NIBL_NORMALIZE_H

#include "core/base.h"

/* `text` is well-formed. *out is a new text, to be freed; NULL where `text` has that form already. Linear in the text. */
nibl_status nibl_nfc(const char *text, size_t length, char **out, size_t *out_length);

#endif

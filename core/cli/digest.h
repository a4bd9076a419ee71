/* SHA-256 (FIPS 180-4): what tells one model file from another. */
#ifndef NIBL_CLI_DIGEST_H
#define NIBL_CLI_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { NIBL_CLI_SHA256_TEXT = 65 }; /* 64 hexadecimal digits and a NUL */

/* Of a whole file, and its size. Returns an exit code. */
int nibl_cli_sha256_file(const char *path, uint64_t *size, char text[NIBL_CLI_SHA256_TEXT]);

#endif

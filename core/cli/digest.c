#include "core/cli/digest.h"

#include "core/cli/cli.h"
#include "core/cli/console.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, BUFFER = 1 << 20 };

typedef struct hash {
    uint32_t state[8], rounds[64];
} hash;

/* The first 32 bits of the fractional part. */
static uint32_t fraction(double x) { return (uint32_t)((x - floor(x)) * 4294967296.0); }

static void begin(hash *h) {
    unsigned primes[64], count = 0;
    for (unsigned n = 2; count < 64; n++) {
        unsigned i = 0;
        while (i < count && n % primes[i] != 0) i++;
        if (i == count) primes[count++] = n;
    }
    for (int i = 0; i < 64; i++) h->rounds[i] = fraction(cbrt(primes[i]));
    for (int i = 0; i < 8; i++) h->state[i] = fraction(sqrt(primes[i]));
}

static uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

static void compress(hash *h, const unsigned char *block) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        const uint32_t a = s[0], e = s[4];
        const uint32_t t1 = s[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                            ((e & s[5]) ^ (~e & s[6])) + h->rounds[i] + w[i];
        const uint32_t t2 =
            (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) h->state[i] += s[i];
}

/* The last bytes, fewer than a block, of `size` in all. */
static void end(hash *h, const unsigned char *bytes, size_t length, uint64_t size, char *text) {
    unsigned char last[2 * BLOCK] = {0};
    const size_t blocks = length + 9 > BLOCK ? 2 : 1;
    memcpy(last, bytes, length);
    last[length] = 0x80;
    for (size_t i = 0; i < 8; i++) last[blocks * BLOCK - 1 - i] = (unsigned char)(8 * size >> 8 * i);
    for (size_t i = 0; i < blocks; i++) compress(h, last + i * BLOCK);
    for (int i = 0; i < 8; i++) snprintf(text + 8 * i, 9, "%08x", (unsigned)h->state[i]);
}

int nibl_cli_sha256_file(const char *path, uint64_t *size, char text[NIBL_CLI_SHA256_TEXT]) {
    hash h;
    FILE *file = fopen(path, "rb");
    if (!file) return nibl_cli_fail("%s: %s", path, strerror(errno));
    unsigned char *buffer = malloc(BUFFER);
    int code = buffer ? NIBL_EXIT_OK : nibl_cli_fail("out of memory");
    begin(&h);
    *size = 0;
    for (size_t got = BUFFER; code == NIBL_EXIT_OK && got == BUFFER;) {
        got = fread(buffer, 1, BUFFER, file);
        *size += got;
        for (size_t at = 0; at + BLOCK <= got; at += BLOCK) compress(&h, buffer + at);
        if (ferror(file)) code = nibl_cli_fail("%s: %s", path, strerror(errno));
        if (got < BUFFER) end(&h, buffer + got / BLOCK * BLOCK, got % BLOCK, *size, text);
        if (nibl_cli_interrupted()) code = nibl_cli_fail("interrupted while reading %s", path);
    }
    free(buffer);
    fclose(file);
    return code;
}

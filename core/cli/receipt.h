/* Receipts: a JSON object that tells how an answer came about, so that anybody can repeat it. web/receipt.js writes and
 * reads the same. A member's order and further members do not matter:
 *   receipt   1
 *   nibl      the version that made it
 *   model     { name, architecture, files: [{ name, size, sha256 }] }   sha256: null where the file was not at hand
 *   prompt    { text, bos, tokens }   bos: that token was put in front; special tokens in the text are recognised
 *   settings  { contextLength, kv, activations, quantize, maxTokens, temperature, topK, topP, minP, repeatPenalty,
 *             repeatWindow, stop, logitBias: [[token, bias]], grammar: { format, text } }   maxTokens: null = no limit;
 *             quantize and grammar: null = none; a bias of null is -Infinity
 *   seed      whole number
 *   tokens    all that were sampled, the end token included
 *   text, finish ("end", "stop", "length", "abort"), hash (of the logits that these tokens were sampled from) */
#ifndef NIBL_CLI_RECEIPT_H
#define NIBL_CLI_RECEIPT_H

#include "core/cli/generate.h"
#include "core/cli/json.h"
#include "core/cli/digest.h"

typedef struct nibl_cli_receipt_file {
    nibl_cli_text name; /* without a folder */
    uint64_t size;
    char sha256[NIBL_CLI_SHA256_TEXT]; /* "" = not known */
} nibl_cli_receipt_file;

typedef struct nibl_cli_receipt {
    nibl_cli_receipt_file *files;
    size_t file_count;
    nibl_cli_text prompt, text, grammar, quantize; /* quantize: "" = not */
    nibl_cli_tokens prompt_tokens, tokens;
    nibl_cli_text stop[NIBL_CLI_MAX_TEXTS];
    size_t stop_count;
    nibl_session_options session;
    nibl_sampler_options sampler; /* its biases are `biases` */
    nibl_logit_bias *biases;
    int64_t limit; /* tokens; -1 = none */
    int grammar_format; /* enum nibl_grammar_format; -1 = none */
    bool bos;
    nibl_cli_finish finish;
    uint64_t hash;
} nibl_cli_receipt;

/* Reads and checks a receipt, which may be anybody's: sizes, ranges and kinds of all that is used. Free it in any case.
 * Returns an exit code. */
int nibl_cli_receipt_read(const char *path, nibl_cli_receipt *out);
/* Writes one; all names of files are without their folders. Returns an exit code. */
int nibl_cli_receipt_write(const char *path, const nibl_cli_receipt *receipt, const nibl_model_info *model);
void nibl_cli_receipt_free(nibl_cli_receipt *receipt);

/* Adds a file, and its hash: `path` is where it stands. Returns an exit code. */
int nibl_cli_receipt_add_file(nibl_cli_receipt *receipt, const char *path);

#endif

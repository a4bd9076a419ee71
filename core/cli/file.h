/* Files: a model pushed into the library with pread (or read, where the source cannot seek), whole small files, and
 * output files that appear complete or not at all. Every function prints its own message on failure. */
#ifndef NIBL_CLI_FILE_H
#define NIBL_CLI_FILE_H

#include "core/cli/cli.h"

#include <stdio.h>

typedef struct nibl_cli_model {
    const char *path; /* the caller's */
    nibl_loader *loader; /* kept: inspect and plan read it */
    nibl_model *model; /* NULL after a header-only load */
    nibl_model_info info;
    uint64_t file_size; /* 0 = not known (a stream) */
    bool sequential; /* a stream, which can only be read from start to end */
    double seconds; /* from opening the file to the last packed row */
} nibl_cli_model;

/* Loads the model at `path` ("-": stdin; pipes and devices are read in order), or only its header; `quantize` as in
 * nibl_loader_set_quantize, or NULL. Returns an exit
 * code. Close it in both cases. */
int nibl_cli_model_open(const char *path, const char *quantize, bool header_only, nibl_cli_model *out);
/* The header of a model of which a file config.json, or a folder without weights, is all there is; else as above with
 * `header_only`. */
int nibl_cli_header_open(const char *path, nibl_cli_model *out);
void nibl_cli_model_close(nibl_cli_model *model);

/* Who takes the bytes instead of a model: `begin` when the header is there, `fed` after all that was fed; both return an
 * exit code. */
typedef struct nibl_cli_receiver {
    const char *doing; /* for the progress: "loading"; NULL = it shows its own */
    int (*begin)(void *context, nibl_cli_model *model);
    int (*fed)(void *context);
    void *context;
} nibl_cli_receiver;

/* As above, but the model stays with the receiver. */
int nibl_cli_model_read(const char *path, const nibl_cli_receiver *receiver, nibl_cli_model *out);

/* For `begin` of a receiver that computes: weights come and go, or stay where they come in order only. Returns an exit code. */
int nibl_cli_model_begin_parts(nibl_cli_model *model);

/* Appends a whole file ("-": stdin) of at most `limit` bytes. Returns an exit code. */
int nibl_cli_read_file(const char *path, size_t limit, nibl_cli_text *out);

bool nibl_cli_is_folder(const char *path);
bool nibl_cli_is_file(const char *path); /* a regular one */

/* The regular files of a folder, sorted; hidden ones are none. Free it in any case. */
typedef struct nibl_cli_names {
    char **items;
    size_t count, capacity;
} nibl_cli_names;

int nibl_cli_list_folder(const char *path, nibl_cli_names *out);
void nibl_cli_names_free(nibl_cli_names *names);
/* Appends "FOLDER/NAME". False, with a message, when memory is short. */
bool nibl_cli_join(const char *folder, const char *name, nibl_cli_text *out);

/* An output file: written under a temporary name in the same folder and renamed when it is complete. What exists and is
 * no regular file (a pipe, a device) is written directly. */
typedef struct nibl_cli_output {
    FILE *stream;
    const char *path; /* the caller's */
    nibl_cli_text temporary;
} nibl_cli_output;

int nibl_cli_output_open(const char *path, nibl_cli_output *out);
int nibl_cli_output_write(nibl_cli_output *output, const void *bytes, size_t length);
int nibl_cli_output_commit(nibl_cli_output *output); /* returns an exit code; discards on failure */
void nibl_cli_output_discard(nibl_cli_output *output); /* nothing left behind; legal after commit */

/* An output folder, which must not exist yet or be empty: filled under a temporary name beside it and renamed when it is
 * complete. */
typedef struct nibl_cli_folder {
    const char *path; /* the caller's */
    nibl_cli_text temporary; /* its name */
    nibl_cli_text names; /* of the files made so far, each with its NUL */
    FILE *stream; /* the file at hand */
} nibl_cli_folder;

int nibl_cli_folder_open(const char *path, nibl_cli_folder *out);
/* Appends to the file of that name, and makes it where it is not the one at hand. */
int nibl_cli_folder_write(nibl_cli_folder *folder, const char *name, const void *bytes, size_t length);
/* Copies a file of another folder, of at most `limit` bytes; does nothing where there is none. */
int nibl_cli_folder_copy(nibl_cli_folder *folder, const char *from, const char *name, size_t limit);
int nibl_cli_folder_commit(nibl_cli_folder *folder); /* returns an exit code; discards on failure */
void nibl_cli_folder_discard(nibl_cli_folder *folder);

#endif

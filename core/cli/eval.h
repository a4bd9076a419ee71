/* What `nibl eval` is asked for, and its parts: texts, a reference that is kept, tasks. */
#ifndef NIBL_CLI_EVAL_H
#define NIBL_CLI_EVAL_H

#include "core/cli/embedded.h"
#include "core/cli/json.h"
#include "core/cli/session.h"

typedef struct nibl_cli_eval_options {
    nibl_cli_settings settings;
    const char *tokens, *logits;
    nibl_cli_texts files; /* [NAME=]FILE */
    const char *domains, *tasks; /* folders */
    const char *reference, *keep; /* the latter: where this model's answers are kept */
    const char *base, *base_reference;
    int64_t chunks, items; /* 0 = all */
    bool bos, json;
} nibl_cli_eval_options;

enum { NIBL_CLI_EVAL_WINDOW = 512 };

/* ---- A reference in a file (eval_reference.c) ---- */

typedef enum nibl_cli_section {
    NIBL_CLI_SECTION_END,
    NIBL_CLI_SECTION_TEXT,
    NIBL_CLI_SECTION_TASK
} nibl_cli_section;

/* Read or written section by section, in the order of the file. */
typedef struct nibl_cli_reference {
    const char *path; /* NULL = there is none */
    FILE *stream; /* that is read */
    uint64_t left; /* bytes of it */
    nibl_cli_output output; /* that is written */
    nibl_cli_text model; /* the name of the reference's model */
    uint32_t vocabulary, window;
    uint8_t *record; /* of a position, nibl_reference_bytes */
    size_t record_bytes;
    /* the section at hand */
    nibl_cli_text name;
    uint32_t windows; /* of a text */
    uint64_t hash; /* of a task's items */
} nibl_cli_reference;

bool nibl_cli_is_reference(const char *path);

/* For a model of the same vocabulary. All return an exit code; close it in any case. */
int nibl_cli_reference_open(const char *path, const nibl_cli_model *model, nibl_cli_reference *out);
int nibl_cli_reference_create(const char *path, const nibl_cli_model *model, uint32_t window,
                              nibl_cli_reference *out);
void nibl_cli_reference_close(nibl_cli_reference *r);

/* Reads the head of the next section; `tokens` (window * windows) are those of a text. */
int nibl_cli_reference_next(nibl_cli_reference *r, nibl_cli_section *section, nibl_cli_tokens *tokens);
int nibl_cli_reference_read_row(nibl_cli_reference *r); /* into r->record */
/* The scores of a task's answers, `count` of them: it must be as many. */
int nibl_cli_reference_read_scores(nibl_cli_reference *r, float *scores, size_t count);
int nibl_cli_reference_skip_scores(nibl_cli_reference *r);

int nibl_cli_reference_write_text(nibl_cli_reference *r, const char *name, uint32_t windows,
                                  const int32_t *ids);
int nibl_cli_reference_write_row(nibl_cli_reference *r, const float *logits, int32_t next);
int nibl_cli_reference_write_task(nibl_cli_reference *r, const char *name, uint64_t hash, const float *scores,
                                  size_t count);
int nibl_cli_reference_commit(nibl_cli_reference *r); /* the file is complete */

/* ---- A base, whose loss stands beside that of a model fine-tuned from it (eval_base.c) ---- */

/* A text as the base's pair of models scored it. */
typedef struct nibl_cli_base_text {
    nibl_cli_text name;
    nibl_cli_tokens tokens;
    size_t window;
    nibl_evaluation *evaluation;
    nibl_evaluation_result result;
} nibl_cli_base_text;

typedef struct nibl_cli_base {
    const char *path; /* of the model */
    nibl_cli_base_text *texts;
    size_t count, capacity;
    size_t compared; /* texts */
} nibl_cli_base;

void nibl_cli_base_free(nibl_cli_base *base);

/* Takes the evaluation over, in any case. */
int nibl_cli_base_add(nibl_cli_base *base, const nibl_cli_base_text *text, const int32_t *ids,
                      nibl_evaluation *evaluation);

/* How the losses compare, on the same tokens; *out NULL, told, where the base has not those. */
int nibl_cli_base_compare(nibl_cli_base *base, const nibl_cli_base_text *text, const int32_t *ids,
                          const nibl_evaluation *evaluation, const nibl_cli_base_text **out,
                          nibl_evaluation_comparison *comparison);

/* ---- What the parts share ---- */

typedef struct nibl_cli_evaluator {
    const nibl_cli_eval_options *o;
    nibl_cli_model model, reference; /* the reference's model is NULL where there is none in memory */
    nibl_cli_reference saved, kept; /* the reference that is read, and the one that is written */
    size_t window;
    nibl_cli_base *gathers; /* it is the base's pair: results go there */
    nibl_cli_base *base; /* they stand beside its */
} nibl_cli_evaluator;

static inline bool nibl_cli_is_compared(const nibl_cli_evaluator *e) {
    return e->reference.model || e->saved.path;
}

/* Opens an object of the output, with what names the run. */
void nibl_cli_eval_json_open(nibl_cli_json *json, const nibl_cli_evaluator *e, const char *kind,
                             const char *name);
void nibl_cli_eval_json_estimate(nibl_cli_json *json, const char *key, nibl_estimate estimate);

/* Scores all texts; or the text whose section of the saved reference is at hand. */
int nibl_cli_eval_texts(nibl_cli_evaluator *e);
int nibl_cli_eval_saved_text(nibl_cli_evaluator *e, nibl_cli_tokens *tokens);

/* The same for tasks. */
int nibl_cli_eval_tasks(nibl_cli_evaluator *e);
int nibl_cli_eval_saved_task(nibl_cli_evaluator *e);

#endif

/* A session's tokens, keys and values in a file, so that a prompt is computed once (nibl_session_save). */
#ifndef NIBL_CLI_PROMPT_CACHE_H
#define NIBL_CLI_PROMPT_CACHE_H

#include "core/nibl.h"

/* Takes what the file holds into the session; where there is no file, nothing. Returns an exit code, as the other: a file
 * that is damaged or of another model is an error, not passed over. */
int nibl_cli_prompt_cache_load(const char *path, nibl_session *session);

/* Writes all that the session has computed of its tokens; the file appears complete or not at all. */
int nibl_cli_prompt_cache_save(const char *path, nibl_session *session);

#endif

#include "core/cli/session.h"
#include "core/cli/console.h"

enum { MOST_THREADS = 8 }; /* more would share the same memory, for which decode waits */

/* A prefill is looked at for interrupts after so many units of work; a few tokens are one call. */
enum { PREFILL_UNITS = 4, FEW_TOKENS = 8 };

uint32_t nibl_cli_kv_type(int choice) { return choice > NIBL_KV_F32 ? NIBL_KV_I8 : (uint32_t)choice; }

int nibl_cli_settings_check(const nibl_cli_settings *settings, const char *verb) {
    if (nibl_cli_kv_type(settings->key_type) == nibl_cli_kv_type(settings->value_type)) return NIBL_EXIT_OK;
    return nibl_cli_fail_usage(verb, "-ctk and -ctv must name the same type: keys and values are kept alike");
}

uint32_t nibl_cli_threads(const nibl_cli_settings *settings) {
    if (settings->threads) return (uint32_t)settings->threads;
    uint32_t cores = nibl_cli_cores();
    return cores < MOST_THREADS ? cores : MOST_THREADS;
}

nibl_session_options nibl_cli_session_options(const nibl_cli_settings *settings, uint32_t context) {
    return (nibl_session_options){.size = sizeof(nibl_session_options),
                                  .context_length = context ? context : (uint32_t)settings->context,
                                  .chunk = (uint32_t)settings->chunk,
                                  .threads = nibl_cli_threads(settings),
                                  .kv_type = nibl_cli_kv_type(settings->key_type),
                                  .activations = (uint32_t)settings->activations};
}

int nibl_cli_compute(nibl_session *const *sessions, size_t count) {
    size_t missing = 0;
    for (size_t i = 0; i < count; i++) {
        size_t tokens, computed;
        nibl_session_length(sessions[i], &tokens, &computed);
        missing += tokens - computed;
    }
    uint32_t units = missing > FEW_TOKENS ? PREFILL_UNITS : 0;
    for (;;) {
        nibl_status status = nibl_step(sessions, count, units);
        if (status < 0) return nibl_cli_fail_library("computing");
        if (status == NIBL_NEED_DATA) return nibl_cli_fail("computing: weights are missing");
        if (status == NIBL_OK) return NIBL_EXIT_OK;
        if (nibl_cli_interrupted()) return NIBL_EXIT_FAILED;
    }
}

/* What a folder would be whose config.json alone is there: the tensors that its architecture always has, in 16 bits, for
 * planning. Biases that may or may not be there are left out: they are less than a thousandth. */
#include "core/hf.h"

#include "core/hf_config.h"
#include "core/hf_family.h"

#include <string.h>

enum { BF16 = 30, MAX_TENSORS = 1 << 17, NAME = 80 };

static const char name_of_file[] = "config.json";

/* Rows of a tensor; where several slots share one, of all together. */
static uint64_t rows_of(const nibl_arch *arch, const nibl_hyper *hyper, nibl_slot slot) {
    const nibl_slot_name names = nibl_arch_slot(arch, slot);
    uint64_t rows = 0;
    for (nibl_slot other = 0; other < NIBL_SLOT_COUNT; other++)
        if (other == slot || (names.shared && strcmp(nibl_arch_slot(arch, other).gguf, names.gguf) == 0))
            rows += nibl_arch_dim(hyper, nibl_slot_forms[other].rows);
    return rows;
}

static void write_tensor(const nibl_arch *arch, const nibl_hyper *hyper, nibl_slot slot, const char *name,
                         nibl_gguf_builder *b) {
    const nibl_slot_form *form = &nibl_slot_forms[slot];
    const bool whole = arch->whole_qk_norm && slot == NIBL_SLOT_Q_NORM;
    const bool whole_k = arch->whole_qk_norm && slot == NIBL_SLOT_K_NORM;
    const uint64_t cols = nibl_arch_dim(hyper, whole ? NIBL_DIM_Q : whole_k ? NIBL_DIM_KV : form->cols);
    const uint64_t rows = rows_of(arch, hyper, slot);
    const uint64_t dims[2] = {form->vector ? cols * rows : cols, rows};
    nibl_gguf_build_tensor(b, name, BF16, form->vector ? 1 : 2, dims, 2 * rows * cols);
}

static nibl_status write_tensors(const nibl_arch *arch, const nibl_hyper *hyper, bool tied,
                                 nibl_gguf_builder *b) {
    for (nibl_slot slot = 0; slot < NIBL_SLOT_COUNT; slot++) {
        const nibl_slot_name names = nibl_arch_slot(arch, slot);
        const bool head = slot == NIBL_SLOT_HEAD && !tied;
        if ((nibl_arch_presence(arch, slot) != NIBL_ALWAYS && !head) || names.hf[0] == 0) continue;
        if (names.shared && names.after[0] != NIBL_SLOT_EMBEDDING) continue;
        const bool each = hyper->experts > 0 && nibl_slot_forms[slot].expert;
        for (uint32_t layer = 0; layer < (nibl_slot_in_layer(slot) ? hyper->layers : 1); layer++)
            for (uint32_t e = 0; e < (each ? hyper->experts : 1); e++) {
                char name[NAME];
                if (each)
                    nibl_arch_write_expert_name(slot, layer, e, name);
                else
                    nibl_arch_write_name(names.gguf, layer, e, name);
                if (b->tensors == MAX_TENSORS)
                    return nibl_fail(NIBL_E_FILE, "%s: more than %d tensors", name_of_file, MAX_TENSORS);
                write_tensor(arch, hyper, slot, name, b);
            }
    }
    return NIBL_OK;
}

static nibl_status read_hyper(const nibl_json *config, const nibl_arch **arch, nibl_hyper *hyper) {
    nibl_gguf_builder b = {0};
    nibl_gguf *gguf = NULL;
    uint64_t vocabulary = 0;
    const nibl_status status = nibl_hf_write_config(config, arch, &b);
    if (status < 0) b.status = status;
    NIBL_TRY(nibl_gguf_build_end(&b, &gguf));
    const nibl_status read = nibl_arch_hyper(*arch, gguf, hyper);
    nibl_gguf_free(gguf);
    NIBL_TRY(read);
    if (!nibl_json_u64(config, nibl_hf_setting(config, "vocab_size"), &vocabulary) || vocabulary == 0 ||
        vocabulary > INT32_MAX)
        return nibl_fail(NIBL_E_FILE, "%s: vocab_size is missing or not a possible number", name_of_file);
    hyper->vocabulary = (uint32_t)vocabulary;
    const bool elsewhere = hyper->experts > 0 && nibl_arch_slot(*arch, NIBL_SLOT_GATE).hf[0] == 0;
    if ((*arch)->transposed || hyper->conv_layers > 0 || elsewhere ||
        nibl_json_get(config, NIBL_JSON_ROOT, "quantization_config"))
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "%s alone does not tell the tensors of this %s model: name the folder with its weights",
            name_of_file, (*arch)->name);
    return NIBL_OK;
}

static nibl_status build(const nibl_json *config, nibl_gguf **out) {
    const nibl_arch *arch;
    nibl_hyper hyper;
    NIBL_TRY(read_hyper(config, &arch, &hyper));
    nibl_gguf_builder b = {0};
    nibl_status status = nibl_hf_write_config(config, &arch, &b);
    if (status == NIBL_OK) status = write_tensors(arch, &hyper, nibl_hf_is_tied(config, arch), &b);
    if (status < 0) b.status = status;
    return nibl_gguf_build_end(&b, out);
}

nibl_status nibl_hf_assume(const nibl_hf_text *config, nibl_gguf **out) {
    nibl_json json = {0};
    NIBL_TRY(nibl_json_parse(config->name, config->bytes, config->length, &json));
    const nibl_status status = build(&json, out);
    nibl_json_free(&json);
    return status;
}

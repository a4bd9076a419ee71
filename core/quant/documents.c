/* The files of a folder besides its weights. What a GGUF header says goes into config.json where it is all that Hugging
 * Face's model computes; anything else needs the source's own config.json. */
#include "core/encode_grid.h"
#include "core/hf_family.h"
#include "core/quant/folder.h"

#include <stdio.h>
#include <string.h>

/* ---- quantization_config (compressed-tensors) ---- */

static const nibl_integer_type *integers_of(const nibl_quant_tensor *t) {
    return t->to->id == NIBL_INTEGERS_ID ? (const nibl_integer_type *)(const void *)t->to : NULL;
}

/* Whether two types are one scheme: scales may be stored otherwise. */
static bool same_scheme(const nibl_integer_type *a, const nibl_integer_type *b) {
    return a->form.bits == b->form.bits && a->form.zero_point == b->form.zero_point &&
           a->form.granularity == b->form.granularity &&
           (a->form.granularity != NIBL_PER_GROUP || a->grid.group == b->grid.group);
}

static void write_modules(const nibl_folder_plan *p, size_t index, bool first, nibl_writer *w) {
    for (uint32_t i = 0; i < nibl_folder_pieces(p, index); i++, first = false) {
        char name[80];
        nibl_folder_name(p, index, i, name);
        nibl_print(w, "%s\"%.*s\"", first ? "" : ",", (int)(strlen(name) - 7), name); /* without ".weight" */
    }
}

static void write_group(const nibl_folder_plan *p, size_t index, uint32_t number, bool all, nibl_writer *w) {
    const nibl_integer_type *n = integers_of(&p->recipe->tensors[index]);
    const bool groups = n->form.granularity == NIBL_PER_GROUP;
    bool first = true;
    nibl_print(w, "%s\"group_%u\":{\"targets\":[", number > 0 ? "," : "", number);
    if (all) nibl_print(w, "\"Linear\"");
    for (size_t i = index; i < p->recipe->count && !all; i++) {
        const nibl_integer_type *other = integers_of(&p->recipe->tensors[i]);
        if (!other || !same_scheme(n, other)) continue;
        write_modules(p, i, first, w);
        first = false;
    }
    nibl_print(w,
               "],\"weights\":{\"num_bits\":%u,\"type\":\"int\",\"symmetric\":%s,\"strategy\":\"%s\",\"group_"
               "size\":",
               n->form.bits, n->form.zero_point ? "false" : "true", groups ? "group" : "channel");
    nibl_print(w, groups ? "%u" : "null", n->grid.group);
    nibl_print(w, ",\"dynamic\":false},\"input_activations\":null,\"output_activations\":null}");
}

static void write_quantization(const nibl_folder_plan *p, nibl_writer *w) {
    const nibl_recipe *r = p->recipe;
    uint32_t schemes = 0, number = 0;
    bool head = false, first = true;
    for (int pass = 0; pass < 2; pass++) { /* the first counts */
        if (pass == 1 && schemes == 0) return;
        if (pass == 1)
            nibl_print(w, ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
                          "\"pack-quantized\",\"quantization_status\":\"compressed\",\"config_groups\":{");
        for (size_t i = 0; i < r->count; i++) {
            const nibl_integer_type *n = integers_of(&r->tensors[i]);
            bool seen = !n;
            for (size_t j = 0; j < i && !seen; j++)
                seen = integers_of(&r->tensors[j]) && same_scheme(n, integers_of(&r->tensors[j]));
            if (seen) continue;
            if (pass == 0)
                schemes++;
            else
                write_group(p, i, number++, schemes == 1, w);
        }
    }
    nibl_print(w, "},\"ignore\":[");
    for (size_t i = 0; i < r->count; i++) {
        const nibl_slot slot = p->outputs->items[i].slot;
        head = head || slot == NIBL_SLOT_HEAD;
        if (nibl_slot_forms[slot].vector || slot == NIBL_SLOT_EMBEDDING || integers_of(&r->tensors[i]))
            continue;
        write_modules(p, i, first, w);
        first = false;
    }
    if (!head) nibl_print(w, "%s\"lm_head\"", first ? "" : ",");
    nibl_print(w, "]}");
}

/* ---- config.json ---- */

/* The source's, member by member, with another quantization_config. */
static nibl_status copy_config(const nibl_folder_plan *p, nibl_writer *w) {
    static const char *const dropped[] = {"quantization_config", "compression_config", "tie_word_embeddings"};
    const char *text = p->options->config;
    nibl_json json = {0};
    NIBL_TRY(nibl_json_parse("config.json", text, strlen(text), &json));
    nibl_print(w, "{\"transformers_version\":null,\"tie_word_embeddings\":%s",
               p->model->tied ? "true" : "false");
    for (uint32_t i = 0; nibl_json_each(&json, NIBL_JSON_ROOT, &i);) {
        const nibl_json_node *key = &json.nodes[i], *value = &json.nodes[i + 1];
        const uint32_t quotes = value->kind == NIBL_JSON_STRING;
        bool drop = nibl_json_equals(&json, i, "transformers_version");
        for (size_t j = 0; j < 3; j++) drop = drop || nibl_json_equals(&json, i, dropped[j]);
        if (drop) continue;
        nibl_print(w, ",\"");
        nibl_write(w, text + key->at, key->length);
        nibl_print(w, "\":");
        nibl_write(w, text + value->at - quotes, value->length + 2 * quotes);
    }
    nibl_json_free(&json);
    return NIBL_OK;
}

/* A decimal as JSON has it, whatever the host's locale. */
static void write_real(nibl_writer *w, const char *key, double x) {
    char number[40];
    snprintf(number, sizeof number, "%.7g", x);
    for (char *c = number; *c; c++)
        if (*c == ',') *c = '.';
    nibl_print(w, ",\"%s\":%s", key, number);
}

/* Traits that config.json would have to tell, and whose keys differ from model to model. */
static bool is_usual(const nibl_model *m) {
    const nibl_hyper *h = &m->hyper;
    const double scale = (double)h->attention_scale * (double)h->attention_scale * h->head_width;
    return h->window == 0 && h->experts == 0 && h->conv_layers == 0 && h->rope_width == h->head_width &&
           h->rope.scaling == NIBL_ROPE_PLAIN && !m->rope_factors && h->attention_cap <= 0 &&
           h->logit_cap <= 0 && h->embedding_scale == 1 && h->residual_scale == 1 && h->logit_scale == 1 &&
           scale > 0.999 && scale < 1.001;
}

static nibl_status write_config(const nibl_folder_plan *p, nibl_writer *w) {
    static const struct {
        const char *arch, *type, *model;
    } known[] = {{"llama", "llama", "LlamaForCausalLM"},
                 {"qwen2", "qwen2", "Qwen2ForCausalLM"},
                 {"qwen3", "qwen3", "Qwen3ForCausalLM"}};
    enum { KNOWN = sizeof known / sizeof *known };
    const nibl_model *m = p->model;
    const nibl_hyper *h = &m->hyper;
    size_t i = 0;
    while (i < KNOWN && strcmp(known[i].arch, m->arch->name) != 0) i++;
    if (i == KNOWN || !is_usual(m))
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "a config.json cannot be written for this model of architecture %s from a GGUF file alone: "
            "take its Hugging Face folder",
            m->arch->name);
    const bool bias = m->layers[0].bq != NULL;
    nibl_print(
        w, "{\"architectures\":[\"%s\"],\"model_type\":\"%s\",\"hidden_size\":%u,\"intermediate_size\":%u,",
        known[i].model, known[i].type, h->width, h->ffn_width);
    nibl_print(
        w, "\"num_hidden_layers\":%u,\"num_attention_heads\":%u,\"num_key_value_heads\":%u,\"head_dim\":%u,",
        h->layers, h->heads, h->kv_heads, h->head_width);
    nibl_print(
        w, "\"max_position_embeddings\":%u,\"vocab_size\":%u,\"hidden_act\":\"silu\",\"attention_bias\":%s,",
        h->context_length, h->vocabulary, bias ? "true" : "false");
    nibl_print(w, "\"tie_word_embeddings\":%s,\"torch_dtype\":\"float16\"", m->tied ? "true" : "false");
    write_real(w, "rms_norm_eps", (double)h->norm_epsilon);
    write_real(w, "rope_theta", h->rope.base);
    const int32_t bos = nibl_tokenizer_bos(m->tokenizer), eos = nibl_tokenizer_eos(m->tokenizer);
    if (bos >= 0) nibl_print(w, ",\"bos_token_id\":%d", (int)bos);
    if (eos >= 0) nibl_print(w, ",\"eos_token_id\":%d", (int)eos);
    return NIBL_OK;
}

nibl_status nibl_folder_config(const nibl_folder_plan *p, nibl_writer *w) {
    nibl_slice format;
    if (!p->options->config && nibl_gguf_string(p->model->gguf, "nibl.format", &format))
        return nibl_fail(NIBL_E_ARGUMENT,
                         "the source is a folder: its config.json is needed (options.config)");
    NIBL_TRY(p->options->config ? copy_config(p, w) : write_config(p, w));
    write_quantization(p, w);
    nibl_print(w, "}\n");
    return NIBL_OK;
}

/* ---- The tokenizer ---- */

static void write_array_string(nibl_writer *w, const nibl_gguf_array *array, uint64_t i) {
    const nibl_slice text = nibl_gguf_array_string(array, i);
    nibl_write_json(w, text.bytes, text.length);
}

nibl_status nibl_folder_tokenizer(const nibl_folder_plan *p, nibl_writer *w) {
    nibl_vocabulary v;
    nibl_slice pre = {0};
    NIBL_TRY(nibl_vocabulary_read(p->model->gguf, &v));
    nibl_gguf_string(p->model->gguf, "tokenizer.ggml.pre", &pre);
    if (v.model != NIBL_TOKENIZER_BYTES)
        return nibl_fail(
            NIBL_E_UNSUPPORTED,
            "a tokenizer.json cannot be written from SentencePiece's scores in a GGUF file: take the "
            "model's Hugging Face folder");
    nibl_print(w, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[");
    bool first = true;
    for (uint32_t i = 0; i < v.tokens; i++) {
        const uint32_t type = v.types.data ? nibl_load_u32(v.types.data + 4 * (size_t)i) : NIBL_TYPE_NORMAL;
        if (type != NIBL_TYPE_CONTROL && type != NIBL_TYPE_USER) continue;
        nibl_print(w, "%s{\"id\":%u,\"content\":", first ? "" : ",", i);
        write_array_string(w, &v.texts, i);
        nibl_print(
            w,
            ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":%s}",
            type == NIBL_TYPE_CONTROL ? "true" : "false");
        first = false;
    }
    nibl_print(w, "],\"normalizer\":%s,\"pre_tokenizer\":", v.nfc ? "{\"type\":\"NFC\"}" : "null");
    NIBL_TRY(nibl_hf_write_family(pre, w));
    nibl_print(w, ",\"post_processor\":");
    if (v.add_bos && v.bos >= 0) {
        nibl_print(w, "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":");
        write_array_string(w, &v.texts, (uint64_t)v.bos);
        nibl_print(w, ",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":"
                      "{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
                      "\"special_tokens\":{");
        write_array_string(w, &v.texts, (uint64_t)v.bos);
        nibl_print(w, ":{\"id\":");
        write_array_string(w, &v.texts, (uint64_t)v.bos);
        nibl_print(w, ",\"ids\":[%d],\"tokens\":[", (int)v.bos);
        write_array_string(w, &v.texts, (uint64_t)v.bos);
        nibl_print(w, "]}}}");
    } else {
        nibl_print(w, "null");
    }
    nibl_print(w, ",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                  "\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                  "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                  "\"byte_fallback\":false,\"ignore_merges\":");
    nibl_print(w, "%s,\"vocab\":{", v.whole_words ? "true" : "false");
    for (uint32_t i = 0; i < v.tokens; i++) {
        if (i > 0) nibl_print(w, ",");
        write_array_string(w, &v.texts, i);
        nibl_print(w, ":%u", i);
    }
    nibl_print(w, "},\"merges\":[");
    for (uint32_t i = 0; i < v.merge_count; i++) {
        if (i > 0) nibl_print(w, ",");
        write_array_string(w, &v.merges, i);
    }
    nibl_print(w, "]}}\n");
    return NIBL_OK;
}

nibl_status nibl_folder_tokenizer_config(const nibl_folder_plan *p, nibl_writer *w) {
    nibl_vocabulary v;
    nibl_slice template;
    NIBL_TRY(nibl_vocabulary_read(p->model->gguf, &v));
    nibl_print(w,
               "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"clean_up_tokenization_spaces\":false,"
               "\"model_max_length\":%u,\"add_bos_token\":%s",
               p->model->hyper.context_length, v.add_bos ? "true" : "false");
    const struct {
        const char *key;
        int32_t id;
    } named[] = {{"bos_token", v.bos}, {"eos_token", v.ends[0]}, {"unk_token", v.unknown}};
    for (size_t i = 0; i < 3; i++) {
        if (named[i].id < 0) continue;
        nibl_print(w, ",\"%s\":", named[i].key);
        write_array_string(w, &v.texts, (uint64_t)named[i].id);
    }
    if (nibl_gguf_string(p->model->gguf, "tokenizer.chat_template", &template)) {
        nibl_print(w, ",\"chat_template\":");
        nibl_write_json(w, template.bytes, template.length);
    }
    nibl_print(w, "}\n");
    return NIBL_OK;
}

nibl_status nibl_folder_generation(const nibl_folder_plan *p, nibl_writer *w) {
    nibl_vocabulary v;
    NIBL_TRY(nibl_vocabulary_read(p->model->gguf, &v));
    nibl_print(w, "{");
    if (v.bos >= 0) nibl_print(w, "\"bos_token_id\":%d,", (int)v.bos);
    nibl_print(w, "\"eos_token_id\":[");
    for (int i = 0, count = 0; i < NIBL_END_TOKENS; i++)
        if (v.ends[i] >= 0) nibl_print(w, "%s%d", count++ > 0 ? "," : "", (int)v.ends[i]);
    nibl_print(w, "]}\n");
    return NIBL_OK;
}

/*
 * nibl: 4-bit language models from one C core. This header is the whole public API and its manual.
 *
 * The library never waits, never touches files or the network, never prints, never exits. A model is pushed in
 * as bytes (nibl_loader_want / nibl_loader_feed), text comes out token by token (nibl_step).
 *
 * Conventions
 * - Every fallible function returns a status: NIBL_OK (0), a positive "not yet" (NIBL_MORE, NIBL_NEED_DATA), or a
 *   stable negative code. After a negative code nibl_last_message() tells what is wrong, where, and what to do.
 * - `*_free(NULL)` is legal. An out-parameter is written only on success.
 * - Options structs start with their own size: initialise with `{.size = sizeof(struct ...)}`; zero means default.
 * - Offsets and sizes of files are uint64_t, also on 32-bit targets.
 * - Threads: different objects may be used from different threads at the same time; one object (and a model with
 *   its sessions) only from one thread at a time. Worker threads are started and joined by the library.
 */
#ifndef NIBL_H
#define NIBL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NIBL_VERSION "0.1.0"

/* ---- Status --------------------------------------------------------------------------------------------------- */

/* name, value, name in JavaScript (NiblError.code), meaning */
#define NIBL_STATUS_TABLE(X)                                                                                 \
    X(NIBL_OK, 0, "OK", "done")                                                                              \
    X(NIBL_MORE, 1, "MORE", "call again: there is more to do")                                               \
    X(NIBL_NEED_DATA, 2, "NEED_DATA", "feed the loader, then call again")                                    \
    X(NIBL_E_ARGUMENT, -1, "BAD_ARGUMENT", "an argument is out of range")                                    \
    X(NIBL_E_MEMORY, -2, "OUT_OF_MEMORY", "memory could not be had")                                         \
    X(NIBL_E_FILE, -3, "BAD_FILE", "the bytes are not a valid model file")                                   \
    X(NIBL_E_UNSUPPORTED, -4, "UNSUPPORTED_MODEL", "a valid file with something this build does not know")   \
    X(NIBL_E_TRUNCATED, -5, "TRUNCATED", "the file ends before its data does")                               \
    X(NIBL_E_CONTEXT, -6, "CONTEXT_FULL", "the context has no room for these tokens")                        \
    X(NIBL_E_NUMERIC, -7, "NOT_FINITE", "the model computed values that are not finite")                     \
    X(NIBL_E_CANCELLED, -8, "CANCELLED", "the caller asked to stop")                                         \
    X(NIBL_E_BUFFER, -9, "BUFFER_TOO_SMALL", "the caller's buffer is too small")                             \
    X(NIBL_E_GRAMMAR, -10, "BAD_GRAMMAR", "a grammar or JSON Schema that is wrong, or not supported")        \
    X(NIBL_E_STATE, -11, "BAD_STATE", "a saved state that is damaged, or of another model or other settings")

typedef enum nibl_status {
#define X(name, value, js, meaning) name = value,
    NIBL_STATUS_TABLE(X)
#undef X
} nibl_status;

/* Stable name as JavaScript shows it ("BAD_FILE"); never NULL. Static storage. */
const char *nibl_status_name(nibl_status status);

/* Message of the last failed call on this thread; never NULL, valid until the next failing call on it. */
const char *nibl_last_message(void);

/* ---- The machine ---------------------------------------------------------------------------------------------- */

/* Names of the kernel variants chosen on this machine, e.g. "avx2"; static storage. The environment variable
 * NIBL_ISA (native builds: scalar, avx2, ...) caps the choice; it is read once, at first use. */
const char *nibl_isa(void);

/* Bytes the library holds now and the most it ever held (allocated through it, all objects). */
void nibl_memory(uint64_t *current, uint64_t *peak);

/* ---- Loading -------------------------------------------------------------------------------------------------- */

typedef struct nibl_loader nibl_loader;
typedef struct nibl_model nibl_model;

/* A model may be several files: the parts of a split GGUF file, or a Hugging Face folder. An address is the index of a
 * file and an offset in it; file 0 is the one a load starts with, so that for a model of one file addresses are plain
 * offsets. */
#define NIBL_ADDRESS_BITS 40
#define NIBL_ADDRESS(file, offset) ((uint64_t)(file) << NIBL_ADDRESS_BITS | (uint64_t)(offset))
#define NIBL_ADDRESS_FILE(address) ((uint32_t)((address) >> NIBL_ADDRESS_BITS))
#define NIBL_ADDRESS_OFFSET(address) ((address) & ((UINT64_C(1) << NIBL_ADDRESS_BITS) - 1))
#define NIBL_MAX_FILE ((UINT64_C(1) << NIBL_ADDRESS_BITS) - (UINT64_C(1) << 20)) /* bytes */

/* Starts a push load. `file_size`: length of the file, or 0 when the source does not tell. Caller frees. */
nibl_status nibl_loader_new(uint64_t file_size, nibl_loader **out);
void nibl_loader_free(nibl_loader *loader);

/* Tells the name of file 0, without its folder, before the first byte is fed; copied. A file of a split model needs it to
 * find the others ("m-00001-of-00003.gguf"); "config.json" says that the model is a Hugging Face folder. */
nibl_status nibl_loader_set_name(nibl_loader *loader, const char *name);

/* The model is a Hugging Face folder ("config.json") of which nothing but that file is to be read, for planning: tensors are
 * those that the architecture always has, in 16 bits. Before the first byte. nibl_loader_inspect, nibl_loader_plan (whose
 * tokenizer is then an estimate) and nibl_quantizer_new answer, nibl_loader_begin refuses. */
nibl_status nibl_loader_set_config_only(nibl_loader *loader);

/* Quantizes on arrival: every matrix of 16- or 32-bit floats is packed as `type` ("q4_0", in any case), row by row as it
 * comes, and nothing else is kept of it. The same bits as of a file that was quantized first. Before nibl_loader_plan.
 * NIBL_E_ARGUMENT names what is possible. */
nibl_status nibl_loader_set_quantize(nibl_loader *loader, const char *type);

/* The name of a file of the model, in the same folder as file 0; NULL where no such file is known (yet). Owned by the
 * loader, valid until the next call on it. */
const char *nibl_loader_file_name(const nibl_loader *loader, uint32_t file);

/* The range wanted next, at most 8 MiB, of one file: `*address` says which (NIBL_ADDRESS_FILE). Before the header is complete this is the file's beginning, in
 * growing pieces (a guess: it may ask past an unknown end of the file). After nibl_loader_begin ranges come in the order
 * the forward pass needs tensors; neighbours in the file that are needed soon come together. *length is 0 when everything
 * has arrived, and from the complete header to nibl_loader_begin. A shorter answer, in any chunks, is always fine: feed
 * it and ask again. The answer does not change until bytes are fed. */
nibl_status nibl_loader_want(const nibl_loader *loader, uint64_t *address, uint64_t *length);

/* Takes `length` bytes that stand at `address`. Any chunking is legal, down to one byte. Bytes nobody needs
 * (already there, padding) are ignored, so a plain sequential stream may be fed from start to end as well as the wanted
 * ranges. Within one tensor bytes must come in ascending order, as do the bytes of the header.
 * NIBL_NEED_DATA: taken, more is wanted. NIBL_OK: everything has arrived.
 * From the call that completes the header to nibl_loader_begin no tensor's bytes are taken. A sequential stream goes on
 * like this: feed a chunk; once nibl_loader_header_ready, plan and begin, then feed the same chunk once more from its
 * start (what was taken of it is ignored), then the next.
 * Bytes are read during the call only. NIBL_E_TRUNCATED when the file turns out shorter than its header says,
 * NIBL_E_ARGUMENT for a gap within the header or a tensor and for bytes behind a known end. Errors are final: every later
 * call on the loader but nibl_loader_free and nibl_loader_progress answers with the same error. */
nibl_status nibl_loader_feed(nibl_loader *loader, uint64_t address, const void *bytes, size_t length);

/* Tells that the source has no bytes in this file from `address` on: its size, as soon as it is known, or that a stream
 * without a known length is over or was cut; offset 0 where the file does not exist. NIBL_E_TRUNCATED, naming the first, where the header or a missing tensor reaches beyond. NIBL_OK: everything has
 * arrived. NIBL_NEED_DATA: what is missing lies before the end. */
nibl_status nibl_loader_end(nibl_loader *loader, uint64_t address);

/* True once the header (metadata and tensor list) is there and valid; false again after an error. */
bool nibl_loader_header_ready(const nibl_loader *loader);

/* Bytes of tensor data needed in all, and how many of them have arrived. Zero before nibl_loader_begin. */
void nibl_loader_progress(const nibl_loader *loader, uint64_t *arrived, uint64_t *total);

/* What the file is: one JSON document (architecture, parameters, types, tensors with shapes and offsets, metadata with
 * long arrays elided). Needs the header only; works for files whose architecture is unknown. nibl_loader_plan tells the
 * memory.
 * Writes at most `capacity` bytes, NUL included; *needed is the full length without NUL (may be called with
 * capacity 0). NIBL_E_BUFFER when cut. */
nibl_status nibl_loader_inspect(const nibl_loader *loader, char *json, size_t capacity, size_t *needed);

/* Memory in bytes that a model needs on this build, before any of it is allocated; `total` may be more than this build
 * can address. */
typedef struct nibl_plan {
    size_t size;
    uint32_t context_length; /* in: tokens; 0 = min(the model's, 4096). out: as used */
    uint32_t threads; /* in: 0 = 1 */
    uint32_t kv_type; /* in: enum nibl_kv_type */
    uint32_t sessions; /* in: sequences at the same time; 0 = 1 */
    uint64_t file_tensor_bytes; /* tensor data in the file */
    uint64_t weights; /* packed weights */
    uint64_t kv; /* KV caches when every context is full */
    uint64_t scratch; /* activations, logits, thread buffers */
    uint64_t vocabulary; /* tokenizer tables and metadata that stay */
    uint64_t total; /* sum of the four above and allocator overhead */
} nibl_plan;

/* Needs the header. */
nibl_status nibl_loader_plan(const nibl_loader *loader, nibl_plan *plan);

/* Builds the model from the header: checks architecture, shapes and tokenizer, allocates all weights at once, and from
 * then on nibl_loader_feed packs tensor rows into it as they come. Call once, when the header is ready. The model may
 * be used at once: tokenizing works, and nibl_step answers NIBL_NEED_DATA where weights have not arrived.
 * The caller owns the model; it must be freed after its sessions and must outlive the loader's last use. After the model
 * is freed only nibl_loader_free is legal; the loader may be freed first at any time, and a model that is not complete
 * then stays so. A failure is not final: the header can still be inspected. NIBL_E_UNSUPPORTED for what this build does
 * not know, NIBL_E_FILE for what contradicts itself, NIBL_E_MEMORY. */
nibl_status nibl_loader_begin(nibl_loader *loader, nibl_model **out);

/* The same of a model that is only quantized (nibl_model_quantizer_new): weights come and go layer by layer. The loader wants
 * those that nibl_quantizer_step waits for, no others (bytes before their turn are ignored), and what that has done with is
 * freed; where the head is rounded by what it sees, all weights are wanted twice. For sources that can be read from anywhere; nothing else of the model than its tokenizer and metadata is to be used. */
nibl_status nibl_loader_begin_parts(nibl_loader *loader, nibl_model **out);

void nibl_model_free(nibl_model *model);

/* ---- Model ---------------------------------------------------------------------------------------------------- */

typedef struct nibl_model_info {
    size_t size;
    const char *architecture; /* "llama"; owned by the model */
    const char *name; /* general.name or "" */
    uint64_t parameters;
    uint64_t packed_bytes; /* packed weights in memory */
    uint32_t context_length; /* the model's own maximum */
    uint32_t layers, width, heads, kv_heads, head_width, ffn_width, vocabulary;
    int32_t bos, eos; /* token ids, -1 = none */
    bool add_bos; /* the model wants BOS in front of a text */
    bool complete; /* all weights have arrived */
} nibl_model_info;

nibl_status nibl_model_get_info(const nibl_model *model, nibl_model_info *info);

/* A metadata string of the file by key ("tokenizer.chat_template"), not NUL-terminated; NULL when absent.
 * Owned by the model. Only strings; `*length` in bytes. */
const char *nibl_model_metadata(const nibl_model *model, const char *key, size_t *length);

/* ---- Text <-> tokens ------------------------------------------------------------------------------------------ */

enum nibl_tokenize_flags {
    NIBL_TOKENIZE_SPECIAL =
        1, /* recognise control tokens written in the text, e.g. <|im_start|>; user-defined ones
                                * always are */
    NIBL_TOKENIZE_BOS = 2, /* put BOS in front where the model has one */
    NIBL_TOKENIZE_CONTINUE =
        4 /* the text goes on behind another: the space that some models want in front is not put */
};

/* Tokenizes UTF-8 (invalid bytes are replaced by U+FFFD as Hugging Face does), into at most 3 * length + 2 ids: invalid bytes
 * become three, and so may bytes of a text that is normalized. Writes at most `capacity` ids; *count is
 * the number the text has in all; NIBL_E_BUFFER if that is more. Embedded NUL bytes are legal. */
nibl_status nibl_tokenize(const nibl_model *model, const char *text, size_t length, uint32_t flags,
                          int32_t *tokens, size_t capacity, size_t *count);

/* The bytes of tokens, which may begin or end inside a UTF-8 sequence. Special tokens are written only with
 * `special`. *length is the full length; NIBL_E_BUFFER if it is more than capacity. */
nibl_status nibl_detokenize(const nibl_model *model, const int32_t *tokens, size_t count, bool special,
                            char *text, size_t capacity, size_t *length);

/* Streaming: turns tokens into pieces that are always whole UTF-8 sequences. */
typedef struct nibl_decoder nibl_decoder;
nibl_status nibl_decoder_new(const nibl_model *model, bool special, nibl_decoder **out);
void nibl_decoder_free(nibl_decoder *decoder);
/* Adds one token (or, with token = -1, ends the stream: an unfinished sequence comes out as U+FFFD).
 * *piece is owned by the decoder, valid until the next call, not NUL-terminated. */
nibl_status nibl_decoder_push(nibl_decoder *decoder, int32_t token, const char **piece, size_t *length);

/* End-of-generation tokens: eos, eot and the like that the file names. */
bool nibl_is_end_token(const nibl_model *model, int32_t token);

typedef struct nibl_message {
    const char *role; /* "system", "user", "assistant"; NUL-terminated */
    const char *content; /* UTF-8, NUL-terminated */
} nibl_message;

/* A moment as the host's clock and zone tell it; month 1 to 12, day 1 to 31. The library never asks a clock itself. */
typedef struct nibl_moment {
    int32_t year, month, day, hour, minute;
} nibl_moment;

/* Writes the conversation as the model's chat template does, ready to be tokenized with NIBL_TOKENIZE_SPECIAL; with
 * `generation_prompt` the opening of the assistant's answer follows. What the template already wrote, BOS included, must not
 * be added again: tokenize without NIBL_TOKENIZE_BOS. The file's Jinja text is run, as far as conversations of plain text
 * lead through it: no tools. `now` is what strftime_now tells (%Y %m %d %b %B %H %M %%, as @huggingface/jinja has it); NULL:
 * it is not defined, and some templates fall back to a date of their own. NIBL_E_UNSUPPORTED names what it reaches and the
 * library does not know (JavaScript runs the Jinja itself); NIBL_E_ARGUMENT where the template refuses the messages, as
 * some do with a system message or two users in turn. Lengths as in nibl_detokenize. */
nibl_status nibl_chat_prompt(const nibl_model *model, const nibl_message *messages, size_t count,
                             bool generation_prompt, const nibl_moment *now, char *text, size_t capacity,
                             size_t *length);

/* ---- Sessions: one token sequence and its KV cache ------------------------------------------------------------ */

typedef struct nibl_session nibl_session;

/* Keys and values, of a head of 64 dimensions: */
enum nibl_kv_type {
    NIBL_KV_I8 = 0 /* 140 bytes a position: keys of 7 bits, values of 8; attention in integers, fastest */,
    NIBL_KV_F16 = 1 /* 256 bytes */,
    NIBL_KV_F32 = 2 /* 512 bytes: exact */
};
enum nibl_activations {
    NIBL_ACT_I8 = 0 /* int8, one scale per 32: fast */,
    NIBL_ACT_F32 = 1 /* exact: slow */
};
enum nibl_logits { NIBL_LOGITS_LAST = 0, NIBL_LOGITS_ALL = 1 };

typedef struct nibl_session_options {
    size_t size;
    uint32_t context_length; /* tokens; 0 = min(the model's, 4096) */
    uint32_t chunk; /* prefill tokens per chunk, 1..NIBL_MAX_CHUNK; 0 = 64. Results do not depend on it. */
    uint32_t
        threads; /* 0 = 1. Results do not depend on it. Threads belong to the model: the most asked for. */
    uint32_t kv_type; /* enum nibl_kv_type */
    uint32_t activations; /* enum nibl_activations */
    uint32_t logits; /* enum nibl_logits: which positions get logits */
} nibl_session_options;

#define NIBL_MAX_CHUNK 512
#define NIBL_MAX_THREADS 64

nibl_status nibl_session_new(nibl_model *model, const nibl_session_options *options, nibl_session **out);
void nibl_session_free(nibl_session *session);

/* Makes `tokens` the session's whole sequence: the longest common prefix with what is already computed is kept, the
 * rest is computed by nibl_step (always at least the last token). *reused (may be NULL): tokens kept.
 * NIBL_E_CONTEXT if count exceeds the context length; the session is then unchanged. */
nibl_status nibl_session_set_tokens(nibl_session *session, const int32_t *tokens, size_t count,
                                    size_t *reused);

/* Appends tokens to the sequence, to be computed by nibl_step. Errors as above. */
nibl_status nibl_session_append(nibl_session *session, const int32_t *tokens, size_t count);

/* Makes the first `tokens` tokens of another session of the same model and options `session`'s whole sequence, computed as
 * far as they are there: a copy of keys and values, after which the two have nothing in common. Sessions whose contexts
 * have different lengths may do it too, where the model's RoPE does not depend on that. NIBL_E_ARGUMENT otherwise. */
nibl_status nibl_session_copy(nibl_session *session, const nibl_session *from, size_t tokens);

/* The tokens computed so far and their keys and values, as bytes for nibl_session_restore: pieces 0, 1, ... in their order, until
 * *length is 0. Owned by the session, valid until it changes. The same sequence gives the same bytes for every context length, build and host
 * but where keys and values of tokens that were dropped stand behind it. They tell the whole text. NIBL_E_ARGUMENT while weights are still arriving. */
nibl_status nibl_session_save(nibl_session *session, size_t piece, const void **bytes, size_t *length);

/* Takes a saved state, in order and in any chunks, from its beginning where `begin`, in place of what the session has.
 * NIBL_NEED_DATA: there is more to come, and the session is empty until then. NIBL_OK: its tokens are computed, bit for bit as in the session that was saved;
 * logits come with the next ones (nibl_session_set_tokens takes the prefix over). NIBL_E_STATE for bytes that are damaged, of another model
 * (weights and hyperparameters are compared by hash) or of other options than context_length, chunk, threads and logits; the bytes may come from
 * anybody. NIBL_E_CONTEXT where the context is too short for them. The session is empty then. */
nibl_status nibl_session_restore(nibl_session *session, const void *bytes, size_t length, bool begin);

/* Tokens in the sequence, and how many of them are computed. */
void nibl_session_length(const nibl_session *session, size_t *tokens, size_t *computed);

/* Advances all sessions (of one model) together, as one batch, by at most `max_units` of work; a unit is one layer of
 * one chunk of tokens, 0 = no limit within the call. NIBL_OK: every appended token is computed. NIBL_MORE: call again.
 * NIBL_NEED_DATA: weights are missing, feed the loader first. With NIBL_LOGITS_ALL it returns NIBL_MORE after every
 * chunk, so that its logits can be read; and as soon as the last token of some session is computed while others have more
 * to do: that session may be sampled and given its next token before the call that follows, or left out of it. Sessions
 * get their places in a chunk in the order of the list: the shortest first lets no long prompt hold up the others. A session must stay in the set of sessions until its step is NIBL_OK, or have
 * its tokens set anew. Results are the same bits for any chunking, batch, number of units and threads. */
nibl_status nibl_step(nibl_session *const *sessions, size_t count, uint32_t max_units);

/* Logits [count, vocabulary] of `count` consecutive positions from `first` on, computed by the last nibl_step: the last
 * position, or all of the last chunk with NIBL_LOGITS_ALL. Owned by the session, valid until its next step; a sampler
 * does not change them. NIBL_E_ARGUMENT when there are none. */
nibl_status nibl_session_logits(const nibl_session *session, const float **logits, size_t *first,
                                size_t *count);

/* Hash (64-bit) over the bits of every row of logits this session has computed since its tokens were last set, guesses
 * that did not come true not counted: the same on every CPU, build and number of threads. */
uint64_t nibl_session_hash(const nibl_session *session);

/* Whether nibl_step may guess (default: true). Where the text repeats itself, a step that has one token of a session to
 * compute adds up to seven that are likely to follow to the same batch; while the caller then appends just these tokens,
 * one by one, their logits are there at once, and the first other token discards the rest. Tokens, logits, hash and what
 * a session reuses are the same with and without; only the time differs. Not with NIBL_LOGITS_ALL or while weights are
 * still arriving. (Prompt lookup decoding, Saxena 2023.) */
void nibl_session_speculate(nibl_session *session, bool on);

/* Whether the sequences that nibl_session_set_tokens makes from now on are computed for nibl_session_embedding (default: false): whole, without
 * the logits, and without guessing. Steps, batches and results are as otherwise. */
void nibl_session_embed(nibl_session *session, bool on);

enum nibl_pooling { NIBL_POOL_MEAN = 0, NIBL_POOL_LAST = 1 };

/* The embedding [width of nibl_model_info] of the sequence, whose step is NIBL_OK: the hidden states behind the last norm (what
 * the head would be multiplied with), their mean or that of the last token, scaled to length 1 with `normalise`. NIBL_E_ARGUMENT
 * where nothing was computed for it, NIBL_E_NUMERIC where a value is not finite. */
nibl_status nibl_session_embedding(const nibl_session *session, uint32_t pooling, bool normalise, float *out);

/* Tokens guessed since the session's tokens were last set, and how many of them came true. Any pointer may be NULL. */
void nibl_session_guesses(const nibl_session *session, uint64_t *proposed, uint64_t *accepted);

/* ---- Grammars: what an answer may be ------------------------------------------------------------------------------ */

typedef struct nibl_grammar nibl_grammar;

enum nibl_grammar_format {
    NIBL_GRAMMAR_GBNF = 0, /* as llama.cpp has it; the rule `root` is the whole answer */
    NIBL_GRAMMAR_JSON_SCHEMA = 1 /* below */
};

/* A grammar for one sampler at a time (nibl_sampler_constrain): it picks only tokens with which the answer can still
 * become a text of the grammar, and, where tokens run short, only those with which it will. Its tables are made as they
 * are needed, and serve the next answer too.
 *
 * JSON Schema: answers are compact JSON, with at most a space behind ':' and ','. Known are type, enum, const, properties,
 * required, additionalProperties, patternProperties (one pattern, and nothing else said of properties), propertyNames,
 * minProperties, maxProperties, items, prefixItems, additionalItems, contains, minContains, minItems, maxItems, minLength,
 * maxLength, pattern (regular; no categories, no lookaround), format (date, time, date-time, uuid, ipv4, email), minimum,
 * maximum, exclusiveMinimum, exclusiveMaximum, multipleOf (1), anyOf, oneOf (where it is plain that no value fits two),
 * allOf, $ref into the document, unevaluatedProperties and unevaluatedItems (where nothing but their own schema stands
 * beside them), true, and what only describes. What stands beside each other must hold together. Everything else is
 * refused, as is what cannot be combined.
 * Of what is allowed an answer need not be able to be everything: properties come in the schema's order, further ones only
 * where additionalProperties is there, numbers have at most 15 digits and 6 behind the point.
 *
 * NIBL_E_GRAMMAR names what is wrong or unknown, and where. The text is read during the call only. The caller frees, before
 * the model and after the sampler. */
nibl_status nibl_grammar_new(nibl_model *model, uint32_t format, const char *text, size_t length,
                             nibl_grammar **out);
void nibl_grammar_free(nibl_grammar *grammar);

/* ---- Sampling ------------------------------------------------------------------------------------------------- */

typedef struct nibl_sampler nibl_sampler;

typedef struct nibl_logit_bias {
    int32_t token;
    float bias; /* added to the logit; -INFINITY forbids the token */
} nibl_logit_bias;

typedef struct nibl_sampler_options {
    size_t size;
    float temperature; /* 0 = greedy */
    uint32_t top_k; /* 0 = all */
    float top_p; /* 0 or 1 = off */
    float min_p; /* 0 = off */
    float repeat_penalty; /* 0 or 1 = off; Keskar et al. 2019, over the last repeat_window tokens */
    uint32_t repeat_window; /* 0 = 64 */
    uint64_t seed;
    const nibl_logit_bias *logit_bias; /* copied */
    size_t logit_bias_count;
} nibl_sampler_options;

/* Options are copied; NULL: greedy. */
nibl_status nibl_sampler_new(const nibl_model *model, const nibl_sampler_options *options,
                             nibl_sampler **out);
void nibl_sampler_free(nibl_sampler *sampler);

/* Picks the next token from the session's last row of logits; penalties look at the session's tokens. *logprob (may be
 * NULL): natural log of the token's probability under the unmodified logits. The same seed gives the same tokens on
 * every host. */
nibl_status nibl_sample(nibl_sampler *sampler, const nibl_session *session, int32_t *token, float *logprob);

/* An answer begins that is to be a text of the grammar, whole within `tokens` tokens (0 = no limit), the end token not
 * counted; NULL: one of any kind, as at first. The grammar must outlive its use. NIBL_E_GRAMMAR where the tokens are too few
 * for any text; the sampler then samples freely. */
nibl_status nibl_sampler_constrain(nibl_sampler *sampler, nibl_grammar *grammar, uint32_t tokens);

/* Whether the tokens sampled since are a whole text, behind which nothing may come, no end token either. False without a
 * grammar. */
bool nibl_sampler_done(const nibl_sampler *sampler);

/* ---- Quantization --------------------------------------------------------------------------------------------- */

typedef struct nibl_tensor_type {
    const char *pattern; /* of names as GGUF has them: '*' any bytes, '?' one; "blk.*.ffn_down.weight" */
    const char *type;
} nibl_tensor_type;

/* Types are GGUF's, in any case: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl,
 * iq4_xs, tq1_0, tq2_0, mxfp4, nvfp4. Strings are read during nibl_quantizer_new only. */
typedef struct nibl_quantize_options {
    size_t size;
    const char *type; /* of matrices; NULL = "q4_0", with method best iq4_nl, also of embedding and head */
    const char *embedding; /* NULL = "q8_0", or `head` where the embedding is the head too */
    const char *head; /* NULL = "q8_0" */
    const nibl_tensor_type *tensors; /* exceptions; the first that matches counts */
    size_t tensor_count;
    /* A list: "awq,gptq". rtn (NULL): the type's own rule, or its search where it has none. clip: for every type the scale
     * is searched whose rounded weights are nearest to the given ones, in squares. The others need
     * nibl_model_quantizer_new, where the squares of clip are weighted by the activity of the inputs. imatrix: by that
     * and by the magnitude of a weight. awq (arXiv:2306.00978): clip, and active inputs are scaled up before rounding; what
     * comes before them takes that back. recover: of weights that lie on a grid of their type already (of a model
     * that was trained for it, or was once quantized) that grid, without loss; where one lies on none, that is an error, unless another method
     * follows (recover,clip). gptq (arXiv:2210.17323): the error of a column is made good by those rounded after
     * it. Clip with a text, imatrix, awq and gptq round the head, too, or the embedding that is it, by its inputs. rotate (QuaRot's folded
     * rotations, arXiv:2404.00456), before the others: the residual stream and the heads between values and outputs are
     * turned so that no weight stands out, norms folded in; a head that was the embedding becomes a tensor of its own. Pays
     * with gptq and one scale a row. best: what lost least where it was measured: awq,gptq, and iq4_nl where no type is told. */
    const char *method;
    uint32_t threads; /* 0 = 1. The result does not depend on it. */
    /* "gguf" or "safetensors"; NULL: as the types demand. Another output of nibl_model_quantizer_new is a Hugging Face folder
     * (safetensors, compressed-tensors "pack-quantized"), where the types of matrices are floats or integers of 2 to 8 bits
     * with a scale per group, row or tensor, symmetric or with a zero point:
     *     w4g64, w3g128asym, w8row, w4tensor, w4g64sym-range-bf16 (W4A16 and W4A16_ASYM stand for w4g128)
     * extreme (default), range, absmax: a symmetric scale is the value of the largest magnitude / -2^(b-1), 2 amax / (2^b - 1),
     * amax / (2^(b-1) - 1); f16 (default), bf16, f32: how it is stored. A group that does not divide the columns becomes the
     * largest multiple of 32 that does, which is told. Symmetric ones of 4 bits can go to plain GGUF ("gguf"), as Q4_0 that
     * repeats the scale. */
    const char *format;
    const char
        *config; /* text of the source's config.json, of a source that is a folder, for one that comes out */
    uint64_t shard_bytes; /* at most so many in a file of weights, where layers are smaller; 0 = 5e9 */
    bool
        requantize; /* the source may be quantized already: a second loss is added to the first. Floats need no leave. */
    bool measure; /* the report tells what rounding lost of every matrix; takes a second pass over it */
    bool
        force; /* tq1_0 and tq2_0 also of weights that were not trained to be ternary; else NIBL_E_ARGUMENT, with the loss */
    /* A whole file of llama.cpp's llama-imatrix, or of nibl_imatrix_new, in place of a text; NULL = none. Read during
     * nibl_model_quantizer_new only. Methods are imatrix (NULL) and clip, with one tensor in memory at a time. What the file does not
     * tell of, the report calls `uncalibrated`. */
    const void *imatrix;
    size_t imatrix_bytes;
} nibl_quantize_options;

typedef struct nibl_quantizer nibl_quantizer;

/* Makes a GGUF file of whatever the loader reads (one file, a split one, a Hugging Face folder), in place of
 * nibl_loader_begin: from then on nibl_loader_want names ranges in the order they stand in, nibl_loader_feed quantizes what
 * it takes, and what has come out is read after every call:
 *     nibl_loader_feed(...); nibl_quantizer_output(q, &bytes, &length); write(bytes, length);
 * The output is complete once nibl_loader_feed has answered NIBL_OK. Any llama.cpp that knows the types loads it: names and
 * metadata are kept, Q and K of Llama's Hugging Face files reordered, vectors F32. Matrices whose rows do not divide into the
 * blocks of their type get another, which the report tells; routers, convolutions and the like keep theirs. The recipe
 * stands in the file ("nibl.recipe"). Memory: some MiB, or eight rows where those are larger.
 * Bytes that come before their turn are ignored, and wanted again. NIBL_E_ARGUMENT for a type, method or pattern that is none, and for a
 * source that is quantized already without `requantize`; feeding fails with NIBL_E_NUMERIC, naming tensor and row, for a value
 * that is infinite, NaN or too large for its type. Caller frees, before or after the loader, whose last use it must outlive. */
nibl_status nibl_quantizer_new(nibl_loader *loader, const nibl_quantize_options *options,
                               nibl_quantizer **out);
void nibl_quantizer_free(nibl_quantizer *quantizer);

/* Whether the types or the format of the options, or the source whose header the loader has (NULL: whatever it is), need
 * nibl_model_quantizer_new, with or without a calibration; and whether their methods, which all are known, need one with. Sources are
 * folders whose tensors are not those of a GGUF file: transposed, or one for every expert. */
bool nibl_quantize_needs_model(nibl_loader *loader, const nibl_quantize_options *options);
bool nibl_quantize_needs_text(const nibl_quantize_options *options);

/* The same of a model, with methods that look at what a text makes of it: `tokens` (count, at most 2^20) are computed in
 * windows of `window` tokens, each on its own; 8,192 in windows of 512 are usual. Read during the call only. nibl_quantizer_step
 * does the work, and after each call there is output, in the order of the forward pass. Without tokens (count 0) no method
 * may look at them. The model outlives the quantizer, is not used for anything else meanwhile, and is the same afterwards;
 * where it came from nibl_loader_begin_parts, it is used up, and the output has the same bytes. Memory: the activations and
 * KV cache of the calibration, and one layer's Hessians and output. Errors as above; NIBL_E_UNSUPPORTED for models whose file
 * is quantized in several tensors per matrix. */
nibl_status nibl_model_quantizer_new(nibl_model *model, const nibl_quantize_options *options,
                                     const int32_t *tokens, size_t count, uint32_t window,
                                     nibl_quantizer **out);

/* Quantizes the next layer, or a tensor outside of layers. NIBL_MORE: call again. NIBL_NEED_DATA: feed the model's loader
 * what it wants, and call again after each nibl_loader_feed. NIBL_OK: the output is complete. Errors are final; NIBL_E_NUMERIC where calibration computes values that are not finite. */
nibl_status nibl_quantizer_step(nibl_quantizer *quantizer);

/* Mixed precision: types of tensors with which a file of a given size loses least. Each tensor alone is rounded to the
 * smallest of the types that it can have, as the method rounds (but for awq), and the KL divergence from the model is measured
 * over positions of the text's last 512 tokens, with exact activations; other types are taken to lose in proportion to their error of
 * the outputs, in squares (without gptq: of the weights, by the activity of inputs). `types`: a list as "q3_k,q4_0,q5_0,q8_0"; NULL: all of 2 to 8 bits. What the options name (their
 * `tensors`), and what they keep or make floats, stays. Tokens, window, the model, memory and errors as for
 * nibl_model_quantizer_new; besides, logits of 256 positions. */
typedef struct nibl_allotment nibl_allotment;
nibl_status nibl_allotment_new(nibl_model *model, const nibl_quantize_options *options, const char *types,
                               const int32_t *tokens, size_t count, uint32_t window, nibl_allotment **out);
void nibl_allotment_free(nibl_allotment *allotment);

/* Computes the next layer, or measures the next tensor. NIBL_MORE: call again. *done: the share that is done. */
nibl_status nibl_allotment_step(nibl_allotment *allotment, double *done);

/* After NIBL_OK, and as often as one likes: *tensors (*count) for nibl_quantize_options, the given exceptions first, whose
 * tensors take at most `bytes` together, header not counted. Owned by the allotment, valid until the next call. NIBL_E_ARGUMENT
 * where the smallest types take more. */
nibl_status nibl_allotment_choose(nibl_allotment *allotment, uint64_t bytes, const nibl_tensor_type **tensors,
                                  size_t *count);

/* What another quantizer of the same source, options and tokens needs to go on from here, perhaps in another process: after a
 * step or feeding, with the output taken, pieces from 0 on until *length is 0. Owned by the quantizer, valid until its next
 * step or its loader is fed. No piece at all: from here nobody can go on; so always with `measure`, and where a folder comes out. */
nibl_status nibl_quantizer_save(nibl_quantizer *quantizer, size_t piece, const void **bytes, size_t *length);

/* Makes a new quantizer go on from there, given the pieces one behind the other: its output is what comes behind the first
 * *offset bytes of that one's, and the whole the same as without a break. `loader`: that of its source, to which nothing but the
 * header was fed. NIBL_E_FILE: the state is of something else. */
nibl_status nibl_quantizer_restore(nibl_quantizer *quantizer, nibl_loader *loader, const void *state,
                                   size_t length, uint64_t *offset);

/* What a text makes of the inputs of every matrix, as a file that llama.cpp's llama-quantize reads, too (GGUF, general.type
 * "imatrix": of each tensor, the head included, in_sum2, the sums of squares of its columns' inputs, and counts of rows), for
 * nibl_quantize_options.imatrix: with methods imatrix and clip the same bytes come out as with the text. `dataset`: a name of the text,
 * for the file. Tokens, window, the model and errors as for nibl_model_quantizer_new; a model of nibl_loader_begin_parts comes and goes
 * layer by layer. Memory: the activations and KV cache of the text, and the file. */
typedef struct nibl_imatrix nibl_imatrix;
nibl_status nibl_imatrix_new(nibl_model *model, const int32_t *tokens, size_t count, uint32_t window,
                             const char *dataset, uint32_t threads, nibl_imatrix **out);
void nibl_imatrix_free(nibl_imatrix *imatrix);

/* Computes the next layer; as nibl_quantizer_step. *done: the share that is done. */
nibl_status nibl_imatrix_step(nibl_imatrix *imatrix, double *done);

/* After NIBL_OK: the file. Owned by the imatrix. */
void nibl_imatrix_bytes(const nibl_imatrix *imatrix, const void **bytes, size_t *length);

/* Bytes of the whole output, known from the beginning. */
uint64_t nibl_quantizer_size(const nibl_quantizer *quantizer);

/* What has come out since the last call, the header first: *length may be 0. Owned by the quantizer, valid until the loader
 * is fed again or nibl_quantizer_step called. */
void nibl_quantizer_output(nibl_quantizer *quantizer, const void **bytes, size_t *length);

/* The name, in its folder, of the file that the output belongs to, as soon as there is some: what comes out after a call of
 * nibl_quantizer_step is of one file, and a file is complete when another begins. NULL: the output is one GGUF file. Owned by
 * the quantizer, valid until its next step. */
const char *nibl_quantizer_file(const nibl_quantizer *quantizer);

/* What becomes of every tensor as JSON: name, rows, columns, types (`wanted` and `why` where the type is not the one asked
 * for), bytes before and after; sums and bits per weight; the recipe as it stands in the file. With `measure`, of what has
 * come out: the `error` of matrices (root mean square of what rounding changed, relative to that of the weights as they were
 * rounded), and with a calibration the `inputs`: of each the channels with the largest root mean square and the median.
 * `unscaled`: as many were rounded as without AWQ, because what goes before them can take no scale back.
 * With method recover of how many `groups` with a scale so many were `recovered`, and `scales_rounded` of those because
 * the type cannot store their scale as it is.
 * `uncalibrated`: how many matrices of a tensor were rounded as without a text, because that does not reach them.
 * Lengths as in nibl_loader_inspect. */
nibl_status nibl_quantizer_report(const nibl_quantizer *quantizer, char *json, size_t capacity,
                                  size_t *needed);

/* ---- Evaluation: how well a model predicts a text, and how far it is from a reference ------------------------------ */

/* A mean over positions and its standard error. Positions are taken as independent; differences to the reference are
 * paired, position by position, which makes their errors far smaller than those of two perplexities. */
typedef struct nibl_estimate {
    double value, error;
} nibl_estimate;

/* p is the probability of the token that follows, KL the divergence KL(reference, model) of a position, in nats. What
 * compares is zero without a reference. */
typedef struct nibl_evaluation_result {
    size_t size;
    uint64_t positions;
    nibl_estimate perplexity; /* exp of the mean of -log p */
    nibl_estimate reference_perplexity;
    nibl_estimate perplexity_ratio; /* to the reference's; 1.02 is a loss of 2 % */
    nibl_estimate kl; /* mean */
    double kl_median, kl_99, kl_999, kl_max; /* nearest rank */
    nibl_estimate same_top; /* share of positions with the reference's most probable token */
    nibl_estimate p_change, p_change_rms; /* of p - the reference's p: mean, root of the mean square */
} nibl_evaluation_result;

typedef struct nibl_evaluation nibl_evaluation;

/* `compared`: every position comes with the reference's logits. Caller frees. */
nibl_status nibl_evaluation_new(uint32_t vocabulary, bool compared, nibl_evaluation **out);
void nibl_evaluation_free(nibl_evaluation *evaluation);

/* Scores one position: its logits [vocabulary], the reference's (NULL unless compared), and the token that follows in the
 * text. Read during the call only. NIBL_E_NUMERIC where a logit is not finite. */
nibl_status nibl_evaluation_add(nibl_evaluation *evaluation, const float *logits, const float *reference,
                                int32_t next);

/* A reference kept for later, so that it is computed once and needs no second model in memory: the distribution of one
 * position in at most 2,568 bytes, for any host. The 256 most probable tokens are kept, and 64 drawn from the others, with
 * which KL is estimated without bias; up to 320 tokens all are. */
size_t nibl_reference_bytes(uint32_t vocabulary);
/* Writes that many bytes: of the reference's logits [vocabulary] and the token that follows. Errors as above. */
nibl_status nibl_reference_pack(const float *logits, uint32_t vocabulary, int32_t next, void *packed);
/* As nibl_evaluation_add. The packed bytes may come from anybody: NIBL_E_FILE where they are no distribution. */
nibl_status nibl_evaluation_add_packed(nibl_evaluation *evaluation, const float *logits, const void *packed,
                                       int32_t next);

/* Natural log of a token's probability under logits [vocabulary]: what answers to choose from are scored with. */
nibl_status nibl_log_probability(const float *logits, uint32_t vocabulary, int32_t token, double *out);

/* KL(reference, model) of one position in nats, of two rows of logits [vocabulary]; what nibl_evaluation_add takes the mean of.
 * NIBL_E_NUMERIC where a logit is not finite. */
nibl_status nibl_divergence(const float *logits, const float *reference, uint32_t vocabulary, double *out);

/* Everything so far; more may be added afterwards. NIBL_E_ARGUMENT before the second position: there is no error yet. */
nibl_status nibl_evaluation_get(nibl_evaluation *evaluation, nibl_evaluation_result *result);

/* What one model lost beside what another did, each against a reference of its own, on the same tokens: a fine-tuned model and its
 * base. Errors are paired, position by position. Above 1: the first lost more. */
typedef struct nibl_evaluation_comparison {
    size_t size;
    nibl_estimate perplexity_ratio; /* of the perplexity ratios */
    nibl_estimate kl_ratio; /* of the mean KL; not finite where the other lost nothing */
} nibl_evaluation_comparison;

/* NIBL_E_ARGUMENT where they have not as many positions, or no references. */
nibl_status nibl_evaluation_compare(const nibl_evaluation *evaluation, const nibl_evaluation *other,
                                    nibl_evaluation_comparison *result);

#ifdef __cplusplus
}
#endif
#endif

/* Tasks are questions with answers to choose from, one a line: {"prompt": "...", "choices": ["...", ...], "answer": 0}.
 * An answer's score is the sum of log p of its tokens behind the prompt; the highest is the model's. Where prompt and
 * answer are one word for the tokenizer, what they have in common with the prompt's own tokens counts as the prompt. A
 * task which the reference itself does not solve says nothing about what was lost: it is dropped. */
#include "core/cli/console.h"
#include "core/cli/eval.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 64 << 20, MAX_CHOICES = 16, MAX_CONTEXT = 2048 };
static const double OVER_CHANCE = 0.10;

typedef struct item {
    uint32_t first, count; /* of all answers of the task */
    uint32_t prompt; /* texts[prompt], followed by its answers */
    uint32_t answer;
} item;

typedef struct task {
    const char *name;
    nibl_cli_text *texts;
    size_t text_count, text_capacity;
    item *items;
    size_t count, capacity, answers;
    uint64_t hash;
} task;

static void task_free(task *t) {
    for (size_t i = 0; i < t->text_count; i++) nibl_cli_text_free(&t->texts[i]);
    free(t->texts);
    free(t->items);
}

/* ---- Reading ---- */

/* The list with room for one more; NULL when memory is short, and the old list stays. */
static void *with_room(void *list, size_t *capacity, size_t count, size_t width) {
    if (count < *capacity) return list;
    const size_t more = *capacity ? 2 * *capacity : 256;
    void *grown = more <= SIZE_MAX / width ? realloc(list, more * width) : NULL;
    if (grown) *capacity = more;
    return grown;
}

static bool add_text(task *t, const nibl_cli_document *d, size_t index) {
    nibl_cli_text *texts = with_room(t->texts, &t->text_capacity, t->text_count, sizeof *t->texts);
    if (!texts) return false;
    t->texts = texts;
    texts[t->text_count] = (nibl_cli_text){0};
    return nibl_cli_document_text(d, index, &texts[t->text_count++]);
}

static bool read_item(task *t, const nibl_cli_document *d) {
    const size_t choices = nibl_cli_document_member(d, 0, "choices"),
                 answer = nibl_cli_document_member(d, 0, "answer");
    item new = {.first = (uint32_t)t->answers,
                .prompt = (uint32_t)t->text_count,
                .answer = (uint32_t)nibl_cli_document_integer(d, answer)};
    if (!choices || d->nodes[choices].kind != '[' || !answer) return false;
    if (!add_text(t, d, nibl_cli_document_member(d, 0, "prompt")) || t->texts[new.prompt].length == 0)
        return false;
    for (size_t i = choices + 1; i < d->nodes[choices].next; i = d->nodes[i].next) {
        if (new.count == MAX_CHOICES || !add_text(t, d, i) || t->texts[t->text_count - 1].length == 0)
            return false;
        new.count++;
    }
    if (new.count < 2 || new.answer >= new.count) return false;
    item *items = with_room(t->items, &t->capacity, t->count, sizeof *t->items);
    if (!items) return false;
    t->items = items;
    items[t->count++] = new;
    t->answers += new.count;
    return true;
}

static int read_task(const char *path, int64_t most, task *t) {
    nibl_cli_text text = {0};
    int code = nibl_cli_read_file(path, MAX_FILE, &text);
    t->hash = UINT64_C(0xCBF29CE484222325);
    char *line = text.bytes;
    for (size_t number = 1; code == NIBL_EXIT_OK && line && *line && (most == 0 || t->count < (uint64_t)most);
         number++) {
        char *end = strchr(line, '\n');
        nibl_cli_document document = {0};
        if (end) *end = '\0';
        for (const char *c = line; *c; c++) t->hash = (t->hash ^ (unsigned char)*c) * UINT64_C(0x100000001B3);
        if (*line && (!nibl_cli_document_parse(line, &document) || !read_item(t, &document)))
            code = nibl_cli_fail(
                "%s, line %zu: must be {\"prompt\": text, \"choices\": [2 to %d texts], \"answer\": "
                "the right one's number}",
                path, number, MAX_CHOICES);
        nibl_cli_document_free(&document);
        line = end ? end + 1 : NULL;
    }
    if (code == NIBL_EXIT_OK && t->count < 2) code = nibl_cli_fail("%s: has less than two items", path);
    nibl_cli_text_free(&text);
    return code;
}

/* ---- Scoring ---- */

typedef struct scorer {
    const nibl_cli_model *model;
    nibl_session *session;
    nibl_cli_text text;
    nibl_cli_tokens prompt, whole;
} scorer;

static int tokenize(const scorer *s, const nibl_cli_text *text, nibl_cli_tokens *tokens) {
    const uint32_t flags = s->model->info.add_bos ? NIBL_TOKENIZE_BOS : 0;
    if (!nibl_cli_tokens_reserve(tokens, 3 * text->length + 2)) return NIBL_EXIT_FAILED;
    return nibl_tokenize(s->model->model, text->bytes, text->length, flags, tokens->ids, tokens->capacity,
                         &tokens->count) < 0
               ? nibl_cli_fail_library("tokenizing")
               : NIBL_EXIT_OK;
}

/* Computes the first `count` tokens, and adds log p of the tokens from `from` on which the rows of logits tell of. */
static int add_scores(scorer *s, const int32_t *ids, size_t count, size_t from, size_t end, double *score) {
    const float *logits;
    size_t first, rows;
    if (nibl_session_set_tokens(s->session, ids, count, NULL) < 0) return nibl_cli_fail_library("an item");
    for (nibl_status status = NIBL_MORE; status == NIBL_MORE;) {
        status = nibl_step(&s->session, 1, 0);
        if (status < 0 || nibl_session_logits(s->session, &logits, &first, &rows) < 0)
            return nibl_cli_fail_library("computing");
        for (size_t i = 0; i < rows; i++) {
            const size_t next = first + i + 1;
            double log_p;
            if (next < from || next >= end) continue;
            if (nibl_log_probability(logits + i * s->model->info.vocabulary, s->model->info.vocabulary,
                                     ids[next], &log_p) < 0)
                return nibl_cli_fail_library("scoring");
            *score += log_p;
        }
    }
    return NIBL_EXIT_OK;
}

static int score_item(scorer *s, const task *t, const item *it, float *scores) {
    const nibl_cli_text *prompt = &t->texts[it->prompt];
    int code = tokenize(s, prompt, &s->prompt);
    for (uint32_t c = 0; c < it->count && code == NIBL_EXIT_OK; c++) {
        const nibl_cli_text *choice = &t->texts[it->prompt + 1 + c];
        size_t from = 0;
        double score = 0;
        s->text.length = 0;
        if (!nibl_cli_text_append(&s->text, prompt->bytes, prompt->length) ||
            !nibl_cli_text_append(&s->text, choice->bytes, choice->length))
            return NIBL_EXIT_FAILED;
        code = tokenize(s, &s->text, &s->whole);
        while (code == NIBL_EXIT_OK && from < s->prompt.count && from + 1 < s->whole.count &&
               s->prompt.ids[from] == s->whole.ids[from])
            from++;
        if (code == NIBL_EXIT_OK && from == 0) code = nibl_cli_fail("%s: a prompt without tokens", t->name);
        /* what is common is kept but for its last token, whose row tells of the answer's first one */
        if (code == NIBL_EXIT_OK && nibl_session_set_tokens(s->session, s->whole.ids, from, NULL) < 0)
            code = nibl_cli_fail_library("an item");
        if (code == NIBL_EXIT_OK)
            code = add_scores(s, s->whole.ids, s->whole.count - 1, from, s->whole.count, &score);
        scores[c] = (float)score;
    }
    return code;
}

static int score_task(const nibl_cli_evaluator *e, const nibl_cli_model *model, const task *t,
                      float *scores) {
    const bool shown = nibl_cli_stderr_is_terminal();
    const uint32_t context =
        model->info.context_length < MAX_CONTEXT ? model->info.context_length : MAX_CONTEXT;
    nibl_session_options options = nibl_cli_session_options(&e->o->settings, context);
    options.logits = NIBL_LOGITS_ALL;
    scorer s = {.model = model};
    int code = NIBL_EXIT_OK;
    if (nibl_session_new(model->model, &options, &s.session) < 0) code = nibl_cli_fail_library("the session");
    for (size_t i = 0; i < t->count && code == NIBL_EXIT_OK; i++) {
        if (shown) fprintf(stderr, "\r%s: item %zu of %zu\033[K", t->name, i + 1, t->count);
        code = score_item(&s, t, &t->items[i], scores + t->items[i].first);
        if (code == NIBL_EXIT_OK && nibl_cli_interrupted()) code = nibl_cli_fail("interrupted");
    }
    if (shown) fputs("\r\033[K", stderr);
    nibl_session_free(s.session);
    nibl_cli_text_free(&s.text);
    nibl_cli_tokens_free(&s.prompt);
    nibl_cli_tokens_free(&s.whole);
    return code;
}

/* ---- Results ---- */

static uint32_t best_of(const item *it, const float *scores) {
    uint32_t best = 0;
    for (uint32_t c = 1; c < it->count; c++)
        if (scores[it->first + c] > scores[it->first + best]) best = c;
    return best;
}

/* What is measured of an item. */
typedef enum measure {
    RIGHT,
    ANSWER,
    /* of a comparison: */
    REFERENCE_RIGHT,
    RIGHT_CHANGE,
    SAME,
    ANSWER_CHANGE,
    MEASURES
} measure;

static const struct {
    const char *key, *label;
    double scale; /* of the table: 100 for percent */
} measures[MEASURES] = {
    [RIGHT] = {"accuracy", "right, %", 100},
    [ANSWER] = {"answer_log_p", "log p of the right answer", 1},
    [REFERENCE_RIGHT] = {"reference_accuracy", "the reference is right, %", 100},
    [RIGHT_CHANGE] = {"accuracy_change", "change, points", 100},
    [SAME] = {"same_answer", "same answer, %", 100},
    [ANSWER_CHANGE] = {"answer_log_p_change", "change of log p of the answer", 1},
};

static double measure_item(const item *it, const float *scores, const float *reference, measure what) {
    const uint32_t mine = best_of(it, scores), theirs = reference ? best_of(it, reference) : 0;
    const double answer = (double)scores[it->first + it->answer];
    switch (what) {
    case RIGHT: return mine == it->answer;
    case ANSWER: return answer;
    case REFERENCE_RIGHT: return theirs == it->answer;
    case RIGHT_CHANGE: return (double)(mine == it->answer) - (double)(theirs == it->answer);
    case SAME: return mine == theirs;
    case ANSWER_CHANGE: return answer - (double)reference[it->first + it->answer];
    case MEASURES: break;
    }
    return 0;
}

static nibl_estimate estimate(const task *t, const float *scores, const float *reference, measure what) {
    const double n = (double)t->count;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < t->count; i++) sum += measure_item(&t->items[i], scores, reference, what);
    for (size_t i = 0; i < t->count; i++) {
        const double difference = measure_item(&t->items[i], scores, reference, what) - sum / n;
        squares += difference * difference;
    }
    return (nibl_estimate){sum / n, sqrt(squares / (n - 1) / n)};
}

static void print_task(const nibl_cli_evaluator *e, const task *t, const float *scores,
                       const float *reference) {
    nibl_cli_json json = {.out = stdout};
    double chance = 0;
    for (size_t i = 0; i < t->count; i++) chance += 1.0 / t->items[i].count / (double)t->count;
    const bool dropped =
        reference && estimate(t, scores, reference, REFERENCE_RIGHT).value < chance + OVER_CHANCE;
    if (e->o->json) {
        nibl_cli_eval_json_open(&json, e, "task", t->name);
        nibl_cli_json_integer(&json, "items", t->count);
        nibl_cli_json_real(&json, "chance", chance);
        nibl_cli_json_boolean(&json, "dropped", dropped);
    } else {
        printf("%s: %zu items, by chance %.1f %% right%s\n", t->name, t->count, 100 * chance,
               dropped ? "; dropped: the reference is less than 10 points above that" : "");
    }
    for (measure m = RIGHT; m < (reference ? MEASURES : REFERENCE_RIGHT); m++) {
        const nibl_estimate x = estimate(t, scores, reference, m);
        const double scale = measures[m].scale;
        if (e->o->json)
            nibl_cli_eval_json_estimate(&json, measures[m].key, x);
        else if (!dropped || m == REFERENCE_RIGHT)
            printf("  %-32s%9.3f  +- %.3f\n", measures[m].label, scale * x.value, scale * x.error);
    }
    if (e->o->json) nibl_cli_json_close(&json, '}');
}

/* ---- All together ---- */

/* One task of the folder; `saved`: the reference's scores stand in its section at hand. */
static int evaluate(nibl_cli_evaluator *e, const char *file, bool saved) {
    task t = {0};
    nibl_cli_text path = {0}, name = {0};
    float *scores = NULL;
    const char *dot = strrchr(file, '.');
    int code = nibl_cli_join(e->o->tasks, file, &path) &&
                       nibl_cli_text_append(&name, file, dot ? (size_t)(dot - file) : strlen(file))
                   ? read_task(path.bytes, e->o->items, &t)
                   : NIBL_EXIT_FAILED;
    t.name = name.bytes;
    if (code == NIBL_EXIT_OK && saved && t.hash != e->saved.hash)
        code = nibl_cli_fail("%s: its items are not those of the reference %s", path.bytes, e->saved.path);
    if (code == NIBL_EXIT_OK && !(scores = malloc(2 * t.answers * sizeof *scores)))
        code = nibl_cli_fail("out of memory");
    float *reference = saved || e->reference.model ? scores + t.answers : NULL;
    if (code == NIBL_EXIT_OK && saved) code = nibl_cli_reference_read_scores(&e->saved, reference, t.answers);
    if (code == NIBL_EXIT_OK && e->reference.model) code = score_task(e, &e->reference, &t, reference);
    if (code == NIBL_EXIT_OK) code = score_task(e, &e->model, &t, scores);
    if (code == NIBL_EXIT_OK && e->kept.path)
        code = nibl_cli_reference_write_task(&e->kept, t.name, t.hash, scores, t.answers);
    if (code == NIBL_EXIT_OK) print_task(e, &t, scores, reference);
    free(scores);
    task_free(&t);
    nibl_cli_text_free(&name);
    nibl_cli_text_free(&path);
    return code;
}

int nibl_cli_eval_tasks(nibl_cli_evaluator *e) {
    nibl_cli_names names = {0};
    if (!e->o->tasks) return NIBL_EXIT_OK;
    int code = nibl_cli_list_folder(e->o->tasks, &names);
    for (size_t i = 0; i < names.count && code == NIBL_EXIT_OK; i++)
        code = evaluate(e, names.items[i], false);
    nibl_cli_names_free(&names);
    return code;
}

int nibl_cli_eval_saved_task(nibl_cli_evaluator *e) {
    nibl_cli_text file = {0};
    if (!e->o->tasks) {
        fprintf(stderr, "nibl: task %s of the reference is left out: --tasks names the folder of its items\n",
                e->saved.name.bytes);
        return nibl_cli_reference_skip_scores(&e->saved);
    }
    if (strchr(e->saved.name.bytes, '/'))
        return nibl_cli_fail("%s: a task's name has a slash", e->saved.path);
    int code = nibl_cli_text_append(&file, e->saved.name.bytes, e->saved.name.length) &&
                       nibl_cli_text_append(&file, ".jsonl", 6)
                   ? evaluate(e, file.bytes, true)
                   : NIBL_EXIT_FAILED;
    nibl_cli_text_free(&file);
    return code;
}

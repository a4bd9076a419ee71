/* JSON: parses the input and reads all of it in every way there is. */
#include "core/json.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t before, after;
    nibl_memory(&before, NULL);
    nibl_json json = {0};
    if (nibl_json_parse("fuzz", (const char *)data, size, &json) == NIBL_OK) {
        uint64_t seen = 0;
        for (uint32_t node = NIBL_JSON_ROOT; node < json.count; node++) {
            uint64_t number;
            double real;
            bool truth;
            if (json.nodes[node].at + (uint64_t)json.nodes[node].length > size) abort();
            if (json.nodes[node].next <= node || json.nodes[node].next > json.count) abort();
            if (nibl_json_u64(&json, node, &number) && !nibl_json_f64(&json, node, &real)) abort();
            nibl_json_bool(&json, node, &truth);
            nibl_json_get(&json, node, "name");
            for (uint32_t child = 0; nibl_json_each(&json, node, &child); seen++)
                if (child <= node || child >= json.count) abort();
            if (!nibl_json_is(&json, node, NIBL_JSON_STRING)) continue;
            nibl_writer counted = {0};
            nibl_json_write_string(&json, node, &counted);
            if (counted.length > json.nodes[node].length) abort(); /* escapes only shrink */
        }
        if (seen > json.count) abort();
        nibl_json_free(&json);
    }
    nibl_memory(&after, NULL);
    if (after != before) abort();
    return 0;
}

/* The functions that the benchmarks need beside the examples' add-metadata:
 *
 *   tag           what add-metadata does, with keys of its own: the second function of a chain. add-metadata twice
 *                 would replace its own keys, which is other work
 *   stamp-lines   add-metadata for a chunk: lines in, line for line out
 *   reject        add-metadata, which calls one record in `every` invalid: dead letters at a known rate */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "benchmark-functions", "version": "0.1.0",
    "plugins": [
        {"name": "tag", "kind": "function", "language": "c",
         "config": {"type": "object", "additionalProperties": false,
                    "properties": {"name": {"type": "string", "default": "benchmark"}}},
         "methods": [{"name": "process", "mode": "unary"}]},
        {"name": "stamp-lines", "kind": "function", "language": "c",
         "config": {"type": "object", "additionalProperties": false,
                    "properties": {"plugin_name": {"type": "string", "default": "unknown_rust_plugin"}}},
         "methods": [{"name": "process", "mode": "unary",
                      "input": "application/x-ndjson", "output": "application/x-ndjson"}]},
        {"name": "reject", "kind": "function", "language": "c",
         "config": {"type": "object", "additionalProperties": false,
                    "properties": {"plugin_name": {"type": "string", "default": "unknown_rust_plugin"},
                                   "every": {"type": "integer", "minimum": 1, "default": 50}}},
         "methods": [{"name": "process", "mode": "unary"}]}
    ]
});

struct stamp {
    ferrule_instance base;
    char *name;
    size_t name_len;
    int64_t every, seen;
};

static int32_t configure(struct stamp *stamp, const char *config, size_t config_len, const char *key) {
    stamp->name = ferrule_json_string(config, config_len, key, "benchmark", &stamp->name_len);
    stamp->every = ferrule_json_int(config, config_len, "every", 50);
    return stamp->name != NULL ? FERRULE_OK : FERRULE_OUT_OF_MEMORY;
}

FERRULE_CREATE(tag_create) { return configure((struct stamp *)self, config, config_len, "name"); }
FERRULE_CREATE(stamp_create) { return configure((struct stamp *)self, config, config_len, "plugin_name"); }
static void stamp_destroy(void *self) { free(((struct stamp *)self)->name); }

static int32_t add(const struct stamp *stamp, const char *who, const char *when, const uint8_t *in, size_t in_len,
                   ferrule_buffer *out, ferrule_buffer *error) {
    ferrule_record record;
    char now[32];
    if (ferrule_record_extend(&record, in, in_len, out, error) != FERRULE_OK) {
        return record.status;
    }
    ferrule_record_string(&record, who, stamp->name, stamp->name_len);
    ferrule_record_string(&record, when, ferrule_rfc3339_now(now), FERRULE_RFC3339_LEN);
    return ferrule_record_finish(&record);
}

FERRULE_CALL(tag) {
    return add((const struct stamp *)self, "checked_by_benchmark_tag", "benchmark_tag_timestamp", in, in_len, out, error);
}

FERRULE_CALL(stamp_lines) {
    ferrule_lines lines = ferrule_lines_of(in, in_len);
    while (ferrule_next_line(&lines)) {
        int32_t status = add((const struct stamp *)self, "processed_by_rust_plugin", "rust_enriched_timestamp",
                             lines.line, lines.length, out, error);
        if (status == FERRULE_OK) {
            status = ferrule_append(out, "\n", 1);
        }
        if (status != FERRULE_OK) {
            return status;
        }
    }
    return FERRULE_OK;
}

FERRULE_CALL(reject) {
    struct stamp *stamp = (struct stamp *)self;
    if (++stamp->seen % stamp->every == 0) {
        return ferrule_fail(error, FERRULE_INVALID_DATA, "one record in %d is refused", (int)stamp->every);
    }
    return add(stamp, "processed_by_rust_plugin", "rust_enriched_timestamp", in, in_len, out, error);
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("tag", struct stamp, tag_create, stamp_destroy, FERRULE_UNARY("process", tag)),
    FERRULE_PLUGIN("stamp-lines", struct stamp, stamp_create, stamp_destroy, FERRULE_UNARY("process", stamp_lines)),
    FERRULE_PLUGIN("reject", struct stamp, stamp_create, stamp_destroy, FERRULE_UNARY("process", reject)));

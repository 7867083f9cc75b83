/* Ends that cost next to nothing, so that what lies between them can be measured: the source `repeat` gives the same
 * record `count` times, the sink `discard` counts bytes. The sink `keep` writes them to a file, to be looked at. */
#include "ferrule_sdk.h"

#include <stdio.h>

FERRULE_MANIFEST({
    "name": "ends",
    "version": "0.1.0",
    "plugins": [
        {"name": "repeat", "kind": "source", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["record", "count"], "properties": {
             "record": {"type": "string"}, "count": {"type": "integer", "minimum": 0}}},
         "methods": [{"name": "read_data", "mode": "stream"}]},
        {"name": "discard", "kind": "sink", "language": "c",
         "methods": [{"name": "write", "mode": "unary", "input": "application/x-ndjson"}]},
        {"name": "keep", "kind": "sink", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["path"], "properties": {
             "path": {"type": "string"}}},
         "methods": [{"name": "write", "mode": "unary", "input": "application/x-ndjson"}]}
    ]
});

struct repeat {
    ferrule_instance base;
    char *record;
    size_t length;
    int64_t count;
};

FERRULE_CREATE(repeat_create) {
    struct repeat *repeat = self;
    repeat->record = ferrule_json_string(config, config_len, "record", "{}", &repeat->length);
    repeat->count = ferrule_json_int(config, config_len, "count", 0);
    return repeat->record == NULL ? FERRULE_OUT_OF_MEMORY : FERRULE_OK;
}

static void repeat_destroy(void *self) { free(((struct repeat *)self)->record); }

struct repetition {
    ferrule_reader base;
    const struct repeat *of;
    int64_t left;
};

FERRULE_NEXT(repetition_next) {
    struct repetition *repetition = (struct repetition *)stream;
    if (repetition->left == 0) {
        return FERRULE_END;
    }
    repetition->left--;
    return ferrule_append(out, repetition->of->record, repetition->of->length);
}

FERRULE_OPEN(repeat_read) {
    static const ferrule_stream_ops ops = FERRULE_READER(repetition_next, NULL, ferrule_reader_close);
    struct repetition *repetition = ferrule_reader_new(sizeof *repetition, &ops, out, error);
    if (repetition == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    repetition->of = self;
    repetition->left = repetition->of->count;
    return FERRULE_OK;
}

struct discard {
    ferrule_instance base;
    uint64_t bytes;
};

FERRULE_CALL(discard_write) {
    ((struct discard *)self)->bytes += in_len;
    return FERRULE_OK;
}

struct keep {
    ferrule_instance base;
    FILE *file;
};

FERRULE_CREATE(keep_create) {
    char *path = ferrule_json_string(config, config_len, "path", "", NULL);
    if (path == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    ((struct keep *)self)->file = fopen(path, "wb");
    free(path);
    return ((struct keep *)self)->file == NULL ? ferrule_fail(error, FERRULE_IO, "the file cannot be opened") : FERRULE_OK;
}

static void keep_destroy(void *self) {
    if (((struct keep *)self)->file != NULL) {
        fclose(((struct keep *)self)->file);
    }
}

FERRULE_CALL(keep_write) {
    FILE *file = ((struct keep *)self)->file;
    if (fwrite(in, 1, in_len, file) != in_len || fflush(file) != 0) {
        return ferrule_fail(error, FERRULE_IO, "the file cannot be written");
    }
    return FERRULE_OK;
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("repeat", struct repeat, repeat_create, repeat_destroy, FERRULE_STREAM("read_data", repeat_read)),
    FERRULE_PLUGIN("discard", struct discard, NULL, NULL, FERRULE_UNARY("write", discard_write)),
    FERRULE_PLUGIN("keep", struct keep, keep_create, keep_destroy, FERRULE_UNARY("write", keep_write)));

/* {{name}}: writes records to a file, a JSON object a line. */
#include "ferrule_sdk.h"

#if defined(_WIN32)
#include <io.h>
#define fileno _fileno
#define ftruncate _chsize
#else
#include <unistd.h>
#endif

FERRULE_MANIFEST({
    "name": "{{name}}", "version": "0.1.0",
    "plugins": [{
        "name": "{{name}}", "kind": "sink", "language": "c",
        "description": "Writes records to a file, a JSON object a line.",
        "config": {"type": "object", "additionalProperties": false, "required": ["path"], "properties": {
            "path": {"type": "string", "description": "The file to write; what it held is lost."}
        }},
        "methods": [
            {"name": "open", "mode": "unary", "description": "A new file, or one cut back to its mark."},
            {"name": "write", "mode": "unary", "input": "application/x-ndjson", "description": "Whole lines."},
            {"name": "flush", "mode": "unary", "description": "Answers with the mark: the file's length."},
            {"name": "close", "mode": "unary"}
        ]
    }]
});

struct {{ident}}_sink {
    ferrule_instance base; /* first, always */
    char *path;
    FILE *file;
    int64_t length; /* of the file: only what was written whole */
};

/* The host has filled in the defaults and checked the config against its schema. */
FERRULE_CREATE(create) {
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    sink->path = ferrule_json_string(config, config_len, "path", NULL, NULL);
    return sink->path != NULL ? FERRULE_OK : ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for the config");
}

static void destroy(void *self) {
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    if (sink->file != NULL) fclose(sink->file);
    free(sink->path);
}

FERRULE_CALL(open_sink) {
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    int64_t mark = ferrule_json_int(in, in_len, "mark", 0);
    if (sink->file != NULL) return ferrule_fail(error, FERRULE_INVALID_STATE, "%s is open already", sink->path);
    sink->file = fopen(sink->path, mark > 0 ? "r+b" : "wb");
    if (sink->file == NULL) return ferrule_fail(error, FERRULE_IO, "%s: %s", sink->path, strerror(errno));
    setvbuf(sink->file, NULL, _IONBF, 0); /* the host hands over many lines at once */
    if (mark > 0 && (ftruncate(fileno(sink->file), (long)mark) != 0 || fseek(sink->file, 0, SEEK_END) != 0))
        return ferrule_fail(error, FERRULE_IO, "%s: %s", sink->path, strerror(errno));
    sink->length = mark;
    return ferrule_append_text(out, "null");
}

/* All or nothing: when it fails, what was begun is cut off again. */
FERRULE_CALL(write_lines) {
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    if (sink->file == NULL) return ferrule_fail(error, FERRULE_INVALID_STATE, "write before open: call open first");
    if (fwrite(in, 1, in_len, sink->file) != in_len) {
        ferrule_fail(error, FERRULE_IO, "%s: %s", sink->path, strerror(errno));
        if (ftruncate(fileno(sink->file), (long)sink->length) == 0) fseek(sink->file, 0, SEEK_END);
        clearerr(sink->file);
        return FERRULE_IO;
    }
    sink->length += (int64_t)in_len;
    return ferrule_append_text(out, "null");
}

FERRULE_CALL(flush) {
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    ferrule_record mark;
    if (sink->file == NULL) return ferrule_fail(error, FERRULE_INVALID_STATE, "flush before open: call open first");
    ferrule_record_begin(&mark, out, error);
    ferrule_record_int(&mark, "mark", sink->length);
    return ferrule_record_finish(&mark);
}

FERRULE_CALL(close_sink) { /* twice is harmless */
    struct {{ident}}_sink *sink = (struct {{ident}}_sink *)self;
    FILE *file = sink->file;
    sink->file = NULL;
    if (file != NULL && fclose(file) != 0)
        return ferrule_fail(error, FERRULE_IO, "%s: %s", sink->path, strerror(errno));
    return ferrule_append_text(out, "null");
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("{{name}}", struct {{ident}}_sink, create, destroy, FERRULE_UNARY("open", open_sink),
                   FERRULE_UNARY("write", write_lines), FERRULE_UNARY("flush", flush),
                   FERRULE_UNARY("close", close_sink))
);

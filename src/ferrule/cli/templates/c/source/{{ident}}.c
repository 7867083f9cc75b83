/* {{name}}: a source of greetings. */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "{{name}}", "version": "0.1.0",
    "plugins": [{
        "name": "{{name}}", "kind": "source", "language": "c",
        "description": "A source of greetings.",
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "count": {"type": "integer", "minimum": 0, "default": 3, "description": "How many records to give."},
            "name": {"type": "string", "default": "world", "description": "Whom to greet."}
        }},
        "methods": [{"name": "read_data", "mode": "stream", "description": "The records, from a position on."}]
    }]
});

struct {{ident}}_source {
    ferrule_instance base; /* first, always */
    int64_t count;
    char *name;
};

/* A reader: one for every read_data. */
struct {{ident}}_reader {
    ferrule_reader base; /* first, always */
    const struct {{ident}}_source *source;
    int64_t done;
};

/* The host has filled in the defaults and checked the config against its schema. */
FERRULE_CREATE(create) {
    struct {{ident}}_source *source = (struct {{ident}}_source *)self;
    source->count = ferrule_json_int(config, config_len, "count", 3);
    source->name = ferrule_json_string(config, config_len, "name", "world", NULL);
    if (source->name == NULL) return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for the config");
    return FERRULE_OK;
}

static void destroy(void *self) { free(((struct {{ident}}_source *)self)->name); }

/* One record, or the end. A source that waits must give up after timeout_ms, and once ferrule_reader_cancelled. */
FERRULE_NEXT(next) {
    struct {{ident}}_reader *reader = (struct {{ident}}_reader *)(void *)stream;
    ferrule_record record;
    char message[256];
    if (reader->done >= reader->source->count) return FERRULE_END;
    reader->done++;
    snprintf(message, sizeof message, "Hello, %s", reader->source->name);
    ferrule_record_begin(&record, out, error);
    ferrule_record_int(&record, "id", reader->done);
    ferrule_record_text(&record, "message", message);
    return ferrule_record_finish(&record);
}

/* Where to go on after the record that `next` gave last; it comes back in read_data's input. */
FERRULE_POSITION(position) { return ferrule_append_int(out, ((struct {{ident}}_reader *)(void *)stream)->done); }

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = FERRULE_READER(next, position, ferrule_reader_close);
    struct {{ident}}_reader *reader = (struct {{ident}}_reader *)ferrule_reader_new(sizeof *reader, &ops, out, error);
    if (reader == NULL) return FERRULE_OUT_OF_MEMORY;
    reader->source = (const struct {{ident}}_source *)self;
    reader->done = ferrule_json_int(in, in_len, "position", 0);
    return FERRULE_OK;
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("{{name}}", struct {{ident}}_source, create, destroy, FERRULE_STREAM("read_data", read_data))
);

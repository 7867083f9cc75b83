/* hello-source: a source of a few greetings. The twin of the Rust plugin of that name, down to the bytes.
 *
 *   cc -shared -fPIC -O2 -Inative_sdk/include -Inative_sdk/c -o build/plugins/libhello_source_c.so \
 *      example_plugins/c/hello_source/hello_source.c
 */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "hello-source-c", "version": "0.1.0", "license": "Apache-2.0 OR MIT",
    "description": "A source of a few greetings.",
    "plugins": [{
        "name": "hello-source", "kind": "source", "language": "c", "description": "A source of a few greetings.",
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "count": {"type": "integer", "minimum": 0, "default": 2, "description": "How many records."}}},
        "methods": [{"name": "connect", "mode": "unary"}, {"name": "schema", "mode": "unary"},
                    {"name": "read_data", "mode": "stream"}, {"name": "close", "mode": "unary"}]
    }]
});

struct hello { ferrule_instance base; int64_t count; int connected; };
struct reader { ferrule_reader base; int64_t count, id; }; /* id: of the record given last */

FERRULE_CREATE(create) {
    ((struct hello *)self)->count = ferrule_json_int(config, config_len, "count", 2);
    return FERRULE_OK;
}

FERRULE_CALL(connect_source) {
    ((struct hello *)self)->connected = 1;
    return ferrule_append_text(out, "null");
}

FERRULE_CALL(close_source) { /* twice is harmless */
    ((struct hello *)self)->connected = 0;
    return ferrule_append_text(out, "null");
}

FERRULE_CALL(schema) {
    if (!((struct hello *)self)->connected)
        return ferrule_fail(error, FERRULE_INVALID_STATE, "schema before connect: call connect first");
    return ferrule_append_text(out, "{\"type\":\"object\",\"required\":[\"id\",\"message\"],\"properties\":"
                                    "{\"id\":{\"type\":\"integer\"},\"message\":{\"type\":\"string\"}}}");
}

FERRULE_NEXT(next) {
    struct reader *reader = (struct reader *)(void *)stream;
    ferrule_record record;
    char message[64];
    if (ferrule_reader_cancelled(reader)) return ferrule_fail(error, FERRULE_CANCELLED, "read_data was cancelled");
    if (reader->id >= reader->count) return FERRULE_END;
    snprintf(message, sizeof message, "Hello from Rust Source %lld", (long long)++reader->id);
    ferrule_record_begin(&record, out, error);
    ferrule_record_int(&record, "id", reader->id);
    ferrule_record_text(&record, "message", message);
    return ferrule_record_finish(&record);
}

FERRULE_POSITION(position) { return ferrule_append_int(out, ((struct reader *)(void *)stream)->id); }

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = FERRULE_READER(next, position, ferrule_reader_close);
    const struct hello *hello = (const struct hello *)self;
    struct reader *reader;
    if (!hello->connected)
        return ferrule_fail(error, FERRULE_INVALID_STATE, "read_data before connect: call connect first");
    reader = (struct reader *)ferrule_reader_new(sizeof *reader, &ops, out, error);
    if (reader == NULL) return FERRULE_OUT_OF_MEMORY;
    reader->count = hello->count;
    reader->id = ferrule_json_int(in, in_len, "position", 0);
    return FERRULE_OK;
}

FERRULE_PLUGINS(FERRULE_PLUGIN("hello-source", struct hello, create, NULL, FERRULE_UNARY("connect", connect_source),
                               FERRULE_UNARY("schema", schema), FERRULE_STREAM("read_data", read_data),
                               FERRULE_UNARY("close", close_source)));

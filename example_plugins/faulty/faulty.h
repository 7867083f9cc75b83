/* What the faulty plugins share: a manifest from a few words, an instance that keeps its config, and exports.
 * Each file here is one library with one plugin, named as the file with dashes, and one fault. */
#ifndef FAULTY_H
#define FAULTY_H

#include "ferrule_sdk.h"

#define FAULTY_JSON(name, kind, methods)                                                                           \
    "{\"name\":\"" name "\",\"version\":\"0.1.0\",\"description\":\"For tests.\",\"plugins\":[{\"name\":\""           \
    name "\",\"kind\":\"" kind "\",\"language\":\"c\",\"config\":{\"type\":\"object\"},\"methods\":[" methods "]}]}"
#define FAULTY_MANIFEST(name, kind, methods) FERRULE__MANIFEST(FAULTY_JSON(name, kind, methods))
#define FAULTY_METHOD(name, mode) "{\"name\":\"" name "\",\"mode\":\"" mode "\"}"
#define FAULTY_PROCESS FAULTY_METHOD("process", "unary")
#define FAULTY_READ FAULTY_METHOD("read_data", "stream")

struct faulty {
    ferrule_instance base;
    const ferrule_host *host;
    uint64_t id;
    char *config;
    size_t config_len;
    int64_t count; /* of calls, or whatever the plugin counts */
};

FERRULE__UNUSED FERRULE_CREATE(faulty_create) {
    struct faulty *faulty = (struct faulty *)self;
    faulty->host = host;
    faulty->id = call->id;
    faulty->config = (char *)calloc(1, config_len + 1);
    if (faulty->config == NULL) return FERRULE_OUT_OF_MEMORY;
    if (config_len != 0) memcpy(faulty->config, config, config_len);
    faulty->config_len = config_len;
    return FERRULE_OK;
}

FERRULE__UNUSED static void faulty_destroy(void *self) { free(((struct faulty *)self)->config); }

/* An integer of the config. */
FERRULE__UNUSED static int64_t faulty_int(const void *self, const char *key, int64_t fallback) {
    const struct faulty *faulty = (const struct faulty *)self;
    return ferrule_json_int(faulty->config, faulty->config_len, key, fallback);
}

/* Sleeps that many milliseconds. */
#define FAULTY_PAUSE(ms)                                                                                  \
    do {                                                                                                  \
        const int64_t faulty_ms = (ms);                                                                   \
        const struct timespec faulty_time = {(time_t)(faulty_ms / 1000), (long)(faulty_ms % 1000 * 1000000)}; \
        nanosleep(&faulty_time, NULL);                                                                    \
    } while (0)

/* A stream; `faulty` is its instance. */
struct faulty_stream {
    ferrule_reader base;
    struct faulty *faulty;
    int64_t count;
};

FERRULE__UNUSED static int32_t faulty_open(void *self, const ferrule_stream_ops *ops, const uint8_t *in, size_t in_len,
                                           ferrule_stream **out, ferrule_buffer *error) {
    struct faulty_stream *stream = (struct faulty_stream *)ferrule_reader_new(sizeof *stream, ops, out, error);
    if (stream == NULL) return FERRULE_OUT_OF_MEMORY;
    stream->faulty = (struct faulty *)self;
    stream->count = ferrule_json_int(in, in_len, "position", 0);
    return FERRULE_OK;
}

/* {"id": N} */
FERRULE__UNUSED static int32_t faulty_record(int64_t id, ferrule_buffer *out, ferrule_buffer *error) {
    ferrule_record record;
    ferrule_record_begin(&record, out, error);
    ferrule_record_int(&record, "id", id);
    return ferrule_record_finish(&record);
}

FERRULE__UNUSED FERRULE_POSITION(faulty_position) {
    return ferrule_append_int(out, ((struct faulty_stream *)(void *)stream)->count);
}

/* A function plugin with this `process`. */
#define FAULTY_FUNCTION(name, process)                \
    FAULTY_MANIFEST(name, "function", FAULTY_PROCESS); \
    FERRULE_PLUGINS(                                   \
        FERRULE_PLUGIN(name, struct faulty, faulty_create, faulty_destroy, FERRULE_UNARY("process", process)))

/* A source plugin whose streams have this table. */
#define FAULTY_STREAM(name, ...)                                                                                   \
    FERRULE_OPEN(faulty_read) {                                                                                    \
        static const ferrule_stream_ops ops = __VA_ARGS__;                                                         \
        return faulty_open(self, &ops, in, in_len, out, error);                                                    \
    }                                                                                                              \
    FAULTY_MANIFEST(name, "source", FAULTY_READ);                                                                  \
    FERRULE_PLUGINS(                                                                                               \
        FERRULE_PLUGIN(name, struct faulty, faulty_create, faulty_destroy, FERRULE_STREAM("read_data", faulty_read)))

/* A source plugin with this `next`; its position is the stream's count. */
#define FAULTY_SOURCE(name, next) FAULTY_STREAM(name, FERRULE_READER(next, faulty_position, ferrule_reader_close))

/* A manifest in section .ferrule whose header is the fault: its magic, its ABI's minor, or its length, given as what is
 * added to the right one. Then ferrule_plugin_manifest is the plugin's to write. FAULTY_BYTES: the same, elsewhere. */
#define FAULTY_GOOD(name) FAULTY_JSON(name, "function", FAULTY_PROCESS)
#define FAULTY_BYTES(variable, magic, minor, more, text)  \
    static const struct {                                 \
        ferrule_manifest head;                            \
        char json[sizeof(text)];                          \
    } variable = {{magic, FERRULE_ABI_MAJOR, minor, sizeof(text) - 1 + (more)}, text}
#define FAULTY_SECTION(variable, magic, minor, more, text) \
    FERRULE__SECTION FAULTY_BYTES(variable, magic, minor, more, text)

/* A method table's honest parts, for the plugins whose table is the fault. */
FERRULE__UNUSED static int32_t faulty_method(FERRULE__UNUSED ferrule_instance *instance, const char *name,
                                             size_t name_len) {
    return name_len == 7 && memcmp(name, "process", 7) == 0 ? 0 : FERRULE_NOT_FOUND;
}
FERRULE__UNUSED static int32_t faulty_call(FERRULE__UNUSED ferrule_instance *instance, FERRULE__UNUSED int32_t method,
                                           FERRULE__UNUSED const ferrule_call *call, const uint8_t *in, size_t in_len,
                                           ferrule_buffer *out, FERRULE__UNUSED ferrule_buffer *error) {
    return ferrule_append(out, in, in_len);
}

/* The head of a create that a plugin writes itself, and a destroy that only frees. */
#define FAULTY_CREATE                                                                                              \
    int32_t ferrule_plugin_create(FERRULE__UNUSED const ferrule_host *host, FERRULE__UNUSED const ferrule_call *call, \
                                  FERRULE__UNUSED const char *plugin, FERRULE__UNUSED size_t plugin_len,           \
                                  FERRULE__UNUSED const char *config, FERRULE__UNUSED size_t config_len,           \
                                  FERRULE__UNUSED ferrule_instance **out, FERRULE__UNUSED ferrule_buffer *error)
#define FAULTY_DESTROY \
    void ferrule_plugin_destroy(ferrule_instance *instance) { free(instance); }

/* A function plugin whose instances have this table. */
#define FAULTY_TABLE(name, table)                                                     \
    FAULTY_MANIFEST(name, "function", FAULTY_PROCESS);                                \
    FAULTY_DESTROY                                                                    \
    FAULTY_CREATE {                                                                   \
        *out = (ferrule_instance *)calloc(1, sizeof(struct faulty));                  \
        if (*out == NULL) return FERRULE_OUT_OF_MEMORY;                               \
        (*out)->ops = (const ferrule_instance_ops *)(const void *)(table);            \
        return FERRULE_OK;                                                            \
    }                                                                                 \
    FAULTY_CREATE

#endif /* FAULTY_H */

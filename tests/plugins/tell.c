/* tell: plugins that tell what the host gave them, for the tests of instances and of the engine.
 *
 * runner `tell`      one method a question: see the manifest. `make` and `end` log as the instance is made and goes
 * runner `together`  the same lock-free: `meet` answers how many calls were inside at once
 * source `several`   config `count` records, `each` of them an item, with an empty line between two of them
 * source `spoilt`    five items: good, a raw newline in an object, no UTF-8, no object, good
 * source `ticks`     wakes: a record every config `ms`, from a thread of its own; with `count` 0 it waits for ever
 * source `large`     config `count` records of config `bytes` bytes each */
#include "ferrule_sdk.h"

#include <pthread.h>

FERRULE_MANIFEST({
    "name": "tell", "version": "0.1.0",
    "plugins": [
        {"name": "tell", "kind": "runner", "language": "c", "config": {"type": "object"},
         "methods": [
            {"name": "about", "mode": "unary"},
            {"name": "reverse", "mode": "unary", "input": "text/plain", "output": "text/plain"},
            {"name": "lines", "mode": "unary", "output": "application/x-ndjson"},
            {"name": "grow", "mode": "unary"},
            {"name": "reserve", "mode": "unary"},
            {"name": "sleep", "mode": "unary"},
            {"name": "log", "mode": "unary"},
            {"name": "both", "mode": "both"},
            {"name": "listed", "mode": "none"},
            {"name": "items", "mode": "stream"}]},
        {"name": "together", "kind": "runner", "language": "c", "threading": "concurrent", "config": {"type": "object"},
         "methods": [{"name": "meet", "mode": "unary"}]},
        {"name": "several", "kind": "source", "language": "c", "config": {"type": "object"},
         "methods": [{"name": "read_data", "mode": "stream", "output": "application/x-ndjson"}]},
        {"name": "spoilt", "kind": "source", "language": "c", "config": {"type": "object"},
         "methods": [{"name": "read_data", "mode": "stream"}]},
        {"name": "ticks", "kind": "source", "language": "c", "config": {"type": "object"},
         "methods": [{"name": "read_data", "mode": "stream"}]},
        {"name": "large", "kind": "source", "language": "c", "config": {"type": "object"},
         "methods": [{"name": "read_data", "mode": "stream"}]}
    ]
});

struct tell {
    ferrule_instance base;
    const ferrule_host *host;
    uint64_t id;
    char *config;
    size_t config_len;
    int32_t inside, most;
    int64_t calls;
};
struct reader {
    ferrule_reader base;
    struct tell *tell;
    int64_t given, woken; /* woken: ticks so far */
    uint64_t id;
    pthread_t thread;
    int threaded;
};

static int64_t config_int(const struct tell *tell, const char *key, int64_t fallback) {
    return ferrule_json_int(tell->config, tell->config_len, key, fallback);
}
static void nap(int64_t ms) {
    struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

FERRULE_CREATE(create) {
    struct tell *tell = self;
    tell->host = host;
    tell->id = call->id;
    tell->config = malloc(config_len + 1);
    memcpy(tell->config, config, config_len);
    tell->config_len = config_len;
    if (ferrule_json_bool(config, config_len, "say", 0)) ferrule_log(host, call->id, 20, "made");
    return FERRULE_OK;
}
static void destroy(void *self) {
    struct tell *tell = self;
    if (ferrule_json_bool(tell->config, tell->config_len, "say", 0)) ferrule_log(tell->host, tell->id, 20, "gone");
    free(tell->config);
}

/* ---- tell ---- */

FERRULE_CALL(about) {
    ferrule_record record;
    ferrule_record_begin(&record, out, error);
    ferrule_record_int(&record, "timeout_ms", call->timeout_ms);
    ferrule_record_int(&record, "cancelled", FERRULE_LOAD(call->cancelled));
    ferrule_record_bool(&record, "same_id", call->id == ((struct tell *)self)->id);
    if (call->metadata_len) ferrule_record_json(&record, "metadata", call->metadata, call->metadata_len);
    ferrule_record_string(&record, "input", (const char *)in, in_len);
    return ferrule_record_finish(&record);
}
FERRULE_CALL(reverse) {
    int32_t status = ferrule_reserve(out, in_len);
    for (size_t i = 0; status == FERRULE_OK && i < in_len; i++) out->data[out->len++] = in[in_len - 1 - i];
    return status;
}
FERRULE_CALL(lines) {
    int64_t count = ferrule_json_int(in, in_len, "count", 3);
    for (int64_t i = 0; i < count; i++) {
        ferrule_append_text(out, "{\"line\":");
        ferrule_append_int(out, i);
        ferrule_append_text(out, "}\n");
    }
    return FERRULE_OK;
}
FERRULE_CALL(grow) {
    static const char piece[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde.";
    int64_t left = ferrule_json_int(in, in_len, "bytes", 0) / 64;
    int32_t status = ferrule_append_text(out, "\"");
    for (; left > 0 && status == FERRULE_OK; left--) status = ferrule_append(out, piece, 64);
    return status == FERRULE_OK ? ferrule_append_text(out, "\"") : ferrule_fail(error, status, "no room");
}
FERRULE_CALL(reserve) {
    int64_t bytes = ferrule_json_int(in, in_len, "bytes", 0);
    int32_t status = ferrule_append_text(out, "1");
    status = out->reserve(out, bytes < 0 ? (size_t)-1 : (size_t)bytes);
    return status == FERRULE_OK ? status : ferrule_fail(error, status, "%lld bytes were refused", (long long)bytes);
}
FERRULE_CALL(sleep_call) {
    struct tell *tell = self;
    int64_t before = tell->calls;
    nap(ferrule_json_int(in, in_len, "ms", 0));
    tell->calls = before + 1; /* a call beside this one would be lost */
    return ferrule_append_int(out, tell->calls);
}
FERRULE_CALL(log_call) {
    const struct tell *tell = self;
    size_t length = 0, fields_len = 0;
    char *message = ferrule_json_string(in, in_len, "message", "", &length);
    const char *fields = ferrule_json_find(in, in_len, "fields", &fields_len);
    int64_t times = ferrule_json_int(in, in_len, "times", 1);
    int32_t level = (int32_t)ferrule_json_int(in, in_len, "level", 20);
    int64_t lengthened = ferrule_json_int(in, in_len, "bytes", 0);
    if (lengthened) {
        message = realloc(message, length = (size_t)lengthened);
        memset(message, 'x', length);
    }
    for (; times > 0; times--) tell->host->log(tell->host, tell->id, level, message, length, fields, fields ? fields_len : 0);
    free(message);
    return ferrule_append_int(out, tell->host->log_enabled(tell->host, tell->id, level));
}
FERRULE_CALL(once) { return ferrule_append_text(out, "\"once\""); }

FERRULE_NEXT(items_next) {
    struct reader *reader = (struct reader *)(void *)stream;
    return reader->given == 3 ? FERRULE_END : ferrule_append_int(out, ++reader->given);
}
FERRULE_POSITION(position) { return ferrule_append_int(out, ((struct reader *)(void *)stream)->given); }

static int32_t open_stream(void *self, const ferrule_call *call, const uint8_t *in, size_t in_len,
                           const ferrule_stream_ops *ops, ferrule_stream **out, ferrule_buffer *error) {
    struct reader *reader = ferrule_reader_new(sizeof *reader, ops, out, error);
    if (reader == NULL) return FERRULE_OUT_OF_MEMORY;
    reader->tell = self;
    reader->id = call->id;
    reader->given = ferrule_json_int(in, in_len, "position", 0);
    return FERRULE_OK;
}
FERRULE_OPEN(items) {
    static const ferrule_stream_ops ops = FERRULE_READER(items_next, position, ferrule_reader_close);
    return open_stream(self, call, in, in_len, &ops, out, error);
}

/* ---- together ---- */

FERRULE_CALL(meet) {
    struct tell *tell = self;
    int32_t inside = __atomic_add_fetch(&tell->inside, 1, __ATOMIC_SEQ_CST);
    nap(ferrule_json_int(in, in_len, "ms", 50));
    int32_t most = __atomic_load_n(&tell->inside, __ATOMIC_SEQ_CST);
    __atomic_sub_fetch(&tell->inside, 1, __ATOMIC_SEQ_CST);
    return ferrule_append_int(out, most > inside ? most : inside);
}

/* ---- sources ---- */

FERRULE_NEXT(several_next) {
    struct reader *reader = (struct reader *)(void *)stream;
    int64_t count = config_int(reader->tell, "count", 10), each = config_int(reader->tell, "each", 4);
    if (reader->given == count) return FERRULE_END;
    for (int64_t i = 0; i < each && reader->given < count; i++) {
        if (i == 1) ferrule_append_text(out, "\n");
        ferrule_append_text(out, "{\"n\":");
        ferrule_append_int(out, ++reader->given);
        ferrule_append_text(out, i == each - 1 ? "}" : "}\n");
    }
    return FERRULE_OK;
}
FERRULE_OPEN(several) {
    static const ferrule_stream_ops ops = FERRULE_READER(several_next, position, ferrule_reader_close);
    return open_stream(self, call, in, in_len, &ops, out, error);
}

FERRULE_NEXT(spoilt_next) {
    static const char *const given[] = {"{\"n\":1}", "{\"n\":2,\n\"m\":2}", "{\"n\":\"\xFF\"}", "[4]", "{\"n\":5}"};
    struct reader *reader = (struct reader *)(void *)stream;
    return reader->given == 5 ? FERRULE_END : ferrule_append_text(out, given[reader->given++]);
}
FERRULE_OPEN(spoilt) {
    static const ferrule_stream_ops ops = FERRULE_READER(spoilt_next, position, ferrule_reader_close);
    return open_stream(self, call, in, in_len, &ops, out, error);
}

FERRULE_NEXT(large_next) {
    struct reader *reader = (struct reader *)(void *)stream;
    int64_t bytes = config_int(reader->tell, "bytes", 100);
    if (reader->given == config_int(reader->tell, "count", 10)) return FERRULE_END;
    size_t begin = out->len;
    ferrule_append_text(out, "{\"n\":");
    ferrule_append_int(out, ++reader->given);
    ferrule_append_text(out, ",\"pad\":\"");
    int32_t status = ferrule_reserve(out, (size_t)bytes);
    if (status != FERRULE_OK) return ferrule_fail(error, status, "no room");
    while ((int64_t)(out->len - begin) < bytes - 2) out->data[out->len++] = 'x';
    return ferrule_append_text(out, "\"}");
}
FERRULE_OPEN(large) {
    static const ferrule_stream_ops ops = FERRULE_READER(large_next, position, ferrule_reader_close);
    return open_stream(self, call, in, in_len, &ops, out, error);
}

static void *tick(void *data) {
    struct reader *reader = data;
    int64_t count = config_int(reader->tell, "count", 3);
    while (!ferrule_reader_cancelled(reader) && reader->woken <= count) {
        nap(config_int(reader->tell, "ms", 10));
        if (__atomic_add_fetch(&reader->woken, 1, __ATOMIC_SEQ_CST) <= count + 1 && count)
            reader->tell->host->wake(reader->tell->host, reader->id);
    }
    return NULL;
}
FERRULE_NEXT(ticks_next) {
    struct reader *reader = (struct reader *)(void *)stream;
    int64_t count = config_int(reader->tell, "count", 3);
    if (count && reader->given == count) return FERRULE_END;
    if (count == 0 || reader->given >= __atomic_load_n(&reader->woken, __ATOMIC_SEQ_CST)) {
        if (ferrule_reader_cancelled(reader)) return ferrule_fail(error, FERRULE_CANCELLED, "cancelled");
        return FERRULE_PENDING;
    }
    ferrule_append_text(out, "{\"n\":");
    ferrule_append_int(out, ++reader->given);
    return ferrule_append_text(out, "}");
}
static void ticks_close(ferrule_stream *stream) {
    struct reader *reader = (struct reader *)(void *)stream;
    ferrule_reader_cancel(stream);
    if (reader->threaded) pthread_join(reader->thread, NULL);
    ferrule_reader_close(stream);
}
FERRULE_OPEN(ticks) {
    static const ferrule_stream_ops ops = {sizeof ops,    FERRULE_STREAM_WAKES, ferrule_reader_cancel, ticks_close,
                                           ticks_next, NULL,                 position,              NULL, NULL};
    int32_t status = open_stream(self, call, in, in_len, &ops, out, error);
    if (status == FERRULE_OK && config_int(self, "count", 3)) {
        struct reader *reader = (struct reader *)(void *)*out;
        reader->threaded = pthread_create(&reader->thread, NULL, tick, reader) == 0;
    }
    return status;
}

#define TELL(name, ...) FERRULE_PLUGIN(name, struct tell, create, destroy, __VA_ARGS__)
FERRULE_PLUGINS(TELL("tell", FERRULE_UNARY("about", about), FERRULE_UNARY("reverse", reverse),
                     FERRULE_UNARY("lines", lines), FERRULE_UNARY("grow", grow), FERRULE_UNARY("reserve", reserve),
                     FERRULE_UNARY("sleep", sleep_call), FERRULE_UNARY("log", log_call), {"both", once, items},
                     FERRULE_STREAM("items", items)),
                TELL("together", FERRULE_UNARY("meet", meet)), TELL("several", FERRULE_STREAM("read_data", several)),
                TELL("spoilt", FERRULE_STREAM("read_data", spoilt)), TELL("ticks", FERRULE_STREAM("read_data", ticks)),
                TELL("large", FERRULE_STREAM("read_data", large)));

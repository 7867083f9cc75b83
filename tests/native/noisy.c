/* noisy: plugins that talk from threads of their own, for the sanitizers.
 *
 * source `noisy`    config `count` records from a thread of its own, which logs and wakes; bad items in between
 * function `noisy`  passes a record on, and logs */
#define _GNU_SOURCE
#include "ferrule_sdk.h"

#include <pthread.h>
#include <unistd.h>

FERRULE_MANIFEST({
    "name": "noisy", "version": "0.1.0",
    "plugins": [
        {"name": "noisy", "kind": "source", "language": "c", "config": {"type": "object"},
         "methods": [{"name": "read_data", "mode": "stream"}]},
        {"name": "noisy-step", "kind": "function", "language": "c", "methods": [{"name": "process", "mode": "unary"}]}
    ]
});

struct noisy { ferrule_instance base; const ferrule_host *host; uint64_t id; int64_t count; };
struct noisy_reader {
    ferrule_reader base;
    const ferrule_host *host;
    uint64_t id;
    int64_t count, made, given;
    int32_t ending;
    pthread_t thread;
    pthread_mutex_t mutex;
};

FERRULE_CREATE(noisy_create) {
    struct noisy *noisy = self;
    noisy->host = host;
    noisy->id = call->id;
    noisy->count = ferrule_json_int(config, config_len, "count", 100);
    return FERRULE_OK;
}

static void *produce(void *argument) {
    struct noisy_reader *reader = argument;
    int more = 1;
    for (unsigned i = 0; more; i++) {
        pthread_mutex_lock(&reader->mutex);
        reader->made += 1 + i % 7;
        if (reader->made > reader->count) reader->made = reader->count;
        more = reader->made < reader->count && !reader->ending;
        pthread_mutex_unlock(&reader->mutex);
        if (i % 16 == 0) reader->host->log(reader->host, reader->id, 20, "made some", 9, "{\"a\":1}", 7);
        reader->host->wake(reader->host, reader->id);
        if (i % 64 == 0) usleep(100);
    }
    return NULL;
}

FERRULE_NEXT(noisy_next) {
    struct noisy_reader *reader = (struct noisy_reader *)(void *)stream;
    char text[100];
    int64_t number = 0;
    (void)timeout_ms;
    pthread_mutex_lock(&reader->mutex);
    if (reader->given < reader->made) number = ++reader->given;
    const int ended = number == 0 && reader->given == reader->count;
    pthread_mutex_unlock(&reader->mutex);
    if (number == 0) return ended ? FERRULE_END : FERRULE_PENDING;
    if (number % 50 == 0) return ferrule_fail(error, FERRULE_INVALID_DATA, "a bad item");
    snprintf(text, sizeof text, "{\"n\":%lld,\"act\":\"%s\"}", (long long)number, number % 9 ? "ok" : "flaky");
    return ferrule_append_text(out, text);
}
FERRULE_POSITION(noisy_position) {
    return ferrule_append_int(out, ((struct noisy_reader *)(void *)stream)->given);
}
static void noisy_close(ferrule_stream *stream) {
    struct noisy_reader *reader = (struct noisy_reader *)(void *)stream;
    pthread_mutex_lock(&reader->mutex);
    reader->ending = 1;
    pthread_mutex_unlock(&reader->mutex);
    pthread_join(reader->thread, NULL);
    pthread_mutex_destroy(&reader->mutex);
    ferrule_reader_close(stream);
}
static void noisy_cancel(ferrule_stream *stream) { (void)stream; }

FERRULE_OPEN(noisy_read) {
    static const ferrule_stream_ops ops = {
        sizeof(ferrule_stream_ops), FERRULE_STREAM_WAKES, noisy_cancel, noisy_close, noisy_next, NULL, noisy_position,
        NULL, NULL};
    struct noisy *noisy = self;
    struct noisy_reader *reader = (struct noisy_reader *)ferrule_reader_new(sizeof *reader, &ops, out, error);
    if (reader == NULL) return FERRULE_OUT_OF_MEMORY;
    reader->host = noisy->host;
    reader->id = call->id;
    reader->count = noisy->count;
    pthread_mutex_init(&reader->mutex, NULL);
    return pthread_create(&reader->thread, NULL, produce, reader) == 0 ? FERRULE_OK : FERRULE_INTERNAL;
}

FERRULE_CALL(noisy_process) {
    const struct noisy *noisy = self;
    if (in_len % 5 == 0) noisy->host->log(noisy->host, noisy->id, 30, "a record", 8, NULL, 0);
    return ferrule_append(out, in, in_len);
}

FERRULE_PLUGINS(FERRULE_PLUGIN("noisy", struct noisy, noisy_create, NULL, FERRULE_STREAM("read_data", noisy_read)),
                FERRULE_PLUGIN("noisy-step", struct noisy, noisy_create, NULL, FERRULE_UNARY("process", noisy_process)));

/* lab: streams that do what the test says, for the tests of the host's streams.
 *
 * runner `lab`        concurrent; runner `lab-serial`: the same, serial
 *   script            stream; `next` and `feed`: a letter a call (the last one goes on), see answer_of; `flags`: of its
 *                     table; `metadata`, `size`, `newline`: of its items; `wait`: ms that next waits, whatever it is told
 *   pipe              stream with wakes that never come: gives back what it is fed, `room` blocks at most in between
 *   waiter            stream without wakes: waits in next for its timeout or for cancel
 *   counts            how often the streams' functions, and sleep, were called
 *   wake              wakes the stream `id`, `times` times
 *   sleep             `ms` milliseconds, or until cancelled; answers with the timeout that it was given
 *   stick             never comes back */
#include "ferrule_sdk.h"

#include <pthread.h>
#include <unistd.h>

FERRULE_MANIFEST({
    "name": "lab", "version": "0.1.0",
    "plugins": [
        {"name": "lab", "kind": "runner", "language": "c", "threading": "concurrent", "methods":
            [{"name": "script", "mode": "stream"}, {"name": "pipe", "mode": "stream"},
             {"name": "waiter", "mode": "stream"}, {"name": "counts", "mode": "unary"},
             {"name": "wake", "mode": "unary"}, {"name": "sleep", "mode": "unary"}, {"name": "stick", "mode": "unary"}]},
        {"name": "lab-serial", "kind": "runner", "language": "c", "methods":
            [{"name": "script", "mode": "stream"}, {"name": "pipe", "mode": "stream"},
             {"name": "waiter", "mode": "stream"}, {"name": "counts", "mode": "unary"},
             {"name": "wake", "mode": "unary"}, {"name": "sleep", "mode": "unary"}, {"name": "stick", "mode": "unary"}]}
    ]
});

struct counts { int32_t next, feed, position, metadata, cancel, close, sleep; };
struct lab { ferrule_instance base; const ferrule_host *host; struct counts counts; };
struct block { struct block *following; size_t length; char bytes[]; };
struct stream {
    ferrule_stream base;
    struct lab *lab;
    uint64_t id;
    int32_t cancelled;
    char next[64], feed[64];
    const char *next_at, *feed_at;
    int64_t size, newline, wait, given;
    pthread_mutex_t mutex;
    struct block *first, **last;
    int64_t blocks, room;
    int final;
};

#define ADD(count) __atomic_add_fetch(&((struct stream *)stream)->lab->counts.count, 1, __ATOMIC_SEQ_CST)

static void pause_ms(int64_t ms) {
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int32_t answer_of(const char **at, ferrule_buffer *error) {
    const char letter = **at;
    if ((*at)[1] != 0) ++*at;
    switch (letter) {
    case 'O': return FERRULE_OK;
    case 'E': return FERRULE_END;
    case 'P': return FERRULE_PENDING;
    case 'S': return FERRULE_SKIP;
    case 'D': return ferrule_fail(error, FERRULE_INVALID_DATA, "one bad item");
    case 'U': return ferrule_fail(error, FERRULE_UNAVAILABLE, "later");
    case 'T': return ferrule_fail(error, FERRULE_TIMEOUT, "too slow");
    case 'I': return ferrule_fail(error, FERRULE_IO, "the disk is gone");
    case 'C': return ferrule_fail(error, FERRULE_CANCELLED, "cancelled");
    case 'X': return ferrule_fail(error, FERRULE_PANIC, "at lab.c:1");
    default: return 99;
    }
}

static void cancel(ferrule_stream *stream) {
    ADD(cancel);
    __atomic_store_n(&((struct stream *)stream)->cancelled, 1, __ATOMIC_SEQ_CST);
}
static void close_stream(ferrule_stream *stream) {
    struct stream *self = (struct stream *)stream;
    ADD(close);
    while (self->first != NULL) {
        struct block *block = self->first;
        self->first = block->following;
        free(block);
    }
    pthread_mutex_destroy(&self->mutex);
    free(self);
}
static int32_t position(ferrule_stream *stream, ferrule_buffer *out, ferrule_buffer *error) {
    (void)error;
    ADD(position);
    return ferrule_append_int(out, ((struct stream *)stream)->given);
}
static int32_t metadata(ferrule_stream *stream, ferrule_buffer *out, ferrule_buffer *error) {
    (void)error;
    ADD(metadata);
    char text[64];
    snprintf(text, sizeof text, "{\"given\":%lld}", (long long)((struct stream *)stream)->given);
    return ferrule_append_text(out, text);
}

static int32_t script_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error) {
    struct stream *self = (struct stream *)stream;
    (void)timeout_ms;
    ADD(next);
    if (self->wait) pause_ms(self->wait);
    int32_t status = answer_of(&self->next_at, error);
    if (status != FERRULE_OK) return status;
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)self->given++);
    status = ferrule_append_text(out, text);
    for (int64_t i = (int64_t)strlen(text); status == FERRULE_OK && i < self->size; i++)
        status = ferrule_append(out, i == self->newline ? "\n" : "x", 1);
    return status;
}
static int32_t script_feed(ferrule_stream *stream, const uint8_t *in, size_t in_len, int32_t final,
                           ferrule_buffer *error) {
    (void)in, (void)in_len, (void)final;
    ADD(feed);
    return answer_of(&((struct stream *)stream)->feed_at, error);
}

static int32_t pipe_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error) {
    struct stream *self = (struct stream *)stream;
    (void)timeout_ms;
    ADD(next);
    if (__atomic_load_n(&self->cancelled, __ATOMIC_SEQ_CST)) return ferrule_fail(error, FERRULE_CANCELLED, "cancelled");
    pthread_mutex_lock(&self->mutex);
    struct block *block = self->first;
    const int final = self->final;
    if (block != NULL) {
        self->first = block->following;
        if (self->first == NULL) self->last = &self->first;
        self->blocks--;
    }
    pthread_mutex_unlock(&self->mutex);
    if (block == NULL) return final ? FERRULE_END : FERRULE_PENDING;
    int32_t status = ferrule_append(out, (const uint8_t *)block->bytes, block->length);
    free(block);
    return status;
}
static int32_t pipe_feed(ferrule_stream *stream, const uint8_t *in, size_t in_len, int32_t final,
                         ferrule_buffer *error) {
    struct stream *self = (struct stream *)stream;
    ADD(feed);
    if (__atomic_load_n(&self->cancelled, __ATOMIC_SEQ_CST)) return ferrule_fail(error, FERRULE_CANCELLED, "cancelled");
    pthread_mutex_lock(&self->mutex);
    const int full = self->blocks >= self->room;
    if (!full) {
        if (in_len) {
            struct block *block = malloc(sizeof *block + in_len);
            block->following = NULL;
            block->length = in_len;
            memcpy(block->bytes, in, in_len);
            *self->last = block;
            self->last = &block->following;
            self->blocks++;
        }
        self->final = self->final || final;
    }
    pthread_mutex_unlock(&self->mutex);
    return full ? FERRULE_PENDING : FERRULE_OK;
}

static int32_t waiter_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error) {
    struct stream *self = (struct stream *)stream;
    (void)out;
    ADD(next);
    for (int64_t waited = 0; timeout_ms < 0 || waited < timeout_ms; waited++) {
        if (self->wait == 0 && __atomic_load_n(&self->cancelled, __ATOMIC_SEQ_CST))
            return ferrule_fail(error, FERRULE_CANCELLED, "cancelled");
        pause_ms(1);
    }
    return ferrule_fail(error, FERRULE_TIMEOUT, "nothing came");
}

#define TABLE(flags, metadata) \
    {sizeof(ferrule_stream_ops), flags, cancel, close_stream, script_next, script_feed, position, metadata, NULL}
static const ferrule_stream_ops script_tables[2][4] = {{TABLE(0, NULL), TABLE(1, NULL), TABLE(2, NULL), TABLE(3, NULL)},
                                                       {TABLE(0, metadata), TABLE(1, metadata), TABLE(2, metadata),
                                                        TABLE(3, metadata)}};
static const ferrule_stream_ops pipe_table = {
    sizeof pipe_table, FERRULE_STREAM_UNLOCKED | FERRULE_STREAM_WAKES, cancel, close_stream, pipe_next, pipe_feed,
    NULL, NULL, NULL};
static const ferrule_stream_ops waiter_table = {
    sizeof waiter_table, FERRULE_STREAM_UNLOCKED, cancel, close_stream, waiter_next, NULL, NULL, NULL, NULL};

static void text_of(const uint8_t *in, size_t in_len, const char *key, const char *fallback, char *to, size_t size) {
    size_t length;
    const char *raw = ferrule_json_find(in, in_len, key, &length);
    snprintf(to, size, "%s", fallback);
    if (raw != NULL && length - 2 < size) {
        memcpy(to, raw + 1, length - 2);
        to[length - 2] = 0;
    }
}

static int32_t open_stream(void *lab, const ferrule_call *call, const ferrule_stream_ops *ops, const uint8_t *in,
                           size_t in_len, ferrule_stream **out) {
    struct stream *self = calloc(1, sizeof *self);
    if (self == NULL) return FERRULE_OUT_OF_MEMORY;
    self->base.ops = ops;
    self->lab = lab;
    self->id = call->id;
    text_of(in, in_len, "next", "E", self->next, sizeof self->next);
    text_of(in, in_len, "feed", "O", self->feed, sizeof self->feed);
    self->next_at = self->next;
    self->feed_at = self->feed;
    self->size = ferrule_json_int(in, in_len, "size", 0);
    self->newline = ferrule_json_int(in, in_len, "newline", -1);
    self->wait = ferrule_json_int(in, in_len, "wait", 0);
    self->room = ferrule_json_int(in, in_len, "room", 4);
    self->last = &self->first;
    pthread_mutex_init(&self->mutex, NULL);
    *out = &self->base;
    return call->metadata_out == NULL ? FERRULE_OK : ferrule_append_text(call->metadata_out, "{\"opened\":true}");
}

FERRULE_CREATE(create) {
    ((struct lab *)self)->host = host;
    return FERRULE_OK;
}
FERRULE_OPEN(open_script) {
    const int metadata = ferrule_json_int(in, in_len, "metadata", 0) != 0;
    return open_stream(self, call, &script_tables[metadata][ferrule_json_int(in, in_len, "flags", 3) & 3], in, in_len, out);
}
FERRULE_OPEN(open_pipe) { return open_stream(self, call, &pipe_table, in, in_len, out); }
FERRULE_OPEN(open_waiter) { return open_stream(self, call, &waiter_table, in, in_len, out); }
FERRULE_CALL(counts) {
    const struct counts *now = &((struct lab *)self)->counts;
    char text[200];
    snprintf(text, sizeof text, "{\"next\":%d,\"feed\":%d,\"position\":%d,\"metadata\":%d,\"cancel\":%d,\"close\":%d,"
             "\"sleep\":%d}",
             FERRULE_LOAD(&now->next), FERRULE_LOAD(&now->feed), FERRULE_LOAD(&now->position),
             FERRULE_LOAD(&now->metadata), FERRULE_LOAD(&now->cancel), FERRULE_LOAD(&now->close), FERRULE_LOAD(&now->sleep));
    return ferrule_append_text(out, text);
}
FERRULE_CALL(wake) {
    const ferrule_host *host = ((struct lab *)self)->host;
    for (int64_t left = ferrule_json_int(in, in_len, "times", 1); left > 0; left--)
        host->wake(host, (uint64_t)ferrule_json_int(in, in_len, "id", 0));
    return ferrule_append_text(out, "null");
}
FERRULE_CALL(sleep_ms) {
    __atomic_add_fetch(&((struct lab *)self)->counts.sleep, 1, __ATOMIC_SEQ_CST);
    for (int64_t left = ferrule_json_int(in, in_len, "ms", 0); left > 0; left--) {
        if (FERRULE_LOAD(call->cancelled)) return ferrule_fail(error, FERRULE_CANCELLED, "cancelled inside");
        pause_ms(1);
    }
    return ferrule_append_int(out, call->timeout_ms);
}
FERRULE_CALL(stick) {
    while (self != NULL) pause_ms(1000);
    return FERRULE_OK;
}

#define LAB(name)                                                                                                  \
    FERRULE_PLUGIN(name, struct lab, create, NULL, FERRULE_STREAM("script", open_script),                          \
                   FERRULE_STREAM("pipe", open_pipe), FERRULE_STREAM("waiter", open_waiter),                       \
                   FERRULE_UNARY("counts", counts), FERRULE_UNARY("wake", wake), FERRULE_UNARY("sleep", sleep_ms), \
                   FERRULE_UNARY("stick", stick))
FERRULE_PLUGINS(LAB("lab"), LAB("lab-serial"));

/* jobs: streams to measure with.
 *
 * items   {"count": N, "bytes": B}: next gives an item of B bytes, N times, with nothing in between
 * pushed  the same from a thread of the plugin's own
 * stamps  {"count": N, "gap_us": G}: a thread pushes the monotonic clock, G microseconds apart; with "fd": F it writes
 *         the clock to that descriptor instead, and pushes nothing
 * eat     is fed, and takes each piece unread, as memcpy does; gives back how many bytes there were
 * looks   a thread that looks at its cancel flag each millisecond, and pushes the clock when it has seen it */
#include "ferrule_pusher.h"

#include <unistd.h>

FERRULE_MANIFEST({
    "name": "bench-jobs",
    "version": "0.1.0",
    "plugins": [{
        "name": "jobs", "kind": "runner", "language": "c", "threading": "concurrent",
        "methods": [
            {"name": "items", "mode": "stream", "output": "application/octet-stream"},
            {"name": "pushed", "mode": "stream", "output": "application/octet-stream"},
            {"name": "stamps", "mode": "stream", "output": "application/octet-stream"},
            {"name": "eat", "mode": "stream", "need_feed": true},
            {"name": "looks", "mode": "stream", "cancellable": true}
        ]
    }]
});

struct jobs { ferrule_instance base; const ferrule_host *host; };

struct wanted { int64_t count, bytes, gap_us, fd; };

FERRULE_CREATE(create) {
    ((struct jobs *)self)->host = host;
    return FERRULE_OK;
}

static struct wanted *wanted_of(const uint8_t *in, size_t in_len) {
    struct wanted *wanted = (struct wanted *)malloc(sizeof *wanted);
    if (wanted != NULL) {
        wanted->count = ferrule_json_int((const char *)in, in_len, "count", 1);
        wanted->bytes = ferrule_json_int((const char *)in, in_len, "bytes", 16);
        wanted->gap_us = ferrule_json_int((const char *)in, in_len, "gap_us", 0);
        wanted->fd = ferrule_json_int((const char *)in, in_len, "fd", -1);
    }
    return wanted;
}

/* ---- items --------------------------------------------------------------------------------------- */

struct items { ferrule_reader base; struct wanted wanted; };

static const char filler[4096] = {'x'};

FERRULE_NEXT(items_next) {
    struct items *items = (struct items *)(void *)stream;
    return items->wanted.count-- > 0 ? ferrule_append(out, filler, (size_t)items->wanted.bytes) : FERRULE_END;
}
FERRULE_OPEN(items_open) {
    static const ferrule_stream_ops ops = FERRULE_STREAM_OPS(FERRULE_STREAM_UNLOCKED | FERRULE_STREAM_WAKES, items_next,
                                                             NULL, NULL, NULL, ferrule_reader_close);
    struct items *items = (struct items *)ferrule_reader_new(sizeof *items, &ops, out, error);
    struct wanted *wanted = wanted_of(in, in_len);
    if (items == NULL || wanted == NULL) return FERRULE_OUT_OF_MEMORY;
    items->wanted = *wanted;
    free(wanted);
    return FERRULE_OK;
}

/* ---- threads --------------------------------------------------------------------------------------- */

FERRULE_WORK(push_items) {
    struct wanted *wanted = (struct wanted *)state;
    int32_t status = FERRULE_OK;
    while (status == FERRULE_OK && wanted->count-- > 0) {
        status = ferrule_push(pusher, filler, (size_t)wanted->bytes);
    }
    return status;
}

FERRULE_WORK(push_stamps) {
    struct wanted *wanted = (struct wanted *)state;
    int32_t status = FERRULE_OK;
    while (status == FERRULE_OK && wanted->count-- > 0) {
        struct timespec gap = {0, (long)(wanted->gap_us * 1000)};
        int64_t now;
        nanosleep(&gap, NULL);
        now = ferrule_monotonic_ns();
        if (wanted->fd < 0) status = ferrule_push(pusher, &now, sizeof now);
        else if (write((int)wanted->fd, &now, sizeof now) < 0) status = FERRULE_IO;
    }
    return status;
}

FERRULE_WORK(eat) {
    const uint8_t *bytes;
    size_t len;
    int64_t total = 0;
    while (ferrule_pull(pusher, &bytes, &len) == FERRULE_OK) total += (int64_t)len;
    ferrule_append_int(out, total);
    return ferrule_push_buffer(pusher, out);
}

FERRULE_WORK(look) {
    struct timespec pause = {0, 1000000};
    while (!ferrule_push_cancelled(pusher)) nanosleep(&pause, NULL);
    return FERRULE_OK;
}

#define OPEN(name, work)                                                                                              \
    FERRULE_OPEN(name) {                                                                                              \
        return ferrule_pusher_open(((struct jobs *)self)->host, call, 0, work, wanted_of(in, in_len), free, out, error); \
    }
OPEN(pushed_open, push_items)
OPEN(stamps_open, push_stamps)
OPEN(looks_open, look)
FERRULE_OPEN(eat_open) {
    return ferrule_pusher_open(((struct jobs *)self)->host, call, FERRULE_PUSHER_FEED, eat, NULL, NULL, out, error);
}

FERRULE_PLUGINS(FERRULE_PLUGIN("jobs", struct jobs, create, NULL, FERRULE_STREAM("items", items_open),
                               FERRULE_STREAM("pushed", pushed_open), FERRULE_STREAM("stamps", stamps_open),
                               FERRULE_STREAM("eat", eat_open), FERRULE_STREAM("looks", looks_open)));

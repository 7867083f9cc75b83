/* wakes-after-close: A stream of one record whose thread wakes the host for it every millisecond, from its opening
 * until the process ends: also after close and destroy.
 * The host must: ignore the dead id, and exit cleanly while the thread still wakes. */
#include "faulty.h"
#include <pthread.h>

struct waker {
    const ferrule_host *host;
    uint64_t id;
};

static void *wake_for_ever(void *data) {
    const struct waker *waker = (const struct waker *)data;
    for (;;) {
        waker->host->wake(waker->host, waker->id);
        FAULTY_PAUSE(1);
    }
    return NULL;
}

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    return self->count != 0 ? FERRULE_END : faulty_record(++self->count, out, error);
}

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops =
        FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES, next, NULL, NULL, NULL, ferrule_reader_close);
    struct waker *waker = (struct waker *)malloc(sizeof *waker); /* never freed: the thread never ends */
    pthread_t thread;
    if (waker == NULL) return FERRULE_OUT_OF_MEMORY;
    waker->host = ((struct faulty *)self)->host;
    waker->id = call->id;
    if (pthread_create(&thread, NULL, wake_for_ever, waker) != 0) {
        free(waker);
        return ferrule_fail(error, FERRULE_UNAVAILABLE, "No thread");
    }
    pthread_detach(thread);
    return faulty_open(self, &ops, in, in_len, out, error);
}

FAULTY_MANIFEST("wakes-after-close", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("wakes-after-close", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

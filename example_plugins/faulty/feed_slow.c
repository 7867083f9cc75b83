/* feed-slow: feed takes config `ms` (default 300) and looks at nothing meanwhile; a close that comes while it is under
 * way aborts. `next` has nothing until cancel.
 * The host must: read, cancel and answer time limits beside it, and close the stream once it has returned. */
#include "faulty.h"

FERRULE_NEXT(next) {
    return ferrule_reader_cancelled(stream) ? ferrule_fail(error, FERRULE_CANCELLED, "Cancelled while it was fed")
                                            : FERRULE_PENDING;
}

FERRULE_FEED(feed) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    int64_t ms = faulty_int(self->faulty, "ms", 300);
    const struct timespec pause = {(time_t)(ms / 1000), (long)(ms % 1000 * 1000000)};
    self->count = 1; /* read by close alone, which the host never lets run beside this */
    nanosleep(&pause, NULL);
    self->count = 0;
    return FERRULE_OK;
}

static void close_slow(ferrule_stream *stream) {
    if (((struct faulty_stream *)(void *)stream)->count != 0) abort();
    ferrule_reader_close(stream);
}

FAULTY_STREAM("feed-slow", FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES | FERRULE_STREAM_UNLOCKED, next, feed, NULL, NULL,
                                              close_slow));

/* feed-slow: feed takes config `ms` (default 300) and looks at nothing meanwhile; a close that comes while it is under
 * way aborts. `next` has nothing until cancel; the position is 1 while feed is under way.
 * The host must: read, cancel and answer time limits beside it, and close the stream once it has returned. */
#include "faulty.h"

FERRULE_NEXT(next) {
    return ferrule_reader_cancelled(stream) ? ferrule_fail(error, FERRULE_CANCELLED, "Cancelled while it was fed")
                                            : FERRULE_PENDING;
}

FERRULE_FEED(feed) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    __atomic_store_n(&self->count, 1, __ATOMIC_SEQ_CST);
    FAULTY_PAUSE(faulty_int(self->faulty, "ms", 300));
    __atomic_store_n(&self->count, 0, __ATOMIC_SEQ_CST);
    return FERRULE_OK;
}

FERRULE_POSITION(position) {
    return ferrule_append_int(out, __atomic_load_n(&((struct faulty_stream *)(void *)stream)->count, __ATOMIC_SEQ_CST));
}

static void close_slow(ferrule_stream *stream) {
    if (((struct faulty_stream *)(void *)stream)->count != 0) abort();
    ferrule_reader_close(stream);
}

FAULTY_STREAM("feed-slow", FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES | FERRULE_STREAM_UNLOCKED, next, feed, position, NULL,
                                              close_slow));

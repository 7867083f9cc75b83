/* feed-status: feed answers with config `status` (default SKIP). `next` gives one record, then has nothing until
 * cancel.
 * The host must: hand on END and PENDING, wait for room as long as it is told to; go on after INVALID_DATA,
 * UNAVAILABLE, TIMEOUT; on other errors end the stream, for its reader too; treat SKIP and every undefined number as
 * INTERNAL and poison. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (ferrule_reader_cancelled(self)) return ferrule_fail(error, FERRULE_CANCELLED, "Cancelled while it was fed");
    return self->count != 0 ? FERRULE_PENDING : faulty_record(++self->count, out, error);
}

FERRULE_FEED(feed) {
    return (int32_t)faulty_int(((struct faulty_stream *)(void *)stream)->faulty, "status", FERRULE_SKIP);
}

FAULTY_STREAM("feed-status", FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES | FERRULE_STREAM_UNLOCKED, next, feed, NULL, NULL,
                                                ferrule_reader_close));

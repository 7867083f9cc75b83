/* next-waits: A source that waits in `next` after config `items` records (default 2): until the timeout, answering
 * TIMEOUT, or until cancel, answering CANCELLED.
 * The host must: hand on the records that came, without waiting for a full chunk; end at once on cancel. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    int64_t waited;
    if (self->count < faulty_int(self->faulty, "items", 2)) return faulty_record(++self->count, out, error);
    for (waited = 0; timeout_ms < 0 || waited < timeout_ms; waited++) {
        if (ferrule_reader_cancelled(self)) return ferrule_fail(error, FERRULE_CANCELLED, "Cancelled while waiting");
        FAULTY_PAUSE(1);
    }
    return timeout_ms == 0 ? FERRULE_PENDING : ferrule_fail(error, FERRULE_TIMEOUT, "Nothing came in time");
}

FAULTY_SOURCE("next-waits", next);

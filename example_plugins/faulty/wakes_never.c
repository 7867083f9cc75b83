/* wakes-never: A stream that promises wakes and makes none. `next` has nothing for config `ms` (default 300) since it
 * was asked first; then a record, then END.
 * The host must: keep time limits, end the wait on cancel and on close, and hold up nobody else meanwhile. */
#include "faulty.h"

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (ferrule_reader_cancelled(self)) return ferrule_fail(error, FERRULE_CANCELLED, "Cancelled without a wake");
    if (self->count < 0) return FERRULE_END;
    if (self->count == 0) self->count = now_ms();
    if (now_ms() - self->count < faulty_int(self->faulty, "ms", 300)) return FERRULE_PENDING;
    self->count = -1;
    return faulty_record(1, out, error);
}

FAULTY_STREAM("wakes-never", FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES, next, NULL, NULL, NULL, ferrule_reader_close));

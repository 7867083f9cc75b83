/* close-slow: A stream whose close takes config `ms` (default 300). `next` has a record, then END.
 * The host must: close it once, and let nobody who closes it beside that take it for closed before it is. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    return self->count == 0 ? faulty_record(++self->count, out, error) : FERRULE_END;
}

static void close_slow(ferrule_stream *stream) {
    const struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    FAULTY_PAUSE(faulty_int(self->faulty, "ms", 300));
    ferrule_reader_close(stream);
}

FAULTY_STREAM("close-slow", FERRULE_READER(next, faulty_position, close_slow));

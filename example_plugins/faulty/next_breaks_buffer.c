/* next-breaks-buffer: After config `items` records (default 1), `next` answers OK with a length past the buffer's
 * capacity.
 * The host must: report INTERNAL naming the fault, give none of it out, and poison the instance. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (self->count < faulty_int(self->faulty, "items", 1)) return faulty_record(++self->count, out, error);
    out->len = out->capacity + 1;
    return FERRULE_OK;
}

FAULTY_SOURCE("next-breaks-buffer", next);

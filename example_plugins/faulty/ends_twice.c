/* ends-twice: A stream of one record that has an end more than once: asked again after END, it gives another record and
 * END again; asked a third time, it aborts.
 * The host must: ask no more after the first END. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (self->count == 4) abort();
    return self->count++ % 2 == 0 ? faulty_record(self->count, out, error) : FERRULE_END;
}

FAULTY_SOURCE("ends-twice", next);

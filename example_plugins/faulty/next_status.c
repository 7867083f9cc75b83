/* next-status: `next` answers with config `status` (default SKIP) after config `items` records (default 1), then END.
 * The host must: treat SKIP and every undefined number as INTERNAL and poison; go on after INVALID_DATA, UNAVAILABLE,
 * TIMEOUT; wait and ask again after PENDING; end the stream on END and on other errors. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    int64_t items = faulty_int(self->faulty, "items", 1);
    if (self->count++ < items) return faulty_record(self->count, out, error);
    return self->count - 1 == items ? (int32_t)faulty_int(self->faulty, "status", FERRULE_SKIP) : FERRULE_END;
}

FAULTY_SOURCE("next-status", next);

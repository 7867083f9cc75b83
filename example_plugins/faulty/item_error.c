/* item-error: A source of five items of which the third is INVALID_DATA, with its text in details.record.
 * The host must: do with it what the source's on_error says (its text in the dead letter), and read the four others. */
#include "faulty.h"

FERRULE_NEXT(next) {
    static const char details[] = "{\"record\":\"3;broken\"}";
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (self->count == 5) return FERRULE_END;
    if (++self->count != 3) return faulty_record(self->count, out, error);
    return ferrule_fail_details(error, FERRULE_INVALID_DATA, details, sizeof details - 1, -1,
                                "Line 3 has 2 fields, expected 3");
}

FAULTY_SOURCE("item-error", next);

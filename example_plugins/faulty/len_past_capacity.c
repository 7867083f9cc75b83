/* len-past-capacity: Sets the answer's `len` beyond its `capacity`.
 * The host must: report INTERNAL naming what was broken, poison the instance, and go on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    if (ferrule_append_text(out, "{}") != FERRULE_OK) return FERRULE_OUT_OF_MEMORY;
    out->len = out->capacity + 1;
    return FERRULE_OK;
}

FAULTY_FUNCTION("len-past-capacity", process);

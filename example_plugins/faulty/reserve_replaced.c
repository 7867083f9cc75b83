/* reserve-replaced: Replaces the answer's `reserve` by a function of its own.
 * The host must: never call it; report INTERNAL naming what was broken, poison the instance, and go on without it. */
#include "faulty.h"

static int32_t mine(ferrule_buffer *buffer, size_t additional) {
    (void)buffer, (void)additional;
    abort();
}

FERRULE_CALL(process) {
    int32_t status = ferrule_append_text(out, "{}");
    out->reserve = mine;
    return status;
}

FAULTY_FUNCTION("reserve-replaced", process);

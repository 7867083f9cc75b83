/* capacity-changed: Raises the answer's `capacity` without asking reserve.
 * The host must: report INTERNAL naming what was broken, poison the instance, and go on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    if (ferrule_append_text(out, "{}") != FERRULE_OK) return FERRULE_OUT_OF_MEMORY;
    out->capacity += 4096;
    return FERRULE_OK;
}

FAULTY_FUNCTION("capacity-changed", process);

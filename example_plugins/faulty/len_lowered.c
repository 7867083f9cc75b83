/* len-lowered: Lowers the answer's `len` below what it was at entry (to 0; where it was 0, that is an empty answer).
 * The host must: restore its own copy, so that no earlier record is lost; report INTERNAL naming what was broken,
 * poison the instance, and go on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    out->len = 0;
    return FERRULE_OK;
}

FAULTY_FUNCTION("len-lowered", process);

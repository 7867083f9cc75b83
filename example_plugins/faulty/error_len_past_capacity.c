/* error-len-past-capacity: Fails with the error buffer's `len` beyond its `capacity`.
 * The host must: report INTERNAL naming what was broken, poison the instance, and go on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    ferrule_fail(error, FERRULE_IO, "Never read");
    error->len = error->capacity + 1;
    return FERRULE_IO;
}

FAULTY_FUNCTION("error-len-past-capacity", process);

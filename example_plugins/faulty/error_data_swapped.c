/* error-data-swapped: Fails with the error buffer's `data` pointed at memory of its own.
 * The host must: never read or free that memory; report INTERNAL naming what was broken, poison the instance, and go
 * on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    static uint8_t mine[] = "{\"message\":\"stolen\"}";
    error->data = mine;
    error->len = sizeof mine - 1;
    error->capacity = sizeof mine;
    return FERRULE_IO;
}

FAULTY_FUNCTION("error-data-swapped", process);

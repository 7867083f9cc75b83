/* data-swapped: Points the answer's `data` at memory of its own.
 * The host must: never read or free that memory; report INTERNAL naming what was broken, poison the instance, and go
 * on without it. */
#include "faulty.h"

FERRULE_CALL(process) {
    static uint8_t mine[] = "{\"stolen\":true}";
    out->data = mine;
    out->len = sizeof mine - 1;
    out->capacity = sizeof mine;
    return FERRULE_OK;
}

FAULTY_FUNCTION("data-swapped", process);

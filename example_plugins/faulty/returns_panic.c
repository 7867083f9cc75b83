/* returns-panic: `process` answers PANIC with a message, as an SDK does that caught one.
 * The host must: raise the panic's error with that message, poison the instance, and call nothing but destroy on it. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_fail(error, FERRULE_PANIC, "panicked at 'index out of range', plugin.c:12");
}

FAULTY_FUNCTION("returns-panic", process);

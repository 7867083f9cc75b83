/* reentrant: `process` calls config `callback`, the address of a `void (*)(void)`, which a test lets call the same
 * instance again.
 * The host must: answer the inner call with INVALID_STATE (never wait for itself), and go on with the outer one. */
#include "faulty.h"

FERRULE_CALL(process) {
    void (*callback)(void) = NULL;
    uintptr_t address = (uintptr_t)faulty_int(self, "callback", 0);
    memcpy(&callback, &address, sizeof callback);
    if (callback != NULL) callback();
    return ferrule_append(out, in, in_len);
}

FAULTY_FUNCTION("reentrant", process);

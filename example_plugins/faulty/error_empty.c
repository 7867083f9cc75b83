/* error-empty: Fails with an empty error.
 * The host must: take the status's name as the message. */
#include "faulty.h"

FERRULE_CALL(process) {
    (void)error;
    return FERRULE_UNAVAILABLE;
}

FAULTY_FUNCTION("error-empty", process);

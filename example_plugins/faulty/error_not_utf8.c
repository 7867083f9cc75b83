/* error-not-utf8: Fails with an error that is no UTF-8.
 * The host must: show it with the bad bytes replaced. */
#include "faulty.h"

FERRULE_CALL(process) {
    ferrule_append_text(error, "{\"message\":\"bad \xFF byte\"}");
    return FERRULE_INVALID_DATA;
}

FAULTY_FUNCTION("error-not-utf8", process);

/* error-not-json: Fails with error text that is no JSON.
 * The host must: take the text as the message. */
#include "faulty.h"

FERRULE_CALL(process) {
    ferrule_append_text(error, "plain words, no object");
    return FERRULE_INVALID_DATA;
}

FAULTY_FUNCTION("error-not-json", process);

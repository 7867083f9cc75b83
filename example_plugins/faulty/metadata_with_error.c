/* metadata-with-error: Fails, and answers metadata beside the error.
 * The host must: hand on both. */
#include "faulty.h"

FERRULE_CALL(process) {
    if (call->metadata_out != NULL) ferrule_append_text(call->metadata_out, "{\"trace\":\"abc\"}");
    return ferrule_fail(error, FERRULE_NOT_FOUND, "No such thing");
}

FAULTY_FUNCTION("metadata-with-error", process);

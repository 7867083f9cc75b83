/* error-huge: Fails with an error message of config `bytes` (default 10,000,000).
 * The host must: bound what it keeps and shows, and go on; if its buffer refuses, the status's name is the message. */
#include "faulty.h"

FERRULE_CALL(process) {
    int64_t left = faulty_int(self, "bytes", 10000000);
    ferrule_append_text(error, "{\"message\":\"");
    while (left > 0 && ferrule_append_text(error, "one more piece of complaint, on and on and on. ") == 0)
        left -= 47;
    ferrule_append_text(error, "\"}");
    return FERRULE_INVALID_DATA;
}

FAULTY_FUNCTION("error-huge", process);

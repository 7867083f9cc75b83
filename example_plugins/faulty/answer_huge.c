/* answer-huge: Appends to the answer until reserve refuses, or config `bytes` (default 2 GiB) are written.
 * The host must: refuse at its own limit, so that the plugin answers OUT_OF_MEMORY, and keep nothing of it. */
#include "faulty.h"

FERRULE_CALL(process) {
    static char piece[65536];
    int64_t left = faulty_int(self, "bytes", INT64_C(2) << 30);
    int32_t status = ferrule_append_text(out, "{\"text\":\"");
    memset(piece, 'x', sizeof piece);
    for (; left > 0 && status == FERRULE_OK; left -= (int64_t)sizeof piece)
        status = ferrule_append(out, piece, sizeof piece);
    if (status == FERRULE_OK) return ferrule_append_text(out, "\"}");
    return ferrule_fail(error, status, "The host refuses more room");
}

FAULTY_FUNCTION("answer-huge", process);

/* error-huge: Fails with an error message of config `bytes` (default 10,000,000).
 * The host must: bound what it keeps and shows, and go on; if its buffer refuses, the status's name is the message. */
#include "faulty.h"

FERRULE_CALL(process) {
    static char piece[65536];
    int64_t left = faulty_int(self, "bytes", 10000000);
    memset(piece, 'x', sizeof piece);
    ferrule_append_text(error, "{\"message\":\"");
    while (left > 0 && ferrule_append(error, piece, sizeof piece) == FERRULE_OK) left -= (int64_t)sizeof piece;
    ferrule_append_text(error, "\"}");
    return FERRULE_INVALID_DATA;
}

FAULTY_FUNCTION("error-huge", process);

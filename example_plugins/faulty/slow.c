/* slow: `process` sleeps config `ms` (default 1000) and looks neither at the timeout nor at cancelled.
 * The host must: report the call as stuck once its deadline has passed; other instances and threads go on meanwhile. */
#include "faulty.h"

FERRULE_CALL(process) {
    FAULTY_PAUSE(faulty_int(self, "ms", 1000));
    return ferrule_append(out, in, in_len);
}

FAULTY_FUNCTION("slow", process);

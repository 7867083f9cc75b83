/* returns-status: `process` answers with config `status` (default 99) and an empty error; OK comes with `{}`.
 * The host must: take OK and SKIP; turn each error status into its own exception, named by the status; treat END,
 * PENDING and every number that ferrule.h does not define as INTERNAL, and poison the instance (as for INTERNAL and
 * PANIC themselves). */
#include "faulty.h"

FERRULE_CALL(process) {
    int32_t status = (int32_t)faulty_int(self, "status", 99);
    return status == FERRULE_OK ? ferrule_append_text(out, "{}") : status;
}

FAULTY_FUNCTION("returns-status", process);

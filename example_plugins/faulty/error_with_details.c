/* error-with-details: No fault: fails with UNAVAILABLE, details and retry_after_ms.
 * The host must: carry message, details and retry_after_ms on the exception, and retry if the step asks for it. */
#include "faulty.h"

FERRULE_CALL(process) {
    static const char details[] = "{\"endpoint\":\"db\",\"tries\":[1,2]}";
    return ferrule_fail_details(error, FERRULE_UNAVAILABLE, details, sizeof details - 1, 250, "The database is away");
}

FAULTY_FUNCTION("error-with-details", process);

/* create-fails-with-object: create fails (INVALID_CONFIG) and leaves an object in *out all the same.
 * The host must: report the failure, and never call or destroy that object: it points at nothing. */
#include "faulty.h"

FAULTY_MANIFEST("create-fails-with-object", "function", FAULTY_PROCESS);
FAULTY_DESTROY
FAULTY_CREATE {
    *out = (ferrule_instance *)(uintptr_t)0xDEAD0; /* a touch is a crash */
    return ferrule_fail(error, FERRULE_INVALID_CONFIG, "This config is never right");
}

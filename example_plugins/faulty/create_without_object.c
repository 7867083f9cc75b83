/* create-without-object: create answers OK and leaves *out NULL.
 * The host must: refuse the instance at create with an error naming the library and the fault; the process goes on. */
#include "faulty.h"

FAULTY_MANIFEST("create-without-object", "function", FAULTY_PROCESS);
FAULTY_DESTROY
FAULTY_CREATE { return FERRULE_OK; }

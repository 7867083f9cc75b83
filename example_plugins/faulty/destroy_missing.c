/* destroy-missing: The library exports no ferrule_plugin_destroy.
 * The host must: name the missing symbol; create nothing. */
#include "faulty.h"

FAULTY_MANIFEST("destroy-missing", "function", FAULTY_PROCESS);
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

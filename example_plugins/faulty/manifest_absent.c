/* manifest-absent: The three symbols are there, section .ferrule is not.
 * The host must: say that it is no ferrule plugin: no manifest; run nothing of it. */
#include "faulty.h"

const ferrule_manifest *ferrule_plugin_manifest(void) { abort(); }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

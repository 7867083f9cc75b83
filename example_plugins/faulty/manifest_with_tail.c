/* manifest-with-tail: Bytes that are no NULs follow the manifest in its section.
 * The host must: say so in one message, run nothing of the library, and go on with the others. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, -2, FAULTY_GOOD("manifest-with-tail"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

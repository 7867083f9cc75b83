/* manifest-not-json: The manifest is no JSON.
 * The host must: say so in one message, run nothing of the library, and go on with the others. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 0, "{\"name\": \"manifest-not-json\", oops}");

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

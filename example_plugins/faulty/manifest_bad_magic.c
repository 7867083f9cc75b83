/* manifest-bad-magic: The section does not begin with the magic bytes.
 * The host must: say so in one message, run nothing of the library, and go on with the others. */
#include "faulty.h"

FAULTY_SECTION(section, "not it!", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("manifest-bad-magic"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

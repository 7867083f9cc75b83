/* manifest-cut-short: The section's json_len reaches past the section's end.
 * The host must: say so in one message, run nothing of the library, and go on with the others. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 1 << 20, FAULTY_GOOD("manifest-cut-short"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

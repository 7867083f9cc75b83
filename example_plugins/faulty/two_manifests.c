/* two-manifests: Section .ferrule holds two manifests, as of two plugins linked into one library.
 * The host must: say so in one message, run nothing of the library, and go on with the others. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("two-manifests"));
FAULTY_SECTION(second, "ferrule", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("the-second"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

const void *faulty_keep(void);
const void *faulty_keep(void) { return &second; }

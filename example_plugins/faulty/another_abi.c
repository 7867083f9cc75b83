/* another-abi: The section says ABI 0.9.
 * The host must: name both versions and say that the plugin must be built for this one; run nothing of it. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", 9, 0, FAULTY_GOOD("another-abi"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

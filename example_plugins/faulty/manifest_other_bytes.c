/* manifest-other-bytes: ferrule_plugin_manifest answers other bytes than section .ferrule holds.
 * The host must: refuse the library as it is loaded, before create. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("manifest-other-bytes"));
FAULTY_BYTES(other, "ferrule", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("another-name"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return &other.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

const void *faulty_keep(void);
const void *faulty_keep(void) { return &section; }

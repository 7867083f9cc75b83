/* manifest-null: ferrule_plugin_manifest answers NULL.
 * The host must: refuse the library as it is loaded, before create. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 0, FAULTY_GOOD("manifest-null"));

const ferrule_manifest *ferrule_plugin_manifest(void) { return NULL; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

const void *faulty_keep(void);
const void *faulty_keep(void) { return &section; }

/* manifest-fields-missing: The manifest has no `name`, and its plugin no `kind`.
 * The host must: name each missing field; run nothing of the library. */
#include "faulty.h"

FAULTY_SECTION(section, "ferrule", FERRULE_ABI_MINOR, 0,
               "{\"version\":\"0.1.0\",\"plugins\":[{\"name\":\"manifest-fields-missing\",\"methods\":[]}]}");

const ferrule_manifest *ferrule_plugin_manifest(void) { return &section.head; }
FAULTY_DESTROY
FAULTY_CREATE { abort(); } /* never reached: the host refuses before */

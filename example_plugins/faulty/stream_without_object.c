/* stream-without-object: open answers OK and leaves *out NULL.
 * The host must: report INTERNAL and poison the instance. */
#include "faulty.h"

FERRULE_OPEN(read_data) { return FERRULE_OK; }

FAULTY_MANIFEST("stream-without-object", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("stream-without-object", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

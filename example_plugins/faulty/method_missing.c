/* method-missing: The manifest declares `process` and `extra`; the instance has no `extra`.
 * The host must: fail create with an error naming the method, and destroy the instance. */
#include "faulty.h"

FAULTY_MANIFEST("method-missing", "function", FAULTY_PROCESS "," FAULTY_METHOD("extra", "unary"));

FERRULE_CALL(process) { return ferrule_append(out, in, in_len); }

FERRULE_PLUGINS(FERRULE_PLUGIN("method-missing", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_UNARY("process", process)));

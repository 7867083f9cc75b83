/* endless: A source whose stream never ends.
 * The host must: stop at a limit, at Ctrl-C and when its reader stops early, and close the stream once. */
#include "faulty.h"

FERRULE_NEXT(next) { return faulty_record(((struct faulty_stream *)(void *)stream)->count++, out, error); }

FAULTY_SOURCE("endless", next);

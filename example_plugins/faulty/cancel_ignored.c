/* cancel-ignored: A stream that gives a record each millisecond for ever, and looks neither at cancel nor at the
 * timeout.
 * The host must: go on giving its records after a cancel, and close it when it is told to. */
#include "faulty.h"

FERRULE_NEXT(next) {
    FAULTY_PAUSE(1);
    return faulty_record(++((struct faulty_stream *)(void *)stream)->count, out, error);
}

FAULTY_SOURCE("cancel-ignored", next);

/* metadata-fails: metadata answers with config `status` (default IO) after each item and after the end. `next` gives
 * two records, then END.
 * The host must: give each item all the same, raise the error after it, and end the stream once; treat SKIP and every
 * undefined number as INTERNAL and poison. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    return self->count == 2 ? FERRULE_END : faulty_record(++self->count, out, error);
}

FERRULE_METADATA(metadata) {
    return (int32_t)faulty_int(((struct faulty_stream *)(void *)stream)->faulty, "status", FERRULE_IO);
}

FAULTY_STREAM("metadata-fails",
              FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES, next, NULL, NULL, metadata, ferrule_reader_close));

/* stream-short: The stream's table says 16 bytes.
 * The host must: refuse the stream as it is opened, with INTERNAL naming the field, and poison the instance. */
#include "faulty.h"

FERRULE_NEXT(next) { return faulty_record(((struct faulty_stream *)(void *)stream)->count++, out, error); }

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = {16, 0, ferrule_reader_cancel, ferrule_reader_close,
                                       next, NULL, NULL, NULL, NULL};
    return faulty_open(self, &ops, in, in_len, out, error);
}

FAULTY_MANIFEST("stream-short", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("stream-short", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

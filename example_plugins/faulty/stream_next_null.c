/* stream-next-null: The stream of a `read_data` has no `next`.
 * The host must: refuse the stream as it is opened, with INTERNAL naming the field, and poison the instance. */
#include "faulty.h"

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = {sizeof ops, 0, ferrule_reader_cancel, ferrule_reader_close,
                                       NULL, NULL, NULL, NULL, NULL};
    return faulty_open(self, &ops, in, in_len, out, error);
}

FAULTY_MANIFEST("stream-next-null", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("stream-next-null", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

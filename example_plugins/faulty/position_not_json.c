/* position-not-json: A source whose `position` answers no JSON.
 * The host must: report it when it saves a position; never write it to a checkpoint. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    return self->count < 5 ? faulty_record(++self->count, out, error) : FERRULE_END;
}
FERRULE_POSITION(position) { return ferrule_append_text(out, "line 7"); }

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = FERRULE_READER(next, position, ferrule_reader_close);
    return faulty_open(self, &ops, in, in_len, out, error);
}

FAULTY_MANIFEST("position-not-json", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("position-not-json", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

/* counts-closes: No fault: a source of config `count` records (default 3) that writes a line to config `path` for each
 * connect, open, stream-close, close and destroy. With `fail_at` N, the Nth `next` is IO; `open` takes config `open_ms`.
 * The host must: close stream and source exactly once each, in that order, then destroy: at the end, on an error, when
 * the reader stops early, and when it is closed while another thread opens. */
#include "faulty.h"

static void note(const struct faulty *faulty, const char *what) {
    char *path = ferrule_json_string(faulty->config, faulty->config_len, "path", NULL, NULL);
    FILE *file = path != NULL ? fopen(path, "ab") : NULL;
    if (file != NULL) {
        fprintf(file, "%s\n", what);
        fclose(file);
    }
    free(path);
}

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    if (self->count == faulty_int(self->faulty, "count", 3)) return FERRULE_END;
    if (++self->count == faulty_int(self->faulty, "fail_at", -1))
        return ferrule_fail(error, FERRULE_IO, "The device is gone");
    return faulty_record(self->count, out, error);
}

static void close_stream(ferrule_stream *stream) {
    note(((struct faulty_stream *)(void *)stream)->faulty, "stream-close");
    ferrule_reader_close(stream);
}

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = FERRULE_READER(next, faulty_position, close_stream);
    note((struct faulty *)self, "open");
    FAULTY_PAUSE(faulty_int(self, "open_ms", 0));
    return faulty_open(self, &ops, in, in_len, out, error);
}
FERRULE_CALL(connect_source) {
    note((struct faulty *)self, "connect");
    return ferrule_append_text(out, "null");
}
FERRULE_CALL(close_source) {
    note((struct faulty *)self, "close");
    return ferrule_append_text(out, "null");
}
static void destroy(void *self) {
    note((struct faulty *)self, "destroy");
    faulty_destroy(self);
}

FAULTY_MANIFEST("counts-closes", "source",
                FAULTY_METHOD("connect", "unary") "," FAULTY_READ "," FAULTY_METHOD("close", "unary"));
FERRULE_PLUGINS(FERRULE_PLUGIN("counts-closes", struct faulty, faulty_create, destroy,
                               FERRULE_UNARY("connect", connect_source),
                               FERRULE_STREAM("read_data", read_data), FERRULE_UNARY("close", close_source)));

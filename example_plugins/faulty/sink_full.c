/* sink-full: A sink that fails with IO once config `records` (default 10) are written, as a full disk does; it keeps
 * none.
 * The host must: stop with the sink's error, exit 1, and count as written only what was. */
#include "faulty.h"

FERRULE_CALL(write_lines) {
    struct faulty *faulty = (struct faulty *)self;
    int64_t lines = 0;
    size_t i;
    for (i = 0; i < in_len; i++) lines += in[i] == '\n';
    if (faulty->count + lines > faulty_int(self, "records", 10))
        return ferrule_fail(error, FERRULE_IO, "No space left on device after %lld records", (long long)faulty->count);
    faulty->count += lines;
    return FERRULE_OK;
}
FERRULE_CALL(flush) { return ferrule_append_text(out, "{}"); }

FAULTY_MANIFEST("sink-full", "sink",
                "{\"name\":\"write\",\"mode\":\"unary\",\"input\":\"application/x-ndjson\"},"
                FAULTY_METHOD("flush", "unary"));
FERRULE_PLUGINS(FERRULE_PLUGIN("sink-full", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_UNARY("write", write_lines),
                               FERRULE_UNARY("flush", flush)));

/* wakes-for-ever: A stream whose thread wakes the host without a pause until it is closed. `next` has a record at every
 * config `every`th asking (default 1000), `items` of them (default 2), then END; in between it has nothing.
 * The host must: lose no record, keep time limits, serve others meanwhile, and close it. */
#include "faulty.h"
#include <pthread.h>
#include <sched.h>

struct storm {
    ferrule_reader base;
    struct faulty *faulty;
    int64_t asked;
    uint64_t id;
    pthread_t thread;
    int32_t over;
};

static void *wake_for_ever(void *data) {
    const struct storm *storm = (const struct storm *)data;
    while (!FERRULE_LOAD(&storm->over)) {
        storm->faulty->host->wake(storm->faulty->host, storm->id);
        sched_yield();
    }
    return NULL;
}

FERRULE_NEXT(next) {
    struct storm *storm = (struct storm *)(void *)stream;
    int64_t every = faulty_int(storm->faulty, "every", 1000);
    if (ferrule_reader_cancelled(storm)) return ferrule_fail(error, FERRULE_CANCELLED, "Cancelled between two wakes");
    if (storm->asked >= every * faulty_int(storm->faulty, "items", 2)) return FERRULE_END;
    return ++storm->asked % every == 0 ? faulty_record(storm->asked / every, out, error) : FERRULE_PENDING;
}

static void close_storm(ferrule_stream *stream) {
    struct storm *storm = (struct storm *)(void *)stream;
    FERRULE__STORE(&storm->over, 1);
    pthread_join(storm->thread, NULL);
    ferrule_reader_close(stream);
}

FERRULE_OPEN(read_data) {
    static const ferrule_stream_ops ops = FERRULE_STREAM_OPS(FERRULE_STREAM_WAKES, next, NULL, NULL, NULL, close_storm);
    struct storm *storm = (struct storm *)ferrule_reader_new(sizeof *storm, &ops, out, error);
    if (storm == NULL) return FERRULE_OUT_OF_MEMORY;
    storm->faulty = (struct faulty *)self;
    storm->id = call->id;
    if (pthread_create(&storm->thread, NULL, wake_for_ever, storm) == 0) return FERRULE_OK;
    free(storm);
    *out = NULL;
    return ferrule_fail(error, FERRULE_UNAVAILABLE, "No thread");
}

FAULTY_MANIFEST("wakes-for-ever", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("wakes-for-ever", struct faulty, faulty_create, faulty_destroy,
                               FERRULE_STREAM("read_data", read_data)));

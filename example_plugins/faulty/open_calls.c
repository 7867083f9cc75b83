/* open-calls: open calls config `callback`, the address of a `void (*)(void)`, which a test lets close the instance from
 * another thread meanwhile. An instance that is destroyed while a stream of it is open aborts. `next` has a record, then END.
 * The host must: close the stream that was being opened, and destroy the instance after that. */
#include "faulty.h"

FERRULE_NEXT(next) {
    struct faulty_stream *self = (struct faulty_stream *)(void *)stream;
    return self->count == 0 ? faulty_record(++self->count, out, error) : FERRULE_END;
}

static void close_counted(ferrule_stream *stream) {
    __atomic_sub_fetch(&((struct faulty_stream *)(void *)stream)->faulty->count, 1, __ATOMIC_SEQ_CST);
    ferrule_reader_close(stream);
}

FERRULE_OPEN(open_calling) {
    static const ferrule_stream_ops ops = FERRULE_READER(next, faulty_position, close_counted);
    struct faulty *faulty = (struct faulty *)self;
    void (*callback)(void) = (void (*)(void))(uintptr_t)faulty_int(faulty, "callback", 0);
    if (callback != NULL) callback();
    __atomic_add_fetch(&faulty->count, 1, __ATOMIC_SEQ_CST);
    return faulty_open(self, &ops, in, in_len, out, error);
}

static void destroy(void *self) {
    if (__atomic_load_n(&((struct faulty *)self)->count, __ATOMIC_SEQ_CST) != 0) abort();
    faulty_destroy(self);
}

FAULTY_MANIFEST("open-calls", "source", FAULTY_READ);
FERRULE_PLUGINS(FERRULE_PLUGIN("open-calls", struct faulty, faulty_create, destroy,
                               FERRULE_STREAM("read_data", open_calling)));

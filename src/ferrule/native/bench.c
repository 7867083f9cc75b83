/* bench.c: what `ferrule bench` measures with: a plain C loop around one method, and a source and a sink that cost next
 * to nothing. The two are a plugin of the host's own: the pump speaks to them through their tables, as to any other. */
#include "internal.h"

#if defined(_WIN32)
static int64_t now_ns(void) {
    LARGE_INTEGER ticks, frequency;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&frequency);
    return (int64_t)((double)ticks.QuadPart * 1e9 / (double)frequency.QuadPart);
}
#else
static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

int64_t fh_bench_calls(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, uint64_t calls,
                       uint32_t samples, int64_t *ns, fh_answer *answer) {
    fh_buffer *out = &answer->out, *error = &answer->error;
    int32_t status = fh_instance_enter(instance, error);
    if (status != FERRULE_OK) {
        return (int64_t)status + FH_STATUS;
    }
    const ferrule_call call = {sizeof call, 0, instance->id, &instance->cancelled, -1, NULL, 0, NULL};
    for (uint32_t sample = 0; sample < samples && status >= FERRULE_OK; sample++) {
        int64_t from = now_ns();
        for (uint64_t i = 0; i < calls && status >= FERRULE_OK; i++) {
            out->lent.len = 0;
            status = instance->ops->call(instance->object, method, &call, in, in_len, &out->lent, &error->lent);
        }
        ns[sample] = now_ns() - from;
    }
    status = fh_settle(&instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, error);
    fh_instance_leave(instance);
    out->moved = 1;                            /* its caller may not have seen where it lies */
    return status < FERRULE_OK ? (int64_t)status + FH_STATUS : (int64_t)out->lent.len;
}

/* ---- a source that repeats a record, a sink that drops lines -------------------------------------------- */

typedef struct {
    ferrule_instance base;
    uint64_t count;
    size_t length;
    uint8_t record[];
} end_object;

typedef struct {
    ferrule_stream base;
    const end_object *of;
    uint64_t left;
} repetition;

static void end_destroy(ferrule_instance *instance) { free(instance); }

static int32_t end_method(ferrule_instance *instance, const char *name, size_t name_len) {
    (void)instance, (void)name, (void)name_len;
    return 0;                                  /* each has one */
}

static int32_t end_call(ferrule_instance *instance, int32_t method, const ferrule_call *call, const uint8_t *in,
                        size_t in_len, ferrule_buffer *out, ferrule_buffer *error) {
    (void)instance, (void)method, (void)call, (void)in, (void)in_len, (void)out, (void)error;
    return FERRULE_OK;
}

static int32_t repetition_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error) {
    repetition *self = (repetition *)stream;
    (void)timeout_ms, (void)error;
    if (self->left == 0) {
        return FERRULE_END;
    }
    if (out->capacity - out->len < self->of->length && out->reserve(out, self->of->length) != FERRULE_OK) {
        return FERRULE_OUT_OF_MEMORY;
    }
    self->left--;
    memcpy(out->data + out->len, self->of->record, self->of->length);
    out->len += self->of->length;
    return FERRULE_OK;
}

static void repetition_cancel(ferrule_stream *stream) { (void)stream; }
static void repetition_close(ferrule_stream *stream) { free(stream); }

static int32_t end_open(ferrule_instance *instance, int32_t method, const ferrule_call *call, const uint8_t *in,
                        size_t in_len, ferrule_stream **out, ferrule_buffer *error) {
    static const ferrule_stream_ops ops = {.struct_size = sizeof ops,
                                           .cancel = repetition_cancel,
                                           .close = repetition_close,
                                           .next = repetition_next};
    (void)method, (void)call, (void)in, (void)in_len, (void)error;
    repetition *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    stream->base.ops = &ops;
    stream->of = (const end_object *)instance;
    stream->left = stream->of->count;
    *out = &stream->base;
    return FERRULE_OK;
}

fh_instance *fh_bench_end(uint64_t id, const uint8_t *record, size_t record_len, uint64_t count) {
    static const ferrule_instance_ops ops = {
        .struct_size = sizeof ops, .method = end_method, .call = end_call, .open = end_open};
    fh_instance *instance = calloc(1, sizeof *instance);
    end_object *object = malloc(sizeof *object + record_len);
    if (instance == NULL || object == NULL) {
        free(instance);
        free(object);
        return NULL;
    }
    object->base.ops = &ops;
    object->count = count;
    object->length = record_len;
    if (record_len) {
        memcpy(object->record, record, record_len);
    }
    instance->object = &object->base;
    instance->ops = &ops;
    instance->destroy = end_destroy;
    instance->id = id;
    instance->serial = 1;
    instance->epoch = fh_epoch;
    instance->holders = 1;
    fh_lock_init(&instance->lock);
    return instance;
}

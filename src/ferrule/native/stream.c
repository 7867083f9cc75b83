/* stream.c: streams of an instance, one item at a time. */
#include "internal.h"

#include <stdio.h>

fh_stream *fh_stream_open(fh_instance *instance, uint64_t id, int32_t method, const uint8_t *in, size_t in_len,
                          const char *metadata, size_t metadata_len, fh_answer *answer, int32_t *status) {
    fh_buffer *error = &answer->error;
    fh_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        *status = FERRULE_OUT_OF_MEMORY;
        return NULL;
    }
    *status = fh_instance_enter(instance, error);
    if (*status != FERRULE_OK) {
        free(stream);
        return NULL;
    }
    stream->instance = instance;
    stream->id = id;
    fh_waiter_add(&stream->waiter, stream->id);
    answer->metadata.lent.len = 0;
    ferrule_call call = {sizeof call, 0,        stream->id,   &instance->cancelled,
                         -1,          metadata, metadata_len, &answer->metadata.lent};
    ferrule_stream *object = NULL;
    int32_t answered = FERRULE_UNSUPPORTED;
    if (instance->ops->open != NULL) {
        answered = instance->ops->open(instance->object, method, &call, in, in_len, &object, &error->lent);
    }
    answered = fh_settle(&instance->poisoned, answered, 0, &answer->out, answer->out.lent.len, error);
    if (answered == FERRULE_OK) {
        char why[120], text[200];
        const char *problem = NULL;
        if (object == NULL) {
            answered = fh_violation(&instance->poisoned, error, "open answered OK without a stream");
        } else if ((problem = fh_table_problem(object->ops, sizeof(ferrule_stream_ops), why, sizeof why)) == NULL) {
            /* A stream without 'next' may still give its items by an extension. */
            problem = object->ops->cancel == NULL                                ? "lacks 'cancel'"
                      : object->ops->close == NULL                               ? "lacks 'close'"
                      : object->ops->next == NULL && object->ops->query == NULL ? "lacks 'next'"
                                                                                 : NULL;
        }
        if (problem != NULL) {
            snprintf(text, sizeof text, "open answered with a stream that %s", problem);
            answered = fh_violation(&instance->poisoned, error, text);
        }
    }
    if (answered != FERRULE_OK) {
        fh_instance_leave(instance);
        fh_waiter_remove(&stream->waiter);
        free(stream);
        *status = answered;
        return NULL;
    }
    stream->object = object;
    stream->ops = object->ops;
    stream->flags = (int32_t)object->ops->flags;
    fh_mutex_init(&stream->mutex);
    fh_condition_init(&stream->idle);
    fh_add32(&instance->streams, 1);
    fh_add32(&instance->holders, 1);
    fh_instance_leave(instance);
    return stream;
}

static int stream_locks(const fh_stream *stream) {
    return stream->instance->serial && !(stream->flags & FERRULE_STREAM_UNLOCKED);
}

int32_t fh_stream_enter(fh_stream *stream, fh_buffer *error) {
    const char *problem = NULL;
    error->lent.len = 0;
    if (stream->instance->epoch != fh_epoch) {
        fh_error_set(error, "this stream was opened before a fork; open a new one in the child");
        return FERRULE_INVALID_STATE;
    }
    fh_mutex_lock(&stream->mutex);
    if (stream->closing) {
        problem = "the stream is closed";
    } else if (stream->busy) {
        problem = "another thread is reading this stream";
    } else if (fh_load32(&stream->poisoned)) {
        problem = "the stream is poisoned by an earlier fault";
    } else {
        stream->busy = 1;
    }
    fh_mutex_unlock(&stream->mutex);
    if (problem == NULL && stream_locks(stream)) {
        int32_t status = fh_instance_enter(stream->instance, error);
        if (status != FERRULE_OK) {
            fh_mutex_lock(&stream->mutex);
            stream->busy = 0;
            fh_condition_wake(&stream->idle);
            fh_mutex_unlock(&stream->mutex);
        }
        return status;
    }
    if (problem != NULL) {
        fh_error_set(error, problem);
        return FERRULE_INVALID_STATE;
    }
    return FERRULE_OK;
}

void fh_stream_leave(fh_stream *stream) {
    if (stream_locks(stream)) {
        fh_instance_leave(stream->instance);
    }
    fh_mutex_lock(&stream->mutex);
    stream->busy = 0;
    fh_condition_wake(&stream->idle);
    fh_mutex_unlock(&stream->mutex);
}

#define NEXT_ALLOWED (FH_ALLOW(FERRULE_END) | FH_ALLOW(FERRULE_PENDING))

int32_t fh_stream_step(fh_stream *stream, int64_t timeout_ms, fh_buffer *out, fh_buffer *error) {
    size_t entry_len = out->lent.len;
    if (FH_UNLIKELY(stream->ended)) {
        return FERRULE_END;
    }
    if (FH_UNLIKELY(stream->ops->next == NULL)) {
        fh_error_set(error, "this stream has no 'next'");
        return FERRULE_UNSUPPORTED;
    }
    error->lent.len = 0;
    int32_t status = stream->ops->next(stream->object, timeout_ms, &out->lent, &error->lent);
    if (FH_LIKELY(status == FERRULE_OK && fh_buffer_intact(out, entry_len) && fh_buffer_intact(error, 0))) {
        return status;
    }
    status = fh_settle(&stream->poisoned, status, NEXT_ALLOWED, out, entry_len, error);
    if (FH_UNLIKELY(status != FERRULE_OK && status != FERRULE_PENDING && status != FERRULE_INVALID_DATA &&
                    status != FERRULE_UNAVAILABLE && status != FERRULE_TIMEOUT)) {
        stream->ended = 1;
        if (stream->poisoned) {
            fh_store32(&stream->instance->poisoned, 1);
        }
    }
    return status;
}

/* Waits for wakes where the stream has them, and turns the end of the wait into TIMEOUT. */
static int32_t stream_wait_step(fh_stream *stream, int64_t timeout_ms, fh_buffer *out, fh_buffer *error) {
    int64_t until = timeout_ms < 0 ? 0 : fh_monotonic_ms() + timeout_ms;
    for (;;) {
        int64_t left = timeout_ms < 0 ? -1 : until - fh_monotonic_ms();
        if (timeout_ms >= 0 && left < 0) {
            left = 0;
        }
        int waits = (stream->flags & FERRULE_STREAM_WAKES) != 0;
        int32_t status = fh_stream_enter(stream, error);
        if (status == FERRULE_OK) {
            status = fh_stream_step(stream, waits ? 0 : left, out, error);
            fh_stream_leave(stream);
        }
        if (status != FERRULE_PENDING) {
            return status;
        }
        if (left == 0) {
            fh_error_set(error, "nothing came in time");
            return FERRULE_TIMEOUT;
        }
        /* Without wakes PENDING means 'after a feed': look again soon, feeds are another thread's. */
        fh_waiter_wait(&stream->waiter, waits ? left : (left < 0 || left > 50 ? 50 : left));
    }
}

int64_t fh_stream_next(fh_stream *stream, int64_t timeout_ms, fh_answer *answer) {
    answer->out.lent.len = 0;
    int32_t status = stream_wait_step(stream, timeout_ms, &answer->out, &answer->error);
    return fh_result_of(answer, status);
}

int32_t fh_stream_where(fh_stream *stream, fh_buffer *out, fh_buffer *error) {
    size_t entry_len = out->lent.len;
    error->lent.len = 0;
    if (stream->ops->position == NULL) {
        return FERRULE_UNSUPPORTED;
    }
    int32_t status = stream->ops->position(stream->object, &out->lent, &error->lent);
    status = fh_settle(&stream->poisoned, status, 0, out, entry_len, error);
    if (fh_load32(&stream->poisoned)) {
        fh_store32(&stream->instance->poisoned, 1);
    }
    return status;
}

int64_t fh_stream_position(fh_stream *stream, fh_answer *answer) {
    answer->out.lent.len = 0;
    int32_t status = fh_stream_enter(stream, &answer->error);
    if (status == FERRULE_OK) {
        status = fh_stream_where(stream, &answer->out, &answer->error);
        fh_stream_leave(stream);
    }
    return fh_result_of(answer, status);
}

void fh_stream_cancel(fh_stream *stream) {
    fh_mutex_lock(&stream->mutex);             /* never beside close */
    if (!stream->closing && stream->instance->epoch == fh_epoch) {
        stream->cancelled = 1;
        stream->ops->cancel(stream->object);
    }
    fh_mutex_unlock(&stream->mutex);
    fh_waiter_wake(stream->id);
}

int32_t fh_stream_close(fh_stream *stream) {
    if (stream->object == NULL || stream->instance->epoch != fh_epoch) {
        stream->object = NULL;
        return FERRULE_OK;
    }
    fh_mutex_lock(&stream->mutex);
    if (stream->closing) {
        fh_mutex_unlock(&stream->mutex);
        return FERRULE_OK;
    }
    if (!stream->ended) {
        stream->ops->cancel(stream->object);
    }
    stream->closing = 1;
    fh_waiter_wake(stream->id);                /* a reader that waits for a wake would wait for ever */
    while (stream->busy) {
        fh_condition_wait(&stream->idle, &stream->mutex, -1);
    }
    fh_mutex_unlock(&stream->mutex);
    /* Under the lock if the stream is; a poisoned or closed instance must still give its streams up. */
    int locked = stream_locks(stream) && fh_lock_take(&stream->instance->lock);
    ferrule_stream *object = stream->object;
    stream->object = NULL;
    stream->ops->close(object);
    if (locked) {
        fh_lock_give(&stream->instance->lock);
    }
    fh_waiter_remove(&stream->waiter);
    fh_add32(&stream->instance->streams, -1);
    return FERRULE_OK;
}

void fh_stream_free(fh_stream *stream) {
    if (stream != NULL) {
        fh_instance *instance = stream->instance;
        fh_stream_close(stream);
        fh_mutex_free(&stream->mutex);
        fh_condition_free(&stream->idle);
        free(stream);
        fh_instance_drop(instance);
    }
}

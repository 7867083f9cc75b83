/* stream.c: streams of an instance. Each has two sides, one for what comes out of it and one for what is fed in, and each
 * side one thread at a time. */
#include "internal.h"

#include <stdio.h>

#define FILL_BYTES 65536                       /* a fill stops at these, at an item more or less, */
#define FILL_ITEMS 1024                        /* at these, */
#define FILL_MS 2                              /* and, so that a slow stream is not held back, after these */
#define FILL_KEPT ((size_t)16 << 20)           /* a larger buffer goes back to the system */
#define SLICE_MS 100                           /* where no signal ends a wait, for those that signals come to */
#define SIGNAL_SLICE_MS 1000                   /* where one does, unless it came just before */
#define LOCKED_SLICE_MS 50                     /* inside next under the instance's lock: its calls wait meanwhile */

static const char *stream_problem(const ferrule_stream *object, char *why, size_t why_size) {
    const char *problem = fh_table_problem(object->ops, sizeof(ferrule_stream_ops), why, why_size);
    if (problem != NULL) {
        return problem;
    }
    /* A stream without 'next' may still give its items by an extension. */
    return object->ops->cancel == NULL                                ? "lacks 'cancel'"
           : object->ops->close == NULL                               ? "lacks 'close'"
           : object->ops->next == NULL && object->ops->query == NULL ? "lacks 'next'"
                                                                      : NULL;
}

fh_stream *fh_stream_open(fh_instance *instance, uint64_t id, int32_t method, const uint8_t *in, size_t in_len,
                          int64_t timeout_ms, const int32_t *cancelled, const char *metadata, size_t metadata_len,
                          fh_answer *answer, int32_t *status) {
    fh_buffer *error = &answer->error;
    fh_stream *stream = calloc(1, sizeof *stream);
    answer->metadata.lent.len = 0;
    ferrule_call call = {sizeof call, 0,        id,           cancelled ? cancelled : &instance->cancelled,
                         timeout_ms,  metadata, metadata_len, &answer->metadata.lent};
    *status = stream == NULL ? FERRULE_OUT_OF_MEMORY : fh_call_enter(instance, &call, error);
    if (*status != FERRULE_OK) {
        free(stream);
        return NULL;
    }
    stream->instance = instance;
    fh_waiter_add(&stream->waiter, id);
    ferrule_stream *object = NULL;
    int32_t answered = FERRULE_UNSUPPORTED;
    if (instance->ops->open != NULL) {
        answered = instance->ops->open(instance->object, method, &call, in, in_len, &object, &error->lent);
    }
    answered = fh_settle(&instance->poisoned, answered, 0, &answer->out, answer->out.lent.len, error);
    if (answered == FERRULE_OK && object == NULL) {
        answered = fh_violation(&instance->poisoned, error, "open answered OK without a stream");
    } else if (answered == FERRULE_OK) {
        char why[120], text[200];
        const char *problem = stream_problem(object, why, sizeof why);
        if (problem != NULL) {
            snprintf(text, sizeof text, "open answered with a stream that %s", problem);
            answered = fh_violation(&instance->poisoned, error, text);
            object = NULL;
        }
    } else {
        object = NULL;                         /* beside an error it is nobody's */
    }
    if (!fh_buffer_intact(&answer->metadata, 0)) {
        fh_buffer_restore(&answer->metadata, 0);
        answered = fh_violation(&instance->poisoned, error, "the plugin broke the buffer rules ('metadata_out' buffer)");
        if (object != NULL) {
            object->ops->close(object);
        }
    }
    if (answered == FERRULE_OK) {
        stream->object = object;
        stream->ops = object->ops;
        stream->flags = (int32_t)object->ops->flags;
        fh_mutex_init(&stream->mutex);
        fh_condition_init(&stream->idle);
        fh_buffer_init(&stream->items, 0, FH_DEFAULT_LIMIT);
        fh_buffer_init(&stream->error, 0, 1 << 20);
        fh_buffer_init(&stream->fault_text, 0, 1 << 20);
        fh_buffer_init(&stream->feed_error, 0, 1 << 20);
        stream->holders = 1;
        fh_add32(&instance->holders, 1);
        fh_mutex_lock(&instance->lock.mutex);
        stream->following = instance->streams;
        stream->at = &instance->streams;
        if (stream->following != NULL) {
            stream->following->at = &stream->following;
        }
        instance->streams = stream;
        fh_mutex_unlock(&instance->lock.mutex);
    } else {
        fh_waiter_remove(&stream->waiter);
        free(stream);
        stream = NULL;
    }
    fh_instance_leave(instance);
    *status = answered;
    return stream;
}

static int locked(const fh_stream *stream) {
    return stream->instance->serial && !(stream->flags & FERRULE_STREAM_UNLOCKED);
}

int32_t fh_stream_traits(const fh_stream *stream) {
    return (stream->flags & FERRULE_STREAM_WAKES) | (stream->ops->feed ? FH_STREAM_FEEDS : 0) |
           (stream->ops->metadata ? FH_STREAM_TELLS : 0) | (locked(stream) ? FH_STREAM_LOCKED : 0);
}

/* ---- the gates -------------------------------------------------------------------------------------- */

static void give_side(fh_stream *stream, int side) {
    fh_mutex_lock(&stream->mutex);
    stream->busy[side] = 0;
    fh_condition_wake(&stream->idle);
    fh_mutex_unlock(&stream->mutex);
}

int32_t fh_stream_enter(fh_stream *stream, int side, int64_t timeout_ms, fh_buffer *error) {
    const char *problem = NULL;
    error->lent.len = 0;
    if (stream->instance->epoch != fh_epoch) {
        fh_error_set(error, "this stream was opened before a fork; open a new one in the child");
        return FERRULE_INVALID_STATE;
    }
    fh_mutex_lock(&stream->mutex);
    if (stream->closing != FH_OPEN) {
        problem = "the stream is closed";
    } else if (stream->busy[side]) {
        problem = side == FH_NEXT ? "another thread is reading this stream" : "another thread is feeding this stream";
    } else if (fh_load32(&stream->poisoned)) {
        problem = "the stream is poisoned by an earlier fault";
    } else if (fh_load32(&stream->instance->poisoned)) {
        problem = "the instance is poisoned by an earlier fault; make a new one";
    } else {
        stream->busy[side] = 1;
    }
    fh_mutex_unlock(&stream->mutex);
    if (problem != NULL) {
        fh_error_set(error, problem);
        return FERRULE_INVALID_STATE;
    }
    if (locked(stream)) {
        int32_t status = fh_instance_enter_in(stream->instance, timeout_ms, error);
        if (status != FERRULE_OK) {
            give_side(stream, side);
        }
        return status;
    }
    return FERRULE_OK;
}

void fh_stream_leave(fh_stream *stream, int side) {
    if (locked(stream)) {
        fh_instance_leave(stream->instance);
    }
    give_side(stream, side);
}

/* Whether a status leaves the stream as it was. */
static int goes_on(int32_t status) {
    return status == FERRULE_OK || status == FERRULE_PENDING || status == FERRULE_INVALID_DATA ||
           status == FERRULE_UNAVAILABLE || status == FERRULE_TIMEOUT;
}

static void end_stream(fh_stream *stream) {
    fh_store32(&stream->ended, 1);
    if (fh_load32(&stream->poisoned)) {
        fh_store32(&stream->instance->poisoned, 1);
    }
}

/* A wake need not follow where the other side's own progress lets this one go on. */
static void tell(fh_stream *stream, int side) {
    if (fh_load32(&stream->wants[side])) {
        fh_waiter_tell(&stream->waiter, side);
    }
}

/* ---- the next side ---------------------------------------------------------------------------------- */

#define SIDE_ALLOWED (FH_ALLOW(FERRULE_END) | FH_ALLOW(FERRULE_PENDING))

int32_t fh_stream_no_item(fh_stream *stream, int32_t status, fh_buffer *out, size_t entry_len, fh_buffer *error) {
    status = fh_settle(&stream->poisoned, status, SIDE_ALLOWED, out, entry_len, error);
    if (!goes_on(status)) {
        end_stream(stream);
        tell(stream, FH_FEED);
    }
    return status;
}

int32_t fh_stream_cannot_step(const fh_stream *stream, fh_buffer *error) {
    if (fh_load32(&stream->ended)) {
        return FERRULE_END;
    }
    fh_error_set(error, "this stream has no 'next'");
    return FERRULE_UNSUPPORTED;
}

/* Items that are there, between enter and leave; waits inside next for the first alone. */
static int32_t take_items(fh_stream *stream, int64_t wait_ms, uint32_t most, fh_items *items) {
    const int64_t began = fh_monotonic_ms();
    fh_buffer *out = &stream->items;
    uint32_t count = 0;
    int32_t status;
    if (out->capacity > FILL_KEPT) {
        fh_buffer_free(out);
        fh_buffer_init(out, 0, FH_DEFAULT_LIMIT);
    }
    if (stream->lengths == NULL && (stream->lengths = malloc(FILL_ITEMS * sizeof *stream->lengths)) == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    if (most > FILL_ITEMS) {
        most = FILL_ITEMS;
    }
    out->lent.len = 0;
    fh_store32(&stream->wants[FH_NEXT], 1);    /* before next is asked: what is fed after that has to tell */
    do {
        const size_t entry_len = out->lent.len;
        status = fh_stream_step(stream, count ? 0 : wait_ms, out, &stream->error);
        if (status == FERRULE_OK) {
            stream->lengths[count] = (uint32_t)(out->lent.len - entry_len);
            status = fh_buffer_append(out, "\n", 1);
            count += status == FERRULE_OK;
        }
    } while (status == FERRULE_OK && count < most && out->lent.len < FILL_BYTES &&
             ((count & (count - 1) && count % 64) || fh_monotonic_ms() - began < FILL_MS));
    if (status == FERRULE_TIMEOUT && (count || (wait_ms >= 0 && fh_monotonic_ms() - began >= wait_ms))) {
        status = FERRULE_PENDING;              /* the end of the time that next was given, not a failure */
    }
    if (status != FERRULE_PENDING) {
        fh_store32(&stream->wants[FH_NEXT], 0);
    }
    items->bytes = out->data;
    items->length = out->lent.len;
    items->lengths = stream->lengths;
    items->count = count;
    items->plain = count > 1 && fh_newlines(out->data, out->lent.len) == count;
    if (count) {
        tell(stream, FH_FEED);
    }
    return status;
}

/* What feed ended the stream with is told to the reader in place of the end that he would take for a good one. */
static int32_t take_fault(fh_stream *stream, int32_t status) {
    fh_mutex_lock(&stream->mutex);
    if (stream->fault) {
        status = stream->fault;
        stream->fault = 0;
        stream->error.lent.len = 0;
        fh_buffer_append(&stream->error, stream->fault_text.data, stream->fault_text.lent.len);
    }
    fh_mutex_unlock(&stream->mutex);
    return status;
}

int32_t fh_stream_fill(fh_stream *stream, int64_t timeout_ms, int32_t signals, uint32_t most, fh_items *items) {
    const int wakes = (stream->flags & FERRULE_STREAM_WAKES) != 0;
    const int64_t until = fh_until(timeout_ms);
    const int64_t slice_until = fh_until(!signals ? -1 : wakes && FH_SIGNALS_END_SLEEP ? SIGNAL_SLICE_MS : SLICE_MS);
    int32_t status;
    memset(items, 0, sizeof *items);
    for (;;) {
        const int64_t left = fh_left(until);
        int64_t inside = 0;
        if (!wakes) {
            inside = fh_sooner(fh_sooner(left, fh_left(slice_until)), locked(stream) ? LOCKED_SLICE_MS : -1);
        }
        const int64_t began = wakes ? 0 : fh_monotonic_ms();
        status = fh_stream_enter(stream, FH_NEXT, left, &stream->error);
        if (status == FERRULE_TIMEOUT) {
            status = FERRULE_PENDING;          /* the instance was busy all the time */
        } else if (status == FERRULE_OK) {
            status = take_items(stream, inside, most, items);
            fh_stream_leave(stream, FH_NEXT);
        }
        if (status != FERRULE_PENDING || items->count || fh_left(until) == 0) {
            break;
        }
        if (!wakes && inside >= 0 && fh_monotonic_ms() - began >= inside) {
            if (fh_left(slice_until) == 0) {
                break;
            }
            continue;                          /* it has waited in there */
        }
        int64_t sleep = fh_sooner(fh_left(until), fh_left(slice_until));
        if (!wakes && (stream->ops->feed == NULL || fh_load32(&stream->fed_final))) {
            sleep = fh_sooner(sleep, LOCKED_SLICE_MS);  /* nothing will tell when it has more */
        }
        if ((!fh_waiter_wait(&stream->waiter, FH_NEXT, sleep) && signals) || fh_left(slice_until) == 0) {
            break;
        }
    }
    if ((status == FERRULE_END || status == FERRULE_INVALID_STATE) && stream->instance->epoch == fh_epoch) {
        status = take_fault(stream, status);
    }
    items->error = (fh_text){stream->error.data, stream->error.lent.len};
    return status;
}

/* Calls `function` (position or metadata) between enter and leave. */
static int32_t ask(fh_stream *stream, int32_t (*function)(ferrule_stream *, ferrule_buffer *, ferrule_buffer *),
                   fh_buffer *out, fh_buffer *error) {
    size_t entry_len = out->lent.len;
    error->lent.len = 0;
    if (function == NULL) {
        return FERRULE_UNSUPPORTED;
    }
    int32_t status = function(stream->object, &out->lent, &error->lent);
    status = fh_settle(&stream->poisoned, status, 0, out, entry_len, error);
    if (fh_load32(&stream->poisoned)) {
        end_stream(stream);
    }
    return status;
}

int32_t fh_stream_where(fh_stream *stream, fh_buffer *out, fh_buffer *error) {
    return ask(stream, stream->ops->position, out, error);
}

int64_t fh_stream_position(fh_stream *stream, fh_answer *answer) {
    answer->out.lent.len = 0;
    int32_t status = fh_stream_enter(stream, FH_NEXT, -1, &answer->error);
    if (status == FERRULE_OK) {
        status = ask(stream, stream->ops->position, &answer->out, &answer->error);
        fh_stream_leave(stream, FH_NEXT);
    }
    return fh_result_of(answer, status);
}

int64_t fh_stream_metadata(fh_stream *stream, fh_answer *answer) {
    answer->out.lent.len = 0;
    int32_t status = fh_stream_enter(stream, FH_NEXT, -1, &answer->error);
    if (status == FERRULE_OK) {
        status = ask(stream, stream->ops->metadata, &answer->out, &answer->error);
        fh_stream_leave(stream, FH_NEXT);
    }
    return fh_result_of(answer, status);
}

/* ---- the feed side ---------------------------------------------------------------------------------- */

static int32_t feed_once(fh_stream *stream, const uint8_t *in, size_t in_len, int32_t final) {
    fh_buffer *error = &stream->feed_error, nothing = {0};
    if (stream->ops->feed == NULL || stream->fed_final) {
        fh_error_set(error, stream->ops->feed == NULL ? "this stream takes no input"
                                                      : "the final piece was fed already; open a new stream");
        return stream->ops->feed == NULL ? FERRULE_UNSUPPORTED : FERRULE_INVALID_STATE;
    }
    if (stream->fed_enough || fh_load32(&stream->ended)) {
        return FERRULE_END;
    }
    fh_store32(&stream->wants[FH_FEED], 1);    /* before feed is asked: what is taken after that has to tell */
    int32_t status = stream->ops->feed(stream->object, in_len ? in : NULL, in_len, final, &error->lent);
    status = fh_settle(&stream->poisoned, status, SIDE_ALLOWED, &nothing, 0, error);
    if (status == FERRULE_PENDING) {
        return status;
    }
    fh_store32(&stream->wants[FH_FEED], 0);
    if (status == FERRULE_OK) {
        fh_store32(&stream->fed_final, final != 0);
    } else if (status == FERRULE_END) {
        stream->fed_enough = 1;
    } else if (!goes_on(status)) {
        fh_mutex_lock(&stream->mutex);
        stream->fault = status;
        fh_buffer_append(&stream->fault_text, error->data, error->lent.len);
        fh_mutex_unlock(&stream->mutex);
        end_stream(stream);
    }
    tell(stream, FH_NEXT);
    return status;
}

int32_t fh_stream_feed(fh_stream *stream, const uint8_t *in, size_t in_len, int32_t final, int64_t timeout_ms,
                       int32_t signals, fh_text *error) {
    const int64_t until = fh_until(timeout_ms);
    const int64_t slice_until = fh_until(!signals ? -1 : FH_SIGNALS_END_SLEEP ? SIGNAL_SLICE_MS : SLICE_MS);
    int32_t status;
    for (;;) {
        status = fh_stream_enter(stream, FH_FEED, fh_left(until), &stream->feed_error);
        if (status == FERRULE_OK) {
            status = feed_once(stream, in, in_len, final);
            fh_stream_leave(stream, FH_FEED);
        } else if (status == FERRULE_TIMEOUT) {
            status = FERRULE_PENDING;          /* the instance was busy all the time */
        }
        if (status != FERRULE_PENDING || fh_left(until) == 0) {
            break;
        }
        const int64_t sleep = fh_sooner(fh_left(until), fh_left(slice_until));
        if ((!fh_waiter_wait(&stream->waiter, FH_FEED, sleep) && signals) || fh_left(slice_until) == 0) {
            break;
        }
    }
    *error = (fh_text){stream->feed_error.data, stream->feed_error.lent.len};
    return status;
}

/* ---- both sides ------------------------------------------------------------------------------------- */

int32_t fh_stream_watch(fh_stream *stream, fh_loop *loop) {
    return stream->instance->epoch == fh_epoch ? fh_waiter_watch(&stream->waiter, loop) : FERRULE_OK;
}

/* Whoever sleeps looks again. */
static void rouse(fh_stream *stream) {
    fh_waiter_tell(&stream->waiter, FH_NEXT);
    fh_waiter_tell(&stream->waiter, FH_FEED);
}

void fh_stream_cancel(fh_stream *stream) {
    if (stream->instance->epoch != fh_epoch) {
        return;
    }
    fh_mutex_lock(&stream->mutex);             /* never beside close */
    if (stream->closing == FH_OPEN) {
        stream->ops->cancel(stream->object);
    }
    fh_mutex_unlock(&stream->mutex);
    rouse(stream);
}

static int inside(const fh_stream *stream) {
    return stream->busy[FH_NEXT] || stream->busy[FH_FEED] || stream->closing == FH_IN_CLOSE;
}

/* The plugin is done with it, and may be done with its instance. */
static void unlist(fh_stream *stream) {
    fh_mutex_lock(&stream->instance->lock.mutex);
    *stream->at = stream->following;
    if (stream->following != NULL) {
        stream->following->at = stream->at;
    }
    fh_mutex_unlock(&stream->instance->lock.mutex);
}

int32_t fh_stream_close(fh_stream *stream, int32_t signals) {
    if (stream->instance->epoch != fh_epoch) {
        return FERRULE_OK;                     /* after a fork it is the parent's to close */
    }
    fh_mutex_lock(&stream->mutex);
    if (stream->closing == FH_OPEN) {
        if (!fh_load32(&stream->ended)) {
            stream->ops->cancel(stream->object);
        }
        stream->closing = FH_CLOSING;
        rouse(stream);
    }
    while (inside(stream)) {
        const int64_t left = fh_exit_left();
        if (left == 0) {
            fh_mutex_unlock(&stream->mutex);
            return FERRULE_TIMEOUT;
        }
        fh_condition_wait(&stream->idle, &stream->mutex, signals ? fh_sooner(left, SLICE_MS) : left);
        if (signals && inside(stream)) {
            fh_mutex_unlock(&stream->mutex);
            return FERRULE_PENDING;
        }
    }
    if (stream->closing == FH_CLOSED) {
        fh_mutex_unlock(&stream->mutex);
        return FERRULE_OK;
    }
    stream->closing = FH_IN_CLOSE;             /* others who close it wait: after any close the plugin is done with it */
    fh_mutex_unlock(&stream->mutex);
    /* Under the lock if the stream is; a poisoned or closed instance must still give its streams up. */
    const int taken = locked(stream) ? fh_lock_take(&stream->instance->lock, fh_exit_left()) : -1;
    if (taken != 0) {
        stream->ops->close(stream->object);
        if (taken > 0) {
            fh_lock_give(&stream->instance->lock);
        }
        fh_waiter_remove(&stream->waiter);
        unlist(stream);
    }
    fh_mutex_lock(&stream->mutex);
    stream->closing = taken != 0 ? FH_CLOSED : FH_CLOSING;
    fh_condition_wake(&stream->idle);
    fh_mutex_unlock(&stream->mutex);
    return taken != 0 ? FERRULE_OK : FERRULE_TIMEOUT;
}

/* Gives up a hold on a stream. */
static void drop(fh_stream *stream) {
    if (fh_add32(&stream->holders, -1) != 1) {
        return;
    }
    fh_instance *instance = stream->instance;
    if (instance->epoch == fh_epoch) {         /* else a mutex may be held, by a thread that is not here */
        fh_mutex_free(&stream->mutex);
        fh_condition_free(&stream->idle);
        fh_bit_free(&stream->waiter.woken[FH_NEXT]);
        fh_bit_free(&stream->waiter.woken[FH_FEED]);
    }
    fh_buffer_free(&stream->items);
    fh_buffer_free(&stream->error);
    fh_buffer_free(&stream->fault_text);
    fh_buffer_free(&stream->feed_error);
    free(stream->lengths);
    free(stream);
    fh_instance_drop(instance);
}

void fh_stream_free(fh_stream *stream) {
    if (stream != NULL && fh_stream_close(stream, 0) == FERRULE_OK) {
        drop(stream);                          /* else a plugin that does not come back still has it */
    }
}

int32_t fh_streams_close(fh_instance *instance, int32_t signals) {
    for (;;) {
        fh_mutex_lock(&instance->lock.mutex);
        fh_stream *stream = instance->streams;
        if (stream != NULL) {
            fh_add32(&stream->holders, 1);     /* its owner may free it meanwhile */
        }
        fh_mutex_unlock(&instance->lock.mutex);
        if (stream == NULL) {
            return FERRULE_OK;
        }
        const int32_t status = fh_stream_close(stream, signals);
        drop(stream);
        if (status != FERRULE_OK) {
            return status;
        }
    }
}

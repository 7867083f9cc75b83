/* ferrule_pusher.h: streams whose items a thread pushes, and which may be fed. One header over ferrule_sdk.h; compile
 * with -pthread (nothing on Windows). C99 and C++11.
 *
 *   FERRULE_WORK(ticks) {                              // on a thread of its own: pusher, state, out, error
 *       int64_t i;
 *       int32_t status = FERRULE_OK;
 *       for (i = 0; status == FERRULE_OK && i < 5; i++) {
 *           ferrule_append_int(out, i);
 *           status = ferrule_push_buffer(pusher, out);  // waits while the reader is behind
 *           if (status == FERRULE_OK) status = ferrule_push_sleep(pusher, 100);
 *       }
 *       return status;                                  // OK ends the stream; below OK: an error, with its object
 *   }
 *   FERRULE_OPEN(open_ticks) {                          // `host` was kept by create
 *       return ferrule_pusher_open(((struct ticker *)self)->host, call, 0, ticks, NULL, NULL, out, error);
 *   }
 *
 * The stream has WAKES and UNLOCKED: next and feed never wait, and an idle stream costs nothing. Both ways are bounded
 * in bytes. Once the stream is cancelled or closed, push, pull and sleep answer CANCELLED, at once, also where they
 * wait. Close does not wait for the work: a thread that looks at nothing goes on, and its pushes go nowhere.
 *
 * How the comments read is said in ferrule_sdk.h. */
#ifndef FERRULE_PUSHER_H
#define FERRULE_PUSHER_H

#include "ferrule_sdk.h"

#if defined(_WIN32)
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>
#else
#include <pthread.h>
#include <signal.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* How many bytes may lie between the two sides, each way; and one item more. */
#ifndef FERRULE_PUSHER_BYTES
#define FERRULE_PUSHER_BYTES ((size_t)256 << 10)
#endif

/* ---- The clock -------------------------------------------------------------------------------------------------*/

/* Nanoseconds of the clock that Python's time.monotonic_ns() reads. */
static inline int64_t ferrule_monotonic_ns(void) {
#if defined(_WIN32)
    LARGE_INTEGER ticks, second;
    QueryPerformanceFrequency(&second);
    QueryPerformanceCounter(&ticks);
    return ticks.QuadPart / second.QuadPart * 1000000000 +
           ticks.QuadPart % second.QuadPart * 1000000000 / second.QuadPart;
#else
    struct timespec now;
#if defined(CLOCK_UPTIME_RAW)
    clock_gettime(CLOCK_UPTIME_RAW, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
#endif
}

/* Sleeps in a unary call, and looks at its cancel flag each millisecond: OK, or CANCELLED. */
static inline int32_t ferrule_call_sleep(const ferrule_call *call, int64_t milliseconds) {
    int64_t end = ferrule_monotonic_ns() + milliseconds * 1000000;
    while (!ferrule_cancelled(call)) {
        int64_t left = end - ferrule_monotonic_ns();
        if (left <= 0) return FERRULE_OK;
#if defined(_WIN32)
        Sleep(1);
#else
        {
            struct timespec pause = {0, 1000000};
            if (left < 1000000) pause.tv_nsec = (long)left;
            nanosleep(&pause, NULL);
        }
#endif
    }
    return FERRULE_CANCELLED;
}

/* ---- Threads, as the system has them ---------------------------------------------------------------------------*/

#if defined(_WIN32)
typedef SRWLOCK ferrule__mutex;
typedef CONDITION_VARIABLE ferrule__condition;
#define FERRULE__THREAD static inline DWORD WINAPI
#define FERRULE__THREAD_ENDS 0

static inline void ferrule__lock(ferrule__mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline void ferrule__unlock(ferrule__mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline void ferrule__threading_init(ferrule__mutex *mutex, ferrule__condition *condition) {
    InitializeSRWLock(mutex);
    InitializeConditionVariable(condition);
}
static inline void ferrule__threading_free(ferrule__mutex *mutex, ferrule__condition *condition) {
    (void)mutex, (void)condition;
}
static inline void ferrule__notify(ferrule__condition *condition) { WakeAllConditionVariable(condition); }
/* Below 0: for ever. May return early. */
static inline void ferrule__wait(ferrule__condition *condition, ferrule__mutex *mutex, int64_t nanoseconds) {
    int64_t milliseconds = nanoseconds / 1000000 + 1;
    SleepConditionVariableSRW(condition, mutex,
                              nanoseconds < 0 ? INFINITE : milliseconds < 3600000 ? (DWORD)milliseconds : 3600000, 0);
}
/* A detached thread: 0, or the system's error. */
static inline int ferrule__start(DWORD(WINAPI *entry)(void *), void *argument) {
    HANDLE thread = CreateThread(NULL, 0, entry, argument, 0, NULL);
    if (thread == NULL) return (int)GetLastError();
    CloseHandle(thread);
    return 0;
}
#else
typedef pthread_mutex_t ferrule__mutex;
typedef pthread_cond_t ferrule__condition;
#define FERRULE__THREAD static inline void *
#define FERRULE__THREAD_ENDS NULL
#if defined(__APPLE__)
#define FERRULE__WAIT_CLOCK CLOCK_REALTIME /* a condition there knows no other; so waits are short */
#define FERRULE__WAIT_LONGEST INT64_C(100000000)
#else
#define FERRULE__WAIT_CLOCK CLOCK_MONOTONIC
#define FERRULE__WAIT_LONGEST INT64_C(3600000000000)
#endif

static inline void ferrule__lock(ferrule__mutex *mutex) { pthread_mutex_lock(mutex); }
static inline void ferrule__unlock(ferrule__mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline void ferrule__threading_init(ferrule__mutex *mutex, ferrule__condition *condition) {
    pthread_condattr_t attributes;
    pthread_mutex_init(mutex, NULL);
    pthread_condattr_init(&attributes);
#if !defined(__APPLE__)
    pthread_condattr_setclock(&attributes, FERRULE__WAIT_CLOCK);
#endif
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}
static inline void ferrule__threading_free(ferrule__mutex *mutex, ferrule__condition *condition) {
    pthread_cond_destroy(condition);
    pthread_mutex_destroy(mutex);
}
static inline void ferrule__notify(ferrule__condition *condition) { pthread_cond_broadcast(condition); }
/* Below 0: for ever. May return early. */
static inline void ferrule__wait(ferrule__condition *condition, ferrule__mutex *mutex, int64_t nanoseconds) {
    struct timespec until;
    if (nanoseconds < 0) {
        pthread_cond_wait(condition, mutex);
        return;
    }
    if (nanoseconds > FERRULE__WAIT_LONGEST) nanoseconds = FERRULE__WAIT_LONGEST;
    clock_gettime(FERRULE__WAIT_CLOCK, &until);
    nanoseconds += until.tv_nsec;
    until.tv_sec += (time_t)(nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);
    pthread_cond_timedwait(condition, mutex, &until);
}
/* A detached thread, which takes none of the host's signals: 0, or the system's error. */
static inline int ferrule__start(void *(*entry)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, was;
    int failure;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &was);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    failure = pthread_create(&thread, &attributes, entry, argument);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    return failure;
}
#endif

/* Adds to a number that several threads share, atomically; what it is then. 0 reads it. */
static inline int32_t ferrule_add(int32_t *number, int32_t more) {
#if defined(_MSC_VER) && !defined(__clang__)
    return (int32_t)_InterlockedExchangeAdd((volatile long *)number, more) + more;
#else
    return __atomic_add_fetch(number, more, __ATOMIC_ACQ_REL);
#endif
}

/* ---- The queue, one way ----------------------------------------------------------------------------------------
 * Two halves: the writer appends to one under the lock, the reader walks over the other without it, and changes them
 * when it has come to its end. So there is a lock an item for the writer and one a half for the reader, and room comes
 * a half at a time: a writer that had to wait is not woken for every item. */

typedef struct ferrule__item { /* aligned to 16, and so are the bytes behind it; then the metadata */
    uint64_t len, metadata_len;
} ferrule__item;

typedef struct ferrule__half {
    uint8_t *bytes;
    size_t len, capacity;
} ferrule__half;

typedef struct ferrule__queue {
    ferrule__half filling;  /* under the lock */
    ferrule__half draining; /* the reader's */
    size_t at;              /* the reader's: how much of it is done */
} ferrule__queue;

/* OK, PENDING (full), or OUT_OF_MEMORY. Under the lock. */
static inline int32_t ferrule__queue_put(ferrule__queue *queue, const void *bytes, size_t len, const char *metadata,
                                         size_t metadata_len) {
    ferrule__half *half = &queue->filling;
    ferrule__item item;
    size_t size;
    uint8_t *p;
    if (half->len >= FERRULE_PUSHER_BYTES / 2) return FERRULE_PENDING;
    if (len > (size_t)-1 / 4 || metadata_len > (size_t)-1 / 4) return FERRULE_OUT_OF_MEMORY;
    size = (sizeof item + len + metadata_len + 15) & ~(size_t)15;
    if (half->capacity - half->len < size) {
        size_t capacity = half->len + size > 2 * half->capacity ? half->len + size : 2 * half->capacity;
        if (capacity < 1024) capacity = 1024;
        if ((p = (uint8_t *)realloc(half->bytes, capacity)) == NULL) return FERRULE_OUT_OF_MEMORY;
        half->bytes = p;
        half->capacity = capacity;
    }
    item.len = len;
    item.metadata_len = metadata_len;
    p = half->bytes + half->len;
    memcpy(p, &item, sizeof item);
    if (len != 0) memcpy(p + sizeof item, bytes, len);
    if (metadata_len != 0) memcpy(p + sizeof item + len, metadata, metadata_len);
    half->len += size;
    return FERRULE_OK;
}

/* The next item of the reader's half, or NULL. Lent until ferrule__queue_change. */
static inline const uint8_t *ferrule__queue_take(ferrule__queue *queue, ferrule__item *item) {
    const uint8_t *p;
    if (queue->at == queue->draining.len) return NULL;
    p = queue->draining.bytes + queue->at;
    memcpy(item, p, sizeof *item);
    queue->at += (sizeof *item + (size_t)item->len + (size_t)item->metadata_len + 15) & ~(size_t)15;
    return p + sizeof *item;
}

/* Changes the halves if there is something in the writer's: 1, or 0. Under the lock, when the reader's is done. */
static inline int ferrule__queue_change(ferrule__queue *queue) {
    ferrule__half done = queue->draining;
    if (queue->filling.len == 0) return 0;
    queue->draining = queue->filling;
    queue->at = 0;
    done.len = 0;
    queue->filling = done;
    return 1;
}

static inline void ferrule__queue_free(ferrule__queue *queue) {
    free(queue->filling.bytes);
    free(queue->draining.bytes);
}

/* ---- The pusher ------------------------------------------------------------------------------------------------*/

typedef struct ferrule_pusher ferrule_pusher; /* two hold it, the host until close and the work until it ends */

/* The head of a work: `out` and `error` are empty buffers of its own, to make items and its error in. */
#define FERRULE_WORK(name)                                                                                            \
    static int32_t name(FERRULE__UNUSED ferrule_pusher *pusher, FERRULE__UNUSED void *state,                          \
                        FERRULE__UNUSED ferrule_buffer *out, FERRULE__UNUSED ferrule_buffer *error)
typedef int32_t (*ferrule_work)(ferrule_pusher *pusher, void *state, ferrule_buffer *out, ferrule_buffer *error);

struct ferrule_pusher {
    ferrule_stream base;
    const ferrule_host *host;
    uint64_t id;
    ferrule_work work;
    void (*release)(void *state);
    void *state;                    /* the work's */
    ferrule_buffer out, error;      /* the work's until it has ended */
    int32_t holders, cancelled;     /* atomic */
    const uint8_t *metadata;        /* the next side's: of the item given last, or of the stream after its end */
    size_t metadata_len;
    ferrule__mutex mutex;           /* of all below, but for what is the queues' readers' */
    ferrule__condition changed;
    ferrule__queue items, fed;
    ferrule_buffer end_metadata;
    int32_t status;                 /* how it ends */
    int waiting;                    /* threads that wait for `changed` */
    int reader_sleeps, feeder_sleeps; /* next, feed answered PENDING since the last wake */
    int ended, final;
};

static inline int32_t ferrule__owned_reserve(ferrule_buffer *buffer, size_t additional) {
    size_t capacity = 2 * buffer->capacity;
    uint8_t *moved;
    if (buffer->capacity - buffer->len >= additional) return FERRULE_OK;
    if (additional > (size_t)-1 / 4) return FERRULE_OUT_OF_MEMORY;
    if (capacity < buffer->len + additional) capacity = buffer->len + additional;
    if (capacity < 256) capacity = 256;
    if ((moved = (uint8_t *)realloc(buffer->data, capacity)) == NULL) return FERRULE_OUT_OF_MEMORY;
    buffer->data = moved;
    buffer->capacity = capacity;
    return FERRULE_OK;
}

static inline void ferrule__owned_init(ferrule_buffer *buffer) {
    buffer->struct_size = sizeof *buffer;
    buffer->reserve = ferrule__owned_reserve;
}

/* Until something changed; under the lock, which is free meanwhile. */
static inline void ferrule__pusher_wait(ferrule_pusher *pusher, int64_t nanoseconds) {
    pusher->waiting++;
    ferrule__wait(&pusher->changed, &pusher->mutex, nanoseconds);
    pusher->waiting--;
}

static inline void ferrule__pusher_notify(ferrule_pusher *pusher) {
    if (pusher->waiting != 0) ferrule__notify(&pusher->changed);
}

/* Unlocks, and wakes the host if it sleeps for one of these sides. */
static inline void ferrule__pusher_unlock(ferrule_pusher *pusher, int reader, int feeder) {
    int wake = (reader && pusher->reader_sleeps) || (feeder && pusher->feeder_sleeps);
    if (reader) pusher->reader_sleeps = 0;
    if (feeder) pusher->feeder_sleeps = 0;
    ferrule__unlock(&pusher->mutex);
    if (wake && FERRULE_HAS(pusher->host, wake)) pusher->host->wake(pusher->host, pusher->id);
}

static inline void ferrule__pusher_let_go(ferrule_pusher *pusher) {
    if (ferrule_add(&pusher->holders, -1) != 0) return;
    ferrule__queue_free(&pusher->items);
    ferrule__queue_free(&pusher->fed);
    free(pusher->out.data);
    free(pusher->error.data);
    free(pusher->end_metadata.data);
    ferrule__threading_free(&pusher->mutex, &pusher->changed);
    free(pusher);
}

FERRULE__THREAD ferrule__pusher_thread(void *argument) {
    ferrule_pusher *pusher = (ferrule_pusher *)argument;
    int32_t status = pusher->work(pusher, pusher->state, &pusher->out, &pusher->error);
    if (pusher->release != NULL) pusher->release(pusher->state); /* first: who sees the end finds nothing open */
    ferrule__lock(&pusher->mutex);
    pusher->status = status < FERRULE_OK ? status : FERRULE_END;
    pusher->ended = 1;
    ferrule__pusher_unlock(pusher, 1, 1);
    ferrule__pusher_let_go(pusher);
    return FERRULE__THREAD_ENDS;
}

/* ---- For the work ----------------------------------------------------------------------------------------------
 * `push` is [any thread] until the work ends; `pull` is the work's thread alone. */

/* Whether the stream was cancelled or closed: the work should end soon. */
static inline int ferrule_push_cancelled(const ferrule_pusher *pusher) { return FERRULE_LOAD(&pusher->cancelled) != 0; }

/* Pushes an item and its metadata, a JSON object (none with length 0); both are copied. Waits while the reader is
 * behind. OK, CANCELLED or OUT_OF_MEMORY. */
static inline int32_t ferrule_push_with(ferrule_pusher *pusher, const void *bytes, size_t len, const char *metadata,
                                        size_t metadata_len) {
    int32_t status = FERRULE_CANCELLED;
    ferrule__lock(&pusher->mutex);
    while (!ferrule_push_cancelled(pusher)) {
        status = ferrule__queue_put(&pusher->items, bytes, len, metadata, metadata_len);
        if (status != FERRULE_PENDING) break;
        ferrule__pusher_wait(pusher, -1);
        status = FERRULE_CANCELLED;
    }
    ferrule__pusher_unlock(pusher, 1, 0);
    return status;
}

/* The same, without metadata. */
static inline int32_t ferrule_push(ferrule_pusher *pusher, const void *bytes, size_t len) {
    return ferrule_push_with(pusher, bytes, len, NULL, 0);
}

/* Pushes what is in a buffer, and empties it. */
static inline int32_t ferrule_push_buffer(ferrule_pusher *pusher, ferrule_buffer *buffer) {
    int32_t status = ferrule_push(pusher, buffer->data, buffer->len);
    buffer->len = 0;
    return status;
}

/* The metadata that the stream has after its end: a JSON object, copied. OK or OUT_OF_MEMORY. */
static inline int32_t ferrule_push_metadata(ferrule_pusher *pusher, const char *metadata, size_t len) {
    int32_t status;
    ferrule__lock(&pusher->mutex);
    pusher->end_metadata.len = 0;
    status = ferrule_append(&pusher->end_metadata, metadata, len);
    ferrule__unlock(&pusher->mutex);
    return status;
}

static inline int32_t ferrule__pull(ferrule_pusher *pusher, int waits, const uint8_t **bytes, size_t *len) {
    ferrule__item item = {0, 0};
    const uint8_t *found = ferrule__queue_take(&pusher->fed, &item);
    *bytes = NULL;
    *len = 0;
    if (ferrule_push_cancelled(pusher)) return FERRULE_CANCELLED;
    if (found == NULL) {
        int32_t status = FERRULE_OK;
        ferrule__lock(&pusher->mutex);
        while (!ferrule__queue_change(&pusher->fed)) {
            if (ferrule_push_cancelled(pusher)) status = FERRULE_CANCELLED;
            else if (pusher->final) status = FERRULE_END;
            else if (!waits) status = FERRULE_PENDING;
            if (status != FERRULE_OK) break;
            ferrule__pusher_wait(pusher, -1);
        }
        ferrule__pusher_unlock(pusher, 0, status == FERRULE_OK);
        if (status != FERRULE_OK) return status;
        found = ferrule__queue_take(&pusher->fed, &item);
    }
    *bytes = found;
    *len = (size_t)item.len;
    return FERRULE_OK;
}

/* The next piece that was fed, as it was fed (an empty final one is no piece), aligned to 16; waits for one. OK, END
 * after the last one (at once if the stream takes no feed), or CANCELLED. Lent until the next pull. */
static inline int32_t ferrule_pull(ferrule_pusher *pusher, const uint8_t **bytes, size_t *len) {
    return ferrule__pull(pusher, 1, bytes, len);
}

/* The same, but PENDING if none is there. */
static inline int32_t ferrule_try_pull(ferrule_pusher *pusher, const uint8_t **bytes, size_t *len) {
    return ferrule__pull(pusher, 0, bytes, len);
}

/* Sleeps: OK, or CANCELLED at once when that comes. */
static inline int32_t ferrule_push_sleep(ferrule_pusher *pusher, int64_t milliseconds) {
    int64_t left = milliseconds * 1000000, end = ferrule_monotonic_ns() + left;
    ferrule__lock(&pusher->mutex);
    while (left > 0 && !ferrule_push_cancelled(pusher)) {
        ferrule__pusher_wait(pusher, left);
        left = end - ferrule_monotonic_ns();
    }
    ferrule__unlock(&pusher->mutex);
    return ferrule_push_cancelled(pusher) ? FERRULE_CANCELLED : FERRULE_OK;
}

/* ---- For the host ----------------------------------------------------------------------------------------------*/

static inline void ferrule__pusher_cancel(ferrule_stream *stream) {
    ferrule_pusher *pusher = (ferrule_pusher *)(void *)stream;
    FERRULE__STORE(&pusher->cancelled, 1);
    ferrule__lock(&pusher->mutex);
    ferrule__pusher_notify(pusher);
    ferrule__pusher_unlock(pusher, 1, 1);
}

static inline void ferrule__pusher_close(ferrule_stream *stream) {
    ferrule__pusher_cancel(stream);
    ferrule__pusher_let_go((ferrule_pusher *)(void *)stream);
}

/* What next answers when the work has ended and all it pushed was read. Under the lock. */
static inline int32_t ferrule__pusher_end(ferrule_pusher *pusher, ferrule_buffer *error) {
    int32_t status = pusher->status;
    pusher->metadata = pusher->end_metadata.data;
    pusher->metadata_len = pusher->end_metadata.len;
    if (status < FERRULE_OK) ferrule_append(error, pusher->error.data, pusher->error.len);
    pusher->status = FERRULE_END; /* the host asks again after an error that ends no stream */
    return status;
}

static inline int32_t ferrule__pusher_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out,
                                           ferrule_buffer *error) {
    ferrule_pusher *pusher = (ferrule_pusher *)(void *)stream;
    ferrule__item item = {0, 0};
    const uint8_t *bytes = ferrule__queue_take(&pusher->items, &item);
    int32_t status = FERRULE_OK;
    (void)timeout_ms; /* with WAKES it never waits */
    pusher->metadata_len = 0;
    if (bytes == NULL) {
        ferrule__lock(&pusher->mutex);
        if (ferrule__queue_change(&pusher->items)) ferrule__pusher_notify(pusher); /* there is room */
        else if (pusher->ended) status = ferrule__pusher_end(pusher, error);
        else status = FERRULE_PENDING;
        pusher->reader_sleeps = status == FERRULE_PENDING && !ferrule_push_cancelled(pusher);
        ferrule__unlock(&pusher->mutex);
        if (status == FERRULE_OK) bytes = ferrule__queue_take(&pusher->items, &item);
    }
    if (ferrule_push_cancelled(pusher)) return ferrule_fail(error, FERRULE_CANCELLED, "The stream was cancelled");
    if (status != FERRULE_OK) return status;
    pusher->metadata = bytes + item.len;
    pusher->metadata_len = (size_t)item.metadata_len;
    if (ferrule_append(out, bytes, (size_t)item.len) == FERRULE_OK) return FERRULE_OK;
    return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "The host gives no room for %.0f bytes", (double)item.len);
}

static inline int32_t ferrule__pusher_feed(ferrule_stream *stream, const uint8_t *in, size_t in_len, int32_t final,
                                           ferrule_buffer *error) {
    ferrule_pusher *pusher = (ferrule_pusher *)(void *)stream;
    int32_t status = FERRULE_OK;
    ferrule__lock(&pusher->mutex);
    if (pusher->final) status = FERRULE_INVALID_STATE;
    else if (ferrule_push_cancelled(pusher)) status = FERRULE_CANCELLED;
    else if (pusher->ended) status = FERRULE_END;
    else if (in_len != 0 || !final) status = ferrule__queue_put(&pusher->fed, in, in_len, NULL, 0);
    if (status == FERRULE_OK) {
        pusher->final = final != 0;
        ferrule__pusher_notify(pusher);
    }
    pusher->feeder_sleeps = status == FERRULE_PENDING;
    ferrule__unlock(&pusher->mutex);
    switch (status) {
    case FERRULE_INVALID_STATE: return ferrule_fail(error, status, "Fed after the final piece: open the stream anew");
    case FERRULE_CANCELLED: return ferrule_fail(error, status, "The stream was cancelled");
    case FERRULE_OUT_OF_MEMORY: return ferrule_fail(error, status, "No memory for %.0f bytes", (double)in_len);
    default: return status;
    }
}

static inline int32_t ferrule__pusher_metadata(ferrule_stream *stream, ferrule_buffer *out,
                                               FERRULE__UNUSED ferrule_buffer *error) {
    const ferrule_pusher *pusher = (const ferrule_pusher *)(const void *)stream;
    if (pusher->metadata_len == 0) return ferrule_append(out, "{}", 2);
    return ferrule_append(out, pusher->metadata, pusher->metadata_len);
}

#define FERRULE_PUSHER_FEED 1     /* the stream takes what is fed to it */
#define FERRULE_PUSHER_METADATA 2 /* its items or its end have metadata; the manifest's method says "metadata": true */

/* Opens a stream and starts its work on a thread: a whole FERRULE_OPEN. `call`, `out` and `error` are that one's,
 * `host` is create's. `flags`: of the two above, or 0.
 * state: the work's, from here on, also when this fails; may be NULL. It may outlive the instance, so it holds nothing
 * of that. release: frees it, on the work's thread when the work has ended; may be NULL.
 * OK; OUT_OF_MEMORY; UNAVAILABLE if the system has no thread now. [instance] */
static inline int32_t ferrule_pusher_open(const ferrule_host *host, const ferrule_call *call, int flags,
                                          ferrule_work work, void *state, void (*release)(void *state),
                                          ferrule_stream **out, ferrule_buffer *error) {
#define FERRULE__PUSHER(feed, metadata)                                                                               \
    {sizeof(ferrule_stream_ops), FERRULE_STREAM_UNLOCKED | FERRULE_STREAM_WAKES, ferrule__pusher_cancel,              \
     ferrule__pusher_close, ferrule__pusher_next, feed, NULL, metadata, NULL}
    static const ferrule_stream_ops ops[4] = {
        FERRULE__PUSHER(NULL, NULL), FERRULE__PUSHER(ferrule__pusher_feed, NULL),
        FERRULE__PUSHER(NULL, ferrule__pusher_metadata),
        FERRULE__PUSHER(ferrule__pusher_feed, ferrule__pusher_metadata)};
    ferrule_pusher *pusher = (ferrule_pusher *)calloc(1, sizeof *pusher);
    int failure;
    if (pusher == NULL) {
        if (release != NULL) release(state);
        return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for a stream");
    }
    pusher->base.ops = &ops[flags & 3];
    pusher->host = host;
    pusher->id = call->id;
    pusher->work = work;
    pusher->state = state;
    pusher->release = release;
    pusher->holders = 2;
    pusher->final = !(flags & FERRULE_PUSHER_FEED);
    ferrule__owned_init(&pusher->out);
    ferrule__owned_init(&pusher->error);
    ferrule__owned_init(&pusher->end_metadata);
    ferrule__threading_init(&pusher->mutex, &pusher->changed);
    if ((failure = ferrule__start(ferrule__pusher_thread, pusher)) != 0) {
        pusher->holders = 1;
        ferrule__pusher_let_go(pusher);
        if (release != NULL) release(state);
        return ferrule_fail(error, FERRULE_UNAVAILABLE, "The system gives no thread: error %d", failure);
    }
    *out = &pusher->base;
    return FERRULE_OK;
}

#ifdef __cplusplus
}
#endif
#endif /* FERRULE_PUSHER_H */

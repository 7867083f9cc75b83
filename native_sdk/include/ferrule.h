/* ferrule.h: the boundary between a host and a native plugin. ABI 0.1. C99 and C++.
 *
 * A plugin is an object with named methods. A method takes bytes (JSON unless its manifest entry
 * says otherwise) and answers with bytes, or with a stream of them. A library exports three
 * functions, declared at the end of this file, and carries its manifest in section `.ferrule`.
 *
 * How the comments read: contract, owner, life, thread, NULL, in that order.
 *   [any thread]   may be called at any moment, from any thread, also beside other calls
 *   [instance]     under the instance's lock if the manifest says "serial"; beside other calls of
 *                  the same instance if it says "concurrent"
 *   [one thread]   the host calls it alone
 * Every pointer that a function takes is lent until that function returns, unless it says otherwise.
 * No function may let an exception, a panic or a longjmp leave it.
 *
 * Version 0: a host takes exactly its own 0.minor. From 1.0 on, tables only grow at their ends.
 */
#ifndef FERRULE_H
#define FERRULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ferrule-cdef-begin */
#define FERRULE_ABI_MAJOR 0
#define FERRULE_ABI_MINOR 1

/* Statuses. OK and above: an answer. Below: an error, with an object in the error buffer:
 *   {"message": "…", "details": {…}, "retry_after_ms": 250}
 * Text that is no JSON object becomes the message; an empty buffer is the status's own name. A host
 * may retry UNAVAILABLE, TIMEOUT and whatever carries retry_after_ms; nothing else. */
#define FERRULE_OK 0
#define FERRULE_END 1                 /* next, feed: no more */
#define FERRULE_PENDING 2             /* next, feed: not now; see ferrule_stream_ops */
#define FERRULE_SKIP 3                /* call: no answer for this input, on purpose */
#define FERRULE_INVALID_ARGUMENT (-1) /* the caller's input, judged alone */
#define FERRULE_INVALID_CONFIG (-2)
#define FERRULE_INVALID_DATA (-3)     /* this one item; does not end a stream */
#define FERRULE_INVALID_STATE (-4)    /* right call, wrong moment */
#define FERRULE_NOT_FOUND (-5)
#define FERRULE_UNSUPPORTED (-6)
#define FERRULE_UNAUTHENTICATED (-7)
#define FERRULE_DENIED (-8)
#define FERRULE_UNAVAILABLE (-9)      /* try again; does not end a stream */
#define FERRULE_TIMEOUT (-10)
#define FERRULE_CANCELLED (-11)
#define FERRULE_OUT_OF_MEMORY (-12)
#define FERRULE_IO (-13)
#define FERRULE_INTERNAL (-14)        /* a broken promise of this header; poisons the instance */
#define FERRULE_PANIC (-15)           /* caught by the SDK; poisons the instance */

#define FERRULE_STREAM_UNLOCKED 1     /* ferrule_stream_ops.flags: the host takes no lock for it */
#define FERRULE_STREAM_WAKES 2        /* ferrule_stream_ops.flags: a wake follows every PENDING */

typedef struct ferrule_manifest ferrule_manifest;
typedef struct ferrule_host ferrule_host;
typedef struct ferrule_call ferrule_call;
typedef struct ferrule_buffer ferrule_buffer;
typedef struct ferrule_instance ferrule_instance;
typedef struct ferrule_instance_ops ferrule_instance_ops;
typedef struct ferrule_stream ferrule_stream;
typedef struct ferrule_stream_ops ferrule_stream_ops;

/* The whole of section `.ferrule` (`__DATA,__ferrule` on Mach-O): this header, json_len bytes of
 * UTF-8 JSON, then NULs at most. A host reads it from the file, running nothing; that is why it is
 * data and not only an answer of ferrule_plugin_manifest. Two of them in one library are refused. */
struct ferrule_manifest {
    uint8_t magic[8];                 /* "ferrule\0" */
    uint32_t abi_major, abi_minor;    /* from 1.0 on, minor is the lowest that the plugin needs */
    uint64_t json_len;
};

/* Where output goes. The host's, always; a plugin appends at `len` and touches nothing below the
 * `len` it was entered with. On any status but OK the host cuts it back to that length.
 * Rationale: no memory is freed across the boundary, and the host can bound what a plugin takes. */
struct ferrule_buffer {
    uint32_t struct_size, flags;
    uint8_t *data;                    /* may move in reserve; NULL only while capacity is 0 */
    size_t len, capacity;
    /* Makes capacity - len at least `additional`. OK, or OUT_OF_MEMORY with the buffer unchanged.
     * Only from inside the call that lent the buffer. */
    int32_t (*reserve)(ferrule_buffer *buffer, size_t additional);
};

/* What a call knows beside its input. Never NULL; lent until return, all it points at too. */
struct ferrule_call {
    uint32_t struct_size, flags;
    uint64_t id;                      /* create: the instance's; open: the stream's; never reused; 0 in a pump */
    const int32_t *cancelled;         /* never NULL; nonzero once cancelled; FERRULE_LOAD only. After open
                                         has returned, cancel(stream) alone says it */
    int64_t timeout_ms;               /* what is left at entry; -1: no limit, 0: do not wait */
    const char *metadata;             /* a JSON object, or NULL with length 0 */
    size_t metadata_len;
    ferrule_buffer *metadata_out;     /* or NULL: nobody listens. One JSON object; also beside an error */
};

/* What the host offers. Lives until the process ends. Every function: [any thread], also a plugin's
 * own; it only queues, never waits for a plugin and never calls one. An id is an instance's or a
 * stream's (ferrule_call.id); 0 is the library itself; a dead id is ignored.
 * Rationale: a library-wide logger outlives the instance that started it. */
struct ferrule_host {
    uint32_t struct_size, flags;
    uint32_t abi_major, abi_minor;
    /* Levels are Python's: 10 debug, 20 info, 30 warning, 40 error, 50 critical. */
    int32_t (*log_enabled)(const ferrule_host *host, uint64_t id, int32_t level);
    /* message: UTF-8. fields: a JSON object, or NULL with length 0. Copied; may be dropped when the
     * host is behind, and dropped ones are counted. */
    void (*log)(const ferrule_host *host, uint64_t id, int32_t level, const char *message, size_t message_len,
                const char *fields, size_t fields_len);
    /* Says that next or feed of stream `id` would no longer answer PENDING. Sticky; never lost. */
    void (*wake)(const ferrule_host *host, uint64_t id);
    /* A table of functions by NAME/VERSION, or NULL. The host's, as long-lived as the host. */
    const void *(*query)(const ferrule_host *host, const char *extension);
};

/* The functions of an instance: const, static, shared by all instances of a plugin. A NULL, misaligned,
 * short or garbage table is refused; a longer one is accepted. `call` and `method` are never NULL; `open`
 * may be, where no method streams; `query` may be. */
struct ferrule_instance_ops {
    uint32_t struct_size, flags;      /* struct_size: sizeof this table, as the plugin was compiled */
    /* The number of a method, >= 0, or NOT_FOUND. Asked once for every method of the manifest, before
     * the first call. [one thread] */
    int32_t (*method)(ferrule_instance *instance, const char *name, size_t name_len);
    /* One input, one answer appended to `out`; `error` comes empty and holds an error object when the
     * status is below OK. SKIP is allowed here only. `in` is NULL only with length 0, and never
     * overlaps `out`. [instance] */
    int32_t (*call)(ferrule_instance *instance, int32_t method, const ferrule_call *call,
                    const uint8_t *in, size_t in_len, ferrule_buffer *out, ferrule_buffer *error);
    /* Starts a stream. OK: *out is an object whose first member is its table; it belongs to the host
     * until close. Else *out stays NULL. [instance] */
    int32_t (*open)(ferrule_instance *instance, int32_t method, const ferrule_call *call,
                    const uint8_t *in, size_t in_len, ferrule_stream **out, ferrule_buffer *error);
    /* A table of functions by NAME/VERSION, or NULL. Lives as long as the instance. [instance] */
    const void *(*query)(ferrule_instance *instance, const char *extension);
};
struct ferrule_instance { const ferrule_instance_ops *ops; };  /* the plugin's own state follows */

/* The functions of a stream: const and static. `cancel` and `close` are never NULL; the others are as the
 * manifest promises. Without FERRULE_STREAM_UNLOCKED, and unless the plugin is concurrent, everything but
 * cancel runs under the instance's lock, so `next` must then not wait. With it, one thread for next,
 * position, metadata and query, and one for feed, may run at once.
 *
 * PENDING from next: nothing yet. From feed: full; neither data nor `final` was taken, repeat both; only
 * allowed if next has something to give or a wake will come. With FERRULE_STREAM_WAKES the host sleeps
 * until a wake; without it the host waits inside next, with a timeout, and PENDING before that
 * timeout means 'call again after a feed'. An expired timeout is TIMEOUT, and ends nothing.
 * INVALID_DATA (this one item; the position advances), UNAVAILABLE and TIMEOUT do not end a stream; after
 * END or any other error only position, metadata, cancel and close are called. */
struct ferrule_stream_ops {
    uint32_t struct_size, flags;
    /* Asks everything under way to end soon. [any thread], at once, never beside close */
    void (*cancel)(ferrule_stream *stream);
    /* Frees it. Once; the host calls nothing on it afterwards. [one thread] */
    void (*close)(ferrule_stream *stream);
    /* One item appended to `out`; or END, PENDING, TIMEOUT, an error. timeout_ms: -1 none, 0 poll. */
    int32_t (*next)(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error);
    /* Takes a piece of input. `final` nonzero: the last piece, (NULL, 0, 1) is an empty one; next may then
     * not wait for more. END: 'I want no more'. Feed after final is INVALID_STATE. */
    int32_t (*feed)(ferrule_stream *stream, const uint8_t *in, size_t in_len, int32_t final, ferrule_buffer *error);
    /* One JSON value: where to resume, right after the item that next returned last, never what was read
     * ahead. It comes back as {"position": …} in the input of open. */
    int32_t (*position)(ferrule_stream *stream, ferrule_buffer *out, ferrule_buffer *error);
    /* One JSON object: the last item's, or the stream's after its end. */
    int32_t (*metadata)(ferrule_stream *stream, ferrule_buffer *out, ferrule_buffer *error);
    /* A table of functions by NAME/VERSION, or NULL. Lives as long as the stream. */
    const void *(*query)(ferrule_stream *stream, const char *extension);
};
struct ferrule_stream { const ferrule_stream_ops *ops; };      /* the plugin's own state follows */

/* The three symbols' types. */

/* The same manifest that section `.ferrule` holds. The library's; lives as long as it. [any thread] */
typedef const ferrule_manifest *(*ferrule_plugin_manifest_fn)(void);
/* Makes an instance of `plugin` (a name of the manifest). `config` is a JSON object with every default
 * filled in and checked against the manifest's schema. OK: *out is an object whose first member is its
 * table; it belongs to the host until destroy. Else *out stays NULL and no thread is left behind.
 * `host` may be kept. [any thread] */
typedef int32_t (*ferrule_plugin_create_fn)(const ferrule_host *host, const ferrule_call *call,
                                            const char *plugin, size_t plugin_len,
                                            const char *config, size_t config_len,
                                            ferrule_instance **out, ferrule_buffer *error);
/* Frees it, once, after every stream of it was closed. [one thread] */
typedef void (*ferrule_plugin_destroy_fn)(ferrule_instance *instance);
/* ferrule-cdef-end */

#if defined(_WIN32)
#define FERRULE_EXPORT __declspec(dllexport)
#else
#define FERRULE_EXPORT __attribute__((visibility("default")))
#endif

FERRULE_EXPORT const ferrule_manifest *ferrule_plugin_manifest(void);
FERRULE_EXPORT int32_t ferrule_plugin_create(const ferrule_host *host, const ferrule_call *call,
                                             const char *plugin, size_t plugin_len,
                                             const char *config, size_t config_len,
                                             ferrule_instance **out, ferrule_buffer *error);
FERRULE_EXPORT void ferrule_plugin_destroy(ferrule_instance *instance);

/* Whether a table that the other side compiled has a field, and whether it is set. */
#define FERRULE_HAS_FIELD(object, field) \
    ((size_t)((const char *)(&(object)->field + 1) - (const char *)(object)) <= (object)->struct_size)
#define FERRULE_HAS(object, field) (FERRULE_HAS_FIELD(object, field) && (object)->field != NULL)

/* Reads a flag that another thread may set. */
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define FERRULE_LOAD(pointer) ((int32_t)_InterlockedOr((volatile long *)(pointer), 0))
#else
#define FERRULE_LOAD(pointer) __atomic_load_n((pointer), __ATOMIC_ACQUIRE)
#endif

#ifdef __cplusplus
}
#endif
#endif /* FERRULE_H */

/* internal.h: what the .c files of this folder share among themselves. */
#ifndef FERRULE_INTERNAL_H
#define FERRULE_INTERNAL_H

#include "native.h"
#include "platform.h"

/* ---- buffer.c: heap buffers, and the guard ------------------------------------------------------- */

#define FH_DEFAULT_LIMIT ((size_t)1 << 30)

int32_t fh_buffer_init(fh_buffer *buffer, size_t capacity, size_t limit);
void fh_buffer_free(fh_buffer *buffer);
int32_t fh_buffer_append(fh_buffer *buffer, const void *bytes, size_t length);
int32_t fh_heap_reserve(ferrule_buffer *lent, size_t additional);
/* The buffer begins in memory that is another's, and goes on in its own when there is no more room. */
void fh_buffer_begin_in(fh_buffer *buffer, uint8_t *data, size_t capacity);

/* Whether the plugin left the buffer as it may: data, capacity and reserve are the host's, and `len` is
 * between where it was and the capacity. */
static inline int fh_buffer_intact(const fh_buffer *buffer, size_t entry_len) {
    return FH_LIKELY(buffer->lent.data == buffer->data && buffer->lent.capacity == buffer->capacity &&
                     buffer->lent.len >= entry_len && buffer->lent.len <= buffer->capacity &&
                     buffer->lent.reserve == buffer->reserve);
}
/* Puts the host's own copies back after a violation. */
void fh_buffer_restore(fh_buffer *buffer, size_t entry_len);
/* Replaces whatever the error buffer holds by {"message": text}; text needs no escaping. */
void fh_error_set(fh_buffer *error, const char *text);

/* ---- host.c: the process ------------------------------------------------------------------------- */

extern const ferrule_host fh_host_table;
extern int32_t fh_epoch;                       /* counts forks: an object of another epoch is poisoned */

/* First in, first out, so that no caller starves; 3 to 5 ns when free. fh_lock_take: 1 taken, 0 not in time
 * (timeout_ms -1: without end), -1 this thread has it already. */
typedef struct fh_lock {
    uint64_t next, serving;
    uint64_t owner;                            /* thread that is inside, 0 none */
    int32_t waiting;
    struct fh_gone *gone;
    fh_mutex mutex;
    fh_condition turn;
} fh_lock;
void fh_lock_init(fh_lock *lock);
void fh_lock_free(fh_lock *lock);
int fh_lock_take(fh_lock *lock, int64_t timeout_ms);
void fh_lock_give(fh_lock *lock);
uint64_t fh_thread(void);                      /* of the calling thread; never 0 */

/* What waits for a plugin may still wait, once the gate is shut: ms, 0 none; before that without end, -1. */
int64_t fh_exit_left(void);

/* ---- wakes.c ------------------------------------------------------------------------------------- */

enum { FH_NEXT, FH_FEED };                     /* the sides of a stream */
enum { FH_OPEN, FH_CLOSING, FH_IN_CLOSE, FH_CLOSED };  /* asked to, in the plugin's close, back from it */

/* A waiter is known by its stream's id before the plugin is, so that a wake during open is not lost. */
typedef struct fh_waiter {
    uint64_t id;
    fh_bit woken[2];                           /* of each side */
    struct fh_waiter *following;
    fh_loop *loop;                             /* where its wakes are listed too, or NULL */
    uint64_t round;                            /* of the loop, when it was listed last */
    int32_t watched;                           /* whether there is a loop, for those without the table's mutex */
    int32_t removed;
} fh_waiter;
void fh_waiter_add(fh_waiter *waiter, uint64_t id);
void fh_waiter_remove(fh_waiter *waiter);
/* Sleeps until a side was woken since its last wait, and takes that: 1. 0: not in time, or a signal came. */
int fh_waiter_wait(fh_waiter *waiter, int side, int64_t timeout_ms);
void fh_waiter_wake(uint64_t id);              /* both sides of a stream, if it lives */
void fh_waiter_tell(fh_waiter *waiter, int side);
int32_t fh_waiter_watch(fh_waiter *waiter, fh_loop *loop);
void fh_wakes_after_fork(void);

/* ---- loader.c ------------------------------------------------------------------------------------ */

struct fh_instance {
    ferrule_instance *object;                  /* NULL once destroyed */
    const ferrule_instance_ops *ops;
    ferrule_plugin_destroy_fn destroy;
    uint64_t id;
    int32_t serial, poisoned, closing, cancelled, epoch;
    int32_t active;                            /* concurrent only: calls under way */
    fh_stream *streams;                        /* open ones; under the lock's mutex */
    int32_t holders;                           /* whoever points at it: its owner and its streams, closed ones too */
    fh_lock lock;                              /* serial: around every call; concurrent: around close alone */
};

struct fh_stream {
    ferrule_stream *object;
    const ferrule_stream_ops *ops;
    fh_instance *instance;
    uint64_t id;
    int32_t flags, poisoned;
    int32_t ended;                             /* neither next nor feed is called any more */
    int32_t fed_final, fed_enough;             /* feed took the final piece, answered END */
    int32_t wants[2];                          /* a side is at work, or answered PENDING last */
    int32_t holders;                           /* its owner, and whoever closes it with its instance */
    fh_stream *following, **at;                /* among the open ones of its instance; what points at it there */
    fh_waiter waiter;

    fh_mutex mutex;                            /* guards what follows, up to the next comment */
    fh_condition idle;
    int32_t busy[2], closing;                  /* closing: FH_OPEN to FH_CLOSED */
    int32_t fault;                             /* what feed ended the stream with, until the reader was told */
    fh_buffer fault_text;

    fh_buffer items, error;                    /* the next side's: fh_stream_fill */
    uint32_t *lengths;
    fh_buffer feed_error;
};

/* Enter and leave around one call, or around many of one lane: OK, or a status with error filled in. */
int32_t fh_instance_enter(fh_instance *instance, fh_buffer *error);
int32_t fh_instance_enter_in(fh_instance *instance, int64_t timeout_ms, fh_buffer *error);  /* or TIMEOUT */
void fh_instance_leave(fh_instance *instance);
/* Enters for one call: what is left of its timeout once it is in goes into `call`; TIMEOUT, or CANCELLED, if it is too late. */
int32_t fh_call_enter(fh_instance *instance, ferrule_call *call, fh_buffer *error);
int32_t fh_stream_enter(fh_stream *stream, int side, int64_t timeout_ms, fh_buffer *error);
void fh_stream_leave(fh_stream *stream, int side);

#define FH_ALLOW(status) (1u << (status))

/* After a plugin's function returned: checks both buffers, cuts `out` on anything but an answer, poisons.
 * `allowed`: a bit a status above OK that may come (1 << FERRULE_SKIP). Returns the status to go on with. */
int32_t fh_settle(int32_t *poisoned, int32_t status, uint32_t allowed, fh_buffer *out, size_t entry_len,
                  fh_buffer *error);
int32_t fh_violation(int32_t *poisoned, fh_buffer *error, const char *text);  /* INTERNAL, and poisons */
/* What is wrong with a table, or NULL. Nothing behind its size is read before that is known to be sane. */
const char *fh_table_problem(const void *table, uint32_t needed, char *text, size_t text_size);
int64_t fh_result_of(fh_answer *answer, int32_t status);  /* a status and the output's length: see FH_STATUS */
/* Streams hold their instance: a garbage collector may free the two in either order. */
void fh_instance_drop(fh_instance *instance);
int32_t fh_streams_close(fh_instance *instance, int32_t signals);  /* all that are open: see fh_stream_close */
/* Where the stream stands, between enter and leave; UNSUPPORTED if it has no positions. */
int32_t fh_stream_where(fh_stream *stream, fh_buffer *out, fh_buffer *error);

/* Where `next` answered with anything but an item in a sound buffer; where it cannot be called. */
FH_COLD int32_t fh_stream_no_item(fh_stream *stream, int32_t status, fh_buffer *out, size_t entry_len, fh_buffer *error);
FH_COLD int32_t fh_stream_cannot_step(const fh_stream *stream, fh_buffer *error);
/* One `next` between enter and leave, without waiting for wakes. */
static inline int32_t fh_stream_step(fh_stream *stream, int64_t timeout_ms, fh_buffer *out, fh_buffer *error) {
    const size_t entry_len = out->lent.len;
    if (FH_UNLIKELY(fh_load32(&stream->ended) || stream->ops->next == NULL)) {
        return fh_stream_cannot_step(stream, error);
    }
    error->lent.len = 0;
    const int32_t status = stream->ops->next(stream->object, timeout_ms, &out->lent, &error->lent);
    if (FH_LIKELY(status == FERRULE_OK && fh_buffer_intact(out, entry_len) && fh_buffer_intact(error, 0))) {
        return status;
    }
    return fh_stream_no_item(stream, status, out, entry_len, error);
}

/* ---- many.c -------------------------------------------------------------------------------------- */

typedef struct fh_span {
    const uint8_t *data;
    size_t length;
} fh_span;
/* What became of one call of many: the length of its output, or of its error object. */
typedef struct fh_result {
    int32_t status;
    uint32_t length;
} fh_result;
/* Calls a function's method with each of `rows` inputs. Outputs go to answer->out, with `lines` each with a newline behind
 * it, error objects to answer->metadata. Returns how many were called: fewer where it was to stop at an error. *unusual:
 * how many of them did not answer with OK; no output at all is INVALID_DATA. */
uint32_t fh_call_many(fh_instance *instance, int32_t method, const fh_span *inputs, uint32_t rows, int32_t lines,
                      int32_t stop_at_error, fh_answer *answer, fh_result *results, uint32_t *unusual);
size_t fh_count_lines(const uint8_t *bytes, size_t length);
void fh_split_lines(const uint8_t *bytes, size_t length, fh_span *lines);  /* into as many as there are */
size_t fh_newlines(const uint8_t *bytes, size_t length);   /* how many */

/* ---- chunk.c ------------------------------------------------------------------------------------- */

enum { FH_AREA_SOURCE, FH_AREA_A, FH_AREA_B, FH_AREAS };

/* An area: rows and the bytes they point into. Offsets are from the start of the region. */
typedef struct fh_area {
    uint64_t rows_offset, bytes_offset;
    uint32_t rows, rows_capacity;
    uint64_t length, capacity;
} fh_area;

/* The head of a region: this, then row tables and bytes. No pointers, so that it can lie in shared memory. */
typedef struct fh_chunk {
    uint64_t size;                             /* of the region */
    uint64_t first_record;                     /* number of the first item in its flow, from 0 */
    uint32_t items;                            /* taken from the source, bad ones included */
    uint32_t current;                          /* the area that holds the rows as they are now */
    fh_area areas[FH_AREAS];
} fh_chunk;

/* The process's hold on a region. Growing makes a new one; the old is kept until the call is over, for the
 * plugin may still read its input from it. */
typedef struct fh_region {
    fh_chunk *chunk;
    void *retired;
} fh_region;

int32_t fh_region_init(fh_region *region, size_t bytes, uint32_t rows);
void fh_region_free(fh_region *region);
void fh_region_reset(fh_region *region);
void fh_region_settle(fh_region *region);      /* frees what growth retired; no plugin is running */
/* Lends an area's bytes for appending; fh_area_take puts the length back. */
void fh_area_lend(fh_region *region, int32_t area, fh_buffer *buffer);
void fh_area_take(fh_region *region, fh_buffer *buffer);
/* Makes room for that many more rows in the area, and tells `lent` (or NULL) if the region moved. */
int32_t fh_area_reserve_rows(fh_region *region, int32_t area, uint32_t additional, fh_buffer *lent);

static inline uint8_t *fh_area_bytes(const fh_region *region, int32_t area) {
    return (uint8_t *)region->chunk + region->chunk->areas[area].bytes_offset;
}
static inline fh_row *fh_area_rows(const fh_region *region, int32_t area) {
    return (fh_row *)((uint8_t *)region->chunk + region->chunk->areas[area].rows_offset);
}

/* Whether `bytes` is UTF-8 with exactly `lines` newlines. */
int fh_lines_valid(const uint8_t *bytes, size_t length, uint64_t lines);
/* The same where the caller knows that each row has a newline behind it: seen sooner, if they are plain text. */
int fh_rows_valid(const uint8_t *bytes, size_t length, uint64_t rows);

/* Appends items of the stream to the source area until `fill` bytes, `items` items (more, where one `next` gives many), or
 * the stream has no more for now. Waits at most wait_ms for the first item of an empty chunk, for later ones not at all. Between
 * fh_stream_enter and leave. OK: it is full; else the status that ended it, with `error` filled in;
 * INVALID_DATA counts as an item. `stop` is read before each item. */
int32_t fh_fill(fh_region *region, fh_stream *stream, int32_t many, size_t fill, uint64_t items, int64_t wait_ms,
                const int32_t *stop, fh_buffer *error);

/* ---- flow.c ------------------------------------------------------------------------------------------ */

#define FH_FIRST_ROWS 16                       /* of a chunk, until it is known how long steps and sink take */
#define FH_MOST_ROWS 1024
#define FH_SHELF 16                            /* chunks that may be run before the one in front of them is */

/* Rows that are on their way to Python: fh_parked entries, and the bytes that they point into. */
typedef struct fh_parcel {
    fh_buffer entries, bytes;
    uint32_t rows;
    int32_t taken;
} fh_parcel;

int32_t fh_parcel_init(fh_parcel *parcel);
void fh_parcel_free(fh_parcel *parcel);
void fh_parcel_clear(fh_parcel *parcel);
int32_t fh_parcel_add(fh_parcel *parcel, const fh_parked *entry, const uint8_t *record, const uint8_t *error);
int32_t fh_parcel_move(fh_parcel *to, fh_parcel *from);

/* A chunk on its way through a flow, and what has become of its rows. It has no address of its own: lanes and flow pass it
 * on by value. */
typedef struct fh_work {
    uint64_t number;                           /* of the chunk */
    int32_t ready;                             /* it was laid onto the shelf */
    int32_t ended;                             /* a fault of it ends the flow */
    int64_t run_ms;                            /* how long the steps took over it */
    uint32_t waiting_first, waiting_rows;      /* of what the flow began with: what it began as */
    fh_region region;
    fh_buffer position;                        /* the source's, behind it */
    fh_parcel faults, left;
    fh_counters counts;
} fh_work;

int32_t fh_work_init(fh_work *work, size_t fill_bytes);
void fh_work_free(fh_work *work);              /* leaves one without memory, as those that are not made yet */
void fh_work_trim(fh_work *work);              /* drained: what large records made of it is not kept */

typedef struct fh_policy {
    int32_t on_error, answers;
    uint32_t retries;
} fh_policy;

struct fh_flow {
    fh_stream *source;                         /* NULL: Python's */
    fh_instance *sink;                         /* NULL: Python's */
    int32_t source_many, sink_method, sink_lines, in_order;
    fh_policy source_policy, sink_policy;
    size_t fill_bytes;
    int64_t checkpoint_ms;
    int32_t stop, cancelled, fatal, aborted;   /* read at any time */

    fh_mutex mutex;                            /* guards what follows, up to the next comment */
    fh_condition changed;
    int32_t filling, draining;                 /* a lane holds the source, the sink */
    int32_t source_ended, ending;              /* nothing more is to be read; read at any time */
    int32_t in_flight;                         /* chunks filled and not drained */
    uint64_t filled, drained;                  /* chunks so far; `drained` is read at any time */
    fh_work shelf[FH_SHELF];                   /* in order: chunks that are ready before those in front of them are; else
                                                * spare ones, or nothing yet */
    uint32_t shelved;                          /* those that are ready */
    int64_t draining_ms, drained_in;           /* when draining the present chunk began; ms that the last one took */
    fh_parcel handed;                          /* a park that was full; empty once it is dealt with */
    int32_t all_parked;
    fh_condition handing;                      /* `handed` is filled, or never again */

    uint64_t taken;                            /* items so far: the lane that fills */
    uint64_t room;                             /* records that may be begun yet; UINT64_MAX: any number */
    uint32_t source_attempt;
    int64_t checkpointed_ms;
    uint64_t checkpointed_chunks;
    fh_parcel waiting;                         /* what a resumed flow begins with, as it lay in `left` */
    uint32_t waiting_next;

    fh_counters counters;                      /* the lane that drains */
    fh_parcel park, left;
    uint32_t park_rows;                        /* the park is full with so many */
    fh_buffer position;
    uint64_t position_records;
    int32_t sink_rows;                         /* as many as a chunk should have for the sink; read at any time */
    int32_t cut;                               /* in order: a chunk was not drained whole, or not at all: no later one is */

    uint32_t steps;
    fh_policy step_policies[];
};

/* 0: the flow is aborted, or has nothing more to read; then nothing is held. */
int fh_flow_take_source(fh_flow *flow);
void fh_flow_give_source(fh_flow *flow, int32_t filled, uint64_t *number);
int fh_flow_wait_idle(fh_flow *flow);          /* holding the source: until nothing is in flight, or parked */
/* With a chunk that is run. 1: the sink is this lane's. Else the chunk lies on the shelf, where another lane finds it, and
 * `work` is a spare one; or -1: the flow is aborted. */
int fh_flow_take_sink(fh_flow *flow, fh_work *work);
/* With a chunk that is drained. 1: the next one was on the shelf and is `work` now, the sink still this lane's. */
int fh_flow_give_sink(fh_flow *flow, fh_work *work);
void fh_flow_pass_park(fh_flow *flow);         /* holding the sink: hands the park over if it is full */
void fh_flow_end_reading(fh_flow *flow, int32_t fatal);

#endif

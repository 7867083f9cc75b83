/* native.h: what the host's C offers to its Python, and nothing more. No Python.h here or in any .c of
 * this folder: the same files serve workers, sanitizers, fuzzers and other platforms. (binding/ is Python's.)
 *
 * buffer.c   host-owned buffers, and the guard that checks what a plugin did to one
 * host.c     the table that plugins see: log ring; ids, locks, the fork and exit gates
 * wakes.c    who is woken: threads that sleep, event loops
 * loader.c   libraries and instances, and the check of what a plugin gave back
 * stream.c   streams: their two sides, waits, close
 * many.c     one crossing for many calls
 * chunk.c    a region of rows and bytes, offsets only
 * flow.c     what the lanes of a flow share: order, park, counters, where it stands
 * lane.c     a lane: fill, faults, retries, its phases
 * segment.c  the steps over a chunk's rows
 * drain.c    a chunk into the sink
 * bench.c    what `ferrule bench` measures with
 *
 * Who may call what: every function is safe from any thread unless it says otherwise. */
#ifndef FERRULE_NATIVE_H
#define FERRULE_NATIVE_H

#include "ferrule.h"

/* ferrule-cdef-begin */
#define FH_SOURCE 0xFFFF              /* in place of a step's number: the source's own fault */
#define FH_SINK 0xFFFE                /* likewise the sink's */

/* What fh_call_with and its like return: the answer's length; FH_MOVED where the buffer has moved since the last one, which says
 * what and how much the answer is; any status but OK as status + FH_STATUS, which is below both. */
#define FH_MOVED (-1)
#define FH_STATUS (-1024)

/* on_error of a step, the source and the sink. */
#define FH_FAIL 0
#define FH_SKIP 1
#define FH_DEAD_LETTER 2

/* What a function plugin makes of its input. */
#define FH_ONE 0                      /* a record of a record */
#define FH_SEVERAL 1                  /* several records of one, a line each */
#define FH_LINES 2                    /* a chunk of lines of a chunk of lines, an empty one meaning skip */

/* Why fh_lane_run came back. */
#define FH_EVENT_END 0                /* this lane has nothing more to do: see fh_flow_outcome when all have ended */
#define FH_EVENT_BROKEN 1             /* the instance of the event's step is poisoned: replace it, then go on */
#define FH_EVENT_RETRY 2              /* a call failed that may be repeated: answer with fh_lane_retry, then go on */
#define FH_EVENT_CHECKPOINT 3         /* nothing is in flight or parked: flush, save fh_flow_position, then go on */
#define FH_EVENT_SOURCE 4             /* a Python source has to fill: fh_lane_filled */
#define FH_EVENT_STEP 5               /* a Python step (the event's step) has to run: fh_lane_stepped */
#define FH_EVENT_SINK 6               /* a Python sink has to write: fh_lane_drained */

/* Answers to FH_EVENT_RETRY. */
#define FH_GIVE_UP 0                  /* what on_error says then */
#define FH_AGAIN 1
#define FH_TAKEN 2                    /* the row is Python's from now on; not for the source and the sink */

typedef struct fh_library fh_library;
typedef struct fh_instance fh_instance;
typedef struct fh_stream fh_stream;
typedef struct fh_loop fh_loop;
typedef struct fh_flow fh_flow;
typedef struct fh_lane fh_lane;

/* ---- buffers ------------------------------------------------------------------------------------- */

/* A buffer that is lent to plugins. They see `lent`; the host trusts only its own copies below it. */
typedef struct fh_buffer {
    ferrule_buffer lent;
    uint8_t *data;
    size_t capacity;
    int32_t (*reserve)(ferrule_buffer *buffer, size_t additional);
    size_t limit;                     /* reserve beyond it is OUT_OF_MEMORY */
    void *region;                     /* fh_region when it is part of a chunk, else NULL: malloc'd */
    int32_t area;
    int32_t moved;                    /* set by reserve; cleared by who looks */
} fh_buffer;

/* Where one call's answer goes: the output, the error object, the metadata. One thread at a time. */
typedef struct fh_answer {
    fh_buffer out, error, metadata;
} fh_answer;

#define FH_ANSWER_BYTES 0x4000         /* of the output, to begin with: 16 KiB */
#define FH_ANSWER_LIMIT 0x40000000     /* and at most: 1 GiB */
#define FH_KEPT_MOST 0x1000000         /* memory that grew past it goes back to the system after its use: 16 MiB */
fh_answer *fh_answer_new(size_t capacity, size_t limit);   /* NULL: out of memory */
void fh_answer_free(fh_answer *answer);

/* ---- the process --------------------------------------------------------------------------------- */

uint64_t fh_new_id(void);                      /* of an instance or a stream; never reused */
/* Copies whole log entries into `to` and returns their bytes. An entry: uint32 total size, int32 level,
 * uint64 id, int64 wall-clock ns, uint32 message length, uint32 fields length, message, fields, padding to 8. */
size_t fh_log_take(uint8_t *to, size_t capacity);
int32_t fh_log_wait(int64_t timeout_ms);       /* 1 entries wait, 0 none in time, -1 the gate is shut */
uint64_t fh_log_dropped(void);                 /* since the process began */
void fh_log_level(int32_t level);              /* what log_enabled answers to */
void fh_gate_shut(void);                       /* before Python finalises: services do nothing from now on */
void fh_after_fork(void);                      /* in the child: every instance is poisoned, locks are new */

/* ---- libraries ----------------------------------------------------------------------------------- */

/* Opens a library (absolute path), resolves the symbols and compares the manifest that it answers with the one
 * that was read from the file. NULL: `error` says why. Never closed again: dlclose under live threads or
 * thread-locals is a crash. */
fh_library *fh_library_open(const char *path, const uint8_t *manifest, size_t manifest_len, char *error,
                            size_t error_capacity);

/* Makes an instance. `id`: from fh_new_id. `entry_point`: NULL, or a create symbol other than the usual one. NULL: *status and
 * answer->error say why. The caller frees it with fh_instance_free. */
fh_instance *fh_instance_new(fh_library *library, uint64_t id, const char *entry_point, const char *plugin,
                             size_t plugin_len, const char *config, size_t config_len, int32_t serial, fh_answer *answer,
                             int32_t *status);
/* Closes its streams and destroys the plugin's object, after calls under way; twice is harmless, and the second comes back no
 * sooner than the first is done. PENDING, TIMEOUT: as fh_stream_close. INVALID_STATE: from inside a call of its own. */
int32_t fh_instance_close(fh_instance *instance, int32_t signals);
void fh_instance_free(fh_instance *instance);  /* closes it too; its streams may be freed later */
int32_t fh_instance_poisoned(fh_instance *instance);
int32_t fh_instance_method(fh_instance *instance, const char *name, size_t name_len);

/* One call under the instance's lock. `in` is lent. Returns the status. */
int32_t fh_call(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, fh_answer *answer);
/* The same with everything a call may carry: timeout_ms -1 none; `cancelled` NULL, or a flag that somebody may set
 * meanwhile; metadata NULL, or a JSON object. Where other calls of a serial instance take all the time: TIMEOUT.
 * See FH_STATUS for what it returns. */
int64_t fh_call_with(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, int64_t timeout_ms,
                     const int32_t *cancelled, const char *metadata, size_t metadata_len, fh_answer *answer);
void fh_cancel(int32_t *cancelled);

/* ---- streams ------------------------------------------------------------------------------------- */

/* metadata_out is left in answer->metadata. NULL: *status and answer->error say why. Freed with fh_stream_free. */
fh_stream *fh_stream_open(fh_instance *instance, uint64_t id, int32_t method, const uint8_t *in, size_t in_len,
                          int64_t timeout_ms, const int32_t *cancelled, const char *metadata, size_t metadata_len,
                          fh_answer *answer, int32_t *status);
/* What the stream can, of FH_STREAM_…, and FERRULE_STREAM_WAKES. */
#define FH_STREAM_FEEDS 256           /* has feed */
#define FH_STREAM_TELLS 512           /* has metadata */
#define FH_STREAM_LOCKED 1024         /* its calls are under the instance's lock */
int32_t fh_stream_traits(const fh_stream *stream);

/* Lent bytes. */
typedef struct fh_text {
    const uint8_t *bytes;
    size_t length;
} fh_text;
/* Items that came, end to end in `bytes`, each followed by a newline. Lent until the next fill. */
typedef struct fh_items {
    const uint8_t *bytes;
    size_t length;
    const uint32_t *lengths;          /* without the newlines */
    fh_text error;
    uint32_t count;
    int32_t plain;                    /* no item holds a newline */
} fh_items;
/* Takes at most `most` items: those that are there, after a wait of at most timeout_ms (-1: without end) for the first. Returns
 * what came after them: OK (more may be there), PENDING (nothing now, or in time), END once, or an error with its object in
 * items->error. `signals`: of the thread that signals come to; PENDING at each of them, and now and then. One thread. */
int32_t fh_stream_fill(fh_stream *stream, int64_t timeout_ms, int32_t signals, uint32_t most, fh_items *items);
/* Gives a piece of input: OK taken, PENDING not (in time, or `signals`, as above), END no more is wanted; else an error, its
 * object in `error`, lent until the next feed. One thread, beside that which fills. */
int32_t fh_stream_feed(fh_stream *stream, const uint8_t *in, size_t in_len, int32_t final, int64_t timeout_ms,
                       int32_t signals, fh_text *error);
int64_t fh_stream_position(fh_stream *stream, fh_answer *answer);
int64_t fh_stream_metadata(fh_stream *stream, fh_answer *answer);
void fh_stream_cancel(fh_stream *stream);
/* Cancels, waits for next and feed to return, closes; twice is harmless, and the second comes back no sooner than the first
 * is done. PENDING: they are still at work, call again (only with `signals`). TIMEOUT: the process ends and they do not. */
int32_t fh_stream_close(fh_stream *stream, int32_t signals);
void fh_stream_free(fh_stream *stream);        /* closes it too */

/* Where the wakes of many streams are listed, for one event loop. `fd`: written to when the list was empty; the caller's,
 * to close after fh_loop_close. NULL: out of memory. */
fh_loop *fh_loop_new(int32_t fd);
/* Empties the list into `ids`, each stream once, and returns how many there are: more than `room`, and none was taken. */
uint32_t fh_loop_take(fh_loop *loop, uint64_t *ids, uint32_t room);
void fh_loop_close(fh_loop *loop);
void fh_loop_free(fh_loop *loop);              /* streams may still point at it */
/* From now on the stream's wakes are listed there (NULL: nowhere), and at once one that nobody has taken yet. */
int32_t fh_stream_watch(fh_stream *stream, fh_loop *loop);

/* ---- chunks -------------------------------------------------------------------------------------- */

/* A row: where a record lies in its area, and what became of it. */
typedef struct fh_row {
    uint32_t offset, length;          /* bytes, without the newline that follows */
    uint32_t origin;                  /* source area: items before it in the chunk; elsewhere: its source row */
    int32_t status;
    uint16_t step, attempt;
} fh_row;

/* ---- flows --------------------------------------------------------------------------------------- */

/* Shared by the lanes of a flow. Python reads the counters while lanes run: a record counts once its chunk is
 * drained. read + added = written + skipped + dead + failed + taken, except for what a stop or a failure left. */
typedef struct fh_counters {
    uint64_t read, written, skipped, dead, failed, taken, added;
} fh_counters;
/* One lane's step. histogram[i]: of the sampled calls, those that took 2^i to 2^(i+1) nanoseconds. Of a step in Python
 * only skipped and errors. */
#define FH_BUCKETS 40
typedef struct fh_step_counters {
    uint64_t calls, skipped, errors, retries, sampled_ns;
    uint32_t histogram[40];
} fh_step_counters;

/* A row that waits for Python in the park. Its record and then its error object lie at `offset` of the bytes.
 * A row that waits for another day: `status` is OK, it enters before `step`, and in place of the error object lies what that
 * step is given (before step 0, the record itself: nothing). Or it has failed, and its fault alone is to be told yet. */
typedef struct fh_parked {
    uint64_t record;                  /* number in the flow, from 1 */
    int64_t time_ns;                  /* wall clock */
    uint64_t offset;
    uint32_t record_len, error_len;
    int32_t status, policy;           /* policy: FH_DEAD_LETTER or FH_FAIL */
    uint32_t step, attempt;           /* step: number, FH_SOURCE or FH_SINK */
} fh_parked;

fh_flow *fh_flow_new(uint32_t steps, size_t fill_bytes, int32_t in_order);
void fh_flow_free(fh_flow *flow);      /* after its lanes */
/* Before the first run. `stream` NULL: the source is Python's; `many`: its items are lines. retries: how often more a
 * call that may be repeated is tried. */
void fh_flow_source(fh_flow *flow, fh_stream *stream, int32_t many, int32_t on_error, uint32_t retries);
/* `lines`: write takes any number of whole lines; else a record a call. */
void fh_flow_sink(fh_flow *flow, fh_instance *instance, int32_t method, int32_t lines, int32_t on_error,
                  uint32_t retries);
void fh_flow_step(fh_flow *flow, uint32_t step, int32_t on_error, uint32_t retries, int32_t answers);
void fh_flow_limit(fh_flow *flow, uint64_t records);       /* of those that wait and of the source; 0: none */
uint64_t fh_flow_room(fh_flow *flow);                      /* at an event SOURCE: how many of them may be read yet */
/* What comes before the source's own records, as fh_flow_left gave it, in its order. Copied. */
int32_t fh_flow_waiting(fh_flow *flow, const fh_parked *row, const uint8_t *record, const uint8_t *error);
uint32_t fh_flow_waiting_begun(fh_flow *flow);             /* how many of them lanes have taken */
void fh_flow_begin_at(fh_flow *flow, uint64_t records);    /* numbers of the source's records go on after these */
void fh_flow_checkpoints(fh_flow *flow, int64_t every_ms); /* 0: none */
void fh_flow_stop(fh_flow *flow);      /* after the records under way; what is left: fh_flow_left */
void fh_flow_abort(fh_flow *flow);     /* a lane cannot go on: nothing more is drained */
const fh_counters *fh_flow_counters(fh_flow *flow);
int32_t fh_flow_stopping(fh_flow *flow);                   /* 1 stopped, 2 failed, 3 aborted, 0 none of these */
/* Waits until lanes hand over rows that failed, which they do when the park is full and before a checkpoint, and takes them
 * and their bytes: lent until the next time, which says that they are dealt with. No rows: no more come, for the flow is
 * aborted, or fh_flow_all_parked was called. One thread, beside the lanes; if it falls behind by a park they wait. */
const fh_parked *fh_flow_parked(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length);
void fh_flow_all_parked(fh_flow *flow);                    /* every lane has ended */
/* At an event CHECKPOINT, or when every lane has ended: where the source stands behind the last drained record, empty if
 * unknown; and the number of that record. */
const uint8_t *fh_flow_position(fh_flow *flow, size_t *length, uint64_t *records);
/* When every lane has ended: rows that were read and came to no end, by a stop, a failure or the limit. */
const fh_parked *fh_flow_left(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length);
/* A row that was FH_TAKEN came to its end under Python: to its counters. */
void fh_flow_settled(fh_flow *flow, uint64_t written, uint64_t skipped, uint64_t dead);

fh_lane *fh_lane_new(fh_flow *flow);
void fh_lane_free(fh_lane *lane);
/* `instance` NULL: the step is Python's. Also replaces a poisoned one while the lane is not running. */
void fh_lane_step(fh_lane *lane, uint32_t step, fh_instance *instance, int32_t method);
const fh_step_counters *fh_lane_step_counters(fh_lane *lane, uint32_t step);
/* Runs until an event. A lane is a thread that sits in here. */
int32_t fh_lane_run(fh_lane *lane);
uint32_t fh_lane_event_step(fh_lane *lane);
uint32_t fh_lane_chunk_rows(fh_lane *lane);  /* FH_EVENT_SOURCE: how many records to give at most */
/* What FH_EVENT_RETRY is about: the status, how often it was tried, the row's number, the bytes that the step was given, the
 * source's record, the error object. Lent until the answer. */
typedef struct fh_retry {
    uint64_t record;
    const uint8_t *input, *source, *error;
    size_t input_len, source_len, error_len;
    int32_t status;
    uint32_t attempt;
} fh_retry;
void fh_lane_retrying(fh_lane *lane, fh_retry *retry);
void fh_lane_retry(fh_lane *lane, int32_t answer);
/* The current rows' bytes, each followed by a newline, in order. Lent until the next run or answer. */
const uint8_t *fh_lane_rows(fh_lane *lane, size_t *length, uint32_t *rows);
/* Answers to events. lengths[i]: of answer i in `bytes`, which are joined without newlines; FH_NONE: no answer. Fewer
 * rows than there were: a fatal one and those behind it, or those behind a stop, wait for another day. */
#define FH_NONE 0xFFFFFFFF
int32_t fh_lane_filled(fh_lane *lane, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows, int32_t ended,
                       const uint8_t *position, size_t position_len);
int32_t fh_lane_stepped(fh_lane *lane, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows);
void fh_lane_drained(fh_lane *lane, uint32_t rows);
/* Answers BROKEN where the instance cannot be replaced: the next run drains the rows before the one that the step would
 * have been called with, and fails at that one. */
void fh_lane_abandon(fh_lane *lane, int32_t status, const uint8_t *error, size_t error_len);
/* Before the answer: row `row` failed under Python and is parked, skipped or fatal by its policy (`fatal`: by whatever
 * policy). Of a source: the item that would have become that row. 1: it was fatal. */
int32_t fh_lane_reject(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, int32_t fatal, uint32_t attempt,
                       const uint8_t *error, size_t error_len);
/* Before the answer: Python keeps the row, and settles it with fh_flow_settled. */
void fh_lane_keep(fh_lane *lane, uint32_t row);

/* ---- measuring ----------------------------------------------------------------------------------- */

/* A plain C loop around one method: `samples` times `calls` calls straight through the plugin's table, under one lock;
 * ns[i]: how long sample i took. Returns what fh_call_with does, of the last call; the first that fails ends it. */
int64_t fh_bench_calls(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, uint64_t calls,
                       uint32_t samples, int64_t *ns, fh_answer *answer);
/* Both ends of a flow that cost next to nothing, method 0 each: opened, it gives the record (copied) `count` times; called,
 * it takes anything and does nothing. NULL: out of memory. The caller frees it with fh_instance_free. */
fh_instance *fh_bench_end(uint64_t id, const uint8_t *record, size_t record_len, uint64_t count);
/* ferrule-cdef-end */

#endif

/* native.h: what the host's C offers to its Python, and nothing more. No Python.h here or in any .c of
 * this folder: the same files serve workers, sanitizers, fuzzers and other platforms.
 *
 * buffer.c   host-owned buffers, and the guard that checks what a plugin did to one
 * host.c     the table that plugins see: log ring, wakes; ids, locks, the fork and exit gates
 * loader.c   libraries, instances, streams: the only place that calls a plugin's function outside a lane
 * chunk.c    a region of rows and bytes, offsets only
 * lane.c     fill, run, drain: the happy path of a flow
 * bench.c    what `ferrule bench` measures with
 *
 * Who may call what: every function is safe from any thread unless it says otherwise. */
#ifndef FERRULE_NATIVE_H
#define FERRULE_NATIVE_H

#include "ferrule.h"

/* ferrule-cdef-begin */
#define FH_SOURCE 0xFFFF              /* in place of a step's number: the source's own fault */
#define FH_SINK 0xFFFE                /* likewise the sink's */

/* What fh_call and fh_next return: OK is the answer's length, with FH_MOVED added when the buffer moved;
 * any other status is status + FH_STATUS, which is negative. */
#define FH_MOVED 4611686018427387904  /* 1 << 62 */
#define FH_STATUS (-1024)

/* on_error of a step, the source and the sink. */
#define FH_FAIL 0
#define FH_SKIP 1
#define FH_DEAD_LETTER 2

/* Why fh_lane_run came back. */
#define FH_EVENT_END 0                /* all is drained, nothing failed */
#define FH_EVENT_STOPPED 1            /* somebody called fh_flow_stop; what was processed is drained */
#define FH_EVENT_FAILED 2             /* the last parked row failed under FH_FAIL; what came before it is drained */
#define FH_EVENT_PARKED 3             /* the park is full: take it with fh_flow_parked, then go on */
#define FH_EVENT_BROKEN 4             /* the instance of lane->event_step is poisoned: replace it, then go on */
#define FH_EVENT_SOURCE 5             /* a Python source has to fill: fh_lane_filled */
#define FH_EVENT_STEP 6               /* a Python step (lane->event_step) has to run: fh_lane_stepped */
#define FH_EVENT_SINK 7               /* a Python sink has to write: fh_lane_drained */

typedef struct fh_library fh_library;
typedef struct fh_instance fh_instance;
typedef struct fh_stream fh_stream;
typedef struct fh_flow fh_flow;

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
/* Destroys the plugin's object; closing twice is harmless. INVALID_STATE if a stream of it is open, or from
 * inside a call of its own; waits for calls under way. */
int32_t fh_instance_close(fh_instance *instance);
void fh_instance_free(fh_instance *instance);  /* closes it too; its streams may be freed later */
int32_t fh_instance_poisoned(fh_instance *instance);
int32_t fh_instance_method(fh_instance *instance, const char *name, size_t name_len);

/* One call under the instance's lock. `in` is lent. See FH_STATUS for what it returns. */
int64_t fh_call(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, fh_answer *answer);
/* The same with everything a call may carry: timeout_ms -1 none; metadata NULL, or a JSON object. */
int64_t fh_call_with(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, int64_t timeout_ms,
                     const char *metadata, size_t metadata_len, fh_answer *answer);

/* ---- streams ------------------------------------------------------------------------------------- */

fh_stream *fh_stream_open(fh_instance *instance, uint64_t id, int32_t method, const uint8_t *in, size_t in_len,
                          const char *metadata, size_t metadata_len, fh_answer *answer, int32_t *status);
/* One item. Waits at most timeout_ms (-1 without end), asleep: TIMEOUT then. */
int64_t fh_stream_next(fh_stream *stream, int64_t timeout_ms, fh_answer *answer);
int64_t fh_stream_position(fh_stream *stream, fh_answer *answer);
void fh_stream_cancel(fh_stream *stream);
int32_t fh_stream_close(fh_stream *stream);    /* cancels, waits for next to return, closes; twice is harmless */
void fh_stream_free(fh_stream *stream);        /* closes it too */

/* ---- chunks -------------------------------------------------------------------------------------- */

/* A row: where a record lies in its area, and what became of it. */
typedef struct fh_row {
    uint32_t offset, length;          /* bytes, without the newline that follows */
    uint32_t origin;                  /* source area: items before it in the chunk; elsewhere: its source row */
    int32_t status;
    uint16_t step, attempt;
} fh_row;

/* A chunk that stands alone, for reading a stream from Python many items at a time. */
typedef struct fh_reader fh_reader;
fh_reader *fh_reader_new(fh_stream *stream, int32_t many);
void fh_reader_free(fh_reader *reader);
/* Empties the chunk and fills it: waits for the first item, takes what else is there. Returns the status that
 * ended it (OK: more may follow), with *rows items before that in `bytes` of `length`, each followed by a newline,
 * and the error object in `error`. Lent until the next call. One thread. */
int32_t fh_reader_fill(fh_reader *reader, int64_t timeout_ms, uint32_t *rows, uint8_t **bytes, size_t *length,
                       uint8_t **error, size_t *error_len);

/* ---- flows --------------------------------------------------------------------------------------- */

/* Shared by the lanes of a flow. Python reads the counters while a lane runs. */
typedef struct fh_counters {
    uint64_t read, written, skipped, dead, failed;
} fh_counters;
typedef struct fh_step_counters {
    uint64_t calls, skipped, errors;
} fh_step_counters;

/* A row that waits for Python in the park. Its record and then its error object lie at `offset` of the bytes. */
typedef struct fh_parked {
    uint64_t record;                  /* number in the flow, from 1 */
    int64_t time_ns;                  /* wall clock */
    uint64_t offset;
    uint32_t record_len, error_len;
    int32_t status, policy;           /* policy: FH_DEAD_LETTER or FH_FAIL */
    uint32_t step, attempt;           /* step: number, FH_SOURCE or FH_SINK */
} fh_parked;

fh_flow *fh_flow_new(uint32_t steps, size_t fill_bytes);
void fh_flow_free(fh_flow *flow);
/* Before the first run. `stream` NULL: the source is Python's; `many`: its items are lines. */
void fh_flow_source(fh_flow *flow, fh_stream *stream, int32_t many, int32_t on_error);
/* `instance` NULL: the step is Python's. Also replaces a poisoned one while the lane is not running. */
void fh_flow_step(fh_flow *flow, uint32_t step, fh_instance *instance, int32_t method, int32_t on_error);
/* `lines`: write takes any number of whole lines; else a record a call. */
void fh_flow_sink(fh_flow *flow, fh_instance *instance, int32_t method, int32_t lines, int32_t on_error);
void fh_flow_limit(fh_flow *flow, uint64_t records);       /* 0: none */
void fh_flow_stop(fh_flow *flow);                          /* after the record under way */
const fh_counters *fh_flow_counters(fh_flow *flow);
const fh_step_counters *fh_flow_step_counters(fh_flow *flow, uint32_t step);
/* Runs until an event. One thread: a lane is a thread that sits in here. */
int32_t fh_lane_run(fh_flow *flow);
uint32_t fh_lane_event_step(fh_flow *flow);
/* The parked rows and their bytes, lent until the next run; taking them empties the park. */
const fh_parked *fh_flow_parked(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length);
/* The current rows' bytes, each followed by a newline, in order. Lent until the next run or answer. */
const uint8_t *fh_lane_rows(fh_flow *flow, size_t *length, uint32_t *rows);
#define FH_NONE 0xFFFFFFFF
/* Answers to events. lengths[i]: of answer i in `bytes`, which are joined without newlines; FH_NONE: no answer.
 * Fewer rows than there were: the ones after a fatal one, or after a stop, were not processed. */
int32_t fh_lane_filled(fh_flow *flow, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows, int32_t ended);
int32_t fh_lane_stepped(fh_flow *flow, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows);
void fh_lane_drained(fh_flow *flow, uint32_t rows);
/* Answers BROKEN where the instance cannot be replaced: the next run drains the rows before the one that the step
 * would have been called with, and fails at that one. */
void fh_lane_abandon(fh_flow *flow, int32_t status, const uint8_t *error, size_t error_len);
/* Before the answer: row `row` failed under Python and is parked, skipped or fatal by its policy (`fatal`: by
 * whatever policy). Of a source: the item that would have become that row. 1: it was fatal. */
int32_t fh_lane_reject(fh_flow *flow, uint32_t row, uint32_t step, int32_t status, int32_t fatal, const uint8_t *error,
                       size_t error_len);
/* ---- measuring ----------------------------------------------------------------------------------- */

/* A plain C loop around one method: `samples` times `calls` calls straight through the plugin's table, under one lock;
 * ns[i]: how long sample i took. Returns what fh_call does, of the last call; the first that fails ends it. */
int64_t fh_bench_calls(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, uint64_t calls,
                       uint32_t samples, int64_t *ns, fh_answer *answer);
/* Both ends of a flow that cost next to nothing, method 0 each: opened, it gives the record (copied) `count` times; called,
 * it takes anything and does nothing. NULL: out of memory. The caller frees it with fh_instance_free. */
fh_instance *fh_bench_end(uint64_t id, const uint8_t *record, size_t record_len, uint64_t count);
/* ferrule-cdef-end */

#endif

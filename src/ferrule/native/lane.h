/* lane.h: a lane as its three files see it: lane.c (faults, retries, fill, phases, Python's answers), segment.c (the steps
 * over the rows), drain.c (into the sink). */
#ifndef FERRULE_LANE_H
#define FERRULE_LANE_H

#include "internal.h"

#define FH_SETTLED 1                           /* status of a row that came to its end, or waits beside the lanes */
#define FH_LEFT 2                              /* of a source row: it is not counted as read, for it waits for another day */

typedef int32_t (*call_function)(ferrule_instance *, int32_t, const ferrule_call *, const uint8_t *, size_t,
                                 ferrule_buffer *, ferrule_buffer *);

typedef struct {
    fh_instance *instance;                     /* NULL: Python's */
    ferrule_instance *object;
    call_function call;
    int32_t method;
    fh_step_counters counters;
} lane_step;

enum { PHASE_FILL, PHASE_FILLING, PHASE_RUN, PHASE_TURN, PHASE_DRAIN, PHASE_DRAINING, PHASE_DRAINED };

struct fh_lane {
    fh_flow *flow;
    int32_t phase;
    int32_t broken, abandoned;
    uint32_t step;                             /* RUN: the next one */
    uint32_t row;                              /* RUN: where an interrupted segment goes on; DRAINING: likewise */
    uint32_t event_step;
    int32_t one_by_one;                        /* DRAINING: after a failed write */
    int32_t retrying, retry_answer, retry_status;
    uint32_t attempt;
    uint32_t chunk_rows;                       /* rows that a chunk may have */
    int64_t filled_ms;
    fh_work work;
    fh_buffer error, scratch[2], held;
    lane_step steps[];
};

/* What a plugin is told of each call: no time limit, and the flow's flag of its being cancelled. */
static inline ferrule_call fh_lane_call(const fh_lane *lane) {
    return (ferrule_call){.struct_size = sizeof(ferrule_call), .cancelled = &lane->flow->cancelled, .timeout_ms = -1};
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static inline int32_t fh_next_area(const fh_chunk *chunk) {
    return chunk->current == FH_AREA_A ? FH_AREA_B : FH_AREA_A;
}

static inline uint32_t fh_origin(const fh_lane *lane, uint32_t row) {
    const fh_chunk *chunk = lane->work.region.chunk;
    return chunk->current == FH_AREA_SOURCE ? row : fh_area_rows(&lane->work.region, (int32_t)chunk->current)[row].origin;
}

/* The source's row that became row `row` of the current area. */
static inline fh_row *fh_source_row(const fh_lane *lane, uint32_t row) {
    return &fh_area_rows(&lane->work.region, FH_AREA_SOURCE)[fh_origin(lane, row)];
}

static inline uint64_t fh_record(const fh_lane *lane, const fh_row *source) {
    return lane->work.region.chunk->first_record + source->origin + 1;
}

static inline const uint8_t *fh_source_bytes(const fh_lane *lane, const fh_row *source) {
    return fh_area_bytes(&lane->work.region, FH_AREA_SOURCE) + source->offset;
}

/* ---- lane.c -------------------------------------------------------------------------------------------- */

/* What the policy says of one record that failed. `fatal`: whatever the policy says. Returns whether it ends the
 * flow: rows before that one go on, rows after it do not. */
int fh_lane_fault(fh_lane *lane, uint64_t record, const uint8_t *bytes, size_t length, uint32_t step, int32_t status,
                  int fatal, uint32_t attempt, const uint8_t *error, size_t error_len);
/* The same for row `row` of the current area, with lane->error. */
int fh_lane_row_fault(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, uint32_t attempt);
/* Whether Python is to be asked: the status allows it, and the policy has attempts left. */
int fh_lane_may_retry(const fh_lane *lane, uint32_t step, int32_t status, uint32_t attempt);
/* Makes the event with which Python is asked. */
int32_t fh_lane_ask_retry(fh_lane *lane, uint32_t step, int32_t status);
/* What Python said of row lane->row, which failed in `step`: again (lane->retrying stays), or behind it. Returns whether
 * its failure ends the flow. */
int fh_lane_answer_retry(fh_lane *lane, uint32_t step);

/* ---- segment.c ----------------------------------------------------------------------------------------- */

/* Runs the steps that are left over the current rows. Returns an event, or -1 when done. */
int32_t fh_lane_steps(fh_lane *lane);
/* Before rows as they came from the source are split into lines. */
void fh_lane_check_source(fh_lane *lane);
/* The area that was made becomes the current one. */
void fh_lane_advance(fh_lane *lane, int32_t to);
/* A step answered with no record for row `row` of the current area, on purpose. */
void fh_lane_skipped(fh_lane *lane, lane_step *step, uint32_t row);

/* ---- drain.c ------------------------------------------------------------------------------------------- */

/* Writes the current rows. Holds the sink. Returns an event, or -1 when done. */
int32_t fh_lane_drain(fh_lane *lane);
/* Rows first.. of the current area that came to no end wait for another day, to enter before `step` then. */
void fh_lane_leave(fh_lane *lane, uint32_t first, uint32_t step);
/* A chunk's outcome becomes the flow's. Holds the sink. */
void fh_lane_publish(fh_lane *lane);

#endif

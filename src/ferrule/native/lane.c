/* lane.c: a flow's happy path. Fill a chunk from the source, run the steps over its rows, drain it into the sink.
 *
 * C decides nothing here: a fault's policy is data, and whatever needs a decision comes back to Python as an event. A
 * lane goes on where it left: phase, step and row are its own. Native steps that follow each other are one segment: a
 * record goes through all of them before the next one starts, through two small buffers that stay in the cache. */
#include "internal.h"

#include <stdio.h>

#define PARK_BYTES ((size_t)1 << 20)
#define PARK_ROWS 4096
#define SLICE_MS 50                            /* the longest a stop waits for a source that sleeps */
#define SAMPLE 64                              /* one row in so many is timed */
#define SETTLED 1                              /* status of a source row that came to its end before the drain */

typedef int32_t (*call_function)(ferrule_instance *, int32_t, const ferrule_call *, const uint8_t *, size_t,
                                 ferrule_buffer *, ferrule_buffer *);

typedef struct {
    fh_instance *instance;                     /* NULL: Python's */
    ferrule_instance *object;
    call_function call;
    int32_t method;
    fh_step_counters counters;
} lane_step;

enum { PHASE_FILL, PHASE_FILLING, PHASE_RUN, PHASE_DRAIN, PHASE_DRAINING, PHASE_DRAINED };

struct fh_lane {
    fh_flow *flow;
    int32_t phase;
    int32_t ended;                             /* a fault of this chunk ends the flow */
    int32_t cut;                               /* rows of this chunk were not processed */
    int32_t broken, abandoned;
    uint32_t hidden;                           /* source rows behind the last one that count as not processed */
    uint64_t number;                           /* of its chunk */
    uint32_t step;                             /* RUN: the next one */
    uint32_t row;                              /* RUN: where an interrupted segment goes on; DRAINING: likewise */
    uint32_t event_step;
    int32_t one_by_one;                        /* DRAINING: after a failed write */
    int32_t retrying, retry_answer, retry_status;
    uint32_t attempt;
    fh_region region;
    fh_buffer error, scratch[2], position, held;
    fh_parcel faults;
    fh_counters counts;                        /* of this chunk, until it is drained */
    lane_step steps[];
};

fh_lane *fh_lane_new(fh_flow *flow) {
    fh_lane *lane = calloc(1, sizeof *lane + flow->steps * sizeof(lane_step));
    if (lane == NULL) {
        return NULL;
    }
    lane->flow = flow;
    lane->attempt = 1;
    if (fh_region_init(&lane->region, 2 * flow->fill_bytes, 1024) != FERRULE_OK ||
        fh_buffer_init(&lane->error, 4096, 1 << 20) != FERRULE_OK ||
        fh_buffer_init(&lane->scratch[0], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&lane->scratch[1], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&lane->position, 256, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&lane->held, 0, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_parcel_init(&lane->faults) != FERRULE_OK) {
        fh_lane_free(lane);
        return NULL;
    }
    return lane;
}

void fh_lane_free(fh_lane *lane) {
    if (lane != NULL) {
        fh_region_free(&lane->region);
        fh_buffer_free(&lane->error);
        fh_buffer_free(&lane->scratch[0]);
        fh_buffer_free(&lane->scratch[1]);
        fh_buffer_free(&lane->position);
        fh_buffer_free(&lane->held);
        fh_parcel_free(&lane->faults);
        free(lane);
    }
}

void fh_lane_step(fh_lane *lane, uint32_t step, fh_instance *instance, int32_t method) {
    lane_step *entry = &lane->steps[step];
    entry->instance = instance;
    entry->object = instance ? instance->object : NULL;
    entry->call = instance ? instance->ops->call : NULL;
    entry->method = method;
}

const fh_step_counters *fh_lane_step_counters(fh_lane *lane, uint32_t step) { return &lane->steps[step].counters; }
uint32_t fh_lane_event_step(fh_lane *lane) { return lane->event_step; }

/* ---- rows and faults ----------------------------------------------------------------------------------- */

static const fh_policy *policy_of(const fh_flow *flow, uint32_t step) {
    return step == FH_SOURCE ? &flow->source_policy : step == FH_SINK ? &flow->sink_policy : &flow->step_policies[step];
}

static uint32_t origin_of(const fh_lane *lane, uint32_t row) {
    const fh_chunk *chunk = lane->region.chunk;
    return chunk->current == FH_AREA_SOURCE ? row : fh_area_rows(&lane->region, (int32_t)chunk->current)[row].origin;
}

/* The source's row that became row `row` of the current area. */
static fh_row *source_row(const fh_lane *lane, uint32_t row) {
    return &fh_area_rows(&lane->region, FH_AREA_SOURCE)[origin_of(lane, row)];
}

static uint64_t record_of(const fh_lane *lane, const fh_row *source) {
    return lane->region.chunk->first_record + source->origin + 1;
}

static const uint8_t *bytes_of(const fh_lane *lane, const fh_row *source) {
    return fh_area_bytes(&lane->region, FH_AREA_SOURCE) + source->offset;
}

/* What the policy says of one record that failed. `fatal`: whatever the policy says. Returns whether it ends the
 * flow: rows before that one go on, rows after it do not. */
static int fault(fh_lane *lane, uint64_t record, const uint8_t *bytes, size_t length, uint32_t step, int32_t status,
                 int fatal, uint32_t attempt, const uint8_t *error, size_t error_len) {
    int32_t policy = fatal ? FH_FAIL : policy_of(lane->flow, step)->on_error;
    if (step < lane->flow->steps) {
        lane->steps[step].counters.errors++;
    }
    if (policy == FH_SKIP) {
        lane->counts.skipped++;
        return 0;
    }
    if (policy == FH_DEAD_LETTER) {
        lane->counts.dead++;
    } else {
        lane->counts.failed++;
        lane->ended = 1;
        fh_flow_end_reading(lane->flow, 0);
    }
    const fh_parked entry = {record, fh_wall_ns(), 0, (uint32_t)length, (uint32_t)error_len, status, policy, step, attempt};
    if (fh_parcel_add(&lane->faults, &entry, bytes, error) != FERRULE_OK) {
        fh_flow_abort(lane->flow);             /* a fault that cannot be told is not passed over */
        return 1;
    }
    return policy == FH_FAIL;
}

static int row_fault(fh_lane *lane, fh_row *source, uint32_t step, int32_t status, uint32_t attempt) {
    int ends = fault(lane, record_of(lane, source), bytes_of(lane, source), source->length, step, status, 0, attempt,
                     lane->error.data, lane->error.lent.len);
    if (!ends) {
        source->status = SETTLED;
    }
    return ends;
}

/* ---- retrying ------------------------------------------------------------------------------------------ */

static int mentions_retry(const fh_buffer *error) {
    static const char key[] = "\"retry_after_ms\"";
    const size_t size = sizeof key - 1;
    for (size_t at = 0; at + size <= error->lent.len; at++) {
        if (error->data[at] == '"' && memcmp(error->data + at, key, size) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Whether Python is to be asked: the status allows it, and the policy has attempts left. */
static int may_retry(const fh_lane *lane, uint32_t step, int32_t status, uint32_t attempt) {
    const fh_policy *policy = policy_of(lane->flow, step);
    return policy->retries && attempt <= policy->retries && status < FERRULE_OK && status > FERRULE_INTERNAL &&
           (status == FERRULE_UNAVAILABLE || status == FERRULE_TIMEOUT || mentions_retry(&lane->error));
}

static int32_t ask_retry(fh_lane *lane, uint32_t step, int32_t status) {
    lane->retrying = 1;
    lane->retry_answer = FH_GIVE_UP;
    lane->retry_status = status;
    lane->event_step = step;
    if (step < lane->flow->steps) {
        lane->steps[step].counters.retries++;
    }
    return FH_EVENT_RETRY;
}

void fh_lane_retrying(fh_lane *lane, fh_retry *retry) {
    memset(retry, 0, sizeof *retry);
    retry->status = lane->retry_status;
    retry->attempt = lane->event_step == FH_SOURCE ? lane->flow->source_attempt + 1 : lane->attempt;
    retry->error = lane->error.data;
    retry->error_len = lane->error.lent.len;
    if (lane->event_step != FH_SOURCE && lane->region.chunk->areas[lane->region.chunk->current].rows) {
        const fh_row *source = source_row(lane, lane->row);
        retry->record = record_of(lane, source);
        retry->source = bytes_of(lane, source);
        retry->source_len = source->length;
        retry->input = lane->held.data;
        retry->input_len = lane->held.lent.len;
    }
}

void fh_lane_retry(fh_lane *lane, int32_t answer) { lane->retry_answer = answer; }

/* What Python said of row lane->row, which failed in `step`: again (lane->retrying stays), or behind it. Returns whether
 * its failure ends the flow. */
static int answer_retry(fh_lane *lane, uint32_t step) {
    int ends = 0;
    if (lane->retry_answer == FH_AGAIN) {
        lane->attempt++;
        lane->retrying = !fh_load32(&lane->flow->stop);    /* stopped meanwhile: it is left */
        return 0;
    }
    fh_row *source = source_row(lane, lane->row);
    if (lane->retry_answer == FH_TAKEN) {
        lane->counts.taken++;
        source->status = SETTLED;
    } else {
        ends = row_fault(lane, source, step, lane->retry_status, lane->attempt);
    }
    lane->retrying = 0;
    lane->attempt = 1;
    lane->row += !ends;
    return ends;
}

/* ---- fill ---------------------------------------------------------------------------------------------- */

/* The records that a resumed flow begins with. They have numbers of their own, so a chunk takes those in a row. */
static void fill_waiting(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->region;
    fh_buffer out;
    fh_area_lend(region, FH_AREA_SOURCE, &out);
    region->chunk->first_record = flow->waiting[flow->waiting_next].record - 1;
    while (flow->waiting_next < flow->waiting_rows && out.lent.len < flow->fill_bytes) {
        const fh_waiting *waiting = &flow->waiting[flow->waiting_next];
        uint64_t origin = waiting->record - 1 - region->chunk->first_record;
        size_t at = out.lent.len;
        if (waiting->record <= region->chunk->first_record || origin > UINT32_MAX ||
            fh_area_reserve_rows(region, FH_AREA_SOURCE, 1, &out) != FERRULE_OK ||
            fh_buffer_append(&out, waiting->bytes, waiting->length) != FERRULE_OK ||
            fh_buffer_append(&out, "\n", 1) != FERRULE_OK) {
            break;
        }
        fh_area *area = &region->chunk->areas[FH_AREA_SOURCE];
        fh_area_rows(region, FH_AREA_SOURCE)[area->rows++] =
            (fh_row){(uint32_t)at, (uint32_t)waiting->length, (uint32_t)origin, FERRULE_OK, 0, 1};
        flow->waiting_next++;
    }
    fh_area_take(region, &out);
    fh_region_settle(region);
    lane->counts.read = region->chunk->areas[FH_AREA_SOURCE].rows;
    region->chunk->items = 0;                  /* not the source's */
}

/* Takes items until the chunk is full. Holds the source. Returns an event, or -1. */
static int32_t fill(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    const uint64_t left = flow->limit - flow->taken;
    const uint64_t first = lane->region.chunk->first_record;
    while (!fh_load32(&flow->stop) && !lane->ended) {
        int32_t status = fh_stream_enter(flow->source, &lane->error);
        if (status == FERRULE_OK) {
            status = fh_fill(&lane->region, flow->source, flow->source_many, flow->fill_bytes, left, SLICE_MS,
                             &flow->stop, &lane->error);
            if (flow->checkpoint_ms && (status == FERRULE_OK || status == FERRULE_END || status == FERRULE_INVALID_DATA ||
                                        lane->region.chunk->items)) {
                lane->position.lent.len = 0;
                fh_buffer *nothing = &lane->scratch[0];
                nothing->lent.len = 0;
                if (fh_stream_where(flow->source, &lane->position, nothing) != FERRULE_OK) {
                    lane->position.lent.len = 0;
                }
            }
            fh_stream_leave(flow->source);
        }
        const uint32_t items = lane->region.chunk->items;
        if (items) {
            flow->source_attempt = 0;
        }
        if (status == FERRULE_OK) {
            break;
        }
        if (status == FERRULE_END) {
            fh_store32(&flow->source_ended, 1);
            break;
        }
        if (status == FERRULE_INVALID_DATA) {
            fault(lane, first + items, NULL, 0, FH_SOURCE, status, 0, 1, lane->error.data, lane->error.lent.len);
        } else if (status == FERRULE_PENDING || status == FERRULE_TIMEOUT) {
            if (items) {
                break;                         /* a slow source is not held back */
            }
            if (flow->checkpoint_ms && fh_load64(&flow->drained) != flow->checkpointed_chunks &&
                fh_monotonic_ms() - flow->checkpointed_ms >= flow->checkpoint_ms) {
                return FH_EVENT_CHECKPOINT;
            }
            if (status == FERRULE_PENDING) {
                fh_waiter_wait(&flow->source->waiter, SLICE_MS);
            }
        } else if (items && may_retry(lane, FH_SOURCE, status, 1)) {
            break;                             /* what it gave goes on first; it will say it again */
        } else if (may_retry(lane, FH_SOURCE, status, flow->source_attempt + 1)) {
            return ask_retry(lane, FH_SOURCE, status);
        } else {
            fault(lane, first + items + 1, NULL, 0, FH_SOURCE, status, 1, flow->source_attempt + 1, lane->error.data,
                  lane->error.lent.len);
        }
    }
    return -1;
}

static void begin_chunk(fh_lane *lane) {
    fh_region_reset(&lane->region);
    lane->region.chunk->first_record = lane->flow->taken;
    memset(&lane->counts, 0, sizeof lane->counts);
    fh_parcel_clear(&lane->faults);
    lane->ended = lane->cut = lane->broken = lane->abandoned = 0;
    lane->step = lane->row = lane->hidden = 0;
    lane->one_by_one = 0;
    lane->attempt = 1;
    lane->position.lent.len = 0;
}

static void end_fill(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    const uint32_t items = lane->region.chunk->items;
    flow->taken += items;
    lane->counts.read += items;
    if (flow->taken >= flow->limit) {
        fh_flow_end_reading(flow, 0);
    }
    fh_flow_give_source(flow, 1, &lane->number);
    lane->phase = PHASE_RUN;
}

/* ---- run ----------------------------------------------------------------------------------------------- */

static int is_object(const uint8_t *bytes, size_t length) {
    return FH_LIKELY(length >= 2 && bytes[0] == '{' && bytes[length - 1] == '}');
}

static int32_t next_area(const fh_chunk *chunk) { return chunk->current == FH_AREA_A ? FH_AREA_B : FH_AREA_A; }

static const char *const NOT_AN_OBJECT = "the plugin answered with something that is no JSON object ({...}) of one line";
static const char *const NO_LINE = "the record is not one line of UTF-8";
static const char *const NOT_A_LINE = "the plugin answered with bytes that are not one line of UTF-8";
static const char *const NOT_THE_LINES = "the plugin answered a chunk of lines with another number of lines";

static void skipped(fh_lane *lane, lane_step *step, fh_row *source) {
    step->counters.skipped++;
    lane->counts.skipped++;
    source->status = SETTLED;
}

static void sampled(fh_step_counters *counters, int64_t ns) {
    uint32_t bucket = 0;
    counters->sampled_ns += (uint64_t)ns;
    while (bucket + 1 < FH_BUCKETS && (int64_t)2 << bucket <= ns) {
        bucket++;
    }
    counters->histogram[bucket]++;
}

/* Which step of a segment spoilt a record: its input is checked, then each step is called again. The steps'
 * instances are entered, or nobody else's. */
static uint32_t blame(fh_lane *lane, uint32_t first, uint32_t last, const uint8_t *in, size_t in_len, int from_source) {
    const ferrule_call call = {sizeof call, 0, 0, &lane->flow->cancelled, -1, NULL, 0, NULL};
    if (!fh_lines_valid(in, in_len, 0)) {
        return from_source || first == 0 ? FH_SOURCE : first - 1;
    }
    for (uint32_t s = first; s < last; s++) {
        lane_step *step = &lane->steps[s];
        fh_buffer *out = &lane->scratch[s & 1];
        if (fh_load32(&step->instance->poisoned)) {
            return s;                          /* it broke just now, over such a row: it is not called again */
        }
        out->lent.len = lane->error.lent.len = 0;
        int32_t status = step->call(step->object, step->method, &call, in, in_len, &out->lent, &lane->error.lent);
        status = fh_settle(step->instance, &step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0,
                           &lane->error);
        if (status != FERRULE_OK || !fh_lines_valid(out->data, out->lent.len, 0)) {
            return s;
        }
        in = out->data;
        in_len = out->lent.len;
    }
    return last;
}

/* Takes the rows that are not one line of UTF-8 out of the area that is to become the current one. */
static void weed(fh_lane *lane, uint32_t first, uint32_t last, int32_t area) {
    fh_region *region = &lane->region;
    const int32_t current = (int32_t)region->chunk->current;
    fh_area *into = &region->chunk->areas[area];
    uint8_t *bytes = fh_area_bytes(region, area);
    fh_row *rows = fh_area_rows(region, area);
    const int in_place = area == current;      /* a flow without steps: the source's own rows */
    uint64_t length = 0;
    uint32_t kept = 0, at = 0;
    for (uint32_t i = 0; i < into->rows; i++) {
        fh_row row = rows[i];
        fh_row *source = &fh_area_rows(region, FH_AREA_SOURCE)[in_place ? i : row.origin];
        if (fh_lines_valid(bytes + row.offset, row.length, 0)) {
            memmove(bytes + length, bytes + row.offset, (size_t)row.length + 1);
            row.offset = (uint32_t)length;
            length += (uint64_t)row.length + 1;
            rows[kept++] = row;
            continue;
        }
        uint32_t step = FH_SOURCE;
        if (!in_place) {
            const fh_row *in = fh_area_rows(region, current);
            while (origin_of(lane, at) != row.origin) {
                at++;
            }
            step = blame(lane, first, last, fh_area_bytes(region, current) + in[at].offset, in[at].length,
                         current == FH_AREA_SOURCE);
        }
        fh_error_set(&lane->error, step == FH_SOURCE ? NO_LINE : NOT_A_LINE);
        if (row_fault(lane, source, step, FERRULE_INVALID_DATA, 1)) {
            lane->cut = 1;
            if (in_place) {                    /* it and those behind it stay in the table, to be left for another day */
                lane->hidden = into->rows - i;
                memmove(rows + kept, rows + i, lane->hidden * sizeof *rows);
            }
            break;
        }
    }
    into->rows = kept;
    into->length = length;
}

/* Before rows as they came from the source are split into lines, by a sink, by Python or by a step that takes them
 * together. A step that takes one record gets it unseen: what it makes of a bad one is checked after it. */
static void check_source_rows(fh_lane *lane) {
    const fh_area *source = &lane->region.chunk->areas[FH_AREA_SOURCE];
    if (lane->region.chunk->current == FH_AREA_SOURCE && lane->row == 0 && !lane->retrying &&
        !fh_lines_valid(fh_area_bytes(&lane->region, FH_AREA_SOURCE), (size_t)source->length, source->rows)) {
        weed(lane, 0, 0, FH_AREA_SOURCE);
    }
}

/* Makes rows of a step's lines: one for each, all of one origin. Returns how many. */
static uint32_t add_lines(fh_lane *lane, int32_t to, size_t row_len, fh_buffer *out, uint32_t origin) {
    fh_region *region = &lane->region;
    uint32_t made = 0;
    size_t at = row_len;
    while (at < out->lent.len) {
        const uint8_t *end = memchr(out->data + at, '\n', out->lent.len - at);
        size_t length = end == NULL ? out->lent.len - at : (size_t)(end - (out->data + at));
        if (length == 0) {                     /* an empty line is no record: close the gap */
            memmove(out->data + at, out->data + at + 1, out->lent.len - at - 1);
            out->lent.len--;
            continue;
        }
        if (!is_object(out->data + at, length) || fh_area_reserve_rows(region, to, 1, out) != FERRULE_OK ||
            (end == NULL && fh_buffer_append(out, "\n", 1) != FERRULE_OK)) {
            region->chunk->areas[to].rows -= made;
            return UINT32_MAX;
        }
        fh_area *into = &region->chunk->areas[to];
        fh_area_rows(region, to)[into->rows++] = (fh_row){(uint32_t)at, (uint32_t)length, origin, FERRULE_OK, 0, 1};
        made++;
        at += length + 1;
    }
    return made;
}

/* All the steps of a segment, in their order, or none and the one that refused. */
static int enter_steps(fh_lane *lane, uint32_t first, uint32_t last) {
    for (uint32_t s = first; s <= last; s++) {
        if (fh_instance_enter(lane->steps[s].instance, &lane->error) != FERRULE_OK) {
            lane->event_step = s;
            while (s-- > first) {
                fh_instance_leave(lane->steps[s].instance);
            }
            return 0;
        }
    }
    return 1;
}

static void leave_steps(fh_lane *lane, uint32_t first, uint32_t last) {
    for (uint32_t s = first; s <= last; s++) {
        fh_instance_leave(lane->steps[s].instance);
    }
}

/* The area that was made becomes the current one. The source's rows stay: a dead letter holds them. */
static void advance(fh_lane *lane, int32_t to) {
    fh_chunk *chunk = lane->region.chunk;
    fh_area *used = &chunk->areas[chunk->current];
    if (chunk->current != FH_AREA_SOURCE) {
        used->rows = 0;
        used->length = 0;
    }
    chunk->current = (uint32_t)to;
    lane->row = 0;
}

/* Runs steps first..last over the current rows, from lane->row on. Returns an event, or -1 when done. */
static int32_t run_segment(fh_lane *lane, uint32_t first, uint32_t last) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_region *region = &lane->region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
    const int several = flow->step_policies[last].answers == FH_SEVERAL;
    fh_buffer *error = &lane->error;
    fh_buffer area_out;
    int32_t event = -1;
    int ended = 0;

    const int abandoned = lane->abandoned;     /* its rows are lost, those before them are not */
    if (!abandoned && !enter_steps(lane, first, last)) {
        return FH_EVENT_BROKEN;
    }
    if (fh_area_reserve_rows(region, to, rows, NULL) != FERRULE_OK) {
        fh_flow_abort(flow);
        if (!abandoned) {
            leave_steps(lane, first, last);
        }
        return FH_EVENT_END;
    }
    ended = abandoned;
    lane->abandoned = 0;
    fh_area_lend(region, to, &area_out);
    if (FH_UNLIKELY(lane->retrying)) {
        ended = answer_retry(lane, lane->event_step);
    }
    uint32_t i = lane->row;
    for (; i < rows && !ended && event < 0 && !fh_load32(&flow->stop); i++) {
        const fh_row *row = &fh_area_rows(region, from)[i];
        const uint8_t *in = fh_area_bytes(region, from) + row->offset;
        size_t in_len = row->length;
        const size_t row_len = area_out.lent.len;
        const int timed = FH_UNLIKELY(i % SAMPLE == 0);
        uint32_t s = first;
        if (FH_UNLIKELY(lane->retrying)) {     /* from the step that failed, with what it was given then */
            lane->retrying = 0;
            s = lane->event_step;
            in = lane->held.data;
            in_len = lane->held.lent.len;
        }
        int64_t began = timed ? fh_wall_ns() : 0;
        for (;; s++) {
            lane_step *step = &lane->steps[s];
            fh_buffer *out = &area_out;
            uint32_t blamed = s;               /* the one before it, if that gave it what no step can take */
            if (s != last) {
                out = &lane->scratch[s & 1];
                out->lent.len = 0;
            }
            const size_t entry_len = out->lent.len;
            step->counters.calls++;
            error->lent.len = 0;
            int32_t status = step->call(step->object, step->method, &call, in, in_len, &out->lent, &error->lent);
            if (timed) {
                const int64_t now = fh_wall_ns();
                sampled(&step->counters, now - began);
                began = now;
            }
            /* What the step before answered was written a moment ago: its last byte could not be read without a wait
             * then, and can now. Whatever this step made of it, that one is to blame. */
            if (FH_UNLIKELY(s != first && !is_object(in, in_len))) {
                fh_settle(step->instance, &step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len,
                          error);
                status = FERRULE_INVALID_DATA;
                blamed = s - 1;
                fh_error_set(error, NOT_AN_OBJECT);
            } else if (FH_LIKELY(status == FERRULE_OK && fh_buffer_intact(out, entry_len) && fh_buffer_intact(error, 0))) {
                const uint8_t *answer = out->data + entry_len;
                size_t answer_len = out->lent.len - entry_len;
                if (FH_UNLIKELY(several && s == last)) {
                    uint32_t made = add_lines(lane, to, row_len, out, origin_of(lane, i));
                    if (made == 0) {
                        status = FERRULE_SKIP;
                    } else if (made != UINT32_MAX) {
                        lane->counts.added += made - 1;
                        break;
                    } else {
                        status = FERRULE_INVALID_DATA;
                        fh_error_set(error, NOT_AN_OBJECT);
                    }
                } else if (s != last) {
                    in = answer;
                    in_len = answer_len;
                    continue;
                } else if (FH_UNLIKELY(!is_object(answer, answer_len))) {
                    status = FERRULE_INVALID_DATA;
                    fh_error_set(error, NOT_AN_OBJECT);
                } else if (out->lent.len < out->capacity || out->lent.reserve(&out->lent, 1) == FERRULE_OK) {
                    out->data[out->lent.len++] = '\n';
                    fh_area *into = &region->chunk->areas[to];
                    fh_area_rows(region, to)[into->rows++] =
                        (fh_row){(uint32_t)row_len, (uint32_t)answer_len, origin_of(lane, i), FERRULE_OK, 0, 1};
                    break;
                } else {
                    status = FERRULE_OUT_OF_MEMORY;
                }
            } else {
                status = fh_settle(step->instance, &step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out,
                                   entry_len, error);
                if (status == FERRULE_INVALID_DATA && !fh_lines_valid(in, in_len, 0)) {
                    blamed = s > first ? s - 1 : from == FH_AREA_SOURCE ? FH_SOURCE : first - 1;
                    fh_error_set(error, blamed == FH_SOURCE ? NO_LINE : NOT_A_LINE);
                }
            }
            area_out.lent.len = row_len;
            if (status == FERRULE_SKIP) {
                skipped(lane, step, source_row(lane, i));
            } else if (may_retry(lane, s, status, lane->attempt)) {
                lane->row = i;
                if (in != lane->held.data) {
                    lane->held.lent.len = 0;
                    fh_buffer_append(&lane->held, in, in_len);
                }
                event = ask_retry(lane, s, status);
            } else {
                ended = row_fault(lane, source_row(lane, i), blamed, status, lane->attempt);
                if (fh_load32(&step->instance->poisoned) && !ended) {
                    lane->event_step = s;
                    event = FH_EVENT_BROKEN;
                }
            }
            break;
        }
        if (FH_UNLIKELY(event < 0 || event == FH_EVENT_BROKEN)) {
            lane->attempt = 1;
        }
        if (FH_UNLIKELY(region->retired != NULL)) {
            fh_region_settle(region);
        }
    }
    fh_area_take(region, &area_out);
    if (event < 0 || event == FH_EVENT_BROKEN) {
        lane->row = i;
    }
    if (event < 0) {
        lane->cut |= i < rows || ended;
        const fh_area *made = &region->chunk->areas[to];
        if (!fh_lines_valid(fh_area_bytes(region, to), (size_t)made->length, made->rows)) {
            weed(lane, first, last, to);
        }
    }
    if (!abandoned) {
        leave_steps(lane, first, last);
    }
    if (event < 0) {
        advance(lane, to);
    }
    return event;
}

/* One step that takes a chunk of lines. When the call fails, or its lines do not match, its lines go one by one. */
static int32_t run_lines(fh_lane *lane, uint32_t number) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_region *region = &lane->region;
    lane_step *step = &lane->steps[number];
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
    fh_buffer *error = &lane->error;
    fh_buffer out;
    int32_t event = -1;
    int ended = 0;

    if (lane->abandoned) {
        lane->abandoned = 0;
        lane->cut = 1;
        advance(lane, to);
        return -1;
    }
    if (!enter_steps(lane, number, number)) {
        return FH_EVENT_BROKEN;
    }
    if (fh_area_reserve_rows(region, to, rows, NULL) != FERRULE_OK) {
        fh_flow_abort(flow);
        leave_steps(lane, number, number);
        return FH_EVENT_END;
    }
    fh_area_lend(region, to, &out);
    const int one_by_one = lane->retrying || lane->broken || lane->row;    /* the whole was tried */
    if (lane->retrying) {
        ended = answer_retry(lane, number);
    }
    lane->retrying = lane->broken = 0;
    uint32_t at = lane->row, many = one_by_one ? 1 : rows - at;
    while (at < rows && !ended && event < 0 && !fh_load32(&flow->stop)) {
        const fh_row *row = &fh_area_rows(region, from)[at];
        const fh_row *end = &fh_area_rows(region, from)[at + many - 1];
        const uint8_t *in = fh_area_bytes(region, from) + row->offset;
        const size_t entry_len = out.lent.len;
        step->counters.calls += many;
        error->lent.len = 0;
        int64_t began = fh_wall_ns();
        int32_t status = step->call(step->object, step->method, &call, in,
                                    (size_t)(end->offset - row->offset) + end->length + 1, &out.lent, &error->lent);
        sampled(&step->counters, (fh_wall_ns() - began) / many);
        status = fh_settle(step->instance, &step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), &out, entry_len,
                           error);
        if (status == FERRULE_OK) {
            if (out.lent.len > entry_len && out.data[out.lent.len - 1] != '\n') {
                fh_buffer_append(&out, "\n", 1);
            }
            if (!fh_lines_valid(out.data + entry_len, out.lent.len - entry_len, many)) {
                status = FERRULE_INVALID_DATA;
                fh_error_set(error, NOT_THE_LINES);
            }
        } else if (status == FERRULE_SKIP) {
            if (many > 1) {
                status = FERRULE_INVALID_DATA;
                fh_error_set(error, NOT_THE_LINES);
            }
        }
        if (status == FERRULE_OK) {
            const uint32_t before = region->chunk->areas[to].rows;
            size_t where = entry_len, length = entry_len;
            for (uint32_t i = at; i < at + many; i++) {
                uint8_t *line = out.data + where;
                size_t size = (size_t)((uint8_t *)memchr(line, '\n', out.lent.len - where) - line);
                if (size && !is_object(line, size)) {
                    status = FERRULE_INVALID_DATA;
                    fh_error_set(error, NOT_AN_OBJECT);
                    break;
                }
                if (size) {
                    fh_area *into = &region->chunk->areas[to];
                    memmove(out.data + length, line, size + 1);
                    fh_area_rows(region, to)[into->rows++] =
                        (fh_row){(uint32_t)length, (uint32_t)size, origin_of(lane, i), FERRULE_OK, 0, 1};
                    length += size + 1;
                } else if (many == 1) {
                    skipped(lane, step, source_row(lane, i));
                }
                where += size + 1;
            }
            if (status != FERRULE_OK) {
                region->chunk->areas[to].rows = before;
            } else if (many > 1) {             /* only now is it known that all of them hold */
                uint32_t next = before;
                const fh_row *made = fh_area_rows(region, to);
                for (uint32_t i = at; i < at + many; i++) {
                    if (next < region->chunk->areas[to].rows && made[next].origin == origin_of(lane, i)) {
                        next++;
                    } else {
                        skipped(lane, step, source_row(lane, i));
                    }
                }
            }
            out.lent.len = status == FERRULE_OK ? length : entry_len;
        }
        fh_region_settle(region);
        if (status == FERRULE_OK) {
            at += many;
            lane->attempt = 1;
            continue;
        }
        out.lent.len = entry_len;
        if (fh_load32(&step->instance->poisoned) && many > 1) {
            lane->event_step = number;         /* made anew, and then one by one */
            lane->broken = 1;
            event = FH_EVENT_BROKEN;
        } else if (many > 1) {
            many = 1;
        } else if (status == FERRULE_SKIP) {
            skipped(lane, step, source_row(lane, at++));
        } else if (may_retry(lane, number, status, lane->attempt)) {
            lane->row = at;
            lane->held.lent.len = 0;
            const fh_row *again = &fh_area_rows(region, from)[at];
            fh_buffer_append(&lane->held, fh_area_bytes(region, from) + again->offset, (size_t)again->length + 1);
            event = ask_retry(lane, number, status);
        } else {
            ended = row_fault(lane, source_row(lane, at++), number, status, lane->attempt);
            lane->attempt = 1;
            if (fh_load32(&step->instance->poisoned) && !ended) {
                lane->event_step = number;
                lane->broken = 1;
                event = FH_EVENT_BROKEN;
            }
        }
    }
    fh_area_take(region, &out);
    lane->row = at;
    lane->cut |= event < 0 && (at < rows || ended);
    leave_steps(lane, number, number);
    if (event < 0) {
        advance(lane, to);
    }
    return event;
}

/* Runs the steps that are left. Returns an event, or -1 when done. */
static int32_t run(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    while (lane->step < flow->steps) {
        const fh_chunk *chunk = lane->region.chunk;
        if (chunk->areas[chunk->current].rows == 0) {
            break;
        }
        if (lane->steps[lane->step].instance == NULL) {
            check_source_rows(lane);
            lane->event_step = lane->step;
            return FH_EVENT_STEP;
        }
        uint32_t last = lane->step;
        int32_t event;
        if (flow->step_policies[last].answers == FH_LINES) {
            check_source_rows(lane);
            event = run_lines(lane, last);
        } else {
            while (flow->step_policies[last].answers == FH_ONE && last + 1 < flow->steps &&
                   lane->steps[last + 1].instance != NULL && flow->step_policies[last + 1].answers != FH_LINES) {
                last++;
            }
            event = run_segment(lane, lane->step, last);
        }
        if (event >= 0) {
            return event;
        }
        lane->step = last + 1;
    }
    return -1;
}

/* ---- drain --------------------------------------------------------------------------------------------- */

static int32_t sink_write(fh_lane *lane, const uint8_t *bytes, size_t length) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_buffer *out = &lane->scratch[0];
    out->lent.len = lane->error.lent.len = 0;
    int32_t status = flow->sink->ops->call(flow->sink->object, flow->sink_method, &call, bytes, length, &out->lent,
                                           &lane->error.lent);
    return fh_settle(flow->sink, &flow->sink->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, &lane->error);
}

static void written(fh_lane *lane, uint32_t from, uint32_t to, int counts) {
    for (uint32_t i = from; i < to; i++) {
        source_row(lane, i)->status = SETTLED;
    }
    if (counts) {
        lane->counts.written += to - from;
    } else {
        lane->counts.skipped += to - from;
    }
}

/* Writes the current rows. A write is all or nothing, so after a failed one the rows go one by one, unless the whole
 * write's failure is what the flow is to end with. Holds the sink. Returns an event, or -1. */
static int32_t drain(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->region;
    lane->phase = PHASE_DRAINING;
    const int32_t current = (int32_t)region->chunk->current;
    const fh_area *area = &region->chunk->areas[current];
    const uint8_t *bytes = fh_area_bytes(region, current);
    const fh_row *rows = fh_area_rows(region, current);
    if (area->rows == 0) {
        return -1;
    }
    int ended = 0;
    if (lane->retrying) {
        ended = answer_retry(lane, FH_SINK);
        if (fh_load32(&flow->stop) && !lane->one_by_one && lane->row == 0 && lane->retry_answer == FH_AGAIN) {
            lane->cut = 1;                     /* stopped while the whole chunk waited */
            return -1;
        }
    }
    int32_t status = fh_instance_enter(flow->sink, &lane->error);
    if (status != FERRULE_OK) {
        fault(lane, record_of(lane, source_row(lane, lane->row)), NULL, 0, FH_SINK, status, 1, 1, lane->error.data,
              lane->error.lent.len);
        lane->cut = 1;
        return -1;
    }
    if (!lane->one_by_one && !ended && lane->row == 0) {
        status = flow->sink_lines ? sink_write(lane, bytes, (size_t)area->length) : FERRULE_INVALID_DATA;
        lane->one_by_one = 1;
        if (status == FERRULE_OK || status == FERRULE_SKIP) {
            written(lane, 0, area->rows, status == FERRULE_OK);
            lane->row = area->rows;
        } else if (flow->sink_lines && may_retry(lane, FH_SINK, status, lane->attempt)) {
            lane->one_by_one = 0;
            lane->held.lent.len = 0;
            fh_instance_leave(flow->sink);
            return ask_retry(lane, FH_SINK, status);
        } else if (status != FERRULE_INVALID_DATA &&
                   (flow->sink_policy.on_error == FH_FAIL || fh_load32(&flow->sink->poisoned))) {
            ended = fault(lane, record_of(lane, source_row(lane, 0)), NULL, 0, FH_SINK, status, 1, lane->attempt,
                          lane->error.data, lane->error.lent.len);
        }
    }
    int32_t event = -1;
    while (lane->row < area->rows && !ended) {
        const uint32_t i = lane->row;
        status = sink_write(lane, bytes + rows[i].offset, (size_t)rows[i].length + (flow->sink_lines ? 1 : 0));
        if (status == FERRULE_OK || status == FERRULE_SKIP) {
            written(lane, i, i + 1, status == FERRULE_OK);
        } else if (may_retry(lane, FH_SINK, status, lane->attempt)) {
            lane->held.lent.len = 0;
            fh_buffer_append(&lane->held, bytes + rows[i].offset, rows[i].length);
            event = ask_retry(lane, FH_SINK, status);
            break;
        } else {
            ended = row_fault(lane, source_row(lane, i), FH_SINK, status, lane->attempt);
            if (fh_load32(&flow->sink->poisoned) && !ended) {
                /* A sink made anew would begin its output anew. */
                ended = fault(lane, record_of(lane, source_row(lane, i)), NULL, 0, FH_SINK, status, 1, lane->attempt,
                              lane->error.data, lane->error.lent.len);
            }
        }
        lane->attempt = 1;
        lane->row++;
    }
    lane->cut |= ended;
    fh_instance_leave(flow->sink);
    return event;
}

/* A row that was read and comes to no end in this run. Holds the sink. */
static void leave_row(fh_lane *lane, const fh_row *source) {
    const fh_parked left = {record_of(lane, source), 0, 0, source->length, 0, 0, 0, 0, 0};
    if (fh_parcel_add(&lane->flow->left, &left, bytes_of(lane, source), NULL) != FERRULE_OK) {
        fh_flow_abort(lane->flow);
    }
}

/* A chunk's outcome becomes the flow's: faults in the order of chunks, counters, where the source stands. */
static void publish(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->region;
    const fh_row *rows = fh_area_rows(region, FH_AREA_SOURCE);
    const uint32_t source_rows = region->chunk->areas[FH_AREA_SOURCE].rows + lane->hidden;
    if (lane->cut) {
        for (uint32_t i = 0; i < source_rows; i++) {
            if (rows[i].status != SETTLED) {
                leave_row(lane, &rows[i]);
                lane->counts.read--;
            }
        }
        flow->cut = 1;
    }
    if (fh_parcel_move(&flow->park, &lane->faults) != FERRULE_OK) {
        fh_flow_abort(flow);
    }
    if (region->chunk->items && region->chunk->first_record + region->chunk->items > flow->position_records) {
        flow->position_records = region->chunk->first_record + region->chunk->items;
        flow->position.lent.len = 0;
        if (fh_buffer_append(&flow->position, lane->position.data, lane->position.lent.len) != FERRULE_OK) {
            fh_flow_abort(flow);
        }
    }
    fh_mutex_lock(&flow->mutex);
    flow->counters.read += lane->counts.read;
    flow->counters.written += lane->counts.written;
    flow->counters.skipped += lane->counts.skipped;
    flow->counters.dead += lane->counts.dead;
    flow->counters.failed += lane->counts.failed;
    flow->counters.taken += lane->counts.taken;
    flow->counters.added += lane->counts.added;
    fh_mutex_unlock(&flow->mutex);
    if (lane->ended) {
        fh_flow_end_reading(flow, 1);
    }
}

/* ---- the lane ------------------------------------------------------------------------------------------ */

static int checkpoint_due(const fh_flow *flow) {
    return flow->checkpoint_ms && flow->filled != flow->checkpointed_chunks &&
           fh_monotonic_ms() - flow->checkpointed_ms >= flow->checkpoint_ms;
}

int32_t fh_lane_run(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    int32_t event;
    for (;;) {
        if (fh_load32(&flow->aborted)) {
            return FH_EVENT_END;
        }
        switch (lane->phase) {
        case PHASE_FILL:
            if (!fh_flow_take_source(flow)) {
                return FH_EVENT_END;
            }
            begin_chunk(lane);
            lane->phase = PHASE_FILLING;
            break;
        case PHASE_FILLING:                    /* this lane holds the source */
            if (checkpoint_due(flow)) {
                if (!fh_flow_wait_idle(flow)) {
                    return FH_EVENT_END;
                }
                flow->checkpointed_ms = fh_monotonic_ms();
                flow->checkpointed_chunks = flow->filled;
                if (!fh_load32(&flow->fatal)) {
                    return FH_EVENT_CHECKPOINT;
                }
            }
            if (fh_load32(&flow->stop) || fh_load32(&flow->fatal) || fh_load32(&flow->ending)) {
                fh_flow_give_source(flow, 0, NULL);
                lane->phase = PHASE_FILL;
                return FH_EVENT_END;
            }
            if (flow->waiting_next < flow->waiting_rows) {
                fill_waiting(lane);
                end_fill(lane);
                break;
            }
            if (lane->retrying) {
                lane->retrying = 0;
                flow->source_attempt++;
                if (lane->retry_answer == FH_GIVE_UP) {
                    fault(lane, flow->taken + 1, NULL, 0, FH_SOURCE, lane->retry_status, 1, flow->source_attempt,
                          lane->error.data, lane->error.lent.len);
                    end_fill(lane);
                    break;
                }
            }
            if (flow->source == NULL) {
                return FH_EVENT_SOURCE;
            }
            event = fill(lane);
            if (event == FH_EVENT_CHECKPOINT) {
                break;                         /* idle, and due: above */
            }
            if (event >= 0) {
                return event;
            }
            end_fill(lane);
            break;
        case PHASE_RUN:
            event = run(lane);
            if (event >= 0) {
                return event;
            }
            lane->phase = PHASE_DRAIN;
            break;
        case PHASE_DRAIN:
            if (!fh_flow_take_sink(flow, lane->number)) {
                return FH_EVENT_END;
            }
            if (flow->in_order && flow->cut) {
                /* A chunk before this one was not drained whole: this one is as if it was never read. The source gives its
                 * own records again; those that a resumed flow began with are nowhere else. */
                const fh_area *source = &lane->region.chunk->areas[FH_AREA_SOURCE];
                for (uint32_t i = 0; lane->region.chunk->items == 0 && i < source->rows; i++) {
                    leave_row(lane, &fh_area_rows(&lane->region, FH_AREA_SOURCE)[i]);
                }
                fh_flow_give_sink(flow);
                lane->phase = PHASE_FILL;
                break;
            }
            lane->row = 0;
            check_source_rows(lane);
            if (flow->sink == NULL) {
                if (lane->region.chunk->areas[lane->region.chunk->current].rows) {
                    lane->phase = PHASE_DRAINED;
                    return FH_EVENT_SINK;
                }
                publish(lane);
                lane->phase = PHASE_DRAINED;
                break;
            }
            /* fall through */
        case PHASE_DRAINING:
            event = drain(lane);
            if (event >= 0) {
                return event;
            }
            publish(lane);
            lane->phase = PHASE_DRAINED;
            break;
        default:                               /* PHASE_DRAINED: this lane still holds the sink */
            if (flow->park.taken) {
                fh_parcel_clear(&flow->park);
            }
            if (flow->park.bytes.lent.len >= PARK_BYTES || flow->park.rows >= PARK_ROWS) {
                return FH_EVENT_PARKED;
            }
            fh_flow_give_sink(flow);
            lane->phase = PHASE_FILL;
        }
    }
}

const uint8_t *fh_lane_rows(fh_lane *lane, size_t *length, uint32_t *rows) {
    const fh_chunk *chunk = lane->region.chunk;
    *length = (size_t)chunk->areas[chunk->current].length;
    *rows = chunk->areas[chunk->current].rows;
    return fh_area_bytes(&lane->region, (int32_t)chunk->current);
}

/* ---- Python's answers ---------------------------------------------------------------------------------- */

/* Appends answers to an area: a row for each line of them. Origins are asked of the current rows, or counted for
 * the source. */
static int32_t add_answers(fh_lane *lane, int32_t area, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &lane->region;
    fh_buffer out;
    int32_t status = FERRULE_OK;
    fh_area_lend(region, area, &out);
    for (uint32_t i = 0; i < rows && status == FERRULE_OK; i++) {
        if (lengths[i] == FH_NONE) {
            continue;
        }
        const uint32_t origin = area == FH_AREA_SOURCE ? i : origin_of(lane, i);
        size_t at = out.lent.len;
        status = fh_buffer_append(&out, bytes, lengths[i]);
        status = status == FERRULE_OK ? fh_buffer_append(&out, "\n", 1) : status;
        for (uint32_t made = 0; status == FERRULE_OK && at < out.lent.len; made++) {
            const uint8_t *end = memchr(out.data + at, '\n', out.lent.len - at);
            const size_t length = (size_t)(end - (out.data + at));
            status = fh_area_reserve_rows(region, area, 1, &out);
            if (status == FERRULE_OK) {
                fh_area *into = &region->chunk->areas[area];
                fh_area_rows(region, area)[into->rows++] =
                    (fh_row){(uint32_t)at, (uint32_t)length, origin, FERRULE_OK, 0, 1};
                lane->counts.added += made > 0;
            }
            at += length + 1;
        }
        bytes += lengths[i];
    }
    fh_area_take(region, &out);
    fh_region_settle(region);
    return status;
}

int32_t fh_lane_filled(fh_lane *lane, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows, int32_t ended,
                       const uint8_t *position, size_t position_len) {
    int32_t status = add_answers(lane, FH_AREA_SOURCE, bytes, lengths, rows);
    lane->region.chunk->items = rows;
    lane->position.lent.len = 0;
    if (status == FERRULE_OK) {
        status = fh_buffer_append(&lane->position, position, position_len);
    }
    fh_store32(&lane->flow->source_ended, ended);
    end_fill(lane);
    return status;
}

int32_t fh_lane_stepped(fh_lane *lane, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &lane->region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = next_area(region->chunk);
    lane_step *step = &lane->steps[lane->step];
    int32_t status = add_answers(lane, to, bytes, lengths, rows);
    for (uint32_t i = 0; i < rows; i++) {
        fh_row *source = source_row(lane, i);
        step->counters.calls++;
        if (lengths[i] == FH_NONE && fh_area_rows(region, from)[i].status == FERRULE_OK) {
            skipped(lane, step, source);
        }
    }
    lane->cut |= rows < region->chunk->areas[from].rows || lane->ended;
    advance(lane, to);
    lane->step++;
    return status;
}

void fh_lane_drained(fh_lane *lane, uint32_t rows) {
    const fh_chunk *chunk = lane->region.chunk;
    const fh_row *were = fh_area_rows(&lane->region, (int32_t)chunk->current);
    for (uint32_t i = 0; i < rows; i++) {
        if (were[i].status == FERRULE_OK) {
            written(lane, i, i + 1, 1);
        }
    }
    lane->cut |= rows < chunk->areas[chunk->current].rows || lane->ended;
    publish(lane);
}

void fh_lane_abandon(fh_lane *lane, int32_t status, const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = lane->region.chunk;
    uint64_t record = chunk->first_record + chunk->items + 1;    /* the next one, if none of this chunk is left */
    if (lane->row < chunk->areas[chunk->current].rows) {
        record = record_of(lane, source_row(lane, lane->row));
    }
    fault(lane, record, NULL, 0, lane->event_step, status, 1, 1, error, error_len);
    lane->abandoned = 1;
}

int32_t fh_lane_reject(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, int32_t fatal, uint32_t attempt,
                       const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = lane->region.chunk;
    if (step == FH_SOURCE) {
        return fault(lane, chunk->first_record + row + 1, NULL, 0, step, status, fatal, attempt, error, error_len);
    }
    fh_row *source = source_row(lane, row);
    int ends = fault(lane, record_of(lane, source), bytes_of(lane, source), source->length, step, status, fatal, attempt,
                     error, error_len);
    fh_area_rows(&lane->region, (int32_t)chunk->current)[row].status = status;
    if (!ends) {
        source->status = SETTLED;
    }
    return ends;
}

void fh_lane_keep(fh_lane *lane, uint32_t row) {
    fh_area_rows(&lane->region, (int32_t)lane->region.chunk->current)[row].status = SETTLED;
    source_row(lane, row)->status = SETTLED;
    lane->counts.taken++;
}

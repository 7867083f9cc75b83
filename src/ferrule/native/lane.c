/* lane.c: a flow's happy path. Fill a chunk from the source, run the steps over its rows, drain it into the sink.
 *
 * C decides nothing here: a fault's policy is data, and whatever needs a decision comes back to Python as an event. A
 * lane goes on where it left: phase, step and row are its own. Native steps that follow each other are one segment: a
 * record goes through all of them before the next one starts, through two small buffers that stay in the cache. */
#include "lane.h"

#define SLICE_MS 50                            /* the longest a stop waits for a source that sleeps */

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

/* ---- faults ------------------------------------------------------------------------------------------ */

static const fh_policy *policy_of(const fh_flow *flow, uint32_t step) {
    return step == FH_SOURCE ? &flow->source_policy : step == FH_SINK ? &flow->sink_policy : &flow->step_policies[step];
}

/* What the policy says of one record that failed. `fatal`: whatever the policy says. Returns whether it ends the
 * flow: rows before that one go on, rows after it do not. */
int fh_lane_fault(fh_lane *lane, uint64_t record, const uint8_t *bytes, size_t length, uint32_t step, int32_t status,
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

int fh_lane_row_fault(fh_lane *lane, fh_row *source, uint32_t step, int32_t status, uint32_t attempt) {
    int ends = fh_lane_fault(lane, fh_record(lane, source), fh_source_bytes(lane, source), source->length, step, status, 0, attempt,
                     lane->error.data, lane->error.lent.len);
    if (!ends) {
        source->status = FH_SETTLED;
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
int fh_lane_may_retry(const fh_lane *lane, uint32_t step, int32_t status, uint32_t attempt) {
    const fh_policy *policy = policy_of(lane->flow, step);
    return policy->retries && attempt <= policy->retries && status < FERRULE_OK && status > FERRULE_INTERNAL &&
           (status == FERRULE_UNAVAILABLE || status == FERRULE_TIMEOUT || mentions_retry(&lane->error));
}

int32_t fh_lane_ask_retry(fh_lane *lane, uint32_t step, int32_t status) {
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
        const fh_row *source = fh_source_row(lane, lane->row);
        retry->record = fh_record(lane, source);
        retry->source = fh_source_bytes(lane, source);
        retry->source_len = source->length;
        retry->input = lane->held.data;
        retry->input_len = lane->held.lent.len;
    }
}

void fh_lane_retry(fh_lane *lane, int32_t answer) { lane->retry_answer = answer; }

/* What Python said of row lane->row, which failed in `step`: again (lane->retrying stays), or behind it. Returns whether
 * its failure ends the flow. */
int fh_lane_answer_retry(fh_lane *lane, uint32_t step) {
    int ends = 0;
    if (lane->retry_answer == FH_AGAIN) {
        lane->attempt++;
        lane->retrying = !fh_load32(&lane->flow->stop);    /* stopped meanwhile: it is left */
        return 0;
    }
    fh_row *source = fh_source_row(lane, lane->row);
    if (lane->retry_answer == FH_TAKEN) {
        lane->counts.taken++;
        source->status = FH_SETTLED;
    } else {
        ends = fh_lane_row_fault(lane, source, step, lane->retry_status, lane->attempt);
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
        int32_t status = fh_stream_enter(flow->source, FH_NEXT, -1, &lane->error);
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
            fh_stream_leave(flow->source, FH_NEXT);
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
            fh_lane_fault(lane, first + items, NULL, 0, FH_SOURCE, status, 0, 1, lane->error.data, lane->error.lent.len);
        } else if (status == FERRULE_PENDING || status == FERRULE_TIMEOUT) {
            if (items) {
                break;                         /* a slow source is not held back */
            }
            if (flow->checkpoint_ms && fh_load64(&flow->drained) != flow->checkpointed_chunks &&
                fh_monotonic_ms() - flow->checkpointed_ms >= flow->checkpoint_ms) {
                return FH_EVENT_CHECKPOINT;
            }
            if (status == FERRULE_PENDING) {
                fh_waiter_wait(&flow->source->waiter, FH_NEXT, SLICE_MS);
            }
        } else if (items && fh_lane_may_retry(lane, FH_SOURCE, status, 1)) {
            break;                             /* what it gave goes on first; it will say it again */
        } else if (fh_lane_may_retry(lane, FH_SOURCE, status, flow->source_attempt + 1)) {
            return fh_lane_ask_retry(lane, FH_SOURCE, status);
        } else {
            fh_lane_fault(lane, first + items + 1, NULL, 0, FH_SOURCE, status, 1, flow->source_attempt + 1, lane->error.data,
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
                if (!fh_load32(&flow->fatal) && !flow->cut) {      /* what was left is told at the end alone */
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
                    fh_lane_fault(lane, flow->taken + 1, NULL, 0, FH_SOURCE, lane->retry_status, 1, flow->source_attempt,
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
            event = fh_lane_steps(lane);
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
                    fh_lane_leave_row(lane, &fh_area_rows(&lane->region, FH_AREA_SOURCE)[i]);
                }
                fh_flow_give_sink(flow);
                lane->phase = PHASE_FILL;
                break;
            }
            lane->row = 0;
            fh_lane_check_source(lane);
            if (flow->sink == NULL) {
                if (lane->region.chunk->areas[lane->region.chunk->current].rows) {
                    lane->phase = PHASE_DRAINED;
                    return FH_EVENT_SINK;
                }
                fh_lane_publish(lane);
                lane->phase = PHASE_DRAINED;
                break;
            }
            /* fall through */
        case PHASE_DRAINING:
            event = fh_lane_drain(lane);
            if (event >= 0) {
                return event;
            }
            fh_lane_publish(lane);
            lane->phase = PHASE_DRAINED;
            break;
        default:                               /* PHASE_DRAINED: this lane still holds the sink */
            fh_flow_pass_park(flow);
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
        const uint32_t origin = area == FH_AREA_SOURCE ? i : fh_origin(lane, i);
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
    const int32_t to = fh_next_area(region->chunk);
    lane_step *step = &lane->steps[lane->step];
    int32_t status = add_answers(lane, to, bytes, lengths, rows);
    for (uint32_t i = 0; i < rows; i++) {
        fh_row *source = fh_source_row(lane, i);
        if (lengths[i] == FH_NONE && fh_area_rows(region, from)[i].status == FERRULE_OK) {
            fh_lane_skipped(lane, step, source);
        }
    }
    lane->cut |= rows < region->chunk->areas[from].rows || lane->ended;
    fh_lane_advance(lane, to);
    lane->step++;
    return status;
}

void fh_lane_drained(fh_lane *lane, uint32_t rows) {
    const fh_chunk *chunk = lane->region.chunk;
    const fh_row *were = fh_area_rows(&lane->region, (int32_t)chunk->current);
    for (uint32_t i = 0; i < rows; i++) {
        if (were[i].status == FERRULE_OK) {
            fh_lane_written(lane, i, i + 1, 1);
        }
    }
    lane->cut |= rows < chunk->areas[chunk->current].rows || lane->ended;
    fh_lane_publish(lane);
}

void fh_lane_abandon(fh_lane *lane, int32_t status, const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = lane->region.chunk;
    uint64_t record = chunk->first_record + chunk->items + 1;    /* the next one, if none of this chunk is left */
    if (lane->row < chunk->areas[chunk->current].rows) {
        record = fh_record(lane, fh_source_row(lane, lane->row));
    }
    fh_lane_fault(lane, record, NULL, 0, lane->event_step, status, 1, 1, error, error_len);
    lane->abandoned = 1;
}

int32_t fh_lane_reject(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, int32_t fatal, uint32_t attempt,
                       const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = lane->region.chunk;
    if (step == FH_SOURCE) {
        return fh_lane_fault(lane, chunk->first_record + row + 1, NULL, 0, step, status, fatal, attempt, error, error_len);
    }
    fh_row *source = fh_source_row(lane, row);
    int ends = fh_lane_fault(lane, fh_record(lane, source), fh_source_bytes(lane, source), source->length, step, status, fatal, attempt,
                     error, error_len);
    fh_area_rows(&lane->region, (int32_t)chunk->current)[row].status = status;
    if (!ends) {
        source->status = FH_SETTLED;
    }
    return ends;
}

void fh_lane_keep(fh_lane *lane, uint32_t row) {
    fh_area_rows(&lane->region, (int32_t)lane->region.chunk->current)[row].status = FH_SETTLED;
    fh_source_row(lane, row)->status = FH_SETTLED;
    lane->counts.taken++;
}

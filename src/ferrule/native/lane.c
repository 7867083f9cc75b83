/* lane.c: a flow's happy path. Fill a chunk from the source, run the steps over its rows, drain it into the sink.
 *
 * C decides nothing here: a fault's policy is data, and whatever needs a decision comes back to Python as an event. A
 * lane goes on where it left: phase, step and row are its own. Native steps that follow each other are one segment: a
 * record goes through all of them before the next one starts, through two small buffers that stay in the cache. */
#include "lane.h"

#define SLICE_MS 50                            /* the longest a stop waits for a source that sleeps */
#define LONG_MS 1000                           /* the longest that a lane should work on a chunk */

fh_lane *fh_lane_new(fh_flow *flow) {
    fh_lane *lane = calloc(1, sizeof *lane + flow->steps * sizeof(lane_step));
    if (lane == NULL) {
        return NULL;
    }
    lane->flow = flow;
    lane->attempt = 1;
    lane->chunk_rows = FH_FIRST_ROWS;
    if (fh_work_init(&lane->work, flow->fill_bytes) != FERRULE_OK ||
        fh_buffer_init(&lane->error, 4096, 1 << 20) != FERRULE_OK ||
        fh_buffer_init(&lane->scratch[0], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&lane->scratch[1], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&lane->held, 0, FH_DEFAULT_LIMIT) != FERRULE_OK) {
        fh_lane_free(lane);
        return NULL;
    }
    return lane;
}

void fh_lane_free(fh_lane *lane) {
    if (lane != NULL) {
        fh_work_free(&lane->work);
        fh_buffer_free(&lane->error);
        fh_buffer_free(&lane->scratch[0]);
        fh_buffer_free(&lane->scratch[1]);
        fh_buffer_free(&lane->held);
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
uint32_t fh_lane_chunk_rows(fh_lane *lane) { return lane->chunk_rows; }

/* ---- faults ------------------------------------------------------------------------------------------ */

static const fh_policy *policy_of(const fh_flow *flow, uint32_t step) {
    return step == FH_SOURCE ? &flow->source_policy : step == FH_SINK ? &flow->sink_policy : &flow->step_policies[step];
}

static void settle(fh_lane *lane, uint32_t row) {
    fh_area_rows(&lane->work.region, (int32_t)lane->work.region.chunk->current)[row].status = FH_SETTLED;
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
        lane->work.counts.skipped++;
        return 0;
    }
    if (policy == FH_DEAD_LETTER) {
        lane->work.counts.dead++;
    } else {
        lane->work.counts.failed++;
        lane->work.ended = 1;
        fh_flow_end_reading(lane->flow, 0);
    }
    const fh_parked entry = {record, fh_wall_ns(), 0, (uint32_t)length, (uint32_t)error_len, status, policy, step, attempt};
    if (fh_parcel_add(&lane->work.faults, &entry, bytes, error) != FERRULE_OK) {
        fh_flow_abort(lane->flow);             /* a fault that cannot be told is not passed over */
        return 1;
    }
    return policy == FH_FAIL;
}

int fh_lane_row_fault(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, uint32_t attempt) {
    const fh_row *source = fh_source_row(lane, row);
    int ends = fh_lane_fault(lane, fh_record(lane, source), fh_source_bytes(lane, source), source->length, step, status, 0, attempt,
                     lane->error.data, lane->error.lent.len);
    if (!ends) {
        settle(lane, row);
    }
    return ends;
}

/* The same for what has no row: an item that the source could not make, or a fault that waited. If it ends the flow, the
 * fault is told again when the flow goes on, for the source stands behind that item. */
static int item_fault(fh_lane *lane, const fh_parked *fault, const uint8_t *record, const uint8_t *error) {
    int ends = fh_lane_fault(lane, fault->record, record, fault->record_len, fault->step, fault->status, 0, fault->attempt,
                             error, fault->error_len);
    if (ends) {
        lane->work.counts.read--;
        if (fh_parcel_add(&lane->work.left, fault, record, error) != FERRULE_OK) {
            fh_flow_abort(lane->flow);
        }
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
    if (lane->event_step != FH_SOURCE && lane->work.region.chunk->areas[lane->work.region.chunk->current].rows) {
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
    if (lane->retry_answer == FH_TAKEN) {
        lane->work.counts.taken++;
        settle(lane, lane->row);
    } else {
        ends = fh_lane_row_fault(lane, lane->row, step, lane->retry_status, lane->attempt);
    }
    lane->retrying = 0;
    lane->attempt = 1;
    lane->row += !ends;
    return ends;
}

/* ---- fill ---------------------------------------------------------------------------------------------- */

static int32_t add_waiting(fh_region *region, int32_t area, const uint8_t *bytes, uint32_t length, uint32_t origin) {
    fh_buffer out;
    fh_area_lend(region, area, &out);
    const size_t at = out.lent.len;
    int32_t status = fh_area_reserve_rows(region, area, 1, &out);
    status = status == FERRULE_OK ? fh_buffer_append(&out, bytes, length) : status;
    status = status == FERRULE_OK ? fh_buffer_append(&out, "\n", 1) : status;
    if (status == FERRULE_OK) {
        fh_area *into = &region->chunk->areas[area];
        fh_area_rows(region, area)[into->rows++] = (fh_row){(uint32_t)at, length, origin, FERRULE_OK, 0, 1};
        fh_area_take(region, &out);
    }
    fh_region_settle(region);
    return status;
}

/* What a resumed flow begins with. It has numbers of its own, and may enter between the steps: so a chunk takes those that
 * follow each other and enter at the same step. */
static void fill_waiting(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->work.region;
    const fh_parked *all = (const fh_parked *)flow->waiting.entries.data;
    lane->work.waiting_first = flow->waiting_next;
    region->chunk->first_record = all[flow->waiting_next].record - 1;
    while (flow->waiting_next < flow->waiting.rows && lane->work.waiting_rows < flow->room && !lane->work.ended &&
           region->chunk->areas[FH_AREA_SOURCE].length < flow->fill_bytes) {
        const uint32_t rows = region->chunk->areas[FH_AREA_SOURCE].rows;
        const fh_parked *row = &all[flow->waiting_next];
        const uint8_t *record = flow->waiting.bytes.data + row->offset, *given = record + row->record_len;
        const uint64_t origin = row->record - 1 - region->chunk->first_record;
        if (row->status != FERRULE_OK) {
            item_fault(lane, row, record, given);
        } else if (row->record <= region->chunk->first_record || origin > UINT32_MAX ||
                   (rows && row->step != lane->step)) {
            break;
        } else if (add_waiting(region, FH_AREA_SOURCE, record, row->record_len, (uint32_t)origin) != FERRULE_OK ||
                   (row->step && add_waiting(region, FH_AREA_A, given, row->error_len, rows) != FERRULE_OK)) {
            fh_flow_abort(flow);
            return;
        } else {
            lane->step = row->step;
            region->chunk->current = row->step ? FH_AREA_A : FH_AREA_SOURCE;
        }
        flow->waiting_next++;
        lane->work.waiting_rows++;
    }
    lane->work.counts.read += lane->work.waiting_rows;
}

/* Takes items until the chunk is full. Holds the source. Returns an event, or -1. */
static int32_t fill(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    const uint64_t most = flow->source_many || flow->room < lane->chunk_rows ? flow->room : lane->chunk_rows;
    const uint64_t first = lane->work.region.chunk->first_record;
    while (!fh_load32(&flow->stop) && !lane->work.ended) {
        int32_t status = fh_stream_enter(flow->source, FH_NEXT, -1, &lane->error);
        if (status == FERRULE_OK) {
            status = fh_fill(&lane->work.region, flow->source, flow->source_many, flow->fill_bytes, most, SLICE_MS,
                             &flow->stop, &lane->error);
            if (flow->checkpoint_ms && (status == FERRULE_OK || status == FERRULE_END || status == FERRULE_INVALID_DATA ||
                                        lane->work.region.chunk->items)) {
                lane->work.position.lent.len = 0;
                fh_buffer *nothing = &lane->scratch[0];
                nothing->lent.len = 0;
                if (fh_stream_where(flow->source, &lane->work.position, nothing) != FERRULE_OK) {
                    lane->work.position.lent.len = 0;
                }
            }
            fh_stream_leave(flow->source, FH_NEXT);
        }
        const uint32_t items = lane->work.region.chunk->items;
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
            const uint32_t length = (uint32_t)lane->error.lent.len;
            const fh_parked fault = {first + items, 0, 0, 0, length, status, 0, FH_SOURCE, 1};
            item_fault(lane, &fault, NULL, lane->error.data);
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

/* Holds the source. Returns whether there is memory for it: a spare chunk may be a new one. */
static int begin_chunk(fh_lane *lane) {
    if (lane->work.region.chunk == NULL && fh_work_init(&lane->work, lane->flow->fill_bytes) != FERRULE_OK) {
        return 0;
    }
    fh_region_reset(&lane->work.region);
    lane->work.region.chunk->first_record = lane->flow->taken;
    memset(&lane->work.counts, 0, sizeof lane->work.counts);
    fh_parcel_clear(&lane->work.faults);
    fh_parcel_clear(&lane->work.left);
    lane->work.ended = lane->broken = lane->abandoned = 0;
    lane->step = lane->row = lane->work.waiting_rows = 0;
    lane->attempt = 1;
    lane->work.position.lent.len = 0;
    return 1;
}

static void end_fill(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_area *source = &lane->work.region.chunk->areas[FH_AREA_SOURCE];
    const uint32_t items = lane->work.region.chunk->items;
    flow->taken += items;
    lane->work.counts.read += items;
    if (items > flow->room) {                  /* lines that came with the last one wait for another day */
        const fh_row *rows = fh_area_rows(&lane->work.region, FH_AREA_SOURCE);
        uint32_t kept = source->rows;
        while (kept && rows[kept - 1].origin >= flow->room) {
            kept--;
        }
        fh_lane_leave(lane, kept, 0);
        source->rows = kept;
        source->length = kept ? rows[kept - 1].offset + (uint64_t)rows[kept - 1].length + 1 : 0;
    }
    const uint64_t begun = items + lane->work.waiting_rows;
    if (flow->room <= begun) {
        fh_flow_end_reading(flow, 0);
    }
    if (flow->room != UINT64_MAX) {
        flow->room -= begun < flow->room ? begun : flow->room;
    }
    fh_flow_give_source(flow, 1, &lane->work.number);
    lane->filled_ms = fh_monotonic_ms();
    lane->phase = PHASE_RUN;
}

/* How many rows the next chunk may have, where the one of `rows` with so many items took that long: half as long as it may
 * where that was too long, twice as many where it was soon done. */
static uint32_t next_rows(uint32_t rows, uint32_t items, int64_t took, int64_t most_ms) {
    if (took > most_ms && items) {
        const uint32_t fit = (uint32_t)((int64_t)items * (most_ms / 2) / took);
        return fit ? fit : 1;
    }
    if (took < most_ms / 4 && items >= rows) {
        return rows < FH_MOST_ROWS / 2 ? rows * 2 : FH_MOST_ROWS;
    }
    return rows;
}

/* Slow steps make short chunks, so that other lanes have work, too, and counters and checkpoints keep up. Not where a step
 * takes a chunk in one call: that call may cost the same for fewer rows. Lines that a source gives together stay so. */
static void measure_rows(fh_lane *lane) {
    const fh_flow *flow = lane->flow;
    const int64_t took = lane->work.run_ms = fh_monotonic_ms() - lane->filled_ms;
    for (uint32_t i = 0; i < flow->steps; i++) {
        if (flow->step_policies[i].answers == FH_LINES) {
            lane->chunk_rows = FH_MOST_ROWS;
            return;
        }
    }
    lane->chunk_rows = next_rows(lane->chunk_rows, lane->work.region.chunk->items, took, LONG_MS);
    const uint32_t sink_rows = (uint32_t)fh_load32(&flow->sink_rows);
    lane->chunk_rows = lane->chunk_rows < sink_rows ? lane->chunk_rows : sink_rows;
}

/* The same for a slow sink that takes a record a call. Holds the sink. */
static void measure_sink(const fh_lane *lane) {
    fh_flow *flow = lane->flow;
    if (!flow->sink_lines) {
        const int64_t took = fh_monotonic_ms() - flow->draining_ms;
        const uint32_t items = lane->work.region.chunk->items;
        fh_store32(&flow->sink_rows, (int32_t)next_rows((uint32_t)flow->sink_rows, items, took, LONG_MS / 4));
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
            if (!begin_chunk(lane)) {
                fh_flow_give_source(flow, 0, NULL);
                fh_flow_abort(flow);
                return FH_EVENT_END;
            }
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
            if (flow->waiting_next < flow->waiting.rows) {
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
            measure_rows(lane);
            lane->phase = PHASE_TURN;
            break;
        case PHASE_TURN:
            event = fh_flow_take_sink(flow, &lane->work);
            if (event < 0) {
                return FH_EVENT_END;
            }
            lane->phase = event ? PHASE_DRAIN : PHASE_FILL;
            break;
        case PHASE_DRAIN:                      /* this lane holds the sink, and perhaps another lane's chunk */
            flow->cut |= lane->work.ready && fh_load32(&flow->stop);    /* a slow sink would take long over a full shelf */
            if (flow->in_order && flow->cut) {
                /* A chunk before this one was not drained whole, or it was on the shelf when the flow was stopped: it is as
                 * if it was never read. The source gives its own records again; those that a resumed flow began with are
                 * nowhere else. */
                const fh_parked *rows = (const fh_parked *)flow->waiting.entries.data + lane->work.waiting_first;
                for (uint32_t i = 0; i < lane->work.waiting_rows; i++) {
                    const uint8_t *record = flow->waiting.bytes.data + rows[i].offset;
                    if (fh_parcel_add(&flow->left, &rows[i], record, record + rows[i].record_len) != FERRULE_OK) {
                        fh_flow_abort(flow);
                    }
                }
                lane->phase = PHASE_DRAINED;
                break;
            }
            lane->row = 0;
            lane->one_by_one = 0;
            lane->attempt = 1;
            fh_lane_check_source(lane);
            if (flow->sink == NULL) {
                if (lane->work.region.chunk->areas[lane->work.region.chunk->current].rows) {
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
            measure_sink(lane);
            fh_flow_pass_park(flow);
            fh_work_trim(&lane->work);
            lane->phase = fh_flow_give_sink(flow, &lane->work) ? PHASE_DRAIN : PHASE_FILL;
        }
    }
}

const uint8_t *fh_lane_rows(fh_lane *lane, size_t *length, uint32_t *rows) {
    const fh_chunk *chunk = lane->work.region.chunk;
    *length = (size_t)chunk->areas[chunk->current].length;
    *rows = chunk->areas[chunk->current].rows;
    return fh_area_bytes(&lane->work.region, (int32_t)chunk->current);
}

/* ---- Python's answers ---------------------------------------------------------------------------------- */

/* Appends answers to an area: a row for each line of them. Origins are asked of the current rows, or counted for
 * the source. */
static int32_t add_answers(fh_lane *lane, int32_t area, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &lane->work.region;
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
                lane->work.counts.added += made > 0;
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
    lane->work.region.chunk->items = rows;
    lane->work.position.lent.len = 0;
    if (status == FERRULE_OK) {
        status = fh_buffer_append(&lane->work.position, position, position_len);
    }
    fh_store32(&lane->flow->source_ended, ended);
    end_fill(lane);
    return status;
}

int32_t fh_lane_stepped(fh_lane *lane, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &lane->work.region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = fh_next_area(region->chunk);
    lane_step *step = &lane->steps[lane->step];
    int32_t status = add_answers(lane, to, bytes, lengths, rows);
    for (uint32_t i = 0; i < rows; i++) {
        if (lengths[i] == FH_NONE && fh_area_rows(region, from)[i].status == FERRULE_OK) {
            fh_lane_skipped(lane, step, i);
        }
    }
    fh_lane_leave(lane, rows, lane->step);
    fh_lane_advance(lane, to);
    lane->step++;
    return status;
}

void fh_lane_drained(fh_lane *lane, uint32_t rows) {
    const fh_chunk *chunk = lane->work.region.chunk;
    const fh_row *were = fh_area_rows(&lane->work.region, (int32_t)chunk->current);
    for (uint32_t i = 0; i < rows; i++) {
        lane->work.counts.written += were[i].status == FERRULE_OK;
    }
    fh_lane_leave(lane, rows, lane->flow->steps);
    fh_lane_publish(lane);
}

void fh_lane_abandon(fh_lane *lane, int32_t status, const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = lane->work.region.chunk;
    uint64_t record = chunk->first_record + chunk->items + 1;    /* the next one, if none of this chunk is left */
    if (lane->row < chunk->areas[chunk->current].rows) {
        record = fh_record(lane, fh_source_row(lane, lane->row));
    }
    fh_lane_fault(lane, record, NULL, 0, lane->event_step, status, 1, 1, error, error_len);
    lane->abandoned = 1;
}

int32_t fh_lane_reject(fh_lane *lane, uint32_t row, uint32_t step, int32_t status, int32_t fatal, uint32_t attempt,
                       const uint8_t *error, size_t error_len) {
    if (step == FH_SOURCE) {
        const fh_parked fault = {lane->work.region.chunk->first_record + row + 1, 0, 0, 0, (uint32_t)error_len, status, 0, step,
                                 attempt};
        return fatal ? fh_lane_fault(lane, fault.record, NULL, 0, step, status, 1, attempt, error, error_len)
                     : item_fault(lane, &fault, NULL, error);
    }
    const fh_row *source = fh_source_row(lane, row);
    int ends = fh_lane_fault(lane, fh_record(lane, source), fh_source_bytes(lane, source), source->length, step, status, fatal, attempt,
                     error, error_len);
    if (!ends) {
        settle(lane, row);
    }
    return ends;
}

void fh_lane_keep(fh_lane *lane, uint32_t row) {
    settle(lane, row);
    lane->work.counts.taken++;
}

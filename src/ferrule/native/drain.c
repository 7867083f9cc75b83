/* drain.c: a chunk into the sink, and its outcome into the flow. */
#include "lane.h"

static int32_t sink_write(fh_lane *lane, const uint8_t *bytes, size_t length) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_buffer *out = &lane->scratch[0];
    out->lent.len = lane->error.lent.len = 0;
    int32_t status = flow->sink->ops->call(flow->sink->object, flow->sink_method, &call, bytes, length, &out->lent,
                                           &lane->error.lent);
    return fh_settle(&flow->sink->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, &lane->error);
}

void fh_lane_written(fh_lane *lane, uint32_t from, uint32_t to, int counts) {
    for (uint32_t i = from; i < to; i++) {
        fh_source_row(lane, i)->status = FH_SETTLED;
    }
    if (counts) {
        lane->counts.written += to - from;
    } else {
        lane->counts.skipped += to - from;
    }
}

/* Writes the current rows. A write is all or nothing, so after a failed one the rows go one by one, unless the whole
 * write's failure is what the flow is to end with. Holds the sink. Returns an event, or -1. */
int32_t fh_lane_drain(fh_lane *lane) {
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
        ended = fh_lane_answer_retry(lane, FH_SINK);
        lane->retrying = 0;                    /* the next chunk has asked nothing */
        if (fh_load32(&flow->stop) && !lane->one_by_one && lane->row == 0 && lane->retry_answer == FH_AGAIN) {
            lane->cut = 1;                     /* stopped while the whole chunk waited */
            return -1;
        }
    }
    int32_t status = fh_instance_enter(flow->sink, &lane->error);
    if (status != FERRULE_OK) {
        fh_lane_fault(lane, fh_record(lane, fh_source_row(lane, lane->row)), NULL, 0, FH_SINK, status, 1, 1, lane->error.data,
              lane->error.lent.len);
        lane->cut = 1;
        return -1;
    }
    if (!lane->one_by_one && !ended && lane->row == 0) {
        status = flow->sink_lines ? sink_write(lane, bytes, (size_t)area->length) : FERRULE_INVALID_DATA;
        lane->one_by_one = 1;
        if (status == FERRULE_OK || status == FERRULE_SKIP) {
            fh_lane_written(lane, 0, area->rows, status == FERRULE_OK);
            lane->row = area->rows;
        } else if (flow->sink_lines && fh_lane_may_retry(lane, FH_SINK, status, lane->attempt)) {
            lane->one_by_one = 0;
            lane->held.lent.len = 0;
            fh_instance_leave(flow->sink);
            return fh_lane_ask_retry(lane, FH_SINK, status);
        } else if (status != FERRULE_INVALID_DATA &&
                   (flow->sink_policy.on_error == FH_FAIL || fh_load32(&flow->sink->poisoned))) {
            ended = fh_lane_fault(lane, fh_record(lane, fh_source_row(lane, 0)), NULL, 0, FH_SINK, status, 1, lane->attempt,
                          lane->error.data, lane->error.lent.len);
        }
    }
    int32_t event = -1;
    while (lane->row < area->rows && !ended) {
        const uint32_t i = lane->row;
        status = sink_write(lane, bytes + rows[i].offset, (size_t)rows[i].length + (flow->sink_lines ? 1 : 0));
        if (status == FERRULE_OK || status == FERRULE_SKIP) {
            fh_lane_written(lane, i, i + 1, status == FERRULE_OK);
        } else if (fh_lane_may_retry(lane, FH_SINK, status, lane->attempt)) {
            lane->held.lent.len = 0;
            fh_buffer_append(&lane->held, bytes + rows[i].offset, rows[i].length);
            event = fh_lane_ask_retry(lane, FH_SINK, status);
            break;
        } else {
            ended = fh_lane_row_fault(lane, fh_source_row(lane, i), FH_SINK, status, lane->attempt);
            if (fh_load32(&flow->sink->poisoned) && !ended) {
                /* A sink made anew would begin its output anew. */
                ended = fh_lane_fault(lane, fh_record(lane, fh_source_row(lane, i)), NULL, 0, FH_SINK, status, 1, lane->attempt,
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
void fh_lane_leave_row(fh_lane *lane, const fh_row *source) {
    const fh_parked left = {fh_record(lane, source), 0, 0, source->length, 0, 0, 0, 0, 0};
    if (fh_parcel_add(&lane->flow->left, &left, fh_source_bytes(lane, source), NULL) != FERRULE_OK) {
        fh_flow_abort(lane->flow);
    }
}

/* A chunk's outcome becomes the flow's: faults in the order of chunks, counters, where the source stands. */
void fh_lane_publish(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->region;
    const fh_row *rows = fh_area_rows(region, FH_AREA_SOURCE);
    const uint32_t source_rows = region->chunk->areas[FH_AREA_SOURCE].rows + lane->hidden;
    if (lane->cut) {
        for (uint32_t i = 0; i < source_rows; i++) {
            if (rows[i].status != FH_SETTLED) {
                fh_lane_leave_row(lane, &rows[i]);
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


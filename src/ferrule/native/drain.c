/* drain.c: a chunk into the sink, and its outcome into the flow. */
#include "lane.h"

static int32_t sink_write(fh_lane *lane, const uint8_t *bytes, size_t length) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = fh_lane_call(lane);
    fh_buffer *out = &lane->scratch[0];
    out->lent.len = lane->error.lent.len = 0;
    int32_t status = flow->sink->ops->call(flow->sink->object, flow->sink_method, &call, bytes, length, &out->lent,
                                           &lane->error.lent);
    return fh_settle(&flow->sink->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, &lane->error);
}

static void written(fh_lane *lane, uint32_t rows, int32_t status) {
    *(status == FERRULE_OK ? &lane->work.counts.written : &lane->work.counts.skipped) += rows;
}

/* Writes the current rows. A write is all or nothing, so after a failed one the rows go one by one, unless the whole
 * write's failure is what the flow is to end with. Holds the sink. Returns an event, or -1. */
int32_t fh_lane_drain(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->work.region;
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
        if (fh_load32(&flow->stop) && lane->retry_answer == FH_AGAIN) {
            fh_lane_leave(lane, lane->row, flow->steps);   /* stopped while it waited */
            return -1;
        }
    }
    int32_t status = fh_instance_enter(flow->sink, &lane->error);
    if (status != FERRULE_OK) {
        fh_lane_fault(lane, fh_record(lane, fh_source_row(lane, lane->row)), NULL, 0, FH_SINK, status, 1, 1, lane->error.data,
              lane->error.lent.len);
        fh_lane_leave(lane, lane->row, flow->steps);
        return -1;
    }
    if (!lane->one_by_one && !ended && lane->row == 0) {
        status = flow->sink_lines ? sink_write(lane, bytes, (size_t)area->length) : FERRULE_INVALID_DATA;
        lane->one_by_one = 1;
        if (status == FERRULE_OK || status == FERRULE_SKIP) {
            written(lane, area->rows, status);
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
            written(lane, 1, status);
        } else if (fh_lane_may_retry(lane, FH_SINK, status, lane->attempt)) {
            lane->held.lent.len = 0;
            fh_buffer_append(&lane->held, bytes + rows[i].offset, rows[i].length);
            event = fh_lane_ask_retry(lane, FH_SINK, status);
            break;
        } else if (fh_lane_row_fault(lane, i, FH_SINK, status, lane->attempt)) {
            break;
        } else if (fh_load32(&flow->sink->poisoned)) {
            /* A sink made anew would begin its output anew. */
            ended = fh_lane_fault(lane, fh_record(lane, fh_source_row(lane, i)), NULL, 0, FH_SINK, status, 1, lane->attempt,
                                  lane->error.data, lane->error.lent.len);
        }
        lane->attempt = 1;
        lane->row++;
    }
    if (event < 0) {
        fh_lane_leave(lane, lane->row, flow->steps);
    }
    fh_instance_leave(flow->sink);
    return event;
}

/* What waits for another day is read then. A record of which several were made was read once. */
static void uncount(fh_lane *lane, fh_row *source) {
    if (source != NULL && source->status == FH_LEFT) {
        lane->work.counts.added--;
        return;
    }
    lane->work.counts.read--;
    if (source != NULL) {
        source->status = FH_LEFT;
    }
}

void fh_lane_leave(fh_lane *lane, uint32_t first, uint32_t step) {
    const fh_chunk *chunk = lane->work.region.chunk;
    const int32_t current = (int32_t)chunk->current;
    for (uint32_t i = first; i < chunk->areas[current].rows; i++) {
        const fh_row *row = &fh_area_rows(&lane->work.region, current)[i];
        if (row->status != FERRULE_OK) {
            continue;
        }
        fh_row *source = fh_source_row(lane, i);
        const uint32_t given = current == FH_AREA_SOURCE ? 0 : row->length;
        const fh_parked left = {fh_record(lane, source), 0, 0, source->length, given, FERRULE_OK, 0, step, 1};
        uncount(lane, source);
        if (fh_parcel_add(&lane->work.left, &left, fh_source_bytes(lane, source),
                          fh_area_bytes(&lane->work.region, current) + row->offset) != FERRULE_OK) {
            fh_flow_abort(lane->flow);
        }
    }
}

/* In order, what failed behind a record that waits for another day is told then. */
static void hold_back(fh_lane *lane) {
    const fh_parked *left = (const fh_parked *)lane->work.left.entries.data;
    fh_parked *faults = (fh_parked *)lane->work.faults.entries.data;
    const fh_area *area = &lane->work.region.chunk->areas[FH_AREA_SOURCE];
    uint64_t before = UINT64_MAX;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < lane->work.left.rows; i++) {
        before = left[i].record < before ? left[i].record : before;
    }
    for (uint32_t i = 0; i < lane->work.faults.rows; i++) {
        if (faults[i].policy == FH_FAIL || faults[i].record <= before) {
            faults[kept++] = faults[i];
            continue;
        }
        fh_row *source = fh_area_rows(&lane->work.region, FH_AREA_SOURCE), *end = source + area->rows;
        while (source < end && fh_record(lane, source) != faults[i].record) {
            source++;
        }
        lane->work.counts.dead--;
        uncount(lane, source < end ? source : NULL);
        const uint8_t *record = lane->work.faults.bytes.data + faults[i].offset;
        if (fh_parcel_add(&lane->work.left, &faults[i], record, record + faults[i].record_len) != FERRULE_OK) {
            fh_flow_abort(lane->flow);
        }
    }
    lane->work.faults.rows = kept;
    lane->work.faults.entries.lent.len = kept * sizeof *faults;
}

/* A chunk's outcome becomes the flow's: faults in the order of chunks, counters, where the source stands. */
void fh_lane_publish(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->work.region;
    if (lane->work.left.rows && flow->in_order) {
        hold_back(lane);
    }
    flow->cut |= lane->work.ended || lane->work.left.rows;
    if (fh_parcel_move(&flow->park, &lane->work.faults) != FERRULE_OK ||
        fh_parcel_move(&flow->left, &lane->work.left) != FERRULE_OK) {
        fh_flow_abort(flow);
    }
    if (region->chunk->items && region->chunk->first_record + region->chunk->items > flow->position_records) {
        flow->position_records = region->chunk->first_record + region->chunk->items;
        flow->position.lent.len = 0;
        if (fh_buffer_append(&flow->position, lane->work.position.data, lane->work.position.lent.len) != FERRULE_OK) {
            fh_flow_abort(flow);
        }
    }
    fh_mutex_lock(&flow->mutex);
    flow->counters.read += lane->work.counts.read;
    flow->counters.written += lane->work.counts.written;
    flow->counters.skipped += lane->work.counts.skipped;
    flow->counters.dead += lane->work.counts.dead;
    flow->counters.failed += lane->work.counts.failed;
    flow->counters.taken += lane->work.counts.taken;
    flow->counters.added += lane->work.counts.added;
    fh_mutex_unlock(&flow->mutex);
    if (lane->work.ended) {
        fh_flow_end_reading(flow, 1);
    }
}


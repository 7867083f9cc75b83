/* segment.c: the steps over a chunk's rows. Native steps that follow each other are one segment: a record goes through all
 * of them before the next one starts. A step in Python, one that takes lines, or one that makes several of one, ends it. */
#include "lane.h"

#define SAMPLE 64                              /* one row in so many is timed */

static int is_object(const uint8_t *bytes, size_t length) {
    return FH_LIKELY(length >= 2 && bytes[0] == '{' && bytes[length - 1] == '}');
}


static const char *const NOT_AN_OBJECT = "the plugin answered with something that is no JSON object ({...}) of one line";
static const char *const NO_LINE = "the record is not one line of UTF-8";
static const char *const NOT_A_LINE = "the plugin answered with bytes that are not one line of UTF-8";
static const char *const NOT_THE_LINES = "the plugin answered a chunk of lines with another number of lines";

void fh_lane_skipped(fh_lane *lane, lane_step *step, uint32_t row) {
    step->counters.skipped++;
    lane->work.counts.skipped++;
    fh_area_rows(&lane->work.region, (int32_t)lane->work.region.chunk->current)[row].status = FH_SETTLED;
}

/* Takes down the time of `calls` calls that began then, and returns the time now, when the next begins. Where it stood in
 * the way of the calls that are not sampled, those cost more than this does. */
FH_COLD static int64_t sampled(fh_step_counters *counters, int64_t began, uint32_t calls) {
    const int64_t now = fh_wall_ns(), ns = (now - began) / calls;
    uint32_t bucket = 0;
    counters->sampled_ns += (uint64_t)ns;
    while (bucket + 1 < FH_BUCKETS && (int64_t)2 << bucket <= ns) {
        bucket++;
    }
    counters->histogram[bucket]++;
    return now;
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
        status = fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, &lane->error);
        if (status != FERRULE_OK || !fh_lines_valid(out->data, out->lent.len, 0)) {
            return s;
        }
        in = out->data;
        in_len = out->lent.len;
    }
    return last;
}

static int row_valid(const uint8_t *bytes, const fh_row *row) {
    return FH_LIKELY(fh_plain(bytes + row->offset, row->length)) || fh_lines_valid(bytes + row->offset, row->length, 0);
}

/* Takes the rows that are not one line of UTF-8 out of the area that is to become the current one: the current one itself,
 * or one with a row for each of its rows that are not settled. Returns whether one of them ends the flow; then it and
 * those behind it are left. */
static int weed(fh_lane *lane, uint32_t first, uint32_t last, int32_t area) {
    fh_region *region = &lane->work.region;
    const int32_t current = (int32_t)region->chunk->current;
    fh_area *into = &region->chunk->areas[area];
    uint8_t *bytes = fh_area_bytes(region, area);
    fh_row *rows = fh_area_rows(region, area);
    const int in_place = area == current;      /* a flow without steps: the source's own rows */
    const fh_row *in = fh_area_rows(region, current);
    uint64_t length = 0;
    uint32_t kept = 0;
    int ended = 0;
    for (uint32_t i = 0, at = 0; i < into->rows; i++, at++) {
        fh_row row = rows[i];
        while (!in_place && in[at].status != FERRULE_OK) {
            at++;
        }
        if (fh_lines_valid(bytes + row.offset, row.length, 0)) {
            memmove(bytes + length, bytes + row.offset, (size_t)row.length + 1);
            row.offset = (uint32_t)length;
            length += (uint64_t)row.length + 1;
            rows[kept++] = row;
            continue;
        }
        uint32_t step = FH_SOURCE;
        if (!in_place) {
            step = blame(lane, first, last, fh_area_bytes(region, current) + in[at].offset, in[at].length,
                         current == FH_AREA_SOURCE);
        }
        fh_error_set(&lane->error, step == FH_SOURCE ? NO_LINE : NOT_A_LINE);
        if (fh_lane_row_fault(lane, at, step, FERRULE_INVALID_DATA, 1)) {
            fh_lane_leave(lane, at, first);
            ended = 1;
            break;
        }
    }
    into->rows = kept;
    into->length = length;
    return ended;
}

/* Before rows as they came from the source are split into lines, by a sink, by Python or by a step that takes them
 * together. A step that takes one record gets it unseen: what it makes of a bad one is checked after it. */
void fh_lane_check_source(fh_lane *lane) {
    const fh_area *source = &lane->work.region.chunk->areas[FH_AREA_SOURCE];
    if (lane->work.region.chunk->current == FH_AREA_SOURCE && lane->row == 0 && !lane->retrying &&
        !fh_lines_valid(fh_area_bytes(&lane->work.region, FH_AREA_SOURCE), (size_t)source->length, source->rows)) {
        weed(lane, 0, 0, FH_AREA_SOURCE);
    }
}

/* Makes rows of a step's lines: one for each, all of one origin. Returns how many, or UINT32_MAX: they are no records. */
static uint32_t add_lines(fh_lane *lane, int32_t to, size_t row_len, fh_buffer *out, uint32_t origin) {
    fh_region *region = &lane->work.region;
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
void fh_lane_advance(fh_lane *lane, int32_t to) {
    fh_chunk *chunk = lane->work.region.chunk;
    fh_area *used = &chunk->areas[chunk->current];
    if (chunk->current != FH_AREA_SOURCE) {
        used->rows = 0;
        used->length = 0;
    }
    chunk->current = (uint32_t)to;
    lane->row = 0;
}

/* Where a segment's rows lie, until the region grows: then it has moved. */
typedef struct {
    const fh_row *rows;
    const uint8_t *bytes;
    fh_area *into;
    fh_row *made;
} segment_view;

static segment_view view_of(const fh_region *region, int32_t from, int32_t to) {
    return (segment_view){fh_area_rows(region, from), fh_area_bytes(region, from), &region->chunk->areas[to],
                          fh_area_rows(region, to)};
}

/* Runs steps first..last over the current rows, from lane->row on. Returns an event, or -1 when done. */
static int32_t run_segment(fh_lane *lane, uint32_t first, uint32_t last) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_region *region = &lane->work.region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = fh_next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
    const int several = flow->step_policies[last].answers == FH_SEVERAL;
    fh_buffer *error = &lane->error;
    fh_buffer area_out;
    int32_t event = -1;
    int ended = 0;
    uint32_t cut = lane->row;                  /* the row that ends the flow, if one does */

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
        ended = fh_lane_answer_retry(lane, lane->event_step);
    }
    segment_view view = view_of(region, from, to);
    uint32_t i = lane->row, seen = 0;
    int valid = 1;                             /* the rows made, as far as they were seen */
    for (; i < rows && !ended && event < 0 && !fh_load32(&flow->stop); i++) {
        const fh_row *row = &view.rows[i];
        const uint8_t *in = view.bytes + row->offset;
        size_t in_len = row->length;
        const size_t row_len = area_out.lent.len;
        uint32_t s = first;
        if (FH_UNLIKELY(lane->retrying)) {     /* from the step that failed, with what it was given then */
            lane->retrying = 0;
            s = lane->event_step;
            in = lane->held.data;
            in_len = lane->held.lent.len;
        }
        if (seen < view.into->rows && !several) {              /* a row late: see 'without a wait' below */
            valid &= row_valid(area_out.data, &view.made[seen++]);
        }
        int64_t began = FH_UNLIKELY(i % SAMPLE == 0) ? fh_wall_ns() : 0;
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
            if (FH_UNLIKELY(began)) {
                began = sampled(&step->counters, began, 1);
            }
            /* What the step before answered was written a moment ago: its last byte could not be read without a wait
             * then, and can now. Whatever this step made of it, that one is to blame. */
            if (FH_UNLIKELY(s != first && !is_object(in, in_len))) {
                fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len, error);
                status = FERRULE_INVALID_DATA;
                blamed = s - 1;
                fh_error_set(error, NOT_AN_OBJECT);
            } else if (FH_LIKELY(status == FERRULE_OK && fh_buffer_intact(out, entry_len) && fh_buffer_intact(error, 0))) {
                const uint8_t *answer = out->data + entry_len;
                size_t answer_len = out->lent.len - entry_len;
                if (s != last) {
                    in = answer;
                    in_len = answer_len;
                    continue;
                }
                if (FH_UNLIKELY(several)) {
                    uint32_t made = add_lines(lane, to, row_len, out, fh_origin(lane, i));
                    if (made == 0) {
                        status = FERRULE_SKIP;
                    } else if (made == UINT32_MAX) {
                        status = FERRULE_INVALID_DATA;
                        fh_error_set(error, NOT_AN_OBJECT);
                    } else if (!fh_lines_valid(out->data + row_len, out->lent.len - row_len, made)) {
                        region->chunk->areas[to].rows -= made;     /* all of them or none: the step is called again */
                        row = &fh_area_rows(region, from)[i];
                        blamed = blame(lane, first, last, fh_area_bytes(region, from) + row->offset, row->length,
                                       from == FH_AREA_SOURCE);
                        status = FERRULE_INVALID_DATA;
                        fh_error_set(error, blamed == FH_SOURCE ? NO_LINE : NOT_A_LINE);
                    } else {
                        lane->work.counts.added += made - 1;
                        break;
                    }
                } else if (FH_UNLIKELY(!is_object(answer, answer_len))) {
                    status = FERRULE_INVALID_DATA;
                    fh_error_set(error, NOT_AN_OBJECT);
                } else if (out->lent.len < out->capacity || out->lent.reserve(&out->lent, 1) == FERRULE_OK) {
                    out->data[out->lent.len++] = '\n';
                    if (FH_UNLIKELY(region->retired != NULL)) {
                        view = view_of(region, from, to);
                    }
                    view.made[view.into->rows++] =
                        (fh_row){(uint32_t)row_len, (uint32_t)answer_len, fh_origin(lane, i), FERRULE_OK, 0, 1};
                    break;
                } else {
                    status = FERRULE_OUT_OF_MEMORY;
                }
            } else {
                status = fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len, error);
                if (status == FERRULE_INVALID_DATA && !fh_lines_valid(in, in_len, 0)) {
                    blamed = s > first ? s - 1 : from == FH_AREA_SOURCE ? FH_SOURCE : first - 1;
                    fh_error_set(error, blamed == FH_SOURCE ? NO_LINE : NOT_A_LINE);
                }
            }
            area_out.lent.len = row_len;
            if (status == FERRULE_SKIP) {
                fh_lane_skipped(lane, step, i);
            } else if (fh_lane_may_retry(lane, s, status, lane->attempt)) {
                lane->row = i;
                if (in != lane->held.data) {
                    lane->held.lent.len = 0;
                    fh_buffer_append(&lane->held, in, in_len);
                }
                event = fh_lane_ask_retry(lane, s, status);
            } else {
                ended = fh_lane_row_fault(lane, i, blamed, status, lane->attempt);
                cut = i;
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
            view = view_of(region, from, to);
        }
    }
    fh_area_take(region, &area_out);
    if (event < 0 || event == FH_EVENT_BROKEN) {
        lane->row = i;
    }
    if (event < 0) {
        while (seen < view.into->rows && !several) {
            valid &= row_valid(area_out.data, &view.made[seen++]);
        }
        if (valid || !weed(lane, first, last, to)) {
            fh_lane_leave(lane, ended ? cut : i, first);
        }
    }
    if (!abandoned) {
        leave_steps(lane, first, last);
    }
    if (event < 0) {
        fh_lane_advance(lane, to);
    }
    return event;
}

/* One step that takes a chunk of lines. When the call fails, or its lines do not match, its lines go one by one. */
static int32_t run_lines(fh_lane *lane, uint32_t number) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_region *region = &lane->work.region;
    lane_step *step = &lane->steps[number];
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = fh_next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
    fh_buffer *error = &lane->error;
    fh_buffer out;
    int32_t event = -1;
    int ended = 0;

    if (lane->abandoned) {
        lane->abandoned = 0;
        fh_lane_leave(lane, lane->row, number);
        fh_lane_advance(lane, to);
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
        ended = fh_lane_answer_retry(lane, number);
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
        sampled(&step->counters, began, many);
        status = fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), &out, entry_len, error);
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
                        (fh_row){(uint32_t)length, (uint32_t)size, fh_origin(lane, i), FERRULE_OK, 0, 1};
                    length += size + 1;
                } else if (many == 1) {
                    fh_lane_skipped(lane, step, i);
                }
                where += size + 1;
            }
            if (status != FERRULE_OK) {
                region->chunk->areas[to].rows = before;
            } else if (many > 1) {             /* only now is it known that all of them hold */
                uint32_t next = before;
                const fh_row *made = fh_area_rows(region, to);
                for (uint32_t i = at; i < at + many; i++) {
                    if (next < region->chunk->areas[to].rows && made[next].origin == fh_origin(lane, i)) {
                        next++;
                    } else {
                        fh_lane_skipped(lane, step, i);
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
            fh_lane_skipped(lane, step, at++);
        } else if (fh_lane_may_retry(lane, number, status, lane->attempt)) {
            lane->row = at;
            lane->held.lent.len = 0;
            const fh_row *again = &fh_area_rows(region, from)[at];
            fh_buffer_append(&lane->held, fh_area_bytes(region, from) + again->offset, (size_t)again->length + 1);
            event = fh_lane_ask_retry(lane, number, status);
        } else {
            ended = fh_lane_row_fault(lane, at, number, status, lane->attempt);
            at += !ended;
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
    leave_steps(lane, number, number);
    if (event < 0) {
        fh_lane_leave(lane, at, number);
        fh_lane_advance(lane, to);
    }
    return event;
}

/* Runs the steps that are left. Returns an event, or -1 when done. */
int32_t fh_lane_steps(fh_lane *lane) {
    fh_flow *flow = lane->flow;
    while (lane->step < flow->steps) {
        const fh_chunk *chunk = lane->work.region.chunk;
        if (chunk->areas[chunk->current].rows == 0) {
            break;
        }
        if (lane->steps[lane->step].instance == NULL) {
            fh_lane_check_source(lane);
            lane->event_step = lane->step;
            return FH_EVENT_STEP;
        }
        uint32_t last = lane->step;
        int32_t event;
        if (flow->step_policies[last].answers == FH_LINES) {
            fh_lane_check_source(lane);
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


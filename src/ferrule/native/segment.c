/* segment.c: the steps over a chunk's rows. Native steps that follow each other are one segment: a record goes through all
 * of them before the next one starts. A step in Python, one that takes lines, or one that makes several of one, ends it. */
#include "lane.h"

#define SAMPLE 64                              /* one row in so many is timed */
#define SEEN_TOGETHER 8192                     /* bytes of rows that are looked at together: still in the first cache */

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
    const ferrule_call call = fh_lane_call(lane);
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

/* A segment at work on a chunk. Where the rows lie holds until the region grows: then it has moved. */
typedef struct {
    fh_lane *lane;
    ferrule_call call;
    uint32_t first, last;                      /* its steps */
    int32_t from, to;                          /* areas */
    int several;                               /* whether the last step answers with several records */
    fh_buffer out;                             /* what the last step fills: the area `to` */
    const fh_row *given;
    const uint8_t *bytes;                      /* of the rows given */
    fh_area *into;
    fh_row *made;
    size_t seen;                               /* how far what was made was seen to be lines of UTF-8, or not */
    uint32_t seen_rows;
    int valid;
} segment;

/* Where a row came to an end that is no answer: at a step, with what that was given. */
typedef struct {
    uint32_t step, blamed;                     /* the source may be to blame, or the step before */
    const uint8_t *in;
    size_t in_len;
} ending;

static void find_rows(segment *self) {
    const fh_region *region = &self->lane->work.region;
    self->given = fh_area_rows(region, self->from);
    self->bytes = fh_area_bytes(region, self->from);
    self->into = &region->chunk->areas[self->to];
    self->made = fh_area_rows(region, self->to);
}

/* Looks at the rows that were made since the last time, if they are `enough` bytes. */
static inline void see_rows(segment *self, size_t enough) {
    const size_t length = self->out.lent.len - self->seen;
    if (FH_UNLIKELY(length >= enough) && !self->several) {
        self->valid &= fh_rows_valid(self->out.data + self->seen, length, self->into->rows - self->seen_rows);
        self->seen += length;
        self->seen_rows = self->into->rows;
    }
}

/* A call that did not answer as it should. */
FH_COLD static int32_t refused(segment *self, int32_t status, fh_buffer *out, size_t entry_len, ending *end) {
    const uint32_t s = end->step;
    fh_buffer *error = &self->lane->error;
    status = fh_settle(&self->lane->steps[s].instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len, error);
    if (status == FERRULE_INVALID_DATA && !fh_lines_valid(end->in, end->in_len, 0)) {
        end->blamed = s > self->first ? s - 1 : self->from == FH_AREA_SOURCE ? FH_SOURCE : self->first - 1;
        fh_error_set(error, end->blamed == FH_SOURCE ? NO_LINE : NOT_A_LINE);
    }
    return status;
}

/* Takes a record through the steps from s on. Where all answer, what the last one answered lies in `out`. */
static inline int32_t go_through(segment *self, uint32_t s, const uint8_t *in, size_t in_len, int timed, ending *end) {
    fh_lane *const lane = self->lane;
    fh_buffer *const error = &lane->error;
    int64_t began = FH_UNLIKELY(timed) ? fh_wall_ns() : 0;
    for (lane_step *step = &lane->steps[s];; step++, s++) {
        fh_buffer *out = &self->out;
        if (s != self->last) {
            out = &lane->scratch[s & 1];
            out->lent.len = 0;
        }
        const size_t entry_len = out->lent.len;
        step->counters.calls++;
        error->lent.len = 0;
        int32_t status = step->call(step->object, step->method, &self->call, in, in_len, &out->lent, &error->lent);
        if (FH_UNLIKELY(began)) {
            began = sampled(&step->counters, began, 1);
        }
        /* What the step before answered was written a moment ago: its last byte could not be read without a wait
         * then, and can now. Whatever this step made of it, that one is to blame. */
        if (FH_UNLIKELY(s != self->first && !is_object(in, in_len))) {
            *end = (ending){s, s - 1, in, in_len};
            fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len, error);
            fh_error_set(error, NOT_AN_OBJECT);
            return FERRULE_INVALID_DATA;
        }
        if (FH_UNLIKELY(status != FERRULE_OK || !fh_buffer_intact(out, entry_len) || !fh_buffer_intact(error, 0))) {
            *end = (ending){s, s, in, in_len};
            return refused(self, status, out, entry_len, end);
        }
        if (s == self->last) {
            end->in = in;
            end->in_len = in_len;
            return FERRULE_OK;
        }
        in = out->data + entry_len;
        in_len = out->lent.len - entry_len;
    }
}

/* Makes rows of what the last step answered to row i with several records: of all of them or, as it is called again when
 * it is to blame, of none. */
static int32_t keep_several(segment *self, uint32_t i, size_t row_len, ending *end) {
    fh_lane *lane = self->lane;
    fh_region *region = &lane->work.region;
    const uint32_t made = add_lines(lane, self->to, row_len, &self->out, fh_origin(lane, i));
    if (made == 0) {
        return FERRULE_SKIP;
    }
    if (made == UINT32_MAX) {
        fh_error_set(&lane->error, NOT_AN_OBJECT);
        return FERRULE_INVALID_DATA;
    }
    if (!fh_lines_valid(self->out.data + row_len, self->out.lent.len - row_len, made)) {
        region->chunk->areas[self->to].rows -= made;
        const fh_row *row = &fh_area_rows(region, self->from)[i];
        end->blamed = blame(lane, self->first, self->last, fh_area_bytes(region, self->from) + row->offset, row->length,
                            self->from == FH_AREA_SOURCE);
        if (end->blamed != FH_SOURCE && end->blamed >= self->first) {
            end->step = end->blamed;           /* called again it may have broken, and is to be made anew */
        }
        fh_error_set(&lane->error, end->blamed == FH_SOURCE ? NO_LINE : NOT_A_LINE);
        return FERRULE_INVALID_DATA;
    }
    lane->work.counts.added += made - 1;
    return FERRULE_OK;
}

/* Makes a row of what the last step answered to row i. */
static inline int32_t keep_answer(segment *self, uint32_t i, size_t row_len) {
    fh_buffer *out = &self->out;
    const size_t length = out->lent.len - row_len;
    if (FH_UNLIKELY(!is_object(out->data + row_len, length))) {
        fh_error_set(&self->lane->error, NOT_AN_OBJECT);
        return FERRULE_INVALID_DATA;
    }
    if (out->lent.len == out->capacity && out->lent.reserve(&out->lent, 1) != FERRULE_OK) {
        return FERRULE_OUT_OF_MEMORY;
    }
    out->data[out->lent.len++] = '\n';
    if (FH_UNLIKELY(self->lane->work.region.retired != NULL)) {
        find_rows(self);
    }
    self->made[self->into->rows++] =
        (fh_row){(uint32_t)row_len, (uint32_t)length, fh_origin(self->lane, i), FERRULE_OK, 0, 1};
    return FERRULE_OK;
}

/* Row i is not to be a row of the next area: it is skipped, a fault, or has another attempt. Returns an event, or -1. */
FH_COLD static int32_t leave_out(fh_lane *lane, uint32_t i, int32_t status, const ending *end, int *ended) {
    lane_step *step = &lane->steps[end->step];
    if (status == FERRULE_SKIP) {
        fh_lane_skipped(lane, step, i);
        return -1;
    }
    if (fh_lane_may_retry(lane, end->step, status, lane->attempt)) {
        lane->row = i;
        if (end->in != lane->held.data) {
            lane->held.lent.len = 0;
            fh_buffer_append(&lane->held, end->in, end->in_len);
        }
        return fh_lane_ask_retry(lane, end->step, status);
    }
    *ended = fh_lane_row_fault(lane, i, end->blamed, status, lane->attempt);
    if (fh_load32(&step->instance->poisoned) && !*ended) {
        lane->event_step = end->step;
        return FH_EVENT_BROKEN;
    }
    return -1;
}

/* Runs steps first..last over the current rows, from lane->row on. Returns an event, or -1 when done. */
static int32_t run_segment(fh_lane *lane, uint32_t first, uint32_t last) {
    fh_flow *flow = lane->flow;
    fh_region *region = &lane->work.region;
    const int32_t from = (int32_t)region->chunk->current, to = fh_next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
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
    int ended = abandoned, again = 0;
    lane->abandoned = 0;
    if (lane->retrying) {
        ended = fh_lane_answer_retry(lane, lane->event_step);
        again = lane->retrying;
        lane->retrying = 0;                    /* a stop may come before its row's turn: the sink has asked nothing */
    }
    segment self = {.lane = lane, .first = first, .last = last, .from = from, .to = to, .valid = 1};
    self.call = fh_lane_call(lane);
    self.several = flow->step_policies[last].answers == FH_SEVERAL;
    fh_area_lend(region, to, &self.out);
    find_rows(&self);
    int32_t event = -1;
    uint32_t i = lane->row, cut = i;           /* the row that ends the flow, if one does */
    const uint32_t behind = ended ? i : rows;  /* how far it goes */
    for (; i < behind && !fh_load32(&flow->stop); i++) {
        const uint8_t *in = self.bytes + self.given[i].offset;
        size_t in_len = self.given[i].length;
        uint32_t s = first;
        if (FH_UNLIKELY(again)) {              /* from the step that failed, with what it was given then */
            again = 0;
            s = lane->event_step;
            in = lane->held.data;
            in_len = lane->held.lent.len;
        }
        see_rows(&self, SEEN_TOGETHER);
        const size_t row_len = self.out.lent.len;
        ending end = {last, last, NULL, 0};
        int32_t status = go_through(&self, s, in, in_len, i % SAMPLE == 0, &end);
        if (FH_LIKELY(status == FERRULE_OK)) {
            status = FH_LIKELY(!self.several) ? keep_answer(&self, i, row_len) : keep_several(&self, i, row_len, &end);
        }
        if (FH_LIKELY(status == FERRULE_OK && lane->attempt == 1 && region->retired == NULL)) {
            continue;
        }
        if (status != FERRULE_OK) {
            self.out.lent.len = row_len;
            event = leave_out(lane, i, status, &end, &ended);
            cut = i;
        }
        if (event < 0 || event == FH_EVENT_BROKEN) {
            lane->attempt = 1;
        }
        fh_region_settle(region);
        find_rows(&self);
        if (ended || event >= 0) {
            i++;                               /* behind this row */
            break;
        }
    }
    fh_area_take(region, &self.out);
    if (event < 0 || event == FH_EVENT_BROKEN) {
        lane->row = i;
    }
    if (event < 0) {
        see_rows(&self, 0);
        if (self.valid || !weed(lane, first, last, to)) {
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

/* Makes rows of the lines that a step answered to rows at..at + many, from where `out` was entry_len long: of all of them,
 * or of none. An empty line leaves its row out. */
static int32_t keep_lines(fh_lane *lane, lane_step *step, int32_t to, uint32_t at, uint32_t many, fh_buffer *out,
                          size_t entry_len) {
    if (out->lent.len > entry_len && out->data[out->lent.len - 1] != '\n') {
        fh_buffer_append(out, "\n", 1);
    }
    if (!fh_lines_valid(out->data + entry_len, out->lent.len - entry_len, many)) {
        fh_error_set(&lane->error, NOT_THE_LINES);
        return FERRULE_INVALID_DATA;
    }
    fh_region *region = &lane->work.region;
    fh_area *into = &region->chunk->areas[to]; /* there is room for as many rows, so it stays where it is */
    fh_row *made = fh_area_rows(region, to);
    const uint32_t before = into->rows;
    size_t where = entry_len, length = entry_len;
    for (uint32_t i = at; i < at + many; i++) {
        uint8_t *line = out->data + where;
        const size_t size = (size_t)((uint8_t *)memchr(line, '\n', out->lent.len - where) - line);
        where += size + 1;
        if (size == 0) {
            continue;
        }
        if (!is_object(line, size)) {
            into->rows = before;
            fh_error_set(&lane->error, NOT_AN_OBJECT);
            return FERRULE_INVALID_DATA;
        }
        memmove(out->data + length, line, size + 1);
        made[into->rows++] = (fh_row){(uint32_t)length, (uint32_t)size, fh_origin(lane, i), FERRULE_OK, 0, 1};
        length += size + 1;
    }
    for (uint32_t i = at, next = before; i < at + many; i++) {     /* only now is it known that all of them hold */
        if (next < into->rows && made[next].origin == fh_origin(lane, i)) {
            next++;
        } else {
            fh_lane_skipped(lane, step, i);
        }
    }
    out->lent.len = length;
    return FERRULE_OK;
}

/* One step that takes a chunk of lines. When the call fails, or its lines do not match, its lines go one by one. */
static int32_t run_lines(fh_lane *lane, uint32_t number) {
    fh_flow *flow = lane->flow;
    const ferrule_call call = fh_lane_call(lane);
    fh_region *region = &lane->work.region;
    lane_step *step = &lane->steps[number];
    const int32_t from = (int32_t)region->chunk->current, to = fh_next_area(region->chunk);
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
        const fh_row *row = &fh_area_rows(region, from)[at], *end = row + many - 1;
        const uint8_t *in = fh_area_bytes(region, from) + row->offset;
        const size_t in_len = (size_t)(end->offset - row->offset) + end->length + 1, entry_len = out.lent.len;
        step->counters.calls += many;
        error->lent.len = 0;
        int64_t began = fh_wall_ns();
        int32_t status = step->call(step->object, step->method, &call, in, in_len, &out.lent, &error->lent);
        sampled(&step->counters, began, many);
        status = fh_settle(&step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), &out, entry_len, error);
        if (status == FERRULE_OK) {
            status = keep_lines(lane, step, to, at, many, &out, entry_len);
        }
        if (status == FERRULE_OK) {
            at += many;
            lane->attempt = 1;
        } else {
            out.lent.len = entry_len;
            if (many == 1) {
                const ending where = {number, number, in, in_len};
                event = leave_out(lane, at, status, &where, &ended);
                if (event < 0 || event == FH_EVENT_BROKEN) {
                    at += !ended;
                    lane->attempt = 1;
                }
            } else if (fh_load32(&step->instance->poisoned)) {
                lane->event_step = number;     /* made anew, and then one by one */
                event = FH_EVENT_BROKEN;
            }
            many = 1;
            lane->broken = event == FH_EVENT_BROKEN;
        }
        fh_region_settle(region);
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


/* lane.c: a flow's happy path. Fill a chunk from the source, run the steps over its rows, drain it into the sink.
 *
 * C decides nothing here: a fault's policy is data, and whatever needs a decision comes back to Python as an
 * event. A lane resumes where it left: phase, step and row are the flow's. Runs of native steps are one segment: a
 * record goes through all of them before the next one starts, through two small buffers that stay in the cache. */
#include "internal.h"

#include <stdio.h>

#define PARK_BYTES ((size_t)1 << 20)
#define PARK_ROWS 4096
#define SLICE_MS 50                            /* the longest a stop waits for a source that sleeps */

typedef struct {
    fh_instance *instance;                     /* NULL: Python's */
    ferrule_instance *object;
    int32_t (*call)(ferrule_instance *, int32_t, const ferrule_call *, const uint8_t *, size_t, ferrule_buffer *,
                    ferrule_buffer *);
    int32_t method, on_error;
    fh_step_counters counters;
} flow_step;

enum { PHASE_FILL, PHASE_RUN, PHASE_DRAIN };

struct fh_flow {
    fh_stream *source;                         /* NULL: Python's */
    fh_instance *sink;                         /* NULL: Python's */
    int32_t source_many, source_on_error, source_ended;
    int32_t sink_method, sink_lines, sink_on_error;
    uint64_t limit;                            /* UINT64_MAX: none */
    size_t fill_bytes;
    int32_t stop, cancelled;

    int32_t phase, fatal, abandoned;
    uint32_t step;                             /* RUN: the next one */
    uint32_t row;                              /* RUN: where a broken segment goes on */
    uint32_t event_step;
    fh_region region;
    fh_buffer error, scratch[2], park, park_bytes;
    uint32_t park_rows;
    int32_t park_taken;
    fh_counters counters;
    uint32_t steps;
    flow_step step_table[];
};

/* ---- setting up -------------------------------------------------------------------------------------- */

fh_flow *fh_flow_new(uint32_t steps, size_t fill_bytes) {
    fh_flow *flow = calloc(1, sizeof *flow + steps * sizeof(flow_step));
    if (flow == NULL) {
        return NULL;
    }
    flow->steps = steps;
    flow->fill_bytes = fill_bytes;
    flow->limit = UINT64_MAX;
    if (fh_region_init(&flow->region, 2 * fill_bytes, 1024) != FERRULE_OK ||
        fh_buffer_init(&flow->error, 4096, 1 << 20) != FERRULE_OK ||
        fh_buffer_init(&flow->scratch[0], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&flow->scratch[1], 4096, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&flow->park, 0, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_buffer_init(&flow->park_bytes, 0, FH_DEFAULT_LIMIT) != FERRULE_OK) {
        fh_flow_free(flow);
        return NULL;
    }
    return flow;
}

void fh_flow_free(fh_flow *flow) {
    if (flow != NULL) {
        fh_region_free(&flow->region);
        fh_buffer_free(&flow->error);
        fh_buffer_free(&flow->scratch[0]);
        fh_buffer_free(&flow->scratch[1]);
        fh_buffer_free(&flow->park);
        fh_buffer_free(&flow->park_bytes);
        free(flow);
    }
}

void fh_flow_source(fh_flow *flow, fh_stream *stream, int32_t many, int32_t on_error) {
    flow->source = stream;
    flow->source_many = many;
    flow->source_on_error = on_error;
}

void fh_flow_step(fh_flow *flow, uint32_t step, fh_instance *instance, int32_t method, int32_t on_error) {
    flow_step *entry = &flow->step_table[step];
    entry->instance = instance;
    entry->object = instance ? instance->object : NULL;
    entry->call = instance ? instance->ops->call : NULL;
    entry->method = method;
    entry->on_error = on_error;
}

void fh_flow_sink(fh_flow *flow, fh_instance *instance, int32_t method, int32_t lines, int32_t on_error) {
    flow->sink = instance;
    flow->sink_method = method;
    flow->sink_lines = lines;
    flow->sink_on_error = on_error;
}

void fh_flow_limit(fh_flow *flow, uint64_t records) { flow->limit = records ? records : UINT64_MAX; }
void fh_flow_stop(fh_flow *flow) { fh_store32(&flow->stop, 1); }
const fh_counters *fh_flow_counters(fh_flow *flow) { return &flow->counters; }
const fh_step_counters *fh_flow_step_counters(fh_flow *flow, uint32_t step) {
    return &flow->step_table[step].counters;
}
uint32_t fh_lane_event_step(fh_flow *flow) { return flow->event_step; }

/* ---- faults ------------------------------------------------------------------------------------------ */

static int32_t policy_of(const fh_flow *flow, uint32_t step) {
    return step == FH_SOURCE ? flow->source_on_error
           : step == FH_SINK ? flow->sink_on_error
                             : flow->step_table[step].on_error;
}

/* Parks a fault: number, bytes of the source's record, error object. Out of memory is fatal by itself. */
static void park(fh_flow *flow, uint64_t record, const uint8_t *bytes, size_t length, uint32_t step, int32_t status,
                 int32_t policy, const uint8_t *error, size_t error_len) {
    fh_parked entry = {record,  fh_wall_ns(), flow->park_bytes.lent.len, (uint32_t)length, (uint32_t)error_len,
                       status,  policy,       step,                      1};
    if (fh_buffer_append(&flow->park_bytes, bytes, length) != FERRULE_OK ||
        fh_buffer_append(&flow->park_bytes, error, error_len) != FERRULE_OK ||
        fh_buffer_append(&flow->park, &entry, sizeof entry) != FERRULE_OK) {
        flow->fatal = 1;
        return;
    }
    flow->park_rows++;
}

/* What the policy says of one record that failed. `fatal`: whatever the policy says. Returns whether it ends the
 * flow: rows before that one go on, rows after it do not. */
static int fault(fh_flow *flow, uint64_t record, const uint8_t *bytes, size_t length, uint32_t step, int32_t status,
                  int fatal, const uint8_t *error, size_t error_len) {
    int32_t policy = fatal ? FH_FAIL : policy_of(flow, step);
    if (step < flow->steps) {
        flow->step_table[step].counters.errors++;
    }
    if (policy == FH_SKIP) {
        flow->counters.skipped++;
        return 0;
    }
    if (policy == FH_DEAD_LETTER) {
        flow->counters.dead++;
    } else {
        flow->counters.failed++;
        flow->fatal = 1;
    }
    park(flow, record, bytes, length, step, status, policy, error, error_len);
    return policy == FH_FAIL;
}

/* The same for a row: the record is the source's, not what earlier steps made of it. */
static int row_fault(fh_flow *flow, const fh_row *row, uint32_t step, int32_t status, const fh_buffer *error) {
    const fh_chunk *chunk = flow->region.chunk;
    const fh_row *source = chunk->current == FH_AREA_SOURCE ? row : &fh_area_rows(&flow->region, FH_AREA_SOURCE)[row->origin];
    return fault(flow, chunk->first_record + source->origin + 1,
                 fh_area_bytes(&flow->region, FH_AREA_SOURCE) + source->offset, source->length, step, status, 0,
                 error->data, error->lent.len);
}

static uint32_t origin_of(const fh_flow *flow, uint32_t row) {
    const fh_row *rows = fh_area_rows(&flow->region, (int32_t)flow->region.chunk->current);
    return flow->region.chunk->current == FH_AREA_SOURCE ? row : rows[row].origin;
}

/* ---- fill -------------------------------------------------------------------------------------------- */

/* A fault of the source as such, not of one item: nothing more can be read. */
static void source_fault(fh_flow *flow, int32_t status) {
    const fh_chunk *chunk = flow->region.chunk;
    fault(flow, chunk->first_record + chunk->items + 1, NULL, 0, FH_SOURCE, status, 1, flow->error.data,
          flow->error.lent.len);
}

static void fill(fh_flow *flow) {
    fh_chunk *chunk;
    uint64_t left = flow->limit - flow->counters.read;
    while (!fh_load32(&flow->stop) && !flow->fatal) {
        int32_t status = fh_stream_enter(flow->source, &flow->error);
        if (status == FERRULE_OK) {
            status = fh_fill(&flow->region, flow->source, flow->source_many, flow->fill_bytes, left, SLICE_MS,
                             &flow->stop, &flow->error);
            fh_stream_leave(flow->source);
        }
        chunk = flow->region.chunk;
        if (status == FERRULE_OK) {
            break;
        }
        if (status == FERRULE_END) {
            flow->source_ended = 1;
            break;
        }
        if (status == FERRULE_INVALID_DATA) {
            fault(flow, chunk->first_record + chunk->items, NULL, 0, FH_SOURCE, status, 0, flow->error.data,
                  flow->error.lent.len);
        } else if (status != FERRULE_PENDING && status != FERRULE_TIMEOUT) {
            source_fault(flow, status);
        } else if (chunk->items) {
            break;                             /* a slow source is not held back */
        } else if (status == FERRULE_PENDING) {
            fh_waiter_wait(&flow->source->waiter, SLICE_MS);
        }
    }
    chunk = flow->region.chunk;
    flow->counters.read += chunk->items;
}

/* ---- run --------------------------------------------------------------------------------------------- */

static int is_object(const uint8_t *bytes, size_t length) {
    return FH_LIKELY(length >= 2 && bytes[0] == '{' && bytes[length - 1] == '}');
}

static int32_t next_area(const fh_chunk *chunk) {
    return chunk->current == FH_AREA_A ? FH_AREA_B : FH_AREA_A;
}

static const char *const NOT_AN_OBJECT = "the plugin answered with something that is no JSON object ({...}) of one line";
static const char *const NO_LINE = "the record is not one line of UTF-8";
static const char *const NOT_A_LINE = "the plugin answered with bytes that are not one line of UTF-8";

/* Which step of a segment spoilt a record: the source's bytes are checked, then each step is called again. The
 * steps' instances are entered, or nobody else's. */
static uint32_t blame(fh_flow *flow, uint32_t first, uint32_t last, const uint8_t *in, size_t in_len, int from_source) {
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    if (!fh_lines_valid(in, in_len, 0)) {
        return from_source || first == 0 ? FH_SOURCE : first - 1;
    }
    for (uint32_t s = first; s < last; s++) {
        flow_step *step = &flow->step_table[s];
        fh_buffer *out = &flow->scratch[s & 1];
        if (fh_load32(&step->instance->poisoned)) {
            return s;                          /* it broke just now, over such a row: it is not called again */
        }
        out->lent.len = flow->error.lent.len = 0;
        int32_t status = step->call(step->object, step->method, &call, in, in_len, &out->lent, &flow->error.lent);
        status = fh_settle(step->instance, &step->instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0,
                           &flow->error);
        if (status != FERRULE_OK || !fh_lines_valid(out->data, out->lent.len, 0)) {
            return s;
        }
        in = out->data;
        in_len = out->lent.len;
    }
    return last;
}

/* Takes the rows that are not one line of UTF-8 out of the area that is to become the current one. */
static void weed(fh_flow *flow, uint32_t first, uint32_t last, int32_t area) {
    fh_region *region = &flow->region;
    fh_area *into = &region->chunk->areas[area];
    const fh_area *from = &region->chunk->areas[region->chunk->current];
    uint8_t *bytes = fh_area_bytes(region, area);
    fh_row *rows = fh_area_rows(region, area);
    int in_place = area == (int32_t)region->chunk->current;    /* a flow without steps: the source's own rows */
    uint64_t length = 0;
    uint32_t kept = 0, at = 0;
    for (uint32_t i = 0; i < into->rows; i++) {
        fh_row row = rows[i];
        if (fh_lines_valid(bytes + row.offset, row.length, 0)) {
            memmove(bytes + length, bytes + row.offset, (size_t)row.length + 1);
            row.offset = (uint32_t)length;
            length += (uint64_t)row.length + 1;
            rows[kept++] = row;
            continue;
        }
        uint32_t step = FH_SOURCE;
        fh_row source = row;
        if (!in_place) {
            const fh_row *in = fh_area_rows(region, (int32_t)region->chunk->current);
            while (at < from->rows && origin_of(flow, at) != row.origin) {
                at++;
            }
            source = in[at];
            step = blame(flow, first, last, fh_area_bytes(region, (int32_t)region->chunk->current) + source.offset,
                         source.length, region->chunk->current == FH_AREA_SOURCE);
        }
        fh_error_set(&flow->error, step == FH_SOURCE ? NO_LINE : NOT_A_LINE);
        if (row_fault(flow, &source, step, FERRULE_INVALID_DATA, &flow->error)) {
            flow->counters.read -= into->rows - i - 1;
            break;
        }
    }
    into->rows = kept;
    into->length = length;
}

/* Before rows as they came from the source are split into lines, by a sink or by Python. A native step gets them
 * unseen: what it makes of a bad one is checked after it. */
static void check_source_rows(fh_flow *flow) {
    const fh_area *source = &flow->region.chunk->areas[FH_AREA_SOURCE];
    if (flow->region.chunk->current == FH_AREA_SOURCE &&
        !fh_lines_valid(fh_area_bytes(&flow->region, FH_AREA_SOURCE), (size_t)source->length, source->rows)) {
        weed(flow, 0, 0, FH_AREA_SOURCE);
    }
}

/* Runs steps first..last over the current rows, from flow->row on. 0: done; 1: an instance is broken
 * (flow->event_step), and flow->row says where to go on. */
static int run_segment(fh_flow *flow, uint32_t first, uint32_t last) {
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_region *region = &flow->region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = next_area(region->chunk);
    const uint32_t rows = region->chunk->areas[from].rows;
    fh_buffer *error = &flow->error;
    fh_buffer area_out;
    const int abandoned = flow->abandoned;     /* its rows are lost, those before them are not */
    int broken = 0, ended = abandoned;

    for (uint32_t s = first; s <= last && !abandoned; s++) {
        if (fh_instance_enter(flow->step_table[s].instance, error) != FERRULE_OK) {
            while (s-- > first) {
                fh_instance_leave(flow->step_table[s].instance);
            }
            for (s = first; s < last && !fh_load32(&flow->step_table[s].instance->poisoned) &&
                            !fh_load32(&flow->step_table[s].instance->closing);) {
                s++;
            }
            flow->event_step = s;
            return 1;
        }
    }
    if (fh_area_reserve_rows(region, to, rows, NULL) != FERRULE_OK) {
        fh_error_set(error, "no memory for a chunk's rows");
        ended = fault(flow, region->chunk->first_record + 1, NULL, 0, first, FERRULE_OUT_OF_MEMORY, 1, error->data,
                      error->lent.len);
    }
    fh_area_lend(region, to, &area_out);
    uint32_t i = flow->row;
    error->lent.len = 0;
    for (; i < rows && !ended && !broken && !fh_load32(&flow->stop); i++) {
        const fh_row *row = &fh_area_rows(region, from)[i];
        const uint8_t *in = fh_area_bytes(region, from) + row->offset;
        size_t in_len = row->length;
        const size_t row_len = area_out.lent.len;
        for (uint32_t s = first;; s++) {
            flow_step *step = &flow->step_table[s];
            fh_buffer *out = &area_out;
            uint32_t blamed = s;               /* the one before it, if that gave it what no step can take */
            if (s != last) {
                out = &flow->scratch[s & 1];
                out->lent.len = 0;
            }
            const size_t entry_len = out->lent.len;
            step->counters.calls++;
            int32_t status =
                step->call(step->object, step->method, &call, in, in_len, &out->lent, &error->lent);
            if (FH_LIKELY(status == FERRULE_OK && fh_buffer_intact(out, entry_len) && fh_buffer_intact(error, 0))) {
                in = out->data + entry_len;
                in_len = out->lent.len - entry_len;
                error->lent.len = 0;
                if (FH_UNLIKELY(!is_object(in, in_len))) {
                    status = FERRULE_INVALID_DATA;
                    fh_error_set(error, NOT_AN_OBJECT);
                } else if (s != last) {
                    continue;
                } else if (out->lent.len < out->capacity || out->lent.reserve(&out->lent, 1) == FERRULE_OK) {
                    out->data[out->lent.len++] = '\n';
                    fh_area *into = &region->chunk->areas[to];
                    fh_area_rows(region, to)[into->rows++] = (fh_row){(uint32_t)row_len, (uint32_t)in_len, origin_of(flow, i), FERRULE_OK, 0, 0};
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
                step->counters.skipped++;
                flow->counters.skipped++;
            } else {
                fh_region_settle(region);      /* the row below is looked up anew */
                ended = row_fault(flow, &fh_area_rows(region, from)[i], blamed, status, error);
                if (fh_load32(&step->instance->poisoned)) {
                    broken = 1;
                    flow->event_step = s;
                }
            }
            error->lent.len = 0;
            break;
        }
        if (FH_UNLIKELY(region->retired != NULL)) {
            fh_region_settle(region);
        }
    }
    fh_area_take(region, &area_out);
    flow->row = i;
    if (i < rows && (ended || !broken)) {                 /* stopped, or fatal: what was not processed was not read */
        flow->counters.read -= rows - i;
    }
    if (!broken || ended) {
        const fh_area *made = &region->chunk->areas[to];
        if (!fh_lines_valid(fh_area_bytes(region, to), (size_t)made->length, made->rows)) {
            weed(flow, first, last, to);
        }
    }
    for (uint32_t s = first; s <= last && !abandoned; s++) {
        fh_instance_leave(flow->step_table[s].instance);
    }
    flow->abandoned = 0;
    if (broken && !ended) {
        return 1;
    }
    fh_area *used = &region->chunk->areas[from];
    region->chunk->current = (uint32_t)to;
    if (from != FH_AREA_SOURCE) {              /* the source's rows stay: a dead letter holds them */
        used->rows = 0;
        used->length = 0;
    }
    flow->row = 0;
    return 0;
}

/* ---- drain ------------------------------------------------------------------------------------------- */

static int32_t sink_write(fh_flow *flow, const uint8_t *bytes, size_t length) {
    const ferrule_call call = {sizeof call, 0, 0, &flow->cancelled, -1, NULL, 0, NULL};
    fh_buffer *out = &flow->scratch[0];
    out->lent.len = flow->error.lent.len = 0;
    int32_t status = flow->sink->ops->call(flow->sink->object, flow->sink_method, &call, bytes, length, &out->lent,
                                           &flow->error.lent);
    return fh_settle(flow->sink, &flow->sink->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, 0, &flow->error);
}

/* A write is all or nothing, so after a failed one the rows go one by one, unless the whole write's failure is what
 * the flow is to end with. */
static void drain(fh_flow *flow) {
    fh_region *region = &flow->region;
    const fh_area *area = &region->chunk->areas[region->chunk->current];
    const uint8_t *bytes = fh_area_bytes(region, (int32_t)region->chunk->current);
    const fh_row *rows = fh_area_rows(region, (int32_t)region->chunk->current);
    if (area->rows == 0) {
        return;
    }
    int32_t status = fh_instance_enter(flow->sink, &flow->error);
    if (status != FERRULE_OK) {
        fault(flow, region->chunk->first_record + 1, NULL, 0, FH_SINK, status, 1, flow->error.data,
              flow->error.lent.len);
        return;
    }
    status = flow->sink_lines ? sink_write(flow, bytes, (size_t)area->length) : FERRULE_INVALID_DATA;
    if (status == FERRULE_OK) {
        flow->counters.written += area->rows;
    } else if (status == FERRULE_SKIP) {
        flow->counters.skipped += area->rows;
    } else if (status != FERRULE_INVALID_DATA &&
               (flow->sink_on_error == FH_FAIL || fh_load32(&flow->sink->poisoned))) {
        const fh_row *source = &fh_area_rows(region, FH_AREA_SOURCE)[origin_of(flow, 0)];
        fault(flow, region->chunk->first_record + source->origin + 1, NULL, 0, FH_SINK, status, 1, flow->error.data,
              flow->error.lent.len);
    } else {
        for (uint32_t i = 0; i < area->rows; i++) {
            status = sink_write(flow, bytes + rows[i].offset, (size_t)rows[i].length + (flow->sink_lines ? 1 : 0));
            if (status == FERRULE_OK) {
                flow->counters.written++;
                continue;
            }
            if (status == FERRULE_SKIP) {
                flow->counters.skipped++;
                continue;
            }
            int ended = row_fault(flow, &rows[i], FH_SINK, status, &flow->error);
            if (fh_load32(&flow->sink->poisoned)) {
                flow->fatal = ended = 1;       /* a sink made anew would begin its output anew */
            }
            if (ended) {
                flow->counters.read -= area->rows - i - 1;
                break;
            }
        }
    }
    fh_instance_leave(flow->sink);
}

/* ---- the lane ---------------------------------------------------------------------------------------- */

int32_t fh_lane_run(fh_flow *flow) {
    if (flow->park_taken) {
        flow->park.lent.len = flow->park_bytes.lent.len = 0;
        flow->park_rows = 0;
        flow->park_taken = 0;
    }
    for (;;) {
        const fh_chunk *chunk = flow->region.chunk;
        switch (flow->phase) {
        case PHASE_FILL:
            if (flow->fatal) {
                return FH_EVENT_FAILED;
            }
            if (flow->source_ended || flow->counters.read >= flow->limit) {
                return FH_EVENT_END;
            }
            if (fh_load32(&flow->stop)) {
                return FH_EVENT_STOPPED;
            }
            if (flow->park_bytes.lent.len >= PARK_BYTES || flow->park_rows >= PARK_ROWS) {
                return FH_EVENT_PARKED;
            }
            flow->region.chunk->first_record += chunk->items;
            fh_region_reset(&flow->region);
            flow->step = 0;
            flow->row = 0;
            if (flow->source == NULL) {
                return FH_EVENT_SOURCE;
            }
            fill(flow);
            flow->phase = PHASE_RUN;
            break;
        case PHASE_RUN:
            if (flow->step == flow->steps || chunk->areas[chunk->current].rows == 0) {
                flow->phase = PHASE_DRAIN;
                break;
            }
            if (flow->step_table[flow->step].instance == NULL) {
                check_source_rows(flow);
                flow->event_step = flow->step;
                return FH_EVENT_STEP;
            }
            uint32_t last = flow->step;
            while (last + 1 < flow->steps && flow->step_table[last + 1].instance != NULL) {
                last++;
            }
            if (run_segment(flow, flow->step, last)) {
                return FH_EVENT_BROKEN;
            }
            flow->step = last + 1;
            break;
        default:
            check_source_rows(flow);
            if (flow->sink == NULL && chunk->areas[chunk->current].rows) {
                return FH_EVENT_SINK;
            }
            if (flow->sink != NULL) {
                drain(flow);
            }
            flow->phase = PHASE_FILL;
        }
    }
}

const fh_parked *fh_flow_parked(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length) {
    *rows = flow->park_rows;
    *bytes = flow->park_bytes.data;
    *length = flow->park_bytes.lent.len;
    flow->park_taken = 1;
    return (const fh_parked *)flow->park.data;
}

const uint8_t *fh_lane_rows(fh_flow *flow, size_t *length, uint32_t *rows) {
    const fh_chunk *chunk = flow->region.chunk;
    *length = (size_t)chunk->areas[chunk->current].length;
    *rows = chunk->areas[chunk->current].rows;
    return fh_area_bytes(&flow->region, (int32_t)chunk->current);
}

/* ---- Python's answers -------------------------------------------------------------------------------- */

/* Appends answers to an area, whose origins are asked of the current rows, or counted for the source. */
static int32_t add_answers(fh_flow *flow, int32_t area, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &flow->region;
    fh_buffer out;
    int32_t status = fh_area_reserve_rows(region, area, rows, NULL);
    fh_area_lend(region, area, &out);
    for (uint32_t i = 0; i < rows && status == FERRULE_OK; i++) {
        if (lengths[i] == FH_NONE) {
            continue;
        }
        size_t at = out.lent.len;
        status = fh_buffer_append(&out, bytes, lengths[i]);
        if (status == FERRULE_OK) {
            status = fh_buffer_append(&out, "\n", 1);
        }
        if (status == FERRULE_OK) {
            fh_area *into = &region->chunk->areas[area];
            uint32_t origin = area == FH_AREA_SOURCE ? i : origin_of(flow, i);
            fh_area_rows(region, area)[into->rows++] = (fh_row){(uint32_t)at, lengths[i], origin, FERRULE_OK, 0, 0};
        }
        bytes += lengths[i];
    }
    fh_area_take(region, &out);
    fh_region_settle(region);
    return status;
}

int32_t fh_lane_filled(fh_flow *flow, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows, int32_t ended) {
    int32_t status = add_answers(flow, FH_AREA_SOURCE, bytes, lengths, rows);
    flow->region.chunk->items = rows;
    flow->counters.read += rows;
    flow->source_ended = ended;
    flow->phase = PHASE_RUN;
    return status;
}

int32_t fh_lane_stepped(fh_flow *flow, const uint8_t *bytes, const uint32_t *lengths, uint32_t rows) {
    fh_region *region = &flow->region;
    const int32_t from = (int32_t)region->chunk->current;
    const int32_t to = next_area(region->chunk);
    flow_step *step = &flow->step_table[flow->step];
    int32_t status = add_answers(flow, to, bytes, lengths, rows);
    const fh_row *were = fh_area_rows(region, from);
    for (uint32_t i = 0; i < rows; i++) {
        step->counters.calls++;
        if (lengths[i] == FH_NONE && were[i].status == FERRULE_OK) {
            step->counters.skipped++;
            flow->counters.skipped++;
        }
    }
    flow->counters.read -= region->chunk->areas[from].rows - rows;  /* those after a fatal one: not processed */
    region->chunk->current = (uint32_t)to;
    if (from != FH_AREA_SOURCE) {
        region->chunk->areas[from].rows = 0;
        region->chunk->areas[from].length = 0;
    }
    flow->step++;
    return status;
}

void fh_lane_drained(fh_flow *flow, uint32_t rows) {
    const fh_chunk *chunk = flow->region.chunk;
    const fh_row *were = fh_area_rows(&flow->region, (int32_t)chunk->current);
    for (uint32_t i = 0; i < rows; i++) {
        flow->counters.written += were[i].status == FERRULE_OK;
    }
    flow->counters.read -= chunk->areas[chunk->current].rows - rows;
    flow->phase = PHASE_FILL;
}

void fh_lane_abandon(fh_flow *flow, int32_t status, const uint8_t *error, size_t error_len) {
    const fh_chunk *chunk = flow->region.chunk;
    uint64_t record = chunk->first_record + chunk->items + 1;    /* the next one, if none of this chunk is left */
    if (flow->row < chunk->areas[chunk->current].rows) {
        const fh_row *source = &fh_area_rows(&flow->region, FH_AREA_SOURCE)[origin_of(flow, flow->row)];
        record = chunk->first_record + source->origin + 1;
    }
    fault(flow, record, NULL, 0, flow->event_step, status, 1, error, error_len);
    flow->abandoned = 1;
}

int32_t fh_lane_reject(fh_flow *flow, uint32_t row, uint32_t step, int32_t status, int32_t fatal, const uint8_t *error,
                       size_t error_len) {
    const fh_chunk *chunk = flow->region.chunk;
    if (step == FH_SOURCE) {
        return fault(flow, chunk->first_record + row + 1, NULL, 0, step, status, fatal, error, error_len);
    }
    fh_row *rejected = &fh_area_rows(&flow->region, (int32_t)chunk->current)[row];
    const fh_row *source = &fh_area_rows(&flow->region, FH_AREA_SOURCE)[origin_of(flow, row)];
    rejected->status = status;
    return fault(flow, chunk->first_record + source->origin + 1,
                 fh_area_bytes(&flow->region, FH_AREA_SOURCE) + source->offset, source->length, step, status, fatal,
                 error, error_len);
}

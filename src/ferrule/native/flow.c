/* flow.c: what the lanes of a flow share. Two gates, the source's and the sink's; between them a chunk is its lane's
 * alone. In order, the sink's gate opens to chunks by their numbers; one that comes too early is left on a shelf, to the
 * lane that drains the one before it. A gate may be held across an event, so it is a flag behind a mutex and not a mutex.
 * Rows that failed lie in a park; when it is full it is handed over, and lanes go on with another one. */
#include "internal.h"

#define PARK_BYTES ((size_t)1 << 20)
#define PARK_ROWS 2048
#define QUICK_MS 32                            /* a full shelf that is drained within it is no burden */
#define SHELVED_BEHIND 2                       /* as many may lie on the shelf while a chunk is drained */

/* ---- parcels ------------------------------------------------------------------------------------------ */

int32_t fh_parcel_init(fh_parcel *parcel) {
    memset(parcel, 0, sizeof *parcel);
    fh_buffer_init(&parcel->entries, 0, FH_DEFAULT_LIMIT);
    return fh_buffer_init(&parcel->bytes, 256, FH_DEFAULT_LIMIT);    /* never NULL: offsets are added to it */
}

void fh_parcel_free(fh_parcel *parcel) {
    fh_buffer_free(&parcel->entries);
    fh_buffer_free(&parcel->bytes);
}

void fh_parcel_clear(fh_parcel *parcel) {
    parcel->entries.lent.len = parcel->bytes.lent.len = 0;
    parcel->rows = 0;
    parcel->taken = 0;
}

int32_t fh_parcel_add(fh_parcel *parcel, const fh_parked *entry, const uint8_t *record, const uint8_t *error) {
    fh_parked placed = *entry;
    placed.offset = parcel->bytes.lent.len;
    if (fh_buffer_append(&parcel->bytes, record, entry->record_len) != FERRULE_OK ||
        fh_buffer_append(&parcel->bytes, error, entry->error_len) != FERRULE_OK ||
        fh_buffer_append(&parcel->entries, &placed, sizeof placed) != FERRULE_OK) {
        return FERRULE_OUT_OF_MEMORY;
    }
    parcel->rows++;
    return FERRULE_OK;
}

int32_t fh_parcel_move(fh_parcel *to, fh_parcel *from) {
    const fh_parked *entries = (const fh_parked *)from->entries.data;
    int32_t status = FERRULE_OK;
    for (uint32_t i = 0; i < from->rows && status == FERRULE_OK; i++) {
        const uint8_t *record = from->bytes.data + entries[i].offset;
        status = fh_parcel_add(to, &entries[i], record, record + entries[i].record_len);
    }
    fh_parcel_clear(from);
    return status;
}

static const fh_parked *parcel_take(fh_parcel *parcel, uint32_t *rows, const uint8_t **bytes, size_t *length) {
    if (parcel->taken) {
        fh_parcel_clear(parcel);
    }
    *rows = parcel->rows;
    *bytes = parcel->bytes.data;
    *length = parcel->bytes.lent.len;
    parcel->taken = 1;
    return (const fh_parked *)parcel->entries.data;
}

/* ---- chunks on their way ------------------------------------------------------------------------------ */

int32_t fh_work_init(fh_work *work, size_t fill_bytes) {
    memset(work, 0, sizeof *work);
    if (fh_region_init(&work->region, 2 * fill_bytes, 1024) != FERRULE_OK ||
        fh_buffer_init(&work->position, 256, FH_DEFAULT_LIMIT) != FERRULE_OK ||
        fh_parcel_init(&work->faults) != FERRULE_OK || fh_parcel_init(&work->left) != FERRULE_OK) {
        fh_work_free(work);
        return FERRULE_OUT_OF_MEMORY;
    }
    return FERRULE_OK;
}

void fh_work_free(fh_work *work) {
    fh_region_free(&work->region);
    fh_buffer_free(&work->position);
    fh_parcel_free(&work->faults);
    fh_parcel_free(&work->left);
}

void fh_work_trim(fh_work *work) {
    if (work->region.chunk->size + work->faults.bytes.capacity + work->left.bytes.capacity > FH_KEPT_MOST) {
        fh_work_free(work);
    }
}

/* ---- setting up --------------------------------------------------------------------------------------- */

fh_flow *fh_flow_new(uint32_t steps, size_t fill_bytes, int32_t in_order) {
    fh_flow *flow = calloc(1, sizeof *flow + steps * sizeof(fh_policy));
    if (flow == NULL) {
        return NULL;
    }
    flow->steps = steps;
    flow->fill_bytes = fill_bytes;
    flow->in_order = in_order;
    flow->room = UINT64_MAX;
    flow->checkpointed_ms = fh_monotonic_ms();
    fh_mutex_init(&flow->mutex);
    fh_condition_init(&flow->changed);
    fh_condition_init(&flow->handing);
    flow->park_rows = PARK_ROWS;
    flow->sink_rows = FH_FIRST_ROWS;
    fh_parcel_init(&flow->park);
    fh_parcel_init(&flow->handed);
    fh_parcel_init(&flow->left);
    fh_parcel_init(&flow->waiting);
    fh_buffer_init(&flow->position, 0, FH_DEFAULT_LIMIT);
    return flow;
}

void fh_flow_free(fh_flow *flow) {
    if (flow != NULL) {
        fh_parcel_free(&flow->park);
        fh_parcel_free(&flow->handed);
        fh_parcel_free(&flow->left);
        fh_parcel_free(&flow->waiting);
        fh_buffer_free(&flow->position);
        for (uint32_t i = 0; i < FH_SHELF; i++) {
            fh_work_free(&flow->shelf[i]);
        }
        fh_mutex_free(&flow->mutex);
        fh_condition_free(&flow->changed);
        fh_condition_free(&flow->handing);
        free(flow);
    }
}

void fh_flow_source(fh_flow *flow, fh_stream *stream, int32_t many, int32_t on_error, uint32_t retries) {
    flow->source = stream;
    flow->source_many = many;
    flow->source_policy = (fh_policy){on_error, FH_ONE, retries};
}

void fh_flow_sink(fh_flow *flow, fh_instance *instance, int32_t method, int32_t lines, int32_t on_error,
                  uint32_t retries) {
    flow->sink = instance;
    flow->sink_method = method;
    flow->sink_lines = lines;
    flow->sink_policy = (fh_policy){on_error, FH_ONE, retries};
    flow->sink_rows = lines ? FH_MOST_ROWS : FH_FIRST_ROWS;    /* a write of lines may cost the same for fewer */
}

void fh_flow_step(fh_flow *flow, uint32_t step, int32_t on_error, uint32_t retries, int32_t answers) {
    flow->step_policies[step] = (fh_policy){on_error, answers, retries};
}

void fh_flow_limit(fh_flow *flow, uint64_t records) { flow->room = records ? records : UINT64_MAX; }
uint64_t fh_flow_room(fh_flow *flow) { return flow->room; }
void fh_flow_checkpoints(fh_flow *flow, int64_t every_ms) { flow->checkpoint_ms = every_ms; }
const fh_counters *fh_flow_counters(fh_flow *flow) { return &flow->counters; }

void fh_flow_begin_at(fh_flow *flow, uint64_t records) {
    flow->taken = flow->position_records = records;
    flow->counters.read = 0;
}

int32_t fh_flow_waiting(fh_flow *flow, const fh_parked *row, const uint8_t *record, const uint8_t *error) {
    flow->waiting.entries.limit = flow->waiting.bytes.limit = SIZE_MAX / 4;    /* a replay may bring any number */
    return fh_parcel_add(&flow->waiting, row, record, error);
}

uint32_t fh_flow_waiting_begun(fh_flow *flow) { return flow->waiting_next; }

/* ---- gates --------------------------------------------------------------------------------------------- */

int fh_flow_take_source(fh_flow *flow) {
    int open = 0;
    fh_mutex_lock(&flow->mutex);
    while (flow->filling && !fh_load32(&flow->source_ended) && !fh_load32(&flow->ending) && !fh_load32(&flow->aborted)) {
        fh_condition_wait(&flow->changed, &flow->mutex, -1);
    }
    if (!flow->filling && !fh_load32(&flow->source_ended) && !fh_load32(&flow->ending) && !fh_load32(&flow->aborted)) {
        flow->filling = open = 1;
    }
    fh_mutex_unlock(&flow->mutex);
    return open;
}

void fh_flow_give_source(fh_flow *flow, int32_t filled, uint64_t *number) {
    fh_mutex_lock(&flow->mutex);
    flow->filling = 0;
    if (filled) {
        *number = flow->filled++;
        flow->in_flight++;
    }
    fh_condition_wake(&flow->changed);
    fh_mutex_unlock(&flow->mutex);
}

/* Holding the mutex: waits until what was handed over is dealt with, and answers whether it is. Not once the flow has
 * failed: perhaps nobody takes that failure before every lane has ended. */
static int wait_handed(fh_flow *flow) {
    while (flow->handed.rows && !fh_load32(&flow->fatal) && !fh_load32(&flow->aborted)) {
        fh_condition_wait(&flow->changed, &flow->mutex, -1);
    }
    return flow->handed.rows == 0;
}

/* Holding the mutex, and what guards the park; nothing is handed over already. */
static void hand_over(fh_flow *flow) {
    const fh_parcel empty = flow->handed;
    flow->handed = flow->park;
    flow->park = empty;
    fh_condition_wake(&flow->handing);
}

void fh_flow_pass_park(fh_flow *flow) {
    if (flow->park.bytes.lent.len >= PARK_BYTES || flow->park.rows >= flow->park_rows) {
        fh_mutex_lock(&flow->mutex);
        if (wait_handed(flow)) {
            hand_over(flow);
        }
        fh_mutex_unlock(&flow->mutex);
    }
}

int fh_flow_wait_idle(fh_flow *flow) {
    fh_mutex_lock(&flow->mutex);
    while (flow->in_flight && !fh_load32(&flow->aborted)) {
        fh_condition_wait(&flow->changed, &flow->mutex, -1);
    }
    if (wait_handed(flow) && flow->park.rows) {
        hand_over(flow);
        wait_handed(flow);
    }
    fh_mutex_unlock(&flow->mutex);
    return !fh_load32(&flow->aborted);
}

static fh_work *shelf_of(fh_flow *flow, uint64_t number) { return &flow->shelf[number % FH_SHELF]; }

static void exchange(fh_work *one, fh_work *other) {
    const fh_work held = *one;
    *one = *other;
    *other = held;
}

/* Holding the mutex: whether work may wait on the shelf. Behind a slow sink that would only fill up, and each checkpoint
 * wait for it: so a whole shelf is drained at once, or sooner than the steps run over one chunk. */
static int fits_shelf(const fh_flow *flow, const fh_work *work) {
    const int64_t shelf_ms = flow->drained_in * FH_SHELF;
    const uint32_t room = flow->draining ? SHELVED_BEHIND : FH_SHELF;
    return flow->in_order && flow->drained != work->number && work->number - flow->drained <= FH_SHELF &&
           flow->shelved < room && (shelf_ms <= QUICK_MS || shelf_ms <= work->run_ms);
}

int fh_flow_take_sink(fh_flow *flow, fh_work *work) {
    int taken = -1;
    fh_mutex_lock(&flow->mutex);
    while (!fh_load32(&flow->aborted)) {
        if (!flow->draining && (!flow->in_order || flow->drained == work->number)) {
            flow->draining = taken = 1;
            flow->draining_ms = fh_monotonic_ms();
            break;
        }
        if (fits_shelf(flow, work)) {
            work->ready = 1;
            flow->shelved++;
            exchange(work, shelf_of(flow, work->number));
            taken = 0;
            break;
        }
        fh_condition_wait(&flow->changed, &flow->mutex, -1);
    }
    fh_mutex_unlock(&flow->mutex);
    return taken;
}

int fh_flow_give_sink(fh_flow *flow, fh_work *work) {
    fh_mutex_lock(&flow->mutex);
    fh_work *next = shelf_of(flow, fh_add64(&flow->drained, 1) + 1);
    const int found = flow->in_order && next->ready && !fh_load32(&flow->aborted);
    flow->draining = found;
    flow->in_flight--;
    const int64_t now = fh_monotonic_ms();
    flow->drained_in = now - flow->draining_ms;
    work->ready = 0;
    if (found) {
        flow->draining_ms = now;
        flow->shelved--;
        exchange(work, next);
    }
    fh_condition_wake(&flow->changed);
    fh_mutex_unlock(&flow->mutex);
    return found;
}

void fh_flow_end_reading(fh_flow *flow, int32_t fatal) {
    fh_mutex_lock(&flow->mutex);
    fh_store32(&flow->ending, 1);
    if (fatal) {
        fh_store32(&flow->fatal, 1);
    }
    fh_condition_wake(&flow->changed);
    fh_mutex_unlock(&flow->mutex);
}

void fh_flow_stop(fh_flow *flow) {
    fh_store32(&flow->stop, 1);
    fh_flow_end_reading(flow, 0);
}

void fh_flow_abort(fh_flow *flow) {
    fh_mutex_lock(&flow->mutex);
    fh_store32(&flow->aborted, 1);
    fh_store32(&flow->stop, 1);
    fh_store32(&flow->ending, 1);
    fh_condition_wake(&flow->changed);
    fh_condition_wake(&flow->handing);
    fh_mutex_unlock(&flow->mutex);
}

int32_t fh_flow_stopping(fh_flow *flow) {
    return fh_load32(&flow->aborted) ? 3 : fh_load32(&flow->fatal) ? 2 : fh_load32(&flow->stop) ? 1 : 0;
}

/* ---- what Python takes --------------------------------------------------------------------------------- */

const fh_parked *fh_flow_parked(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length) {
    fh_mutex_lock(&flow->mutex);
    if (flow->handed.taken) {
        fh_parcel_clear(&flow->handed);
        fh_condition_wake(&flow->changed);
    }
    while (flow->handed.rows == 0 && !flow->all_parked && !fh_load32(&flow->aborted)) {
        fh_condition_wait(&flow->handing, &flow->mutex, -1);
    }
    if (flow->handed.rows == 0 && flow->all_parked) {
        hand_over(flow);
    }
    const fh_parked *entries = parcel_take(&flow->handed, rows, bytes, length);
    fh_mutex_unlock(&flow->mutex);
    return entries;
}

void fh_flow_all_parked(fh_flow *flow) {
    fh_mutex_lock(&flow->mutex);
    flow->all_parked = 1;
    fh_condition_wake(&flow->handing);
    fh_mutex_unlock(&flow->mutex);
}

const fh_parked *fh_flow_left(fh_flow *flow, uint32_t *rows, const uint8_t **bytes, size_t *length) {
    return parcel_take(&flow->left, rows, bytes, length);
}

const uint8_t *fh_flow_position(fh_flow *flow, size_t *length, uint64_t *records) {
    *length = flow->position.lent.len;
    *records = flow->position_records;
    return flow->position.data;
}

void fh_flow_settled(fh_flow *flow, uint64_t written, uint64_t skipped, uint64_t dead) {
    fh_mutex_lock(&flow->mutex);               /* retrying threads and the draining lane both count */
    flow->counters.taken -= written + skipped + dead;
    flow->counters.written += written;
    flow->counters.skipped += skipped;
    flow->counters.dead += dead;
    fh_mutex_unlock(&flow->mutex);
}

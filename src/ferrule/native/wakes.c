/* wakes.c: a sticky bit for each side of a stream, found by the stream's id; never an entry of a queue that may be full.
 *
 * One mutex guards the table and who is in it; under it a loop's own mutex may be taken, and nothing else. */
#include "internal.h"

static fh_mutex table_mutex = FH_MUTEX_INIT;
static fh_waiter *first_buckets[64];
static fh_waiter **buckets = first_buckets;
static uint64_t bucket_count = 64, waiter_count;

/* Twice as many buckets, if there is memory: ids are numbered on, so they fill them evenly. */
static void table_grow(void) {
    fh_waiter **more = calloc(bucket_count * 2, sizeof *more);
    if (more == NULL) {
        return;
    }
    for (uint64_t i = 0; i < bucket_count; i++) {
        for (fh_waiter *waiter = buckets[i], *following; waiter != NULL; waiter = following) {
            following = waiter->following;
            waiter->following = more[waiter->id % (bucket_count * 2)];
            more[waiter->id % (bucket_count * 2)] = waiter;
        }
    }
    if (buckets != first_buckets) {
        free(buckets);
    }
    buckets = more;
    bucket_count *= 2;
}

void fh_waiter_add(fh_waiter *waiter, uint64_t id) {
    memset(waiter, 0, sizeof *waiter);
    waiter->id = id;
    fh_bit_init(&waiter->woken[FH_NEXT]);
    fh_bit_init(&waiter->woken[FH_FEED]);
    fh_mutex_lock(&table_mutex);
    if (++waiter_count > bucket_count) {
        table_grow();
    }
    waiter->following = buckets[id % bucket_count];
    buckets[id % bucket_count] = waiter;
    fh_mutex_unlock(&table_mutex);
}

int fh_waiter_wait(fh_waiter *waiter, int side, int64_t timeout_ms) {
    fh_bit *bit = &waiter->woken[side];
    if (!fh_bit_is_set(bit)) {
        fh_bit_wait(bit, timeout_ms);
    }
    return fh_bit_take(bit);
}

/* ---- event loops ------------------------------------------------------------------------------------ */

/* Ids of streams that were woken. A stream is listed at most once a round, and each taking begins a new round. */
struct fh_loop {
    fh_mutex mutex;
    uint64_t *ids;
    uint32_t listed, room;                     /* room for what is listed and for everybody who watches */
    uint32_t watching;
    uint64_t round;                            /* of no other loop */
    int32_t fd, epoch;                         /* fd: -1 once closed */
    int32_t holders;                           /* its owner and its streams; under the mutex */
};

static uint64_t last_round;

fh_loop *fh_loop_new(int32_t fd) {
    fh_loop *loop = calloc(1, sizeof *loop);
    if (loop != NULL) {
        fh_mutex_init(&loop->mutex);
        loop->fd = fd;
        loop->epoch = fh_epoch;
        loop->round = fh_add64(&last_round, 1) + 1;
        loop->holders = 1;
    }
    return loop;
}

/* Gives up a hold on a locked loop, and unlocks it. */
static void loop_drop(fh_loop *loop) {
    const int last = --loop->holders == 0;
    fh_mutex_unlock(&loop->mutex);
    if (last) {
        fh_mutex_free(&loop->mutex);
        free(loop->ids);
        free(loop);
    }
}

void fh_loop_close(fh_loop *loop) {
    if (loop->epoch == fh_epoch) {             /* else another thread may have held its mutex at the fork */
        fh_mutex_lock(&loop->mutex);
        loop->fd = -1;
        fh_mutex_unlock(&loop->mutex);
    }
}

void fh_loop_free(fh_loop *loop) {
    if (loop != NULL && loop->epoch == fh_epoch) {
        fh_mutex_lock(&loop->mutex);
        loop->fd = -1;
        loop_drop(loop);
    }
}

uint32_t fh_loop_take(fh_loop *loop, uint64_t *ids, uint32_t room) {
    if (loop->epoch != fh_epoch) {
        return 0;
    }
    fh_mutex_lock(&loop->mutex);
    const uint32_t listed = loop->listed;
    if (listed <= room) {
        if (listed) {
            memcpy(ids, loop->ids, listed * sizeof *ids);
        }
        loop->listed = 0;
        loop->round = fh_add64(&last_round, 1) + 1;
    }
    fh_mutex_unlock(&loop->mutex);
    return listed;
}

/* Under the table's mutex. */
static void list(fh_waiter *waiter) {
    fh_loop *loop = waiter->loop;
    fh_mutex_lock(&loop->mutex);
    if (waiter->round != loop->round) {
        waiter->round = loop->round;
        loop->ids[loop->listed++] = waiter->id;
        if (loop->listed == 1 && loop->fd >= 0) {
            fh_tell(loop->fd);
        }
    }
    fh_mutex_unlock(&loop->mutex);
}

/* Under the table's mutex. A stream that is listed stays so: its number is all that is kept of it. */
static void unwatch(fh_waiter *waiter) {
    fh_loop *loop = waiter->loop;
    if (loop != NULL) {
        fh_mutex_lock(&loop->mutex);
        loop->watching--;
        loop_drop(loop);
        waiter->loop = NULL;
        fh_store32(&waiter->watched, 0);
    }
}

int32_t fh_waiter_watch(fh_waiter *waiter, fh_loop *loop) {
    int32_t status = FERRULE_OK;
    fh_mutex_lock(&table_mutex);
    unwatch(waiter);
    if (loop != NULL && loop->epoch == fh_epoch && !waiter->removed) {
        fh_mutex_lock(&loop->mutex);
        if (loop->listed + loop->watching + 1 > loop->room) {
            const uint32_t room = loop->room ? loop->room * 2 : 64;
            uint64_t *ids = realloc(loop->ids, room * sizeof *ids);
            if (ids == NULL) {
                status = FERRULE_OUT_OF_MEMORY;
            } else {
                loop->ids = ids;
                loop->room = room;
            }
        }
        if (status == FERRULE_OK) {
            loop->watching++;
            loop->holders++;
            waiter->loop = loop;
            fh_store32(&waiter->watched, 1);
        }
        fh_mutex_unlock(&loop->mutex);
        if (waiter->loop != NULL && (fh_bit_is_set(&waiter->woken[FH_NEXT]) || fh_bit_is_set(&waiter->woken[FH_FEED]))) {
            list(waiter);
        }
    }
    fh_mutex_unlock(&table_mutex);
    return status;
}

/* ---- wakes ------------------------------------------------------------------------------------------ */

void fh_waiter_tell(fh_waiter *waiter, int side) {
    fh_bit_set(&waiter->woken[side]);
    if (fh_load32(&waiter->watched)) {
        fh_mutex_lock(&table_mutex);
        if (waiter->loop != NULL) {
            list(waiter);
        }
        fh_mutex_unlock(&table_mutex);
    }
}

void fh_waiter_wake(uint64_t id) {
    fh_mutex_lock(&table_mutex);
    for (fh_waiter *waiter = buckets[id % bucket_count]; waiter != NULL; waiter = waiter->following) {
        if (waiter->id == id) {
            fh_bit_set(&waiter->woken[FH_NEXT]);
            fh_bit_set(&waiter->woken[FH_FEED]);
            if (waiter->loop != NULL) {
                list(waiter);
            }
            break;
        }
    }
    fh_mutex_unlock(&table_mutex);
}

void fh_waiter_remove(fh_waiter *waiter) {
    fh_mutex_lock(&table_mutex);
    for (fh_waiter **at = &buckets[waiter->id % bucket_count]; *at != NULL; at = &(*at)->following) {
        if (*at == waiter) {
            *at = waiter->following;
            waiter_count--;
            break;
        }
    }
    unwatch(waiter);
    waiter->removed = 1;
    fh_mutex_unlock(&table_mutex);
}

void fh_wakes_after_fork(void) {
    fh_mutex_init(&table_mutex);
    memset(first_buckets, 0, sizeof first_buckets);
    buckets = first_buckets;                   /* the grown table may have been half made */
    bucket_count = 64;
    waiter_count = 0;
}

/* host.c: the table that plugins see, and what is one a process: ids, the log ring, locks, the gates.
 *
 * No function that a plugin may call takes the GIL, waits for a plugin or calls one: loggers written as Python
 * callbacks aborted the process at exit. */
#include "internal.h"

int32_t fh_epoch = 1;
static uint64_t last_id;
static int32_t gate_shut;
static uint64_t gate_shut_ms;                  /* when, by the monotonic clock */

uint64_t fh_new_id(void) { return fh_add64(&last_id, 1) + 1; }

uint64_t fh_thread(void) {
    static uint64_t last_thread;
    static FH_THREAD_LOCAL uint64_t mine;
    if (FH_UNLIKELY(mine == 0)) {
        mine = fh_add64(&last_thread, 1) + 1;
    }
    return mine;
}

/* ---- the log ring: whole entries, dropped and counted when Python is behind ----------------------- */

#define EXIT_MS 500                            /* what plugins that are still at work have at the end of the process */
#define RING_SIZE ((size_t)1 << 18)
#define ENTRY_MAX ((size_t)1 << 15)

typedef struct {
    uint32_t size;
    int32_t level;
    uint64_t id;
    int64_t time_ns;
    uint32_t message_len, fields_len;
} log_entry;

static fh_mutex ring_mutex = FH_MUTEX_INIT;
static fh_condition ring_filled = FH_CONDITION_INIT;
static uint8_t ring[RING_SIZE];
static size_t ring_read, ring_used;
static uint64_t ring_dropped;
static int32_t ring_level = 20;

static void ring_put(const void *bytes, size_t length) {
    if (length == 0) {
        return;
    }
    size_t at = (ring_read + ring_used) % RING_SIZE;
    size_t before_end = RING_SIZE - at < length ? RING_SIZE - at : length;
    memcpy(ring + at, bytes, before_end);
    memcpy(ring, (const uint8_t *)bytes + before_end, length - before_end);
    ring_used += length;
}

static void ring_peek(void *to, size_t length) {
    size_t before_end = RING_SIZE - ring_read < length ? RING_SIZE - ring_read : length;
    memcpy(to, ring + ring_read, before_end);
    memcpy((uint8_t *)to + before_end, ring, length - before_end);
}

static int32_t host_log_enabled(const ferrule_host *host, uint64_t id, int32_t level) {
    (void)host, (void)id;
    return level >= fh_load32(&ring_level) && !fh_load32(&gate_shut);
}

static void host_log(const ferrule_host *host, uint64_t id, int32_t level, const char *message, size_t message_len,
                     const char *fields, size_t fields_len) {
    static const uint8_t padding[8];
    if (!host_log_enabled(host, id, level) || (message == NULL && message_len) || (fields == NULL && fields_len)) {
        return;
    }
    if (message_len > ENTRY_MAX) {
        message_len = ENTRY_MAX;               /* Python decodes with replacement: a cut letter is no fault */
    }
    if (fields_len > ENTRY_MAX) {
        fields_len = 0;                        /* half an object is none */
    }
    size_t length = sizeof(log_entry) + message_len + fields_len;
    size_t pad = (8 - length % 8) % 8;
    log_entry entry = {(uint32_t)(length + pad), level,   id, fh_wall_ns(), (uint32_t)message_len,
                       (uint32_t)fields_len};
    fh_mutex_lock(&ring_mutex);
    if (RING_SIZE - ring_used < entry.size) {
        ring_dropped++;
    } else {
        ring_put(&entry, sizeof entry);
        ring_put(message, message_len);
        ring_put(fields, fields_len);
        ring_put(padding, pad);
        fh_condition_wake(&ring_filled);
    }
    fh_mutex_unlock(&ring_mutex);
}

size_t fh_log_take(uint8_t *to, size_t capacity) {
    size_t taken = 0;
    fh_mutex_lock(&ring_mutex);
    while (ring_used) {
        log_entry entry;
        ring_peek(&entry, sizeof entry);
        if (capacity - taken < entry.size) {
            break;
        }
        ring_peek(to + taken, entry.size);
        ring_read = (ring_read + entry.size) % RING_SIZE;
        ring_used -= entry.size;
        taken += entry.size;
    }
    fh_mutex_unlock(&ring_mutex);
    return taken;
}

int32_t fh_log_wait(int64_t timeout_ms) {
    fh_mutex_lock(&ring_mutex);
    if (!ring_used && !fh_load32(&gate_shut)) {
        fh_condition_wait(&ring_filled, &ring_mutex, timeout_ms);
    }
    int32_t result = fh_load32(&gate_shut) ? -1 : ring_used != 0;
    fh_mutex_unlock(&ring_mutex);
    return result;
}

uint64_t fh_log_dropped(void) {
    fh_mutex_lock(&ring_mutex);
    uint64_t dropped = ring_dropped;
    fh_mutex_unlock(&ring_mutex);
    return dropped;
}

void fh_log_level(int32_t level) { fh_store32(&ring_level, level); }

void fh_gate_shut(void) {
    fh_mutex_lock(&ring_mutex);
    fh_put64(&gate_shut_ms, (uint64_t)fh_monotonic_ms());
    fh_store32(&gate_shut, 1);
    fh_condition_wake(&ring_filled);
    fh_mutex_unlock(&ring_mutex);
}

int64_t fh_exit_left(void) {
    return fh_load32(&gate_shut) ? fh_left((int64_t)fh_load64(&gate_shut_ms) + EXIT_MS) : -1;
}

/* ---- the table ------------------------------------------------------------------------------------- */

static void host_wake(const ferrule_host *host, uint64_t id) {
    (void)host;
    if (!fh_load32(&gate_shut)) {
        fh_waiter_wake(id);
    }
}

static const void *host_query(const ferrule_host *host, const char *extension) {
    (void)host, (void)extension;
    return NULL;
}

const ferrule_host fh_host_table = {
    sizeof(ferrule_host), 0,         FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, host_log_enabled,
    host_log,             host_wake, host_query,
};

/* ---- the lock of a serial instance ---------------------------------------------------------------- */

void fh_lock_init(fh_lock *lock) {
    memset(lock, 0, sizeof *lock);
    fh_mutex_init(&lock->mutex);
    fh_condition_init(&lock->turn);
}

void fh_lock_free(fh_lock *lock) {
    fh_mutex_free(&lock->mutex);
    fh_condition_free(&lock->turn);
}

/* A ticket whose holder went away is passed over when its turn comes. Under the mutex. */
typedef struct fh_gone {
    uint64_t ticket;
    struct fh_gone *following;
} fh_gone;

static void lock_pass_over(fh_lock *lock) {
    for (fh_gone **at = &lock->gone; *at != NULL;) {
        fh_gone *gone = *at;
        if (gone->ticket != fh_load64(&lock->serving)) {
            at = &gone->following;
            continue;
        }
        *at = gone->following;
        free(gone);
        fh_add32(&lock->waiting, -1);
        fh_add64(&lock->serving, 1);
        at = &lock->gone;                      /* the next one may be gone too */
    }
}

int fh_lock_take(fh_lock *lock, int64_t timeout_ms) {
    uint64_t me = fh_thread();
    if (FH_UNLIKELY(fh_load64(&lock->owner) == me)) {
        return -1;
    }
    uint64_t ticket = fh_add64(&lock->next, 1);
    if (FH_UNLIKELY(fh_load64(&lock->serving) != ticket)) {
        const int64_t until = fh_until(timeout_ms);
        int64_t left = timeout_ms;
        fh_mutex_lock(&lock->mutex);
        fh_add32(&lock->waiting, 1);
        while (fh_load64(&lock->serving) != ticket) {
            fh_gone *gone;
            if (left == 0 && (gone = malloc(sizeof *gone)) != NULL) {
                *gone = (fh_gone){ticket, lock->gone};
                lock->gone = gone;             /* still counted as waiting, so that fh_lock_give looks */
                if (fh_load64(&lock->serving) == ticket) {
                    lock_pass_over(lock);      /* it was given meanwhile, and nobody looks again */
                    fh_condition_wake(&lock->turn);
                }
                fh_mutex_unlock(&lock->mutex);
                return 0;
            }
            fh_condition_wait(&lock->turn, &lock->mutex, left);
            left = fh_left(until);
        }
        fh_add32(&lock->waiting, -1);
        fh_mutex_unlock(&lock->mutex);
    }
    fh_put64(&lock->owner, me);                /* a thread looks for itself alone */
    return 1;
}

void fh_lock_give(fh_lock *lock) {
    fh_put64(&lock->owner, 0);
    fh_add64(&lock->serving, 1);
    if (FH_UNLIKELY(fh_load32(&lock->waiting))) {
        fh_mutex_lock(&lock->mutex);
        lock_pass_over(lock);
        fh_condition_wake(&lock->turn);
        fh_mutex_unlock(&lock->mutex);
    }
}

/* ---- fork: only the forking thread lives on in the child, so every lock may be held by nobody ------- */

void fh_after_fork(void) {
    fh_epoch++;
    fh_mutex_init(&ring_mutex);
    fh_condition_init(&ring_filled);
    ring_read = ring_used = 0;
    fh_wakes_after_fork();
}

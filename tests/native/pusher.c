/* pusher: streams of ferrule_pusher.h, driven as a host drives them, without one.
 *
 *   pusher rounds SEED COUNT     streams of four works, each with a thread for next, one for feed, one that cancels
 *   pusher push COUNT SIZE       items a second from the work's thread to next
 *   pusher feed MEGABYTES SIZE   a work that gathers what is fed, against memcpy of the same blocks
 *
 * In the rounds every item must come, in order, and be what was fed or made; each stream ends once; nothing more than
 * the bound lies between the sides; what sleeps is woken. Exit status 1 with a line on stderr where it is not so; a
 * sanitizer says the rest. */
#include "ferrule_pusher.h"

#include <unistd.h>

static void die(const char *what, int64_t detail) {
    fprintf(stderr, "pusher: %s (%lld)\n", what, (long long)detail);
    exit(1);
}

/* ---- the host: wakes, and buffers -------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t woken;
    uint64_t id;                               /* of the stream; a wake for another is ignored */
    int reader, feeder;                        /* sticky, one a side */
    int64_t wakes;
} sleeper = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0, 0};

static void host_wake(const ferrule_host *host, uint64_t id) {
    (void)host;
    pthread_mutex_lock(&sleeper.mutex);
    if (sleeper.id == id) {
        sleeper.reader = sleeper.feeder = 1;
        sleeper.wakes++;
        pthread_cond_broadcast(&sleeper.woken);
    }
    pthread_mutex_unlock(&sleeper.mutex);
}

static int32_t log_enabled(const ferrule_host *host, uint64_t id, int32_t level) {
    (void)host, (void)id, (void)level;
    return 0;
}
static void host_log(const ferrule_host *host, uint64_t id, int32_t level, const char *message, size_t message_len,
                     const char *fields, size_t fields_len) {
    (void)host, (void)id, (void)level, (void)message, (void)message_len, (void)fields, (void)fields_len;
}
static const void *query(const ferrule_host *host, const char *extension) {
    (void)host, (void)extension;
    return NULL;
}
static const ferrule_host host = {sizeof host, 0, 0, 1, log_enabled, host_log, host_wake, query};

/* Until a wake for this side, which is used up. */
static void sleep_until_woken(int *side) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&sleeper.mutex);
    while (!*side)
        if (pthread_cond_timedwait(&sleeper.woken, &sleeper.mutex, &until) != 0)
            die("a wake was lost", side == &sleeper.feeder);
    *side = 0;
    pthread_mutex_unlock(&sleeper.mutex);
}

static void sleeper_of(uint64_t id) {
    pthread_mutex_lock(&sleeper.mutex);
    sleeper.id = id;
    sleeper.reader = sleeper.feeder = 0;
    pthread_mutex_unlock(&sleeper.mutex);
}

static ferrule_buffer buffer(void) {
    ferrule_buffer made = {0};
    ferrule__owned_init(&made);
    return made;
}

/* ---- the works ---------------------------------------------------------------------------------------------- */

static uint64_t mixed(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state >> 11;
}

/* Item or piece number `n`: some bytes of it, most few, some none or many, told by the number alone. */
static size_t make(uint64_t seed, int64_t n, ferrule_buffer *into) {
    uint64_t state = seed * 977 + (uint64_t)n * 2654435761u + 88172645463325252u;
    mixed(&state), mixed(&state);
    const size_t size = mixed(&state) % (mixed(&state) % 8 ? 40 : mixed(&state) % 16 ? 9000 : 300000);
    into->len = 0;
    ferrule_reserve(into, size);
    if (size != 0) memset(into->data, (int)(mixed(&state) & 255), size);
    into->len = size;
    return size;
}

enum { MAKES, ECHOES, FAILS, STUBBORN, WORKS };

typedef struct {
    int work;
    uint64_t seed;
    int64_t items;
    int32_t alive, pushed, taken;              /* atomics */
} job;

static void release(void *state) { __atomic_store_n(&((job *)state)->alive, 0, __ATOMIC_RELEASE); }

FERRULE_WORK(work) {
    job *self = (job *)state;
    int32_t status = FERRULE_OK;
    if (self->work == ECHOES) {
        const uint8_t *bytes;
        size_t len;
        while ((status = ferrule_pull(pusher, &bytes, &len)) == FERRULE_OK)
            if ((status = ferrule_push_with(pusher, bytes, len, "{\"echo\":1}", 10)) != FERRULE_OK) return status;
        return status;
    }
    for (int64_t n = 0; n < self->items; n++) {
        const size_t size = make(self->seed, n, out);
        status = ferrule_push_with(pusher, out->data, out->len, "{\"made\":1}", n % 2 ? 10 : 0);
        if (status != FERRULE_OK && self->work != STUBBORN) return status;
        if (status == FERRULE_CANCELLED) usleep(1), n += n % 7;    /* goes on past cancel and close */
        const int64_t between = __atomic_add_fetch(&self->pushed, (int32_t)size, __ATOMIC_SEQ_CST) -
                                __atomic_load_n(&self->taken, __ATOMIC_SEQ_CST);
        if (status == FERRULE_OK && between > (int64_t)FERRULE_PUSHER_BYTES + 2 * 300000)
            die("too much waits", between);
        if (n % 50 == 49) ferrule_push_sleep(pusher, 1);
    }
    ferrule_push_metadata(pusher, "{\"over\":1}", 10);
    if (self->work == FAILS) return ferrule_fail(error, FERRULE_INVALID_DATA, "It fails after %d", (int)self->items);
    return status;
}

/* ---- a round -------------------------------------------------------------------------------------------------- */

typedef struct {
    ferrule_stream *stream;
    job job;
    int32_t cancelled, reading;                /* atomics */
    int ends;
    int64_t cancel_after;                      /* items; -1: never */
} round_of;

static void *reads(void *argument) {
    round_of *round = argument;
    const ferrule_stream_ops *ops = round->stream->ops;
    ferrule_buffer out = buffer(), error = buffer(), metadata = buffer(), expected = buffer();
    int32_t status;
    int64_t n = 0;
    for (;;) {
        out.len = error.len = metadata.len = 0;
        status = ops->next(round->stream, 0, &out, &error);
        if (status == FERRULE_PENDING) {
            sleep_until_woken(&sleeper.reader);
            continue;
        }
        ops->metadata(round->stream, &metadata, &error);
        if (status != FERRULE_OK) break;
        make(round->job.seed, n, &expected);
        if (out.len != expected.len || (out.len != 0 && memcmp(out.data, expected.data, out.len) != 0))
            die("an item is not itself", n);
        const size_t told = round->job.work == ECHOES || n % 2 ? 10 : 2;
        if (metadata.len != told || memcmp(metadata.data, told == 2 ? "{}" : round->job.work == ECHOES ? "{\"echo\":1}"
                                           : "{\"made\":1}", told) != 0)
            die("an item has another's metadata", n);
        __atomic_add_fetch(&round->job.taken, (int32_t)out.len, __ATOMIC_SEQ_CST);
        if (n++ == round->cancel_after) {
            __atomic_store_n(&round->cancelled, 1, __ATOMIC_SEQ_CST);
            ops->cancel(round->stream);        /* once from here, once or more from the other thread */
        }
    }
    const int cancelled = __atomic_load_n(&round->cancelled, __ATOMIC_SEQ_CST);
    const int32_t end = round->job.work == FAILS ? FERRULE_INVALID_DATA : FERRULE_END;
    if (status != end && !(cancelled && status == FERRULE_CANCELLED)) die("it ended otherwise", status);
    if (status != FERRULE_CANCELLED) {
        round->ends = 1;
        if (n != round->job.items) die("items are missing", round->job.items - n);
        if (__atomic_load_n(&round->job.alive, __ATOMIC_ACQUIRE)) die("the end came before the state was freed", 0);
        if (round->job.work != ECHOES && (metadata.len != 10 || metadata.data[2] != 'o'))
            die("the end lost its metadata", 0);
    }
    if ((status < FERRULE_OK) != (error.len != 0)) die("an error has no words", status);
    out.len = error.len = 0;
    if (status == FERRULE_INVALID_DATA && !cancelled && ops->next(round->stream, 0, &out, &error) != FERRULE_END)
        die("an error that ends no stream is followed by no end", 0);
    __atomic_store_n(&round->reading, 0, __ATOMIC_SEQ_CST);
    free(out.data), free(error.data), free(metadata.data), free(expected.data);
    return NULL;
}

static void *feeds(void *argument) {
    round_of *round = argument;
    const ferrule_stream_ops *ops = round->stream->ops;
    ferrule_buffer piece = buffer(), error = buffer();
    for (int64_t n = 0; n <= round->job.items;) {
        make(round->job.seed, n, &piece);
        const int last = n == round->job.items; /* then an empty final piece, if the one before was not final */
        const int final = last || (n + 1 == round->job.items && round->job.seed % 2 && piece.len != 0);
        error.len = 0;
        const int32_t status = ops->feed(round->stream, last ? NULL : piece.data, last ? 0 : piece.len, final, &error);
        if (status == FERRULE_PENDING) {
            sleep_until_woken(&sleeper.feeder);
        } else if (status == FERRULE_OK) {
            if (final) {
                if (ops->feed(round->stream, NULL, 0, 1, &error) != FERRULE_INVALID_STATE)
                    die("it was fed after final", 0);
                break;
            }
            n++;
        } else if (__atomic_load_n(&round->cancelled, __ATOMIC_SEQ_CST) &&
                   (status == FERRULE_CANCELLED || status == FERRULE_END)) {
            break;
        } else {
            die("feed answered otherwise", status);
        }
    }
    free(piece.data), free(error.data);
    return NULL;
}

static void *cancels(void *argument) {
    round_of *round = argument;
    while (__atomic_load_n(&round->reading, __ATOMIC_SEQ_CST)) {
        if (__atomic_load_n(&round->cancelled, __ATOMIC_SEQ_CST)) round->stream->ops->cancel(round->stream);
        usleep(50);
    }
    return NULL;
}

static void run_round(uint64_t seed, round_of *round) {
    static uint64_t ids;
    uint64_t state = seed * 6364136223846793005u + 1442695040888963407u;
    ferrule_buffer error = buffer();
    pthread_t threads[3];
    round->job.work = (int)(mixed(&state) % WORKS);
    round->job.seed = seed;
    round->job.items = (int64_t)(mixed(&state) % 400);
    round->job.alive = round->reading = 1;
    round->cancel_after = mixed(&state) % 2 ? (int64_t)(mixed(&state) % 200) : -1;
    sleeper_of(++ids);
    const int32_t flag = 0;
    const ferrule_call call = {sizeof call, 0, ids, &flag, -1, NULL, 0, NULL};
    const int flags = FERRULE_PUSHER_METADATA | (round->job.work == ECHOES ? FERRULE_PUSHER_FEED : 0);
    if (ferrule_pusher_open(&host, &call, flags, work, &round->job, release, &round->stream, &error) != FERRULE_OK)
        die("a stream cannot be opened", (int64_t)seed);
    const int fed = round->job.work == ECHOES, walks_away = mixed(&state) % 5 == 0;
    if (!walks_away) {
        pthread_create(&threads[0], NULL, reads, round);
        pthread_create(&threads[1], NULL, cancels, round);
        if (fed) pthread_create(&threads[2], NULL, feeds, round);
        for (int i = 0; i < 2 + fed; i++) pthread_join(threads[i], NULL);
    }
    sleeper_of(0);
    round->stream->ops->close(round->stream);
    free(error.data);
}

static void run_rounds(uint64_t seed, int count) {
    round_of *rounds = calloc((size_t)count, sizeof *rounds);
    for (int i = 0; i < count; i++) run_round(seed + (uint64_t)i, &rounds[i]);
    for (int i = 0; i < count; i++) /* close waited for none of them: the works' ends are waited for here */
        for (int tries = 0; __atomic_load_n(&rounds[i].job.alive, __ATOMIC_ACQUIRE); tries++)
            if (usleep(1000), tries > 20000) die("a work never ended", i);
    usleep(20000);                             /* and their last breath, so that no leak is seen */
    int64_t taken = 0, ends = 0;
    for (int i = 0; i < count; i++) taken += rounds[i].job.taken, ends += rounds[i].ends;
    printf("%d streams, %lld ended by themselves, %lld bytes came\n", count, (long long)ends, (long long)taken);
    free(rounds);
}

/* ---- figures -------------------------------------------------------------------------------------------------- */

static size_t block;
static int64_t count;

FERRULE_WORK(pushes) {
    int32_t status = FERRULE_OK;
    ferrule_reserve(out, block);
    memset(out->data, 'x', block);
    for (int64_t n = 0; status == FERRULE_OK && n < count; n++) status = ferrule_push(pusher, out->data, block);
    return status;
}

FERRULE_WORK(gathers) {
    const uint8_t *bytes;
    size_t len, at = 0;
    int32_t status;
    while ((status = ferrule_pull(pusher, &bytes, &len)) == FERRULE_OK)
        memcpy((uint8_t *)state + at, bytes, len), at += len;
    return status;
}

static ferrule_stream *open_one(ferrule_work work_of, int flags, void *state) {
    static const int32_t flag = 0;
    const ferrule_call call = {sizeof call, 0, 1, &flag, -1, NULL, 0, NULL};
    ferrule_stream *stream = NULL;
    ferrule_buffer error = buffer();
    sleeper_of(1);
    ferrule_pusher_open(&host, &call, flags, work_of, state, NULL, &stream, &error);
    return stream;
}

/* Reads to the end; how many items came. */
static int64_t drain(ferrule_stream *stream) {
    ferrule_buffer out = buffer(), error = buffer();
    for (int64_t items = 0;;) {
        const int32_t status = stream->ops->next(stream, 0, &out, &error);
        if (status == FERRULE_OK) items++;
        else if (status == FERRULE_PENDING) sleep_until_woken(&sleeper.reader);
        else return free(out.data), free(error.data), items;
        if (out.len > 60000) out.len = 0;
    }
}

static void figure_push(void) {
    const int64_t began = ferrule_monotonic_ns();
    ferrule_stream *stream = open_one(pushes, 0, NULL);
    const int64_t items = drain(stream), took = ferrule_monotonic_ns() - began;
    stream->ops->close(stream);
    printf("%.2f million items of %zu bytes a second, %lld wakes\n", (double)items * 1e3 / (double)took, block,
           (long long)sleeper.wakes);
}

static void figure_feed(size_t bytes) {
    uint8_t *into = malloc(bytes), *piece = malloc(block);
    ferrule_buffer error = buffer();
    memset(into, 0, bytes), memset(piece, 'x', block);
    double best = 0, plain = 0;
    for (int round = 0; round < 9; round++) {
        int64_t began = ferrule_monotonic_ns();
        for (size_t at = 0; at < bytes; at += block) memcpy(into + at, piece, block);
        double rate = (double)bytes / (double)(ferrule_monotonic_ns() - began);
        if (rate > plain) plain = rate;
        began = ferrule_monotonic_ns();
        ferrule_stream *stream = open_one(gathers, FERRULE_PUSHER_FEED, into);
        for (size_t at = 0; at < bytes;) {
            const int32_t status = stream->ops->feed(stream, piece, block, at + block == bytes, &error);
            if (status == FERRULE_OK) at += block;
            else sleep_until_woken(&sleeper.feeder);
        }
        drain(stream);
        rate = (double)bytes / (double)(ferrule_monotonic_ns() - began);
        if (rate > best) best = rate;
        stream->ops->close(stream);
    }
    printf("feed of %zu bytes %.2f GB/s, memcpy %.2f GB/s: %.0f %%\n", block, best, plain, best * 100 / plain);
    free(into), free(piece);
}

int main(int argc, char **argv) {
    if (argc != 4) die("expects a mode and two numbers", argc);
    block = strtoul(argv[3], NULL, 10);
    count = strtoll(argv[2], NULL, 10);
    if (strcmp(argv[1], "rounds") == 0) run_rounds(strtoull(argv[2], NULL, 10), (int)block);
    else if (strcmp(argv[1], "push") == 0) figure_push();
    else if (strcmp(argv[1], "feed") == 0) figure_feed((size_t)count << 20);
    else die("knows no such mode", 0);
    return 0;
}

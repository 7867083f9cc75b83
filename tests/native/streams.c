/* streams: drives the two sides of streams from threads of their own, without Python, so that sanitizers see all of it.
 *
 *   streams LAB_LIBRARY SEED ROUNDS
 *
 * Each round is a stream that gives back what it is fed. One thread reads, one feeds, one wakes and watches, one takes from
 * the event loop; at some moment it is cancelled, closed by two threads beside all that, or left alone. What was fed comes
 * out in order, whole unless it was cancelled, and there is one end. Exit status 1 with a line on stderr where that is not
 * so; a sanitizer says the rest. */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define BLOCKS 300

static struct {
    fh_stream *stream;
    fh_loop *loop;
    uint64_t id;
    uint32_t seed;
    int32_t over;                              /* both sides have ended */
    int32_t given_up;                          /* it is being cancelled or closed */
    uint64_t fed, read;
} run;

static void die(const char *what) {
    fprintf(stderr, "streams: %s\n", what);
    exit(1);
}

static uint32_t pick(uint32_t *state, uint32_t below) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % below;
}

static void *read_on(void *unused) {
    (void)unused;
    uint32_t state = run.seed + 1;
    for (;;) {
        fh_items items;
        const int64_t timeouts[] = {-1, 0, 1, 20};
        const int32_t status = fh_stream_fill(run.stream, timeouts[pick(&state, 4)], (int32_t)pick(&state, 2),
                                              1 + pick(&state, 5), &items);
        for (uint32_t i = 0, at = 0; i < items.count; at += items.lengths[i++] + 1) {
            uint64_t number;
            if (items.lengths[i] < sizeof number) die("an item is cut short");
            memcpy(&number, items.bytes + at, sizeof number);
            if (number != run.read++) die("items came out of order");
        }
        if (status == FERRULE_END) {
            if (!fh_load32(&run.given_up) && run.read != BLOCKS) die("the end came before the items");
            return NULL;
        }
        if (status < 0) {
            if (!fh_load32(&run.given_up)) die("a fill failed");
            return NULL;
        }
    }
}

static void *feed_on(void *unused) {
    (void)unused;
    uint32_t state = run.seed + 2;
    uint8_t block[64] = {0};
    while (run.fed <= BLOCKS) {
        fh_text error;
        const int final = run.fed == BLOCKS;
        const int64_t timeouts[] = {-1, 0, 1, 20};
        memcpy(block, &run.fed, sizeof run.fed);
        const int32_t status =
            fh_stream_feed(run.stream, block, final ? 0 : sizeof run.fed + pick(&state, 40), final,
                           timeouts[pick(&state, 4)], (int32_t)pick(&state, 2), &error);
        if (status == FERRULE_OK) {
            run.fed++;
        } else if (status != FERRULE_PENDING) {
            if (!fh_load32(&run.given_up)) die("a feed failed");
            return NULL;
        }
    }
    return NULL;
}

static void *disturb(void *unused) {
    (void)unused;
    uint32_t state = run.seed + 3;
    while (!fh_load32(&run.over)) {
        switch (pick(&state, 3)) {
        case 0: fh_waiter_wake(run.id - pick(&state, 2)); break;
        case 1: fh_stream_watch(run.stream, pick(&state, 3) ? run.loop : NULL); break;
        default: usleep(pick(&state, 200));
        }
    }
    return NULL;
}

static void *take(void *unused) {
    (void)unused;
    while (!fh_load32(&run.over)) {
        uint64_t ids[4];
        const uint32_t taken = fh_loop_take(run.loop, ids, 4);
        for (uint32_t i = 0; i < taken; i++) {
            if (taken > 1 || ids[i] != run.id) die("one stream was woken, and another or more are listed");
        }
        if (taken == 0) usleep(50);
    }
    return NULL;
}

static void *close_it(void *seed) {
    uint32_t state = *(uint32_t *)seed;
    while (fh_stream_close(run.stream, (int32_t)pick(&state, 2)) == FERRULE_PENDING) {}
    return NULL;
}

static void round_of(fh_instance *lab, int32_t method) {
    char about[64];
    int32_t status;
    fh_answer *answer = fh_answer_new(256, 1 << 20);
    uint32_t state = run.seed;
    const uint32_t end = pick(&state, 3);      /* left alone, cancelled, closed */
    snprintf(about, sizeof about, "{\"room\":%u}", 1 + pick(&state, 5));
    run.id = fh_new_id();
    run.over = run.given_up = 0;
    run.fed = run.read = 0;
    run.loop = fh_loop_new(-1);
    run.stream = fh_stream_open(lab, run.id, method, (const uint8_t *)about, strlen(about), -1, NULL, NULL, 0, answer,
                                &status);
    if (run.stream == NULL || run.loop == NULL) die("a stream cannot be opened");
    pthread_t sides[2], others[2];
    pthread_create(&sides[0], NULL, read_on, NULL);
    pthread_create(&sides[1], NULL, feed_on, NULL);
    pthread_create(&others[0], NULL, disturb, NULL);
    pthread_create(&others[1], NULL, take, NULL);
    if (end) {
        usleep(pick(&state, 3000));
        fh_store32(&run.given_up, 1);
        if (end == 1) {
            fh_stream_cancel(run.stream);
        } else {
            uint32_t seeds[] = {state, ~state};
            pthread_t beside;
            pthread_create(&beside, NULL, close_it, &seeds[0]);
            close_it(&seeds[1]);
            pthread_join(beside, NULL);
        }
    }
    pthread_join(sides[0], NULL);
    pthread_join(sides[1], NULL);
    fh_store32(&run.over, 1);
    pthread_join(others[0], NULL);
    pthread_join(others[1], NULL);
    if (!end && (run.fed != BLOCKS + 1 || run.read != BLOCKS)) die("something was lost");
    if (pick(&state, 2)) {
        fh_stream_free(run.stream);
        fh_loop_free(run.loop);
    } else {
        fh_loop_free(run.loop);
        fh_stream_free(run.stream);
    }
    fh_answer_free(answer);
}

int main(int argc, char **argv) {
    char error[400] = "";
    int32_t status;
    ferrule_plugin_manifest_fn manifest_of = NULL;
    if (argc != 4) die("streams LAB_LIBRARY SEED ROUNDS");
    void *handle = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    void *found = handle == NULL ? NULL : dlsym(handle, "ferrule_plugin_manifest");
    memcpy(&manifest_of, &found, sizeof found);
    if (manifest_of == NULL) die("the library cannot be opened");
    const ferrule_manifest *manifest = manifest_of();
    fh_library *library = fh_library_open(argv[1], (const uint8_t *)(manifest + 1), manifest->json_len, error, sizeof error);
    if (library == NULL) die(error);
    fh_answer *answer = fh_answer_new(256, 1 << 20);
    fh_instance *lab = fh_instance_new(library, fh_new_id(), NULL, "lab", 3, "{}", 2, 0, answer, &status);
    if (lab == NULL) die("an instance cannot be made");
    const int32_t method = fh_instance_method(lab, "pipe", 4);
    for (int i = 0; i < atoi(argv[3]); i++) {
        run.seed = (uint32_t)(atoi(argv[2]) * 1000 + i);
        round_of(lab, method);
    }
    fh_instance_free(lab);
    fh_answer_free(answer);
    free(library);
    return 0;
}

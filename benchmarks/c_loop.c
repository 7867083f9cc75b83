/* The measure of all else: a plain C loop that calls the same plugin functions, with no host around them.
 *
 *   c_loop chain THREADS ENDS_LIB RECORD COUNT [LIB PLUGIN CONFIG]...   from a source, through functions, to a sink
 *   c_loop call RECORD COUNT LIB PLUGIN CONFIG                          one function alone, on the same input
 *   c_loop show RECORD COUNT LIB PLUGIN CONFIG...                       prints what the functions make of it, COUNT times
 *
 * `chain` and `call` print nanoseconds a record: the least of REPEATS runs of COUNT records each, or, under BENCH_TURNS, the
 * figure of one run for each line of stdin. With several threads each has instances of its own and its share of the
 * records; the time is from the first's start to the last's end.
 * BENCH_CLOCK=cpu: the processor's time, of what has one thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ferrule.h"

#define STEPS 8
#define THREADS 64
#define REPEATS 5
#define CHUNK (64 * 1024)

static int32_t reserve(ferrule_buffer *buffer, size_t additional) {
    size_t needed = buffer->len + additional;
    if (needed > buffer->capacity) {
        uint8_t *data = realloc(buffer->data, needed * 2);
        if (data == NULL) {
            return FERRULE_OUT_OF_MEMORY;
        }
        buffer->data = data;
        buffer->capacity = needed * 2;
    }
    return FERRULE_OK;
}

static int32_t enabled(const ferrule_host *host, uint64_t id, int32_t level) { return (void)host, (void)id, level > 50; }
static void logged(const ferrule_host *host, uint64_t id, int32_t level, const char *m, size_t n, const char *f,
                   size_t k) {
    (void)host, (void)id, (void)level, (void)m, (void)n, (void)f, (void)k;
}
static void woken(const ferrule_host *host, uint64_t id) { (void)host, (void)id; }
static const void *asked(const ferrule_host *host, const char *extension) { return (void)host, (void)extension, NULL; }
static const ferrule_host host = {sizeof host, 0, FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, enabled, logged, woken, asked};
static const int32_t never;
static const ferrule_buffer empty = {sizeof empty, 0, NULL, 0, 0, reserve};
static const ferrule_call plain = {sizeof plain, 0, 0, &never, -1, NULL, 0, NULL};

static void fail(const char *what, const ferrule_buffer *error) {
    fprintf(stderr, "c_loop: %s: %.*s\n", what, (int)error->len, error->data ? (char *)error->data : "");
    exit(1);
}

static ferrule_instance *make(const char *path, const char *plugin, const char *config) {
    ferrule_plugin_create_fn create = NULL;
    ferrule_buffer error = empty;
    ferrule_call call = plain;
    ferrule_instance *instance = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "ferrule_plugin_create") : NULL;
    memcpy(&create, &symbol, sizeof symbol);
    call.id = 1;
    if (create == NULL) {
        fail(dlerror(), &error);
    }
    if (create(&host, &call, plugin, strlen(plugin), config, strlen(config), &instance, &error) != FERRULE_OK) {
        fail(plugin, &error);
    }
    return instance;
}

static clockid_t clock_used = CLOCK_MONOTONIC;

static double now_ns(void) {
    struct timespec now;
    clock_gettime(clock_used, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* Takes down a run's figure, and says whether there is to be another: run 0 has none yet. */
static int again(int run, double figure, double *least) {
    static int in_turns = -1;
    if (in_turns < 0) {
        in_turns = getenv("BENCH_TURNS") != NULL;
    }
    if (in_turns) {
        char line[16];
        if (run > 0) {
            printf("%.3f\n", figure);
            fflush(stdout);
        }
        if (fgets(line, sizeof line, stdin) == NULL) {
            exit(0);
        }
        return 1;
    }
    *least = run <= 1 || figure < *least ? figure : *least;
    return run < REPEATS;
}

/* ---- from a source, through functions, to a sink ------------------------------------------------------ */

struct chain {
    ferrule_instance *source, *sink, *functions[STEPS];
    int32_t methods[STEPS], write;
    int steps;
    uint64_t records;
    double from, to;                           /* ns, of the run */
    pthread_t thread;
};

static pthread_barrier_t begin;              /* all threads start at once */

static void *run(void *argument) {
    struct chain *chain = argument;
    const int steps = chain->steps;
    ferrule_buffer error = empty, read = empty, between[2] = {empty, empty}, chunk = empty, nothing = empty;
    ferrule_instance *source = chain->source, *sink = chain->sink;
    ferrule_stream *stream = NULL;
    if (source->ops->open(source, source->ops->method(source, "read_data", 9), &plain, (const uint8_t *)"{}", 2, &stream,
                          &error) != FERRULE_OK) {
        fail("read_data", &error);
    }
    chain->records = 0;
    reserve(&chunk, CHUNK);
    pthread_barrier_wait(&begin);
    chain->from = now_ns();
    for (;;) {
        read.len = 0;
        int32_t status = stream->ops->next(stream, 0, &read, &error);
        if (status == FERRULE_OK) {
            const uint8_t *in = read.data;
            size_t in_len = read.len;
            for (int s = 0; s < steps; s++) {
                ferrule_instance *function = chain->functions[s];
                ferrule_buffer *out = s + 1 == steps ? &chunk : &between[s & 1];
                size_t entry = s + 1 == steps ? chunk.len : (out->len = 0);
                if (function->ops->call(function, chain->methods[s], &plain, in, in_len, out, &error) != FERRULE_OK) {
                    fail("process", &error);
                }
                in = out->data + entry;
                in_len = out->len - entry;
            }
            if (steps == 0) {
                if (reserve(&chunk, in_len) != FERRULE_OK) {
                    fail("no memory", &error);
                }
                memcpy(chunk.data + chunk.len, in, in_len);
                chunk.len += in_len;
            }
            if (reserve(&chunk, 1) != FERRULE_OK) {
                fail("no memory", &error);
            }
            chunk.data[chunk.len++] = '\n';
            chain->records++;
        }
        if (status != FERRULE_OK || chunk.len >= CHUNK) {
            sink->ops->call(sink, chain->write, &plain, chunk.data, chunk.len, &nothing, &error);
            chunk.len = 0;
        }
        if (status != FERRULE_OK) {
            break;
        }
    }
    chain->to = now_ns();
    stream->ops->close(stream);
    free(error.data), free(read.data), free(between[0].data), free(between[1].data), free(chunk.data), free(nothing.data);
    return NULL;
}

static char *source_config(const char *record, long count) {
    const size_t length = strlen(record);
    char *config = malloc(2 * length + 100);
    if (config == NULL) {
        exit(1);
    }
    size_t at = (size_t)sprintf(config, "{\"count\":%ld,\"record\":\"", count);
    for (size_t i = 0; i < length; i++) {
        if (record[i] == '"' || record[i] == '\\') {
            config[at++] = '\\';
        }
        config[at++] = record[i];
    }
    strcpy(config + at, "\"}");
    return config;
}

static double chains(int threads, const char *ends, const char *record, long count, int steps, char **functions) {
    static struct chain chain[THREADS];
    double least = 0, figure = 0;
    char *config = source_config(record, count / threads);
    for (int t = 0; t < threads; t++) {
        chain[t].source = make(ends, "repeat", config);
        chain[t].sink = make(ends, "discard", "{}");
        chain[t].write = chain[t].sink->ops->method(chain[t].sink, "write", 5);
        chain[t].steps = steps;
        for (int s = 0; s < steps; s++) {
            ferrule_instance *made = make(functions[3 * s], functions[3 * s + 1], functions[3 * s + 2]);
            chain[t].functions[s] = made;
            chain[t].methods[s] = made->ops->method(made, "process", 7);
        }
    }
    free(config);
    for (int i = 0; again(i, figure, &least); i++) {
        uint64_t records = 0;
        pthread_barrier_init(&begin, NULL, (unsigned)threads);
        for (int t = 0; t < threads; t++) {
            pthread_create(&chain[t].thread, NULL, run, &chain[t]);
        }
        double from = 0, to = 0;
        for (int t = 0; t < threads; t++) {
            pthread_join(chain[t].thread, NULL);
            records += chain[t].records;
            from = t == 0 || chain[t].from < from ? chain[t].from : from;
            to = chain[t].to > to ? chain[t].to : to;
        }
        pthread_barrier_destroy(&begin);
        figure = (to - from) / (double)(records ? records : 1);
    }
    return least;
}

/* ---- one function alone ------------------------------------------------------------------------------- */

static double calls(const char *record, long count, char **function) {
    ferrule_instance *instance = make(function[0], function[1], function[2]);
    const int32_t method = instance->ops->method(instance, "process", 7);
    const size_t length = strlen(record);
    ferrule_buffer out = empty, error = empty;
    double least = 0, figure = 0;
    for (int i = 0; again(i, figure, &least); i++) {
        double from = now_ns();
        for (long n = 0; n < count; n++) {
            out.len = 0;
            if (instance->ops->call(instance, method, &plain, (const uint8_t *)record, length, &out, &error) < 0) {
                fail(function[1], &error);
            }
        }
        figure = (now_ns() - from) / (double)(count ? count : 1);
    }
    return least;
}

static void show(const char *record, long count, int steps, char **functions) {
    ferrule_buffer buffers[2] = {empty, empty}, error = empty;
    ferrule_instance *made[STEPS];
    for (int s = 0; s < steps; s++) {
        made[s] = make(functions[3 * s], functions[3 * s + 1], functions[3 * s + 2]);
    }
    for (long n = 0; n < count; n++) {
        const uint8_t *in = (const uint8_t *)record;
        size_t in_len = strlen(record);
        for (int s = 0; s < steps; s++) {
            ferrule_buffer *out = &buffers[s & 1];
            out->len = 0;
            if (made[s]->ops->call(made[s], made[s]->ops->method(made[s], "process", 7), &plain, in, in_len, out,
                                   &error) != FERRULE_OK) {
                fail(functions[3 * s + 1], &error);
            }
            in = out->data;
            in_len = out->len;
        }
        fwrite(in, 1, in_len, stdout);
        putchar('\n');
    }
}

int main(int argc, char **argv) {
    const char *clock_name = getenv("BENCH_CLOCK");
    if (clock_name != NULL && strcmp(clock_name, "cpu") == 0 && !(argc > 2 && atoi(argv[2]) > 1)) {
        clock_used = CLOCK_THREAD_CPUTIME_ID;  /* what other processes take away does not count */
    }
    if (argc >= 6 && strcmp(argv[1], "chain") == 0 && (argc - 6) % 3 == 0 && (argc - 6) / 3 <= STEPS) {
        int threads = atoi(argv[2]);
        if (threads >= 1 && threads <= THREADS) {
            printf("%.3f\n", chains(threads, argv[3], argv[4], atol(argv[5]), (argc - 6) / 3, argv + 6));
            return 0;
        }
    } else if (argc == 7 && strcmp(argv[1], "call") == 0) {
        printf("%.3f\n", calls(argv[2], atol(argv[3]), argv + 4));
        return 0;
    } else if (argc >= 7 && strcmp(argv[1], "show") == 0 && (argc - 4) % 3 == 0 && (argc - 4) / 3 <= STEPS) {
        show(argv[2], atol(argv[3]), (argc - 4) / 3, argv + 4);
        return 0;
    }
    fprintf(stderr, "usage: c_loop chain THREADS ENDS_LIB RECORD COUNT [LIB PLUGIN CONFIG]...\n"
                    "       c_loop call RECORD COUNT LIB PLUGIN CONFIG\n"
                    "       c_loop show RECORD COUNT LIB PLUGIN CONFIG [LIB PLUGIN CONFIG]...\n");
    return 2;
}

/* pump_asan: drives the host's C without Python, to be built with -fsanitize=address,undefined; with -fsanitize=thread it
 * does only what has threads.
 *
 *   pump_asan libact.so libtell.so libpoisons.so FOLDER
 *
 * It does what flow/engine.py does: answers the lane's events. The plugins are tests/plugins/act.c, tests/plugins/tell.c
 * and the zoo's poisons.c. Every flow's outcome is compared with a model; a difference ends it with 1 and a line. */
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define CHECK(condition)                                                          \
    do {                                                                          \
        if (!(condition)) {                                                       \
            fprintf(stderr, "%s:%d: %s does not hold (%s)\n", __FILE__, __LINE__, #condition, scenario); \
            exit(1);                                                              \
        }                                                                         \
    } while (0)

static const char *scenario = "setting up";
static char in_path[512], out_path[512];

/* ---- libraries and instances -------------------------------------------------------------------------- */

static fh_library *load(const char *path) {
    char error[1024] = "";
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ferrule_plugin_manifest_fn manifest_of = NULL;
    CHECK(handle != NULL);
    void *symbol = dlsym(handle, "ferrule_plugin_manifest");
    memcpy(&manifest_of, &symbol, sizeof symbol);
    const ferrule_manifest *manifest = manifest_of();
    fh_library *library =
        fh_library_open(path, (const uint8_t *)(manifest + 1), (size_t)manifest->json_len, error, sizeof error);
    if (library == NULL) {
        fprintf(stderr, "%s: %s\n", path, error);
        exit(1);
    }
    return library;
}

static fh_instance *make(fh_library *library, const char *plugin, const char *config) {
    fh_answer *answer = fh_answer_new(1024, FH_DEFAULT_LIMIT);
    int32_t status = 99;
    fh_instance *instance = fh_instance_new(library, fh_new_id(), NULL, plugin, strlen(plugin), config, strlen(config),
                                            1, answer, &status);
    CHECK(instance != NULL && status == FERRULE_OK);
    fh_answer_free(answer);
    return instance;
}
static fh_instance *make_with_path(fh_library *library, const char *plugin, const char *path) {
    char config[600];
    snprintf(config, sizeof config, "{\"path\":\"%s\"}", path);
    return make(library, plugin, config);
}
static int32_t method(fh_instance *instance, const char *name) {
    int32_t number = fh_instance_method(instance, name, strlen(name));
    CHECK(number >= 0);
    return number;
}
static fh_stream *open_stream(fh_instance *instance, const char *name) {
    fh_answer *answer = fh_answer_new(64, FH_DEFAULT_LIMIT);
    int32_t status = 99;
    fh_stream *stream = fh_stream_open(instance, fh_new_id(), method(instance, name), (const uint8_t *)"{}", 2, NULL, 0,
                                       answer, &status);
    CHECK(stream != NULL && status == FERRULE_OK);
    fh_answer_free(answer);
    return stream;
}

/* ---- flows --------------------------------------------------------------------------------------------- */

static const char *const ACTS[] = {"ok",      "ok",    "skip", "ok",   "invalid", "big", "unavailable", "panic", "ok",
                                   "internal", "newline", "utf8", "text", "ok",      "unkept", "!"};
#define ACT_COUNT (sizeof ACTS / sizeof *ACTS)
#define RECORDS 8000

static unsigned random_state = 1;
static unsigned pick(unsigned below) {
    random_state = random_state * 1103515245u + 12345u;
    return (random_state >> 16) % below;
}

typedef struct {
    uint64_t written, skipped, faults; /* faults: of step, source or sink */
} model;

/* Writes the source's file: mostly good records, a fault of each kind here and there, none in the first `clean`. */
static model write_input(uint32_t records, uint32_t clean, int stepped) {
    model expected = {0, 0, 0};
    FILE *file = fopen(in_path, "wb");
    CHECK(file != NULL);
    for (uint32_t n = 1; n <= records; n++) {
        const char *act = n <= clean || pick(10) ? "ok" : ACTS[pick(ACT_COUNT)];
        if (strcmp(act, "big") == 0 && pick(4)) act = "ok"; /* 120 KB each */
        if (strcmp(act, "!") == 0) {
            fputs("!\n", file);
        } else {
            fprintf(file, "{\"n\":%u,\"act\":\"%s\"}\n", (unsigned)n, act);
        }
        int good = strcmp(act, "ok") == 0 || strcmp(act, "big") == 0;
        int always = strcmp(act, "unkept") == 0 || strcmp(act, "!") == 0;
        if (good || (!stepped && !always)) {
            expected.written++;
        } else if (strcmp(act, "skip") == 0) {
            expected.skipped++;
        } else {
            expected.faults++;
        }
    }
    fclose(file);
    return expected;
}

static uint64_t lines_of(const char *path) {
    FILE *file = fopen(path, "rb");
    uint64_t lines = 0;
    CHECK(file != NULL);
    for (int byte; (byte = getc(file)) != EOF;) lines += byte == '\n';
    fclose(file);
    return lines;
}

enum { NATIVE, PYTHON };

typedef struct {
    int source, steps[3], step_count, sink;
    int32_t on_error;
    const char *sink_plugin;
    uint64_t limit;
    int abandon; /* the nth broken instance is not replaced */
} shape;

typedef struct {
    int32_t event;
    fh_counters counters;
    uint64_t parked, fatal, replaced;
} outcome;

/* Python's source: the file's lines, some a call. */
static int fill_from_file(fh_flow *flow, FILE *file) {
    static uint8_t bytes[1 << 17];
    static char line[1 << 16];
    uint32_t lengths[50], rows = 0;
    size_t length = 0;
    int ended = 0;
    while (rows < 50) {
        if (fgets(line, sizeof line, file) == NULL) {
            ended = 1;
            break;
        }
        size_t size = strcspn(line, "\n");
        if (line[0] == '!') {
            lengths[rows++] = FH_NONE;
            if (fh_lane_reject(flow, rows - 1, FH_SOURCE, FERRULE_INVALID_DATA, 0, (const uint8_t *)"{}", 2)) {
                ended = 1;
                break;
            }
            continue;
        }
        memcpy(bytes + length, line, size);
        length += size;
        lengths[rows++] = (uint32_t)size;
    }
    CHECK(fh_lane_filled(flow, bytes, lengths, rows, ended) == FERRULE_OK);
    return ended;
}

/* Python's step: every row as it is, the 97th refused, the 89th skipped. */
static void step_over_rows(fh_flow *flow, uint64_t *count, int32_t event_step) {
    size_t length = 0;
    uint32_t rows = 0, answered = 0;
    const uint8_t *lent = fh_lane_rows(flow, &length, &rows);
    uint8_t *bytes = malloc(length + 1), *copy = malloc(length + 1);
    uint32_t *lengths = calloc(rows + 1, sizeof *lengths);
    size_t used = 0, at = 0;
    if (length) memcpy(copy, lent, length);
    for (; answered < rows; answered++) {
        size_t size = (size_t)((uint8_t *)memchr(copy + at, '\n', length - at) - (copy + at));
        ++*count;
        if (*count % 89 == 0) {
            lengths[answered] = FH_NONE;
        } else if (*count % 97 == 0) {
            lengths[answered] = FH_NONE;
            if (fh_lane_reject(flow, answered, (uint32_t)event_step, FERRULE_INVALID_DATA, 0, (const uint8_t *)"no", 2)) {
                answered++;
                break;
            }
        } else {
            memcpy(bytes + used, copy + at, size);
            lengths[answered] = (uint32_t)size;
            used += size;
        }
        at += size + 1;
    }
    CHECK(fh_lane_stepped(flow, bytes, lengths, answered) == FERRULE_OK);
    free(lengths);
    free(bytes);
    free(copy);
}

static uint64_t take_parked(fh_flow *flow, uint64_t *fatal) {
    uint32_t rows = 0;
    const uint8_t *bytes = NULL;
    size_t length = 0;
    const fh_parked *entries = fh_flow_parked(flow, &rows, &bytes, &length);
    uint64_t letters = 0;
    volatile uint64_t touched = 0; /* every byte is read, for the sanitizer to see */
    for (uint32_t i = 0; i < rows; i++) {
        const fh_parked *entry = &entries[i];
        CHECK(entry->offset + entry->record_len + entry->error_len <= length);
        for (uint32_t b = 0; b < entry->record_len + entry->error_len; b++) touched += bytes[entry->offset + b];
        CHECK(entry->policy == FH_DEAD_LETTER || entry->policy == FH_FAIL);
        if (entry->policy == FH_FAIL) {
            ++*fatal;
        } else {
            letters++;
        }
    }
    return letters;
}

static outcome run(fh_library *act, const shape *shape) {
    outcome found = {0, {0, 0, 0, 0, 0}, 0, 0, 0};
    uint64_t counts[3] = {0, 0, 0};
    FILE *input = NULL, *output = NULL;
    fh_instance *source = NULL, *sink = NULL, *steps[3] = {NULL, NULL, NULL};
    fh_stream *stream = NULL;
    fh_flow *flow = fh_flow_new((uint32_t)shape->step_count, 4096);
    CHECK(flow != NULL);
    if (shape->source == NATIVE) {
        source = make_with_path(act, "lines", in_path);
        stream = open_stream(source, "read_data");
    } else {
        input = fopen(in_path, "rb");
    }
    fh_flow_source(flow, stream, 0, shape->on_error);
    for (int s = 0; s < shape->step_count; s++) {
        if (shape->steps[s] == NATIVE) steps[s] = make(act, "act", "{}");
        fh_flow_step(flow, (uint32_t)s, steps[s], steps[s] ? method(steps[s], "process") : 0, shape->on_error);
    }
    if (shape->sink == NATIVE) {
        sink = make_with_path(act, shape->sink_plugin, out_path);
        fh_flow_sink(flow, sink, method(sink, "write"), strcmp(shape->sink_plugin, "keep") == 0, shape->on_error);
    } else {
        output = fopen(out_path, "wb");
        fh_flow_sink(flow, NULL, 0, 0, shape->on_error);
    }
    fh_flow_limit(flow, shape->limit);
    for (int over = 0; !over;) {
        found.event = fh_lane_run(flow);
        switch (found.event) {
        case FH_EVENT_SOURCE:
            fill_from_file(flow, input);
            break;
        case FH_EVENT_STEP:
            step_over_rows(flow, &counts[fh_lane_event_step(flow)], (int32_t)fh_lane_event_step(flow));
            break;
        case FH_EVENT_SINK: {
            size_t length = 0;
            uint32_t rows = 0;
            const uint8_t *lent = fh_lane_rows(flow, &length, &rows);
            CHECK(fwrite(lent, 1, length, output) == length);
            fh_lane_drained(flow, rows);
            break;
        }
        case FH_EVENT_PARKED:
            found.parked += take_parked(flow, &found.fatal);
            break;
        case FH_EVENT_BROKEN: {
            uint32_t s = fh_lane_event_step(flow);
            CHECK(fh_instance_poisoned(steps[s]));
            fh_instance_close(steps[s]);
            if (shape->abandon && (uint64_t)shape->abandon == ++found.replaced) {
                fh_lane_abandon(flow, FERRULE_UNAVAILABLE, (const uint8_t *)"no more", 7);
                break;
            }
            fh_instance *fresh = make(act, "act", "{}");
            fh_flow_step(flow, s, fresh, method(fresh, "process"), shape->on_error);
            fh_instance_free(steps[s]);
            steps[s] = fresh;
            break;
        }
        default:
            over = 1;
        }
    }
    found.parked += take_parked(flow, &found.fatal);
    found.counters = *fh_flow_counters(flow);
    fh_flow_free(flow);
    if (pick(2)) {
        fh_stream_free(stream);
        fh_instance_free(source);
    } else { /* as a garbage collector may do it */
        fh_instance_free(source);
        fh_stream_free(stream);
    }
    for (int s = 0; s < shape->step_count; s++) fh_instance_free(steps[s]);
    fh_instance_free(sink);
    if (input) fclose(input);
    if (output) fclose(output);
    return found;
}

static void flows(fh_library *act) {
    static const int32_t policies[] = {FH_SKIP, FH_DEAD_LETTER, FH_FAIL};
    static const char *const sinks[] = {"keep", "keep-one"};
    static const int native[][3] = {{NATIVE, NATIVE, NATIVE}, {NATIVE, PYTHON, NATIVE}, {PYTHON, NATIVE, PYTHON}};
    char name[200];
    scenario = name;
    for (int policy = 0; policy < 3; policy++)
        for (int count = 0; count <= 3; count++)
            for (int mix = 0; mix < 3; mix++)
                for (int ends = 0; ends < 4; ends++) {
                    int stepped = 0;
                    shape shape = {.source = ends & 1 ? PYTHON : NATIVE, .step_count = count,
                                   .sink = ends & 2 ? PYTHON : NATIVE, .on_error = policies[policy],
                                   .sink_plugin = sinks[(count + mix) & 1]};
                    snprintf(name, sizeof name, "policy %d, %d steps, mix %d, ends %d", policy, count, mix, ends);
                    for (int s = 0; s < count; s++) {
                        shape.steps[s] = native[mix][s];
                        stepped |= native[mix][s] == NATIVE;
                    }
                    uint32_t records = shape.sink_plugin[4] ? RECORDS / 10 : RECORDS / 4;
                    model expected = write_input(records, 500, stepped);
                    outcome found = run(act, &shape);
                    if (policies[policy] == FH_FAIL) {
                        CHECK(found.event == (found.fatal ? FH_EVENT_FAILED : FH_EVENT_END));
                        CHECK(found.fatal >= 1 || shape.sink == PYTHON);
                        CHECK(lines_of(out_path) >= 80); /* what came before it */
                        continue;
                    }
                    CHECK(found.event == FH_EVENT_END && found.fatal == 0);
                    CHECK(found.counters.read == records);
                    CHECK(found.counters.read ==
                          found.counters.written + found.counters.skipped + found.counters.dead);
                    CHECK(found.counters.written == lines_of(out_path));
                    CHECK(found.parked == found.counters.dead);
                    if (mix == 0 && shape.sink == NATIVE) {
                        CHECK(found.counters.written == expected.written);
                        CHECK(found.counters.skipped == expected.skipped + (policies[policy] == FH_SKIP ? expected.faults : 0));
                    }
                }
}

static void limits(fh_library *act) {
    static const uint64_t each[] = {1, 2, 63, 64, 65, 100, 1023, 1024, 1025, 5000};
    scenario = "limits";
    write_input(3000, 3000, 0);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        shape shape = {.step_count = 1, .on_error = FH_FAIL, .sink_plugin = "keep", .limit = each[i]};
        outcome found = run(act, &shape);
        uint64_t expected = each[i] < 3000 ? each[i] : 3000;
        CHECK(found.event == FH_EVENT_END && found.counters.read == expected);
        CHECK(found.counters.written == expected && lines_of(out_path) == expected);
    }
}

static void abandoning(fh_library *act) {
    scenario = "abandoning";
    for (int policy = FH_SKIP; policy <= FH_DEAD_LETTER; policy++)
        for (int at = 1; at < 20; at++) {
            write_input(3000, 50, 1);
            shape shape = {.step_count = 2, .steps = {NATIVE, NATIVE}, .on_error = policy, .sink_plugin = "keep",
                           .abandon = at};
            outcome found = run(act, &shape);
            CHECK(found.event == FH_EVENT_FAILED && found.fatal == 1);
            CHECK(found.counters.written == lines_of(out_path) && found.counters.written >= 50);
            CHECK(found.counters.read ==
                  found.counters.written + found.counters.skipped + found.counters.dead);
        }
}

static void *stop_soon(void *flow) {
    usleep(20000);
    fh_flow_stop(flow);
    return NULL;
}
static void stopping(fh_library *act, fh_library *tell) {
    scenario = "stopping";
    for (int waits = 0; waits < 2; waits++) {
        fh_instance *source = waits ? make(tell, "ticks", "{\"count\":0}") : make(tell, "large", "{\"count\":1000000000}");
        fh_stream *stream = open_stream(source, "read_data");
        fh_instance *step = make(act, "act", "{}"), *sink = make_with_path(act, "keep", out_path);
        fh_flow *flow = fh_flow_new(1, 65536);
        pthread_t thread;
        fh_flow_source(flow, stream, 0, FH_FAIL);
        fh_flow_step(flow, 0, step, method(step, "process"), FH_FAIL);
        fh_flow_sink(flow, sink, method(sink, "write"), 1, FH_FAIL);
        pthread_create(&thread, NULL, stop_soon, flow);
        CHECK(fh_lane_run(flow) == FH_EVENT_STOPPED);
        pthread_join(thread, NULL);
        CHECK(fh_flow_counters(flow)->read == fh_flow_counters(flow)->written);
        uint64_t written = fh_flow_counters(flow)->written;
        fh_flow_free(flow);
        fh_instance_free(sink);
        CHECK(lines_of(out_path) == written);
        fh_stream_free(stream);
        fh_instance_free(source);
        fh_instance_free(step);
    }
}

/* ---- what stands alone --------------------------------------------------------------------------------- */

static void poisoned(fh_library *poisons) {
    scenario = "a poisoned instance";
    fh_instance *instance = make(poisons, "poisons", "{\"at\":3}");
    fh_answer *answer = fh_answer_new(16, FH_DEFAULT_LIMIT);
    int32_t process = method(instance, "process");
    for (int i = 0; i < 6; i++) {
        int64_t result = fh_call(instance, process, (const uint8_t *)"{\"n\":1}", 7, answer);
        CHECK(i < 2 ? (result & ~FH_MOVED) == 7
                    : result == (i == 2 ? FERRULE_INTERNAL : FERRULE_INVALID_STATE) + (int64_t)FH_STATUS);
    }
    fh_answer_free(answer);
    fh_instance_free(instance);
}

static void reading(fh_library *tell) {
    static const char *const sources[] = {"several", "spoilt", "large", "ticks"};
    static const uint32_t rows_of[] = {10, 5, 10, 3};
    scenario = "reading a stream";
    for (int s = 0; s < 4; s++) {
        fh_instance *instance = make(tell, sources[s], "{}");
        fh_stream *stream = open_stream(instance, "read_data");
        fh_reader *reader = fh_reader_new(stream, s == 0);
        uint32_t rows = 0, total = 0;
        uint8_t *bytes = NULL, *error = NULL;
        size_t length = 0, error_len = 0;
        int32_t status;
        do {
            status = fh_reader_fill(reader, 5000, &rows, &bytes, &length, &error, &error_len);
            total += rows;
            CHECK(rows == 0 || bytes[length - 1] == '\n');
        } while (status == FERRULE_OK);
        CHECK(status == FERRULE_END && total == rows_of[s]);
        fh_reader_free(reader);
        fh_instance_free(instance);
        fh_stream_free(stream);
    }
}

static void growing(fh_library *tell) {
    scenario = "an answer that grows";
    fh_instance *instance = make(tell, "tell", "{}");
    fh_answer *answer = fh_answer_new(16, (size_t)1 << 24);
    int32_t grow = method(instance, "grow");
    for (int i = 0; i < 28; i++) {
        char in[64];
        int length = snprintf(in, sizeof in, "{\"bytes\":%lld}", 1ll << i);
        int64_t result = fh_call_with(instance, grow, (const uint8_t *)in, (size_t)length, 7, "{\"a\":1}", 7, answer);
        CHECK(i < 24 ? (result & ~FH_MOVED) == (1ll << i) / 64 * 64 + 2
                     : result == FERRULE_OUT_OF_MEMORY + (int64_t)FH_STATUS);
    }
    fh_answer_free(answer);
    fh_instance_free(instance);
}

static void logging(fh_library *tell) {
    static const char in[] = "{\"message\":\"x\",\"times\":20000,\"bytes\":333,\"fields\":{\"a\":[1,2]}}";
    static uint8_t room[1 << 17];
    scenario = "logging";
    fh_log_level(10);
    fh_instance *instance = make(tell, "tell", "{}");
    fh_answer *answer = fh_answer_new(16, 1024);
    for (int i = 0; i < 3; i++) {
        uint64_t before = fh_log_dropped(), taken = 0;
        CHECK((fh_call(instance, method(instance, "log"), (const uint8_t *)in, sizeof in - 1, answer) & ~FH_MOVED) == 1);
        for (size_t length; (length = fh_log_take(room, sizeof room - 1000 * (size_t)i)) != 0;) {
            for (size_t at = 0; at < length; taken++) {
                uint32_t size;
                memcpy(&size, room + at, sizeof size);
                CHECK(size >= 333 && size % 8 == 0);
                at += size;
            }
        }
        CHECK(taken + (fh_log_dropped() - before) == 20000 && taken > 100);
    }
    fh_log_level(30);
    fh_answer_free(answer);
    fh_instance_free(instance);
}

/* ---- threads ------------------------------------------------------------------------------------------- */

typedef struct {
    fh_instance *instance;
    fh_stream *stream;
    int32_t method, calls;
    const char *in;
    int64_t sum;
} worker;

static void *call_often(void *data) {
    worker *mine = data;
    fh_answer *answer = fh_answer_new(16, 1024);
    for (int32_t i = 0; i < mine->calls; i++) {
        int64_t result = fh_call(mine->instance, mine->method, (const uint8_t *)mine->in, strlen(mine->in), answer);
        if (result < 0) {
            CHECK(result == FERRULE_INVALID_STATE + (int64_t)FH_STATUS); /* closed meanwhile */
            break;
        }
        mine->sum++;
    }
    fh_answer_free(answer);
    return NULL;
}
static void *read_on(void *data) {
    worker *mine = data;
    fh_answer *answer = fh_answer_new(16, 1024);
    for (int64_t result; (result = fh_stream_next(mine->stream, 3, answer)) >= 0 ||
                         result == FERRULE_TIMEOUT + (int64_t)FH_STATUS;)
        mine->sum += result >= 0;
    fh_answer_free(answer);
    return NULL;
}
static void *take_logs(void *data) {
    static uint8_t room[1 << 17];
    worker *mine = data;
    while (__atomic_load_n(&mine->calls, __ATOMIC_SEQ_CST)) {
        if (fh_log_wait(5) > 0) mine->sum += (int64_t)fh_log_take(room, sizeof room);
    }
    return NULL;
}

/* Callers of a serial and of a concurrent instance, readers, a canceller and closers, all at once. */
static void threads(fh_library *tell) {
    enum { CALLERS = 6 };
    scenario = "threads";
    fh_log_level(20);
    for (int round = 0; round < 12; round++) {
        fh_instance *serial = make(tell, "tell", "{}"), *concurrent = make(tell, "together", "{}");
        fh_instance *source = make(tell, "ticks", "{\"count\":40,\"ms\":1}");
        fh_stream *stream = open_stream(source, "read_data");
        worker log = {NULL, NULL, 0, 1, NULL, 0}, reader = {NULL, stream, 0, 0, NULL, 0};
        worker callers[CALLERS];
        pthread_t logger, reading, calling[CALLERS];
        pthread_create(&logger, NULL, take_logs, &log);
        pthread_create(&reading, NULL, read_on, &reader);
        for (int i = 0; i < CALLERS; i++) {
            fh_instance *instance = i % 3 == 2 ? concurrent : serial;
            const char *name = i % 3 == 2 ? "meet" : i % 3 == 1 ? "log" : "sleep";
            callers[i] = (worker){instance, NULL, method(instance, name), 300, "{\"ms\":0,\"message\":\"m\"}", 0};
            pthread_create(&calling[i], NULL, call_often, &callers[i]);
        }
        if (round % 3 == 1) {
            usleep(5000);
            fh_instance_close(serial);
            fh_instance_close(concurrent);
        } else if (round % 3 == 2) {
            usleep(5000);
            fh_stream_cancel(stream);
            fh_stream_close(stream);
        }
        for (int i = 0; i < CALLERS; i++) {
            pthread_join(calling[i], NULL);
            CHECK(round % 3 == 1 || callers[i].sum == 300);
        }
        pthread_join(reading, NULL);
        CHECK(round % 3 == 2 || reader.sum == 40);
        if (round % 3 != 1) {
            fh_answer *answer = fh_answer_new(16, 1024);
            int64_t length = fh_call(serial, method(serial, "sleep"), (const uint8_t *)"{}", 2, answer) & ~FH_MOVED;
            CHECK(length == 3 && memcmp(answer->out.data, "601", 3) == 0); /* not one was lost */
            fh_answer_free(answer);
        }
        __atomic_store_n(&log.calls, 0, __ATOMIC_SEQ_CST);
        pthread_join(logger, NULL);
        fh_stream_free(stream);
        fh_instance_free(source);
        fh_instance_free(serial);
        fh_instance_free(concurrent);
    }
    fh_log_level(30);
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: pump_asan libact.so libtell.so libpoisons.so FOLDER\n");
        return 2;
    }
    snprintf(in_path, sizeof in_path, "%s/asan-in", arguments[4]);
    snprintf(out_path, sizeof out_path, "%s/asan-out", arguments[4]);
    fh_library *act = load(arguments[1]), *tell = load(arguments[2]), *poisons = load(arguments[3]);
    threads(tell);
    stopping(act, tell);
#if !defined(__SANITIZE_THREAD__)
    flows(act);
    limits(act);
    abandoning(act);
    poisoned(poisons);
    reading(tell);
    growing(tell);
    logging(tell);
#endif
    free(act);
    free(tell);
    free(poisons);
    return 0;
}

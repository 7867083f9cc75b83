/* flows: drives the host's C as ferrule's engine does, without Python, so that sanitizers see all of it.
 *
 *   flows ACT_LIBRARY NOISY_LIBRARY FOLDER SEED ROUNDS LANES ORDER    ORDER: source | any
 *
 * Each round is a flow over generated input: other steps, policies, chunk sizes, sources and sinks, some of them
 * "Python's", which is this program's. Every lane is a thread; one thread takes up the rows that wait, one reads logs
 * and counters. At the end of a round the counters must agree with each other and with the output. Exit status 1 with
 * a line on stderr where they do not; a sanitizer says the rest. */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_STEPS 3
#define MAX_LANES 4

static void die(const char *what) {
    fprintf(stderr, "flows: %s\n", what);
    exit(1);
}

static uint64_t state;
static uint32_t pick(uint32_t below) {         /* one thread alone */
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

/* ---- libraries and instances ------------------------------------------------------------------------------ */

static fh_library *open_library(const char *path) {
    char error[400] = "";
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    ferrule_plugin_manifest_fn manifest_of = NULL;
    if (handle != NULL) {
        void *found = dlsym(handle, "ferrule_plugin_manifest");
        memcpy(&manifest_of, &found, sizeof found);
    }
    if (manifest_of == NULL) die("a library cannot be opened");
    const ferrule_manifest *manifest = manifest_of();
    fh_library *library = fh_library_open(path, (const uint8_t *)(manifest + 1), manifest->json_len, error, sizeof error);
    if (library == NULL) die(error);
    return library;
}

static fh_instance *make(fh_library *library, const char *plugin, const char *config) {
    int32_t status;
    fh_answer *answer = fh_answer_new(1024, 1 << 20);
    fh_instance *instance = fh_instance_new(library, fh_new_id(), NULL, plugin, strlen(plugin), config, strlen(config), 1,
                                            answer, &status);
    if (instance == NULL) die("an instance cannot be made");
    fh_answer_free(answer);
    return instance;
}

static int32_t method_of(fh_instance *instance, const char *name) {
    return fh_instance_method(instance, name, strlen(name));
}

static int32_t call(fh_instance *instance, const char *method, const uint8_t *in, size_t in_len) {
    fh_answer *answer = fh_answer_new(256, 1 << 20);
    int32_t status = fh_call(instance, method_of(instance, method), in, in_len, answer);
    fh_answer_free(answer);
    return status;
}

/* ---- a flow ------------------------------------------------------------------------------------------------ */

typedef struct waiting_row {
    struct waiting_row *following;
    uint32_t step;
    size_t length;
    uint8_t input[];
} waiting_row;

typedef struct {
    fh_library *act;
    fh_flow *flow;
    fh_instance *sink;
    fh_stream *source;
    uint32_t steps, lanes;
    const char *plugins[MAX_STEPS];            /* NULL: this program's */
    char out[300];
    uint64_t python_left, python_written;      /* of a source and a sink of this program's: guarded by their gates */
    pthread_mutex_t mutex;                     /* guards what follows */
    pthread_cond_t changed;
    waiting_row *waiting;
    uint64_t letters, last_letter;
    int32_t ended;
} run;

typedef struct {
    run *run;
    fh_lane *lane;
    fh_instance *steps[MAX_STEPS];
} seat;

/* Takes the rows that failed, beside the lanes, until there are no more. */
static void *take_parked(void *argument) {
    run *run = argument;
    uint32_t rows;
    const uint8_t *bytes;
    size_t length, sum = 0;
    for (;;) {
        const fh_parked *parked = fh_flow_parked(run->flow, &rows, &bytes, &length);
        if (rows == 0) return (void *)(uintptr_t)(sum == 1);
        uint64_t letters = 0, last = 0;
        for (uint32_t i = 0; i < rows; i++) {
            for (size_t at = 0; at < (size_t)parked[i].record_len + parked[i].error_len; at++) sum += bytes[parked[i].offset + at];
            if (parked[i].offset + parked[i].record_len + parked[i].error_len > length) die("a parked row lies outside");
            letters += parked[i].policy == FH_DEAD_LETTER;
            if (parked[i].record > last) last = parked[i].record;
        }
        pthread_mutex_lock(&run->mutex);
        run->letters += letters;
        if (run->flow->in_order && last <= run->last_letter) die("a park was handed over out of its turn");
        run->last_letter = last;
        pthread_mutex_unlock(&run->mutex);
    }
}

static void fill(seat *seat) {
    run *run = seat->run;
    char text[100][100], all[100 * 100];
    uint32_t lengths[100], rows = 0;
    size_t length = 0;
    for (; rows < 100 && rows < run->python_left && rows < fh_flow_room(run->flow); rows++) {
        const uint64_t number = run->python_left - rows;
        lengths[rows] = FH_NONE;
        if (number % 40 == 0) {
            fh_lane_reject(seat->lane, rows, FH_SOURCE, FERRULE_INVALID_DATA, 0, 1, (const uint8_t *)"{}", 2);
            continue;
        }
        lengths[rows] = (uint32_t)snprintf(text[rows], 100, "{\"n\":%llu,\"act\":\"%s\"}", (unsigned long long)number,
                                           number % 11 ? "ok" : number % 2 ? "invalid" : "panic");
        memcpy(all + length, text[rows], lengths[rows]);
        length += lengths[rows];
    }
    run->python_left -= rows;
    fh_lane_filled(seat->lane, (const uint8_t *)all, lengths, rows, run->python_left == 0, (const uint8_t *)"1", 1);
}

/* Gives each row back; every 13th is skipped, every 17th is made two, every 19th fails. */
static void step(seat *seat) {
    size_t length, used = 0;
    uint32_t rows;
    const uint8_t *bytes = fh_lane_rows(seat->lane, &length, &rows);
    uint8_t *all = malloc(2 * length + 2);
    uint32_t *lengths = malloc((rows + 1) * sizeof *lengths), answered = 0;
    for (; answered < rows; answered++) {
        const uint8_t *end = memchr(bytes, '\n', length);
        if (end == NULL) die("rows without their newlines");
        const size_t line = (size_t)(end - bytes);
        lengths[answered] = FH_NONE;
        if (line % 19 == 0) {
            const uint32_t number = fh_lane_event_step(seat->lane);
            if (fh_lane_reject(seat->lane, answered, number, FERRULE_DENIED, 0, 1, (const uint8_t *)"{}", 2)) {
                break;
            }
        } else if (line % 13 != 0) {
            memcpy(all + used, bytes, line);
            lengths[answered] = (uint32_t)line;
            if (line % 17 == 0) {
                all[used + line] = '\n';
                memcpy(all + used + line + 1, bytes, line);
                lengths[answered] = (uint32_t)(2 * line + 1);
            }
            used += lengths[answered];
        }
        length -= line + 1;
        bytes = end + 1;
    }
    fh_lane_stepped(seat->lane, all, lengths, answered);
    free(lengths);
    free(all);
}

static void drain(seat *seat) {
    size_t length, newlines = 0;
    uint32_t rows;
    const uint8_t *bytes = fh_lane_rows(seat->lane, &length, &rows);
    for (size_t i = 0; i < length; i++) newlines += bytes[i] == '\n';
    if (newlines != rows) die("rows that are not lines");
    seat->run->python_written += rows;
    fh_lane_drained(seat->lane, rows);
}

static void replace(seat *seat, uint32_t number) {
    fh_instance_free(seat->steps[number]);
    seat->steps[number] = make(seat->run->act, seat->run->plugins[number], "{}");
    fh_lane_step(seat->lane, number, seat->steps[number], method_of(seat->steps[number], "process"));
}

static void retry(seat *seat) {
    run *run = seat->run;
    fh_retry asked;
    fh_lane_retrying(seat->lane, &asked);
    const uint32_t number = fh_lane_event_step(seat->lane);
    if (number < run->steps && !run->flow->in_order && run->sink != NULL && asked.record % 3 == 0) {
        waiting_row *row = malloc(sizeof *row + asked.input_len);
        row->step = number;
        row->length = asked.input_len;
        memcpy(row->input, asked.input, asked.input_len);
        pthread_mutex_lock(&run->mutex);
        row->following = run->waiting;
        run->waiting = row;
        pthread_cond_broadcast(&run->changed);
        pthread_mutex_unlock(&run->mutex);
        fh_lane_retry(seat->lane, FH_TAKEN);
    } else {
        fh_lane_retry(seat->lane, asked.record % 5 ? FH_AGAIN : FH_GIVE_UP);
    }
}

static void *sit(void *argument) {
    seat *seat = argument;
    run *run = seat->run;
    uint64_t records;
    size_t length;
    for (;;) {
        switch (fh_lane_run(seat->lane)) {
        case FH_EVENT_END: return NULL;
        case FH_EVENT_BROKEN: replace(seat, fh_lane_event_step(seat->lane)); break;
        case FH_EVENT_RETRY: retry(seat); break;
        case FH_EVENT_CHECKPOINT:
            pthread_mutex_lock(&run->mutex);
            fh_mutex_lock(&run->flow->mutex);
            if (run->flow->counters.dead != run->letters) die("letters are not there at a checkpoint");
            fh_mutex_unlock(&run->flow->mutex);
            pthread_mutex_unlock(&run->mutex);
            if (run->sink != NULL && call(run->sink, "flush", (const uint8_t *)"{}", 2) < 0) die("flush failed");
            fh_flow_position(run->flow, &length, &records);
            break;
        case FH_EVENT_SOURCE: fill(seat); break;
        case FH_EVENT_STEP: step(seat); break;
        case FH_EVENT_SINK: drain(seat); break;
        default: die("an event that nobody knows");
        }
    }
}

/* Takes rows that wait into the sink, or to their end. */
static void *take_up(void *argument) {
    run *run = argument;
    for (;;) {
        pthread_mutex_lock(&run->mutex);
        while (run->waiting == NULL && !run->ended) pthread_cond_wait(&run->changed, &run->mutex);
        waiting_row *row = run->waiting;
        if (row != NULL) run->waiting = row->following;
        pthread_mutex_unlock(&run->mutex);
        if (row == NULL) return NULL;
        uint8_t *line = malloc(row->length + 1);
        memcpy(line, row->input, row->length);
        line[row->length] = '\n';
        const int written = row->length % 4 && call(run->sink, "write", line, row->length + (line[row->length - 1] != '\n')) >= 0;
        fh_flow_settled(run->flow, (uint64_t)written, (uint64_t)!written, 0);
        free(line);
        free(row);
    }
}

static void *listen(void *argument) {
    run *run = argument;
    uint8_t *room = malloc(1 << 17);
    uint64_t seen = 0;
    int32_t ended = 0;
    while (!ended) {
        fh_log_wait(1);
        for (size_t taken; (taken = fh_log_take(room, 1 << 17)) != 0;) seen += taken;
        fh_mutex_lock(&run->flow->mutex);      /* Python reads them without; a torn count is no fault to it */
        seen += run->flow->counters.written;
        fh_mutex_unlock(&run->flow->mutex);
        pthread_mutex_lock(&run->mutex);
        ended = run->ended;
        pthread_mutex_unlock(&run->mutex);
    }
    free(room);
    return (void *)(uintptr_t)(seen == 1);
}

static void write_input(const char *path, uint32_t records) {
    static const char *const acts[] = {"skip", "invalid", "flaky", "later", "panic", "internal", "newline", "utf8", "text", "big",
                                       "unkept", "unavailable"};
    FILE *file = fopen(path, "wb");
    for (uint32_t i = 0; i < records; i++) {
        const uint32_t choice = pick(40);
        if (choice == 39) {
            fputs("!\n", file);
        } else {
            fprintf(file, "{\"n\":%u,\"act\":\"%s\",\"times\":%u,\"pad\":\"%.*s\"}\n", pick(1 << 20),
                    choice < 12 && (choice != 9 || i % 8 == 0) ? acts[choice] : "ok", pick(3), (int)pick(40),
                    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
        }
    }
    fclose(file);
}

static uint64_t lines_of(const char *path) {
    uint64_t lines = 0;
    FILE *file = fopen(path, "rb");
    for (int byte; (byte = fgetc(file)) != EOF;) lines += byte == '\n';
    fclose(file);
    return lines;
}

static void run_once(fh_library *act, fh_library *noisy, const char *folder, uint32_t lanes, int in_order) {
    static const char *const kinds[] = {"act", "act", "act", "whole", "several", NULL};
    static const size_t fills[] = {1, 60, 300, 4096, 65536};
    run run = {.act = act, .lanes = lanes, .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    char path[300], config[400];
    const int32_t policies[] = {FH_SKIP, FH_DEAD_LETTER};
    const int stops = pick(4) == 0, fails = pick(6) == 0;
    run.steps = pick(MAX_STEPS + 1);
    snprintf(run.out, sizeof run.out, "%s/out", folder);
    snprintf(path, sizeof path, "%s/in", folder);
    run.flow = fh_flow_new(run.steps, fills[pick(5)], in_order);
    run.flow->park_rows = 1 + pick(20);
    if (pick(3)) fh_flow_checkpoints(run.flow, pick(2) ? -1 : 1);
    if (pick(8) == 0) fh_flow_limit(run.flow, 1 + pick(200));

    fh_instance *source = NULL;
    fh_answer *answer = fh_answer_new(1024, 1 << 20);
    int32_t status = FERRULE_OK;
    const uint32_t kind = pick(4);
    if (kind == 0) {
        run.python_left = 200 + pick(400);
    } else {
        write_input(path, 100 + pick(300));
        snprintf(config, sizeof config, kind == 1 ? "{\"count\":600}" : "{\"path\":\"%s\"}", path);
        source = make(kind == 1 ? noisy : act, kind == 1 ? "noisy" : "lines", config);
        run.source = fh_stream_open(source, fh_new_id(), method_of(source, "read_data"), (const uint8_t *)"{}", 2, -1, NULL, NULL, 0,
                                    answer, &status);
        if (run.source == NULL) die("a source cannot be opened");
    }
    const uint32_t retries = pick(3);
    fh_flow_source(run.flow, run.source, 0, policies[pick(2)], retries);
    if (pick(4)) {
        snprintf(config, sizeof config, "{\"path\":\"%s\"}", run.out);
        run.sink = make(act, "keep", config);
        if (call(run.sink, "open", (const uint8_t *)"{}", 2) < 0) die("a sink cannot be opened");
    }
    fh_flow_sink(run.flow, run.sink, run.sink ? method_of(run.sink, "write") : 0, 1, policies[pick(2)], retries);
    for (uint32_t s = 0; s < run.steps; s++) {
        run.plugins[s] = kinds[pick(6)];
        const int32_t answers = run.plugins[s] == NULL                   ? FH_ONE
                                : strcmp(run.plugins[s], "several") == 0 ? FH_SEVERAL
                                : strcmp(run.plugins[s], "whole") == 0   ? FH_LINES
                                                                         : FH_ONE;
        fh_flow_step(run.flow, s, fails ? FH_FAIL : policies[pick(2)], retries, answers);
    }

    seat seats[MAX_LANES];
    pthread_t threads[MAX_LANES], waiter, listener, letters;
    memset(seats, 0, sizeof seats);
    for (uint32_t l = 0; l < lanes; l++) {
        seats[l].run = &run;
        seats[l].lane = fh_lane_new(run.flow);
        for (uint32_t s = 0; s < run.steps; s++) {
            fh_instance *instance = run.plugins[s] ? make(act, run.plugins[s], "{}") : NULL;
            seats[l].steps[s] = instance;
            fh_lane_step(seats[l].lane, s, instance, instance ? method_of(instance, "process") : 0);
        }
    }
    pthread_create(&waiter, NULL, take_up, &run);
    pthread_create(&listener, NULL, listen, &run);
    pthread_create(&letters, NULL, take_parked, &run);
    for (uint32_t l = 0; l < lanes; l++) pthread_create(&threads[l], NULL, sit, &seats[l]);
    if (stops) {
        usleep(pick(3000));
        fh_flow_stop(run.flow);
    }
    for (uint32_t l = 0; l < lanes; l++) pthread_join(threads[l], NULL);
    pthread_mutex_lock(&run.mutex);
    run.ended = 1;
    pthread_cond_broadcast(&run.changed);
    pthread_mutex_unlock(&run.mutex);
    pthread_join(waiter, NULL);
    pthread_join(listener, NULL);
    fh_flow_all_parked(run.flow);
    pthread_join(letters, NULL);

    uint32_t left;
    const uint8_t *bytes;
    size_t length;
    fh_flow_left(run.flow, &left, &bytes, &length);
    const fh_counters *c = fh_flow_counters(run.flow);
    if (fh_flow_stopping(run.flow) == 0) {
        if (c->taken || left) die("rows came to no end");
        if (c->read + c->added != c->written + c->skipped + c->dead + c->failed) die("the counters do not add up");
        if (c->dead != run.letters) die("dead letters were lost");
    }
    for (uint32_t l = 0; l < lanes; l++) {
        fh_lane_free(seats[l].lane);
        for (uint32_t s = 0; s < run.steps; s++) fh_instance_free(seats[l].steps[s]);
    }
    const uint64_t written = c->written, python = run.python_written;
    fh_flow_free(run.flow);
    fh_instance_free(run.sink);
    fh_stream_free(run.source);
    fh_instance_free(source);
    fh_answer_free(answer);
    if ((run.sink != NULL ? lines_of(run.out) : python) != written) die("the output has another number of lines");
}

int main(int argc, char **argv) {
    if (argc != 8) die("see the head of flows.c");
    static fh_library *act, *noisy;            /* never closed, and static so that they are no leaks */
    act = open_library(argv[1]);
    noisy = open_library(argv[2]);
    state = strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    const uint32_t rounds = (uint32_t)atoi(argv[5]), lanes = (uint32_t)atoi(argv[6]);
    for (uint32_t i = 0; i < rounds; i++) run_once(act, noisy, argv[3], lanes, strcmp(argv[7], "source") == 0);
    printf("%u flows\n", rounds);
    return 0;
}

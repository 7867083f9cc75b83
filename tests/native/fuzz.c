/* fuzz: the C that reads what plugins wrote, fed with plugins that do what the fuzzer says.
 *
 * An input is a script. Its first bytes choose a flow: steps, policies, sizes; the others are taken by the plugins one
 * after the other: what `next` and `call` append, which status they answer, which rule of the buffers they break. When
 * the script is over, plugins behave. What reaches the sink must be lines as the ABI promises them, every record must
 * come to an end, and nothing may be read or written outside.
 *
 * With clang: -fsanitize=fuzzer. Without: -DFUZZ_MAIN, a plain mutator:  fuzz SECONDS SEED FOLDER... */
#define _GNU_SOURCE
#include "internal.h"

#include <pthread.h>
#include <stdio.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "fuzz: not so: %s (line %d)\n", #condition, __LINE__); \
            abort(); \
        } \
    } while (0)

static const uint8_t *script;
static size_t script_left;

static uint8_t take(void) { return script_left ? (script_left--, *script++) : 0; }
static const uint8_t *take_bytes(size_t *length) {
    const uint8_t *bytes = script;
    *length = take();
    bytes = script;
    if (*length > script_left) *length = script_left;
    script += *length;
    script_left -= *length;
    return bytes;
}

/* ---- one flow's plugins ----------------------------------------------------------------------------------- */

enum { MAX_STEPS = 3, MOST_ITEMS = 300 };

static struct {
    int32_t sink_lines, objects;               /* objects: a step has seen every record */
    uint32_t items;
    uint64_t written, stream_id;
} now;

static int32_t add(ferrule_buffer *out, const void *bytes, size_t length) {
    if (out->capacity - out->len < length && out->reserve(out, length) != FERRULE_OK) return FERRULE_OUT_OF_MEMORY;
    if (length) memcpy(out->data + out->len, bytes, length);
    out->len += length;
    return FERRULE_OK;
}

static int32_t fail(ferrule_buffer *error, int32_t status) {
    size_t length;
    const uint8_t *bytes = take_bytes(&length);
    if (length % 4 == 1) add(error, "{\"retry_after_ms\":1}", 20);
    else if (length % 4 == 2) add(error, bytes, length);
    return status;
}

static int32_t forged_reserve(ferrule_buffer *buffer, size_t additional) {
    (void)buffer, (void)additional;
    return FERRULE_OK;
}

static void break_rule(ferrule_buffer *buffer) {
    static uint8_t elsewhere[8];
    switch (take() % 7) {
    case 0: buffer->len = buffer->capacity + 1 + take(); break;
    case 1: buffer->len = (size_t)-1 - take(); break;
    case 2: buffer->data = elsewhere; break;
    case 3: buffer->capacity += 1 + take(); break;
    case 4: buffer->capacity = 0; break;
    case 5: buffer->reserve = forged_reserve; break;
    default: buffer->len = buffer->len > 3 ? buffer->len - 1 - take() % 3 : 0; break;
    }
}

static int32_t any_status(void) { return (int8_t)take() % 20; }

static const char GOOD[] = "{\"a\":\"\xC3\xA4\"}";

static int32_t plugin_next(ferrule_stream *stream, int64_t timeout_ms, ferrule_buffer *out, ferrule_buffer *error) {
    size_t length;
    (void)stream, (void)timeout_ms;
    fh_waiter_wake(now.stream_id);             /* so that PENDING costs no time */
    if (script_left == 0 || ++now.items > MOST_ITEMS) return FERRULE_END;
    const uint8_t op = take();
    switch (op % 8) {
    case 0: {
        const uint8_t *bytes = take_bytes(&length);
        return add(out, bytes, length);
    }
    case 1: {
        const int32_t status = any_status();
        add(out, GOOD, sizeof GOOD - 1);
        return status < 0 ? fail(error, status) : status;
    }
    case 2:
        break_rule(take() % 2 ? out : error);
        return any_status();
    case 3:
        CHECK(out->reserve(out, (size_t)-1 - take()) == FERRULE_OUT_OF_MEMORY);
        return add(out, GOOD, sizeof GOOD - 1);
    case 4: {
        for (unsigned i = take() * 4u; i > 0; i--) add(out, i % 3 ? GOOD : "\n", i % 3 ? sizeof GOOD - 1 : 1);
        return FERRULE_OK;
    }
    default: return add(out, GOOD, sizeof GOOD - 1);
    }
}
static int32_t plugin_position(ferrule_stream *stream, ferrule_buffer *out, ferrule_buffer *error) {
    (void)stream;
    if (script_left % 16 == 7) {
        break_rule(out);
        return FERRULE_OK;
    }
    return script_left % 16 == 9 ? fail(error, FERRULE_IO) : add(out, "17", 2);
}
static void plugin_cancel(ferrule_stream *stream) { (void)stream; }
static void plugin_close(ferrule_stream *stream) { (void)stream; }

static int32_t step_call(ferrule_instance *instance, int32_t method, const ferrule_call *call, const uint8_t *in,
                         size_t in_len, ferrule_buffer *out, ferrule_buffer *error) {
    size_t length, sum = 0;
    (void)instance, (void)method, (void)call;
    for (size_t i = 0; i < in_len; i++) sum += in[i];      /* all that was lent may be read */
    switch (take() % 8) {
    case 1: {
        const uint8_t *bytes = take_bytes(&length);
        return add(out, bytes, length);
    }
    case 2: {
        const int32_t status = any_status();
        add(out, in, in_len);
        return status < 0 ? fail(error, status) : status;
    }
    case 3:
        break_rule(take() % 2 ? out : error);
        return any_status();
    case 4:
        for (unsigned i = take() % 8u; i > 0; i--) {
            add(out, in, in_len);
            add(out, "\n\n", i % 3);
        }
        return FERRULE_OK;
    case 5:
        CHECK(out->reserve(out, (size_t)-1 - take()) == FERRULE_OUT_OF_MEMORY);
        for (unsigned i = take(); i > 0; i--) add(out, "{\"grows\":\"0123456789\"}\n", 23);
        return FERRULE_OK;
    case 6: {                                  /* lines for lines, one of them spoilt */
        const uint32_t at = take();
        add(out, in, in_len);
        if (in_len) out->data[out->len - 1 - at % in_len] = take();
        return FERRULE_OK;
    }
    default: return sum == 1 ? FERRULE_OK : add(out, in, in_len);
    }
}

/* UTF-8 once more, by the book and slowly. */
static int is_utf8(const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length;) {
        const uint8_t lead = bytes[i++];
        int more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : -1;
        uint32_t code = more == 0 ? lead : more == 1 ? lead & 31u : more == 2 ? lead & 15u : lead & 7u;
        if (more < 0) return 0;
        const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
        for (int k = 0; k < more; k++) {
            if (i == length || bytes[i] >> 6 != 2) return 0;
            code = code << 6 | (bytes[i++] & 63u);
        }
        if (code < least[more] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
    }
    return 1;
}

static int32_t sink_call(ferrule_instance *instance, int32_t method, const ferrule_call *call, const uint8_t *in,
                         size_t in_len, ferrule_buffer *out, ferrule_buffer *error) {
    uint64_t lines = 0;
    (void)instance, (void)method, (void)call, (void)out;
    CHECK(in_len > 0 && is_utf8(in, in_len));
    if (now.sink_lines) CHECK(in[in_len - 1] == '\n');
    for (size_t at = 0; at < in_len; lines++) {
        const uint8_t *end = memchr(in + at, '\n', in_len - at);
        const size_t length = end ? (size_t)(end - (in + at)) : in_len - at;
        CHECK(now.sink_lines || end == NULL);
        if (now.objects) CHECK(length >= 2 && in[at] == '{' && in[at + length - 1] == '}');
        at += length + 1;
    }
    const uint8_t op = take();
    if (op % 8 == 7) {
        error->capacity += 1 + take();         /* whatever it says: what breaks the rules has written nothing */
        return FERRULE_OK;
    }
    if (op % 8 == 6) return fail(error, -1 - take() % 15);
    now.written += lines;
    return FERRULE_OK;
}

static const ferrule_stream_ops stream_ops = {
    sizeof(ferrule_stream_ops), FERRULE_STREAM_WAKES, plugin_cancel, plugin_close, plugin_next, NULL, plugin_position,
    NULL, NULL};
static ferrule_stream the_stream = {&stream_ops};

static int32_t plugin_open(ferrule_instance *instance, int32_t method, const ferrule_call *call, const uint8_t *in,
                           size_t in_len, ferrule_stream **out, ferrule_buffer *error) {
    (void)instance, (void)method, (void)call, (void)in, (void)in_len, (void)error;
    *out = &the_stream;
    return FERRULE_OK;
}
static int32_t plugin_method(ferrule_instance *instance, const char *name, size_t name_len) {
    (void)instance, (void)name, (void)name_len;
    return 0;
}
static const ferrule_instance_ops step_ops = {sizeof step_ops, 0, plugin_method, step_call, plugin_open, NULL};
static const ferrule_instance_ops sink_ops = {sizeof sink_ops, 0, plugin_method, sink_call, NULL, NULL};
static ferrule_instance step_object = {&step_ops}, sink_object = {&sink_ops};
static void plugin_destroy(ferrule_instance *instance) { (void)instance; }

static fh_instance *make(ferrule_instance *object) {
    fh_instance *instance = calloc(1, sizeof *instance);
    instance->object = object;
    instance->ops = object->ops;
    instance->destroy = plugin_destroy;
    instance->id = fh_new_id();
    instance->serial = 1;
    instance->epoch = fh_epoch;
    instance->holders = 1;
    fh_lock_init(&instance->lock);
    return instance;
}

/* ---- one flow --------------------------------------------------------------------------------------------- */

static uint64_t look_at(const fh_parked *rows, uint32_t count, const uint8_t *bytes, size_t length) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(rows[i].offset <= length && rows[i].record_len + (size_t)rows[i].error_len <= length - rows[i].offset);
        for (size_t at = 0; at < (size_t)rows[i].record_len + rows[i].error_len; at++) sum += bytes[rows[i].offset + at];
    }
    return sum;
}

static void python_step(fh_lane *lane) {
    uint32_t rows;
    size_t length, used = 0;
    const uint8_t *bytes = fh_lane_rows(lane, &length, &rows);
    uint8_t *all = malloc(length + 1);
    uint32_t *lengths = malloc((rows + 1) * sizeof *lengths);
    uint32_t answered = 0;
    for (size_t at = 0; answered < rows; answered++) {
        const uint8_t *end = memchr(bytes + at, '\n', length - at);
        CHECK(end != NULL);
        const size_t line = (size_t)(end - (bytes + at));
        const uint8_t op = take();
        lengths[answered] = FH_NONE;
        if (op % 8 == 7) {
            if (fh_lane_reject(lane, answered, fh_lane_event_step(lane), FERRULE_DENIED, op % 16 == 15, 1,
                               (const uint8_t *)"{}", 2)) {
                break;
            }
        } else if (op % 8 != 6) {
            memcpy(all + used, bytes + at, line);
            lengths[answered] = (uint32_t)line;
            used += line;
        }
        at += line + 1;
    }
    fh_lane_stepped(lane, all, lengths, answered);
    free(lengths);
    free(all);
}

static void *take_parked(void *flow) {
    const uint8_t *bytes;
    uint32_t rows;
    size_t length;
    uint64_t sum = 0;
    do {
        const fh_parked *parked = fh_flow_parked(flow, &rows, &bytes, &length);
        sum += look_at(parked, rows, bytes, length);
    } while (rows);
    return (void *)(uintptr_t)(sum == 1);
}

static void run_flow(void) {
    const uint8_t shape = take(), more = take();
    static const size_t fills[] = {1, 40, 500, 65536};
    uint32_t steps = shape % (MAX_STEPS + 1), rows;
    const int in_order = shape >> 2 & 1;
    fh_instance *native[MAX_STEPS] = {NULL}, *source = make(&step_object), *sink = make(&sink_object);
    fh_flow *flow = fh_flow_new(steps, fills[shape >> 3 & 3], in_order);
    fh_answer *answer = fh_answer_new(100, 1000);
    int32_t status, event;
    const uint8_t *bytes;
    size_t length;
    uint64_t taken = 0, sum = 0;

    memset(&now, 0, sizeof now);
    now.sink_lines = shape >> 5 & 1;
    now.stream_id = fh_new_id();
    fh_stream *stream = fh_stream_open(source, now.stream_id, 0, NULL, 0, -1, NULL, NULL, 0, answer, &status);
    CHECK(stream != NULL);
    fh_flow_source(flow, stream, shape >> 6 & 1, 1 + (shape >> 7), more & 3);
    fh_flow_sink(flow, sink, 0, now.sink_lines, more >> 2 & 1 ? FH_FAIL : FH_SKIP, more & 1);
    if (more >> 3 & 1) fh_flow_checkpoints(flow, -1);
    if (more >> 4 & 1) fh_flow_limit(flow, 1 + take());
    if (more >> 5 & 1) {
        fh_flow_begin_at(flow, 10);
        for (uint64_t record = 1; record < 11; record += 1 + take() % 4) {
            const uint8_t kind = take();
            bytes = take_bytes(&length);
            fh_parked row = {record, 0, 0, length ? (uint32_t)length : 2, 2, FERRULE_OK, 0, kind % (steps + 1), 1};
            if (kind >> 6 == 3) {
                row.status = FERRULE_INVALID_DATA;
                row.step = FH_SOURCE;
            } else if (row.step == 0) {
                row.error_len = 0;
            }
            fh_flow_waiting(flow, &row, length ? bytes : (const uint8_t *)"{}", (const uint8_t *)"{}");
        }
    }
    fh_lane *lane = fh_lane_new(flow);
    pthread_t letters;
    pthread_create(&letters, NULL, take_parked, flow);
    for (uint32_t s = 0; s < steps; s++) {
        const uint8_t kind = take();
        native[s] = kind % 5 == 4 ? NULL : make(&step_object);
        now.objects |= native[s] != NULL;
        fh_flow_step(flow, s, kind % 3, kind >> 4 & 3, native[s] == NULL ? FH_ONE : kind % 5 % 3);
        fh_lane_step(lane, s, native[s], 0);
    }
    while ((event = fh_lane_run(lane)) != FH_EVENT_END) {
        const uint32_t at = fh_lane_event_step(lane);
        fh_retry asked;
        switch (event) {
        case FH_EVENT_CHECKPOINT: {
            uint64_t records;
            fh_flow_position(flow, &length, &records);
            break;
        }
        case FH_EVENT_BROKEN:
            if (take() % 8 == 7) {
                fh_lane_abandon(lane, FERRULE_IO, (const uint8_t *)"{}", 2);
                break;
            }
            fh_instance_free(native[at]);
            native[at] = make(&step_object);
            fh_lane_step(lane, at, native[at], 0);
            break;
        case FH_EVENT_RETRY: {
            fh_lane_retrying(lane, &asked);
            for (size_t i = 0; i < asked.input_len; i++) sum += asked.input[i];
            for (size_t i = 0; i < asked.source_len; i++) sum += asked.source[i];
            const int32_t chosen = at >= FH_SINK ? take() % 2 : take() % 3;
            taken += chosen == FH_TAKEN;
            fh_lane_retry(lane, chosen);
            break;
        }
        case FH_EVENT_STEP: python_step(lane); break;
        default: CHECK(!"an event that nobody knows");
        }
        if (script_left == 3) fh_flow_stop(flow);
    }
    fh_flow_all_parked(flow);
    pthread_join(letters, NULL);
    const fh_parked *left = fh_flow_left(flow, &rows, &bytes, &length);
    sum += look_at(left, rows, bytes, length);
    const fh_counters *c = fh_flow_counters(flow);
    CHECK(c->taken == taken);
    CHECK(c->written == now.written);
    if (fh_flow_stopping(flow) == 0) {
        CHECK(rows == 0 || more >> 4 & 1);     /* a limit leaves lines that came with its last one */
        CHECK(c->read + c->added == c->written + c->skipped + c->dead + c->failed + c->taken);
    }
    if (sum == 1) fputs("", stderr);           /* what was looked at is not optimised away */
    fh_lane_free(lane);
    fh_flow_free(flow);
    fh_stream_free(stream);
    for (uint32_t s = 0; s < steps; s++) fh_instance_free(native[s]);
    fh_instance_free(source);
    fh_instance_free(sink);
    fh_answer_free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    script = data;
    script_left = size;
    if (take() % 16 == 0) {                    /* the check of lines, against one that is slow */
        uint64_t lines = 0;
        uint8_t *copy = malloc(script_left + 1);   /* at its end, so that a byte too far is seen */
        memcpy(copy, script, script_left);
        for (size_t i = 0; i < script_left; i++) lines += copy[i] == '\n';
        copy = realloc(copy, script_left ? script_left : 1);
        CHECK(fh_lines_valid(copy, script_left, lines) == is_utf8(copy, script_left));
        CHECK(!fh_lines_valid(copy, script_left, lines + 1));
        CHECK(fh_rows_valid(copy, script_left, lines) == is_utf8(copy, script_left));
        CHECK(lines == 0 || !fh_rows_valid(copy, script_left, lines - 1));
        free(copy);
    } else {
        run_flow();
    }
    return 0;
}

/* ---- without libFuzzer ------------------------------------------------------------------------------------ */

#if defined(FUZZ_MAIN)
#include <dirent.h>
#include <signal.h>
#include <unistd.h>

void __sanitizer_set_death_callback(void (*callback)(void));

#define MOST_INPUT 4096
#define MOST_SEEDS 4096

static struct { uint8_t *bytes; size_t length; } seeds[MOST_SEEDS];
static uint32_t seed_count;
static uint64_t state;
static struct { const uint8_t *bytes; size_t length; } current;

static void save(void) {
    FILE *file = fopen("crash-input", "wb");
    if (file != NULL) {
        fwrite(current.bytes, 1, current.length, file);
        fclose(file);
        fputs("fuzz: the input is in ./crash-input\n", stderr);
    }
}
static void save_and_die(int number) {
    save();
    _exit(128 + number);
}
static void run_input(const uint8_t *bytes, size_t length) {
    current.bytes = bytes;
    current.length = length;
    LLVMFuzzerTestOneInput(bytes, length);
}

static uint32_t pick(uint32_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 33) % below;
}

static void load(const char *folder) {
    DIR *list = opendir(folder);
    for (struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL && seed_count < MOST_SEEDS;) {
        char path[1000];
        uint8_t bytes[MOST_INPUT];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "rb");
        if (file == NULL) continue;
        const size_t length = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        seeds[seed_count].bytes = malloc(length + 1);
        memcpy(seeds[seed_count].bytes, bytes, length);
        seeds[seed_count++].length = length;
    }
    if (list != NULL) closedir(list);
}

static size_t mutate(uint8_t *bytes, size_t length) {
    for (uint32_t times = 1 + pick(8); times > 0; times--) {
        const size_t at = length ? pick((uint32_t)length) : 0;
        switch (pick(5)) {
        case 0: if (length) bytes[at] ^= (uint8_t)(1u << pick(8)); break;
        case 1: if (length) bytes[at] = (uint8_t)pick(256); break;
        case 2:
            if (length < MOST_INPUT) {
                memmove(bytes + at + 1, bytes + at, length - at);
                bytes[at] = (uint8_t)pick(256);
                length++;
            }
            break;
        case 3:
            if (length) {
                memmove(bytes + at, bytes + at + 1, length - at - 1);
                length--;
            }
            break;
        default: {                             /* a piece of another one */
            const uint32_t other = pick(seed_count);
            const size_t from = seeds[other].length ? pick((uint32_t)seeds[other].length) : 0;
            size_t piece = seeds[other].length - from;
            if (piece > MOST_INPUT - at) piece = MOST_INPUT - at;
            memcpy(bytes + at, seeds[other].bytes + from, piece);
            if (at + piece > length) length = at + piece;
        }
        }
    }
    return length;
}

int main(int argc, char **argv) {
    uint64_t runs = 0;
    signal(SIGABRT, save_and_die);
    __sanitizer_set_death_callback(save);
    const int64_t until = fh_monotonic_ms() + 1000 * atoi(argc > 1 ? argv[1] : "1");
    state = strtoull(argc > 2 ? argv[2] : "1", NULL, 10) * 0x9E3779B97F4A7C15u + 1;
    for (int i = 3; i < argc; i++) load(argv[i]);
    for (uint32_t i = 0; i < seed_count; i++) run_input(seeds[i].bytes, seeds[i].length);
    for (; seed_count && fh_monotonic_ms() < until; runs++) {
        uint8_t bytes[MOST_INPUT];
        const uint32_t from = pick(seed_count);
        memcpy(bytes, seeds[from].bytes, seeds[from].length);
        const size_t length = mutate(bytes, seeds[from].length);
        uint8_t *copy = malloc(length ? length : 1);
        memcpy(copy, bytes, length);
        run_input(copy, length);
        free(copy);
    }
    fprintf(stderr, "Done %llu runs from %u seeds\n", (unsigned long long)runs, seed_count);
    return seed_count == 0;
}
#endif

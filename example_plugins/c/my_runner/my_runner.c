/* my-runner: the smallest runner that shows all of it: an answer, chunks, feed, cancel, protobuf. The twin of the Rust
 * plugin of that name.
 *
 *   cc -shared -fPIC -O2 -pthread -Inative_sdk/include -Inative_sdk/c -o build/plugins/libmy_runner_c.so \
 *      example_plugins/c/my_runner/my_runner.c
 */
#include "ferrule_pusher.h"

FERRULE_MANIFEST({
    "name": "my-runner-c", "version": "0.1.0", "license": "Apache-2.0 OR MIT",
    "description": "A runner that answers, streams, takes feed and can be cancelled.",
    "plugins": [{
        "name": "my-runner", "kind": "runner", "language": "c", "threading": "concurrent",
        "description": "A runner that answers, streams, takes feed and can be cancelled.",
        "methods": [
            {"name": "run", "mode": "both", "cancellable": true, "metadata": true,
             "description": "Processes the input; as a stream, in chunks.",
             "args": {
                 "type": "object", "additionalProperties": false, "required": ["input_data"],
                 "properties": {
                     "input_data": {"type": "string", "description": "What to process."},
                     "chunks": {"type": "integer", "minimum": 0, "maximum": 4294967295, "default": 5,
                                "description": "How many chunks the stream has."},
                     "interval_ms": {"type": "integer", "minimum": 0, "default": 100,
                                     "description": "Milliseconds between them."},
                     "work_ms": {"type": "integer", "minimum": 0, "default": 0,
                                 "description": "How many milliseconds the one answer takes."}}},
             "result": {"type": "string"}},
            {"name": "echo", "mode": "stream", "need_feed": true, "cancellable": true,
             "output": "application/octet-stream", "feed_input": "application/octet-stream",
             "description": "Gives each block back as it was fed; ends after the final one."},
            {"name": "encode", "mode": "unary", "input": "application/x-protobuf", "output": "application/x-protobuf",
             "description": "Processes the input, in protobuf.",
             "args": {"media_type": "application/x-protobuf",
                      "text": "syntax = \"proto3\"; package my_runner; message MyJobArgs { string input_data = 1; }"},
             "result": {"media_type": "application/x-protobuf",
                        "text": "syntax = \"proto3\"; package my_runner; message MyResult { string output_data = 1; }"}},
            {"name": "count", "mode": "unary", "result": {"type": "integer"},
             "description": "How often run was called since create or reset."},
            {"name": "reset", "mode": "unary", "description": "Forgets the count."}
        ]
    }]
});

struct my_runner {
    ferrule_instance base;
    const ferrule_host *host;
    int32_t runs; /* several threads' */
};

FERRULE_CREATE(create) {
    ((struct my_runner *)self)->host = host;
    return FERRULE_OK;
}

/* ---- run, as an answer and as a stream ---- */

/* The input's text as it stands there, a JSON string with its quotes; NULL, with the error made, if there is none. */
static const char *input_data(const uint8_t *in, size_t in_len, size_t *length, ferrule_buffer *error) {
    const char *raw = ferrule_json_find(in, in_len, "input_data", length);
    if (raw != NULL && *raw == '"') return raw;
    ferrule_fail(error, FERRULE_INVALID_ARGUMENT, "input_data is %s", raw == NULL ? "missing" : "no text");
    return NULL;
}

/* A JSON string: the words, then what another one says. */
static int32_t append_said(ferrule_buffer *out, const char *words, const char *raw, size_t length) {
    int32_t status = ferrule_append(out, "\"", 1);
    if (status == FERRULE_OK) status = ferrule_append_text(out, words);
    return status == FERRULE_OK ? ferrule_append(out, raw + 1, length - 1) : status;
}

FERRULE_CALL(run) {
    size_t length;
    const char *raw = input_data(in, in_len, &length, error);
    if (raw == NULL) return FERRULE_INVALID_ARGUMENT;
    ferrule_add(&((struct my_runner *)self)->runs, 1);
    if (ferrule_call_sleep(call, ferrule_json_int(in, in_len, "work_ms", 0)) != FERRULE_OK)
        return ferrule_fail(error, FERRULE_CANCELLED, "The run was cancelled");
    return append_said(out, "Processed: ", raw, length);
}

struct job { /* what the stream's thread needs; it may outlive the instance */
    int64_t chunks, interval_ms;
    char *raw;
    size_t length;
};

FERRULE_WORK(give_chunks) {
    const struct job *job = (const struct job *)state;
    int64_t i;
    for (i = 0; i < job->chunks; i++) {
        char words[64], metadata[64];
        int32_t status = i == 0 ? FERRULE_OK : ferrule_push_sleep(pusher, job->interval_ms);
        if (status != FERRULE_OK) return status;
        snprintf(words, sizeof words, "Stream chunk %lld for ", (long long)i);
        out->len = 0;
        status = append_said(out, words, job->raw, job->length);
        if (status != FERRULE_OK) return status;
        snprintf(metadata, sizeof metadata, "{\"monotonic_ns\":%lld}", (long long)ferrule_monotonic_ns());
        status = ferrule_push_with(pusher, out->data, out->len, metadata, strlen(metadata));
        if (status != FERRULE_OK) return status;
    }
    return FERRULE_OK;
}

FERRULE_OPEN(open_run) {
    struct my_runner *runner = (struct my_runner *)self;
    size_t length;
    const char *raw = input_data(in, in_len, &length, error);
    struct job *job;
    if (raw == NULL) return FERRULE_INVALID_ARGUMENT;
    if ((job = (struct job *)malloc(sizeof *job + length)) == NULL)
        return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for the job");
    job->chunks = ferrule_json_int(in, in_len, "chunks", 5);
    job->interval_ms = ferrule_json_int(in, in_len, "interval_ms", 100);
    job->raw = (char *)memcpy(job + 1, raw, length);
    job->length = length;
    ferrule_add(&runner->runs, 1);
    return ferrule_pusher_open(runner->host, call, FERRULE_PUSHER_METADATA, give_chunks, job, free, out, error);
}

/* ---- echo ---- */

FERRULE_WORK(give_back) {
    const uint8_t *bytes;
    size_t length;
    int32_t status;
    while ((status = ferrule_pull(pusher, &bytes, &length)) == FERRULE_OK)
        if ((status = ferrule_push(pusher, bytes, length)) != FERRULE_OK) break;
    return status;
}

FERRULE_OPEN(open_echo) {
    return ferrule_pusher_open(((struct my_runner *)self)->host, call, FERRULE_PUSHER_FEED, give_back, NULL, NULL, out,
                               error);
}

/* ---- encode: what protobuf's messages of one text field are, by hand ---- */

/* A base-128 number at *at; 0 past the end. */
static uint64_t varint(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    unsigned shift;
    for (shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) return value;
    }
    *at = NULL; /* cut short, or longer than any number */
    return 0;
}

/* Field 1 of a message, if it is a text; the last one of several. 1, or 0 for what is no message. */
static int field_one(const uint8_t *at, const uint8_t *end, const uint8_t **text, uint64_t *length) {
    *text = at;
    *length = 0;
    while (at < end) {
        uint64_t key = varint(&at, end), size = 0;
        if (at == NULL || key >> 3 == 0) return 0;
        switch (key & 7) {
        case 0: varint(&at, end); break;
        case 1: size = 8; break;
        case 2: size = varint(&at, end); break;
        case 5: size = 4; break;
        default: return 0;
        }
        if (at == NULL || size > (uint64_t)(end - at)) return 0;
        if (key == (1 << 3 | 2)) *text = at, *length = size;
        at += size;
    }
    return 1;
}

FERRULE_CALL(encode) {
    static const char words[] = "Processed: ";
    const uint8_t *text;
    uint64_t length, rest;
    uint8_t head[16] = {1 << 3 | 2}; /* field 1, a text */
    size_t size = 1;
    int32_t status;
    if (in_len != 0 && !field_one(in, in + in_len, &text, &length))
        return ferrule_fail(error, FERRULE_INVALID_ARGUMENT, "The input is no protobuf message MyJobArgs");
    if (in_len == 0) text = NULL, length = 0; /* protobuf's message of defaults */
    for (rest = length + sizeof words - 1; rest >= 0x80; rest >>= 7) head[size++] = (uint8_t)(rest | 0x80);
    head[size++] = (uint8_t)rest;
    status = ferrule_append(out, head, size);
    if (status == FERRULE_OK) status = ferrule_append_text(out, words);
    return status == FERRULE_OK ? ferrule_append(out, text, (size_t)length) : status;
}

/* ---- count and reset ---- */

FERRULE_CALL(count) { return ferrule_append_int(out, ferrule_add(&((struct my_runner *)self)->runs, 0)); }

FERRULE_CALL(reset) {
    int32_t *runs = &((struct my_runner *)self)->runs;
    ferrule_add(runs, -ferrule_add(runs, 0));
    return ferrule_append_text(out, "null");
}

FERRULE_PLUGINS(FERRULE_PLUGIN("my-runner", struct my_runner, create, NULL, FERRULE_BOTH("run", run, open_run),
                               FERRULE_STREAM("echo", open_echo), FERRULE_UNARY("encode", encode),
                               FERRULE_UNARY("count", count), FERRULE_UNARY("reset", reset)));

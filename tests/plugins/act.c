/* act: plugins that do what the record says, for the tests of the flow engine.
 *
 * source `lines`   reads a file; a line that begins with '!' is a bad item; '?' ends the stream with IO. Its position
 *                  is the place in the file
 * source `packs`   the same, with up to three lines an item
 * function `several` answers as many copies as the record's "times" says; `whole` takes a chunk of lines, leaves out
 *                  those with "act":"skip", and refuses a chunk with "act":"invalid" in it
 * function `split` makes a record of each of the record's "parts", "ACT:TIMES,ACT:TIMES"; without them, of the record itself
 * function `act`   looks at the record's "act": ok, skip, invalid, unavailable, panic, internal, newline, utf8, text, big;
 *                  relapse: utf8, and a panic when it is called again for the record;
 *                  flaky: UNAVAILABLE as often as its "times" says, then ok; later: the same with retry_after_ms; slow
 * sink `keep`      appends to a file; a chunk with "act":"unkept" in it is INVALID_DATA, "act":"full" is IO, "act":"heavy"
 *                  takes 0.2 s, "act":"weighty" 0.02 s
 *                  Its mark is the file's length
 * sink `keep-one`  the same, a record a call */
#define _GNU_SOURCE
#include "ferrule_sdk.h"

#include <stdio.h>
#include <unistd.h>

FERRULE_MANIFEST({
    "name": "act",
    "version": "0.1.0",
    "plugins": [
        {"name": "lines", "kind": "source", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["path"],
                    "properties": {"path": {"type": "string"}}},
         "methods": [{"name": "read_data", "mode": "stream"}]},
        {"name": "packs", "kind": "source", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["path"],
                    "properties": {"path": {"type": "string"}}},
         "methods": [{"name": "read_data", "mode": "stream", "output": "application/x-ndjson"}]},
        {"name": "split", "kind": "function", "language": "c",
         "methods": [{"name": "process", "mode": "unary", "output": "application/x-ndjson"}]},
        {"name": "several", "kind": "function", "language": "c",
         "methods": [{"name": "process", "mode": "unary", "output": "application/x-ndjson"}]},
        {"name": "whole", "kind": "function", "language": "c",
         "methods": [{"name": "process", "mode": "unary", "input": "application/x-ndjson",
                      "output": "application/x-ndjson"}]},
        {"name": "act", "kind": "function", "language": "c", "methods": [{"name": "process", "mode": "unary"}]},
        {"name": "keep", "kind": "sink", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["path"],
                    "properties": {"path": {"type": "string"}}},
         "methods": [{"name": "open", "mode": "unary"}, {"name": "flush", "mode": "unary"},
                     {"name": "write", "mode": "unary", "input": "application/x-ndjson"}]},
        {"name": "keep-one", "kind": "sink", "language": "c",
         "config": {"type": "object", "additionalProperties": false, "required": ["path"],
                    "properties": {"path": {"type": "string"}}},
         "methods": [{"name": "write", "mode": "unary"}]}
    ]
});

struct lines { ferrule_instance base; char *path; };
struct lines_reader { ferrule_reader base; FILE *file; };

FERRULE_CREATE(lines_create) {
    ((struct lines *)self)->path = ferrule_json_string(config, config_len, "path", "", NULL);
    return FERRULE_OK;
}
static void lines_destroy(void *self) { free(((struct lines *)self)->path); }

FERRULE_NEXT(lines_next) {
    static const size_t most = 1 << 16;
    char *line = malloc(most);
    struct lines_reader *reader = (struct lines_reader *)(void *)stream;
    int32_t status = FERRULE_END;
    if (fgets(line, (int)most, reader->file) != NULL) {
        size_t length = strcspn(line, "\n");
        status = line[0] == '!'   ? ferrule_fail_details(error, FERRULE_INVALID_DATA, "{\"record\":\"!\"}", 14, -1, "bad item")
                 : line[0] == '?' ? ferrule_fail(error, FERRULE_IO, "the source broke")
                                  : ferrule_append(out, line, length);
    }
    free(line);
    return status;
}
FERRULE_NEXT(packs_next) {
    int32_t status = lines_next(stream, timeout_ms, out, error);
    FILE *file = ((struct lines_reader *)(void *)stream)->file;
    for (int more = 1; more < 3 && status == FERRULE_OK; more++) {
        int next = ungetc(getc(file), file);
        if (next == EOF || next == '!' || next == '?') break; /* for the next item */
        ferrule_append_text(out, "\n");
        status = lines_next(stream, timeout_ms, out, error);
    }
    return status;
}
static void lines_close(ferrule_stream *stream) {
    fclose(((struct lines_reader *)(void *)stream)->file);
    ferrule_reader_close(stream);
}
FERRULE_POSITION(lines_position) {
    return ferrule_append_int(out, ftell(((struct lines_reader *)(void *)stream)->file));
}
FERRULE_OPEN(lines_read) {
    static const ferrule_stream_ops ops = FERRULE_READER(lines_next, lines_position, lines_close);
    struct lines_reader *reader = (struct lines_reader *)ferrule_reader_new(sizeof *reader, &ops, out, error);
    reader->file = fopen(((struct lines *)self)->path, "rb");
    fseek(reader->file, (long)ferrule_json_int((const char *)in, in_len, "position", 0), SEEK_SET);
    return FERRULE_OK;
}

FERRULE_OPEN(packs_read) {
    static const ferrule_stream_ops ops = FERRULE_READER(packs_next, lines_position, lines_close);
    int32_t status = lines_read(self, call, in, in_len, out, error);
    (*out)->ops = &ops;
    return status;
}

FERRULE_CALL(split_process) {
    const char *record = (const char *)in;
    if (ferrule_json_find(record, in_len, "parts", &(size_t){0}) == NULL) return ferrule_append(out, in, in_len);
    char *parts = ferrule_json_string(record, in_len, "parts", "", NULL), *rest = parts, *part;
    for (int i = 0; (part = strsep(&rest, ",")) != NULL && *part != 0; i++) {
        char *act = strsep(&part, ":");
        ferrule_append_text(out, "{\"at\":");
        ferrule_append_int(out, ferrule_json_int(record, in_len, "at", 0));
        ferrule_append_text(out, ",\"part\":");
        ferrule_append_int(out, i);
        ferrule_append_text(out, ",\"n\":");
        ferrule_append_int(out, ferrule_json_int(record, in_len, "n", 0) + 40 * (i + 1));
        ferrule_append_text(out, ",\"act\":\"");
        ferrule_append_text(out, act);
        ferrule_append_text(out, "\",\"times\":");
        ferrule_append_text(out, part);
        ferrule_append_text(out, "}\n");
    }
    free(parts);
    return FERRULE_OK;
}

FERRULE_CALL(several_process) {
    int64_t times = ferrule_json_int((const char *)in, in_len, "times", 1);
    for (int64_t i = 0; i < times; i++) {
        ferrule_append(out, in, in_len);
        ferrule_append_text(out, "\n");
    }
    return FERRULE_OK;
}

static int holds(const uint8_t *in, size_t in_len, const char *text) {
    size_t length = strlen(text);
    for (size_t at = 0; at + length <= in_len; at++)
        if (memcmp(in + at, text, length) == 0) return 1;
    return 0;
}

FERRULE_CALL(whole_process) {
    if (holds(in, in_len, "\"act\":\"invalid\"")) return ferrule_fail(error, FERRULE_INVALID_DATA, "told to refuse");
    for (size_t at = 0; at < in_len;) {
        size_t length = (size_t)((const uint8_t *)memchr(in + at, '\n', in_len - at) - (in + at));
        if (!holds(in + at, length, "\"act\":\"skip\"")) ferrule_append(out, in + at, length);
        ferrule_append_text(out, "\n");
        at += length + 1;
    }
    return FERRULE_OK;
}

struct act { ferrule_instance base; int calls, broken; };

static int32_t attempts[1 << 20]; /* of a record, in all instances */

static int64_t number_of(const uint8_t *in, size_t in_len) {
    return ferrule_json_int((const char *)in, in_len, "n", 0) & 0xFFFFF;
}

FERRULE_CALL(act_process) {
    char *act = ferrule_json_string((const char *)in, in_len, "act", "", NULL);
    int32_t status = ferrule_append(out, in, in_len);
    ((struct act *)self)->calls++;
    if (((struct act *)self)->broken) status = ferrule_fail(error, FERRULE_INTERNAL, "called after it panicked");
    else if (strcmp(act, "flaky") == 0 || strcmp(act, "later") == 0) {
        if (__atomic_fetch_add(&attempts[number_of(in, in_len)], 1, __ATOMIC_SEQ_CST) <
            ferrule_json_int((const char *)in, in_len, "times", 1))
            status = act[0] == 'f' ? ferrule_fail(error, FERRULE_UNAVAILABLE, "not yet")
                                   : ferrule_fail_details(error, FERRULE_DENIED, NULL, 0, 20, "too many calls");
    }
    else if (strcmp(act, "slow") == 0) usleep(20000);
    else if (strcmp(act, "skip") == 0) status = FERRULE_SKIP;
    else if (strcmp(act, "invalid") == 0) status = ferrule_fail(error, FERRULE_INVALID_DATA, "told to refuse");
    else if (strcmp(act, "unavailable") == 0) status = ferrule_fail(error, FERRULE_UNAVAILABLE, "told to wait");
    else if (strcmp(act, "panic") == 0 ||
             (strcmp(act, "relapse") == 0 && __atomic_fetch_add(&attempts[number_of(in, in_len)], 1, __ATOMIC_SEQ_CST))) {
        ((struct act *)self)->broken = 1;
        status = ferrule_fail(error, FERRULE_PANIC, "told to panic");
    }
    else if (strcmp(act, "internal") == 0) out->len = out->capacity + 1;
    else if (strcmp(act, "newline") == 0) out->data[out->len - 2] = '\n';
    else if (strcmp(act, "utf8") == 0 || strcmp(act, "relapse") == 0) out->data[out->len - 2] = 0xFF;
    else if (strcmp(act, "text") == 0) out->data[out->len - 1] = ']';
    else if (strcmp(act, "big") == 0) {
        out->len--;
        ferrule_append_text(out, ",\"pad\":\"");
        for (int i = 0; i < 3000; i++) ferrule_append_text(out, "0123456789012345678901234567890123456789");
        status = ferrule_append_text(out, "\"}");
    }
    free(act);
    return status;
}

struct keep { ferrule_instance base; FILE *file; };

/* Open without a mark begins anew; until then the file is as it was. */
FERRULE_CREATE(keep_create) {
    char *path = ferrule_json_string(config, config_len, "path", "", NULL);
    ((struct keep *)self)->file = fopen(path, "r+b");
    if (((struct keep *)self)->file == NULL) ((struct keep *)self)->file = fopen(path, "wb");
    free(path);
    return FERRULE_OK;
}
FERRULE_CALL(keep_open) {
    const char *mark = ferrule_json_find((const char *)in, in_len, "mark", &(size_t){0});
    FILE *file = ((struct keep *)self)->file;
    if (mark != NULL) {
        long length = (long)ferrule_json_int((const char *)in, in_len, "mark", 0);
        if (ftruncate(fileno(file), length) != 0) return ferrule_fail(error, FERRULE_IO, "cannot cut the file");
        fseek(file, length, SEEK_SET);
    } else if (ftruncate(fileno(file), 0) != 0) return ferrule_fail(error, FERRULE_IO, "cannot empty the file");
    return ferrule_append_text(out, "null");
}
FERRULE_CALL(keep_flush) {
    FILE *file = ((struct keep *)self)->file;
    fflush(file);
    ferrule_append_text(out, "{\"mark\":");
    ferrule_append_int(out, ftell(file));
    return ferrule_append_text(out, "}");
}
FERRULE_CREATE(keep_one_create) {
    char *path = ferrule_json_string(config, config_len, "path", "", NULL);
    ((struct keep *)self)->file = fopen(path, "wb");
    free(path);
    return FERRULE_OK;
}
static void keep_destroy(void *self) { fclose(((struct keep *)self)->file); }

static int32_t keep(void *self, const uint8_t *in, size_t in_len, const char *end, ferrule_buffer *error) {
    if (holds(in, in_len, "\"act\":\"heavy\"")) usleep(200000);
    if (holds(in, in_len, "\"act\":\"weighty\"")) usleep(20000);
    if (holds(in, in_len, "\"act\":\"full\"")) return ferrule_fail(error, FERRULE_IO, "told to be full");
    if (holds(in, in_len, "\"act\":\"unkept\"")) return ferrule_fail(error, FERRULE_INVALID_DATA, "told not to keep");
    fwrite(in, 1, in_len, ((struct keep *)self)->file);
    fputs(end, ((struct keep *)self)->file);
    return FERRULE_OK;
}
FERRULE_CALL(keep_write) { return keep(self, in, in_len, "", error); }
FERRULE_CALL(keep_one_write) { return keep(self, in, in_len, "\n", error); }

FERRULE_PLUGINS(FERRULE_PLUGIN("lines", struct lines, lines_create, lines_destroy, FERRULE_STREAM("read_data", lines_read)),
                FERRULE_PLUGIN("packs", struct lines, lines_create, lines_destroy, FERRULE_STREAM("read_data", packs_read)),
                FERRULE_PLUGIN("split", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", split_process)),
                FERRULE_PLUGIN("several", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", several_process)),
                FERRULE_PLUGIN("whole", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", whole_process)),
                FERRULE_PLUGIN("act", struct act, NULL, NULL, FERRULE_UNARY("process", act_process)),
                FERRULE_PLUGIN("keep", struct keep, keep_create, keep_destroy, FERRULE_UNARY("open", keep_open),
                               FERRULE_UNARY("flush", keep_flush), FERRULE_UNARY("write", keep_write)),
                FERRULE_PLUGIN("keep-one", struct keep, keep_one_create, keep_destroy,
                               FERRULE_UNARY("write", keep_one_write)));

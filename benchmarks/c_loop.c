/* The measure of all else: a plain C loop that calls the same plugin functions, with no host around them.
 *
 *   c_loop ENDS_LIB RECORD COUNT [LIB PLUGIN CONFIG]...      prints nanoseconds a record */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ferrule.h"

#define STEPS 8
#define CHUNK (64 * 1024)

static int32_t reserve(ferrule_buffer *buffer, size_t additional) {
    size_t needed = buffer->len + additional;
    if (needed > buffer->capacity) {
        buffer->data = realloc(buffer->data, needed * 2);
        buffer->capacity = needed * 2;
    }
    return buffer->data ? FERRULE_OK : FERRULE_OUT_OF_MEMORY;
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

static ferrule_instance *make(const char *path, const char *plugin, const char *config) {
    ferrule_plugin_create_fn create = NULL;
    ferrule_buffer error = {sizeof error, 0, NULL, 0, 0, reserve};
    ferrule_call call = {sizeof call, 0, 1, &never, -1, NULL, 0, NULL};
    ferrule_instance *instance = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "ferrule_plugin_create") : NULL;
    memcpy(&create, &symbol, sizeof symbol);
    if (create == NULL ||
        create(&host, &call, plugin, strlen(plugin), config, strlen(config), &instance, &error) != FERRULE_OK) {
        fprintf(stderr, "%s: %s cannot be created: %.*s\n", path, plugin, (int)error.len, (char *)error.data);
        exit(1);
    }
    return instance;
}

int main(int argc, char **argv) {
    if (argc < 4 || (argc - 4) % 3 != 0 || (argc - 4) / 3 > STEPS) {
        fprintf(stderr, "usage: c_loop ENDS_LIB RECORD COUNT [LIB PLUGIN CONFIG]...\n");
        return 2;
    }
    const size_t record_len = strlen(argv[2]);
    const int steps = (argc - 4) / 3;
    char *config = malloc(2 * record_len + 100);
    size_t at = (size_t)sprintf(config, "{\"count\":%s,\"record\":\"", argv[3]);
    for (size_t i = 0; i < record_len; i++) {
        if (argv[2][i] == '"' || argv[2][i] == '\\') {
            config[at++] = '\\';
        }
        config[at++] = argv[2][i];
    }
    strcpy(config + at, "\"}");

    ferrule_instance *source = make(argv[1], "repeat", config), *sink = make(argv[1], "discard", "{}");
    ferrule_instance *functions[STEPS];
    int32_t methods[STEPS], write = sink->ops->method(sink, "write", 5);
    for (int s = 0; s < steps; s++) {
        functions[s] = make(argv[4 + 3 * s], argv[5 + 3 * s], argv[6 + 3 * s]);
        methods[s] = functions[s]->ops->method(functions[s], "process", 7);
    }
    ferrule_buffer error = {sizeof error, 0, NULL, 0, 0, reserve}, read = error, between[2] = {error, error};
    ferrule_buffer chunk = error, nothing = error;
    ferrule_call call = {sizeof call, 0, 0, &never, -1, NULL, 0, NULL};
    ferrule_stream *stream = NULL;
    source->ops->open(source, source->ops->method(source, "read_data", 9), &call, (const uint8_t *)"{}", 2, &stream,
                      &error);
    struct timespec begin, end;
    uint64_t records = 0;
    reserve(&chunk, CHUNK);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (;;) {
        read.len = 0;
        int32_t status = stream->ops->next(stream, 0, &read, &error);
        if (status == FERRULE_OK) {
            const uint8_t *in = read.data;
            size_t in_len = read.len;
            for (int s = 0; s < steps; s++) {
                ferrule_buffer *out = s + 1 == steps ? &chunk : &between[s & 1];
                size_t entry = s + 1 == steps ? chunk.len : (out->len = 0);
                if (functions[s]->ops->call(functions[s], methods[s], &call, in, in_len, out, &error) != FERRULE_OK) {
                    fprintf(stderr, "a function failed: %.*s\n", (int)error.len, (char *)error.data);
                    return 1;
                }
                in = out->data + entry;
                in_len = out->len - entry;
            }
            if (steps == 0) {
                reserve(&chunk, in_len);
                memcpy(chunk.data + chunk.len, in, in_len);
                chunk.len += in_len;
            }
            reserve(&chunk, 1);
            chunk.data[chunk.len++] = '\n';
            records++;
        }
        if (status != FERRULE_OK || chunk.len >= CHUNK) {
            sink->ops->call(sink, write, &call, chunk.data, chunk.len, &nothing, &error);
            chunk.len = 0;
        }
        if (status != FERRULE_OK) {
            break;
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.3f\n", ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) /
                         (double)(records ? records : 1));
    return 0;
}

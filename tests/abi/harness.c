/* A host in one page: loads a library, makes an instance, calls it. For the tests of the C SDK, without ferrule.
 *
 *   harness call   LIB PLUGIN METHOD CONFIG [LIMIT]     frames on stdin, frames on stdout
 *   harness converse LIB PLUGIN METHOD CONFIG           the same, but before each input comes a frame with its method
 *   harness stream LIB PLUGIN METHOD CONFIG INPUT       connect, then one frame an item, then its position
 *   harness feed   LIB PLUGIN METHOD CONFIG INPUT BLOCK [CANCEL]   stdin fed in blocks of that many bytes (0: none is
 *                  fed); a frame an item, with its metadata as the error; the end; the stream's metadata. Cancelled
 *                  before item number CANCEL is asked for.
 *   harness bench  LIB PLUGIN METHOD CONFIG TIMES       one record on stdin; ns a call, the best of 9 rounds
 *
 * A frame in is a uint32 length and the bytes. A frame out is an int32 status, then answer and error, each a uint32
 * length and the bytes. Every buffer starts with capacity 0 and grows to exactly what is asked for, in memory of its
 * own, so that AddressSanitizer sees one byte too many. LIMIT bounds what reserve gives, to test refusals. */
#if !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#include "ferrule.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static size_t limit = (size_t)-1;

static int32_t reserve(ferrule_buffer *buffer, size_t additional) {
    uint8_t *moved;
    if (additional > limit || buffer->len > limit - additional) return FERRULE_OUT_OF_MEMORY;
    if (buffer->capacity - buffer->len >= additional) return FERRULE_OK;
    moved = (uint8_t *)malloc(buffer->len + additional); /* never in place: a stale pointer must show */
    if (moved == NULL) return FERRULE_OUT_OF_MEMORY;
    memset(moved, 0xAA, buffer->len + additional);
    if (buffer->len != 0) memcpy(moved, buffer->data, buffer->len);
    free(buffer->data);
    buffer->data = moved;
    buffer->capacity = buffer->len + additional;
    return FERRULE_OK;
}

static ferrule_buffer buffer(void) {
    ferrule_buffer made = {sizeof(ferrule_buffer), 0, NULL, 0, 0, NULL};
    made.reserve = reserve;
    return made;
}

static void put(const void *bytes, size_t size) {
    uint32_t length = (uint32_t)size;
    fwrite(&length, sizeof length, 1, stdout);
    if (size != 0) fwrite(bytes, 1, size, stdout);
}

static void answer(int32_t status, ferrule_buffer *out, ferrule_buffer *error) {
    fwrite(&status, sizeof status, 1, stdout);
    put(out->data, status == FERRULE_OK ? out->len : 0);
    put(error->data, error->len);
    free(out->data);
    free(error->data);
    *out = *error = buffer();
}

static int32_t log_enabled(const ferrule_host *host, uint64_t id, int32_t level) {
    (void)host, (void)id, (void)level;
    return 1;
}
static void host_log(const ferrule_host *host, uint64_t id, int32_t level, const char *message, size_t message_len,
                     const char *fields, size_t fields_len) {
    (void)host, (void)fields, (void)fields_len;
    fprintf(stderr, "log %llu %d %.*s\n", (unsigned long long)id, (int)level, (int)message_len, message);
}
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int woken;
static void host_wake(const ferrule_host *host, uint64_t id) {
    (void)host;
    if (id != 1) fprintf(stderr, "a wake for %llu\n", (unsigned long long)id);
    pthread_mutex_lock(&mutex);
    woken = 1;
    pthread_cond_signal(&condition);
    pthread_mutex_unlock(&mutex);
}
static const void *host_query(const ferrule_host *host, const char *extension) {
    (void)host, (void)extension;
    return NULL;
}
static const ferrule_host host = {sizeof(ferrule_host), 0, FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR,
                                  log_enabled, host_log, host_wake, host_query};

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) fprintf(stderr, "no symbol %s\n", name), exit(1);
    return found;
}

static void sleep_until_woken(void) {
    pthread_mutex_lock(&mutex);
    while (!woken) pthread_cond_wait(&condition, &mutex);
    woken = 0;
    pthread_mutex_unlock(&mutex);
}

/* Feeds and reads in turn, from one thread; sleeps when neither goes on. */
static void feed(ferrule_stream *stream, size_t block, long cancel) {
    ferrule_buffer out = buffer(), more = buffer();
    uint8_t *bytes = (uint8_t *)malloc(block + 1);
    size_t length = 0;
    int feeds = block != 0, full = 0;
    int32_t status;
    for (;;) {
        while (feeds) {
            if (!full) length = fread(bytes, 1, block, stdin);
            status = stream->ops->feed(stream, bytes, length, length < block, &more);
            full = status == FERRULE_PENDING;
            if (full) break;
            if (status < FERRULE_OK) fprintf(stderr, "feed: %d\n", (int)status);
            feeds = status == FERRULE_OK && length == block;
        }
        more.len = 0;
        if (cancel-- == 0) stream->ops->cancel(stream);
        status = stream->ops->next(stream, 0, &out, &more);
        if (status == FERRULE_PENDING) {
            cancel++;
            sleep_until_woken();
            continue;
        }
        if (status != FERRULE_OK) break;
        if (stream->ops->metadata != NULL) stream->ops->metadata(stream, &more, &more);
        answer(status, &out, &more);
    }
    answer(status, &out, &more);
    if (stream->ops->metadata != NULL) stream->ops->metadata(stream, &out, &more);
    answer(FERRULE_OK, &out, &more);
    stream->ops->close(stream);
    free(bytes);
}

int main(int count, char **words) {
    static const int32_t never = 0;
    ferrule_call call = {sizeof(ferrule_call), 0, 1, NULL, -1, NULL, 0, NULL};
    ferrule_buffer out = buffer(), error = buffer();
    ferrule_instance *instance = NULL;
    ferrule_plugin_manifest_fn manifest;
    ferrule_plugin_create_fn create;
    ferrule_plugin_destroy_fn destroy;
    void *library, *found;
    int32_t status, method;
    call.cancelled = &never;
    if (count < 6) return fprintf(stderr, "usage: see harness.c\n"), 2;
    if ((library = dlopen(words[2], RTLD_NOW | RTLD_LOCAL)) == NULL) return fprintf(stderr, "%s\n", dlerror()), 1;
    found = symbol(library, "ferrule_plugin_manifest"), memcpy(&manifest, &found, sizeof found);
    found = symbol(library, "ferrule_plugin_create"), memcpy(&create, &found, sizeof found);
    found = symbol(library, "ferrule_plugin_destroy"), memcpy(&destroy, &found, sizeof found);
    if (memcmp(manifest()->magic, "ferrule", 8) != 0) return fprintf(stderr, "no manifest\n"), 1;
    status = create(&host, &call, words[3], strlen(words[3]), words[5], strlen(words[5]), &instance, &error);
    if (status != FERRULE_OK) {
        if (instance != NULL) fprintf(stderr, "a failed create left an instance\n");
        fprintf(stderr, "create: %d %.*s\n", (int)status, (int)error.len, (const char *)error.data);
        free(error.data);
        return 1;
    }
    method = instance->ops->method(instance, words[4], strlen(words[4]));
    if (method < 0) return fprintf(stderr, "no method %s\n", words[4]), 1;
    if (strcmp(words[1], "call") == 0 || strcmp(words[1], "converse") == 0) {
        uint32_t length;
        char name[64];
        if (count > 6) limit = (size_t)strtoull(words[6], NULL, 10);
        while (fread(&length, sizeof length, 1, stdin) == 1) {
            uint8_t *in;
            if (words[1][1] == 'o') {
                if (length > sizeof name || fread(name, 1, length, stdin) != length) return 1;
                method = instance->ops->method(instance, name, length);
                if (fread(&length, sizeof length, 1, stdin) != 1) return 1;
            }
            in = length != 0 ? (uint8_t *)malloc(length) : NULL; /* NULL only with length 0 */
            if (length != 0 && fread(in, 1, length, stdin) != length) return 1;
            status = instance->ops->call(instance, method, &call, in, length, &out, &error);
            answer(status, &out, &error);
            free(in);
        }
    } else if (strcmp(words[1], "stream") == 0 && count > 6) {
        ferrule_stream *stream = NULL;
        int32_t open_first = instance->ops->method(instance, "connect", 7);
        if (open_first >= 0) instance->ops->call(instance, open_first, &call, NULL, 0, &out, &error);
        out.len = error.len = 0;
        status = instance->ops->open(instance, method, &call, (const uint8_t *)words[6], strlen(words[6]), &stream,
                                     &error);
        if (status != FERRULE_OK) answer(status, &out, &error);
        while (stream != NULL) {
            status = stream->ops->next(stream, -1, &out, &error);
            answer(status, &out, &error);
            if (status != FERRULE_OK) break;
            status = stream->ops->position(stream, &out, &error);
            answer(status, &out, &error);
        }
        if (stream != NULL) stream->ops->cancel(stream), stream->ops->close(stream);
    } else if (strcmp(words[1], "feed") == 0 && count > 7) {
        ferrule_stream *stream = NULL;
        status = instance->ops->open(instance, method, &call, (const uint8_t *)words[6], strlen(words[6]), &stream,
                                     &error);
        if (status != FERRULE_OK) answer(status, &out, &error);
        else feed(stream, (size_t)strtoull(words[7], NULL, 10), count > 8 ? strtol(words[8], NULL, 10) : -1);
    } else if (strcmp(words[1], "bench") == 0 && count > 6) {
        static uint8_t in[1 << 16];
        size_t length = fread(in, 1, sizeof in, stdin);
        long times = strtol(words[6], NULL, 10), i;
        double best = 1e18;
        int round;
        reserve(&out, 1 << 16);
        for (round = 0; round < 9; round++) {
            struct timespec from, to;
            double ns;
            clock_gettime(CLOCK_MONOTONIC, &from);
            for (i = 0; i < times; i++) {
                out.len = 0;
                if (instance->ops->call(instance, method, &call, in, length, &out, &error) != FERRULE_OK) return 1;
            }
            clock_gettime(CLOCK_MONOTONIC, &to);
            ns = ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / (double)times;
            if (ns < best) best = ns;
        }
        printf("%.1f\n", best);
    } else {
        return fprintf(stderr, "usage: see harness.c\n"), 2;
    }
    destroy(instance);
    free(out.data);
    free(error.data);
    return 0;
}

#include "plugin.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ferrule.h"

struct plugin {
    ferrule_instance *instance;
    int32_t method;
    ferrule_buffer out, error;
};

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
static void woken(const ferrule_host *host, uint64_t id) { (void)host, (void)id; }
static void logged(const ferrule_host *host, uint64_t id, int32_t level, const char *m, size_t n, const char *f,
                   size_t k) {
    (void)host, (void)id, (void)level, (void)m, (void)n, (void)f, (void)k;
}
static const void *asked(const ferrule_host *host, const char *extension) { return (void)host, (void)extension, NULL; }
static const ferrule_host host = {sizeof host, 0, FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, enabled, logged, woken, asked};
static const int32_t never;
static const ferrule_call plain = {sizeof plain, 0, 0, &never, -1, NULL, 0, NULL};

plugin *plugin_make(const char *library, const char *name, const char *config) {
    ferrule_plugin_create_fn create = NULL;
    plugin *made = calloc(1, sizeof *made);
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    void *symbol = handle ? dlsym(handle, "ferrule_plugin_create") : NULL;
    memcpy(&create, &symbol, sizeof symbol);
    if (made == NULL || create == NULL) {
        fprintf(stderr, "%s: %s\n", library, made ? dlerror() : "out of memory");
        return NULL;
    }
    made->out.struct_size = made->error.struct_size = sizeof(ferrule_buffer);
    made->out.reserve = made->error.reserve = reserve;
    if (create(&host, &plain, name, strlen(name), config, strlen(config), &made->instance, &made->error) != FERRULE_OK) {
        fprintf(stderr, "%s: %.*s\n", name, (int)made->error.len, (char *)made->error.data);
        return NULL;
    }
    made->method = made->instance->ops->method(made->instance, "process", 7);
    return made;
}

int32_t plugin_call(plugin *plugin, int32_t lines, const uint8_t *in, size_t in_len, const uint8_t **out,
                    size_t *out_len) {
    const uint8_t *end = in + in_len;
    int32_t status = FERRULE_OK;
    plugin->out.len = plugin->error.len = 0;
    do {
        const uint8_t *newline = lines ? memchr(in, '\n', (size_t)(end - in)) : NULL;
        const uint8_t *stop = newline ? newline : end;
        status = plugin->instance->ops->call(plugin->instance, plugin->method, &plain, in, (size_t)(stop - in),
                                             &plugin->out, &plugin->error);
        if (status == FERRULE_OK && lines && (status = reserve(&plugin->out, 1)) == FERRULE_OK) {
            plugin->out.data[plugin->out.len++] = '\n';
        }
        in = newline ? newline + 1 : end;
    } while (status == FERRULE_OK && in < end);
    *out = plugin->out.data;
    *out_len = plugin->out.len;
    return status;
}

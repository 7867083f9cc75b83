/* The example add-metadata as a WebAssembly module, for the peers that run those: the plugin's own source, unchanged, and
 * a few lines around it that move bytes. Compiled with zig, twice: -DEXTISM for an Extism plug-in (its kernel's functions,
 * eight bytes at a time, as its C PDK does), without for a bare module.
 *
 * `process` takes one record. `process_lines` takes lines and answers line for line. */
#include "../example_plugins/c/add_metadata/add_metadata.c"

#define EXPORT(name) __attribute__((export_name(name)))

static int32_t grow(ferrule_buffer *buffer, size_t additional) {
    size_t needed = buffer->len + additional;
    if (needed > buffer->capacity) {
        uint8_t *data = (uint8_t *)realloc(buffer->data, needed * 2);
        if (data == NULL) {
            return FERRULE_OUT_OF_MEMORY;
        }
        buffer->data = data;
        buffer->capacity = needed * 2;
    }
    return FERRULE_OK;
}

static int32_t enabled(const ferrule_host *host, uint64_t id, int32_t level) { return 0; }
static const ferrule_host none = {.struct_size = sizeof none, .abi_minor = 1, .log_enabled = enabled};
static const int32_t never;
static const ferrule_call plain = {.struct_size = sizeof plain, .cancelled = &never, .timeout_ms = -1};
static ferrule_buffer input = {.struct_size = sizeof input, .reserve = grow};
static ferrule_buffer output = {.struct_size = sizeof output, .reserve = grow};
static ferrule_buffer problem = {.struct_size = sizeof problem, .reserve = grow};
static ferrule_instance *instance;

static int32_t one(const uint8_t *in, size_t in_len) {
    static const char config[] = "{\"plugin_name\":\"benchmark\"}";
    if (instance == NULL && ferrule_plugin_create(&none, &plain, "add-metadata", 12, config, sizeof config - 1, &instance,
                                                  &problem) != FERRULE_OK) {
        return -1;
    }
    return instance->ops->call(instance, instance->ops->method(instance, "process", 7), &plain, in, in_len, &output,
                               &problem);
}

static int32_t each_line(void) {
    const uint8_t *at = input.data, *end = input.data + input.len;
    output.len = 0;
    while (at < end) {
        const uint8_t *newline = (const uint8_t *)memchr(at, '\n', (size_t)(end - at));
        const uint8_t *stop = newline != NULL ? newline : end;
        int32_t status = one(at, (size_t)(stop - at));
        if (status != FERRULE_OK || ferrule_append(&output, "\n", 1) != FERRULE_OK) {
            return -1;
        }
        at = stop + 1;
    }
    return 0;
}

#if defined(EXTISM)
#define IMPORT(name) __attribute__((import_module("extism:host/env"), import_name(name)))
IMPORT("input_length") extern uint64_t input_length(void);
IMPORT("input_load_u8") extern uint32_t input_load_u8(uint64_t at);
IMPORT("input_load_u64") extern uint64_t input_load_u64(uint64_t at);
IMPORT("alloc") extern uint64_t kernel_alloc(uint64_t size);
IMPORT("store_u8") extern void store_u8(uint64_t at, uint32_t byte);
IMPORT("store_u64") extern void store_u64(uint64_t at, uint64_t word);
IMPORT("output_set") extern void output_set(uint64_t at, uint64_t size);

static int32_t load(void) {
    uint64_t at = 0, size = input_length();
    input.len = 0;
    if (grow(&input, (size_t)size) != FERRULE_OK) {
        return -1;
    }
    for (; at + 8 <= size; at += 8) {
        uint64_t word = input_load_u64(at);
        memcpy(input.data + at, &word, 8);
    }
    for (; at < size; at++) {
        input.data[at] = (uint8_t)input_load_u8(at);
    }
    input.len = (size_t)size;
    return 0;
}

static void store(void) {
    uint64_t at = 0, size = output.len, to = kernel_alloc(size);
    for (; at + 8 <= size; at += 8) {
        uint64_t word;
        memcpy(&word, output.data + at, 8);
        store_u64(to + at, word);
    }
    for (; at < size; at++) {
        store_u8(to + at, output.data[at]);
    }
    output_set(to, size);
}

EXPORT("process") int32_t extism_process(void) {
    output.len = 0;
    if (load() != 0 || one(input.data, input.len) != FERRULE_OK) {
        return 1;
    }
    store();
    return 0;
}

EXPORT("process_lines") int32_t extism_process_lines(void) {
    if (load() != 0 || each_line() != 0) {
        return 1;
    }
    store();
    return 0;
}
#else
/* The host writes its input at room(size), calls, and reads the answer at answer(). */
EXPORT("room") uint8_t *room(uint32_t size) {
    input.len = 0;
    return grow(&input, size) == FERRULE_OK ? input.data : NULL;
}
EXPORT("answer") const uint8_t *answer(void) { return output.data; }
EXPORT("process") int32_t bare_process(uint32_t size) {
    input.len = size;
    output.len = 0;
    return one(input.data, input.len) == FERRULE_OK ? (int32_t)output.len : -1;
}
EXPORT("process_lines") int32_t bare_process_lines(uint32_t size) {
    input.len = size;
    return each_line() == 0 ? (int32_t)output.len : -1;
}
#endif

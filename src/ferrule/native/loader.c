/* loader.c: libraries and instances. Every check of what a plugin gave back stands here, in fh_settle. */
#include "internal.h"

#include <stdio.h>

struct fh_library {
    ferrule_plugin_create_fn create;
    ferrule_plugin_destroy_fn destroy;
    void *handle;
};

/* ---- libraries ------------------------------------------------------------------------------------- */

#if defined(_WIN32)
static void *library_load(const char *path, char *error, size_t error_capacity) {
    wchar_t wide[4096];
    if (!MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, 4096)) {
        snprintf(error, error_capacity, "the path is longer than 4095 characters");
        return NULL;
    }
    HMODULE handle = LoadLibraryExW(wide, NULL, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS);
    if (handle == NULL) {
        snprintf(error, error_capacity, "LoadLibraryExW failed with error %lu", (unsigned long)GetLastError());
    }
    return (void *)handle;
}
/* A function pointer is not an object pointer to ISO C; its bytes are, on every system this runs on. */
static void library_symbol(void *handle, const char *name, void *function) {
    FARPROC found = GetProcAddress((HMODULE)handle, name);
    memcpy(function, &found, sizeof found);
}
#else
static void *library_load(const char *path, char *error, size_t error_capacity) {
    /* RTLD_NOW: an unresolved symbol is an error here, not a crash later. */
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        const char *text = dlerror();
        snprintf(error, error_capacity, "%s", text ? text : "dlopen failed");
    }
    return handle;
}
static void library_symbol(void *handle, const char *name, void *function) {
    void *found = dlsym(handle, name);
    memcpy(function, &found, sizeof found);
}
#endif

fh_library *fh_library_open(const char *path, const uint8_t *manifest, size_t manifest_len, char *error,
                            size_t error_capacity) {
    ferrule_plugin_manifest_fn manifest_of = NULL;
    fh_library *library = calloc(1, sizeof *library);
    if (library == NULL) {
        snprintf(error, error_capacity, "out of memory");
        return NULL;
    }
    library->handle = library_load(path, error, error_capacity);
    if (library->handle == NULL) {
        free(library);
        return NULL;
    }
    library_symbol(library->handle, "ferrule_plugin_manifest", &manifest_of);
    library_symbol(library->handle, "ferrule_plugin_create", &library->create);  /* or an entry point: see below */
    library_symbol(library->handle, "ferrule_plugin_destroy", &library->destroy);
    const char *missing = manifest_of == NULL        ? "ferrule_plugin_manifest"
                          : library->destroy == NULL ? "ferrule_plugin_destroy"
                                                     : NULL;
    if (missing != NULL) {
        snprintf(error, error_capacity, "symbol %s is missing", missing);
    } else {
        const ferrule_manifest *answered = manifest_of();
        if (answered == NULL || (uintptr_t)answered % sizeof(uint32_t) != 0) {
            snprintf(error, error_capacity, "ferrule_plugin_manifest() answered %s",
                     answered == NULL ? "NULL" : "a misaligned pointer");
        } else if (memcmp(answered->magic, "ferrule", 8) != 0) {
            snprintf(error, error_capacity, "ferrule_plugin_manifest() answered something that is no manifest");
        } else if (answered->abi_major != FERRULE_ABI_MAJOR || answered->abi_minor != FERRULE_ABI_MINOR) {
            snprintf(error, error_capacity,
                     "ferrule_plugin_manifest() says ABI %u.%u, but the file's manifest says %u.%u",
                     (unsigned)answered->abi_major, (unsigned)answered->abi_minor, FERRULE_ABI_MAJOR,
                     FERRULE_ABI_MINOR);
        } else if (answered->json_len != manifest_len ||
                   memcmp((const uint8_t *)(answered + 1), manifest, manifest_len) != 0) {
            snprintf(error, error_capacity,
                     "ferrule_plugin_manifest() answers another manifest than the one in the file");
        } else {
            return library;
        }
    }
    free(library);                             /* the image stays mapped: nothing is ever dlclosed */
    return NULL;
}

/* ---- what a plugin gave back ------------------------------------------------------------------------ */

const char *fh_table_problem(const void *table, uint32_t needed, char *text, size_t text_size) {
    uint32_t size;
    if (table == NULL || (uintptr_t)table % sizeof(void *) != 0) {
        return table == NULL ? "has a table that is NULL" : "has a table at a misaligned address";
    }
    memcpy(&size, table, sizeof size);
    if (size >= needed && size <= 65536 && size % sizeof(void *) == 0) {
        return NULL;
    }
    snprintf(text, text_size, "has a table whose struct_size is %u, expected %u or more: %s", (unsigned)size,
             (unsigned)needed, size < needed ? "it is too short" : "that is no size");
    return text;
}

int32_t fh_violation(int32_t *poisoned, fh_buffer *error, const char *text) {
    fh_buffer_restore(error, 0);
    fh_error_set(error, text);
    fh_store32(poisoned, 1);
    return FERRULE_INTERNAL;
}

int32_t fh_settle(int32_t *poisoned, int32_t status, uint32_t allowed, fh_buffer *out, size_t entry_len,
                  fh_buffer *error) {
    int error_intact = fh_buffer_intact(error, 0);
    if (FH_UNLIKELY(!fh_buffer_intact(out, entry_len) || !error_intact)) {
        char text[200];
        const char *which = error_intact ? "out" : "error";
        const fh_buffer *buffer = error_intact ? out : error;
        const char *what = buffer->lent.data != buffer->data          ? "changed its data pointer"
                           : buffer->lent.capacity != buffer->capacity ? "changed its capacity"
                           : buffer->lent.len > buffer->capacity       ? "set its length past its capacity"
                           : buffer->lent.len < (error_intact ? entry_len : 0)
                               ? "set its length below where it began"
                               : "replaced its reserve function";
        snprintf(text, sizeof text, "the plugin broke the buffer rules: it %s ('%s' buffer)", what, which);
        fh_buffer_restore(out, entry_len);
        return fh_violation(poisoned, error, text);
    }
    if (FH_LIKELY(status == FERRULE_OK)) {
        return status;
    }
    out->lent.len = entry_len;
    if (status > FERRULE_OK) {
        if (status < 32 && (allowed & FH_ALLOW(status))) {
            return status;
        }
    } else if (status >= FERRULE_PANIC) {
        if (status == FERRULE_PANIC || status == FERRULE_INTERNAL) {
            fh_store32(poisoned, 1);
        }
        return status;
    }
    char text[200];
    snprintf(text, sizeof text, "the plugin answered with status %d, which this function may not give", (int)status);
    return fh_violation(poisoned, error, text);
}

/* ---- instances -------------------------------------------------------------------------------------- */

int32_t fh_instance_enter_in(fh_instance *instance, int64_t timeout_ms, fh_buffer *error) {
    error->lent.len = 0;
    if (FH_UNLIKELY(instance->epoch != fh_epoch)) {
        fh_error_set(error, "this instance was made before a fork; make a new one in the child");
        return FERRULE_INVALID_STATE;
    }
    if (instance->serial) {
        const int taken = fh_lock_take(&instance->lock, timeout_ms);
        if (FH_UNLIKELY(taken <= 0)) {
            fh_error_set(error, taken ? "a call of this serial instance is under way on the same thread (re-entrant call)"
                                      : "other calls of this serial instance took all the time; it was not called");
            return taken ? FERRULE_INVALID_STATE : FERRULE_TIMEOUT;
        }
    } else {
        fh_add32(&instance->active, 1);
    }
    if (FH_UNLIKELY(fh_load32(&instance->closing) || fh_load32(&instance->poisoned))) {
        int closed = fh_load32(&instance->closing);
        fh_instance_leave(instance);
        fh_error_set(error, closed ? "the instance is closed"
                                   : "the instance is poisoned by an earlier fault; make a new one");
        return FERRULE_INVALID_STATE;
    }
    return FERRULE_OK;
}

int32_t fh_instance_enter(fh_instance *instance, fh_buffer *error) { return fh_instance_enter_in(instance, -1, error); }

void fh_instance_leave(fh_instance *instance) {
    if (instance->serial) {
        fh_lock_give(&instance->lock);
    } else if (fh_add32(&instance->active, -1) == 1 && FH_UNLIKELY(fh_load32(&instance->closing))) {
        fh_mutex_lock(&instance->lock.mutex);
        fh_condition_wake(&instance->lock.turn);
        fh_mutex_unlock(&instance->lock.mutex);
    }
}

fh_instance *fh_instance_new(fh_library *library, uint64_t id, const char *entry_point, const char *plugin,
                             size_t plugin_len, const char *config, size_t config_len, int32_t serial, fh_answer *answer,
                             int32_t *status) {
    ferrule_plugin_create_fn create = library->create;
    fh_buffer *error = &answer->error;
    error->lent.len = 0;
    if (entry_point != NULL) {
        library_symbol(library->handle, entry_point, &create);
    }
    if (create == NULL) {
        fh_error_set(error, entry_point ? "the entry point that the manifest names is missing from the library"
                                        : "symbol ferrule_plugin_create is missing from the library");
        *status = FERRULE_NOT_FOUND;
        return NULL;
    }
    fh_instance *instance = calloc(1, sizeof *instance);
    if (instance == NULL) {
        *status = FERRULE_OUT_OF_MEMORY;
        return NULL;
    }
    instance->serial = serial;
    instance->destroy = library->destroy;
    instance->id = id;
    instance->epoch = fh_epoch;
    fh_lock_init(&instance->lock);
    answer->metadata.lent.len = 0;
    ferrule_call call = {sizeof call, 0, instance->id, &instance->cancelled, -1, NULL, 0, &answer->metadata.lent};
    ferrule_instance *object = NULL;
    int32_t answered = create(&fh_host_table, &call, plugin, plugin_len, config, config_len, &object, &error->lent);
    answered = fh_settle(&instance->poisoned, answered, 0, &answer->out, answer->out.lent.len, error);
    if (answered != FERRULE_OK) {
        /* An object beside an error is nobody's: destroying what may be half made would be a guess. */
        *status = answered;
    } else if (object == NULL) {
        *status = fh_violation(&instance->poisoned, error, "create answered OK without an object");
    } else {
        char why[120], text[200];
        const char *problem = fh_table_problem(object->ops, sizeof(ferrule_instance_ops), why, sizeof why);
        if (problem == NULL) {
            problem = object->ops->method == NULL ? "lacks 'method'" : object->ops->call == NULL ? "lacks 'call'" : NULL;
        }
        if (problem == NULL) {
            instance->object = object;
            instance->ops = object->ops;
            instance->holders = 1;
            *status = FERRULE_OK;
            return instance;
        }
        snprintf(text, sizeof text, "create answered with an object that %s", problem);
        *status = fh_violation(&instance->poisoned, error, text);
    }
    fh_lock_free(&instance->lock);
    free(instance);
    return NULL;
}

/* PENDING: a call that was under way has opened a stream. Nothing is opened after that. */
static int32_t destroy(fh_instance *instance) {
    const int taken = fh_lock_take(&instance->lock, fh_exit_left());
    int32_t status = FERRULE_OK;
    if (taken <= 0) {
        return taken ? FERRULE_INVALID_STATE : FERRULE_TIMEOUT;
    }
    fh_store32(&instance->closing, 1);
    fh_mutex_lock(&instance->lock.mutex);
    while (status == FERRULE_OK && fh_load32(&instance->active)) {
        const int64_t left = fh_exit_left();
        if (left == 0) {
            status = FERRULE_TIMEOUT;
        } else {
            fh_condition_wait(&instance->lock.turn, &instance->lock.mutex, left);
        }
    }
    if (status == FERRULE_OK && instance->streams != NULL) {
        status = FERRULE_PENDING;
    }
    fh_mutex_unlock(&instance->lock.mutex);
    if (status == FERRULE_OK && instance->object != NULL) {
        instance->destroy(instance->object);
        instance->object = NULL;               /* under the lock: two may close at once, one destroys */
    }
    fh_lock_give(&instance->lock);
    return status;
}

int32_t fh_instance_close(fh_instance *instance, int32_t signals) {
    int32_t status;
    if (instance->epoch != fh_epoch) {
        instance->object = NULL;               /* after a fork it is the parent's to destroy */
        return FERRULE_OK;
    }
    do {
        status = fh_streams_close(instance, signals);
    } while (status == FERRULE_OK && (status = destroy(instance)) == FERRULE_PENDING);
    return status;
}

void fh_instance_drop(fh_instance *instance) {
    if (fh_add32(&instance->holders, -1) == 1 && fh_instance_close(instance, 0) == FERRULE_OK) {
        if (instance->epoch == fh_epoch) {     /* else the lock may be held, by a thread that is not here */
            fh_lock_free(&instance->lock);
        }
        free(instance);
    }
}

static int has_streams(fh_instance *instance) {
    fh_mutex_lock(&instance->lock.mutex);
    const int has = instance->streams != NULL;
    fh_mutex_unlock(&instance->lock.mutex);
    return has;
}

void fh_instance_free(fh_instance *instance) {
    if (instance != NULL) {
        if (instance->epoch == fh_epoch && !has_streams(instance)) {
            fh_instance_close(instance, 0);    /* else the last of them does it */
        }
        fh_instance_drop(instance);
    }
}

int32_t fh_instance_poisoned(fh_instance *instance) { return fh_load32(&instance->poisoned); }

int32_t fh_instance_method(fh_instance *instance, const char *name, size_t name_len) {
    return instance->ops->method(instance->object, name, name_len);
}

int64_t fh_result_of(fh_answer *answer, int32_t status) {
    if (FH_UNLIKELY(status != FERRULE_OK)) {
        return (int64_t)status + FH_STATUS;
    }
    if (FH_UNLIKELY(answer->out.moved)) {
        answer->out.moved = 0;
        return FH_MOVED;
    }
    return (int64_t)answer->out.lent.len;
}

int32_t fh_call_enter(fh_instance *instance, ferrule_call *call, fh_buffer *error) {
    const int64_t until = fh_until(call->timeout_ms);
    int32_t status = fh_instance_enter_in(instance, call->timeout_ms, error);
    if (status == FERRULE_OK && fh_load32(call->cancelled)) {
        fh_instance_leave(instance);
        fh_error_set(error, "cancelled before it began; it was not called");
        status = FERRULE_CANCELLED;
    }
    const int64_t left = fh_left(until);
    call->timeout_ms = left == 0 && call->timeout_ms > 0 ? 1 : left;  /* it came in; 0 would mean 'do not wait' */
    return status;
}

void fh_cancel(int32_t *cancelled) { fh_store32(cancelled, 1); }

static inline int32_t called(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, int64_t timeout_ms,
                             const int32_t *cancelled, const char *metadata, size_t metadata_len, fh_answer *answer) {
    answer->out.lent.len = 0;
    answer->metadata.lent.len = 0;
    ferrule_call call = {sizeof call, 0,        instance->id, cancelled ? cancelled : &instance->cancelled,
                         timeout_ms,  metadata, metadata_len, &answer->metadata.lent};
    int32_t status = fh_call_enter(instance, &call, &answer->error);
    if (FH_LIKELY(status == FERRULE_OK)) {
        status = instance->ops->call(instance->object, method, &call, in, in_len, &answer->out.lent,
                                     &answer->error.lent);
        status = fh_settle(&instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), &answer->out, 0, &answer->error);
        if (FH_UNLIKELY(!fh_buffer_intact(&answer->metadata, 0))) {
            fh_buffer_restore(&answer->metadata, 0);
            answer->out.lent.len = 0;
            status = fh_violation(&instance->poisoned, &answer->error,
                                  "the plugin broke the buffer rules ('metadata_out' buffer)");
        }
        fh_instance_leave(instance);
    }
    return status;
}

int32_t fh_call(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, fh_answer *answer) {
    return called(instance, method, in, in_len, -1, NULL, NULL, 0, answer);
}

int64_t fh_call_with(fh_instance *instance, int32_t method, const uint8_t *in, size_t in_len, int64_t timeout_ms,
                     const int32_t *cancelled, const char *metadata, size_t metadata_len, fh_answer *answer) {
    return fh_result_of(answer, called(instance, method, in, in_len, timeout_ms, cancelled, metadata, metadata_len,
                                       answer));
}

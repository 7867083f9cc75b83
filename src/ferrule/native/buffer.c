/* buffer.c: host-owned buffers, and the guard that checks what a plugin did to one. */
#include "internal.h"

#include <stdio.h>

int32_t fh_heap_reserve(ferrule_buffer *lent, size_t additional) {
    fh_buffer *buffer = (fh_buffer *)lent;     /* `lent` is its first member */
    size_t length = lent->len;
    if (length > buffer->capacity || additional > buffer->limit || length > buffer->limit - additional) {
        return FERRULE_OUT_OF_MEMORY;
    }
    size_t needed = length + additional;
    if (needed <= buffer->capacity) {
        return FERRULE_OK;
    }
    size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
    while (capacity < needed) {
        capacity = capacity > buffer->limit / 2 ? buffer->limit : capacity * 2;
    }
    uint8_t *data = realloc(buffer->data, capacity);
    if (data == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    buffer->data = lent->data = data;
    buffer->capacity = lent->capacity = capacity;
    buffer->moved = 1;
    return FERRULE_OK;
}

int32_t fh_buffer_init(fh_buffer *buffer, size_t capacity, size_t limit) {
    memset(buffer, 0, sizeof *buffer);
    buffer->lent.struct_size = sizeof(ferrule_buffer);
    buffer->lent.reserve = buffer->reserve = fh_heap_reserve;
    buffer->limit = limit;
    return capacity ? fh_heap_reserve(&buffer->lent, capacity) : FERRULE_OK;
}

static int32_t leave(ferrule_buffer *lent, size_t additional) {
    fh_buffer *buffer = (fh_buffer *)lent, own = *buffer;
    if (lent->len > buffer->capacity) {
        return FERRULE_OUT_OF_MEMORY;
    }
    if (additional <= buffer->capacity - lent->len) {
        return FERRULE_OK;
    }
    own.data = NULL;
    own.capacity = own.lent.capacity = own.lent.len = 0;
    own.lent.reserve = own.reserve = fh_heap_reserve;
    int32_t status = additional > buffer->limit ? FERRULE_OUT_OF_MEMORY : fh_heap_reserve(&own.lent, lent->len + additional);
    if (status == FERRULE_OK) {
        memcpy(own.data, buffer->data, lent->len);
        own.lent.len = lent->len;
        *buffer = own;
    }
    return status;
}

void fh_buffer_begin_in(fh_buffer *buffer, uint8_t *data, size_t capacity) {
    buffer->data = buffer->lent.data = data;
    buffer->capacity = buffer->lent.capacity = capacity;
    buffer->reserve = buffer->lent.reserve = leave;
    buffer->lent.len = 0;
}

void fh_buffer_free(fh_buffer *buffer) {
    free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

int32_t fh_buffer_append(fh_buffer *buffer, const void *bytes, size_t length) {
    int32_t status = buffer->lent.reserve(&buffer->lent, length);
    if (status == FERRULE_OK && length) {
        memcpy(buffer->data + buffer->lent.len, bytes, length);
        buffer->lent.len += length;
    }
    return status;
}

void fh_buffer_restore(fh_buffer *buffer, size_t entry_len) {
    buffer->lent.struct_size = sizeof(ferrule_buffer);
    buffer->lent.data = buffer->data;
    buffer->lent.capacity = buffer->capacity;
    buffer->lent.reserve = buffer->reserve;
    buffer->lent.len = entry_len <= buffer->capacity ? entry_len : 0;
}

void fh_error_set(fh_buffer *error, const char *text) {
    char object[512];
    int length = snprintf(object, sizeof object, "{\"message\":\"%.480s\"}", text);
    error->lent.len = 0;
    fh_buffer_append(error, object, length < 0 ? 0 : (size_t)length);
}

fh_answer *fh_answer_new(size_t capacity, size_t limit) {
    fh_answer *answer = calloc(1, sizeof *answer);
    if (answer == NULL) {
        return NULL;
    }
    if (fh_buffer_init(&answer->out, capacity, limit) != FERRULE_OK ||
        fh_buffer_init(&answer->error, 512, 1 << 20) != FERRULE_OK ||
        fh_buffer_init(&answer->metadata, 0, 1 << 20) != FERRULE_OK) {
        fh_answer_free(answer);
        return NULL;
    }
    answer->out.moved = 1;                     /* nobody has seen where it lies */
    return answer;
}

void fh_answer_free(fh_answer *answer) {
    if (answer != NULL) {
        fh_buffer_free(&answer->out);
        fh_buffer_free(&answer->error);
        fh_buffer_free(&answer->metadata);
        free(answer);
    }
}

/* many.c: one crossing for many calls of one method. */
#include "internal.h"

uint32_t fh_call_many(fh_instance *instance, int32_t method, const fh_span *inputs, uint32_t rows, int32_t lines,
                      int32_t stop_at_error, fh_answer *answer, fh_result *results, uint32_t *unusual) {
    fh_buffer *out = &answer->out, *errors = &answer->metadata, *error = &answer->error;
    const ferrule_call call = {sizeof call, 0, instance->id, &instance->cancelled, -1, NULL, 0, NULL};
    uint32_t i = 0;
    out->lent.len = errors->lent.len = 0;
    *unusual = 0;
    int32_t status = fh_instance_enter(instance, error);
    const int entered = status == FERRULE_OK;
    for (; i < rows; i++) {
        const size_t entry_len = out->lent.len;
        if (FH_LIKELY(entered && !fh_load32(&instance->poisoned))) {
            error->lent.len = 0;
            status = instance->ops->call(instance->object, method, &call, inputs[i].data, inputs[i].length,
                                         &out->lent, &error->lent);
            if (FH_UNLIKELY(status != FERRULE_OK || !fh_buffer_intact(out, entry_len) || !fh_buffer_intact(error, 0))) {
                status = fh_settle(&instance->poisoned, status, FH_ALLOW(FERRULE_SKIP), out, entry_len, error);
            }
        } else if (entered) {
            status = FERRULE_INVALID_STATE;
            fh_error_set(error, "the instance is poisoned by an earlier fault; make a new one");
        }
        if (FH_UNLIKELY(status == FERRULE_OK && out->lent.len == entry_len)) {
            status = FERRULE_INVALID_DATA;
            fh_error_set(error, "the plugin answered with nothing, where a record or SKIP is expected");
        }
        if (FH_LIKELY(status == FERRULE_OK)) {
            results[i] = (fh_result){status, (uint32_t)(out->lent.len - entry_len)};
            if (lines && fh_buffer_append(out, "\n", 1) != FERRULE_OK) {
                status = FERRULE_OUT_OF_MEMORY;
            }
        }
        if (FH_UNLIKELY(status != FERRULE_OK)) {
            out->lent.len = entry_len;
            ++*unusual;
            results[i] = (fh_result){status, status < FERRULE_OK ? (uint32_t)error->lent.len : 0};
            if (status < FERRULE_OK) {
                if (fh_buffer_append(errors, error->data, error->lent.len) != FERRULE_OK) {
                    results[i].length = 0;     /* its status must do */
                }
                if (stop_at_error) {
                    i++;
                    break;
                }
            }
        }
    }
    if (entered) {
        fh_instance_leave(instance);
    }
    return i;
}

size_t fh_count_lines(const uint8_t *bytes, size_t length) {
    return fh_newlines(bytes, length) + (length && bytes[length - 1] != '\n');
}

void fh_split_lines(const uint8_t *bytes, size_t length, fh_span *lines) {
    const uint8_t *end = bytes + length;
    while (bytes < end) {
        const uint8_t *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        const uint8_t *stop = newline == NULL ? end : newline;
        *lines++ = (fh_span){bytes, (size_t)(stop - bytes)};
        bytes = stop + 1;
    }
}

size_t fh_newlines(const uint8_t *bytes, size_t length) {
    size_t count = 0, from = 0;
    for (; from + 240 <= length; from += 240) {
        uint8_t some = 0;                      /* of so few, a compiler adds up vectors of bytes */
        for (size_t i = 0; i < 240; i++) {
            some += bytes[from + i] == '\n';
        }
        count += some;
    }
    for (; from < length; from++) {
        count += bytes[from] == '\n';
    }
    return count;
}

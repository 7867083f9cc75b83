/* probe: a plugin that puts every helper of ferrule_sdk.h within a test's reach.
 *
 * `edit`: extends the record, drops the fields that the config's "remove" names, sets those of "set".
 * `convert`: gives back what each reader of JSON made of "text", "number", "integer", "flag", and "time" of "seconds".
 * `lines`: gives back each line's length, four bytes of it, and the line.
 * `fail`: fails with the message, details and retry_after_ms of its input. */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "probe", "version": "0.1.0",
    "plugins": [{"name": "probe", "kind": "function", "language": "c", "config": {"type": "object"},
                 "methods": [{"name": "edit", "mode": "unary"}, {"name": "convert", "mode": "unary"},
                             {"name": "lines", "mode": "unary"}, {"name": "fail", "mode": "unary"}]}]
});

struct probe {
    ferrule_instance base;
    char *config;
    size_t config_len;
};

FERRULE_CREATE(create) {
    struct probe *probe = (struct probe *)self;
    probe->config = (char *)malloc(config_len + 1);
    if (probe->config == NULL) return FERRULE_OUT_OF_MEMORY;
    if (config_len != 0) memcpy(probe->config, config, config_len);
    probe->config_len = config_len;
    return ferrule_json_bool(config, config_len, "refuse", 0)
               ? ferrule_fail(error, FERRULE_INVALID_CONFIG, "The config says refuse")
               : FERRULE_OK;
}

static void destroy(void *self) { free(((struct probe *)self)->config); }

FERRULE_CALL(edit) {
    const struct probe *probe = (const struct probe *)self;
    size_t size;
    const char *list, *at = NULL;
    ferrule_member member;
    ferrule_record record;
    ferrule_record_extend(&record, in, in_len, out, error);
    list = ferrule_json_find(probe->config, probe->config_len, "remove", &size);
    while (list != NULL && ferrule_json_next(list, size, &at, &member)) {
        char *key = ferrule_json_unescape(member.key, member.key_len, NULL);
        ferrule_record_remove(&record, key);
        free(key);
    }
    list = ferrule_json_find(probe->config, probe->config_len, "set", &size);
    for (at = NULL; list != NULL && ferrule_json_next(list, size, &at, &member);) {
        char *key = ferrule_json_unescape(member.key, member.key_len, NULL);
        if (*member.value == '"') {
            size_t length;
            char *text = ferrule_json_unescape(member.value, member.value_len, &length);
            ferrule_record_string(&record, key, text, length);
            free(text);
        } else {
            ferrule_record_json(&record, key, member.value, member.value_len);
        }
        free(key);
    }
    return ferrule_record_finish(&record);
}

FERRULE_CALL(convert) {
    ferrule_record record;
    size_t size;
    char *text = ferrule_json_string(in, in_len, "text", "none", &size), time[32];
    const char *raw;
    ferrule_record_begin(&record, out, error);
    ferrule_record_string(&record, "text", text, size);
    ferrule_record_number(&record, "number", ferrule_json_number(in, in_len, "number", -1.5));
    ferrule_record_int(&record, "integer", ferrule_json_int(in, in_len, "integer", -1));
    ferrule_record_bool(&record, "flag", ferrule_json_bool(in, in_len, "flag", 1));
    ferrule_record_text(&record, "time", ferrule_rfc3339(time, ferrule_json_int(in, in_len, "seconds", 0),
                                                         (int32_t)ferrule_json_int(in, in_len, "microseconds", 0)));
    ferrule_record_text(&record, "now", ferrule_rfc3339_now(time));
    raw = ferrule_record_get(&record, "integer", &size);
    ferrule_record_bool(&record, "found", raw != NULL && ferrule_record_get(&record, "absent", &size) == NULL);
    free(text);
    return ferrule_record_finish(&record);
}

FERRULE_CALL(each_line) {
    ferrule_lines lines = ferrule_lines_of(in, in_len);
    while (ferrule_next_line(&lines)) {
        const uint32_t length = (uint32_t)lines.length;
        ferrule_append(out, &length, sizeof length);
        ferrule_append(out, lines.line, lines.length);
    }
    return ferrule_next_line(&lines) ? FERRULE_INTERNAL : FERRULE_OK;
}

FERRULE_CALL(fail) {
    size_t size;
    const char *details = ferrule_json_find(in, in_len, "details", &size);
    char *message = ferrule_json_string(in, in_len, "message", "none", NULL);
    int32_t status = (int32_t)ferrule_json_int(in, in_len, "status", FERRULE_INVALID_DATA);
    int64_t retry = ferrule_json_int(in, in_len, "retry_after_ms", -1);
    ferrule_fail(error, status, "An earlier message, which the next one must replace");
    if (details == NULL && retry < 0) ferrule_fail(error, status, "%s", message);
    else ferrule_fail_details(error, status, details, size, retry, "%s", message);
    free(message);
    return status;
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("probe", struct probe, create, destroy, FERRULE_UNARY("edit", edit),
                   FERRULE_UNARY("convert", convert), FERRULE_UNARY("lines", each_line), FERRULE_UNARY("fail", fail))
);

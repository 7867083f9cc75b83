/* jobs: runners whose calls take their time, for the tests of deadlines, pools and asyncio.
 *
 * `jobs` (concurrent) and `jobs-serial`; each method takes {"ms": N, "fail": STATUS}
 * sleep     sleeps, a millisecond at a time, while nobody cancels; answers with the number of the instance
 * stubborn  the same, whether somebody cancels or not
 * told      answers OK with its metadata {"told": N}, or with the status of "fail" and that metadata beside it
 * count     how many `sleep`s since create or reset;  reset: forgets them, or fails where the config says so
 * poison    breaks a buffer's rule, and so the instance */
#define _GNU_SOURCE
#include "ferrule_sdk.h"

#include <time.h>

#define METHODS                                                                                                  \
    [{"name": "sleep", "mode": "unary", "cancellable": true}, {"name": "stubborn", "mode": "unary"},             \
     {"name": "told", "mode": "unary"}, {"name": "count", "mode": "unary"}, {"name": "reset", "mode": "unary"},  \
     {"name": "poison", "mode": "unary"}]
#define CONFIG {"type": "object", "properties": {"bad_reset": {"type": "boolean", "default": false}}}
#define JOBS_MANIFEST(...) FERRULE_MANIFEST(__VA_ARGS__)

JOBS_MANIFEST({
    "name": "jobs",
    "version": "0.1.0",
    "plugins": [
        {"name": "jobs", "kind": "runner", "language": "c", "threading": "concurrent", "config": CONFIG, "methods": METHODS},
        {"name": "jobs-serial", "kind": "runner", "language": "c", "config": CONFIG, "methods": METHODS},
        {"name": "jobs-one", "kind": "runner", "language": "c", "methods": [{"name": "sleep", "mode": "unary"}]}
    ]
});

struct jobs { ferrule_instance base; int bad_reset; int32_t count; int32_t number; };

static int32_t last_number;

FERRULE_CREATE(create) {
    struct jobs *jobs = (struct jobs *)self;
    jobs->bad_reset = ferrule_json_bool(config, config_len, "bad_reset", 0);
    jobs->number = __atomic_add_fetch(&last_number, 1, __ATOMIC_RELAXED);
    return FERRULE_OK;
}

static int32_t nap(const ferrule_call *call, const uint8_t *in, size_t in_len, int heeds, ferrule_buffer *error) {
    struct timespec moment = {0, 1000000};
    for (int64_t left = ferrule_json_int((const char *)in, in_len, "ms", 0); left > 0; left--) {
        if (heeds && __atomic_load_n(call->cancelled, __ATOMIC_ACQUIRE)) {
            return ferrule_fail(error, FERRULE_CANCELLED, "woken with %d ms to go", (int)left);
        }
        nanosleep(&moment, NULL);
    }
    return FERRULE_OK;
}

FERRULE_CALL(doze) {
    struct jobs *jobs = (struct jobs *)self;
    __atomic_add_fetch(&jobs->count, 1, __ATOMIC_RELAXED);
    int32_t status = nap(call, in, in_len, 1, error);
    return status == FERRULE_OK ? ferrule_append_int(out, jobs->number) : status;
}
FERRULE_CALL(stubborn) {
    int32_t status = nap(call, in, in_len, 0, error);
    return status == FERRULE_OK ? ferrule_append_int(out, ((struct jobs *)self)->number) : status;
}
FERRULE_CALL(told) {
    int64_t fail = ferrule_json_int((const char *)in, in_len, "fail", 0);
    if (call->metadata_out != NULL) {
        ferrule_append_text(call->metadata_out, "{\"told\":");
        if (call->metadata_len) {
            ferrule_append(call->metadata_out, call->metadata, call->metadata_len);
        } else {
            ferrule_append_text(call->metadata_out, "null");
        }
        ferrule_append_text(call->metadata_out, "}");
    }
    return fail ? ferrule_fail(error, (int32_t)fail, "as asked") : ferrule_append_text(out, "true");
}
FERRULE_CALL(count) { return ferrule_append_int(out, __atomic_load_n(&((struct jobs *)self)->count, __ATOMIC_RELAXED)); }
FERRULE_CALL(reset) {
    struct jobs *jobs = (struct jobs *)self;
    if (jobs->bad_reset) {
        return ferrule_fail(error, FERRULE_IO, "the reset failed, as the configuration says");
    }
    jobs->count = 0;
    return ferrule_append_text(out, "null");
}
FERRULE_CALL(poison) {
    out->len = out->capacity + 1;
    return FERRULE_OK;
}

#define ALL                                                                                                 \
    FERRULE_UNARY("sleep", doze), FERRULE_UNARY("stubborn", stubborn), FERRULE_UNARY("told", told),         \
        FERRULE_UNARY("count", count), FERRULE_UNARY("reset", reset), FERRULE_UNARY("poison", poison)

FERRULE_PLUGINS(FERRULE_PLUGIN("jobs", struct jobs, create, NULL, ALL),
                FERRULE_PLUGIN("jobs-serial", struct jobs, create, NULL, ALL),
                FERRULE_PLUGIN("jobs-one", struct jobs, create, NULL, FERRULE_UNARY("sleep", doze)));

/* {{name}}: says a text, once or as a stream; a stream of its own gives back what is fed to it, in capitals. */
#include "ferrule_pusher.h"

FERRULE_MANIFEST({
    "name": "{{name}}", "version": "0.1.0",
    "plugins": [{
        "name": "{{name}}", "kind": "runner", "language": "c", "threading": "concurrent",
        "description": "Says a text, once or as a stream.",
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "interval_ms": {"type": "integer", "minimum": 0, "default": 100, "description": "Between a stream's items."}
        }},
        "methods": [
            {"name": "run", "mode": "both", "cancellable": true, "description": "The text: once, or `times` times.",
             "args": {"type": "object", "additionalProperties": false, "required": ["text"], "properties": {
                 "text": {"type": "string"}, "times": {"type": "integer", "minimum": 0, "default": 3}}},
             "result": {"type": "string"}},
            {"name": "shout", "mode": "stream", "need_feed": true, "cancellable": true,
             "output": "application/octet-stream", "description": "What is fed, in capitals."}
        ]
    }]
});

struct {{ident}}_runner {
    ferrule_instance base; /* first, always */
    const ferrule_host *host;
    int64_t interval_ms;
};

/* The host has filled in the defaults and checked the config against its schema. */
FERRULE_CREATE(create) {
    struct {{ident}}_runner *runner = (struct {{ident}}_runner *)self;
    runner->host = host;
    runner->interval_ms = ferrule_json_int(config, config_len, "interval_ms", 100);
    return FERRULE_OK;
}

/* One answer. What takes long looks at ferrule_cancelled(call) now and then. Several threads may be here at once, since
 * the manifest says "concurrent". */
FERRULE_CALL(run) {
    size_t length;
    const char *text = ferrule_json_find(in, in_len, "text", &length);
    if (text == NULL) return ferrule_fail(error, FERRULE_INVALID_ARGUMENT, "text is missing");
    return ferrule_append(out, text, length); /* a JSON string as it stands */
}

/* What a stream's thread works on; it may outlive the instance, so it has what it needs of it. */
struct job {
    int64_t times, interval_ms;
    char *text;
    size_t length;
};

static void free_job(void *state) {
    free(((struct job *)state)->text);
    free(state);
}

/* On a thread of its own. A push waits while the reader is behind; it and the sleep end with CANCELLED on a cancel. */
FERRULE_WORK(say) {
    const struct job *job = (const struct job *)state;
    int32_t status = FERRULE_OK;
    int64_t i;
    for (i = 0; status == FERRULE_OK && i < job->times; i++) {
        if (i != 0) status = ferrule_push_sleep(pusher, job->interval_ms);
        if (status == FERRULE_OK) status = ferrule_push(pusher, job->text, job->length);
    }
    return status;
}

FERRULE_OPEN(open_run) {
    const struct {{ident}}_runner *runner = (const struct {{ident}}_runner *)self;
    size_t length;
    const char *text = ferrule_json_find(in, in_len, "text", &length);
    struct job *job;
    if (text == NULL) return ferrule_fail(error, FERRULE_INVALID_ARGUMENT, "text is missing");
    job = (struct job *)calloc(1, sizeof *job);
    if (job == NULL || (job->text = (char *)malloc(length)) == NULL) {
        free(job);
        return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for the job");
    }
    memcpy(job->text, text, job->length = length);
    job->times = ferrule_json_int(in, in_len, "times", 3);
    job->interval_ms = runner->interval_ms;
    return ferrule_pusher_open(runner->host, call, 0, say, job, free_job, out, error);
}

/* A pull waits for the next piece that is fed; END after the last one is the end of the stream too. */
FERRULE_WORK(shout) {
    const uint8_t *bytes;
    size_t length, i;
    int32_t status;
    while ((status = ferrule_pull(pusher, &bytes, &length)) == FERRULE_OK) {
        if ((status = ferrule_append(out, bytes, length)) != FERRULE_OK) return status;
        for (i = 0; i < length; i++)
            if (out->data[i] >= 'a' && out->data[i] <= 'z') out->data[i] ^= 'a' ^ 'A';
        if ((status = ferrule_push_buffer(pusher, out)) != FERRULE_OK) return status;
    }
    return status;
}

FERRULE_OPEN(open_shout) {
    const ferrule_host *host = ((const struct {{ident}}_runner *)self)->host;
    return ferrule_pusher_open(host, call, FERRULE_PUSHER_FEED, shout, NULL, NULL, out, error);
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("{{name}}", struct {{ident}}_runner, create, NULL, FERRULE_BOTH("run", run, open_run),
                   FERRULE_STREAM("shout", open_shout))
);

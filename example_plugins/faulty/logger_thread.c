/* logger-thread: Starts a thread that logs for its instance and for id 0, every millisecond, until the process ends:
 * also after destroy.
 * The host must: ignore the dead id, take the library's, and exit cleanly while the thread still logs. */
#include "faulty.h"
#include <pthread.h>

struct logger {
    const ferrule_host *host;
    uint64_t id;
};

static void *log_forever(void *data) {
    const struct logger *logger = (const struct logger *)data;
    for (;;) {
        ferrule_log(logger->host, logger->id, 20, "from an instance that may be gone");
        ferrule_log(logger->host, 0, 20, "from the library");
        FAULTY_PAUSE(1);
    }
    return NULL;
}

FERRULE_CREATE(create) {
    pthread_t thread;
    struct logger *logger = (struct logger *)malloc(sizeof *logger); /* never freed: the thread never ends */
    if (logger == NULL) return FERRULE_OUT_OF_MEMORY;
    logger->host = host;
    logger->id = call->id;
    if (pthread_create(&thread, NULL, log_forever, logger) != 0) {
        free(logger);
        return ferrule_fail(error, FERRULE_INTERNAL, "No thread");
    }
    pthread_detach(thread);
    return FERRULE_OK;
}

FERRULE_CALL(process) { return ferrule_append(out, in, in_len); }

FAULTY_MANIFEST("logger-thread", "function", FAULTY_PROCESS);
FERRULE_PLUGINS(FERRULE_PLUGIN("logger-thread", struct faulty, create, NULL, FERRULE_UNARY("process", process)));

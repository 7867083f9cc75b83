/* poisons: `process` answers INTERNAL at call config `at` (default 3); before, it gives its input back; after, it
 * aborts.
 * The host must: poison the instance: every later call is an error that says so, without entering the plugin. */
#include "faulty.h"

FERRULE_CALL(process) {
    struct faulty *faulty = (struct faulty *)self;
    int64_t at = faulty_int(self, "at", 3);
    if (++faulty->count > at) abort(); /* the host called a poisoned instance */
    if (faulty->count == at) return ferrule_fail(error, FERRULE_INTERNAL, "My state is broken");
    return ferrule_append(out, in, in_len);
}

FAULTY_FUNCTION("poisons", process);

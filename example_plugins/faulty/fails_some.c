/* fails-some: `process` answers INVALID_DATA for every config `every`th call (default 3), and gives its input back
 * else.
 * The host must: do with those records what the step's on_error says, and go on. */
#include "faulty.h"

FERRULE_CALL(process) {
    struct faulty *faulty = (struct faulty *)self;
    if (++faulty->count % faulty_int(self, "every", 3) != 0) return ferrule_append(out, in, in_len);
    return ferrule_fail(error, FERRULE_INVALID_DATA, "Call %lld is not to my taste", (long long)faulty->count);
}

FAULTY_FUNCTION("fails-some", process);

/* method-strange-status: `method` answers -99, which is neither a number of a method nor NOT_FOUND.
 * The host must: fail create with an error naming the method and the status, and destroy the instance. */
#include "faulty.h"

static int32_t strange(FERRULE__UNUSED ferrule_instance *instance, FERRULE__UNUSED const char *name,
                       FERRULE__UNUSED size_t name_len) {
    return -99;
}
static const ferrule_instance_ops ops = {sizeof ops, 0, strange, faulty_call, NULL, NULL};

FAULTY_TABLE("method-strange-status", &ops);

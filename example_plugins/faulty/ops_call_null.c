/* ops-call-null: The table's `call` is NULL.
 * The host must: refuse the instance at create with an error naming the library and the fault; the process goes on. */
#include "faulty.h"

static const ferrule_instance_ops ops = {sizeof ops, 0, faulty_method, NULL, NULL, NULL};

FAULTY_TABLE("ops-call-null", &ops);

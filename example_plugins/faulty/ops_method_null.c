/* ops-method-null: The table's `method` is NULL.
 * The host must: refuse the instance at create with an error naming the library and the fault; the process goes on. */
#include "faulty.h"

static const ferrule_instance_ops ops = {sizeof ops, 0, NULL, faulty_call, NULL, NULL};

FAULTY_TABLE("ops-method-null", &ops);

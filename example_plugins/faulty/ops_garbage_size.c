/* ops-garbage-size: The table's struct_size is no size (0xDEADBEEF).
 * The host must: refuse the instance at create with an error naming the library and the fault; the process goes on. */
#include "faulty.h"

static const ferrule_instance_ops ops = {0xDEADBEEF, 0, faulty_method, faulty_call, NULL, NULL};

FAULTY_TABLE("ops-garbage-size", &ops);

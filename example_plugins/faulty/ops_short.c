/* ops-short: The instance's table says 16 bytes: too short for `call`.
 * The host must: read no function of it; refuse the instance at create with an error naming the library and the fault;
 * the process goes on. */
#include "faulty.h"

static const ferrule_instance_ops ops = {16, 0, faulty_method, faulty_call, NULL, NULL};

FAULTY_TABLE("ops-short", &ops);

/* ops-misaligned: The instance's table stands at an odd address.
 * The host must: not read through it; refuse the instance at create with an error naming the library and the fault;
 * the process goes on. */
#include "faulty.h"

static const char bytes[sizeof(ferrule_instance_ops) + 16] = {0};

FAULTY_TABLE("ops-misaligned", bytes + 1 + ((uintptr_t)bytes & 1));

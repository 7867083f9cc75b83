/* create-returns-status: create answers config `status` (default 99) without an object.
 * The host must: turn an error status into its exception; treat END, PENDING, SKIP and undefined numbers as
 * INTERNAL. */
#include "faulty.h"

FAULTY_MANIFEST("create-returns-status", "function", FAULTY_PROCESS);
FAULTY_DESTROY
FAULTY_CREATE { return (int32_t)ferrule_json_int(config, config_len, "status", 99); }

/* ops-null: create answers OK with an object whose table is NULL.
 * The host must: refuse the instance at create with an error naming the library and the fault; the process goes on. */
#include "faulty.h"

FAULTY_TABLE("ops-null", NULL);

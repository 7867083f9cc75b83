/* ops-longer: No fault: the table is longer than this host's header, as a newer SDK's will be.
 * The host must: accept it and use the part that it knows; `process` gives its input back. */
#include "faulty.h"

static const struct {
    ferrule_instance_ops ops;
    void (*newer[3])(void);
} table = {{sizeof(table), 0, faulty_method, faulty_call, NULL, NULL}, {NULL, NULL, NULL}};

FAULTY_TABLE("ops-longer", &table);

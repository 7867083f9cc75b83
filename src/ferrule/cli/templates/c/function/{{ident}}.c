/* {{name}}: adds a field to each record. */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "{{name}}", "version": "0.1.0",
    "plugins": [{
        "name": "{{name}}", "kind": "function", "language": "c",
        "description": "Adds a field to each record.",
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "field": {"type": "string", "default": "added_by", "description": "The field to add."},
            "value": {"type": "string", "default": "{{name}}", "description": "What to put into it."}
        }},
        "methods": [{"name": "process", "mode": "unary", "description": "One record in, one record out."}]
    }]
});

/* One step of a flow: made with its config, zeroed before. */
struct {{ident}}_function {
    ferrule_instance base; /* first, always */
    char *field, *value;
};

/* The host has filled in the defaults and checked the config against its schema. */
FERRULE_CREATE(create) {
    struct {{ident}}_function *step = (struct {{ident}}_function *)self;
    step->field = ferrule_json_string(config, config_len, "field", "added_by", NULL);
    step->value = ferrule_json_string(config, config_len, "value", "{{name}}", NULL);
    if (step->field == NULL || step->value == NULL)
        return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for the config");
    return FERRULE_OK;
}

static void destroy(void *self) {
    struct {{ident}}_function *step = (struct {{ident}}_function *)self;
    free(step->field);
    free(step->value);
}

/* The record's own bytes are kept, and the field is added to them. FERRULE_SKIP would drop the record. */
FERRULE_CALL(process) {
    struct {{ident}}_function *step = (struct {{ident}}_function *)self;
    ferrule_record record;
    if (ferrule_record_extend(&record, in, in_len, out, error) != FERRULE_OK) return record.status;
    ferrule_record_text(&record, step->field, step->value);
    return ferrule_record_finish(&record);
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("{{name}}", struct {{ident}}_function, create, destroy, FERRULE_UNARY("process", process))
);

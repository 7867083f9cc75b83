/* add-metadata: stamps each record with who enriched it, and when. The twin of the Rust plugin of that name.
 *
 *   cc -shared -fPIC -O2 -Inative_sdk/include -Inative_sdk/c -o build/plugins/libadd_metadata_c.so \
 *      example_plugins/c/add_metadata/add_metadata.c
 */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "add-metadata-c", "version": "0.1.0", "license": "Apache-2.0 OR MIT",
    "description": "Stamps each record with who enriched it, and when.",
    "plugins": [{
        "name": "add-metadata", "kind": "function", "language": "c",
        "description": "Stamps each record with who enriched it, and when.",
        "config": {
            "type": "object", "additionalProperties": false,
            "properties": {"plugin_name": {"type": "string", "default": "unknown_rust_plugin",
                                           "description": "The name to stamp."}}
        },
        "methods": [{"name": "process", "mode": "unary", "description": "One record in, the stamped one out."}]
    }]
});

struct add_metadata {
    ferrule_instance base;
    char *name;
    size_t name_len;
};

FERRULE_CREATE(create) {
    struct add_metadata *stamp = (struct add_metadata *)self;
    stamp->name = ferrule_json_string(config, config_len, "plugin_name", "unknown_rust_plugin", &stamp->name_len);
    return stamp->name != NULL ? FERRULE_OK : ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for plugin_name");
}

static void destroy(void *self) { free(((struct add_metadata *)self)->name); }

FERRULE_CALL(process) {
    const struct add_metadata *stamp = (const struct add_metadata *)self;
    ferrule_record record;
    char now[32];
    if (ferrule_record_extend(&record, in, in_len, out, error) != FERRULE_OK) return record.status;
    ferrule_record_string(&record, "processed_by_rust_plugin", stamp->name, stamp->name_len);
    ferrule_record_string(&record, "rust_enriched_timestamp", ferrule_rfc3339_now(now), FERRULE_RFC3339_LEN);
    return ferrule_record_finish(&record);
}

FERRULE_PLUGINS(
    FERRULE_PLUGIN("add-metadata", struct add_metadata, create, destroy, FERRULE_UNARY("process", process))
);

/* identity: gives each input back, byte for byte, unread. What is left of a call when a plugin does nothing: benchmarks
 * measure the host with it.
 *
 *   cc -shared -fPIC -O2 -Inative_sdk/include -Inative_sdk/c -o build/plugins/libidentity_c.so \
 *      example_plugins/c/identity/identity.c
 */
#include "ferrule_sdk.h"

FERRULE_MANIFEST({
    "name": "identity-c", "version": "0.1.0", "license": "Apache-2.0 OR MIT",
    "description": "Gives each input back, byte for byte, unread.",
    "plugins": [{
        "name": "identity", "kind": "function", "language": "c", "threading": "concurrent",
        "description": "Gives each input back, byte for byte, unread.",
        "methods": [{"name": "process", "mode": "unary", "description": "The input."}]
    }]
});

FERRULE_CALL(process) {
    if (ferrule_append(out, in, in_len) != FERRULE_OK)
        return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "The host gives no room for the input's copy");
    return FERRULE_OK;
}

FERRULE_PLUGINS(FERRULE_PLUGIN("identity", ferrule_instance, NULL, NULL, FERRULE_UNARY("process", process)));

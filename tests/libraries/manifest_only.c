/* A library that has a manifest and the three symbols, and nothing behind them. The loader's tests build it for
 * several platforms, and change one thing at a time by -D. */
#include "ferrule.h"

#ifndef ABI_MAJOR
#define ABI_MAJOR FERRULE_ABI_MAJOR
#endif
#ifndef ABI_MINOR
#define ABI_MINOR FERRULE_ABI_MINOR
#endif
#ifndef MAGIC
#define MAGIC "ferrule"
#endif
#ifndef JSON_LEN
#define JSON_LEN sizeof(MANIFEST_TEXT) - 1
#endif
#ifndef CREATE
#define CREATE ferrule_plugin_create
#endif
#if defined(__APPLE__)
#define IN_SECTION __attribute__((section("__DATA,__ferrule"), used))
#else
#define IN_SECTION __attribute__((section(".ferrule"), used))
#endif

typedef struct {
    struct { char magic[8]; uint32_t abi_major, abi_minor; uint64_t json_len; } head;
    char json[sizeof(MANIFEST_TEXT)];
} manifest;

#ifndef NO_SECTION
IN_SECTION
#endif
static const manifest first = {{MAGIC, ABI_MAJOR, ABI_MINOR, JSON_LEN}, MANIFEST_TEXT};
#ifdef TWO_MANIFESTS
IN_SECTION static const manifest second = {{MAGIC, ABI_MAJOR, ABI_MINOR, JSON_LEN}, MANIFEST_TEXT};
#endif
#ifdef TRAILING
IN_SECTION static const char trailing[] = "trailing";
#endif

const ferrule_manifest *ferrule_plugin_manifest(void) { return (const ferrule_manifest *)(const void *)&first; }

#ifndef NO_CREATE
FERRULE_EXPORT int32_t CREATE(const ferrule_host *host, const ferrule_call *call, const char *plugin, size_t plugin_len,
                              const char *config, size_t config_len, ferrule_instance **out, ferrule_buffer *error) {
    (void)host, (void)call, (void)plugin, (void)plugin_len, (void)config, (void)config_len, (void)out, (void)error;
    return FERRULE_UNSUPPORTED;
}
#endif

void ferrule_plugin_destroy(ferrule_instance *instance) { (void)instance; }

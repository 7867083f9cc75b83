/* plugin.h: a plugin function for a program that is no host: made once, then called a record or a chunk of lines at a time.
 * One thread. What `call` answers with lies in the function's own buffer until the next call. */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <stddef.h>
#include <stdint.h>

typedef struct plugin plugin;

plugin *plugin_make(const char *library, const char *name, const char *config);  /* NULL: it said why on stderr */
/* 0, and *out holds *out_len bytes; or the plugin's status. `lines`: a record a line, answered line for line. */
int32_t plugin_call(plugin *plugin, int32_t lines, const uint8_t *in, size_t in_len, const uint8_t **out, size_t *out_len);

#endif

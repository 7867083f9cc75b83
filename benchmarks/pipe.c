/* A subprocess that speaks JSON lines: a line in, the plugin's answer out, flushed when nothing more waits to be read.
 *
 *   pipe LIBRARY PLUGIN CONFIG
 *   pipe COUNT BYTES              so many lines out, and nothing else: 64 KiB at a time */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grpc_server/plugin.h"

static int stream(long count, size_t bytes) {
    static char room[65536], line[4096];
    if (bytes >= sizeof line) {
        fprintf(stderr, "pipe: a line has at most %zu bytes\n", sizeof line - 1);
        return 2;
    }
    memset(line, 'x', bytes);
    line[bytes] = '\n';
    setvbuf(stdout, room, _IOFBF, sizeof room);
    while (count-- > 0 && fwrite(line, bytes + 1, 1, stdout) == 1) {
    }
    return fflush(stdout) != 0;
}

int main(int argc, char **argv) {
    if (argc == 3) {
        return stream(atol(argv[1]), (size_t)atol(argv[2]));
    }
    static uint8_t in[1 << 20], held[1 << 20];
    size_t have = 0;
    plugin *made = argc == 4 ? plugin_make(argv[1], argv[2], argv[3]) : NULL;
    if (made == NULL) {
        fprintf(stderr, "usage: pipe LIBRARY PLUGIN CONFIG | pipe COUNT BYTES\n");
        return 2;
    }
    for (;;) {
        ssize_t got = read(0, in + have, sizeof in - have);
        if (got <= 0) {
            return got < 0;
        }
        have += (size_t)got;
        size_t whole = have;
        while (whole && in[whole - 1] != '\n') {
            whole--;
        }
        if (whole == 0) {
            if (have == sizeof in) {
                fprintf(stderr, "pipe: a line is longer than 1 MiB\n");
                return 1;
            }
            continue;
        }
        const uint8_t *out;
        size_t out_len;
        if (plugin_call(made, 1, in, whole - 1, &out, &out_len) != 0) {
            fprintf(stderr, "pipe: the plugin failed\n");
            return 1;
        }
        for (size_t at = 0; at < out_len;) {
            ssize_t put = write(1, out + at, out_len - at);
            if (put < 0) {
                return 1;
            }
            at += (size_t)put;
        }
        have -= whole;
        memcpy(held, in + whole, have);
        memcpy(in, held, have);
    }
}

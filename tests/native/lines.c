/* lines: counts more bytes than what counts them can hold at once.
 *
 *   lines spoilt   rows of bytes that are no UTF-8, as the pump sees them: as many as bytes count, and multiples of that
 *   lines many     lines as `process_many` counts them, of more bytes than 32 bits count; one file mapped again and again
 *
 * Exit status 0 where the count is right, 77 where there is no room to try it. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static int spoilt(void) {
    static uint8_t bytes[1 << 17];
    memset(bytes, 0xFF, sizeof bytes);
    for (size_t length = 1 << 8; length <= sizeof bytes; length += 1 << 8) {
        if (fh_rows_valid(bytes, length, 0)) {
            return fprintf(stderr, "lines: %zu bytes of 0xFF were taken for text\n", length), 1;
        }
    }
    return 0;
}

static int many(void) {
    const size_t piece = (size_t)1 << 26, length = ((size_t)1 << 32) + piece;
    const int file = memfd_create("lines", 0);
    if (file < 0 || ftruncate(file, (off_t)piece) != 0) return 77;
    uint8_t *written = mmap(NULL, piece, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    uint8_t *bytes = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (written == MAP_FAILED || bytes == MAP_FAILED) return 77;
    memset(written, '\n', piece);
    for (size_t at = 0; at < length; at += piece) {
        if (mmap(bytes + at, piece, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) return 77;
    }
    const uint64_t counted = fh_count_lines(bytes, length);
    if (counted == length) return 0;
    fprintf(stderr, "lines: counted %llu of %zu\n", (unsigned long long)counted, length);
    return 1;
}

int main(int count, char **arguments) { return count > 1 && strcmp(arguments[1], "spoilt") == 0 ? spoilt() : many(); }

/* constructor: A constructor runs as the library is loaded and leaves a file, named by FERRULE_FAULTY_MARK, behind.
 * The host must: leave no such file after scanning, listing, inspecting and linting: those only read. Else it works:
 * `process` gives its input back. */
#include "faulty.h"

__attribute__((constructor)) static void leave_a_mark(void) {
    const char *path = getenv("FERRULE_FAULTY_MARK");
    FILE *file = path != NULL ? fopen(path, "ab") : NULL;
    if (file == NULL) return;
    fputs("ran\n", file);
    fclose(file);
}

FERRULE_CALL(process) { return ferrule_append(out, in, in_len); }

FAULTY_FUNCTION("constructor", process);

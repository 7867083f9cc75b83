/* answer-not-json: Answers with text that looks like an object and is no JSON.
 * The host must: refuse it where it is read: in a call, with an error naming plugin and method. A flow does not
 * parse what passes through it: there it is the error of the next step that reads it, and a sink of lines writes
 * it as it is. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"text\":}");
}

FAULTY_FUNCTION("answer-not-json", process);

/* answer-not-object: Answers with valid JSON that is no object.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "[1,2,3]");
}

FAULTY_FUNCTION("answer-not-object", process);

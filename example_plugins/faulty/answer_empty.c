/* answer-empty: Answers OK with nothing.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "");
}

FAULTY_FUNCTION("answer-empty", process);

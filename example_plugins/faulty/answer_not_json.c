/* answer-not-json: Answers with text that looks like an object and is no JSON.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"text\":}");
}

FAULTY_FUNCTION("answer-not-json", process);

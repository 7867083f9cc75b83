/* answer-many-lines: Answers with two records, one a line, without having declared application/x-ndjson.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"a\":1}\n{\"a\":2}");
}

FAULTY_FUNCTION("answer-many-lines", process);

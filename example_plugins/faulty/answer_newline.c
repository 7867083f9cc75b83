/* answer-newline: Answers with one JSON object that holds a raw newline.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"a\":1,\n\"b\":2}");
}

FAULTY_FUNCTION("answer-newline", process);

/* answer-newline: Answers with one JSON object that holds a raw newline.
 * The host must: refuse that one answer in a flow, with an error naming plugin, step and record, and let nothing
 * of it reach the next step or the sink. A call takes it: it is JSON. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"a\":1,\n\"b\":2}");
}

FAULTY_FUNCTION("answer-newline", process);

/* answer-not-utf8: Answers with bytes that are no UTF-8.
 * The host must: refuse that one answer with an error naming plugin, step and record; nothing of it reaches the next
 * step or the sink. */
#include "faulty.h"

FERRULE_CALL(process) {
    return ferrule_append_text(out, "{\"text\":\"\xFF\xFE\"}");
}

FAULTY_FUNCTION("answer-not-utf8", process);

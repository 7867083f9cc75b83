/* ferrule_sdk.h: what makes a plugin in C short. One header over ferrule.h, nothing to link. C99 and C++11.
 *
 * A plugin library is a manifest, a table of plugins, and their functions:
 *
 *   FERRULE_MANIFEST({"name": "shout", "version": "0.1.0", "plugins": [{"name": "shout", …}]});
 *   struct shout { ferrule_instance base; … };         // the instance: zeroed, base first
 *   FERRULE_CREATE(create) { … config … }              // heads of functions; see 'The table of plugins'
 *   FERRULE_CALL(process) { … in … out … }
 *   FERRULE_PLUGINS(FERRULE_PLUGIN("shout", struct shout, create, NULL, FERRULE_UNARY("process", process)));
 *
 * Both macros stand once in a library, in one file. Include this header before others when compiling with a strict
 * -std=c99 or -std=c11.
 *
 * How the comments read: contract, owner, life, thread, NULL. Where nothing is said: pointers are lent until the
 * function returns and may not be NULL, and the function touches only its arguments, so that any thread may call
 * it on arguments of its own. A text with a length may be NULL if the length is 0.
 */
#ifndef FERRULE_SDK_H
#define FERRULE_SDK_H

#if defined(__STRICT_ANSI__) && !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L /* clock_gettime; a strict -std hides it otherwise */
#endif

#include "ferrule.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__SSE2__) && defined(__GNUC__)
#include <emmintrin.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FERRULE__COLD __attribute__((cold, noinline, unused))
#define FERRULE__UNUSED __attribute__((unused))
#define FERRULE__INLINE static inline __attribute__((always_inline))
#define FERRULE__OUTLINE static __attribute__((noinline, unused))
#define FERRULE__LIKELY(condition) __builtin_expect(!!(condition), 1)
#else
#define FERRULE__COLD
#define FERRULE__UNUSED
#define FERRULE__INLINE static inline
#define FERRULE__OUTLINE static inline
#define FERRULE__LIKELY(condition) (condition)
#endif
#if defined(__GNUC__) && !defined(_WIN32)
#define FERRULE__PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define FERRULE__PRINTF(text, first)
#endif

/* ---- The manifest ---------------------------------------------------------------------------------------------
 *
 * FERRULE_MANIFEST({…}): the JSON written as it is, once in a library. It lies in section `.ferrule`, where a host
 * reads it from the file, and defines ferrule_plugin_manifest. It is neither compiled nor checked as JSON here:
 * `ferrule inspect` and `ferrule check` say what is wrong with it. MSVC stops at 16 KB.
 * Rationale: the exported function refers to the data, so strip, LTO and --gc-sections all leave it in place. */
#define FERRULE_MANIFEST(...) FERRULE__MANIFEST(#__VA_ARGS__)

#if defined(_MSC_VER) && !defined(__clang__)
#define FERRULE__SECTION __declspec(allocate(".ferrule"))
#define FERRULE__SECTION_BEGIN __pragma(section(".ferrule", read))
#elif defined(__APPLE__)
#define FERRULE__SECTION __attribute__((section("__DATA,__ferrule"), used))
#define FERRULE__SECTION_BEGIN
#else
#define FERRULE__SECTION __attribute__((section(".ferrule"), used))
#define FERRULE__SECTION_BEGIN
#endif
#if defined(__GNUC__)
#define FERRULE__LONG_STRINGS _Pragma("GCC diagnostic ignored \"-Woverlength-strings\"")
#else
#define FERRULE__LONG_STRINGS
#endif

#define FERRULE__MANIFEST(text)                                                                                     \
    FERRULE__LONG_STRINGS FERRULE__SECTION_BEGIN                                                                    \
    FERRULE__SECTION static const struct {                                                                          \
        ferrule_manifest head;                                                                                      \
        char json[sizeof(text)];                                                                                    \
    } ferrule__manifest = {                                                                                         \
        {{'f', 'e', 'r', 'r', 'u', 'l', 'e', 0}, FERRULE_ABI_MAJOR, FERRULE_ABI_MINOR, sizeof(text) - 1}, text};    \
    const ferrule_manifest *ferrule_plugin_manifest(void) { return &ferrule__manifest.head; }                       \
    const ferrule_manifest *ferrule_plugin_manifest(void)

/* ---- Output ----------------------------------------------------------------------------------------------------
 * Into a buffer that the host lent. Each answers OK, or OUT_OF_MEMORY (the host refused) with the buffer as it was. */

/* Room for `size` more bytes; they are not yet part of the output. */
static inline int32_t ferrule_reserve(ferrule_buffer *out, size_t size) {
    return FERRULE__LIKELY(out->capacity - out->len >= size) ? FERRULE_OK : out->reserve(out, size);
}

static inline int32_t ferrule_append(ferrule_buffer *out, const void *bytes, size_t size) {
    int32_t status = ferrule_reserve(out, size);
    if (status == FERRULE_OK && size != 0) {
        memcpy(out->data + out->len, bytes, size);
        out->len += size;
    }
    return status;
}

/* A NUL-terminated text, as it is. */
static inline int32_t ferrule_append_text(ferrule_buffer *out, const char *text) {
    return ferrule_append(out, text, strlen(text));
}

static inline int32_t ferrule_append_int(ferrule_buffer *out, int64_t value) {
    char digits[24];
    char *first = digits + sizeof digits;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do *--first = (char)('0' + rest % 10); while ((rest /= 10) != 0);
    if (value < 0) *--first = '-';
    return ferrule_append(out, first, (size_t)(digits + sizeof digits - first));
}

/* The shortest form that reads back as the same number; null for what JSON cannot say (NaN, infinities). */
static inline int32_t ferrule_append_number(ferrule_buffer *out, double value) {
    char digits[40];
    char *point;
    int precision = 15;
    if (value != value || value - value != 0) return ferrule_append(out, "null", 4);
    do snprintf(digits, sizeof digits, "%.*g", precision, value);
    while (strtod(digits, NULL) != value && ++precision <= 17);
    if ((point = strchr(digits, ',')) != NULL) *point = '.'; /* a locale's */
    return ferrule_append_text(out, digits);
}

/* How many bytes at the head of a text may stand in a JSON string as they are and are ASCII. */
static inline size_t ferrule__plain(const uint8_t *text, size_t size) {
    const uint64_t ones = UINT64_C(0x0101010101010101), highs = UINT64_C(0x8080808080808080);
    size_t i = 0;
#if defined(__SSE2__) && defined(__GNUC__)
    while (size - i >= 16 || (size >= 16 && i < size)) { /* signed: below 0x20 are control bytes, and all above 0x7f */
        size_t at = size - i >= 16 ? i : size - 16;      /* the last block overlaps what is known to be plain */
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
        int stop = _mm_movemask_epi8(_mm_or_si128(
            _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)),
            _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')))));
        if (stop != 0) return at + (size_t)__builtin_ctz((unsigned)stop);
        i = at + 16;
    }
#endif
    for (; size - i >= 8; i += 8) {
        uint64_t v, quote, slash;
        memcpy(&v, text + i, 8);
        quote = v ^ (ones * '"');
        slash = v ^ (ones * '\\');
        if ((((quote - ones) & ~quote) | ((slash - ones) & ~slash) | (v - ones * 0x20) | v) & highs) break;
    }
    while (i < size && text[i] >= 0x20 && text[i] < 0x80 && text[i] != '"' && text[i] != '\\') i++;
    return i;
}

/* The length, 1 to 4, of the UTF-8 character at `text`, or 0 if none stands there. Reads no byte after one that
 * cannot go on, so a NUL ends it too. */
static inline size_t ferrule__utf8(const uint8_t *text, size_t size) {
    uint8_t a = text[0];
    if (a < 0x80) return 1;
    if (a < 0xC2 || a > 0xF4 || size < 2 || (text[1] & 0xC0) != 0x80) return 0;
    if (a < 0xE0) return 2;
    if (size < 3 || (text[2] & 0xC0) != 0x80) return 0;
    if (a == 0xE0 && text[1] < 0xA0) return 0; /* overlong */
    if (a == 0xED && text[1] > 0x9F) return 0; /* surrogates */
    if (a < 0xF0) return 3;
    if (size < 4 || (text[3] & 0xC0) != 0x80) return 0;
    if (a == 0xF0 && text[1] < 0x90) return 0;
    if (a == 0xF4 && text[1] > 0x8F) return 0; /* past U+10FFFF */
    return 4;
}

FERRULE__COLD static int32_t ferrule__append_escaped(ferrule_buffer *out, const uint8_t *text, size_t size) {
    static const char hex[] = "0123456789abcdef";
    size_t i = 0;
    while (i < size) {
        size_t run = ferrule__plain(text + i, size - i);
        uint8_t byte;
        char escape[8];
        int32_t status = ferrule_append(out, text + i, run);
        if (status != FERRULE_OK) return status;
        if ((i += run) == size) break;
        byte = text[i];
        if (byte >= 0x80) {
            size_t character = ferrule__utf8(text + i, size - i);
            status = character != 0 ? ferrule_append(out, text + i, character) : ferrule_append(out, "\xEF\xBF\xBD", 3);
            i += character != 0 ? character : 1;
        } else {
            size_t length = 2;
            escape[0] = '\\';
            switch (byte) {
            case '"': case '\\': escape[1] = (char)byte; break;
            case '\n': escape[1] = 'n'; break;
            case '\r': escape[1] = 'r'; break;
            case '\t': escape[1] = 't'; break;
            default:
                memcpy(escape + 1, "u00", 3);
                escape[4] = hex[byte >> 4];
                escape[5] = hex[byte & 15];
                length = 6;
            }
            status = ferrule_append(out, escape, length);
            i++;
        }
        if (status != FERRULE_OK) return status;
    }
    return FERRULE_OK;
}

/* A text as a JSON string, quotes included. What is not UTF-8 becomes U+FFFD, so the output always is. */
static inline int32_t ferrule_append_json_string(ferrule_buffer *out, const char *text, size_t size) {
    const uint8_t *bytes = (const uint8_t *)text;
    size_t entry = out->len;
    int32_t status = ferrule_append(out, "\"", 1);
    if (status == FERRULE_OK) status = ferrule__append_escaped(out, bytes, size);
    if (status == FERRULE_OK) status = ferrule_append(out, "\"", 1);
    if (status != FERRULE_OK) out->len = entry;
    return status;
}

/* ---- Errors ----------------------------------------------------------------------------------------------------
 * Both make the error object and answer `status`, so that a function ends with `return ferrule_fail(…)`. They reset
 * `error` first; when the host refuses memory it stays empty, and the host shows the status's name. A message is cut
 * after 2 KB. */

FERRULE__COLD static int32_t ferrule__fail(ferrule_buffer *error, int32_t status, const char *details, size_t size,
                                           int64_t retry_after_ms, const char *format, va_list arguments) {
    char message[2048];
    int length = vsnprintf(message, sizeof message, format, arguments);
    size_t end = length < 0 ? 0 : (size_t)length < sizeof message ? (size_t)length : sizeof message - 1;
    int32_t wrote;
    error->len = 0; /* error is passed empty, so nothing of the host's is below */
    wrote = ferrule_append_text(error, "{\"message\":");
    if (wrote == FERRULE_OK) wrote = ferrule_append_json_string(error, message, end);
    if (wrote == FERRULE_OK && size != 0) wrote = ferrule_append_text(error, ",\"details\":");
    if (wrote == FERRULE_OK) wrote = ferrule_append(error, details, size);
    if (wrote == FERRULE_OK && retry_after_ms >= 0) wrote = ferrule_append_text(error, ",\"retry_after_ms\":");
    if (wrote == FERRULE_OK && retry_after_ms >= 0) wrote = ferrule_append_int(error, retry_after_ms);
    if (wrote == FERRULE_OK) wrote = ferrule_append(error, "}", 1);
    if (wrote != FERRULE_OK) error->len = 0;
    return status;
}

/* {"message": …}, written as printf does. */
FERRULE__COLD FERRULE__PRINTF(3, 4) static int32_t
ferrule_fail(ferrule_buffer *error, int32_t status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ferrule__fail(error, status, NULL, 0, -1, format, arguments);
    va_end(arguments);
    return status;
}

/* The same with "details", one JSON value (none with length 0), and "retry_after_ms" (none below 0). */
FERRULE__COLD FERRULE__PRINTF(6, 7) static int32_t
ferrule_fail_details(ferrule_buffer *error, int32_t status, const char *details, size_t details_len,
                     int64_t retry_after_ms, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    ferrule__fail(error, status, details, details_len, retry_after_ms, format, arguments);
    va_end(arguments);
    return status;
}

/* ---- The host and the call -------------------------------------------------------------------------------------*/

/* Logs for instance or stream `id`; 0 is the library. Levels: 10 debug, 20 info, 30 warning, 40 error, 50 critical.
 * [any thread] */
FERRULE__COLD FERRULE__PRINTF(4, 5) static void
ferrule_log(const ferrule_host *host, uint64_t id, int32_t level, const char *format, ...) {
    char message[2048];
    va_list arguments;
    int length;
    if (host == NULL || !FERRULE_HAS(host, log) || !host->log_enabled(host, id, level)) return;
    va_start(arguments, format);
    length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    host->log(host, id, level, message, (size_t)length < sizeof message ? (size_t)length : sizeof message - 1, NULL, 0);
}

/* Whether a unary call is to end soon, with FERRULE_CANCELLED. */
static inline int ferrule_cancelled(const ferrule_call *call) { return FERRULE_LOAD(call->cancelled) != 0; }

/* Metadata for the caller, one JSON object, once a call: a unary one's, also beside an error, or open's for the stream.
 * OK, also when nobody listens, or OUT_OF_MEMORY. */
static inline int32_t ferrule_metadata_out(const ferrule_call *call, const char *object, size_t len) {
    return call->metadata_out == NULL ? FERRULE_OK : ferrule_append(call->metadata_out, object, len);
}

/* ---- Reading JSON ----------------------------------------------------------------------------------------------
 * For texts that are known to be valid: a config, an `in` that the host checked, a record after extend. They
 * never read past the end of an invalid one, but what they find in it means nothing. */

/* One member of an object. `key` and `value` are raw JSON, key with its quotes, and point into the text. */
typedef struct ferrule_member {
    const char *key, *value;
    size_t key_len, value_len;
} ferrule_member;

static inline const char *ferrule__skip_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

static inline const char *ferrule__skip_string(const char *at, const char *end) { /* at the opening quote */
    for (at++; at < end && *at != '"'; at++)
        if (*at == '\\') at++;
    return at < end ? at + 1 : end;
}

static inline const char *ferrule__skip_value(const char *at, const char *end) {
    size_t depth = 0;
    while (at < end) {
        char byte = *at;
        if (byte == '"') {
            at = ferrule__skip_string(at, end);
        } else if (byte == '{' || byte == '[') {
            depth++, at++;
            continue;
        } else if (byte == '}' || byte == ']') {
            if (depth == 0) return at;
            depth--, at++;
        } else if (depth != 0) {
            at++;
            continue;
        } else {
            while (at < end && *at != ',' && *at != '}' && *at != ']' && (uint8_t)*at > ' ') at++;
        }
        if (depth == 0) return at;
    }
    return end;
}

/* Walks over an object's members: `*at` is NULL at first. 1 and *member, or 0 after the last one. */
static inline int ferrule_json_next(const void *object, size_t size, const char **at, ferrule_member *member) {
    const char *end = (const char *)object + size, *p = *at;
    if (p == NULL) {
        if (size == 0) return 0;
        p = ferrule__skip_space((const char *)object, end);
        if (p == end || *p++ != '{') return 0;
    }
    p = ferrule__skip_space(p, end);
    if (p < end && *p == ',') p = ferrule__skip_space(p + 1, end);
    if (p == end || *p != '"') return 0;
    member->key = p;
    p = ferrule__skip_string(p, end);
    member->key_len = (size_t)(p - member->key);
    p = ferrule__skip_space(p, end);
    if (p == end || *p++ != ':') return 0;
    member->value = ferrule__skip_space(p, end);
    *at = ferrule__skip_value(member->value, end);
    member->value_len = (size_t)(*at - member->value);
    return 1;
}

static inline unsigned ferrule__hex4(const char *digits) {
    unsigned value = 0;
    int i;
    for (i = 0; i < 4; i++) {
        char c = digits[i];
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

/* Takes one character off a JSON string's inside (`*at`, before `end`) as UTF-8 into `into`; its length, 1 to 4. */
static inline size_t ferrule__unescape(const char **at, const char *end, char into[4]) {
    const char *p = *at;
    unsigned code;
    if (*p != '\\' || p + 1 == end) {
        into[0] = *p;
        *at = p + 1;
        return 1;
    }
    *at = p + 2;
    switch (p[1]) {
    case 'b': into[0] = '\b'; return 1;
    case 'f': into[0] = '\f'; return 1;
    case 'n': into[0] = '\n'; return 1;
    case 'r': into[0] = '\r'; return 1;
    case 't': into[0] = '\t'; return 1;
    case 'u': if (end - p >= 6) break; /* fall through */
    default: into[0] = p[1]; return 1;
    }
    code = ferrule__hex4(p + 2);
    *at = p + 6;
    if (code >= 0xD800 && code < 0xDC00 && end - p >= 12) {
        code = 0x10000 + ((code - 0xD800) << 10) + ((ferrule__hex4(p + 8) - 0xDC00) & 0x3FF);
        *at = p + 12;
        into[0] = (char)(0xF0 | (code >> 18 & 7));
        into[1] = (char)(0x80 | (code >> 12 & 0x3F));
        into[2] = (char)(0x80 | (code >> 6 & 0x3F));
        into[3] = (char)(0x80 | (code & 0x3F));
        return 4;
    }
    if (code < 0x80) {
        into[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        into[0] = (char)(0xC0 | code >> 6);
        into[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    into[0] = (char)(0xE0 | (code >> 12 & 0x0F));
    into[1] = (char)(0x80 | (code >> 6 & 0x3F));
    into[2] = (char)(0x80 | (code & 0x3F));
    return 3;
}

/* Whether a raw JSON string, with its quotes, says `text` once its escapes are taken out. */
static inline int ferrule_json_equals(const char *raw, size_t raw_len, const char *text, size_t size) {
    const char *at = raw + 1, *end = raw + raw_len - 1;
    char character[4];
    if (raw_len < 2 || *raw != '"') return 0;
    if (raw_len - 2 == size && memcmp(at, text, size) == 0) return memchr(text, '\\', size) == NULL;
    if (memchr(at, '\\', raw_len - 2) == NULL) return 0;
    while (at < end) {
        size_t length = ferrule__unescape(&at, end, character);
        if (length > size || memcmp(character, text, length) != 0) return 0;
        text += length;
        size -= length;
    }
    return size == 0;
}

/* The raw value of a top-level key, or NULL if the object has none; the last one if it has several. Points into the
 * text. An inner object is read by calling it again on what it found. */
static inline const char *ferrule_json_find(const void *object, size_t size, const char *key, size_t *value_len) {
    const char *at = NULL, *found = NULL;
    ferrule_member member;
    *value_len = 0;
    while (ferrule_json_next(object, size, &at, &member))
        if (ferrule_json_equals(member.key, member.key_len, key, strlen(key))) {
            found = member.value;
            *value_len = member.value_len;
        }
    return found;
}

/* What a raw JSON string, with its quotes, says: NUL-terminated, the caller's to free, NULL without memory. `length`
 * may be NULL; a text may hold NULs, which only the length tells. */
static inline char *ferrule_json_unescape(const char *raw, size_t raw_len, size_t *length) {
    const char *at = raw + 1, *end = raw + raw_len - 1;
    size_t size = 0;
    char character[4], *text = (char *)malloc(raw_len); /* unescaped is never longer */
    if (length != NULL) *length = 0;
    if (text == NULL) return NULL;
    while (at < end) {
        size_t bytes = ferrule__unescape(&at, end, character);
        memcpy(text + size, character, bytes);
        size += bytes;
    }
    text[size] = 0;
    if (length != NULL) *length = size;
    return text;
}

/* The string of a key as ferrule_json_unescape gives it, or a copy of `fallback` if the key is missing or no string.
 * NULL without memory, or if it is missing and `fallback` is NULL. */
static inline char *ferrule_json_string(const void *object, size_t size, const char *key, const char *fallback,
                                        size_t *length) {
    size_t raw_len, fallback_len = fallback != NULL ? strlen(fallback) : 0;
    const char *raw = ferrule_json_find(object, size, key, &raw_len);
    char *text;
    if (raw != NULL && raw_len >= 2 && *raw == '"') return ferrule_json_unescape(raw, raw_len, length);
    text = fallback != NULL ? (char *)malloc(fallback_len + 1) : NULL;
    if (text != NULL) memcpy(text, fallback, fallback_len + 1);
    if (length != NULL) *length = text != NULL ? fallback_len : 0;
    return text;
}

static inline double ferrule_json_number(const void *object, size_t size, const char *key, double fallback) {
    char digits[64];
    size_t length;
    const char *raw = ferrule_json_find(object, size, key, &length);
    if (raw == NULL || length == 0 || length >= sizeof digits || (*raw != '-' && (*raw < '0' || *raw > '9')))
        return fallback;
    memcpy(digits, raw, length);
    digits[length] = 0;
    return strtod(digits, NULL);
}

/* An integer, also when written as 2.0 or 2e0; one that does not fit becomes the nearest that does. */
static inline int64_t ferrule_json_int(const void *object, size_t size, const char *key, int64_t fallback) {
    size_t length, i;
    const char *raw = ferrule_json_find(object, size, key, &length);
    uint64_t value = 0;
    const uint64_t most = UINT64_C(0x7FFFFFFFFFFFFFFF);
    int negative = raw != NULL && length != 0 && *raw == '-';
    if (raw == NULL || length <= (size_t)negative || raw[negative] < '0' || raw[negative] > '9') return fallback;
    for (i = (size_t)negative; i < length; i++) {
        if (raw[i] < '0' || raw[i] > '9') {
            double number = ferrule_json_number(object, size, key, 0);
            if (number >= 9223372036854775807.0) return INT64_MAX;
            return number <= -9223372036854775807.0 ? INT64_MIN : (int64_t)number;
        }
        if (value > (most - (uint64_t)(raw[i] - '0')) / 10) return negative ? INT64_MIN : INT64_MAX;
        value = value * 10 + (uint64_t)(raw[i] - '0');
    }
    return negative ? -(int64_t)value : (int64_t)value;
}

static inline int ferrule_json_bool(const void *object, size_t size, const char *key, int fallback) {
    size_t length;
    const char *raw = ferrule_json_find(object, size, key, &length);
    if (raw != NULL && length == 4 && memcmp(raw, "true", 4) == 0) return 1;
    if (raw != NULL && length == 5 && memcmp(raw, "false", 5) == 0) return 0;
    return fallback;
}

/* ---- Lines -----------------------------------------------------------------------------------------------------
 * A method whose input is application/x-ndjson is given a chunk of lines. They are walked over like this:
 *
 *   ferrule_lines lines = ferrule_lines_of(in, in_len);
 *   while (ferrule_next_line(&lines))
 *       ... lines.line, lines.length ... */

typedef struct ferrule_lines {  /* the caller's; read `line` and `length` (without its newline; 0: an empty one) */
    const uint8_t *line;
    size_t length;
    const uint8_t *rest, *block, *end;
    uint64_t newlines;          /* of the 64 bytes before `block`, those that are still to come */
} ferrule_lines;

static inline ferrule_lines ferrule_lines_of(const uint8_t *in, size_t in_len) {
    ferrule_lines lines;
    lines.line = NULL;
    lines.length = 0;
    lines.rest = lines.block = in;
    lines.end = in_len != 0 ? in + in_len : in; /* `in` may be NULL then */
    lines.newlines = 0;
    return lines;
}

/* Whether there is one more. The last may lack its newline.
 * Rationale: newlines are looked for a block of 64 bytes ahead; a search line by line would wait for each. */
static inline int ferrule_next_line(ferrule_lines *lines) {
    const uint8_t *stop = NULL;
    if (lines->rest == lines->end) return 0;
#if defined(__SSE2__) && defined(__GNUC__)
    while (lines->newlines == 0 && lines->end - lines->block >= 64) {
        const __m128i newline = _mm_set1_epi8('\n'), *from = (const __m128i *)(const void *)lines->block;
        const __m128i a = _mm_cmpeq_epi8(_mm_loadu_si128(from), newline);
        const __m128i b = _mm_cmpeq_epi8(_mm_loadu_si128(from + 1), newline);
        const __m128i c = _mm_cmpeq_epi8(_mm_loadu_si128(from + 2), newline);
        const __m128i d = _mm_cmpeq_epi8(_mm_loadu_si128(from + 3), newline);
        if (_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d))) != 0) /* most blocks have none */
            lines->newlines = (uint64_t)(unsigned)_mm_movemask_epi8(a) | (uint64_t)(unsigned)_mm_movemask_epi8(b) << 16 |
                              (uint64_t)(unsigned)_mm_movemask_epi8(c) << 32 | (uint64_t)(unsigned)_mm_movemask_epi8(d) << 48;
        lines->block += 64;
    }
    if (lines->newlines != 0) {
        stop = lines->block - 64 + __builtin_ctzll(lines->newlines);
        lines->newlines &= lines->newlines - 1;
    }
#endif
    if (stop == NULL) stop = (const uint8_t *)memchr(lines->rest, '\n', (size_t)(lines->end - lines->rest));
    if (stop == NULL) stop = lines->end;
    lines->line = lines->rest;
    lines->length = (size_t)(stop - lines->rest);
    lines->rest = stop < lines->end ? stop + 1 : stop;
    return 1;
}

/* ---- Records ---------------------------------------------------------------------------------------------------
 * A record is one JSON object. It is validated while its own bytes are copied, and fields are spliced on:
 *
 *   ferrule_record record;
 *   if (ferrule_record_extend(&record, in, in_len, out, error) == FERRULE_OK)
 *       ferrule_record_text(&record, "stamped_by", "demo");
 *   return ferrule_record_finish(&record);
 *
 * A field replaces every field of that name, however it was escaped, and goes to the end. The first failure sticks
 * (`status`), and what follows does nothing. What leaves starts with `{`, ends with `}` and holds no raw newline. */

#define FERRULE_RECORD_KEYS 32 /* remembered; a record with more is walked again for each field */
#define FERRULE_DEPTH 128      /* objects and arrays within each other, the record itself included */

typedef struct ferrule_record { /* the caller's, on its stack; one call, one thread; read only `status` */
    ferrule_buffer *out, *error;
    int32_t status;
    int escaped;                /* some key holds an escape, so bytes alone do not compare */
    size_t start, count;        /* where the record begins in out; its fields so far */
    uint64_t lengths;           /* a bit for each length of a key, modulo 64: most new keys need no comparison */
    struct { size_t offset, len; } keys[FERRULE_RECORD_KEYS]; /* from start on, quotes included */
} ferrule_record;

/* The validator runs over bytes with FERRULE__PADDING NULs behind them: a NUL is valid nowhere, so nothing looks for
 * the end, and a whole block can be read from anywhere. */
#define FERRULE__PADDING 64
#define FERRULE__QUOTES 32 /* words of 64 bytes each: how long a text may be for the fast path */
typedef struct ferrule__scan {
    const char *fault;
    const uint8_t *at;         /* of the fault */
    int newline, escaped;
    int plain;                 /* no escape, control or non-ASCII byte anywhere: each quote opens or closes a string */
    uint64_t quotes[FERRULE__QUOTES + 1]; /* and here they are, a bit for each byte of the text */
} ferrule__scan;

FERRULE__COLD static const uint8_t *ferrule__fault(ferrule__scan *scan, const uint8_t *at, const char *fault) {
    scan->at = at;
    scan->fault = fault;
    return NULL;
}

static inline const uint8_t *ferrule__spaces(const uint8_t *p, ferrule__scan *scan) {
    for (;; p++) {
        if (*p == '\n' || *p == '\r') scan->newline = 1;
        else if (*p != ' ' && *p != '\t') return p;
    }
}
static inline int ferrule__is_hex4(const uint8_t *p) {
    int i;
    for (i = 0; i < 4; i++)
        if (!((uint8_t)(p[i] - '0') < 10 || (uint8_t)((p[i] | 0x20) - 'a') < 6)) return 0;
    return 1;
}

/* Finds all quotes of a short plain text at once.
 * Rationale: string by string, each search waits for the one before; from a bitmap they overlap. */
static inline void ferrule__find_quotes(ferrule__scan *scan, const uint8_t *text, size_t size) {
    scan->plain = 0;
#if defined(__SSE2__) && defined(__GNUC__)
    if (size <= FERRULE__QUOTES * 64) {
        const __m128i space = _mm_set1_epi8(0x20), quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
        __m128i other = _mm_setzero_si128();
        unsigned last = 0;
        size_t at, words = 0;
        for (at = 0; at < size; words++) {
            uint64_t bits = 0;
            int part;
            for (part = 0; part < 64 && at < size; part += 16, at += 16) {
                __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(text + at)), odd;
                bits |= (uint64_t)(unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, quote)) << part;
                odd = _mm_or_si128(_mm_cmplt_epi8(v, space), _mm_cmpeq_epi8(v, slash));
                if (size - at >= 16) other = _mm_or_si128(other, odd);
                else last = (unsigned)_mm_movemask_epi8(odd) & ((1u << (size - at)) - 1); /* without the padding */
            }
            scan->quotes[words] = bits;
        }
        scan->quotes[words] = 1; /* in the padding, where no quote is */
        scan->plain = (last | (unsigned)_mm_movemask_epi8(other)) == 0;
    }
#else
    (void)text, (void)size;
#endif
}

typedef struct ferrule__cursor { /* walks over the quotes; a local that lives in registers */
    uint64_t bits;
    const uint64_t *word;
    const uint8_t *base;
} ferrule__cursor;

FERRULE__INLINE const uint8_t *ferrule__next_quote(ferrule__cursor *cursor) {
    const uint8_t *found;
    while (cursor->bits == 0) {
        cursor->bits = *++cursor->word;
        cursor->base += 64;
    }
#if defined(__GNUC__)
    found = cursor->base + (unsigned)__builtin_ctzll(cursor->bits);
#else
    found = cursor->base; /* never reached: `plain` is never set */
#endif
    cursor->bits &= cursor->bits - 1;
    return found;
}

/* From behind the opening quote to behind the closing one; NULL is a fault. */
FERRULE__OUTLINE const uint8_t *ferrule__check_long_string(const uint8_t *p, ferrule__scan *scan) {
    for (;;) {
#if defined(__SSE2__) && defined(__GNUC__)
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        int stop = _mm_movemask_epi8(_mm_or_si128(
            _mm_cmplt_epi8(v, _mm_set1_epi8(0x20)),
            _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\')))));
        if (stop == 0) {
            p += 16;
            continue;
        }
        p += __builtin_ctz((unsigned)stop);
#else
        size_t run = ferrule__plain(p, FERRULE__PADDING);
        p += run;
        if (run == FERRULE__PADDING) continue;
#endif
        if (FERRULE__LIKELY(*p == '"')) return p + 1;
        while (*p >= 0x80) {
            size_t length = ferrule__utf8(p, 4);
            if (length == 0) return ferrule__fault(scan, p, "is not valid UTF-8");
            p += length;
        }
        if (*p == '\\') {
            unsigned code;
            scan->escaped = 1;
            switch (p[1]) {
            case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
                p += 2;
                break;
            case 'u':
                if (!ferrule__is_hex4(p + 2))
                    return ferrule__fault(scan, p, "is not valid JSON: expected four hexadecimal digits after \\u");
                code = ferrule__hex4((const char *)p + 2);
                if (code >= 0xD800 && code < 0xE000) {
                    if (code >= 0xDC00 || p[6] != '\\' || p[7] != 'u' || !ferrule__is_hex4(p + 8) ||
                        (ferrule__hex4((const char *)p + 8) & 0xFC00) != 0xDC00)
                        return ferrule__fault(scan, p, "is not valid JSON: half a surrogate pair");
                    p += 6;
                }
                p += 6;
                break;
            default:
                return ferrule__fault(scan, p, "is not valid JSON: an unknown escape");
            }
        } else if (*p < 0x20) {
            return ferrule__fault(scan, p, "is not valid JSON: a string without its closing quote, broken off");
        }
    }
}

FERRULE__INLINE const uint8_t *ferrule__check_string(const uint8_t *p, int plain, ferrule__cursor *cursor,
                                                     ferrule__scan *scan) {
    const uint8_t *quote;
    if (!FERRULE__LIKELY(plain)) return ferrule__check_long_string(p, scan);
    ferrule__next_quote(cursor); /* the opening one */
    quote = ferrule__next_quote(cursor);
    if (FERRULE__LIKELY(*quote == '"')) return quote + 1;
    return ferrule__fault(scan, p, "is not valid JSON: a string without its closing quote");
}

FERRULE__INLINE const uint8_t *ferrule__check_number(const uint8_t *p, ferrule__scan *scan) {
#define FERRULE__DIGIT(p) ((uint8_t)(*(p) - '0') < 10)
    if (*p == '-') p++;
    if (!FERRULE__DIGIT(p)) return ferrule__fault(scan, p, "is not valid JSON: expected a digit");
    if (*p++ != '0') while (FERRULE__DIGIT(p)) p++;
    if (*p == '.') {
        p++;
        if (!FERRULE__DIGIT(p)) return ferrule__fault(scan, p, "is not valid JSON: expected a digit");
        while (FERRULE__DIGIT(p)) p++;
    }
    if ((*p | 0x20) == 'e') {
        p++;
        if (*p == '+' || *p == '-') p++;
        if (!FERRULE__DIGIT(p)) return ferrule__fault(scan, p, "is not valid JSON: expected a digit");
        while (FERRULE__DIGIT(p)) p++;
    }
    return p;
}

/* One JSON value at `text`, spaces around it allowed; behind it, or NULL. Notes the keys of the outermost object. */
FERRULE__OUTLINE const uint8_t *ferrule__check_value(const uint8_t *text, ferrule_record *record, ferrule__scan *scan) {
    uint8_t closers[FERRULE_DEPTH + 1], closer = 0; /* '}' or ']' for each depth, and for this one */
    ferrule__cursor cursor;
    const uint8_t *p = text, *key;
    size_t depth = 0, count = 0;
    uint64_t lengths = 0;
    const int plain = scan->plain;
    cursor.bits = scan->quotes[0];
    cursor.word = scan->quotes;
    cursor.base = text;
value:
    switch (*p) {
    case '"':
        if ((p = ferrule__check_string(p + 1, plain, &cursor, scan)) == NULL) return NULL;
        break;
    case '{': case '[':
        if (depth == FERRULE_DEPTH) return ferrule__fault(scan, p, "is nested deeper than 128");
        closers[depth++] = closer;
        closer = (uint8_t)(*p++ + 2); /* '}' stands 2 behind '{', ']' 2 behind '[' */
        if (*p <= ' ') p = ferrule__spaces(p, scan);
        if (*p == closer) {
            closer = closers[--depth];
            p++;
            break;
        }
        if (closer == ']') goto value;
        goto key;
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9':
        if ((p = ferrule__check_number(p, scan)) == NULL) return NULL;
        break;
    case 't':
        if (memcmp(p, "true", 4) != 0) goto no_value;
        p += 4;
        break;
    case 'f':
        if (memcmp(p, "false", 5) != 0) goto no_value;
        p += 5;
        break;
    case 'n':
        if (memcmp(p, "null", 4) != 0) goto no_value;
        p += 4;
        break;
    case ' ': case '\t': case '\n': case '\r':
        p = ferrule__spaces(p, scan);
        goto value;
    default:
    no_value:
        return ferrule__fault(scan, p, "is not valid JSON: expected a value");
    }
closed: /* what is expected is looked for first, and only then behind spaces */
    if (*p <= ' ') p = ferrule__spaces(p, scan);
    if (*p == ',' && depth != 0) {
        p++;
        if (closer == ']') goto value;
    } else if (depth == 0) {
        record->count = count;
        record->lengths = lengths;
        return p;
    } else if (*p == closer) {
        closer = closers[--depth];
        p++;
        goto closed;
    } else {
        return ferrule__fault(scan, p, closer == '}' ? "is not valid JSON: expected ',' or '}'"
                                                     : "is not valid JSON: expected ',' or ']'");
    }
key:
    if (*p != '"') {
        p = ferrule__spaces(p, scan);
        if (*p != '"') return ferrule__fault(scan, p, "is not valid JSON: expected a key in quotes");
    }
    key = p;
    if (!plain) scan->escaped = 0;
    if ((p = ferrule__check_string(p + 1, plain, &cursor, scan)) == NULL) return NULL;
    if (depth == 1) {
        if (count < FERRULE_RECORD_KEYS) {
            record->keys[count].offset = (size_t)(key - text);
            record->keys[count].len = (size_t)(p - key);
        }
        lengths |= UINT64_C(1) << ((size_t)(p - key) & 63);
        count++;
        if (!plain) record->escaped |= scan->escaped;
    }
    if (*p != ':') {
        p = ferrule__spaces(p, scan);
        if (*p != ':') return ferrule__fault(scan, p, "is not valid JSON: expected ':'");
    }
    p++;
    goto value;
}

FERRULE__COLD static int32_t ferrule__record_full(ferrule_record *record) {
    return record->status = ferrule_fail(record->error, FERRULE_OUT_OF_MEMORY, "The host gives no room for the record");
}

/* An empty record, for a source. */
static inline void ferrule_record_begin(ferrule_record *record, ferrule_buffer *out, ferrule_buffer *error) {
    record->out = out;
    record->error = error;
    record->escaped = 0;
    record->start = out->len;
    record->count = 0;
    record->lengths = 0;
    if ((record->status = ferrule_append(out, "{", 1)) != FERRULE_OK) ferrule__record_full(record);
}

/* A record that goes on from `in`. INVALID_DATA if that is not UTF-8, not JSON, nested deeper than 128 or no object. */
static inline int32_t ferrule_record_extend(ferrule_record *record, const uint8_t *in, size_t in_len,
                                            ferrule_buffer *out, ferrule_buffer *error) {
    ferrule__scan scan;
    size_t lead = 0;
    uint8_t *text;
    const uint8_t *end;
    record->out = out;
    record->error = error;
    record->status = FERRULE_OK;
    record->escaped = 0;
    record->start = out->len;
    record->count = 0;
    record->lengths = 0;
    while (lead < in_len && (in[lead] == ' ' || in[lead] == '\t' || in[lead] == '\n' || in[lead] == '\r')) lead++;
    if (ferrule_reserve(out, in_len + FERRULE__PADDING) != FERRULE_OK) return ferrule__record_full(record);
    text = out->data + record->start;
    if (in_len != lead) memcpy(text, in + lead, in_len - lead);
    memset(text + (in_len - lead), 0, FERRULE__PADDING);
    scan.fault = NULL;
    scan.newline = scan.escaped = 0;
    ferrule__find_quotes(&scan, text, in_len - lead);
    end = ferrule__check_value(text, record, &scan);
    if (end != NULL && end != text + (in_len - lead))
        end = ferrule__fault(&scan, end, "is not valid JSON: expected its end");
    if (end == NULL)
        return record->status = ferrule_fail(error, FERRULE_INVALID_DATA, "Data %s at byte %lu", scan.fault,
                                             (unsigned long)((size_t)(scan.at - text) + lead));
    if (*text != '{')
        return record->status = ferrule_fail(error, FERRULE_INVALID_DATA, "Data must be a JSON object");
    while (*--end != '}') {} /* spaces behind it; the brace itself comes with finish */
    if (scan.newline) {      /* between tokens: inside a string it is not valid */
        uint8_t *p;
        for (p = text; p < end; p++)
            if (*p == '\n' || *p == '\r') *p = ' ';
    }
    out->len = (size_t)(end - out->data);
    return FERRULE_OK;
}

/* Takes out every field of that name and remembers the others' places anew. */
FERRULE__COLD static void ferrule__record_clear(ferrule_record *record, const char *key, size_t key_len) {
    ferrule_buffer *out = record->out;
    const char *text = (const char *)out->data + record->start, *at = NULL, *before = text + 1;
    ferrule_member member;
    record->count = 0;
    record->escaped = 0;
    record->lengths = 0;
    while (ferrule_json_next(text, out->len - record->start, &at, &member)) {
        const char *end = (const char *)out->data + out->len;
        if (ferrule_json_equals(member.key, member.key_len, key, key_len)) {
            const char *next = ferrule__skip_space(at, end);
            if (next < end) { /* a comma: the next field moves here */
                next = ferrule__skip_space(next + 1, end);
                memmove(out->data + (member.key - (const char *)out->data), next, (size_t)(end - next));
                out->len -= (size_t)(next - member.key);
                at = member.key;
            } else {
                out->len = (size_t)(before - (const char *)out->data);
                at = before;
            }
            continue;
        }
        if (memchr(member.key, '\\', member.key_len) != NULL) record->escaped = 1;
        if (record->count < FERRULE_RECORD_KEYS) {
            record->keys[record->count].offset = (size_t)(member.key - text);
            record->keys[record->count].len = member.key_len;
            record->lengths |= UINT64_C(1) << (member.key_len & 63);
        }
        record->count++;
        before = at;
    }
}

/* The raw value of a field, or NULL. Points into the output: lent until the next change of the record. */
static inline const char *ferrule_record_get(const ferrule_record *record, const char *key, size_t *value_len) {
    *value_len = 0;
    if (record->status != FERRULE_OK) return NULL;
    return ferrule_json_find(record->out->data + record->start, record->out->len - record->start, key, value_len);
}

static inline int ferrule__record_may_have(const ferrule_record *record, const char *key, size_t key_len) {
    const char *text = (const char *)record->out->data + record->start;
    size_t i;
    if (record->escaped || record->count > FERRULE_RECORD_KEYS) return 1;
    if ((record->lengths >> ((key_len + 2) & 63) & 1) == 0) return 0;
    for (i = 0; i < record->count; i++)
        if (record->keys[i].len == key_len + 2 && memcmp(text + record->keys[i].offset + 1, key, key_len) == 0)
            return 1;
    return 0;
}

/* Drops a field; nothing if it is not there. */
static inline void ferrule_record_remove(ferrule_record *record, const char *key) {
    size_t key_len = strlen(key);
    if (record->status == FERRULE_OK && ferrule__record_may_have(record, key, key_len))
        ferrule__record_clear(record, key, key_len);
}

/* `,"key":`, with room for `size` more bytes. 1, or 0 with the status set. */
static inline int ferrule__record_key(ferrule_record *record, const char *key, size_t size) {
    size_t key_len = strlen(key), entry;
    ferrule_buffer *out = record->out;
    uint8_t *p;
    if (record->status != FERRULE_OK) return 0;
    if (ferrule__record_may_have(record, key, key_len)) ferrule__record_clear(record, key, key_len);
    if (ferrule_reserve(out, key_len + size + 4) != FERRULE_OK) return ferrule__record_full(record), 0;
    p = out->data + out->len;
    if (record->count != 0) *p++ = ',';
    entry = (size_t)(p - out->data);
    *p++ = '"';
    if (FERRULE__LIKELY(ferrule__plain((const uint8_t *)key, key_len) == key_len)) {
        memcpy(p, key, key_len);
        p += key_len;
        *p++ = '"';
        *p++ = ':';
        out->len = (size_t)(p - out->data);
    } else {
        out->len = entry;
        record->escaped = 1;
        if (ferrule_append_json_string(out, key, key_len) != FERRULE_OK || ferrule_append(out, ":", 1) != FERRULE_OK ||
            ferrule_reserve(out, size) != FERRULE_OK)
            return ferrule__record_full(record), 0;
    }
    if (record->count < FERRULE_RECORD_KEYS) {
        record->keys[record->count].offset = entry - record->start;
        record->keys[record->count].len = out->len - 1 - entry;
        record->lengths |= UINT64_C(1) << ((out->len - 1 - entry) & 63);
    }
    record->count++;
    return 1;
}

/* Sets a field to a raw JSON value, which must be valid and hold no newline; it is not looked at. */
static inline void ferrule_record_json(ferrule_record *record, const char *key, const char *json, size_t size) {
    if (ferrule__record_key(record, key, size) && ferrule_append(record->out, json, size) != FERRULE_OK)
        ferrule__record_full(record);
}

/* Sets a field to a string, escaped as ferrule_append_json_string does. */
static inline void ferrule_record_string(ferrule_record *record, const char *key, const char *text, size_t size) {
    ferrule_buffer *out = record->out;
    if (!ferrule__record_key(record, key, size + 2)) return;
    if (FERRULE__LIKELY(ferrule__plain((const uint8_t *)text, size) == size)) {
        uint8_t *p = out->data + out->len;
        *p++ = '"';
        if (size != 0) memcpy(p, text, size);
        p[size] = '"';
        out->len += size + 2;
    } else if (ferrule_append_json_string(out, text, size) != FERRULE_OK) {
        ferrule__record_full(record);
    }
}

/* Sets a field to a NUL-terminated string. */
static inline void ferrule_record_text(ferrule_record *record, const char *key, const char *text) {
    ferrule_record_string(record, key, text, strlen(text));
}

static inline void ferrule_record_int(ferrule_record *record, const char *key, int64_t value) {
    if (ferrule__record_key(record, key, 24) && ferrule_append_int(record->out, value) != FERRULE_OK)
        ferrule__record_full(record);
}

static inline void ferrule_record_number(ferrule_record *record, const char *key, double value) {
    if (ferrule__record_key(record, key, 40) && ferrule_append_number(record->out, value) != FERRULE_OK)
        ferrule__record_full(record);
}

static inline void ferrule_record_bool(ferrule_record *record, const char *key, int value) {
    ferrule_record_json(record, key, value ? "true" : "false", value ? 4 : 5);
}

/* The end of the record: OK, or the first failure, whose error object stands in `error`. */
static inline int32_t ferrule_record_finish(ferrule_record *record) {
    if (record->status == FERRULE_OK && ferrule_append(record->out, "}", 1) != FERRULE_OK) ferrule__record_full(record);
    return record->status;
}

/* ---- Time ------------------------------------------------------------------------------------------------------*/

#define FERRULE_RFC3339_LEN 27

/* Writes a time in UTC, RFC 3339 with microseconds: 2013-01-31T23:59:59.000001Z and a NUL. From 1970 to 9999. */
static inline char *ferrule_rfc3339(char into[32], int64_t seconds, int32_t microseconds) {
    static const char pairs[] =
        "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
        "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";
    /* Days to a date by Howard Hinnant's civil_from_days: years begin in March, so a leap day is the last. */
    uint32_t days = (uint32_t)(seconds / 86400) + 719468, rest = (uint32_t)(seconds % 86400);
    uint32_t era = days / 146097, of_era = days % 146097;
    uint32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year + year / 4 - year / 100);
    uint32_t month = (5 * of_year + 2) / 153, day = of_year - (153 * month + 2) / 5 + 1;
    uint32_t micro = (uint32_t)microseconds;
    month = month < 10 ? month + 3 : month - 9;
    year += era * 400 + (month <= 2);
#define FERRULE__PAIR(at, value) memcpy(into + (at), pairs + 2 * (size_t)(value), 2)
    FERRULE__PAIR(0, year / 100 % 100);
    FERRULE__PAIR(2, year % 100);
    into[4] = '-';
    FERRULE__PAIR(5, month);
    into[7] = '-';
    FERRULE__PAIR(8, day);
    into[10] = 'T';
    FERRULE__PAIR(11, rest / 3600);
    into[13] = ':';
    FERRULE__PAIR(14, rest / 60 % 60);
    into[16] = ':';
    FERRULE__PAIR(17, rest % 60);
    into[19] = '.';
    FERRULE__PAIR(20, micro / 10000 % 100);
    FERRULE__PAIR(22, micro / 100 % 100);
    FERRULE__PAIR(24, micro % 100);
    into[26] = 'Z';
    into[27] = 0;
    return into;
}

/* The present moment; `into`. */
static inline char *ferrule_rfc3339_now(char into[32]) {
    struct timespec now = {0, 0};
#if defined(CLOCK_REALTIME) && !defined(_WIN32)
    clock_gettime(CLOCK_REALTIME, &now);
#elif defined(TIME_UTC)
    timespec_get(&now, TIME_UTC);
#else
#error "no clock: include ferrule_sdk.h before any other header, or compile with -std=c11 or -std=gnu99"
#endif
    return ferrule_rfc3339(into, (int64_t)now.tv_sec, (int32_t)(now.tv_nsec / 1000));
}

/* ---- Streams ---------------------------------------------------------------------------------------------------
 * A stream that reads: its struct begins with a ferrule_reader, and its table is FERRULE_READER(next, position, close).
 * `position` may be NULL; `close` is ferrule_reader_close unless there is more to free than the struct, and then calls
 * it at its end. */

typedef struct ferrule_reader {
    ferrule_stream base;
    int32_t cancelled;
} ferrule_reader;

#if defined(_MSC_VER) && !defined(__clang__)
#define FERRULE__STORE(pointer, value) ((void)_InterlockedExchange((volatile long *)(pointer), (value)))
#else
#define FERRULE__STORE(pointer, value) __atomic_store_n((pointer), (value), __ATOMIC_RELEASE)
#endif

static inline void ferrule_reader_cancel(ferrule_stream *stream) {
    FERRULE__STORE(&((ferrule_reader *)(void *)stream)->cancelled, 1);
}
static inline int ferrule_reader_cancelled(const void *reader) {
    return FERRULE_LOAD(&((const ferrule_reader *)reader)->cancelled) != 0;
}
static inline void ferrule_reader_close(ferrule_stream *stream) { free(stream); }

#define FERRULE_READER(next, position, close) FERRULE_STREAM_OPS(0, next, NULL, position, NULL, close)

/* The same for a stream that has more: flags as ferrule.h has them, feed, metadata. What is missing is NULL. Streams
 * that a thread pushes into are ferrule_pusher.h's. */
#define FERRULE_STREAM_OPS(flags, next, feed, position, metadata, close)                                              \
    {sizeof(ferrule_stream_ops), (flags), ferrule_reader_cancel, (close), (next), (feed), (position), (metadata), NULL}

/* A new stream of `size` zeroed bytes, the host's until close; NULL without memory, with the error made:
 * answer OUT_OF_MEMORY then. */
static inline void *ferrule_reader_new(size_t size, const ferrule_stream_ops *ops, ferrule_stream **out,
                                       ferrule_buffer *error) {
    ferrule_stream *stream = (ferrule_stream *)calloc(1, size);
    if (stream == NULL) {
        ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for a stream");
        return NULL;
    }
    stream->ops = ops;
    return *out = stream;
}

/* ---- The table of plugins -------------------------------------------------------------------------------------- */

/* The heads of a plugin's functions, so that none has to be written out. What each names, as ferrule.h says it:
 *   FERRULE_CREATE(name)    self, host, call, config, config_len, error
 *   FERRULE_CALL(name)      self, call, in, in_len, out, error
 *   FERRULE_OPEN(name)      self, call, in, in_len, out, error      out: ferrule_stream **
 *   FERRULE_NEXT(name)      stream, timeout_ms, out, error
 *   FERRULE_FEED(name)      stream, in, in_len, final, error
 *   FERRULE_POSITION(name)  stream, out, error
 *   FERRULE_METADATA(name)  stream, out, error */
#define FERRULE_CREATE(name)                                                                                          \
    static int32_t name(FERRULE__UNUSED void *self, FERRULE__UNUSED const ferrule_host *host,                         \
                        FERRULE__UNUSED const ferrule_call *call, FERRULE__UNUSED const char *config,                 \
                        FERRULE__UNUSED size_t config_len, FERRULE__UNUSED ferrule_buffer *error)
#define FERRULE_CALL(name)                                                                                            \
    static int32_t name(FERRULE__UNUSED void *self, FERRULE__UNUSED const ferrule_call *call,                         \
                        FERRULE__UNUSED const uint8_t *in, FERRULE__UNUSED size_t in_len,                             \
                        FERRULE__UNUSED ferrule_buffer *out, FERRULE__UNUSED ferrule_buffer *error)
#define FERRULE_OPEN(name)                                                                                            \
    static int32_t name(FERRULE__UNUSED void *self, FERRULE__UNUSED const ferrule_call *call,                         \
                        FERRULE__UNUSED const uint8_t *in, FERRULE__UNUSED size_t in_len,                             \
                        FERRULE__UNUSED ferrule_stream **out, FERRULE__UNUSED ferrule_buffer *error)
#define FERRULE_NEXT(name)                                                                                            \
    static int32_t name(FERRULE__UNUSED ferrule_stream *stream, FERRULE__UNUSED int64_t timeout_ms,                   \
                        FERRULE__UNUSED ferrule_buffer *out, FERRULE__UNUSED ferrule_buffer *error)
#define FERRULE_POSITION(name)                                                                                        \
    static int32_t name(FERRULE__UNUSED ferrule_stream *stream, FERRULE__UNUSED ferrule_buffer *out,                  \
                        FERRULE__UNUSED ferrule_buffer *error)

#define FERRULE_FEED(name)                                                                                            \
    static int32_t name(FERRULE__UNUSED ferrule_stream *stream, FERRULE__UNUSED const uint8_t *in,                    \
                        FERRULE__UNUSED size_t in_len, FERRULE__UNUSED int32_t final,                                 \
                        FERRULE__UNUSED ferrule_buffer *error)
#define FERRULE_METADATA(name) FERRULE_POSITION(name)

#define FERRULE_METHODS 16 /* a plugin's, at most */

/* A method: one of the two, both, or none. `self` is the instance, [instance]; the rest is as ferrule_instance_ops
 * says. */
typedef struct ferrule_method {
    const char *name;
    int32_t (*call)(void *self, const ferrule_call *call, const uint8_t *in, size_t in_len, ferrule_buffer *out,
                    ferrule_buffer *error);
    int32_t (*open)(void *self, const ferrule_call *call, const uint8_t *in, size_t in_len, ferrule_stream **out,
                    ferrule_buffer *error);
} ferrule_method;

/* One plugin: const and static. An instance is `size` zeroed bytes that begin with a ferrule_instance, made and freed
 * here.
 * create: reads the config into it; may be NULL. [any thread]
 * destroy: frees what it holds, not itself; also after a create that failed; may be NULL. [one thread] */
typedef struct ferrule_plugin {
    ferrule_instance_ops ops; /* first: an instance's table leads to its plugin */
    const char *name;
    size_t size;
    int32_t (*create)(void *self, const ferrule_host *host, const ferrule_call *call, const char *config,
                      size_t config_len, ferrule_buffer *error);
    void (*destroy)(void *self);
    ferrule_method methods[FERRULE_METHODS + 1];
} ferrule_plugin;

static inline int32_t ferrule__method(ferrule_instance *instance, const char *name, size_t name_len) {
    const ferrule_method *methods = ((const ferrule_plugin *)(const void *)instance->ops)->methods;
    int32_t i;
    for (i = 0; methods[i].name != NULL; i++)
        if (strlen(methods[i].name) == name_len && memcmp(methods[i].name, name, name_len) == 0) return i;
    return FERRULE_NOT_FOUND;
}

FERRULE__COLD static int32_t ferrule__not_so(ferrule_buffer *error, const char *how) {
    return ferrule_fail(error, FERRULE_UNSUPPORTED, "The method cannot be %s; its mode in the manifest says how", how);
}

static inline int32_t ferrule__call(ferrule_instance *instance, int32_t method, const ferrule_call *call,
                                    const uint8_t *in, size_t in_len, ferrule_buffer *out, ferrule_buffer *error) {
    const ferrule_plugin *plugin = (const ferrule_plugin *)(const void *)instance->ops;
    if ((uint32_t)method >= FERRULE_METHODS || plugin->methods[method].call == NULL)
        return ferrule__not_so(error, "called");
    return plugin->methods[method].call(instance, call, in, in_len, out, error);
}

static inline int32_t ferrule__open(ferrule_instance *instance, int32_t method, const ferrule_call *call,
                                    const uint8_t *in, size_t in_len, ferrule_stream **out, ferrule_buffer *error) {
    const ferrule_plugin *plugin = (const ferrule_plugin *)(const void *)instance->ops;
    if ((uint32_t)method >= FERRULE_METHODS || plugin->methods[method].open == NULL)
        return ferrule__not_so(error, "opened");
    return plugin->methods[method].open(instance, call, in, in_len, out, error);
}

static inline void ferrule__destroy(ferrule_instance *instance) {
    const ferrule_plugin *plugin = (const ferrule_plugin *)(const void *)instance->ops;
    if (plugin->destroy != NULL) plugin->destroy(instance);
    free(instance);
}

static inline int32_t ferrule__create(const ferrule_plugin *plugins, size_t count, const ferrule_host *host,
                                      const ferrule_call *call, const char *name, size_t name_len, const char *config,
                                      size_t config_len, ferrule_instance **out, ferrule_buffer *error) {
    size_t i;
    *out = NULL;
    for (i = 0; i < count; i++) {
        const ferrule_plugin *plugin = &plugins[i];
        ferrule_instance *instance;
        int32_t status;
        if (strlen(plugin->name) != name_len || memcmp(plugin->name, name, name_len) != 0) continue;
        if ((instance = (ferrule_instance *)calloc(1, plugin->size)) == NULL)
            return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for an instance of '%s'", plugin->name);
        instance->ops = &plugin->ops;
        status = plugin->create == NULL ? FERRULE_OK : plugin->create(instance, host, call, config, config_len, error);
        if (status == FERRULE_OK) *out = instance;
        else ferrule__destroy(instance);
        return status;
    }
    return ferrule_fail(error, FERRULE_NOT_FOUND, "FERRULE_PLUGINS lists no plugin '%.*s'", (int)name_len, name);
}

#define FERRULE_UNARY(name, call) {name, call, NULL}
#define FERRULE_STREAM(name, open) {name, NULL, open}
#define FERRULE_BOTH(name, call, open) {name, call, open}
#define FERRULE_NONE(name) {name, NULL, NULL}

/* FERRULE_PLUGIN(name, struct, create, destroy, methods…) */
#define FERRULE_PLUGIN(name, type, create, destroy, ...)                                                              \
    {{sizeof(ferrule_instance_ops), 0, ferrule__method, ferrule__call, ferrule__open, NULL},                          \
     name, sizeof(type), create, destroy, {__VA_ARGS__}}

/* Defines ferrule_plugin_create and ferrule_plugin_destroy for these plugins. */
#define FERRULE_PLUGINS(...)                                                                                          \
    static const ferrule_plugin ferrule__plugins[] = {__VA_ARGS__};                                                   \
    int32_t ferrule_plugin_create(const ferrule_host *host, const ferrule_call *call, const char *plugin,             \
                                  size_t plugin_len, const char *config, size_t config_len, ferrule_instance **out,   \
                                  ferrule_buffer *error) {                                                            \
        return ferrule__create(ferrule__plugins, sizeof ferrule__plugins / sizeof *ferrule__plugins, host, call,      \
                               plugin, plugin_len, config, config_len, out, error);                                   \
    }                                                                                                                 \
    void ferrule_plugin_destroy(ferrule_instance *instance) { ferrule__destroy(instance); }                           \
    void ferrule_plugin_destroy(ferrule_instance *instance)

#ifdef __cplusplus
}
#endif
#endif /* FERRULE_SDK_H */

/* chunk.c: a region of rows and bytes. Offsets only, warm and reused; it grows by moving. */
#include "internal.h"

static size_t aligned(size_t size) { return (size + 63) & ~(size_t)63; }

/* A new region in which every area has at least the capacities asked for; what the old one held is copied. */
static int32_t region_grow(fh_region *region, const uint64_t bytes[FH_AREAS], const uint32_t rows[FH_AREAS]) {
    fh_chunk *old = region->chunk;
    size_t size = aligned(sizeof(fh_chunk));
    for (int area = 0; area < FH_AREAS; area++) {
        size += aligned(rows[area] * sizeof(fh_row)) + aligned((size_t)bytes[area]);
    }
    if (size > UINT32_MAX) {
        return FERRULE_OUT_OF_MEMORY;          /* rows hold 32-bit offsets */
    }
    fh_chunk *chunk = malloc(size);
    if (chunk == NULL) {
        return FERRULE_OUT_OF_MEMORY;
    }
    if (old != NULL) {
        *chunk = *old;
    } else {
        memset(chunk, 0, sizeof *chunk);
    }
    chunk->size = size;
    size_t at = aligned(sizeof(fh_chunk));
    for (int area = 0; area < FH_AREAS; area++) {
        fh_area *now = &chunk->areas[area];
        now->rows_offset = at;
        at += aligned(rows[area] * sizeof(fh_row));
        now->bytes_offset = at;
        at += aligned((size_t)bytes[area]);
        if (old != NULL) {
            const fh_area *was = &old->areas[area];
            memcpy((uint8_t *)chunk + now->rows_offset, (uint8_t *)old + was->rows_offset,
                   was->rows * sizeof(fh_row));
            memcpy((uint8_t *)chunk + now->bytes_offset, (uint8_t *)old + was->bytes_offset, (size_t)was->length);
        }
        now->rows_capacity = rows[area];
        now->capacity = bytes[area];
    }
    region->chunk = chunk;
    if (old != NULL) {
        memcpy(old, &region->retired, sizeof(void *));
        region->retired = old;
    }
    return FERRULE_OK;
}

static void lend(fh_region *region, int32_t area, fh_buffer *buffer) {
    buffer->data = buffer->lent.data = fh_area_bytes(region, area);
    buffer->capacity = buffer->lent.capacity = (size_t)region->chunk->areas[area].capacity;
}

static int32_t grow_area(fh_region *region, int32_t area, uint64_t bytes, uint32_t rows) {
    uint64_t all_bytes[FH_AREAS];
    uint32_t all_rows[FH_AREAS];
    for (int each = 0; each < FH_AREAS; each++) {
        all_bytes[each] = region->chunk->areas[each].capacity;
        all_rows[each] = region->chunk->areas[each].rows_capacity;
    }
    all_bytes[area] = bytes > all_bytes[area] ? bytes : all_bytes[area];
    all_rows[area] = rows > all_rows[area] ? rows : all_rows[area];
    return region_grow(region, all_bytes, all_rows);
}

static int32_t area_reserve(ferrule_buffer *lent, size_t additional) {
    fh_buffer *buffer = (fh_buffer *)lent;
    size_t length = lent->len;
    if (length > buffer->capacity || additional > buffer->limit || length > buffer->limit - additional) {
        return FERRULE_OUT_OF_MEMORY;
    }
    size_t needed = length + additional;
    if (needed <= buffer->capacity) {
        return FERRULE_OK;
    }
    fh_region *region = buffer->region;
    uint64_t capacity = buffer->capacity < 4096 ? 4096 : buffer->capacity;
    while (capacity < needed) {
        capacity *= 2;
    }
    region->chunk->areas[buffer->area].length = length;    /* so that growing copies what is there */
    int32_t status = grow_area(region, buffer->area, capacity, 0);
    if (status == FERRULE_OK) {
        lend(region, buffer->area, buffer);
    }
    return status;
}

int32_t fh_region_init(fh_region *region, size_t bytes, uint32_t rows) {
    const uint64_t all_bytes[FH_AREAS] = {bytes, bytes, 0};
    const uint32_t all_rows[FH_AREAS] = {rows, rows, 0};
    memset(region, 0, sizeof *region);
    return region_grow(region, all_bytes, all_rows);
}

void fh_region_settle(fh_region *region) {
    while (region->retired != NULL) {
        void *old = region->retired;
        memcpy(&region->retired, old, sizeof(void *));
        free(old);
    }
}

void fh_region_free(fh_region *region) {
    fh_region_settle(region);
    free(region->chunk);
    region->chunk = NULL;
}

void fh_region_reset(fh_region *region) {
    fh_chunk *chunk = region->chunk;
    for (int area = 0; area < FH_AREAS; area++) {
        chunk->areas[area].rows = 0;
        chunk->areas[area].length = 0;
    }
    chunk->items = 0;
    chunk->current = FH_AREA_SOURCE;
}

void fh_area_lend(fh_region *region, int32_t area, fh_buffer *buffer) {
    memset(buffer, 0, sizeof *buffer);
    buffer->lent.struct_size = sizeof(ferrule_buffer);
    buffer->lent.reserve = buffer->reserve = area_reserve;
    buffer->lent.len = (size_t)region->chunk->areas[area].length;
    buffer->limit = FH_DEFAULT_LIMIT;
    buffer->region = region;
    buffer->area = area;
    lend(region, area, buffer);
}

void fh_area_take(fh_region *region, fh_buffer *buffer) {
    region->chunk->areas[buffer->area].length = buffer->lent.len;
}

int32_t fh_area_reserve_rows(fh_region *region, int32_t area, uint32_t additional, fh_buffer *lent) {
    const fh_area *now = &region->chunk->areas[area];
    if (now->rows_capacity - now->rows >= additional) {
        return FERRULE_OK;
    }
    uint32_t rows = now->rows_capacity < 64 ? 64 : now->rows_capacity;
    while (rows - now->rows < additional) {
        rows *= 2;
    }
    if (lent != NULL) {
        fh_area_take(region, lent);
    }
    int32_t status = grow_area(region, area, 0, rows);
    if (status == FERRULE_OK && lent != NULL) {
        lend(region, lent->area, lent);
    }
    return status;
}

/* ---- UTF-8 and newlines ----------------------------------------------------------------------------- */

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The first byte beyond ASCII, or up to 7 before it. */
static const uint8_t *skip_ascii(const uint8_t *at, const uint8_t *end) {
    uint64_t words[8];
    while (end - at >= 64) {                   /* one such byte among many rows is found soon */
        memcpy(words, at, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) & HIGH_BITS) {
            break;
        }
        at += 64;
    }
    while (end - at >= 8 && (memcpy(words, at, 8), (words[0] & HIGH_BITS) == 0)) {
        at += 8;
    }
    return at;
}

static int utf8_valid(const uint8_t *at, const uint8_t *end) {
    while ((at = skip_ascii(at, end)) < end) {
        uint8_t lead = *at++;
        if (lead < 0x80) {
            continue;
        }
        int more = lead >= 0xC2 && lead <= 0xDF ? 1 : lead >= 0xE0 && lead <= 0xEF ? 2 : lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
        if (more == 0 || end - at < more) {
            return 0;
        }
        /* The second byte alone excludes overlong forms, surrogates and what lies past U+10FFFF. */
        uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (*at < low || *at > high) {
            return 0;
        }
        for (int i = 1; i < more; i++) {
            if ((at[i] & 0xC0) != 0x80) {
                return 0;
            }
        }
        at += more;
    }
    return 1;
}

#if defined(__GNUC__)
typedef uint8_t fh_vector __attribute__((vector_size(16), aligned(1), may_alias));  /* SSE2, NEON */

/* Counts newlines in [bytes, bytes + length), whole pairs of vectors alone, and gathers all their bits. */
static size_t scan_vectors(const uint8_t *bytes, size_t length, uint8_t *seen, uint64_t *newlines) {
    fh_vector seen_0 = {0}, seen_1 = {0};
    const size_t end = length - length % 32;
    size_t at = 0;
    while (at < end) {
        fh_vector count_0 = {0}, count_1 = {0};            /* each byte of them counts to 255 */
        const size_t stop = end - at > 255 * 32 ? at + 255 * 32 : end;
        for (; at < stop; at += 32) {
            const fh_vector now_0 = *(const fh_vector *)(bytes + at), now_1 = *(const fh_vector *)(bytes + at + 16);
            seen_0 |= now_0;
            seen_1 |= now_1;
            count_0 -= (fh_vector)(now_0 == '\n');         /* a comparison is 255 where it holds */
            count_1 -= (fh_vector)(now_1 == '\n');
        }
        for (int i = 0; i < 16; i++) {
            *newlines += (uint64_t)count_0[i] + count_1[i];
        }
    }
    seen_0 |= seen_1;
    for (int i = 0; i < 16; i++) {
        *seen |= seen_0[i];
    }
    return end;
}
#else
static size_t scan_vectors(const uint8_t *bytes, size_t length, uint8_t *seen, uint64_t *newlines) { return 0; }
#endif

int fh_lines_valid(const uint8_t *bytes, size_t length, uint64_t lines) {
    uint8_t seen = 0;
    uint64_t newlines = 0;
    for (size_t at = scan_vectors(bytes, length, &seen, &newlines); at < length; at++) {
        seen |= bytes[at];
        newlines += bytes[at] == '\n';
    }
    return newlines == lines && ((seen & 0x80) == 0 || utf8_valid(bytes, bytes + length));
}

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>

/* Each byte of a count goes up by one where that of the 32 is less than a space: a comparison is -1 where it holds. */
__attribute__((target("avx2"), always_inline)) static inline __m256i add_unusual(__m256i count, const uint8_t *at,
                                                                                 __m256i spaces) {
    return _mm256_sub_epi8(count, _mm256_cmpgt_epi8(spaces, _mm256_loadu_si256((const __m256i *)at)));
}

/* How many bytes are none of plain text: signed, control characters and all beyond ASCII are less than a space. */
__attribute__((target("avx2"))) static uint64_t unusual_avx2(const uint8_t *bytes, size_t length) {
    const __m256i zero = _mm256_setzero_si256();
    __m256i spaces = _mm256_set1_epi8(' ');
    __asm__("" : "+x"(spaces));                /* gcc makes two instructions of a comparison with what it knows */
    const uint8_t *at = bytes, *const end = bytes + length;
    __m256i found = zero, count_0 = zero, count_1 = zero;
    while (end - at >= 128) {
        const uint8_t *stop = end - at > 127 * 128 ? at + 127 * 128 : end - (end - at) % 128;
        for (; at < stop; at += 128) {         /* each byte of a count goes to 254 */
            count_0 = add_unusual(count_0, at, spaces);
            count_1 = add_unusual(count_1, at + 32, spaces);
            count_0 = add_unusual(count_0, at + 64, spaces);
            count_1 = add_unusual(count_1, at + 96, spaces);
        }
        found = _mm256_add_epi64(found, _mm256_add_epi64(_mm256_sad_epu8(count_0, zero), _mm256_sad_epu8(count_1, zero)));
        count_0 = count_1 = zero;
    }
    for (; end - at >= 32; at += 32) {
        count_0 = add_unusual(count_0, at, spaces);
    }
    found = _mm256_add_epi64(found, _mm256_sad_epu8(count_0, zero));
    uint64_t sums[4], rest = 0;
    memcpy(sums, &found, sizeof sums);
    for (; at < end; at++) {
        rest += (int8_t)*at < ' ';
    }
    return sums[0] + sums[1] + sums[2] + sums[3] + rest;
}
#endif

int fh_rows_valid(const uint8_t *bytes, size_t length, uint64_t rows) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (FH_LIKELY(__builtin_cpu_supports("avx2") && unusual_avx2(bytes, length) == rows)) {
        return 1;
    }
#endif
    return fh_lines_valid(bytes, length, rows);
}

/* ---- fill ------------------------------------------------------------------------------------------- */

#define FILL_ROWS 1024

/* Makes rows of what one `next` appended at entry_len; empty lines are dropped. */
static int32_t add_items(fh_region *region, int32_t many, size_t entry_len, fh_buffer *out) {
    if (!many || out->data[out->lent.len - 1] != '\n') {
        int32_t status = fh_buffer_append(out, "\n", 1);
        if (status != FERRULE_OK) {
            return status;
        }
    }
    size_t at = entry_len, to = entry_len;
    while (at < out->lent.len) {
        size_t end = out->lent.len - 1;
        if (many) {
            end = at + (size_t)((uint8_t *)memchr(out->data + at, '\n', out->lent.len - at) - (out->data + at));
        }
        if (end > at) {
            int32_t status = fh_area_reserve_rows(region, FH_AREA_SOURCE, 1, out);
            if (status != FERRULE_OK) {
                return status;
            }
            if (to != at) {
                memmove(out->data + to, out->data + at, end + 1 - at);
            }
            fh_area *area = &region->chunk->areas[FH_AREA_SOURCE];
            fh_row *row = &fh_area_rows(region, FH_AREA_SOURCE)[area->rows++];
            *row = (fh_row){(uint32_t)to, (uint32_t)(end - at), region->chunk->items++, FERRULE_OK, 0, 0};
            to += end + 1 - at;
        }
        at = end + 1;
    }
    out->lent.len = to;
    return FERRULE_OK;
}

int32_t fh_fill(fh_region *region, fh_stream *stream, int32_t many, size_t fill, uint64_t items, int64_t wait_ms,
                const int32_t *stop, fh_buffer *error) {
    int waits = (stream->flags & FERRULE_STREAM_WAKES) == 0;
    int32_t status = FERRULE_OK;
    fh_buffer out;
    fh_area_lend(region, FH_AREA_SOURCE, &out);
    while (!fh_load32(stop) && out.lent.len < fill && region->chunk->items < items &&
           region->chunk->areas[FH_AREA_SOURCE].rows < FILL_ROWS) {
        size_t entry_len = out.lent.len;
        status = fh_stream_step(stream, waits && region->chunk->items == 0 ? wait_ms : 0, &out, error);
        fh_area *area = &region->chunk->areas[FH_AREA_SOURCE];
        const size_t end = out.lent.len;
        if (FH_LIKELY(status == FERRULE_OK && !many && end > entry_len && end < out.capacity &&
                      area->rows < area->rows_capacity)) {
            out.data[end] = '\n';
            out.lent.len = end + 1;
            fh_area_rows(region, FH_AREA_SOURCE)[area->rows++] =
                (fh_row){(uint32_t)entry_len, (uint32_t)(end - entry_len), region->chunk->items++, FERRULE_OK, 0, 0};
            continue;
        }
        if (status == FERRULE_OK && end > entry_len) {
            status = add_items(region, many, entry_len, &out);
        } else if (status == FERRULE_INVALID_DATA) {
            region->chunk->items++;
        }
        if (status != FERRULE_OK) {
            break;
        }
    }
    fh_area_take(region, &out);
    fh_region_settle(region);
    return status;
}

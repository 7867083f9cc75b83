/* pcm-levels: how loud a recording is, while it is recorded. WAV is fed in as it arrives, in blocks of any size; for
 * each 100 ms of it comes how loud it was, and a mark where silence begins and ends. one-two.wav beside this file is a
 * voice to try it with: `espeak-ng -m -v en -s 220 -w one-two.wav '<speak>One <break time="250ms"/> two</speak>'`.
 *
 *   cc -shared -fPIC -O2 -pthread -Inative_sdk/include -Inative_sdk/c -o build/plugins/libpcm_levels_c.so \
 *      example_plugins/c/pcm_levels/pcm_levels.c -lm
 */
#include "ferrule_pusher.h"

#include <math.h>

FERRULE_MANIFEST({
    "name": "pcm-levels-c", "version": "0.1.0", "license": "Apache-2.0 OR MIT",
    "description": "How loud a recording is, while it is recorded.",
    "plugins": [{
        "name": "pcm-levels", "kind": "runner", "language": "c", "threading": "concurrent",
        "description": "How loud a recording is, while it is recorded.",
        "config": {"type": "object", "additionalProperties": false, "properties": {
            "silence_dbfs": {"type": "number", "maximum": 0, "default": -50,
                             "description": "What is below this level is silence."}}},
        "methods": [{
            "name": "levels", "mode": "stream", "need_feed": true, "cancellable": true, "metadata": true,
            "feed_input": "audio/wav",
            "description": "Takes WAV (16-bit PCM, mono or stereo); gives the level of each 100 ms, and marks silence.",
            "result": {
                "type": "object", "required": ["at_ms"],
                "properties": {
                    "at_ms": {"type": "integer", "description": "Where in the recording."},
                    "rms_dbfs": {"type": "number", "description": "Its level; 0 is full scale, -100 nothing at all."},
                    "peak_dbfs": {"type": "number", "description": "Its loudest sample."},
                    "silence": {"type": "boolean", "description": "Silence begins here, or ends."}}}
        }]
    }]
});

#define NOTHING_DBFS (-100.0)

struct pcm_levels {
    ferrule_instance base;
    const ferrule_host *host;
    double silence_dbfs;
};

FERRULE_CREATE(create) {
    struct pcm_levels *levels = (struct pcm_levels *)self;
    levels->host = host;
    levels->silence_dbfs = ferrule_json_number(config, config_len, "silence_dbfs", -50);
    return FERRULE_OK;
}

/* ---- what was fed, as one run of bytes ---- */

struct reading {
    ferrule_pusher *pusher;
    const uint8_t *bytes; /* the rest of the block at hand */
    size_t length;
    uint64_t done;
};

/* Reads `size` bytes, into `into` unless that is NULL; waits for them. OK, END (there are fewer), or CANCELLED. */
static int32_t read_bytes(struct reading *reading, uint8_t *into, size_t size) {
    while (size != 0) {
        size_t part = size < reading->length ? size : reading->length;
        if (part == 0) {
            int32_t status = ferrule_pull(reading->pusher, &reading->bytes, &reading->length);
            if (status != FERRULE_OK) return status;
            continue;
        }
        if (into != NULL) memcpy(into, reading->bytes, part), into += part;
        reading->bytes += part;
        reading->length -= part;
        reading->done += part;
        size -= part;
    }
    return FERRULE_OK;
}

static uint32_t little(const uint8_t *bytes, int size) {
    uint32_t value = 0;
    while (size-- > 0) value = value << 8 | bytes[size];
    return value;
}

/* ---- the header ---- */

struct wave {
    uint32_t rate, channels, data; /* data: its bytes; all ones or 0 for a recording that goes on */
};

/* Reads up to the samples. */
static int32_t read_header(struct reading *reading, struct wave *wave, ferrule_buffer *error) {
    uint8_t head[12], format[40];
    int32_t status = read_bytes(reading, head, 12);
    if (status == FERRULE_OK && (memcmp(head, "RIFF", 4) != 0 || memcmp(head + 8, "WAVE", 4) != 0))
        return ferrule_fail(error, FERRULE_INVALID_DATA, "What was fed is no WAV: it does not begin with RIFF…WAVE");
    while (status == FERRULE_OK && (status = read_bytes(reading, head, 8)) == FERRULE_OK) {
        uint32_t size = little(head + 4, 4), known = size < sizeof format ? size : sizeof format;
        if (memcmp(head, "data", 4) == 0) {
            wave->data = size;
            if (wave->channels != 0) return FERRULE_OK;
            return ferrule_fail(error, FERRULE_INVALID_DATA, "The WAV has its samples before their format ('fmt ')");
        }
        if (memcmp(head, "fmt ", 4) == 0 && known >= 16) {
            uint32_t kind, bits;
            if ((status = read_bytes(reading, format, known)) != FERRULE_OK) break;
            kind = little(format, 2);
            bits = little(format + 14, 2);
            if (kind == 0xFFFE && known >= 26) kind = little(format + 24, 2); /* the extensible form names it later */
            wave->channels = little(format + 2, 2);
            wave->rate = little(format + 4, 4);
            if (kind != 1 || bits != 16 || wave->channels < 1 || wave->channels > 2 || wave->rate < 10)
                return ferrule_fail(error, FERRULE_UNSUPPORTED,
                                    "The WAV has format %u with %u bits, %u channels and %u Hz; expected 1 (PCM) with "
                                    "16 bits and 1 or 2 channels", (unsigned)kind, (unsigned)bits,
                                    (unsigned)wave->channels, (unsigned)wave->rate);
            size -= known;
        }
        status = read_bytes(reading, NULL, (size_t)size + (size & 1)); /* chunks begin at even places */
    }
    if (status != FERRULE_END) return status;
    return ferrule_fail(error, FERRULE_INVALID_DATA, "The WAV ended after %llu bytes, before its samples",
                        (unsigned long long)reading->done);
}

/* ---- the levels ---- */

static double dbfs(double amplitude) { /* to a tenth; of a sample's full scale */
    return amplitude > 0 ? floor(200 * log10(amplitude / 32768) + 0.5) / 10 : NOTHING_DBFS;
}

struct window {
    double squares;
    int32_t peak;
    uint32_t samples;
};

static void add_frame(struct window *window, const uint8_t *bytes, uint32_t channels) {
    uint32_t i;
    for (i = 0; i < channels; i++) {
        int32_t sample = (int32_t)little(bytes + 2 * i, 2);
        if (sample >= 0x8000) sample -= 0x10000;
        window->squares += (double)sample * sample;
        if (sample < 0) sample = -sample;
        if (sample > window->peak) window->peak = sample;
    }
    window->samples += channels;
}

/* Pushes a window's level, and before it a mark if silence begins or ends with it. */
static int32_t push_level(ferrule_pusher *pusher, const struct window *window, int64_t at_ms, double silence_dbfs,
                          int *silent, ferrule_buffer *out, ferrule_buffer *error) {
    double rms = dbfs(sqrt(window->squares / window->samples));
    ferrule_record item;
    int32_t status = FERRULE_OK;
    if ((rms < silence_dbfs) != *silent) {
        *silent = rms < silence_dbfs;
        ferrule_record_begin(&item, out, error);
        ferrule_record_int(&item, "at_ms", at_ms);
        ferrule_record_bool(&item, "silence", *silent);
        status = ferrule_record_finish(&item);
        if (status == FERRULE_OK) status = ferrule_push_buffer(pusher, out);
    }
    if (status != FERRULE_OK) return status;
    ferrule_record_begin(&item, out, error);
    ferrule_record_int(&item, "at_ms", at_ms);
    ferrule_record_number(&item, "rms_dbfs", rms);
    ferrule_record_number(&item, "peak_dbfs", dbfs(window->peak));
    status = ferrule_record_finish(&item);
    return status == FERRULE_OK ? ferrule_push_buffer(pusher, out) : status;
}

FERRULE_WORK(give_levels) {
    const double silence_dbfs = *(const double *)state;
    struct reading reading = {NULL, NULL, 0, 0};
    struct wave wave = {0, 0, 0};
    struct window window = {0, 0, 0};
    uint64_t frames = 0, windows = 0, all;
    int silent = -1; /* not known, so the first window is marked */
    int32_t status;
    uint8_t frame[4];
    char told[96];
    reading.pusher = pusher;
    if ((status = read_header(&reading, &wave, error)) != FERRULE_OK) return status;
    all = wave.data == 0 || wave.data == UINT32_MAX ? UINT64_MAX : wave.data / 2 / wave.channels;
    while (status == FERRULE_OK) {
        status = frames < all ? read_bytes(&reading, frame, (size_t)2 * wave.channels) : FERRULE_END;
        if (status == FERRULE_OK) add_frame(&window, frame, wave.channels), frames++;
        /* Counted from the start, so that no rate makes the windows drift. */
        if (window.samples != 0 && (frames == (windows + 1) * wave.rate / 10 || status == FERRULE_END)) {
            int32_t pushed = push_level(pusher, &window, (int64_t)windows++ * 100, silence_dbfs, &silent, out, error);
            if (pushed != FERRULE_OK) return pushed;
            memset(&window, 0, sizeof window);
        }
    }
    if (status < FERRULE_OK) return status;
    snprintf(told, sizeof told, "{\"rate\":%u,\"channels\":%u,\"milliseconds\":%llu}", (unsigned)wave.rate,
             (unsigned)wave.channels, (unsigned long long)(frames * 1000 / wave.rate));
    return ferrule_push_metadata(pusher, told, strlen(told));
}

FERRULE_OPEN(open_levels) {
    const struct pcm_levels *levels = (const struct pcm_levels *)self;
    double *silence_dbfs = (double *)malloc(sizeof *silence_dbfs);
    if (silence_dbfs == NULL) return ferrule_fail(error, FERRULE_OUT_OF_MEMORY, "No memory for a stream");
    *silence_dbfs = levels->silence_dbfs;
    return ferrule_pusher_open(levels->host, call, FERRULE_PUSHER_FEED | FERRULE_PUSHER_METADATA, give_levels,
                               silence_dbfs, free, out, error);
}

FERRULE_PLUGINS(FERRULE_PLUGIN("pcm-levels", struct pcm_levels, create, NULL, FERRULE_STREAM("levels", open_levels)));

/* The frames of ek_serial.h: decoding, checking, answering. */
#include "ek_serial.h"

#include <string.h>

static uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t n)
{
    size_t i;
    int bit;
    crc = ~crc;
    for (i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0u ? 0xEDB88320u : 0u);
        }
    }
    return ~crc;
}

static uint32_t u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint16_t u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | at[1] << 8);
}

static void put_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

/* Sends `n` bytes COBS-coded: each block is its length and then bytes that are not zero. */
static void put_cobs(const ek_serial_t *line, const uint8_t *bytes, size_t n)
{
    size_t at = 0;
    for (;;) {
        size_t run = 0, i;
        while (at + run < n && run < 254 && bytes[at + run] != 0) {
            run++;
        }
        line->put(line->context, (uint8_t)(run + 1));
        for (i = 0; i < run; i++) {
            line->put(line->context, bytes[at + i]);
        }
        at += run;
        if (at >= n) {
            break;
        }
        if (run < 254) {
            at++; /* the zero, which the block's end stands for */
        }
    }
    line->put(line->context, 0);
}

/* Sends what lies in the frame's payload. */
static void answer(ek_serial_t *line, uint8_t type, uint16_t sequence, size_t n)
{
    uint8_t *frame = line->frame;
    frame[0] = 'E';
    frame[1] = 'K';
    frame[2] = 1;
    frame[3] = type;
    frame[4] = (uint8_t)sequence;
    frame[5] = (uint8_t)(sequence >> 8);
    frame[6] = (uint8_t)n;
    frame[7] = (uint8_t)(n >> 8);
    put_u32(frame + EK_SERIAL_HEAD + n, crc32_of(0, frame, EK_SERIAL_HEAD + n));
    put_cobs(line, frame, EK_SERIAL_HEAD + n + 4);
}

static void fail(ek_serial_t *line, uint16_t sequence, uint8_t code, const char *text)
{
    size_t n = strlen(text);
    line->frame[EK_SERIAL_HEAD] = code;
    memcpy(line->frame + EK_SERIAL_HEAD + 1, text, n);
    answer(line, EK_ERROR, sequence, n + 1);
}

static void describe(ek_serial_t *line, uint16_t sequence, const uint8_t *p, size_t n)
{
    const ek_serial_model_t *model = line->model;
    size_t total = model->head_bytes + model->tail_bytes;
    size_t offset, room = EK_SERIAL_PAYLOAD - 8, i;
    if (n != 4 || u32(p) > total) {
        fail(line, sequence, EK_BAD_REQUEST, "describe: an offset within the text");
        return;
    }
    offset = u32(p);
    room = total - offset < room ? total - offset : room;
    put_u32(line->frame + EK_SERIAL_HEAD, (uint32_t)total);
    put_u32(line->frame + EK_SERIAL_HEAD + 4, (uint32_t)offset);
    for (i = 0; i < room; i++) {
        size_t at = offset + i;
        char c = at < model->head_bytes ? model->head[at] : model->tail[at - model->head_bytes];
        line->frame[EK_SERIAL_HEAD + 8 + i] = (uint8_t)c;
    }
    answer(line, EK_DESCRIBE | EK_ANSWER, sequence, 8 + room);
}

static int inputs_of(const ek_serial_model_t *model)
{
    return model->inputs < EK_SERIAL_PORTS ? model->inputs : EK_SERIAL_PORTS;
}

/* Inputs are written from the front; what was there already may come again, and 0 begins anew. */
static void take(ek_serial_t *line, uint16_t sequence, const uint8_t *p, size_t n)
{
    const ek_serial_model_t *model = line->model;
    uint32_t offset, size;
    int i;
    if (n < 5 || p[0] >= inputs_of(model)) {
        fail(line, sequence, EK_BAD_REQUEST, "write: no such input");
        return;
    }
    i = p[0];
    offset = u32(p + 1);
    n -= 5;
    size = (uint32_t)model->input_bytes(i);
    if (offset > line->filled[i] || n > size || offset > size - (uint32_t)n) {
        fail(line, sequence, EK_BAD_REQUEST, "write: outside of the input, or a gap");
        return;
    }
    memcpy((uint8_t *)model->input(i) + offset, p + 5, n);
    line->filled[i] = offset + (uint32_t)n;
    line->done = 0;
    put_u32(line->frame + EK_SERIAL_HEAD, line->filled[i]);
    answer(line, EK_WRITE | EK_ANSWER, sequence, 4);
}

static int digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether `p` is the beginning of the model's digest; a model without one takes anything. */
static int is_mine(const ek_serial_model_t *model, const uint8_t *p)
{
    size_t i;
    if (strlen(model->digest) < 16) {
        return 1;
    }
    for (i = 0; i < 8; i++) {
        if (digit(model->digest[2 * i]) * 16 + digit(model->digest[2 * i + 1]) != p[i]) {
            return 0;
        }
    }
    return 1;
}

static int is_complete(const ek_serial_t *line)
{
    int i;
    for (i = 0; i < inputs_of(line->model); i++) {
        if (line->filled[i] != line->model->input_bytes(i)) {
            return 0;
        }
    }
    return 1;
}

static void compute(ek_serial_t *line, uint16_t sequence, const uint8_t *p, size_t n)
{
    if (n != 8) {
        fail(line, sequence, EK_BAD_REQUEST, "invoke: eight bytes of the digest");
    } else if (!is_mine(line->model, p)) {
        fail(line, sequence, EK_WRONG_MODEL, "another model runs here");
    } else if (line->done && line->any_invoked && line->invoked == sequence) {
        answer(line, EK_INVOKE | EK_ANSWER, sequence, 0); /* the answer was lost: it is done already */
    } else if (!is_complete(line)) {
        fail(line, sequence, EK_INCOMPLETE_INPUT, "an input is not whole");
    } else {
        int failed = line->model->invoke();
        memset(line->filled, 0, sizeof line->filled); /* the arena has overwritten them */
        line->done = (uint8_t)(failed == 0);
        line->any_invoked = 1;
        line->invoked = sequence;
        if (failed != 0) {
            fail(line, sequence, EK_FAILED, "the model failed");
        } else {
            answer(line, EK_INVOKE | EK_ANSWER, sequence, 0);
        }
    }
}

static void give(ek_serial_t *line, uint16_t sequence, const uint8_t *p, size_t n)
{
    const ek_serial_model_t *model = line->model;
    uint32_t offset, size, length;
    if (n != 7 || p[0] >= model->outputs) {
        fail(line, sequence, EK_BAD_REQUEST, "read: no such output");
        return;
    }
    if (!line->done) {
        fail(line, sequence, EK_NO_RESULT, "nothing was computed since the last write");
        return;
    }
    offset = u32(p + 1);
    length = u16(p + 5);
    size = (uint32_t)model->output_bytes(p[0]);
    if (length > EK_SERIAL_PAYLOAD || length > size || offset > size - length) {
        fail(line, sequence, EK_BAD_REQUEST, "read: outside of the output");
        return;
    }
    memcpy(line->frame + EK_SERIAL_HEAD, (const uint8_t *)model->output(p[0]) + offset, length);
    answer(line, EK_READ | EK_ANSWER, sequence, length);
}

static void request(ek_serial_t *line, uint8_t type, uint16_t sequence, size_t n)
{
    const uint8_t *payload = line->frame + EK_SERIAL_HEAD;
    switch (type) {
    case EK_DESCRIBE:
        describe(line, sequence, payload, n);
        break;
    case EK_WRITE:
        take(line, sequence, payload, n);
        break;
    case EK_INVOKE:
        compute(line, sequence, payload, n);
        break;
    case EK_READ:
        give(line, sequence, payload, n);
        break;
    default:
        fail(line, sequence, EK_UNKNOWN_TYPE, "no such request");
        break;
    }
}

/* A whole frame lies in `frame`, or what noise looked like. */
static void received(ek_serial_t *line)
{
    const uint8_t *frame = line->frame;
    size_t n = line->used;
    uint16_t sequence;
    if (line->too_long) {
        fail(line, 0, EK_TOO_LONG, "the frame is too long");
    } else if (line->block != 0 || n < EK_SERIAL_HEAD + 4 || frame[0] != 'E' || frame[1] != 'K') {
        fail(line, 0, EK_BAD_FRAME, "not a frame");
    } else if (u32(frame + n - 4) != crc32_of(0, frame, n - 4)) {
        fail(line, 0, EK_BAD_CRC, "the CRC differs");
    } else {
        sequence = u16(frame + 4);
        if (frame[2] != 1) {
            fail(line, sequence, EK_BAD_VERSION, "version 1 is spoken here");
        } else if ((size_t)u16(frame + 6) != n - EK_SERIAL_HEAD - 4) {
            fail(line, sequence, EK_BAD_FRAME, "the length differs");
        } else {
            request(line, frame[3], sequence, n - EK_SERIAL_HEAD - 4);
        }
    }
}

static void store(ek_serial_t *line, uint8_t byte)
{
    if (line->used < EK_SERIAL_FRAME) {
        line->frame[line->used++] = byte;
    } else {
        line->too_long = 1;
    }
}

void ek_serial_byte(ek_serial_t *line, uint8_t byte)
{
    if (byte == 0) {
        if (line->started) {
            received(line);
        }
        line->used = 0;
        line->block = 0;
        line->zero = 0;
        line->started = 0;
        line->too_long = 0;
        return;
    }
    line->started = 1;
    if (line->block > 0) {
        line->block--;
        store(line, byte);
        return;
    }
    if (line->zero) {
        store(line, 0);
    }
    line->block = (uint8_t)(byte - 1);
    line->zero = (uint8_t)(byte != 255);
}

void ek_serial_start(ek_serial_t *line, const ek_serial_model_t *model, ek_serial_put_t put, void *context)
{
    memset(line, 0, sizeof *line);
    line->model = model;
    line->put = put;
    line->context = context;
}

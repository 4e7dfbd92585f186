/* A model on a serial line: frames in, frames out. Nothing is allocated and nothing waits: every byte that
 * arrives goes into ek_serial_byte, every byte to send comes out of the `put` function.
 *
 * On the line a frame is COBS-coded and ends with a zero byte, which occurs nowhere else, so that a reader
 * that has lost its place finds it again at the next zero. Decoded it is, little-endian:
 *
 *     'E' 'K' | version 1 | type | sequence u16 | length u16 | payload | CRC-32 of all before
 *
 * Specification: docs/serial.md. */
#ifndef EK_SERIAL_H
#define EK_SERIAL_H

#include <stddef.h>
#include <stdint.h>

/* The largest payload. Tensors travel in pieces, so that this may be small. */
#ifndef EK_SERIAL_PAYLOAD
#define EK_SERIAL_PAYLOAD 256
#endif
#if EK_SERIAL_PAYLOAD < 64 || EK_SERIAL_PAYLOAD > 65000
#error "EK_SERIAL_PAYLOAD is between 64 and 65000"
#endif
#define EK_SERIAL_HEAD 8
#define EK_SERIAL_FRAME (EK_SERIAL_HEAD + EK_SERIAL_PAYLOAD + 4)
#define EK_SERIAL_PORTS 8

enum {
    EK_DESCRIBE = 0x01, /* offset u32                      answer: total u32, offset u32, text   */
    EK_WRITE = 0x02,    /* input u8, offset u32, bytes     answer: how much of it is there, u32  */
    EK_INVOKE = 0x03,   /* first 8 bytes of the digest     answer: empty                         */
    EK_READ = 0x04,     /* output u8, offset u32, n u16    answer: bytes                         */
    EK_ANSWER = 0x80,   /* added to the type of what is answered */
    EK_ERROR = 0xFF     /* code u8, text */
};

enum {
    EK_BAD_FRAME = 1,       /* not a frame, or shorter than it says */
    EK_BAD_CRC = 2,
    EK_TOO_LONG = 3,        /* more than EK_SERIAL_PAYLOAD bytes */
    EK_BAD_VERSION = 4,
    EK_UNKNOWN_TYPE = 5,
    EK_BAD_REQUEST = 6,     /* no such tensor, or outside of it */
    EK_INCOMPLETE_INPUT = 7,
    EK_WRONG_MODEL = 8,     /* the digest is another model's */
    EK_NO_RESULT = 9,       /* nothing was computed since the last write */
    EK_FAILED = 10          /* invoke said so */
};

/* What is served. `head` and `tail` together are the description, a JSON text. */
typedef struct {
    const char *head, *tail;
    size_t head_bytes, tail_bytes;
    const char *digest; /* hexadecimal, empty for any */
    int inputs, outputs;
    void *(*input)(int i);
    const void *(*output)(int i);
    size_t (*input_bytes)(int i);
    size_t (*output_bytes)(int i);
    int (*invoke)(void);
} ek_serial_model_t;

typedef void (*ek_serial_put_t)(void *context, uint8_t byte);

/* One line's state. */
typedef struct {
    const ek_serial_model_t *model;
    ek_serial_put_t put;
    void *context;
    uint8_t frame[EK_SERIAL_FRAME];
    size_t used;        /* bytes decoded so far */
    uint8_t block;      /* what the current COBS block still holds; 0: a new one begins */
    uint8_t zero;       /* whether a zero stands between the last block and the next */
    uint8_t started;    /* whether a byte came since the last end */
    uint8_t too_long;
    uint8_t done;       /* outputs are valid */
    uint8_t any_invoked;
    uint16_t invoked;   /* sequence of the last invoke that was done, for one that is sent again */
    uint32_t filled[EK_SERIAL_PORTS];
} ek_serial_t;

void ek_serial_start(ek_serial_t *line, const ek_serial_model_t *model, ek_serial_put_t put, void *context);

/* Takes one byte from the line; answers when it completes a frame. */
void ek_serial_byte(ek_serial_t *line, uint8_t byte);

/* The model of model.h and ek_identity.h. */
const ek_serial_model_t *ek_serial_model(void);

#endif

/* A Cortex-M board of QEMU (MPS2) with the model on its first UART: start-up, a UART, no C library. */
#include <stddef.h>
#include <stdint.h>

#include "ek_serial.h"
#include "model.h"

extern uint32_t bss_start, bss_end;
int main(void);
void reset(void);

void *memcpy(void *to, const void *from, size_t n)
{
    char *t = to;
    const char *f = from;
    while (n-- > 0) {
        *t++ = *f++;
    }
    return to;
}

void *memset(void *to, int value, size_t n)
{
    char *t = to;
    while (n-- > 0) {
        *t++ = (char)value;
    }
    return to;
}

size_t strlen(const char *text)
{
    size_t n = 0;
    while (text[n] != '\0') {
        n++;
    }
    return n;
}

/* CMSDK APB UART: data, state (1: sender full, 2: receiver full), control (1: send, 2: receive), -, divider */
static volatile uint32_t *const uart = (volatile uint32_t *)0x40004000;

static void put(void *context, uint8_t byte)
{
    (void)context;
    while ((uart[1] & 1u) != 0u) {
    }
    uart[0] = byte;
}

int main(void)
{
    static ek_serial_t line;
    uart[4] = 16;
    uart[2] = 3;
    model_init();
    ek_serial_start(&line, ek_serial_model(), put, NULL);
    for (;;) {
        if ((uart[1] & 2u) != 0u) {
            ek_serial_byte(&line, (uint8_t)uart[0]);
        }
    }
}

void reset(void)
{
    uint32_t *at;
    for (at = &bss_start; at < &bss_end; at++) {
        *at = 0;
    }
    (void)main();
}

static void fault(void)
{
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))0x20400000, reset, fault, fault, fault, fault, fault,
};

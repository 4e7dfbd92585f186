/* The model on a serial line of a computer: standard input and output, or the device that is named. On a
 * board, call ek_serial_byte from the UART's receive loop instead and give it a function that sends.
 *
 *     ./model                 < requests > answers
 *     ./model /dev/ttyUSB0    a device whose speed was set before, with stty raw */
#include <stdio.h>

#include "ek_serial.h"
#include "model.h"

static void put(void *context, uint8_t byte)
{
    (void)fputc(byte, (FILE *)context);
}

int main(int argc, char **argv)
{
    static ek_serial_t line;
    FILE *in = stdin, *out = stdout;
    int byte;
    if (argc > 1) {
        in = fopen(argv[1], "rb");
        out = fopen(argv[1], "wb");
        if (in == NULL || out == NULL) {
            perror(argv[1]);
            return 1;
        }
    }
    (void)setvbuf(in, NULL, _IONBF, 0);
    model_init();
    ek_serial_start(&line, ek_serial_model(), put, out);
    while ((byte = fgetc(in)) != EOF) {
        ek_serial_byte(&line, (uint8_t)byte);
        if (byte == 0) {
            (void)fflush(out);
        }
    }
    return 0;
}

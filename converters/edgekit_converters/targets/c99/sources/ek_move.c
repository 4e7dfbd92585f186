/* Elements moved about: pad, concatenate, transpose, slice, split. */
#include "ek_ops.h"

#include <string.h>

void ek_move(const ek_move_t *p, const int8_t *x, int8_t *y)
{
    int32_t at[EK_DIMS] = {0};
    int32_t d;
    if (p->fill > 0) {
        memset(y, (int)(uint8_t)p->value, (size_t)p->fill);
    }
    x += p->from;
    y += p->to;
    for (;;) {
        *y = *x;
        for (d = EK_DIMS - 1; d >= 0; d--) {
            if (++at[d] < p->size[d]) {
                x += p->from_stride[d];
                y += p->to_stride[d];
                break;
            }
            x -= (at[d] - 1) * p->from_stride[d];
            y -= (at[d] - 1) * p->to_stride[d];
            at[d] = 0;
        }
        if (d < 0) {
            return;
        }
    }
}

/* Mean over dimensions; the division is part of the multiplier. */
#include "ek_fixed.h"
#include "ek_ops.h"

/* Steps `at` to the next place; gives the change of the offset, or sets `at` to the first and `done`. */
static int32_t next(int32_t *at, const int32_t *size, const int32_t *stride, int *done)
{
    int32_t moved = 0;
    int d;
    for (d = EK_DIMS - 1; d >= 0; d--) {
        moved += stride[d];
        if (++at[d] < size[d]) {
            return moved;
        }
        moved -= at[d] * stride[d];
        at[d] = 0;
    }
    *done = 1;
    return moved;
}

void ek_mean(const ek_mean_t *p, const int8_t *x, int8_t *y)
{
    int32_t kept[EK_DIMS] = {0};
    int done = 0;
    while (!done) {
        int32_t over[EK_DIMS] = {0};
        int32_t sum = 0, offset = 0;
        int all = 0;
        while (!all) {
            sum += x[offset];
            offset += next(over, p->over, p->over_stride, &all);
        }
        sum = ek_scale(sum - p->in_zero * p->count, p->multiplier, p->shift) + p->out_zero;
        *y++ = (int8_t)ek_clamp(sum, INT8_MIN, INT8_MAX);
        x += next(kept, p->kept, p->kept_stride, &done);
    }
}

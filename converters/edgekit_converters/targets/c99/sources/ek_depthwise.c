/* Depthwise convolution: every output channel looks at one input channel. */
#include "ek_fixed.h"
#include "ek_window.h"

static int32_t sum_of(const ek_conv_t *p, const int8_t *x, const int8_t *w, const ek_window_t *at)
{
    int32_t sum = 0;
    int32_t ky, kx;
    for (ky = at->y0; ky < at->y1; ky++) {
        int32_t row = (at->top + ky * p->dilation_h) * p->in_w + at->left;
        int32_t from = (row + at->x0 * p->dilation_w) * p->in_c;
        int32_t tap = (ky * p->k_w + at->x0) * p->out_c;
        for (kx = at->x0; kx < at->x1; kx++) {
            sum += ((int32_t)x[from] - p->in_zero) * (int32_t)w[tap];
            from += p->dilation_w * p->in_c;
            tap += p->out_c;
        }
    }
    return sum;
}

static int8_t *place(const ek_conv_t *p, const int8_t *x, int8_t *y, int32_t oy, int32_t ox)
{
    ek_window_t at = ek_window(p, oy, ox);
    int32_t share = p->out_c / p->in_c;
    int32_t oc;
    for (oc = 0; oc < p->out_c; oc++) {
        int32_t sum = sum_of(p, share == 1 ? x + oc : x + oc / share, p->weights + oc, &at);
        int32_t s = oc * p->scales.step;
        if (p->bias != NULL) {
            sum += p->bias[oc];
        }
        sum = ek_scale(sum, p->scales.multiplier[s], p->scales.shift[s]) + p->out_zero;
        *y++ = (int8_t)ek_clamp(sum, p->low, p->high);
    }
    return y;
}

void ek_depthwise(const ek_conv_t *p, const int8_t *x, int8_t *y)
{
    ek_each_place(p, x, y, place);
}

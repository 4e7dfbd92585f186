/* Depthwise convolution: every output channel looks at one input channel. */
#include "ek_fixed.h"
#include "ek_ops.h"

static int32_t window(const ek_conv_t *p, const int8_t *x, int32_t oc, int32_t top, int32_t left)
{
    int32_t sum = 0;
    int32_t ky, kx;
    for (ky = 0; ky < p->k_h; ky++) {
        int32_t iy = top + ky * p->dilation_h;
        if (iy < 0 || iy >= p->in_h) {
            continue;
        }
        for (kx = 0; kx < p->k_w; kx++) {
            int32_t ix = left + kx * p->dilation_w;
            if (ix >= 0 && ix < p->in_w) {
                int32_t value = (int32_t)x[(iy * p->in_w + ix) * p->in_c] - p->in_zero;
                sum += value * (int32_t)p->weights[(ky * p->k_w + kx) * p->out_c + oc];
            }
        }
    }
    return sum;
}

void ek_depthwise(const ek_conv_t *p, const int8_t *x, int8_t *y)
{
    int32_t share = p->out_c / p->in_c;
    int32_t b, oy, ox, oc;
    for (b = 0; b < p->batch; b++) {
        for (oy = 0; oy < p->out_h; oy++) {
            for (ox = 0; ox < p->out_w; ox++) {
                int32_t top = oy * p->stride_h - p->pad_top;
                int32_t left = ox * p->stride_w - p->pad_left;
                for (oc = 0; oc < p->out_c; oc++) {
                    int32_t sum = window(p, x + oc / share, oc, top, left);
                    int32_t s = oc * p->scales.step;
                    if (p->bias != NULL) {
                        sum += p->bias[oc];
                    }
                    sum = ek_scale(sum, p->scales.multiplier[s], p->scales.shift[s]) + p->out_zero;
                    *y++ = (int8_t)ek_clamp(sum, p->low, p->high);
                }
            }
        }
        x += (size_t)p->in_h * (size_t)(p->in_w * p->in_c);
    }
}

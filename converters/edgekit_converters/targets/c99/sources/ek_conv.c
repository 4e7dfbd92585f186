/* Convolution, groups and dilation included. Padding stands for the input's zero point and adds nothing. */
#include "ek_fixed.h"
#include "ek_ops.h"

static int32_t dot(const int8_t *x, const int8_t *w, int32_t n, int32_t zero)
{
    int32_t sum = 0;
    int32_t i;
    for (i = 0; i < n; i++) {
        sum += ((int32_t)x[i] - zero) * (int32_t)w[i];
    }
    return sum;
}

/* First tap inside the input, and one past the last. */
static void taps(int32_t origin, int32_t size, int32_t kernel, int32_t dilation, int32_t *first, int32_t *end)
{
    int32_t k = 0;
    while (k < kernel && origin + k * dilation < 0) {
        k++;
    }
    *first = k;
    while (k < kernel && origin + k * dilation < size) {
        k++;
    }
    *end = k;
}

/* One output: `x` is the sample's first number of the group, `w` the filter. */
static int32_t window(const ek_conv_t *p, const int8_t *x, const int8_t *w, int32_t top, int32_t left)
{
    int32_t depth = p->in_c / p->groups;
    int32_t y0, y1, x0, x1, ky, kx;
    int32_t sum = 0;
    taps(top, p->in_h, p->k_h, p->dilation_h, &y0, &y1);
    taps(left, p->in_w, p->k_w, p->dilation_w, &x0, &x1);
    for (ky = y0; ky < y1; ky++) {
        const int8_t *row = x + (size_t)(top + ky * p->dilation_h) * (size_t)(p->in_w * p->in_c);
        const int8_t *filter = w + (size_t)(ky * p->k_w + x0) * (size_t)depth;
        if (p->groups == 1 && p->dilation_w == 1) { /* neighbours in both: one long run */
            sum += dot(row + (left + x0) * depth, filter, (x1 - x0) * depth, p->in_zero);
            continue;
        }
        for (kx = x0; kx < x1; kx++) {
            sum += dot(row + (left + kx * p->dilation_w) * p->in_c, filter, depth, p->in_zero);
            filter += depth;
        }
    }
    return sum;
}

void ek_conv(const ek_conv_t *p, const int8_t *x, int8_t *y)
{
    int32_t depth = p->in_c / p->groups;
    int32_t share = p->out_c / p->groups;
    int32_t b, oy, ox, oc;
    for (b = 0; b < p->batch; b++) {
        for (oy = 0; oy < p->out_h; oy++) {
            for (ox = 0; ox < p->out_w; ox++) {
                int32_t top = oy * p->stride_h - p->pad_top;
                int32_t left = ox * p->stride_w - p->pad_left;
                for (oc = 0; oc < p->out_c; oc++) {
                    const int8_t *filter = p->weights + (size_t)oc * (size_t)(p->k_h * p->k_w * depth);
                    int32_t sum = window(p, x + (oc / share) * depth, filter, top, left);
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

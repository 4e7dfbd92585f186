/* Convolution, groups and dilation included. Padding stands for the input's zero point and adds nothing. */
#include "ek_fixed.h"
#include "ek_window.h"

static int32_t dot(const int8_t *x, const int8_t *w, int32_t n, int32_t zero)
{
    int32_t sum = 0;
    int32_t i;
    for (i = 0; i < n; i++) {
        sum += ((int32_t)x[i] - zero) * (int32_t)w[i];
    }
    return sum;
}

/* One output: `x` is the sample's first number of the group, `w` the filter. */
static int32_t sum_of(const ek_conv_t *p, const int8_t *x, const int8_t *w, const ek_window_t *at,
                      int32_t depth)
{
    int32_t run = p->groups == 1 && p->dilation_w == 1 ? (at->x1 - at->x0) * depth : 0;
    int32_t sum = 0;
    int32_t ky, kx;
    for (ky = at->y0; ky < at->y1; ky++) {
        const int8_t *row = x + (at->top + ky * p->dilation_h) * (p->in_w * p->in_c);
        const int8_t *filter = w + (ky * p->k_w + at->x0) * depth;
        if (run > 0) { /* neighbours in both: one long run */
            sum += dot(row + (at->left + at->x0) * depth, filter, run, p->in_zero);
            continue;
        }
        for (kx = at->x0; kx < at->x1; kx++) {
            sum += dot(row + (at->left + kx * p->dilation_w) * p->in_c, filter, depth, p->in_zero);
            filter += depth;
        }
    }
    return sum;
}

static int8_t *place(const ek_conv_t *p, const int8_t *x, int8_t *y, int32_t oy, int32_t ox)
{
    ek_window_t at = ek_window(p, oy, ox);
    int32_t depth = p->in_c / p->groups;
    int32_t share = p->out_c / p->groups;
    const int8_t *filter = p->weights;
    int32_t oc;
    for (oc = 0; oc < p->out_c; oc++) {
        int32_t sum = sum_of(p, p->groups == 1 ? x : x + (oc / share) * depth, filter, &at, depth);
        int32_t s = oc * p->scales.step;
        if (p->bias != NULL) {
            sum += p->bias[oc];
        }
        sum = ek_scale(sum, p->scales.multiplier[s], p->scales.shift[s]) + p->out_zero;
        *y++ = (int8_t)ek_clamp(sum, p->low, p->high);
        filter += p->k_h * p->k_w * depth;
    }
    return y;
}

void ek_conv(const ek_conv_t *p, const int8_t *x, int8_t *y)
{
    ek_each_place(p, x, y, place);
}

/* The part of a convolution's window that lies inside the input: found once for all channels of a place. */
#ifndef EK_WINDOW_H
#define EK_WINDOW_H

#include "ek_ops.h"

/* Taps y0 <= ky < y1 and x0 <= kx < x1 are inside; top and left are where tap 0 would be. */
typedef struct {
    int32_t top, left, y0, y1, x0, x1;
} ek_window_t;

static inline void ek_taps(int32_t origin, int32_t size, int32_t kernel, int32_t dilation,
                           int32_t *first, int32_t *end)
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

static inline ek_window_t ek_window(const ek_conv_t *p, int32_t oy, int32_t ox)
{
    ek_window_t w;
    w.top = oy * p->stride_h - p->pad_top;
    w.left = ox * p->stride_w - p->pad_left;
    ek_taps(w.top, p->in_h, p->k_h, p->dilation_h, &w.y0, &w.y1);
    ek_taps(w.left, p->in_w, p->k_w, p->dilation_w, &w.x0, &w.x1);
    return w;
}

/* Computes all channels of one place; gives where the next place's go. */
typedef int8_t *(*ek_place_t)(const ek_conv_t *p, const int8_t *x, int8_t *y, int32_t oy, int32_t ox);

static inline void ek_each_place(const ek_conv_t *p, const int8_t *x, int8_t *y, ek_place_t place)
{
    int32_t b, oy, ox;
    for (b = 0; b < p->batch; b++) {
        for (oy = 0; oy < p->out_h; oy++) {
            for (ox = 0; ox < p->out_w; ox++) {
                y = place(p, x, y, oy, ox);
            }
        }
        x += (size_t)p->in_h * (size_t)(p->in_w * p->in_c);
    }
}

#endif

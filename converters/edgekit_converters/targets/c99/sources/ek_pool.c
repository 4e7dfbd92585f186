/* Average and maximum over windows; an average is rounded half away from zero. */
#include "ek_fixed.h"
#include "ek_ops.h"

typedef struct {
    int32_t y0, y1, x0, x1;
} box_t;

static box_t inside(const ek_pool_t *p, int32_t oy, int32_t ox)
{
    int32_t top = oy * p->stride_h - p->pad_top;
    int32_t left = ox * p->stride_w - p->pad_left;
    box_t box;
    box.y0 = top < 0 ? 0 : top;
    box.x0 = left < 0 ? 0 : left;
    box.y1 = top + p->k_h > p->in_h ? p->in_h : top + p->k_h;
    box.x1 = left + p->k_w > p->in_w ? p->in_w : left + p->k_w;
    return box;
}

static int32_t average(const ek_pool_t *p, const int8_t *x, box_t box)
{
    int32_t count = (box.y1 - box.y0) * (box.x1 - box.x0);
    int32_t sum = 0;
    int32_t iy, ix;
    for (iy = box.y0; iy < box.y1; iy++) {
        for (ix = box.x0; ix < box.x1; ix++) {
            sum += x[(iy * p->in_w + ix) * p->channels];
        }
    }
    if (count < 1) {
        return 0;
    }
    return (sum > 0 ? sum + count / 2 : sum - count / 2) / count;
}

static int32_t largest(const ek_pool_t *p, const int8_t *x, box_t box)
{
    int32_t best = INT8_MIN;
    int32_t iy, ix;
    for (iy = box.y0; iy < box.y1; iy++) {
        for (ix = box.x0; ix < box.x1; ix++) {
            int32_t value = x[(iy * p->in_w + ix) * p->channels];
            best = value > best ? value : best;
        }
    }
    return best;
}

typedef int32_t (*of_t)(const ek_pool_t *, const int8_t *, box_t);

static void pool(const ek_pool_t *p, const int8_t *x, int8_t *y, of_t of)
{
    int32_t b, oy, ox, c;
    for (b = 0; b < p->batch; b++) {
        for (oy = 0; oy < p->out_h; oy++) {
            for (ox = 0; ox < p->out_w; ox++) {
                box_t box = inside(p, oy, ox);
                for (c = 0; c < p->channels; c++) {
                    *y++ = (int8_t)ek_clamp(of(p, x + c, box), p->low, p->high);
                }
            }
        }
        x += (size_t)p->in_h * (size_t)(p->in_w * p->channels);
    }
}

void ek_average_pool(const ek_pool_t *p, const int8_t *x, int8_t *y)
{
    pool(p, x, y, average);
}

void ek_max_pool(const ek_pool_t *p, const int8_t *x, int8_t *y)
{
    pool(p, x, y, largest);
}

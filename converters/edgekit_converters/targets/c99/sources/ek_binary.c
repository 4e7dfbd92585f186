/* Sum, difference, product, maximum and minimum of two tensors. */
#include "ek_fixed.h"
#include "ek_ops.h"

static int32_t sum(const ek_binary_t *p, int32_t a, int32_t b)
{
    int32_t first = ek_scale(ek_left_shift(a, p->left_shift), p->a_multiplier, p->a_shift);
    int32_t second = ek_scale(ek_left_shift(b, p->left_shift), p->b_multiplier, p->b_shift);
    return ek_scale(first + p->sign * second, p->multiplier, p->shift);
}

static int32_t product(const ek_binary_t *p, int32_t a, int32_t b)
{
    return ek_scale(a * b, p->multiplier, p->shift);
}

static int32_t larger(const ek_binary_t *p, int32_t a, int32_t b)
{
    (void)p;
    return a > b ? a : b;
}

static int32_t smaller(const ek_binary_t *p, int32_t a, int32_t b)
{
    (void)p;
    return a < b ? a : b;
}

static void each(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y,
                 int32_t (*of)(const ek_binary_t *, int32_t, int32_t))
{
    int32_t at[EK_DIMS] = {0};
    int32_t i = 0, j = 0, d;
    for (;;) {
        int32_t value = of(p, (int32_t)a[i] - p->a_zero, (int32_t)b[j] - p->b_zero) + p->out_zero;
        *y++ = (int8_t)ek_clamp(value, p->low, p->high);
        for (d = EK_DIMS - 1; d >= 0; d--) {
            i += p->stride_a[d];
            j += p->stride_b[d];
            if (++at[d] < p->size[d]) {
                break;
            }
            i -= at[d] * p->stride_a[d];
            j -= at[d] * p->stride_b[d];
            at[d] = 0;
        }
        if (d < 0) {
            return;
        }
    }
}

void ek_add(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    each(p, a, b, y, sum);
}

void ek_mul(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    each(p, a, b, y, product);
}

void ek_max(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    each(p, a, b, y, larger);
}

void ek_min(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y)
{
    each(p, a, b, y, smaller);
}

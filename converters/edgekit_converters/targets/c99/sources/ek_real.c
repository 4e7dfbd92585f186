/* Real numbers at the ports of a model; the only floating-point code there is. */
#include "ek_fixed.h"
#include "ek_ops.h"

/* The nearest integer, half away from zero; what is not a number becomes 0. */
static int32_t nearest(float x)
{
    int32_t whole;
    float rest;
    if (!(x > -65536.0f && x < 65536.0f)) {
        return x > 0.0f ? 65536 : (x < 0.0f ? -65536 : 0);
    }
    whole = (int32_t)x;
    rest = x - (float)whole;
    return rest >= 0.5f ? whole + 1 : (rest <= -0.5f ? whole - 1 : whole);
}

void ek_quantize(const ek_real_t *p, const float *x, int8_t *y)
{
    int32_t i;
    for (i = 0; i < p->count; i++) {
        y[i] = (int8_t)ek_clamp(nearest(x[i] / p->scale) + p->zero, INT8_MIN, INT8_MAX);
    }
}

void ek_dequantize(const ek_real_t *p, const int8_t *x, float *y)
{
    int32_t i;
    for (i = 0; i < p->count; i++) {
        y[i] = p->scale * (float)((int32_t)x[i] - p->zero);
    }
}

/* Fully connected layers. */
#include "ek_fixed.h"
#include "ek_ops.h"

void ek_dense(const ek_dense_t *p, const int8_t *x, int8_t *y)
{
    int32_t row, oc, i;
    for (row = 0; row < p->rows; row++) {
        const int8_t *w = p->weights;
        for (oc = 0; oc < p->out_c; oc++) {
            int32_t sum = p->bias != NULL ? p->bias[oc] : 0;
            int32_t s = oc * p->scales.step;
            for (i = 0; i < p->in_c; i++) {
                sum += ((int32_t)x[i] - p->in_zero) * (int32_t)w[i];
            }
            sum = ek_scale(sum, p->scales.multiplier[s], p->scales.shift[s]) + p->out_zero;
            *y++ = (int8_t)ek_clamp(sum, p->low, p->high);
            w += p->in_c;
        }
        x += p->in_c;
    }
}

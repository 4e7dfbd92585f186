/* Softmax in fixed point: the sum in Q12.19, its reciprocal by Newton's method in Q2.29. */
#include "ek_fixed.h"
#include "ek_ops.h"

#define SUM_BITS 12

/* 1 / (1 + x) for x in [0, 1) in Q0.31. */
static int32_t one_over_one_plus(int32_t x)
{
    int32_t half = (int32_t)(((int64_t)x + INT32_MAX + 1) / 2);
    int32_t guess = 1515870810 + ek_high_mul(half, -1010580540); /* 48/17 - 32/17 x */
    int i;
    for (i = 0; i < 3; i++) {
        int32_t error = ((int32_t)1 << 29) - ek_high_mul(half, guess);
        int32_t step = ek_high_mul(guess, error);
        guess += ek_clamp(step, -((int32_t)1 << 29) + 1, ((int32_t)1 << 29) - 1) * 4;
    }
    return guess > ((int32_t)1 << 30) - 1 ? INT32_MAX : guess * 2;
}

static int leading_zeros(uint32_t x)
{
    int n = 0;
    while (n < 32 && (x & 0x80000000u) == 0u) {
        x <<= 1;
        n++;
    }
    return n;
}

static void row(const ek_softmax_t *p, const int8_t *x, int8_t *y)
{
    int32_t most = INT8_MIN, sum = 0, scale, c;
    int zeros, bits;
    for (c = 0; c < p->depth; c++) {
        most = x[c] > most ? x[c] : most;
    }
    for (c = 0; c < p->depth; c++) {
        sum += ek_round_shift(p->exponents[most - x[c]], SUM_BITS);
    }
    zeros = leading_zeros((uint32_t)sum);
    scale = one_over_one_plus((int32_t)(((uint32_t)sum << zeros) - 0x80000000u));
    bits = SUM_BITS - zeros + 31 - 8;
    for (c = 0; c < p->depth; c++) {
        int32_t value = ek_round_shift(ek_high_mul(scale, p->exponents[most - x[c]]), bits) + INT8_MIN;
        y[c] = (int8_t)ek_clamp(value, INT8_MIN, INT8_MAX);
    }
}

void ek_softmax(const ek_softmax_t *p, const int8_t *x, int8_t *y)
{
    int32_t r;
    for (r = 0; r < p->rows; r++) {
        row(p, x, y);
        x += p->depth;
        y += p->depth;
    }
}

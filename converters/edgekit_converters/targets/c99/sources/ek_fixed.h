/* Fixed-point arithmetic of LiteRT's 8-bit specification, with the rounding of TFLite Micro's reference
 * kernels: a product is rounded to its high word, then a shift is rounded again ("double rounding").
 * No negative number is shifted and no signed one overflows; numbers are two's complement. */
#ifndef EK_FIXED_H
#define EK_FIXED_H

#include <stdint.h>

/* a * b * 2 / 2^32, rounded half away from zero; the one product that does not fit saturates. */
static inline int32_t ek_high_mul(int32_t a, int32_t b)
{
    int64_t product = (int64_t)a * (int64_t)b;
    int64_t nudge = product >= 0 ? ((int64_t)1 << 30) : 1 - ((int64_t)1 << 30);
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    return (int32_t)((product + nudge) / ((int64_t)1 << 31));
}

/* x / 2^bits, rounded half away from zero; 0 <= bits <= 31. */
static inline int32_t ek_round_shift(int32_t x, int bits)
{
    int32_t mask = (int32_t)(((uint32_t)1 << bits) - 1u);
    int32_t rest = x & mask;
    int32_t half = (mask >> 1) + (x < 0 ? 1 : 0);
    int32_t floor = x < 0 ? ~(~x >> bits) : x >> bits;
    return floor + (rest > half ? 1 : 0);
}

/* x * 2^bits, wrapping as the reference does; what a model asks for stays far below. */
static inline int32_t ek_left_shift(int32_t x, int bits)
{
    return (int32_t)(uint32_t)((uint64_t)(int64_t)x << bits);
}

/* x times the real number multiplier * 2^(shift - 31). */
static inline int32_t ek_scale(int32_t x, int32_t multiplier, int shift)
{
    int left = shift > 0 ? shift : 0;
    int right = shift > 0 ? 0 : -shift;
    return ek_round_shift(ek_high_mul(ek_left_shift(x, left), multiplier), right);
}

static inline int32_t ek_clamp(int32_t x, int32_t low, int32_t high)
{
    return x < low ? low : (x > high ? high : x);
}

#endif

/* The kernels: each computes one step of a model, as its constant parameters say. Tensors are int8,
 * channels last; sizes are in elements. A kernel file is shipped when the model needs it. */
#ifndef EK_OPS_H
#define EK_OPS_H

#include <stddef.h>
#include <stdint.h>

#define EK_DIMS 5

/* A multiplier and a shift for every output channel, or (step 0) one for all. */
typedef struct {
    const int32_t *multiplier;
    const int8_t *shift;
    int32_t step;
} ek_scales_t;

/* A two-dimensional convolution. Depthwise: weights are (height, width, out_c), each input channel gives
 * out_c / in_c neighbours; else they are (out_c, height, width, in_c / groups). */
typedef struct {
    int32_t batch, in_h, in_w, in_c, out_h, out_w, out_c, groups;
    int32_t k_h, k_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    int32_t in_zero, out_zero, low, high;
    const int8_t *weights;
    const int32_t *bias;
    ek_scales_t scales;
} ek_conv_t;

void ek_conv(const ek_conv_t *p, const int8_t *x, int8_t *y);
void ek_depthwise(const ek_conv_t *p, const int8_t *x, int8_t *y);

/* Fully connected: `rows` samples of `in_c` numbers, weights (out_c, in_c). */
typedef struct {
    int32_t rows, in_c, out_c, in_zero, out_zero, low, high;
    const int8_t *weights;
    const int32_t *bias;
    ek_scales_t scales;
} ek_dense_t;

void ek_dense(const ek_dense_t *p, const int8_t *x, int8_t *y);

/* Pooling; the padding takes no part. */
typedef struct {
    int32_t batch, in_h, in_w, channels, out_h, out_w;
    int32_t k_h, k_w, stride_h, stride_w, pad_top, pad_left, low, high;
} ek_pool_t;

void ek_average_pool(const ek_pool_t *p, const int8_t *x, int8_t *y);
void ek_max_pool(const ek_pool_t *p, const int8_t *x, int8_t *y);

/* Two tensors, one of which may be repeated along a dimension (stride 0). The output may lie on an input
 * that is not repeated. `sign` is -1 for a difference. */
typedef struct {
    int32_t size[EK_DIMS], stride_a[EK_DIMS], stride_b[EK_DIMS];
    int32_t a_zero, b_zero, out_zero, low, high, sign, left_shift;
    int32_t a_multiplier, a_shift, b_multiplier, b_shift, multiplier, shift;
} ek_binary_t;

void ek_add(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void ek_mul(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void ek_max(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y);
void ek_min(const ek_binary_t *p, const int8_t *a, const int8_t *b, int8_t *y);

/* Softmax over rows; exponents[d] is exp of the d-th step below the largest number, in Q0.31. */
typedef struct {
    int32_t rows, depth;
    const int32_t *exponents;
} ek_softmax_t;

void ek_softmax(const ek_softmax_t *p, const int8_t *x, int8_t *y);

/* Any function of one 8-bit number, as a table by the number's bits. */
typedef struct {
    int32_t count;
    const int8_t *table;
} ek_lookup_t;

void ek_lookup(const ek_lookup_t *p, const int8_t *x, int8_t *y);

/* The mean over the dimensions of `over`, for each element of the dimensions of `kept`. */
typedef struct {
    int32_t kept[EK_DIMS], kept_stride[EK_DIMS], over[EK_DIMS], over_stride[EK_DIMS];
    int32_t in_zero, out_zero, count, multiplier, shift;
} ek_mean_t;

void ek_mean(const ek_mean_t *p, const int8_t *x, int8_t *y);

/* Elements moved from one place to another: pad, concatenate, transpose, slice, split. With `fill` the
 * whole output becomes `value` first. */
typedef struct {
    int32_t size[EK_DIMS], from_stride[EK_DIMS], to_stride[EK_DIMS], from, to;
    int32_t fill, value;
} ek_move_t;

void ek_move(const ek_move_t *p, const int8_t *x, int8_t *y);

/* Between real numbers and integers, at the ports of a model. */
typedef struct {
    int32_t count, zero;
    float scale;
} ek_real_t;

void ek_quantize(const ek_real_t *p, const float *x, int8_t *y);
void ek_dequantize(const ek_real_t *p, const int8_t *x, float *y);

#endif

/* Our own linear algebra: quantised features, pooling, scores, top-k (OpenBLAS where it is a product). Layer: learn.
 *
 * All functions are pure and thread-safe; none blocks. OpenBLAS is held to one thread: parallelism is ours, one
 * stream a core. Where a result is stored, the sum runs in a fixed order, so that the same input gives the same
 * bytes on any run (this is why pooling is a plain loop).
 */
#ifndef KX_LEARN_LEARN_H
#define KX_LEARN_LEARN_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/error.h"

/* Affine u8 codes of one row: lo = min, step = (max - min) / 255, code = round((x - lo) / step).
 * A constant row has step 0. in: [dim] finite floats. */
void kx_learn_quantize(const float *in, size_t dim, uint8_t *codes, float *ret_lo, float *ret_step);
void kx_learn_dequantize(const uint8_t *codes, size_t dim, float lo, float step, float *out);

/* Symmetric i8 codes of a unit vector: scale = max|x| / 127. */
void kx_learn_quantize_i8(const float *in, size_t dim, int8_t *codes, float *ret_scale);
void kx_learn_dequantize_i8(const int8_t *codes, size_t dim, float scale, float *out);

/* Scales to unit length in place and returns the length it had; a zero vector stays zero and returns 0. */
float kx_learn_normalize(float *v, size_t dim);

/* Signed square root of every element, then unit length: it keeps a few strong channels from deciding every
 * comparison (Jegou and Chum 2012, "Negative evidences and co-occurrences in image retrieval"). */
void kx_learn_power_normalize(float *v, size_t dim);

/* Embedding of quantised rows: dequantise, power-normalise each, mean, unit length. codes: [count][dim].
 * Rows that are zero count for nothing; if all are, out is zero. KX_ENOMEM. */
kx_status kx_learn_pool(const uint8_t *codes, const float *lo, const float *step, size_t count, size_t dim,
			float *out) KX_MUST_CHECK;

/* The embedding of a moment as it is stored: kx_learn_pool(), then kx_learn_quantize_i8(). embedding: [dim].
 * KX_ENOMEM. */
kx_status kx_learn_embed_moment(const uint8_t *codes, const float *lo, const float *step, size_t count, size_t dim,
				int8_t *embedding, float *ret_scale) KX_MUST_CHECK;

/* Mean of weighted unit vectors, unit length: acc += weight * v, then kx_learn_normalize(acc). */
void kx_learn_accumulate(float *acc, const float *v, size_t dim, float weight);

/* Scores of n classes; out may be logits. */
void kx_learn_softmax(const float *logits, size_t n, float *out);
void kx_learn_sigmoid(const float *logits, size_t n, float *out);

float kx_learn_dot(const float *a, const float *b, size_t dim);

/* out[rows] = M[rows][dim] v[dim]. */
void kx_learn_gemv(const float *m, size_t rows, size_t dim, const float *v, float *out);

/* out[rows_a][rows_b] = A[rows_a][dim] B[rows_b][dim]^T. */
void kx_learn_gemm_nt(const float *a, size_t rows_a, const float *b, size_t rows_b, size_t dim, float *out);

/* Indices of the k largest, best first, ties by the smaller index. Returns how many (min(k, n)). */
size_t kx_learn_topk(const float *scores, size_t n, size_t k, uint32_t *ret_index);

/* Holds OpenBLAS to one thread and ends those that it has started; called once, first thing in main. */
void kx_learn_init(void);

#endif

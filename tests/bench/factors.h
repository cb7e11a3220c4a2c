/* Made-up embeddings with something in them for an index to go by. For the benchmarks of this folder. */
#ifndef KX_BENCH_FACTORS_H
#define KX_BENCH_FACTORS_H

#include <stddef.h>
#include <stdint.h>

float kx_bench_normal(uint64_t *random); /* of mean 0 and deviation 1 */
/* A mixture of factors: the sum of factors[f] * matrix[f][dim]. */
void kx_bench_mix(const float *factors, const float *matrix, uint32_t count, uint32_t dim, float *ret);

/* Vectors in clusters: mixtures of 20 factors around one of 300 centres, a little thickened by noise; one in fifty is another's near
 * duplicate (cosine about .999). */
struct kx_bench_draw {
	uint32_t dim;
	float *matrix, *centres;
};
/* The same for the same dim. The program ends without memory. */
void kx_bench_draw_init(struct kx_bench_draw *draw, uint32_t dim);
void kx_bench_draw_done(struct kx_bench_draw *draw);
/* Of unit length, the same for the same number. */
void kx_bench_draw_row(const struct kx_bench_draw *draw, uint64_t number, float *ret);
/* Of the same draw, and none of the rows. */
void kx_bench_draw_query(const struct kx_bench_draw *draw, uint64_t number, float *ret);

#endif

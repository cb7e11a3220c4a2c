#include "shard/ann/ann.h"

void kx_ann_free(struct kx_ann *ann)
{
	if (ann)
		ann->ops->free(ann);
}

kx_status kx_ann_put(struct kx_ann *ann, uint32_t row, const struct kx_ann_vector *vectors, size_t count,
		     struct kx_error *error)
{
	return ann->ops->put(ann, row, vectors, count, error);
}

void kx_ann_remove(struct kx_ann *ann, uint32_t row)
{
	ann->ops->remove(ann, row);
}

kx_status kx_ann_search(const struct kx_ann *ann, const struct kx_ann_query *query, struct kx_ann_hit *ret,
			size_t *ret_count, struct kx_ann_work *work, struct kx_error *error)
{
	return ann->ops->search(ann, query, ret, ret_count, work, error);
}

double kx_ann_likeness(const struct kx_ann *ann, uint32_t a, uint32_t b, const double weight[KX_ANN_MODALITIES])
{
	return ann->ops->likeness(ann, a, b, weight);
}

static double plain_dot(const float *a, const float *b, uint32_t dim)
{
	double sum = 0.0;

	for (uint32_t i = 0; i < dim; i++)
		sum += (double)a[i] * (double)b[i];
	return sum > 1.0 ? 1.0 : sum < -1.0 ? -1.0 : sum;
}

void kx_ann_hit_share(struct kx_ann_hit *hit, const struct kx_ann_query *query, const struct kx_ann_vector *vector,
		      const float *values)
{
	int m = (int)vector->modality - KX_VISUAL;

	hit->has[m] = true;
	hit->share[m] = query->weight[m] * plain_dot(vector->values, values, vector->dim);
}

bool kx_ann_hit_score(struct kx_ann_hit *hit, const struct kx_ann_query *query)
{
	double weights = 0.0;

	for (int m = 0; m < KX_ANN_MODALITIES; m++)
		weights += hit->has[m] ? query->weight[m] : 0.0;
	if (weights <= 0.0)
		return false;
	for (int m = 0; m < KX_ANN_MODALITIES; m++) {
		hit->share[m] /= weights;
		hit->score += hit->share[m];
	}
	return true;
}

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

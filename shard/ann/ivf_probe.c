/* What efforts find for one query: the pieces that a tuning beside changes is put together from. */
#include "shard/ann/ivf_impl.h"

#define FIRST 0.37f
#define STEP 1.4884f     /* of kx_ivf_tune() every second one */
#define THOROUGH 5.0f
#define ROUNDS 20u

float kx_ivf_probe_effort(uint32_t point)
{
	float effort = FIRST;

	while (point--)
		effort *= STEP;
	return effort;
}

/* The recall that an effort is taken for by now, which is what the width of its bounds follows from. */
static double recall_of(const struct kx_ivf *ivf, float effort)
{
	double low = 0.0, high = 0.9999;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		double middle = (low + high) / 2;

		if (kx_ivf_how_of(&ivf->tuning, middle).effort < effort)
			low = middle;
		else
			high = middle;
	}
	return low;
}

kx_status kx_ivf_probe(const struct kx_ivf *ivf, const struct kx_ivf_query *query, uint32_t point,
		       struct kx_ivf_scratch *scratch, struct kx_ivf_hit *ret, uint32_t *ret_count, struct kx_error *error)
{
	const bool thorough = point == KX_IVF_PROBE_THOROUGH;
	const float effort = thorough ? THOROUGH : kx_ivf_probe_effort(point);
	struct kx_ivf_how how = kx_ivf_how_of(&ivf->tuning, thorough ? 1.0 : recall_of(ivf, effort));

	how.effort = effort;
	return kx_ivf_search_with(ivf, query, &how, scratch, ret, ret_count, NULL, error);
}
